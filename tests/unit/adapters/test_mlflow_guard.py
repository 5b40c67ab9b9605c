"""What stands in front of MLflow: what it lets through, which places for files, and how it is
started. No server, no socket."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from flows.adapters.guard import Guard, Rules
from flows.adapters.mlflow_guard import (
    OPEN_PATHS,
    REALM,
    OwnArtifactsOnly,
    is_own_place,
    is_routed,
    refusal,
)
from flows.adapters.mlflow_server import PASSWORD, USER, _credential, close_settings
from s3t_core.errors import WorkspaceError
from tests.unit.adapters.test_guard import HEADER, HOST, RULES, SECRET, Inner, _scope

CREATE = "/api/2.0/mlflow/model-versions/create"
WALK = """
import json, warnings
warnings.simplefilter("ignore")
from mlflow.server import app as flask
from mlflow.server.fastapi_app import app
native = [c.path for r in app.routes if hasattr(r, "original_router") for c in r.effective_route_contexts()]
print(json.dumps([native, [r.rule for r in flask.url_map.iter_rules()]]))
"""  # noqa: E501
NEEDED = {
    "",
    "artifacts",
    "experiments",
    "get-artifact",
    "graphql",
    "health",
    "logged-models",
    "metrics",
    "mlflow-artifacts",
    "model-versions",
    "registered-models",
    "runs",
    "server-info",
    "static-files",
    "upload-artifact",
    "version",
}
"""The first part of each address that answers, without the beginning of an API's."""


