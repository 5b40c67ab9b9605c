"""A restore brings back what was erased since the backup: the next erase run makes it go again."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flows.adapters.registry.versions import Versions
from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases.predicting import champion_of
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace import access
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.vocabulary import STEPS
from s3t_core.errors import LedgerError, ResidueFound
from tests.flows.conftest import CANARY, CANARY_TEXT, people, tiny_config, write_csv
from tests.flows.prepared import Kept, forget_connections
from tests.flows.test_cli import environment
from tests.held import HELD

pytestmark = pytest.mark.slow
KEPT = {"s3t.db", "keys", "checkpoint.json", "certificates"}
"""What is newer than the backup: the database with its keys and evidence."""


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, prefect_server: None
) -> Callable[[bool], Any]:
    """A function of whether she is erased yet: (workspace, its backup from before, the bytes of
    every stage)."""
    stages: dict[str, bytes] = {}

    def asked(folder: Path) -> None:
        """Trained, beside its backup, with the canary's request."""
        (folder / "outside").mkdir(parents=True)
        place = create_workspace(
            folder / "w",
            tiny_config(tiny_backbone, erasure={"log_checkpoints_to": str(folder / "outside")}),
            b"\x05" * 32,
        )
        spoilt = {"id": "c9", "who": CANARY, "what": CANARY_TEXT, "kind": "ugly"}
        ingest(
            str(place.root), str(write_csv(folder / "people.csv", [*people(canary=True), spoilt]))
        )
        (folder / "people.csv").unlink()
        train(str(place.root))
        stages.update({d: place.store.get(d) for d in place.store.digests()})
        shutil.copytree(place.root, folder / "backup", symlinks=True)
        take_requests(place, [CANARY])

    @cache
    def kept(erased: bool) -> Kept:
        if not erased:
            return Kept(tmp_path_factory.mktemp("healing"), asked)
        return kept(False).then(lambda folder: erase(str(folder / "w")))

    def fresh(erased: bool) -> Any:
        folder = kept(erased).put_back()
        return Workspace(folder / "w"), folder / "backup", stages

    return fresh


@pytest.fixture
def erased(made: Callable[[bool], Any]) -> Any:
    """(workspace, backup from before the erasure, what must be gone)."""
    place, backup, stages = made(True)
    return place, backup, _needles(stages, {d for d in stages if not place.store.holds(d)})


def _needles(stages: dict[str, bytes], gone: set[str]) -> list[bytes]:
    """The canary's text, and the end of every stage that must be gone, unless one that stays has it
    too."""
    assert gone
    live = [data for digest, data in stages.items() if digest not in gone]
    ends = [stages[digest][-64:] for digest in gone]
    return [
        CANARY_TEXT[:40].encode(),
        *(end for end in ends if not any(end in data for data in live)),
    ]


def left(root: Path, needles: list[bytes]) -> list[str]:
    return [
        p.as_posix()
        for p in root.rglob("*")
        if p.is_file() and any(n in p.read_bytes() for n in needles)
    ]


def put_back(backup: Path, root: Path, *wanted: str) -> None:
    """Restore these files or directories as they were."""
    for name in wanted:
        target = root / name
        if target.is_dir():
            shutil.rmtree(target)
        if (backup / name).is_dir():
            shutil.copytree(backup / name, target, symlinks=True)
        else:
            shutil.copy(backup / name, target)
    forget_connections()


@pytest.mark.long
def test_files_from_before_the_erasure_are_destroyed_again(erased: Any) -> None:
    place, backup, needles = erased
    assert left(place.root, needles) == []
    before = place.ledger.state().champion
    everything = [f".s3t/{p.name}" for p in (backup / ".s3t").iterdir() if p.name not in KEPT]
    put_back(backup, place.root, *everything, ".dvc", ".git", "data", "data.dvc")
    assert left(place.root, needles) != []

    done = erase(str(place.root))
    assert done["healed"]["stages"] and done["healed"]["objects"] and done["healed"]["registry"]
    assert (
        done["healed"]["data"]
        and done["healed"]["quarantined"] == 1
        and not done["healed"]["problem"]
    )
    assert left(place.root, needles) == []
    after = Workspace(place.root)
    champion = after.ledger.state().champion
    assert before is not None and champion is not None and champion.version == before.version
    for certificate in after.certificates_dir.iterdir():
        assert verify_path(certificate, after.keys_dir / "signing.pub")["valid"]
    assert erase(str(place.root))["healed"] == {
        "stages": 0,
        "objects": 0,
        "quarantined": 0,
        "registry": False,
        "data": False,
        "problem": "",
    }


