"""kill -9 between the trip and the end of the retrain: the next `s3t erase` retrains, once, and
something serves."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases.predicting import champion_of
from flows.use_cases.taking import take_requests
from flows.workspace.workspace import Workspace
from s3t_core.capacity.assignment import is_held_out
from s3t_core.capacity.assignment import place as where
from tests.flows.conftest import people, write_csv
from tests.flows.test_cli import S3T, _json, environment

pytestmark = [pytest.mark.slow, pytest.mark.minutes]


def _kill_when_wanted(place: Workspace) -> None:
    """Start `s3t erase` and kill it, and what it started, as soon as the ledger wants a retrain."""
    run = subprocess.Popen(
        [S3T, "erase", "--json"],
        cwd=place.root,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 240
        while place.ledger.state().retrain is None:
            assert run.poll() is None and time.monotonic() < until, (
                "it ended before it wanted a retrain"
            )
            time.sleep(0.02)
    finally:
        children = psutil.Process(run.pid).children(recursive=True) if run.poll() is None else []
        run.send_signal(signal.SIGKILL)
        for child in children:  # its embedded Prefect server outlives it otherwise
            child.kill()
        run.wait()


@pytest.mark.long  # in this process: tests/flows/test_budget.py
def test_killed_between_the_trip_and_the_retrain(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    place = make_place(deletion_budget={"retrain_first_margin_hours": 8784})
    ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people())))
    train(str(place.root))
    doomed = {
        where(place.keys.placement, p, 2, (0, 2)): p
        for p in sorted({r["who"] for r in people()})
        if not is_held_out(place.keys.placement, p, 0.2)
    }
    take_requests(place, [p for home, p in doomed.items() if home.shard == 0])
    _kill_when_wanted(place)
    state = place.ledger.state()
    assert state.retrain is not None and [v.cause for v in state.versions] == ["train", "erasure"]
    assert len(state.certified) == 2  # the erasure itself is complete
    champion_of(place).predict(["w1"])
    assert _json("status", cwd=place.root)["full_retrain"]["state"] == "wanted"
    assert _json("erase", cwd=place.root)["retrain"] == "done"
    assert _json("erase", cwd=place.root)["retrain"] == "no"
    assert [v.cause for v in place.ledger.state().versions] == ["train", "erasure", "retrain"]
    champion_of(Workspace(place.root)).predict(["w1"])


def test_plan_works_outside_a_workspace_and_refuses_with_exit_code_2(tmp_path: Path) -> None:
    found = _json(
        "plan",
        "--shards",
        "5",
        "--slices",
        "4",
        "--budget",
        "4",
        "--runs",
        "2000",
        "--plot",
        "plan.svg",
        cwd=tmp_path,
    )
    assert found["deletion_rate"] == 71.95 and (tmp_path / "plan.svg").stat().st_size > 10_000
    simulated = found["requests_to_all_dead"]
    assert abs(simulated["mean"] - 71.95) < 3 * simulated["standard_error"]
    refused = _json("plan", "--budget", "7", cwd=tmp_path, code=2)
    assert "from 1 to 6" in refused["message"]
    nothing = _json(
        "plan",
        "--target",
        "90 days",
        "--requests-per-day",
        "50",
        "--runs",
        "100",
        cwd=tmp_path,
        code=2,
    )
    assert "the longest is" in nothing["message"]
    suggested = _json(
        "plan", "--suggest-prior", "--skew", "0.2:0.8", "--tiers", "1,3", cwd=tmp_path
    )
    assert json.dumps(suggested["suggested_prior"]).startswith("[0.8, 0.0666")
    assert [p.name for p in tmp_path.iterdir()] == ["plan.svg"]
