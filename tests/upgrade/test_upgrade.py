"""A workspace that an earlier build made is opened by this one at the same path, and nothing is
lost."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest

from flows.prefect_flows.audit import audit
from flows.prefect_flows.erase import erase
from flows.prefect_flows.retrain import retrain
from flows.prefect_flows.train import train
from flows.use_cases.evidence import write_bundle
from flows.use_cases.predicting import champion_of
from flows.use_cases.requests import approve, lift_hold, list_requests
from flows.use_cases.status import registry_problems, status_of
from flows.use_cases.verifying import verify_path
from flows.workspace.workspace import Workspace
from s3t_core.domain import SliceId
from s3t_core.erasure.state import State
from tests.flows.conftest import prefect_server  # noqa: F401  # a fixture
from tests.flows.prepared import Kept
from tests.flows.test_cli import environment

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(1500)]
BEGINNING = "1de268cf5198fc2a49a7024825e60f1c05f0c654"
"""The commit whose workspaces every later build opens."""
ROOT = Path(__file__).parents[2]
TEXTS = ["w1 w2", "w3", "nothing of the vocabulary"]


@dataclass(frozen=True)
class Before:
    """What the earlier build left: evidence of its own, and what it told."""

    kept: Kept
    told: Path

    @property
    def said(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.told / "told.json").read_text())
        return found

    def open(self) -> Workspace:
        """The workspace as the earlier build left it, at the same path."""
        return self.kept.fresh()


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Before:
    folder = tmp_path_factory.mktemp("upgrade")
    code, told = folder / "code", folder / "told"
    code.mkdir()
    packed = subprocess.run(
        ["git", "archive", BEGINNING], cwd=ROOT, capture_output=True, check=False
    )
    assert packed.returncode == 0, (
        f"expected the commit {BEGINNING} in this clone; git fetch --unshallow brings it"
    )
    subprocess.run(["tar", "-x"], cwd=code, input=packed.stdout, check=True)

    def make(root: Path) -> None:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("before.py")), str(root), str(told)],
            cwd=code,
            env={**environment(), "PYTHONPATH": str(code)},
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    return Before(Kept(folder, make), told)


def _states(place: Workspace) -> dict[str, str]:
    return {r["id"]: r["state"] for r in list_requests(place)}


def _bundle_is_valid(place: Workspace) -> bool:
    """Whether a bundle of all certificates that this build writes verifies with the workspace's
    keys."""
    bundle = place.root.with_name("bundle.zip")
    write_bundle(place, bundle, [])
    return bool(verify_path(bundle, sorted(place.keys_dir.glob("*.pub")))["valid"])


def _live(state: State) -> dict[str, str]:
    """Digest by key, of every stage that serves."""
    assert state.release is not None
    return {s.key: s.digest for r in state.release.replicas for s in r.stages}


@pytest.mark.long
def test_every_state_of_a_request_is_told_as_before(before: Before) -> None:
    place = before.open()
    said = before.said
    assert set(_states(place).values()) >= {
        "pending",
        "held",
        "awaiting approval",
        "erasing",
        "erased",
        "withdrawal",
        "rejection",
    }
    assert _states(place) == {name: r["state"] for name, r in said["requests"].items()}
    told = dict(list_requests(place)[0])
    before_it = next(iter(said["requests"].values()))
    assert told.keys() >= before_it.keys()  # members are added, none goes
    same = before_it.keys() - {"days_left"}
    assert [{k: dict(r)[k] for k in same} for r in list_requests(place)] == [
        {k: r[k] for k in same} for r in said["requests"].values()
    ]


def test_its_evidence_verifies_and_so_does_its_ledger(before: Before) -> None:
    place = before.open()
    keys = sorted(place.keys_dir.glob("*.pub"))
    for name in ("bundle.zip", "ledger.jsonl", "report.json"):
        assert verify_path(before.told / name, keys)["valid"], name
    alone = verify_path(place.certificates_dir, keys)  # some are of the key that was replaced
    assert alone["problems"] == [] and 0 < len(alone["undecided"]) < len(alone["certificates"])
    assert _bundle_is_valid(place)
    assert audit(str(place.root), since="365d")["deadlines_missed"] == 0


def test_the_version_it_registered_answers_as_it_did(before: Before) -> None:
    place = before.open()
    state = place.ledger.state()
    assert state.champion is not None and status_of(place)["version"] == state.champion.version
    answers = champion_of(place).predict(TEXTS)
    with place.registry.addressed():
        model = mlflow.pyfunc.load_model("models:/tiny@champion")
        assert model.predict(TEXTS) == answers


def test_an_open_erasure_is_ended_and_what_waited_is_carried_out(before: Before) -> None:
    place = before.open()
    names = before.said["names"]
    done = {c["request"] for c in erase(str(place.root))["certificates"]}
    assert done == {names["erasing"], names["pending"]}
    place = Workspace(place.root)
    lift_hold(place, "person-007", "counsel")
    approve(place, [names["awaiting approval"]], "officer")
    done = {c["request"] for c in erase(str(place.root))["certificates"]}
    assert done == {names["held"], names["awaiting approval"]}
    place = Workspace(place.root)
    assert not {"pending", "held", "awaiting approval", "erasing"} & set(_states(place).values())
    assert _bundle_is_valid(place)
    assert not any(status_of(place)["documents"].values()) and registry_problems(place) == []


def test_a_retrain_keeps_every_stage_whose_inputs_did_not_change(before: Before) -> None:
    place = before.open()
    erase(str(place.root))
    state = Workspace(place.root).ledger.state()
    live, dataset = _live(state), state.dataset
    assert live and dataset is not None
    done = retrain(str(place.root))
    state = Workspace(place.root).ledger.state()
    now = _live(state)
    assert live.items() <= now.items() and done["trained"] == len(now) - len(live) > 0
    assert {
        SliceId(s.shard, i) for r in state.release.replicas for s in r.stages for i in s.prefix
    } == {  # type: ignore[union-attr]
        k for k, v in dataset.slice_versions.items() if v.rows
    }
    assert train(str(place.root))["trained"] == 0
