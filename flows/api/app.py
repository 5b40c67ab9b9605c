"""The application behind the door: addresses, errors, health."""

import asyncio
import time
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from flows.api import answers, chat, evidence, intake, problems, requests, standing
from flows.api.bodies import Health
from flows.api.callers import Callers
from flows.api.desk import Desk, IntakeDesk
from flows.api.problems import Problem, Refused
from flows.use_cases.tokens import book_of
from flows.workspace.workspace import Workspace
from s3t_core.errors import S3TError

_READY_SECONDS = 1.0
LIVE, READY = "/health/live", "/health/ready"
_PREFIX = "/api/v1"
_ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "content": {problems.MEDIA_TYPE: {}}, "description": description}
    for code, description in {
        400: "no JSON, or no plain request",
        401: "no token, or one that opens nothing",
        403: "a token of another role, or a request from another web page",
        404: "nothing of that name is there",
        405: "a method that this address does not take",
        408: "the request came too slowly",
        409: "well formed, and does not fit how things stand",
        413: "the body is too large",
        421: "a Host that is not this server's",
        422: "other members or values than described",
        429: "too many requests of one token",
        500: "what the guarantees rest on does not hold, or nobody foresaw it",
        503: "it cannot be done now: a lock is held, a place is away. Ask again",
    }.items()
}


def _look(workspace: Workspace) -> None:
    """That the ledger, as it was signed, the key that signs and the tokens are there. Raises what
    says otherwise."""
    workspace.heads.check(workspace.ledger)
    workspace.signing.signing_key()
    book_of(workspace).all()


class _Readiness:
    """Whether a request could be taken, found out at most once a second: anybody may ask."""

    def __init__(self) -> None:
        self._asked, self._ready = float("-inf"), False
        self._finding = asyncio.Lock()

    async def now(self, desk: Desk) -> bool:
        """As it was a second ago at the earliest."""
        async with self._finding:
            if time.monotonic() - self._asked > _READY_SECONDS:
                try:
                    await desk.read(_look)
                    self._ready = True
                except (S3TError, Refused):
                    self._ready = False
                self._asked = time.monotonic()
            return self._ready


def make_app(desk: Desk, callers: Callers) -> FastAPI:
    """The application: everything below /api/v1 and /v1 wants a token, health does not. That of a
    host apart has what takes requests alone."""
    if isinstance(desk, IntakeDesk):
        return _app(desk, callers, [intake.router])
    app = _app(desk, callers, [requests.router, evidence.router, standing.router, answers.router])
    app.include_router(chat.router, prefix=problems.OPENAI, responses=_ERRORS)
    return app


def _app(desk: Desk, callers: Callers, parts: list[APIRouter]) -> FastAPI:
    app = FastAPI(
        title="S3T",
        version=version("s3t"),
        description="Deletion requests, decisions and evidence of one workspace. Send "
        "`Authorization: Bearer TOKEN`; `s3t token make` makes one.",
        openapi_url=f"{_PREFIX}/openapi.json",
        docs_url=None,  # pages that load code from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.desk, app.state.callers, app.state.readiness = desk, callers, _Readiness()
    for part in parts:
        app.include_router(part, prefix=_PREFIX, responses=_ERRORS)
    app.add_exception_handler(S3TError, problems.of_error)
    app.add_exception_handler(Refused, problems.of_refusal)
    app.add_exception_handler(RequestValidationError, problems.of_body)
    app.add_exception_handler(HTTPException, problems.of_http)
    app.add_exception_handler(Exception, problems.of_unexpected)

    @app.get(LIVE, tags=["health"])
    async def live() -> Health:
        """That the door answers."""
        return {"ready": True}

    @app.get(READY, tags=["health"], responses={503: {"model": Health}})
    async def ready(request: Request, response: Response) -> Health:
        """Whether it can take a request: ledger and database are there and whole."""
        is_ready = await request.app.state.readiness.now(request.app.state.desk)
        response.status_code = 200 if is_ready else 503
        return {"ready": is_ready}

    return app
