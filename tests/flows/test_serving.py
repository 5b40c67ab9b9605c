"""`s3t serve`: erasures by schedule or at once, and a kill -9 of any part of it in the middle of
one loses nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.adapters.doors import Door
from flows.adapters.shared_prefect import ADDRESS, SharedServer
from flows.prefect_flows.deployments import deployments
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.supervisor.serving import Serving
from flows.use_cases.erasing import why_erase_now
from flows.use_cases.requests import hold
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace.workspace import Workspace
from s3t_core.errors import Busy, ConfigError, UsageError
from tests.flows.conftest import people, write_csv
from tests.flows.taker import Taker
from tests.flows.test_cli import S3T, _json, environment

ROOT = Path(__file__).parents[2]
CHILD = """
import subprocess, sys, time
from pathlib import Path
if len(sys.argv) > 1:
    from flows.adapters.child import die_with_parent
    die_with_parent()
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path("pid").write_text(str(other.pid))
    time.sleep(600)
else:
    import os
    from flows.adapters.child import Child
    child = Child("kid", "go", cwd=Path("."), env=os.environ, log=Path("log"))
    while not Path("pid").exists():
        time.sleep(0.05)
    print(child._process.pid, flush=True)
    time.sleep(600)
"""


def _until(true: Callable[[], Any], seconds: float = 150, pause: float = 0.2) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(pause)


def test_children_and_theirs_die_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "kid.py").write_text(CHILD)
    parent = subprocess.Popen(
        [sys.executable, "kid.py"],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    grandchild = int((tmp_path / "pid").read_text())
    assert psutil.pid_exists(child) and psutil.pid_exists(grandchild)
    parent.kill()
    parent.wait()
    _until(lambda: not _runs(child) and not _runs(grandchild), 10)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _serving(root: Path, port: int) -> Serving:
    return Serving(root, Door(port=port), lambda _: None, threading.Event())


def test_what_serving_refuses(make_place: Callable[..., Workspace]) -> None:
    place = make_place()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="pass another with --port"):
            _serving(place.root, taken.getsockname()[1]).run()
    from flows.adapters.locks import workspace_lock

    with (
        workspace_lock(place.serve_lock_path),
        pytest.raises(Busy, match="runs for this workspace already"),
    ):
        _serving(place.root, 1).run()
    wrong = make_place("wrong", erasure={"cron": "every night"})
    with pytest.raises(ConfigError, match="cron expression"):
        _serving(wrong.root, 1).run()


def test_an_erase_run_starts_at_once_when_a_request_is_due_soon(
    make_place: Callable[..., Workspace],
) -> None:
    place = make_place(erasure={"deadline_days": 2, "at_once_hours": 24})
    assert why_erase_now(place) == ""
    taken = take_requests(place, ["person-001"])[0]
    assert why_erase_now(place) == ""  # two days are left

    class Later(type(place.clock)):  # type: ignore[misc]
        def now(self) -> Any:
            return super().now() + timedelta(hours=25)

    place.clock = Later()
    assert taken.request_id in why_erase_now(place)
    hold(place, "person-001", "17(3)(e)", "a claim is pending", "legal")
    assert why_erase_now(place) == ""  # a run could do nothing


def test_serve_registers_what_the_settings_ask_for_by_now_once_nothing_is_underway(
    make_place: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place()
    said: list[str] = []
    serving = Serving(place.root, Door(port=1), said.append, threading.Event())
    serving._registered = deployments(place.config, place.root)
    underway = iter([True, False])
    monkeypatch.setattr(Serving, "_underway", lambda _: next(underway))
    assert not serving._asks_for_others()
    cron = place.config.erasure.cron
    _change(place.root, f'cron = "{cron}"', 'cron = "every night"')
    assert not serving._asks_for_others() and not serving._asks_for_others()
    assert len(said) == 1 and "cron expression" in said[0]
    _change(place.root, 'cron = "every night"', 'cron = "5 4 * * *"')
    assert not serving._asks_for_others(), "a run would end with the runner"
    assert serving._asks_for_others() and "other schedules" in said[-1]


@contextmanager
def _served(root: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = root.parent / f"serve-{time.monotonic()}.log"
    with log.open("wb") as out:
        run = subprocess.Popen(
            [S3T, "serve", "--port", str(port)], cwd=root, env=environment(), stdout=out, stderr=out
        )
    try:
        yield run, log
    finally:
        run.send_signal(signal.SIGTERM)
        run.wait(60)


def _server_of(place: Workspace) -> int:
    return int(json.loads((place.state_dir / "prefect" / ADDRESS).read_bytes())["pid"])


def _runner_of(run: subprocess.Popen[bytes]) -> psutil.Process:
    return next(
        c
        for c in psutil.Process(run.pid).children()
        if "flows.prefect_flows.runner" in " ".join(c.cmdline())
    )


def _change(root: Path, old: str, new: str) -> None:
    text = (root / "s3t.toml").read_text()
    assert old in text
    (root / "s3t.toml").write_text(text.replace(old, new))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_serve_tells_who_took_the_port_of_its_killed_server_nothing_and_goes_on(
    make_place: Callable[..., Workspace],
) -> None:
    place = make_place()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with _served(place.root, port) as (run, log):
        _until(lambda: "Serving at" in log.read_text())
        runner = _runner_of(run)
        os.kill(_server_of(place), signal.SIGKILL)
        taker = Taker(port, None)
        try:
            _until(lambda: "trying again" in log.read_text())
            assert f"expected a free port, got {port}" in log.read_text()
            assert run.poll() is None and not _runs(runner.pid)
        finally:
            taker.close()
        assert b"HTTP" not in taker.heard, "a runner without TLS would have asked here"
        _until(lambda: log.read_text().count("Serving at") == 2)


def test_a_server_that_serve_was_not_told_a_port_for_moves_to_a_free_one(
    make_place: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = _serving(make_place().root, 4200)
    ports: list[int] = []

    def attach(itself: Serving) -> None:
        ports.append(itself._server.door.port)
        if itself._server.door.port:
            raise UsageError("expected a free port")

    monkeypatch.setattr(Serving, "_attach", attach)
    assert serving._attach_again() and ports == [4200, 0]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_requests_are_certified_by_schedule_and_a_kill_of_any_part_loses_nothing(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    place = make_place(
        erasure={"cron": "* * * * *", "at_once_hours": 0, "staleness_seconds": 4},
        deletion_budget={"policy": "all_shards_dead", "retrain_first_margin_hours": 8784},
    )
    ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people())))
    train(str(place.root))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with _served(place.root, port) as (run, log):
        _until(lambda: "Serving at" in log.read_text())
        assert f"127.0.0.1:{port}/api" in log.read_text()
        asked = _json("request", "person-003", cwd=place.root)["requests"]  # another terminal
        _until(lambda: place.ledger.state().plan is not None)  # the schedule came
        os.kill(_server_of(place), signal.SIGKILL)
        _until(lambda: asked[0]["id"] in place.ledger.state().certified)
        assert "starting both again" in log.read_text()
        asked += _json("request", "person-004", cwd=place.root)["requests"]
        _until(lambda: place.ledger.state().plan is not None)
        children = [_runner_of(run), *_runner_of(run).children(recursive=True)]
        server = _server_of(place)
        run.kill()
        run.wait()
        _until(lambda: not any(_runs(c.pid) for c in children), 20)
        assert _runs(server)  # the one that is shared: it ends by itself, or is taken over
    assert asked[1]["id"] not in place.ledger.state().certified
    _change(place.root, 'cron = "* * * * *"', 'cron = "0 3 1 1 *"')
    with _served(place.root, port) as (_, log):
        _until(lambda: asked[1]["id"] in place.ledger.state().certified)
        assert "an erasure is unfinished" in log.read_text()
        assert _server_of(place) == server
    assert not SharedServer(place.state_dir / "prefect", 1).is_running() and not _runs(server)
    result = verify_path(place.certificates_dir, place.keys_dir / "signing.pub")
    assert result["valid"] and {c["request"] for c in result["certificates"]} == {
        a["id"] for a in asked
    }
    closed = [e["request"] for e in place.ledger.events() if e["type"] == "certified"]
    assert sorted(closed) == sorted(a["id"] for a in asked)  # each once