class Reader(Inner):
    """An application that reads the whole body, as MLflow does, and keeps it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        self.reached.append(body.decode())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})


def _ask(path: str, *parts: bytes, kind: str = "http") -> tuple[int, list[str]]:
    """The status of an answer, or of a websocket's end, and what reached the application."""
    inner, sent = Reader(), []
    coming = iter(
        [
            {"type": "http.request", "body": p, "more_body": n + 1 < len(parts)}
            for n, p in enumerate(parts)
        ]
    )

    async def receive() -> Any:
        return next(coming, {"type": f"{kind}.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(OwnArtifactsOnly(inner)(_scope(kind, [HOST], path), receive, send))
    return int(sent[0].get("status", sent[0].get("code"))), inner.reached


@pytest.fixture(scope="module")
def routes() -> list[str]:
    """Every address that MLflow's application has, with its placeholders."""
    done = subprocess.run([sys.executable, "-c", WALK], capture_output=True, text=True, check=True)
    native, flask = json.loads(done.stdout.splitlines()[-1])
    assert len(native) > 20 and len(flask) > 200
    return [*native, *flask]


def test_of_all_that_mlflow_has_only_runs_models_and_experiments_are_reached(
    routes: list[str],
) -> None:
    open_ones = [r for r in routes if is_routed(r)]
    firsts = {
        r.removeprefix("/ajax-")
        .removeprefix("/")
        .removeprefix("api/2.0/")
        .removeprefix("api/3.0/")
        .removeprefix("mlflow/")
        .partition("/")[0]
        for r in open_ones
    }
    assert firsts == NEEDED
    dangerous = (
        "assistant",
        "jobs",
        "gateway",
        "webhooks",
        "scorer",
        "traces",
        "prompt",
        "invoke",
        "workspaces",
        "mcp",
        "demo",
        "evaluate",
        "issues",
        "review",
        "label",
        "datasets/",
        "telemetry",
    )
    assert all(any(word in r for r in routes) for word in dangerous)
    assert not [r for r in open_ones if any(word in r for word in dangerous)]


@pytest.mark.parametrize(
    "path",
    [
        "/ajax-api/3.0/mlflow/assistant/config",
        "/ajax-api/3.0/mlflow/jobs/1",
        "/gateway/x/mlflow/invocations",
        "/v1/traces",
        "/ajax-api/3.0/mlflow/something-new",
        "/api/2.0/mlflow/runs/create-promptlab-run",
        "/static-files/",
        "/api/2.0/mlflow/runs",
        "/api/2.0/mlflow/runs\n",
        "/API/2.0/mlflow/runs/get",
        "/x/api/2.0/mlflow/runs/get",
        "/api/2.0/mlflow/experimentsx/get",
        "/health/",
        "/healthy",
        "/ajax-api/2.0/mlflow/gateway-proxy",
        "",
    ],
)
def test_every_other_address_is_not_found(path: str) -> None:
    assert _ask(path, b"{}") == (404, [])


def test_a_websocket_is_closed() -> None:
    assert _ask("/", kind="websocket") == (1008, [])


@pytest.mark.parametrize(
    "place",
    [
        "s3://s3t/main/dvc",
        "s3://mlflow/artifacts",
        "file:///etc",
        "/etc",
        "etc",
        "S3://s3t/x",
        " s3://s3t/x",
        "http://evil/x",
        "mlflow-artifacts://evil/x",
        "mlflow-artifacts:",
        "mlflow-artifacts:/",
        "mlflow-artifacts:x",
        "mlflow-artifacts:/a/../../s3t",
        "mlflow-artifacts:/a/./b",
        "mlflow-artifacts:/a/%2e%2e/b",
        "dbfs:/x",
        "mlflow-artifacts:/a//b",
        "models:/m?x=1",
        "models:/m#x",
        "models:/m\\x",
        "models:/m\nx",
        "MODELS:/m-1",
        "xmodels:/m-1",
        7,
        ["models:/m-1"],
        {},
        True,
    ],
)
def test_a_place_outside_mlflows_own_artifacts_is_refused_in_every_spelling(place: Any) -> None:
    assert not is_own_place(place)
    for document in (
        {"source": place},
        {"artifact_location": place},
        {"artifactLocation": place},
        {"ARTIFACT_URI": place},
        [{"a": [{"b": {"source": place}}]}],
        {"source": "models:/m-1", "b": {"source": place}},
    ):
        for body in (
            json.dumps(document),
            json.dumps(json.dumps(document)),
            json.dumps(document).encode("utf-16"),
        ):
            given = body if isinstance(body, bytes) else body.encode()
            assert _ask(CREATE, given) == (403, [])
    whole = json.dumps({"name": "n", "source": place}).encode()
    assert _ask(CREATE, whole[:9], whole[9:]) == (403, [])


@pytest.mark.parametrize(
    "place",
    [
        "models:/m-0123abcd",
        "models:/my model/3",
        "models:/name@champion",
        "runs:/abc/model",
        "mlflow-artifacts:/1/abc/artifacts",
        "mlflow-artifacts:/1/",
        "",
        None,
    ],
)
def test_a_place_in_mlflows_own_artifacts_goes_through_as_it_was_sent(place: Any) -> None:
    body = json.dumps({"name": "n", "source": place, "artifact_location": place})
    assert _ask(CREATE, body[:7].encode(), body[7:].encode()) == (200, [body])
    assert _ask("/api/2.0/mlflow/runs/search", b"") == (200, [""])


@pytest.mark.parametrize(
    "body", [b"{", b"source=s3://s3t", b"\xff\xfe\x00", b'"{"', b"[" * 100_000, b" "]
)
def test_a_document_that_mlflow_might_read_otherwise_is_refused(body: bytes) -> None:
    assert refusal(body) == 400 and _ask(CREATE, body) == (400, [])


@pytest.mark.parametrize(
    "path",
    [
        "/api/2.0/mlflow-artifacts/artifacts/1/a/artifacts/x.json",
        "/ajax-api/2.0/mlflow/upload-artifact",
    ],
)
def test_a_files_content_is_nobodys_document(path: str) -> None:
    body = b'{"source": "s3://s3t/main"}'
    assert _ask(path, body[:5], body[5:]) == (200, [body.decode()])


def test_a_browser_is_asked_for_the_credential_only_where_pages_are_served() -> None:
    asked = Rules(RULES.hosts, "basic", SECRET, OPEN_PATHS, realm=REALM)
    assert _refused(asked, (HOST,)) == (401, f'Basic realm="{REALM}"'.encode())
    assert _refused(RULES, (HOST,)) == (401, None)
    for rules in (asked, RULES):
        assert _refused(rules, (HOST, HEADER, ("origin", "http://evil.example"))) == (403, None)


def _refused(rules: Rules, headers: tuple[tuple[str, str], ...]) -> tuple[int, bytes | None]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(Inner(), rules)(_scope("http", headers, "/"), None, send))  # type: ignore[arg-type]
    return sent[0]["status"], dict(sent[0]["headers"]).get(b"www-authenticate")


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("", "a-password-of-this-test"),
        ("s3t", ""),
        ("s3t", "short"),
        ("s3t", "with a blank in the middle of it"),
        ("s3t:x", "a-password-of-this-test"),
    ],
)
def test_without_a_credential_that_is_one_there_is_no_start(
    monkeypatch: pytest.MonkeyPatch, user: str, password: str
) -> None:
    monkeypatch.setenv(USER, "s3t")
    monkeypatch.setenv(PASSWORD, "a-password-of-this-test")
    assert _credential() == "s3t:a-password-of-this-test"
    monkeypatch.setenv(USER, user)
    monkeypatch.setenv(PASSWORD, password)
    with pytest.raises(WorkspaceError, match="expected"):
        _credential()


def test_whoever_starts_it_has_no_say_in_what_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "true",
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "*",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "*",
        PASSWORD: "secret",
        "MLFLOW_ENABLE_REMOTE_ASSISTANT": "true",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "s3://s3t",
        "_MLFLOW_IN_JOB_EXECUTOR": "true",
        "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:1",
        "HOME": "h",
    }
    monkeypatch.setattr(os, "environ", dict(told))
    close_settings("sqlite:///x.db", "s3://mlflow/artifacts", {"127.0.0.1:5500", "mlflow"})
    left = dict(os.environ)
    assert {name for name in told if left.get(name) == told[name]} == {
        "HOME",
        "MLFLOW_S3_ENDPOINT_URL",
    }
    assert left["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == left["_MLFLOW_IN_JOB_EXECUTOR"] == "false"
    assert left["MLFLOW_SERVER_ALLOWED_HOSTS"] == "127.0.0.1:5500,mlflow" and PASSWORD not in left
    assert left["_MLFLOW_SERVER_ARTIFACT_ROOT"] == "mlflow-artifacts:/"
