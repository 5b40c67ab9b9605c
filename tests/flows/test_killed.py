"""kill -9 at random times of an erasure, inside steps as well as between them (`make test-crash`;
CI runs fewer)."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases.taking import take_requests
from flows.workspace.workspace import Workspace
from tests.flows.conftest import CANARY, CANARY_TEXT, people, write_csv
from tests.flows.test_cli import S3T, _json, environment

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("S3T_TEST_KILLS", "6"))
EACH = int(os.environ.get("S3T_TEST_EACH", "50"))
WHOLE_KILLS = int(os.environ.get("S3T_TEST_WHOLE_KILLS", "1"))
SEED = int(os.environ.get("S3T_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)


def _asked(place: Workspace, tmp_path: Path) -> None:
    """Trained, with three people pending: one with held-out rows too, one with a record of their
    own, one unknown."""
    source = write_csv(tmp_path / "people.csv", people(canary=True))
    ingest(str(place.root), str(source))
    train(str(place.root))
    source.unlink()
    take_requests(place, [CANARY, "person-003", "nobody-at-all"])
    take_requests(place, ["person-004"], record="r4")


def _canary_left(place: Workspace) -> list[str]:
    return [
        p.relative_to(place.root).as_posix()
        for p in place.root.rglob("*")
        if p.is_file() and any(n.encode() in p.read_bytes() for n in (CANARY, CANARY_TEXT[:40]))
    ]


@pytest.mark.minutes
def test_killed_at_random_times_the_eraser_ends_as_if_it_never_was(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    place = make_place()
    _asked(place, tmp_path)
    assert _canary_left(place)
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.driver", str(place.root), str(KILLS), str(SEED)],
        cwd=Path(__file__).parents[2],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (SEED, done.stdout[-2000:], done.stderr[-4000:])
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["kills"] >= KILLS
    assert len(summary["last completed"]) > 1, summary  # it was hit at more than one place
    assert _canary_left(Workspace(place.root)) == []


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_killed_before_any_of_its_writes_the_eraser_ends_as_if_it_never_was(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    """One at a time, each EACHth: DVC makes an empty file before it copies, and a kill there was
    met by none of thousands at random times."""
    place = make_place()
    _asked(place, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.driver", str(place.root), "0", str(SEED), str(EACH)],
        cwd=Path(__file__).parents[2],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (SEED, EACH, done.stdout[-2000:], done.stderr[-4000:])
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["kills"] >= summary["writes"] // EACH - 1 > 0
    assert _canary_left(Workspace(place.root)) == []


@pytest.mark.long
def test_killed_at_random_times_the_whole_command_finishes_when_run_again(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    place = make_place(
        deletion_budget={"retrain_first_margin_hours": 8784, "policy": "all_shards_dead"}
    )
    _asked(place, tmp_path)
    chance = random.Random(SEED)
    for _ in range(WHOLE_KILLS):
        run = subprocess.Popen(
            [S3T, "erase", "--json"],
            cwd=place.root,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(chance.uniform(8, 40))  # Prefect's start is in it
        children = psutil.Process(run.pid).children(recursive=True) if run.poll() is None else []
        run.send_signal(signal.SIGKILL)
        for child in children:
            child.kill()
        run.wait()
        if not place.requests.open_now():
            take_requests(place, [f"person-{chance.randrange(18):03d}"])
    done = _json("erase", cwd=place.root)
    state = place.ledger.state()
    assert (
        place.requests.open_now() == []
        and state.plan is None
        and done["version"] == (state.champion.version if state.champion else "")
    )
    certified = [e["request"] for e in place.ledger.events() if e["type"] == "certified"]
    assert len(certified) == len(set(certified)) and {
        p.stem for p in place.certificates_dir.glob("*.json")
    } == (set(certified))
    assert set(place.store.digests()) == {s.digest for s in state.stages.values()}
    assert _canary_left(place) == []
    assert _json("verify", str(place.certificates_dir), cwd=place.root)["valid"]


@pytest.mark.long
def test_a_training_that_is_told_to_end_ends_with_its_processes_and_keeps_what_is_trained(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    """By a service manager (SIGTERM) or at a terminal (SIGINT): it does not go on with the stages
    that are left."""
    place = make_place(
        training={"epochs": 400}, runner={"workers": 1}
    )  # long enough to be hit in the middle
    ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people())))
    trained = 0
    for order in (signal.SIGTERM, signal.SIGINT):
        run = subprocess.Popen(
            [S3T, "train", "--json"],
            cwd=place.root,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        while len(place.ledger.state().stages) == trained and run.poll() is None:
            time.sleep(0.1)
        jobs = [
            p
            for p in psutil.Process(run.pid).children(recursive=True)
            if not any("prefect_server" in part for part in p.cmdline())
        ]
        run.send_signal(order)
        assert run.wait(60) != 0 and jobs
        _, alive = psutil.wait_procs(jobs, 20)
        assert [p.cmdline()[:3] for p in alive] == []
        before, trained = trained, len(place.ledger.state().stages)
        assert before < trained <= before + 3, (order, trained)
    done = train(str(place.root))
    assert done["reused"] == trained and done["trained"] == 8 - trained