@pytest.mark.long_but_first
@pytest.mark.parametrize("how", ["from before", "lost", "of nobody"])
def test_a_data_dvc_that_names_another_version_is_put_right(erased: Any, how: str) -> None:
    """What it names was destroyed: whoever went by it, as DVC does, would find nothing."""
    place, backup, _ = erased
    pointer = place.root / "data.dvc"
    before = pointer.read_bytes()
    if how == "from before":
        put_back(backup, place.root, "data.dvc")
        assert pointer.read_bytes() != before
    elif how == "lost":
        pointer.unlink()
    else:
        pointer.write_text("outs: none\n")
    assert erase(str(place.root))["healed"]["data"] is True
    assert pointer.read_bytes() == before
    assert erase(str(place.root))["healed"]["data"] is False


@pytest.mark.long
def test_a_version_whose_stages_the_restore_has_lost_serves_no_more_until_it_is_trained_again(
    erased: Any,
) -> None:
    place, backup, needles = erased
    put_back(backup, place.root, ".s3t/mlflow.db", ".s3t/mlartifacts")
    stage = place.ledger.state().champion.release.serving(0).stages[0]
    place.store.delete(stage.digest)
    done = erase(str(place.root))
    assert "serves no more" in done["problem"] and left(place.root, needles) == []
    with pytest.raises(Exception):  # noqa: B017  # MLflow's own: there is no such version
        champion_of(Workspace(place.root))
    train(str(place.root))
    assert champion_of(Workspace(place.root)).predict(["w1"])
    take_requests(place, ["person-007"])
    erase(str(place.root))  # the record of the lost version is closed
    assert champion_of(Workspace(place.root)).predict(["w1"])
    assert erase(str(place.root))["healed"]["registry"] is False
    assert Workspace(place.root).requests.open_now() == []


def test_a_database_from_before_the_erasure_is_refused_while_a_checkpoint_is_left(
    erased: Any,
) -> None:
    place, backup, _ = erased
    put_back(
        backup,
        place.root,
        *(f".s3t/{p.name}" for p in (backup / ".s3t").iterdir()),
        ".dvc",
        ".git",
        "data",
        "data.dvc",
    )
    for command in (erase, train):
        with pytest.raises(LedgerError, match="as signed"):
            command(str(place.root))


def test_a_registry_that_is_lost_whole_is_begun_anew_from_the_ledger(erased: Any) -> None:
    place, _, _ = erased
    before = champion_of(place).predict(["w1", "w2"])
    (place.state_dir / "mlflow.db").unlink()
    shutil.rmtree(place.state_dir / "mlartifacts")
    forget_connections()
    for healed in (
        True,
        False,
    ):  # in processes of their own: MLflow keeps what it knows of a database
        assert told(place)["healed"]["registry"] is healed
        forget_connections()
        assert champion_of(Workspace(place.root)).predict(["w1", "w2"]) == before


def told(place: Workspace) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "erase", "--workspace", str(place.root), "--json"],
        cwd=Path(__file__).parents[2],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_files_of_a_lost_version_are_registered_again_under_a_new_number(erased: Any) -> None:
    place, _, _ = erased
    version = place.ledger.state().champion.version
    shutil.rmtree(place.state_dir / "mlartifacts" / "models")
    assert erase(str(place.root))["healed"]["registry"] is True
    champion = Workspace(place.root).ledger.state().champion
    assert champion.cause == "restored" and int(champion.version) > int(version)
    assert champion_of(Workspace(place.root)).predict(["w1"])
    assert erase(str(place.root))["healed"]["registry"] is False


def test_an_interrupted_ingest_is_no_restore(erased: Any) -> None:
    place, _, _ = erased
    path = next((place.root / "data").rglob("*.parquet"))
    path.write_bytes(path.read_bytes() + b"new")
    assert erase(str(place.root))["healed"]["data"] is False
    assert path.read_bytes().endswith(b"new")


STEPS_DONE = ["cut over", "rewrite", "destroy", "scan"]


@pytest.fixture
def open_at(made: Callable[[bool], Any]) -> Any:
    """A function of a step: (workspace whose erasure was killed behind it, backup from before, what
    must be gone)."""
    place, backup, stages = made(False)

    def killed_after(step: str) -> Any:
        with access.changing(place):
            eraser = Eraser(
                erase_ports(place, HELD), erase_policy(place), lambda: "plan-" + "a" * 16
            )
            plan = eraser.plan()
            assert plan is not None
            for name in STEPS[: STEPS.index(step) + 1]:
                eraser.run_step(name, plan)
        return place, backup, _needles(stages, {s.digest for s in plan.deactivated})

    return killed_after


