"""Limits in front of the application: how much one may send, how long one may take to send it, how
long an answer may take; and what is left of an error that nobody foresaw: its kind alone.

No log and no answer has anything of what was sent.
"""

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import MutableMapping

from flows.adapters.guard import App, Message, Receive, Scope, Send
from flows.api.problems import Refused, problem

_MOST_TOKENS = 10_000


class Limits:
    """`app` for requests of at most `most_bytes`, whose body comes within `seconds`."""

    def __init__(
        self,
        app: App,
        most_bytes: int,
        seconds: float,
    ) -> None:
        self._app, self._most_bytes, self._seconds = app, most_bytes, seconds

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer, body = _Answer(send), _Body(receive, self._most_bytes, self._seconds)
        try:
            await self._app(scope, body.receive, answer.send)
        except Refused as refused:
            await answer.instead(scope, receive, refused)
        except Exception as error:  # it is answered: nobody is told more than its kind
            print(f"s3t: the door failed: {type(error).__name__}", file=sys.stderr)  # noqa: T201


class _Answer:
    """What goes out, and whether anything has."""

    def __init__(
        self,
        send: Send,
    ) -> None:
        self._send, self._begun = send, False

    async def send(
        self,
        message: Message,
    ) -> None:
        self._begun = True
        await self._send(message)

    async def instead(
        self,
        scope: Scope,
        receive: Receive,
        refused: Refused,
    ) -> None:
        """Tell of a refusal, where nothing else was told yet."""
        if not self._begun:
            headers = {**refused.headers, "connection": "close"}
            response = problem(
                refused.status, refused.kind, refused.detail, headers, scope.get("path", "")
            )
            await response(scope, receive, self.send)


class _Body:
    """What comes in, as long as it is not too much and does not come too slowly."""

    def __init__(
        self,
        receive: Receive,
        most_bytes: int,
        seconds: float,
    ) -> None:
        self._receive, self._left = receive, most_bytes
        self._most, self._until = most_bytes, time.monotonic() + seconds
        self._whole = False

    async def receive(self) -> Message:
        if self._whole:  # nothing more is due: what comes is the end of the connection
            return await self._receive()
        wait = self._until - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(wait, 0))
        except TimeoutError:
            raise Refused(
                408,
                "TooSlow",
                "expected the whole request in time, got a part of it. Send it again",
            ) from None
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
        if self._left < 0:
            raise Refused(
                413,
                "TooLarge",
                f"expected a body of at most {self._most} bytes, got more. Send it in parts",
            )
        return message


class Rate:
    """How often each token may ask: `per_minute`, in bursts of as many seconds' worth as fit into
    one of ten (a token bucket)."""

    def __init__(
        self,
        per_minute: int,
    ) -> None:
        self._per_second = per_minute / 60
        self._most = max(1.0, per_minute / 6)
        self._there: MutableMapping[str, tuple[float, float]] = OrderedDict()

    def take(
        self,
        token: str,
        now: float | None = None,
    ) -> None:
        """One request of this token. Raises Refused (429) where it asks too often."""
        at = time.monotonic() if now is None else now
        left, since = self._there.pop(token, (self._most, at))
        left = min(self._most, left + (at - since) * self._per_second)
        self._there[token] = (left - 1 if left >= 1 else left, at)
        if len(self._there) > _MOST_TOKENS:
            self._there.pop(next(iter(self._there)))
        if left < 1:
            wait = max(1, round((1 - left) / self._per_second))
            raise Refused(
                429,
                "TooOften",
                "expected fewer requests of one token, got more than [api] per_minute. Wait "
                f"{wait} s",
                {"retry-after": str(wait)},
            )
