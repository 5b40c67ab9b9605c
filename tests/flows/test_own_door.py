"""`s3t predict` asks the door of its workspace where one is open, and nobody else."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.adapters import own_door as own_door_module
from flows.adapters.own_door import DOOR, DOOR_LOCK, DOOR_SOCKET, own_door
from flows.prefect_flows.erase import erase
from flows.use_cases import predicting
from flows.use_cases.predicting import answers_of, champion_of
from flows.use_cases.taking import take_requests
from flows.workspace.workspace import Workspace
from s3t_core.files import locked
from tests.flows.conftest import CANARY
from tests.flows.prepared import keep_writer
from tests.flows.test_api import opened

pytestmark = pytest.mark.slow
TEXTS = ["w1 w2 w3", "w4 w5"]


@pytest.fixture
def place(trained: Callable[..., Workspace]) -> Workspace:
    return trained(canary=True)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How often a command loads the model itself."""
    loaded: list[str] = []
    load = predicting.champion_of

    def counted(workspace: Any) -> Any:
        loaded.append("here")
        return load(workspace)

    monkeypatch.setattr(predicting, "champion_of", counted)
    return loaded


def test_a_door_answers_as_the_command_would(place: Workspace, loads: list[str]) -> None:

    wanted = champion_of(place).predict(TEXTS)
    with opened(place):
        assert answers_of(place, TEXTS, {}) == wanted and not loads
        assert (place.state_dir / DOOR).stat().st_mode & 0o777 == 0o600
    assert not (place.state_dir / DOOR).exists()
    assert answers_of(place, TEXTS, {}) == wanted and loads == ["here"]


def test_over_an_erasure_the_door_answers_by_the_version_of_now(place: Workspace) -> None:

    with opened(place):
        before = answers_of(place, TEXTS, {})
        take_requests(place, [CANARY])
        assert erase(str(place.root))["certificates"]
        after = answers_of(place, TEXTS, {})
    assert after == champion_of(Workspace(place.root)).predict(TEXTS) != before


def test_what_it_is_known_by_opens_nothing_else(place: Workspace) -> None:
    with opened(place) as url:
        secret = json.loads((place.state_dir / DOOR).read_bytes())["secret"]
        headers = {"authorization": f"Bearer {secret}"}
        status = {
            path: httpx.request(how, f"{url}{path}", headers=headers, json=body).status_code
            for how, path, body in (
                ("POST", "/api/v1/requests", {"subjects": ["person-001"]}),
                ("GET", "/api/v1/requests", None),
                ("GET", "/api/v1/report", None),
                ("GET", "/api/v1/status", None),
            )
        }
        assert set(status.values()) <= {403, 404} and 403 in status.values(), status
        assert place.requests.open_now() == []
    with opened(place) as url:
        again = httpx.post(f"{url}/api/v1/predict", headers=headers, json={"texts": TEXTS})
        assert again.status_code == 401, "it was of the door that is closed"


class _Anybody(BaseHTTPRequestHandler):
    """A process of somebody else's that has the port by now."""

    came: list[str]

    def do_POST(self) -> None:
        self.came.append(self.headers["authorization"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"answers": [{"label": "forged"}, {"label": "forged"}]}')

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def anybody() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (_Anybody,), {"came": []}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


OPEN = """
import sys, time
from pathlib import Path
from flows.adapters.own_door import own_door
with own_door(Path(sys.argv[1]), True) as own:
    own.say(int(sys.argv[2]))
    print("open", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("lock", ["free", "looked at by somebody", "held by the next door"])
def test_what_a_killed_door_left_is_not_believed(
    place: Workspace, anybody: HTTPServer, loads: list[str], lock: str
) -> None:
    """Its port is somebody else's by now, who would be sent texts, and the secret; whoever holds
    its lock for a moment, or begins another door."""
    port = str(anybody.server_address[1])
    door = subprocess.Popen(
        [sys.executable, "-c", OPEN, str(place.state_dir), port], stdout=subprocess.PIPE
    )
    assert door.stdout is not None and door.stdout.readline() == b"open\n"
    door.send_signal(signal.SIGKILL)
    door.wait()
    assert (place.state_dir / DOOR).exists()
    with ExitStack() as held:
        if lock == "looked at by somebody":
            held.enter_context(locked(place.state_dir / DOOR_LOCK))
        elif lock == "held by the next door":
            held.enter_context(own_door(place.state_dir, True))
            assert not (place.state_dir / DOOR).exists()
        answers = answers_of(place, TEXTS, {})
    assert loads == ["here"] and "forged" not in str(answers)
    assert anybody.RequestHandlerClass.came == []  # type: ignore[attr-defined]


def test_what_is_asked_goes_to_no_port(
    place: Workspace, anybody: HTTPServer, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the directory is shared with another machine, or a container, the port that a living
    door has is there anybody's."""
    monkeypatch.setattr(own_door_module, "_ANSWER_SECONDS", 0.5)
    with own_door(place.state_dir, True) as own:
        own.say(anybody.server_address[1])
        answers = answers_of(place, TEXTS, {})
    assert loads == ["here"] and "forged" not in str(answers)
    assert anybody.RequestHandlerClass.came == []  # type: ignore[attr-defined]


def test_nobody_but_the_owner_comes_by_the_socket_however_deep_it_lies(tmp_path: Path) -> None:
    state = tmp_path / ("deep " * 20) / ("deeper " * 15)
    state.mkdir(parents=True)
    with own_door(state, True) as own:
        assert own.socket is not None and (state / DOOR_SOCKET).stat().st_mode & 0o777 == 0o600
    assert not (state / DOOR_SOCKET).exists()


@pytest.mark.parametrize("how", ["others can read it", "no JSON", "no host", "nobody there", "ill"])
def test_where_the_door_cannot_be_asked_the_model_is_loaded(
    place: Workspace, loads: list[str], how: str
) -> None:
    with own_door(place.state_dir, True) as own:
        own.say(1)
        file = place.state_dir / DOOR
        if how == "nobody there":
            assert own.socket is not None
            own.socket.close()
        if how == "others can read it":
            os.chmod(file, 0o644)
        elif how == "no JSON":
            file.write_bytes(b"{")
        elif how == "no host":
            file.write_bytes(b'{"secret": "x"}')
        elif how == "ill":
            file.write_bytes(b'[["host"]]')
        assert len(answers_of(place, TEXTS, {})) == 2 and loads == ["here"]


def test_of_two_doors_one_is_found_and_one_that_speaks_tls_is_not(place: Workspace) -> None:
    state = place.state_dir
    with own_door(state, True) as first, own_door(state, True) as second:
        assert first.secret and not second.secret and second.socket is None
        second.say(1)
        assert not (state / DOOR).exists()
        first.say(2)
        assert b":2" in (state / DOOR).read_bytes()
    with own_door(state, False) as none:
        assert not none.secret and not (state / DOOR).exists()
    assert (state / DOOR_LOCK).exists()


def test_a_language_model_writes_there_as_asked(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: None, loads: list[str]
) -> None:
    place = keep_writer(tmp_path_factory.mktemp("writing")).fresh()
    params: dict[str, object] = {"temperature": 0.0, "seed": 0, "max_new_tokens": 3}
    wanted = champion_of(place).predict(["w1 w2"], params)
    with opened(place):
        assert answers_of(place, ["w1 w2"], params) == wanted and not loads
