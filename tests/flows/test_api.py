"""The HTTP door at a real port: the walk of docs/http.md, closed to whoever has no token, kept open
by `s3t serve`, and a request that goes through it from its beginning to its certificate."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from flows.adapters.doors import Door
from flows.adapters.tables import CALLBACKS
from flows.api.server import serve
from flows.prefect_flows.erase import erase
from flows.use_cases.callbacks import send_due, signing_secret
from flows.use_cases.predicting import champion_of
from flows.use_cases.tokens import make_token
from flows.use_cases.verifying import verify_path
from flows.workspace.workspace import Workspace
from s3t_core.errors import UsageError
from tests.flows.conftest import CANARY, CANARY_TEXT
from tests.flows.test_cli import S3T, environment
from tests.flows.test_doors import REFUSED, _free_port, _raw, _until
from tests.receiver import check_signed, receiving

DOCS = Path(__file__).parents[2] / "docs" / "http.md"
REQUESTS = "/api/v1/requests"


@contextmanager
def opened(place: Workspace, port: int = 0) -> Iterator[str]:
    """The door of a workspace, in threads of this process."""
    stop, began, told = threading.Event(), threading.Event(), list[str]()

    def tell(url: str) -> None:
        told.append(url)
        began.set()

    thread = threading.Thread(target=serve, args=(place, Door(port=port), stop, tell))
    thread.start()
    try:
        assert began.wait(60)
        yield told[0]
    finally:
        stop.set()
        thread.join()


def _token(place: Workspace, *roles: str) -> str:
    return make_token(place, "privacy desk", roles, 1)["token"]


def _client(url: str, token: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", DOCS.read_text(), re.DOTALL)


@pytest.fixture
def place(trained: Callable[..., Workspace]) -> Workspace:
    """Trained, with somebody in it whom a scan would find."""
    return trained(canary=True)


def test_the_walk_of_the_documentation_is_what_happens(place: Workspace, tmp_path: Path) -> None:
    tokens = {n: _token(place, n.lower()) for n in ("ASKS", "DECIDES", "AUDITS", "PREDICTS")}
    shell, (python,) = "\n".join(_blocks("sh")), _blocks("python")
    with opened(place) as url:
        env = {**os.environ, **tokens, "S3T_URL": url, "PATH": _path()}
        walk = shell.replace("curl -sS", "curl -sS --fail-with-body")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", walk],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        again = subprocess.run(
            [sys.executable, "-c", python],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert again.returncode == 0, again.stderr
    taken = json.loads((tmp_path / "taken.json").read_text())["requests"][0]
    state = Workspace(place.root).ledger.state()
    assert state.requests[taken["id"]].extended_from == taken["due"]
    assert state.approved == {taken["id"]: "privacy desk"}
    assert "3 pending" in again.stdout and "404 " in again.stdout


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def test_without_a_token_or_from_another_page_nothing_is_told_or_done(place: Workspace) -> None:
    """Raw requests, as a hostile reader sends them, at the port itself."""
    token = _token(place, "asks", "audits")
    with opened(place) as url:
        port = int(url.rpartition(":")[2])
        host, bearer = f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {token}"
        assert _raw(port, "GET /api/v1/token HTTP/1.1", host, bearer) == 200
        for line in ("GET /api/v1/token HTTP/1.1", f"POST {REQUESTS} HTTP/1.1"):
            for more in (
                [host],
                [host, "Authorization: Bearer x"],
                [host, f"Authorization: Basic {token}"],
                [host, bearer, bearer],
                [host, bearer, "Origin: https://evil.example"],
                [host, bearer, "Origin: null"],
                [host, bearer, "Sec-Fetch-Site: cross-site"],
                ["Host: evil.example", bearer],
                ["Host: 127.0.0.1", bearer],
                [bearer],
            ):
                assert _raw(port, line, *more) in REFUSED, more
        assert _raw(port, f"GET /api/v1/../v1/token?t={token} HTTP/1.1", host) in REFUSED
        assert _raw(port, "GET /health/live HTTP/1.1", host) == 200
        assert _raw(port, "GET /health/live HTTP/1.1", "Host: evil.example") == 421
        upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        key = "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg=="
        assert _raw(port, "GET /api/v1/token HTTP/1.1", host, *upgrade, key) in {*REFUSED, 404}
    assert not Workspace(place.root).requests.open_now()


def test_a_port_that_is_taken_is_told(place: Workspace) -> None:
    with opened(place) as url, pytest.raises(UsageError, match="free port"):
        serve(place, Door(port=int(url.rpartition(":")[2])), threading.Event())


def test_from_a_request_by_http_to_a_certificate_that_verifies(
    place: Workspace, tmp_path: Path
) -> None:
    """Asked, approved and fetched over HTTP; erased meanwhile by the flow that schedules run, while
    more is asked; what became of it comes to a receiver once. Nothing of the person's id is in a
    log, an answer or a callback."""
    path = place.root / "s3t.toml"
    path.write_text(path.read_text().replace("needs_approval = false", "needs_approval = true"))
    with receiving(tmp_path / "receiver") as receiver:
        told = path.read_text().replace("targets = []", f'targets = ["{receiver.url}"]')
        path.write_text(told)
        assert send_due(Workspace(place.root), receiver.sender())["delivered"] == 0
        request, others = _walked(Workspace(place.root))
        place = Workspace(place.root)
        send_due(place, receiver.sender())
    assert len(set(receiver.ids)) == len(receiver.ids)
    secret = signing_secret(place, receiver.url)
    came: dict[str, list[str]] = {}
    for headers, body, _ in receiver.came:
        check_signed(secret, headers, body)
        assert CANARY.encode() not in body
        message = json.loads(body)
        came.setdefault(message["data"]["id"], []).append(message["type"])
    told_of = ["request.accepted", "request.approved", "request.closed"]
    assert sorted(came.pop(request)) == told_of  # in whatever order
    assert came == {other: ["request.accepted"] for other in others}


def _walked(place: Workspace) -> tuple[str, set[str]]:
    """A request from its beginning to its certificate, and what was asked meanwhile."""
    with (
        opened(place) as url,
        _client(url, _token(place, "asks")) as asks,
        _client(url, _token(place, "decides")) as decides,
        _client(url, _token(place, "audits")) as audits,
        _client(url, _token(place, "predicts")) as predicts,
    ):
        texts = ["words of nobody", CANARY_TEXT]
        before = predicts.post("/api/v1/predict", json={"texts": texts})
        assert before.json()["answers"] == champion_of(place).predict(texts)
        assert before.json()["version"] == place.ledger.state().champion.version
        asked = asks.post(REQUESTS, json={"subjects": [CANARY]})
        assert asked.status_code == 201 and CANARY not in asked.text
        (request,) = asked.json()["requests"]
        assert request["state"] == "awaiting approval"
        assert decides.post(f"{REQUESTS}/{request['id']}/approve").json()["state"] == "pending"
        late: list[httpx.Response] = []
        ended = threading.Event()

        def ask_on() -> None:
            number = 0
            while not ended.is_set():
                late.append(asks.post(REQUESTS, json={"subjects": [f"later {number}"]}))
                number += 1

        asking = threading.Thread(target=ask_on)
        asking.start()
        done: dict[str, Any] = erase(str(place.root))
        ended.set()
        asking.join()
        assert [c["request"] for c in done["certificates"]] == [request["id"]]
        after = predicts.post("/api/v1/predict", json={"texts": texts}).json()
        assert after["version"] == done["version"] != before.json()["version"]
        assert after["answers"] == champion_of(Workspace(place.root)).predict(texts)
        wrong = predicts.post("/api/v1/predict", json={"pairs": [[CANARY_TEXT, "b"]]})
        assert wrong.status_code == 422 and CANARY_TEXT not in wrong.text
        taken = [r for r in late if r.status_code == 201]
        assert taken  # others were told to ask again, and are nowhere
        assert {r.status_code for r in late if r not in taken} <= {503}
        shown = asks.get(f"{REQUESTS}/{request['id']}").json()
        assert shown["state"] == "closed" and shown["rows"] is None
        whole = audits.get(f"{REQUESTS}/{request['id']}").json()
        assert whole["rows"] == done["certificates"][0]["rows"] > 0 and [
            h["event"] for h in whole["history"]
        ][:3] == [
            "request",
            "approved",
            "planned",
        ]
        certificate = audits.get(f"{REQUESTS}/{request['id']}/certificate")
        bundle = audits.get("/api/v1/bundle")
        report = audits.post("/api/v1/reports", json={"since": "30d"})
        assert report.status_code == 201, report.text
        named = f"/api/v1/reports/{report.json()['report']}/report.json"
        signed = audits.get(named)
        assert audits.get("/api/v1/versions").json()["versions"][0]["cause"] == "erasure"
        plan = audits.post("/api/v1/plan", json={"shards": "2", "runs": 100})
        assert plan.status_code == 200 and plan.json()["plans"]
    out = place.state_dir / "tmp" / "got"
    out.mkdir(parents=True)
    for name, response in (
        (f"{request['id']}.json", certificate),
        ("bundle.zip", bundle),
        ("report.json", signed),
    ):
        assert response.status_code == 200 and CANARY.encode() not in response.content
        (out / name).write_bytes(response.content)
        assert verify_path(out / name, place.keys_dir / "signing.pub")["valid"], name
    pending = set(Workspace(place.root).requests.open_now())
    assert pending == {r["id"] for each in taken for r in each.json()["requests"]}
    return request["id"], pending


@pytest.mark.slow
def test_serve_opens_the_door_once_there_is_a_token_and_closes_it_with_itself(
    place: Workspace,
) -> None:
    port = _free_port()
    path = place.root / "s3t.toml"
    told = path.read_text().replace("port = 4280", f"port = {port}")
    path.write_text(told.replace("targets = []", 'targets = ["https://localhost/hook"]'))
    serving = subprocess.Popen(
        [S3T, "serve", "--port", str(_free_port()), "--workspace", str(place.root)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        asked = [S3T, "token", "make", "privacy desk", "--role", "asks", "--json"]
        made = subprocess.run(
            [*asked, "--workspace", str(place.root)],
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        with _client(f"http://127.0.0.1:{port}", json.loads(made.stdout)["token"]) as asks:

            def answers() -> bool:
                try:
                    return asks.get("/api/v1/token").status_code == 200
                except httpx.TransportError:
                    assert serving.poll() is None
                    return False

            _until(answers)
            sent = place.state_dir / "callbacks.log"
            _until(lambda: _begun(place))
            assert asks.post(REQUESTS, json={"subjects": [CANARY]}).status_code == 201
            _until(lambda: "1 failed" in sent.read_text())
        serving.kill()  # with what it started
        serving.wait()
        _until(lambda: not _listens(port))
    finally:
        serving.kill()
        serving.wait()
    assert len(Workspace(place.root).requests.open_now()) == 1
    log = (place.state_dir / "api.log").read_text()
    assert CANARY not in sent.read_text() and sent.stat().st_mode & 0o777 == 0o600
    assert CANARY not in log and (place.state_dir / "api.log").stat().st_mode & 0o777 == 0o600


def _begun(place: Workspace) -> bool:
    """Whether what sends callbacks has looked for the first time."""
    with place.database.reading() as connection:
        return connection.execute(select(CALLBACKS)).first() is not None


def _listens(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/health/live")
    except httpx.TransportError:
        return False
    return True
