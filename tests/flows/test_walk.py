"""The whole walk through real adapters (DVC, MLflow, SQLite, processes) on the tiny backbone."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.adapters.registry.runs import STAGE_TAG
from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.retrain import retrain
from flows.prefect_flows.train import train
from flows.use_cases.predicting import champion_of
from flows.use_cases.status import status_of
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace.workspace import Workspace
from s3t_core.errors import (
    ArtifactError,
    BackboneChanged,
    DataError,
    GuaranteeError,
    NoLiveShard,
    ResidueFound,
    StaleModel,
    StorageError,
    UsageError,
    WorkspaceError,
)
from tests.flows.conftest import CANARY, CANARY_TEXT, people, write_csv
from tests.tiny import build_backbone

pytestmark = pytest.mark.slow
Make = Callable[..., Workspace]


def _ready(place: Workspace, tmp_path: Path, canary: bool = False) -> dict[str, object]:
    ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people(canary=canary))))
    return train(str(place.root))


def _stage_files(place: Workspace) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in place.store.root.glob("*.safetensors")}


def _traces(place: Workspace, outside: Path) -> list[str]:
    """Files under the workspace, the source left out, that show the canary raw."""
    return [
        p.relative_to(place.root).as_posix()
        for p in place.root.rglob("*")
        if p.is_file()
        and p != outside
        and any(n.encode() in p.read_bytes() for n in (CANARY, CANARY_TEXT[:40]))
    ]


def test_from_a_record_to_a_certificate(make_place: Make, tmp_path: Path) -> None:
    place = make_place()
    first = _ready(place, tmp_path, canary=True)
    assert (first["version"], first["trained"], first["reused"]) == ("1", 8, 0)
    before = _stage_files(place)
    old = champion_of(place)
    assert [a["label"] in ("good", "bad") for a in old.predict(["w1 w2", "w3"])] == [True, True]
    taken = take_requests(place, [CANARY, "nobody-at-all-1"])
    assert (
        take_requests(place, [CANARY])[0].request_id == taken[0].request_id
    )  # asked twice: one request
    client = place.registry.connection.client
    lost = client.create_run(
        place.registry.own.number(), tags={STAGE_TAG: "a key that a crash kept from the ledger"}
    )
    done = erase(str(place.root))
    assert done["version"] == "2" and done["retrain"] == "no" and done["deactivated"] == 2 + 1
    with pytest.raises(Exception, match="not found"):
        client.get_run(lost.info.run_id)
    with pytest.raises(StaleModel, match="moved on"):
        old.predict(["w1"])
    with place.registry.addressed(), pytest.raises(Exception, match="version"):
        import mlflow

        mlflow.pyfunc.load_model("models:/tiny/1")  # the version that held tainted stages
    status = status_of(place)
    assert sorted(s["live_depth"] for s in status["shards"]) == [1, 2]
    assert status["pending"] == [] and not status["deletion_budget"]["exhausted"]
    result = verify_path(place.certificates_dir, place.keys_dir / "signing.pub")
    assert result["valid"] and len(result["certificates"]) == 2
    known = {c["request"]: c["found"]["known"] for c in result["certificates"]}
    assert known == {taken[0].request_id: True, taken[1].request_id: False}
    assert _traces(place, tmp_path / "people.csv") == []
    left = _stage_files(place)
    assert left.items() <= before.items() and len(left) == len(before) - 3
    told = json.dumps(place.ledger.events()) + "".join(
        p.read_text() for p in place.certificates_dir.glob("*")
    )
    assert CANARY not in told and "nobody-at-all" not in told
    again = ingest(str(place.root), str(tmp_path / "people.csv"))
    assert again["suppressed"] == 3 and not again["changed"]  # a re-ingest cannot bring her back
    assert not take_requests(place, [CANARY])[0].certificate
    erase(str(place.root))
    repeated = verify_path(place.certificates_dir, place.keys_dir / "signing.pub")["certificates"]
    assert taken[0].request_id in {c["found"]["erased_before_by_request"] for c in repeated}


def test_erase_and_retrain_leave_the_bytes_of_training_the_remaining_records_from_nothing(
    trained: Make, make_place: Make, tmp_path: Path
) -> None:
    place = trained(canary=True)
    take_requests(place, [CANARY])
    erase(str(place.root))
    retrained = retrain(str(place.root))
    assert retrained["trained"] > 0 and retrained["reused"] > 0 and retrained["version"] == "3"
    fresh = make_place("fresh")
    ingest(str(fresh.root), str(write_csv(tmp_path / "remaining.csv", people())))
    train(str(fresh.root))
    assert _stage_files(place) == _stage_files(fresh)
    assert (place.root / "data.dvc").read_text() == (fresh.root / "data.dvc").read_text()


def test_training_again_trains_nothing_and_registers_nothing(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place()
    first = _ready(place, tmp_path)
    again = train(str(place.root))
    assert (again["trained"], again["reused"], again["version"]) == (0, 8, first["version"])
    assert again["accuracy"] == first["accuracy"]


def test_a_stage_that_is_damaged_or_lost_is_refused_and_trained_again_to_the_same_bytes(
    trained: Make,
) -> None:
    place = trained()
    files = _stage_files(place)
    served = {p.name for p in (place.state_dir / "mlartifacts").rglob("*.safetensors")}
    paths = sorted(place.store.root.glob("*.safetensors"), key=lambda p: p.name not in served)
    for path in (place.state_dir / "mlartifacts").rglob(
        "*.safetensors"
    ):  # the copy that this is has lost its links
        path.unlink()
        path.hardlink_to(place.store.root / path.name)
    paths[0].write_bytes(paths[0].read_bytes()[:100])
    paths[1].write_bytes(paths[1].read_bytes().replace(b"\x00", b"\x01", 1))
    paths[2].unlink()
    for path in paths[:3]:
        with pytest.raises(ArtifactError):
            place.store.get(path.stem)
    assert train(str(place.root))["trained"] == 3
    assert _stage_files(place) == files
    versions = list(
        (place.state_dir / "mlartifacts").rglob("*.safetensors")
    )  # second names of the same files
    assert versions and all(
        p.samefile(place.store.root / p.name) or p.read_bytes() == files[p.name] for p in versions
    )


def test_a_version_costs_no_copy_of_its_stages(trained: Make) -> None:
    place = trained(canary=True)
    before = _stage_files(place)
    take_requests(place, [CANARY])
    erase(str(place.root))
    versions = list((place.state_dir / "mlartifacts").rglob("*.safetensors"))
    assert versions and all(p.samefile(place.store.root / p.name) for p in versions)
    assert {p.name for p in versions} < before.keys()


def test_runs_and_tags_tell_keys_digests_and_depths_and_never_rows(trained: Make) -> None:
    place = trained(canary=True)
    client = place.registry.connection.client
    runs = client.search_runs([place.registry.own.number()])
    stages = [r for r in runs if r.data.tags.get("s3t.kind") == "stage"]
    parents = {r.data.tags["mlflow.parentRunId"] for r in stages}
    assert len(stages) == 8 and len(parents) == 1
    assert all({"loss", "held_out_accuracy"} <= r.data.metrics.keys() for r in stages)
    assert {r.data.params["digest"] for r in stages} == {
        p.removesuffix(".safetensors") for p in _stage_files(place)
    }
    version = client.get_model_version_by_alias("tiny", "champion")
    assert {
        "s3t.release",
        "s3t.live_depths",
        "s3t.ledger_head",
        "s3t.accuracy",
    } <= version.tags.keys()
    assert version.tags["s3t.live_depths"] == "0:2,1:2"
    told = json.dumps([[dict(r.data.params), dict(r.data.tags)] for r in runs])
    # the program's repository may be named with a password
    assert not any(v for r in runs for k, v in r.data.tags.items() if "source.git" in k)
    assert "person-" not in told and CANARY not in told and "w1 w2" not in told


def test_when_every_shard_is_dead_nothing_tainted_serves_and_the_retrain_runs(
    trained: Make,
) -> None:
    place = trained(
        deletion_budget={"policy": "all_shards_dead", "retrain_first_margin_hours": 1000}
    )
    from s3t_core.capacity.assignment import is_held_out
    from s3t_core.capacity.assignment import place as where

    homes = {
        where(place.keys.placement, p, 2, (0, 2)): p
        for p in (f"person-{i:03d}" for i in range(18))
        if not is_held_out(place.keys.placement, p, 0.2)
    }
    assert len(homes) == 4
    take_requests(place, list(homes.values()))
    done = erase(str(place.root))
    assert (done["deactivated"], done["retrain"], done["version"]) == (8, "done", "3")
    assert [s["live_depth"] for s in status_of(place)["shards"]] == [2, 2]
    champion_of(place).predict(["w1"])


def test_a_version_without_a_live_shard_refuses_to_answer(trained: Make) -> None:
    place = trained()
    champion = place.ledger.state().champion
    assert champion is not None
    from dataclasses import replace

    dead = replace(
        champion.release,
        release_id="dead",
        replicas=tuple(replace(r, stages=()) for r in champion.release.replicas),
    )
    place.registry.publish(dead, champion.recipe, {"s3t.release": "dead"})
    with pytest.raises(GuaranteeError, match="another version or none"):
        champion_of(place)
    import mlflow

    with place.registry.addressed():
        loaded = mlflow.pyfunc.load_model(f"models:/{place.registry.name}@champion")  # by anybody
        with pytest.raises(NoLiveShard, match="s3t retrain"):
            loaded.predict(["w1"])


def test_the_scan_stops_the_erasure_when_a_copy_was_left_in_the_systems_own_files(
    trained: Make, tmp_path: Path
) -> None:
    place = trained(canary=True)
    take_requests(place, [CANARY])
    leak = place.state_dir / "a.log"
    leak.write_text(f"debug: training on {CANARY_TEXT} 1")
    with pytest.raises(ResidueFound, match=r"a\.log"):
        erase(str(place.root))
    assert list(place.certificates_dir.glob("*")) == []
    leak.unlink()
    assert len(erase(str(place.root))["certificates"]) == 1


def test_a_refused_row_of_an_erased_person_does_not_come_back_through_quarantine(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place()
    rows = people(canary=True)
    spoilt = [*rows, {"id": "c9", "who": CANARY, "what": CANARY_TEXT, "kind": "ugly"}]
    ingest(str(place.root), str(write_csv(tmp_path / "people.csv", spoilt)))
    assert CANARY_TEXT in (place.state_dir / "quarantine" / "rows.jsonl").read_text()
    take_requests(place, [CANARY])
    erase(str(place.root))
    assert _traces(place, tmp_path / "people.csv") == []
    ingest(str(place.root), str(tmp_path / "people.csv"))
    assert _traces(place, tmp_path / "people.csv") == []


def test_data_that_others_version_in_the_same_repository_is_left_alone(trained: Make) -> None:
    import pandas as pd
    from dvc.repo import Repo

    place = trained(canary=True)
    pd.DataFrame({"theirs": [1, 2, 3]}).to_parquet(place.root / "theirs.parquet")
    with Repo(str(place.root)) as repo:
        repo.add(str(place.root / "theirs.parquet"))
        repo.push()
    before = (place.root / "theirs.parquet.dvc").read_text()
    take_requests(place, [CANARY])
    assert len(erase(str(place.root))["certificates"]) == 1
    (place.root / "theirs.parquet").unlink()
    with Repo(str(place.root)) as repo:
        repo.checkout(targets=[str(place.root / "theirs.parquet.dvc")])
    assert pd.read_parquet(place.root / "theirs.parquet")["theirs"].tolist() == [1, 2, 3]
    assert (place.root / "theirs.parquet.dvc").read_text() == before


def test_a_workspace_that_was_moved_is_refused_before_it_touches_the_wrong_files(
    trained: Make, tmp_path: Path
) -> None:
    place = trained()
    moved = place.root.rename(tmp_path / "elsewhere")
    take_requests(Workspace(moved), ["person-001"])
    with pytest.raises(WorkspaceError, match="moved or copied"):
        erase(str(moved))


def test_what_training_refuses(make_place: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run `s3t ingest"):
        train(str(make_place("empty").root))
    deep = make_place("deep", system={"slices": 4, "budget": 1})
    ingest(str(deep.root), str(write_csv(tmp_path / "a.csv", people())))
    with pytest.raises(UsageError, match="at most 3 slices"):
        train(str(deep.root))
    held = make_place("held", data={"held_out": 0.99999})
    ingest(str(held.root), str(write_csv(tmp_path / "a.csv", people(4))))
    with pytest.raises(DataError, match="none at all"):
        train(str(held.root))
    other = make_place("other")
    ingest(str(other.root), str(write_csv(tmp_path / "a.csv", people())))
    path = other.root / "s3t.toml"
    path.write_text(path.read_text().replace("shards = 2", "shards = 3"))
    with pytest.raises(DataError, match="3 shards of 2 slices, got 2 of 2"):
        train(str(other.root))


def test_altered_data_is_not_trained_on(make_place: Make, tmp_path: Path) -> None:
    from s3t_core.slicefile import read_rows, write_rows

    place = make_place()
    ingest(str(place.root), str(write_csv(tmp_path / "a.csv", people())))
    path = next(p for p in (place.root / "data").rglob("slice=*.parquet") if read_rows(p))
    write_rows(path, read_rows(path)[1:])
    with pytest.raises(GuaranteeError, match="expected slice content"):
        train(str(place.root))


def test_a_backbone_that_changed_under_its_name_is_refused(
    make_place: Make, tmp_path: Path
) -> None:
    backbone = build_backbone(tmp_path / "backbone", layers=2, seed=1)
    place = make_place(backbone={"model": str(backbone)})
    _ready(place, tmp_path)
    build_backbone(backbone, layers=2, seed=2)
    with pytest.raises(BackboneChanged, match="recorded backbone"):
        train(str(place.root))
    with pytest.raises(BackboneChanged, match="put the recorded files back"):
        champion_of(place)


def test_bad_requests_are_refused_and_nothing_is_accepted(make_place: Make) -> None:
    place = make_place()
    for subjects, record in (
        ([], ""),
        ([""], ""),
        (["x" * 513], ""),
        (["a", "b"], "r"),
        (["\udcff"], ""),
    ):
        with pytest.raises(UsageError):
            take_requests(place, subjects, record)
    without_ids = make_place("no-ids", data={"record": ""})
    with pytest.raises(UsageError, match="record"):
        take_requests(without_ids, ["a"], "r1")
    assert place.requests.open_now() == [] and list(place.needles.folder.iterdir()) == []


def test_hostile_ids_are_only_ids(make_place: Make, tmp_path: Path) -> None:
    place = make_place()
    hostile = [
        "'; DROP TABLE requests; --",
        "../../etc/passwd",
        "*",
        "a\nb",
        "\u202egnp.exe",
        "%s{0}$HOME",
        "📎" * 9,
    ]
    rows = people() + [
        {"id": f"h{i}", "who": h, "what": f"w1 {i}", "kind": "good"} for i, h in enumerate(hostile)
    ]
    ingest(str(place.root), str(write_csv(tmp_path / "a.csv", rows)))
    take_requests(place, hostile)
    done = erase(str(place.root))
    assert len(done["certificates"]) == len(hostile)
    found = verify_path(place.certificates_dir, place.keys_dir / "signing.pub")["certificates"]
    assert all(c["found"]["training_rows"] + c["found"]["held_out_rows"] == 1 for c in found)


def test_one_record_of_a_person_goes_and_the_person_stays(trained: Make, tmp_path: Path) -> None:
    place = trained()
    records = place.ledger.state().dataset
    assert records is not None
    take_requests(place, ["person-001"], "r1")
    erase(str(place.root))
    left = place.ledger.state().dataset
    assert (
        left is not None
        and left.rows() + left.held_out.rows == records.rows() + records.held_out.rows - 1
    )
    again = ingest(str(place.root), str(tmp_path / "people.csv"))
    assert again["suppressed"] == 1


def test_a_full_disk_while_a_file_is_written_is_an_error_and_the_file_stays_as_it_was(
    tmp_path: Path,
) -> None:
    """A real limit of the operating system (RLIMIT_FSIZE), in a process of its own."""
    program = """