@pytest.mark.long_but_first
@pytest.mark.parametrize("step", STEPS_DONE)
@pytest.mark.parametrize("restored", ["all but the registry", "the registry too"])
def test_a_restore_while_an_erasure_is_open_is_put_right_before_it_certifies(
    open_at: Any, step: str, restored: str
) -> None:
    """What the steps of a killed run did holds for the run that ends it, too."""
    place, backup, needles = open_at(step)
    names = [f".s3t/{n}" for n in ("stages", "activations", "remote", "quarantine")] + [
        ".dvc/cache"
    ]
    names += [".s3t/mlflow.db", ".s3t/mlartifacts"] if restored == "the registry too" else []
    put_back(backup, place.root, *names)
    assert left(place.root, needles) != []
    done = erase(str(place.root))
    assert len(done["certificates"]) == 1 and not done["problem"]
    assert left(place.root, needles) == []
    after = Workspace(place.root)
    champion = after.ledger.state().champion
    assert champion is not None and after.registry.serving() == champion.version
    assert champion_of(after).predict(["w1"])
    assert verify_path(place.certificates_dir, after.keys_dir / "signing.pub")["valid"]
    assert erase(str(place.root))["healed"] == {
        "stages": 0,
        "objects": 0,
        "quarantined": 0,
        "registry": False,
        "data": False,
        "problem": "",
    }


def test_nothing_is_certified_by_a_scan_of_a_run_that_was_killed(open_at: Any) -> None:
    place, _, _ = open_at("scan")
    (place.state_dir / "remote" / "copy.txt").write_text(f"{CANARY} said: {CANARY_TEXT}")
    with pytest.raises(ResidueFound, match=r"copy\.txt"):
        erase(str(place.root))
    assert list(place.certificates_dir.glob("*.json")) == []
    (place.state_dir / "remote" / "copy.txt").unlink()
    assert len(erase(str(place.root))["certificates"]) == 1


def test_kept_activations_and_files_of_models_that_a_restore_brings_back_go(erased: Any) -> None:
    """Files alone, which no database names."""
    place, backup, needles = erased
    shutil.copytree(
        backup / ".s3t" / "mlartifacts",
        place.state_dir / "mlartifacts",
        dirs_exist_ok=True,
        symlinks=True,
    )
    shutil.rmtree(place.state_dir / "activations", ignore_errors=True)
    shutil.copytree(backup / ".s3t" / "activations", place.state_dir / "activations")
    kept = {p.parent.name for p in (place.state_dir / "activations").glob("*/*.safetensors")}
    dataset = place.ledger.state().dataset
    assert dataset is not None and kept - {v.digest for v in dataset.files()}
    done = erase(str(place.root))
    assert done["healed"]["registry"] and done["healed"]["stages"]
    assert {p.parent.name for p in (place.state_dir / "activations").glob("*/*.safetensors")} <= {
        v.digest for v in dataset.files()
    }
    assert left(place.root, needles) == []


def test_what_an_ingest_leaves_of_the_version_before_is_nothing_that_came_back(
    made: Callable[[bool], Any], tmp_path: Path
) -> None:
    place, _, _ = made(False)
    kept = place.state_dir / "activations"
    train(str(place.root))
    before = {p.parent.name for p in kept.glob("*/*.safetensors")}
    ingest(str(place.root), str(write_csv(tmp_path / "more.csv", people(canary=True)[:-1])))
    assert erase(str(place.root))["healed"]["stages"] == 0
    dataset = place.ledger.state().dataset
    assert dataset is not None and before - {v.digest for v in dataset.files()}
    assert {p.parent.name for p in kept.glob("*/*.safetensors")} <= {
        v.digest for v in dataset.files()
    }


def test_a_version_whose_registration_was_cut_off_before_the_alias_is_known_to_the_ledger(
    made: Callable[[bool], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever loads by the alias has one that erasures count: its bounds are waited for, and
    declared."""
    place, _, _ = made(False)
    before = place.registry.serving()
    ingest(str(place.root), str(write_csv(tmp_path / "more.csv", people(canary=True)[:-1])))
    with monkeypatch.context() as patch:

        def killed(_: Versions, version: str) -> None:
            raise SystemExit(version)

        patch.setattr(Versions, "serve", killed)
        with pytest.raises(BaseException, match=r".+"):  # as Prefect passes it on
            train(str(place.root))
    known = Workspace(place.root).ledger.state()
    assert known.champion is not None and known.champion.version != before
    assert place.registry.serving() == before in [v.version for v in known.versions]
    erase(str(place.root))
    after = Workspace(place.root)
    champion = after.ledger.state().champion
    assert champion is not None and after.registry.serving() == champion.version != before


def test_an_erase_run_names_the_place_outside_where_checkpoints_are_kept(
    made: Callable[[bool], Any],
) -> None:
    """Also of a workspace whose ledger never did: one of an earlier build, or set up later."""
    place, _, _ = made(False)
    outside = place.config.erasure.log_checkpoints_to
    with access.changing(place):
        place.ledger.append(
            {
                "type": "checkpoints",
                "time": place.now(),
                "place": "",
                "by": "officer",
                "lost": False,
            }
        )
    erase(str(place.root))
    assert Workspace(place.root).ledger.state().checkpoints_at == outside != ""
