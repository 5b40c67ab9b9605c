"""kill -9 of each server and of a worker while an erasure runs: nothing lost, nothing twice,
nothing tainted served.

The short form kills PostgreSQL and the workers; S3T_TEST_FAULTS=all (`make test-stack-faults`)
takes every server, during training, erasure and the full retrain.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from infra.stack import Stack
from s3t_core.erasure.state import State
from tests.flows.conftest import CANARY, people, write_csv
from tests.stack.conftest import EVERY, KEY, ROOT, up

pytestmark = pytest.mark.timeout(900)
SERVICES = ("postgres", "s3", "mlflow", "prefect")
CASES = (
    [(s, w) for s in SERVICES for w in ("train", "erase", "retrain")]
    if EVERY
    else [("postgres", "erase")]
)
DOWN_SECONDS = 10 if EVERY else 3


def flow(root: Path, name: str) -> subprocess.Popen[str]:
    """A command, as an operator gives it."""
    code = (
        f"import sys\nfrom flows.cli.app import main\nsys.argv = ['s3t', {name!r}, '--workspace', "
        "sys.argv[1]]\nmain()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What it said in the end: "" when it went well."""
    _, errors = process.communicate(timeout=400)
    return "" if process.returncode == 0 else errors


def wait_for(
    place: Workspace, seen: Callable[[State], bool], process: subprocess.Popen[str]
) -> None:
    """Until the ledger says so, or the flow is at its end."""
    while process.poll() is None and not seen(Workspace(place.root).ledger.state()):
        time.sleep(0.1)


@pytest.fixture
def place(make_config: Callable[..., Any], tmp_path: Path) -> Workspace:
    made = create_workspace(tmp_path / "w", make_config(), KEY)
    from flows.prefect_flows.ingest import ingest

    ingest(str(made.root), str(write_csv(tmp_path / "people.csv", people(canary=True))))
    return Workspace(made.root)


@pytest.mark.minutes
@pytest.mark.parametrize(("service", "during"), CASES)
def test_a_server_that_is_killed_and_comes_back_costs_nothing(
    stack: Stack, place: Workspace, service: str, during: str
) -> None:
    if during != "train":
        assert finished(flow(place.root, "train")) == ""
        request = take_requests(place, [CANARY])[0]
    if during == "retrain":
        assert finished(flow(place.root, "erase")) == ""
    before = set(Workspace(place.root).ledger.state().stages)
    began: dict[str, Callable[[State], bool]] = {
        "train": lambda s: len(s.stages) > 1,
        "erase": lambda s: s.plan is not None,
        "retrain": lambda s: bool(set(s.stages) - before),
    }
    process = flow(place.root, during)
    wait_for(place, began[during], process)
    stack.kill(service)
    back = threading.Timer(DOWN_SECONDS, up, [stack])
    back.start()
    told = finished(process)
    back.join()
    assert told == "" or (re.search(r"^s3t: .*again", told, re.M) and "Traceback" not in told), (
        told[-2000:]
    )
    again = finished(flow(place.root, during))  # whatever was cut is finished by the next run
    assert again == "", again[-2000:]
    state = Workspace(place.root).ledger.state()
    assert state.champion is not None and state.plan is None
    events = [e["type"] for e in Workspace(place.root).ledger.events()]
    if during != "train":
        assert events.count("planned") == events.count("certified") == 1
        certificate = place.certificates_dir / f"{request.request_id}.json"
        assert verify_path(certificate, place.keys_dir / "signing.pub")["valid"]
    live = {s.digest for r in state.champion.release.replicas for s in r.stages}
    assert all(place.store.holds(d) for d in live)
    assert set(place.store.digests()) == {s.digest for s in state.stages.values()}


@pytest.mark.minutes
def test_a_worker_that_is_killed_mid_erasure_loses_nothing(stack: Stack, place: Workspace) -> None:
    from prefect.deployments import run_deployment

    from tests.stack.test_walk import deploy

    deploy(place.root)
    assert finished(flow(place.root, "train")) == ""
    request = take_requests(place, [CANARY])[0]
    run_deployment("erase/erase", timeout=0)
    until = time.monotonic() + 120
    while Workspace(place.root).ledger.state().plan is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    for name in ("worker-1", "worker-2"):
        stack.kill(name)
    _kill_flow_runs(place)
    up(stack)
    assert finished(flow(place.root, "erase")) == ""
    certificate = place.certificates_dir / f"{request.request_id}.json"
    assert verify_path(certificate, place.keys_dir / "signing.pub")["valid"]
    assert [e["type"] for e in Workspace(place.root).ledger.events()].count("planned") == 1


@pytest.mark.skipif(not EVERY, reason="Prefect gives a lost place back after five minutes")
def test_a_power_cut_during_the_nightly_erasure_stops_no_later_one(
    stack: Stack, place: Workspace
) -> None:
    """Workers, their runs and the Prefect server die together. Prefect takes the run for running
    and its deployment's only place for taken; the watch knows better."""
    from prefect.deployments import run_deployment

    from flows.supervisor.watching import watch
    from tests.stack.test_walk import deploy

    deploy(place.root)
    assert finished(flow(place.root, "train")) == ""
    request = take_requests(place, [CANARY])[0]
    cut = run_deployment("erase/erase", timeout=0)
    until = time.monotonic() + 120
    while Workspace(place.root).ledger.state().plan is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    for name in ("worker-1", "worker-2", "prefect"):
        stack.kill(name)
    _kill_flow_runs(place)
    up(stack)
    told = watch(str(place.root), young_seconds=0)
    assert told["lost"] == 1 and "unfinished" in told["started"]
    certificate = place.certificates_dir / f"{request.request_id}.json"
    until = time.monotonic() + 420
    while not certificate.exists():
        assert time.monotonic() < until
        time.sleep(1)
    assert verify_path(certificate, place.keys_dir / "signing.pub")["valid"]
    from prefect import get_client

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(cut.id).state
    assert state is not None and state.is_crashed()


@pytest.mark.long
def test_of_two_eraser_processes_at_once_one_works(stack: Stack, place: Workspace) -> None:
    assert finished(flow(place.root, "train")) == ""
    take_requests(place, [CANARY])
    ends = [finished(p) for p in [flow(place.root, "erase"), flow(place.root, "erase")]]
    assert "" in ends and all(e == "" or "s3t: another s3t process" in e for e in ends), ends
    events = [e["type"] for e in Workspace(place.root).ledger.events()]
    assert events.count("planned") == events.count("certified") == 1


def _kill_flow_runs(place: Workspace) -> None:
    """The process that the dead workers left at work: a machine that dies takes it along."""
    import psutil

    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(
                f.path == str(place.lock_path) for f in process.open_files()
            ):
                process.kill()
        except psutil.Error:
            continue
