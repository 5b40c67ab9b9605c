"""What of MLflow's server is reached, and where it is told to keep files.

MLflow serves much more than runs and models: an assistant that runs commands, jobs, a gateway,
webhooks. And it opens whatever place a client names as the source of a version or as the home of an
experiment, with its own keys. So behind the guard that asks for the credential
(flows.adapters.guard), each request is asked:

1. is its path one that S3T or a person who looks at runs needs? Else: 404. What a later MLflow adds
   is closed
2. is it HTTP? MLflow has no websocket that anybody needs here: closed
3. does its document name a place for files? Then one within MLflow's own artifacts, in MLflow's own
   words (`mlflow-artifacts:`, `models:`, `runs:`): another bucket, directory or address is refused,
   403. A document that is not JSON is one that MLflow might read otherwise: 400

A document is read as MLflow reads it: members by their names or protobuf's JSON names, also where a
text holds it.
"""

import json
import re
from collections.abc import Iterator

from flows.adapters.guard import App, Message, Receive, Scope, Send

OPEN_PATHS = frozenset({"/health"})
REALM = "MLflow of S3T"
_ROUTED = re.compile(
    r"/(health|version|graphql|get-artifact|model-versions/get-artifact|static-files/.+)?"
    r"|/(ajax-)?api/2\.0/mlflow/(artifacts|experiments|metrics|model-versions|registered-models|logged-models)(/.+)?"
    r"|/(ajax-)?api/2\.0/mlflow/runs/(?!create-promptlab-run).+"
    r"|/ajax-api/2\.0/mlflow/upload-artifact"
    r"|/(ajax-)?api/2\.0/mlflow-artifacts/.+"
    r"|/(ajax-)?api/3\.0/mlflow/server-info"
)
_OF_FILES = re.compile(r"/(ajax-)?api/2\.0/(mlflow-artifacts/artifacts/.+|mlflow/upload-artifact)")
"""What is sent there is a file's content, whatever it looks like."""
_PLACES = frozenset({"source", "artifactlocation", "artifacturi"})
"""Members that name a place, without underscores and in lower case."""
_OWN_PLACE = re.compile(r"(mlflow-artifacts|models|runs):(/[^/\\%?#\x00-\x1f\x7f]+)+/?")
_POLICY_VIOLATION = 1008
_SENTENCES = {
    400: ("MALFORMED_REQUEST", "expected a JSON document, got something else; send one"),
    403: (
        "PERMISSION_DENIED",
        "expected a source or artifact_location within this server's own artifacts (models:, "
        "runs:, mlflow-artifacts:), got another place; log the files to a run here first",
    ),
    404: (
        "ENDPOINT_NOT_FOUND",
        "expected a page or an address for runs, models and experiments, got another one; this "
        "server answers no others, see docs/operations.md, Ports",
    ),
}


class OwnArtifactsOnly:
    """MLflow's application `app`, for runs and models alone, with files in its own artifacts
    alone."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's own start and stop."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        elif not is_routed(scope["path"]):
            await _refuse(404, send)
        elif _OF_FILES.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        status = refusal(body)
        if status is not None:
            await _refuse(status, send)
        else:
            await self._app(scope, _again(body, receive), send)


def is_routed(path: str) -> bool:
    """Whether a request for this path reaches MLflow."""
    return _ROUTED.fullmatch(path) is not None


def refusal(body: bytes) -> int | None:
    """The HTTP status that a document is refused with; None: go on."""
    if not body:
        return None
    try:
        document = json.loads(body)
        while isinstance(
            document, str
        ):  # MLflow takes JSON in a text, as its older clients send it
            document = json.loads(document)
    except (ValueError, RecursionError):
        return 400
    return None if all(map(is_own_place, _places(document))) else 403


def is_own_place(place: object) -> bool:
    """Whether what a document names is no place at all, or one within MLflow's own artifacts, which
    reads one way."""
    if place is None or place == "":
        return True
    if not isinstance(place, str) or not _OWN_PLACE.fullmatch(place):
        return False
    return not {".", ".."}.intersection(place.split("/"))


def _places(document: object) -> Iterator[object]:
    """The values of all members that name a place, however deep."""
    left = [document]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield from (
                inner for name, inner in value.items() if name.replace("_", "").lower() in _PLACES
            )
            left += value.values()
        elif isinstance(value, list):
            left += value


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break  # the client is gone
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, for the next one who reads; after it, what comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message


async def _refuse(status: int, send: Send) -> None:
    code, text = _SENTENCES[status]
    body = json.dumps({"error_code": code, "message": text}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