import resource, sys
from pathlib import Path
from s3t_core.learning.store import LocalStageStore
from s3t_core.errors import StorageError
store = LocalStageStore(Path(sys.argv[1]), b"key")
kept = store.put("a", b"x" * 1000)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    store.put("b", b"y" * 100_000)
except StorageError as error:
    print("refused:", error)
assert store.get(kept) == b"x" * 1000 and list(store.digests()) == [kept] and store.bindings() == {"a": kept}
"""  # noqa: E501
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "refused: could not write" in done.stdout and "free space" in done.stdout
    assert [p.suffix for p in sorted(tmp_path.iterdir())] == [".json", ".safetensors"]


def test_the_database_refusing_writes_is_an_error_and_nothing_is_acknowledged(
    make_place: Make,
) -> None:
    place = make_place()
    path = place.state_dir / "s3t.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StorageError, match="database refused"):
        take_requests(place, ["person-001"])
    assert path.stat().st_size == 1900


def test_one_erased_record_does_not_come_back_through_quarantine_and_her_others_stay_there(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place()
    refused = [
        {"id": f"q{i}", "who": CANARY, "what": f"{CANARY_TEXT} refused {i}", "kind": "ugly"}
        for i in range(2)
    ]
    nameless = {"id": "", "who": CANARY, "what": f"{CANARY_TEXT} nameless", "kind": "ugly"}
    source = write_csv(tmp_path / "people.csv", [*people(canary=True), *refused, nameless])
    ingest(str(place.root), str(source))
    train(str(place.root))
    quarantine = place.state_dir / "quarantine" / "rows.jsonl"
    assert (
        all(f"refused {i}" in quarantine.read_text() for i in range(2))
        and "nameless" in quarantine.read_text()
    )
    request = take_requests(place, [CANARY], "q0")[0]
    erase(str(place.root))
    statement = json.loads(
        base64.b64decode(
            json.loads((place.certificates_dir / f"{request.request_id}.json").read_bytes())[
                "payload"
            ]
        )
    )
    assert statement["predicate"]["found"]["quarantined_rows"] == 2  # the nameless one may be it
    for _ in range(2):  # after the erasure, and after the old file came again
        text = quarantine.read_text()
        assert "refused 1" in text and "refused 0" not in text and "nameless" not in text
        ingest(str(place.root), str(source))


def test_a_row_without_a_record_id_of_a_subject_with_an_erased_record_is_left_out(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place()
    source = write_csv(tmp_path / "people.csv", people(canary=True))
    ingest(str(place.root), str(source))
    train(str(place.root))
    take_requests(place, [CANARY], "c0")
    erase(str(place.root))
    text = (place.root / "s3t.toml").read_text()
    (place.root / "s3t.toml").write_text(text.replace('record = "id"', 'record = ""'))
    again = ingest(str(place.root), str(source), shrink=True)
    assert again["suppressed"] == 3 and again["records"] + again["held_out"] == 36


def test_who_is_called_as_the_registry_calls_something_is_certified(trained: Make) -> None:
    """Names that are made of parts stand in no constant of the code."""
    place = trained()
    client = place.registry.connection.client
    stage = next(iter(place.ledger.state().stages.values()))
    stages = client.get_run(stage.run_id).info.run_name
    names = ["held_out_accuracy", "held_out_accuracy_low", "held_out_accuracy_high", stages]
    there = (place.state_dir / "mlflow.db").read_bytes()
    assert all(name.encode() in there for name in names)
    take_requests(place, names)
    done = erase(str(place.root))
    assert len(done["certificates"]) == len(names) and place.requests.open_now() == []
