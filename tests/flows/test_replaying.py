"""Live stages trained again give the recorded bytes; anything else is told as what it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flows.adapters.runner import ProcessRunner
from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases import replaying
from flows.use_cases.replaying import replay
from flows.use_cases.taking import take_requests
from flows.workspace.workspace import Workspace
from s3t_core.errors import UsageError
from s3t_core.learning.jobs import DescribeJob, Description, StageJob, StageOutcome
from tests.flows.conftest import CANARY, people, write_csv

pytestmark = pytest.mark.slow


class OtherMachine(ProcessRunner):
    """A CPU of another capability."""

    def describe(self, job: DescribeJob) -> Description:
        found = super().describe(job)
        return replace(found, profile=replace(found.profile, cpu_capability="another"))


class OtherBytes(ProcessRunner):
    """The stage that serves is not what training gives."""

    def train(self, job: StageJob) -> StageOutcome:
        outcome = super().train(job)
        return replace(outcome, artifact=outcome.artifact + b"\x00")


def test_live_stages_trained_again_have_the_recorded_bytes(
    make_place: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place(deletion_budget={"policy": "all_shards_dead"})
    with pytest.raises(UsageError, match="a version that serves"):
        replay(place, 1)
    ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people(canary=True))))
    train(str(place.root))
    take_requests(place, [CANARY])
    erase(str(place.root))
    found = replay(place, None)
    assert found["valid"] and len(found["stages"]) == found["live"] == 5
    assert {s["result"] for s in found["stages"]} == {"same bytes"}
    assert len(replay(place, 2, seed=1)["stages"]) == 2
    event = place.ledger.events()[-1]
    assert event["type"] == "replayed" and len(event["same"]) == 2 and event["other"] == []
    place.runner = OtherMachine()
    elsewhere = replay(place, 2)
    assert not elsewhere["valid"] and {s["result"] for s in elsewhere["stages"]} == {
        "not comparable: another numeric profile"
    }
    event = place.ledger.events()[-1]
    assert (event["same_profile"], event["same"], event["other"]) == (False, [], [])
    place.runner = OtherBytes()
    monkeypatch.setattr(replaying, "METHOD_VERSION", "s3t/of tomorrow")
    later = replay(place, 2)
    assert not later["valid"] and later["profile"]["method_here"] == "s3t/of tomorrow"
    assert {s["result"] for s in later["stages"]} == {
        "not comparable: made by another version of the method"
    }
    event = place.ledger.events()[-1]
    assert (event["same_profile"], event["same"], event["other"]) == (False, [], [])
    monkeypatch.undo()
    forged = replay(place, 1)
    assert not forged["valid"] and forged["stages"][0]["result"] == "OTHER BYTES"
    place.runner = ProcessRunner()
    ingest(str(place.root), str(write_csv(tmp_path / "more.csv", people(count=72))))
    changed = replay(place, None)
    assert {s["result"] for s in changed["stages"]} >= {"its data changed since"}
