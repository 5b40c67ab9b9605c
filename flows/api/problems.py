"""Errors as problem documents (RFC 9457): what was expected, what came, and what to do next, each a
member of its own where the error tells it so. No document quotes what was sent."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from flows.api.bodies import PlanAsked, PredictAsked
from flows.api.chat_bodies import ChatAsked, ChatTurn, StreamOptions
from s3t_core.errors import (
    Busy,
    ConfigError,
    DataError,
    GuaranteeError,
    NoLiveShard,
    NotNow,
    NotThere,
    OrchestrationError,
    S3TError,
    StaleModel,
    StorageError,
    UsageError,
    WorkspaceError,
)

MEDIA_TYPE = "application/problem+json"
OPENAI = "/v1"
"""Where addresses begin at which OpenAI's clients ask."""
_PARTS = re.compile(r"expected (?P<expected>.+?), got (?P<got>.+?)(?:[;:.] (?P<do>.+))?", re.DOTALL)
_MOST_SHOWN = 5
"""Wrong values of a body that are named."""
_AGAIN_SECONDS = 5
_STATUS: tuple[tuple[type[S3TError], int], ...] = (
    (NotThere, 404),
    (NotNow, 409),
    (Busy, 503),
    (StorageError, 503),
    (OrchestrationError, 503),
    (WorkspaceError, 503),
    (ConfigError, 503),
    (DataError, 422),
    (UsageError, 422),
    (StaleModel, 503),
    (NoLiveShard, 503),
    (GuaranteeError, 500),
)


class OpenAIError(BaseModel):
    """What OpenAI's clients show of an error."""

    message: str
    type: str
    param: None = None
    code: str


class Problem(BaseModel):
    """A problem document (RFC 9457, section 3)."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    type: str = Field(
        "about:blank",
        description="which kind: `urn:s3t:problem:` and the name of the error",
        examples=["urn:s3t:problem:UsageError"],
    )
    title: str = Field(description="the status in words", examples=["Unprocessable Content"])
    status: int = Field(description="the HTTP status", examples=[422])
    detail: str = Field(description="the whole sentence")
    expected: str | None = Field(None, description="what was expected, where the detail says it")
    got: str | None = Field(None, description="what came; never a quotation of it")
    do: str | None = Field(None, description="what to do next")
    error: OpenAIError | None = Field(
        None, description="below /v1, the same as OpenAI's clients read it"
    )


class Refused(Exception):
    """An answer that is no success, with its status; what raises it is of the door itself."""

    def __init__(
        self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.headers = dict(headers or {})


def problem(
    status: int,
    kind: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    path: str = "",
) -> JSONResponse:
    """The response that tells of it, to whoever asked for `path`."""
    parts = _PARTS.fullmatch(detail)
    is_openai = path.startswith(f"{OPENAI}/")
    body = Problem(
        type=f"urn:s3t:problem:{kind}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        error=OpenAIError(message=detail, type=kind, code=kind) if is_openai else None,
        **(parts.groupdict() if parts else {}),
    )
    more = {"cache-control": "no-store", **(headers or {})}
    document = body.model_dump(exclude_none=True)
    if body.error is not None:
        document["error"] = body.error.model_dump()
    return JSONResponse(document, status, more, MEDIA_TYPE)


def of_error(request: Request, error: Exception) -> JSONResponse:
    """What an error of ours says, with the status of its kind."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    headers = {"retry-after": str(_AGAIN_SECONDS)} if status == 503 else None
    return problem(status, type(error).__name__, str(error), headers, request.url.path)


def of_unexpected(request: Request, error: Exception) -> JSONResponse:
    """Of what nobody foresaw, its kind alone."""
    return problem(
        500,
        "Unexpected",
        f"expected to answer, got {type(error).__name__}. What was done stands; ask again with the "
        "same idempotency key",
        path=request.url.path,
    )


def of_refusal(request: Request, error: Exception) -> JSONResponse:
    """What the door itself refuses."""
    assert isinstance(error, Refused)  # noqa: S101  # registered for it alone
    return problem(error.status, error.kind, error.detail, error.headers, request.url.path)


def of_body(request: Request, error: Exception) -> JSONResponse:
    """Which members of a request are wrong, and how; not what they said."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for it alone
    members = [_of_member(each) for each in error.errors()[:_MOST_SHOWN]]
    more = len(error.errors()) - len(members)
    rest = f", and {more} more" if more > 0 else ""
    return problem(
        422,
        "Malformed",
        f"expected a request as the description says, got {'; '.join(members)}{rest}. See "
        "/api/v1/openapi.json for its members",
        path=request.url.path,
    )


def of_http(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses: an address that there is not, a method, a body that is no
    JSON."""
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for it alone
    sentences = {
        400: "expected a JSON body, got something else. See /api/v1/openapi.json",
        404: "expected an address of this server, got another. See /api/v1/openapi.json",
        405: "expected a method that this address takes, got another. See /api/v1/openapi.json",
    }
    detail = sentences.get(error.status_code, HTTPStatus(error.status_code).phrase)
    return problem(error.status_code, "Http", detail, error.headers, request.url.path)


def _of_member(wrong: Mapping[str, Any]) -> str:
    """Where it stands, by names of ours and numbers alone: a name that was sent is not quoted."""
    place = ".".join(str(part) for part in wrong["loc"] if isinstance(part, int) or part in _OURS)
    return f"at {place or 'its body'}: {_WRONG.get(wrong['type'], wrong['type'].replace('_', ' '))}"


_OURS = frozenset(
    {
        *("body", "query", "path", "header", "request_id", "day", "name", "Idempotency-Key"),
        "Content-Type",
        *("subjects", "hashed", "record", "subject", "basis", "reason", "months", "since"),
        *(
            "state",
            "due_within",
            "limit",
            "cursor",
            *PlanAsked.model_fields,
            *PredictAsked.model_fields,
            *ChatAsked.model_fields,
            *ChatTurn.model_fields,
            *StreamOptions.model_fields,
        ),
    }
)
_WRONG = {
    "missing": "nothing where something must be",
    "extra_forbidden": "a member that there is not",
    "json_invalid": "what is no JSON, or says a member twice",
    "said_twice": "the same twice",
    "string_type": "no text",
    "list_type": "no list",
    "dict_type": "no object",
    "model_attributes_type": "no object",
}
