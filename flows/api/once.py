"""What is said twice: of a member, a query's name or an idempotency key that comes twice, readers
take one or the other (RFC 8259, section 4), so that a proxy or a log before this door would have
seen another person in the request."""

import json
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

_NAMES = ("idempotency-key", "content-type")
_TWICE = "said_twice"


class OnceRoute(APIRoute):
    """A route whose requests say each thing once. What does not is refused with 422, or, in a body,
    as what is no JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        answer = super().get_route_handler()

        async def once(request: Request) -> Response:
            _check(request)
            return await answer(_Request(request.scope, request.receive))

        return once


class _Request(Request):
    """A request whose body is JSON with each member once in its object."""

    async def json(self) -> Any:
        """The body. Raises json.JSONDecodeError."""
        body = await self.body()
        return json.loads(body, object_pairs_hook=_object)


def _check(request: Request) -> None:
    """That headers which decide, and names in the query, come once."""
    query = Counter(name for name, _ in request.query_params.multi_items())
    twice = [("query", name) for name, times in query.items() if times > 1]
    twice += [("header", name.title()) for name in _NAMES if len(request.headers.getlist(name)) > 1]
    if twice:
        raise RequestValidationError([{"type": _TWICE, "loc": place} for place in twice])


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise json.JSONDecodeError("a member twice", "", 0)
    return found
