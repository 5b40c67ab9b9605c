"""An erasure that is cut off, and what others do meanwhile: nothing is certified that this run did
not search for, no id stays, and nobody is told that something was accepted or held that was not
(edges B5, B6, C12)."""

import hashlib
import io
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flows.adapters.certificates import CertificateFiles
from flows.adapters.workspace_residue import WorkspaceResidue
from flows.use_cases.ingesting import ingest_source
from flows.use_cases.reconciling import reconcile
from flows.use_cases.requests import hold
from flows.use_cases.taking import take_hashed, take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace import access
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.creating import create_workspace
from flows.workspace.sweeping import sweep
from flows.workspace.workspace import Workspace
from s3t_core.erasure.dsse import statement_of
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.planner import targets_of
from s3t_core.erasure.vocabulary import STEPS
from s3t_core.errors import GuaranteeError, UsageError
from s3t_core.identity_index import IDENTITY_PATH, named_in
from s3t_core.records import subject_digest
from s3t_core.slicefile import read_rows, write_rows
from tests.flows.conftest import tiny_config, write_csv
from tests.held import HELD

ANN, BOB = "ann@example.org", "bob@example.org"
TEXT = "what she said in words of her own, which nobody else would say"


def _source(folder: Path, *more: dict[str, str]) -> str:
    rows = [
        {
            "id": f"{who}-{i}",
            "who": who,
            "what": f"{TEXT if who == ANN else who} {i}",
            "kind": ["good", "bad"][i],
        }
        for who in (ANN, BOB, *(f"other-{n}" for n in range(10)))
        for i in range(2)
    ]
    return str(write_csv(folder / "people.csv", [*rows, *more]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """To be read only."""
    folder = tmp_path_factory.mktemp("cut")
    place = create_workspace(
        folder / "w",
        tiny_config(folder / "no backbone", data={"id_rule": ["trim", "case"]}),
        b"\x05" * 32,
    )
    ingest_source(Workspace(place.root), HELD, _source(folder), False, 20_000, False)
    return Workspace(place.root)


@pytest.fixture
def place(made: Workspace, tmp_path: Path) -> Workspace:
    """The same, to be changed."""
    shutil.copytree(made.root, tmp_path / "w", symlinks=True)
    return Workspace(tmp_path / "w")


def _again(place: Workspace) -> Workspace:
    return Workspace(place.root)


def _eraser(place: Workspace) -> Eraser:
    place = _again(place)
    return Eraser(
        erase_ports(place, HELD), erase_policy(place), lambda: f"plan-{uuid.uuid4().hex[:16]}"
    )


def _until(place: Workspace, last: str) -> None:
    """An erasure that is killed behind a step."""
    eraser = _eraser(place)
    plan = eraser.plan()
    assert plan is not None
    for step in STEPS[: STEPS.index(last) + 1]:
        eraser.run_step(step, plan)


def _killed(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def _predicate(place: Workspace, request_id: str) -> dict[str, Any]:
    found: dict[str, Any] = statement_of(
        (place.certificates_dir / f"{request_id}.json").read_bytes()
    )["predicate"]
    return found


@pytest.mark.long
@pytest.mark.parametrize("method", ["issue", "_signed_before"])
def test_a_run_that_was_cut_off_while_it_certified_leaves_its_needles_to_the_next(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    (request,) = take_requests(place, [ANN])
    with monkeypatch.context() as patch:
        patch.setattr(CertificateFiles, method, _killed)
        with pytest.raises(KeyboardInterrupt):
            _eraser(place).run()
    left = place.state_dir / "restored.log"
    left.write_text(f"{ANN} said: {TEXT} 0")
    eraser = _eraser(place)
    eraser.run()
    assert "restored.log" in eraser.uncertified[request.request_id]
    assert not list(place.certificates_dir.glob("*.json"))
    left.unlink()
    _eraser(place).run()
    assert verify_path(place.certificates_dir, place.keys_dir / "signing.pub")["valid"]
    assert _predicate(place, request.request_id)["found"]["id_searched"]
    assert not list(place.needles.folder.iterdir())


def test_what_a_run_that_was_cut_off_had_signed_and_not_recorded_is_no_document(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_requests(place, [ANN])
    with monkeypatch.context() as patch:
        patch.setattr(type(place.requests), "close", _killed)
        with pytest.raises(KeyboardInterrupt):
            _eraser(place).run()
    signed = {p.name: p.read_bytes() for p in place.certificates_dir.glob("*.json")}
    assert len(signed) == 1
    (place.state_dir / "restored.log").write_text(ANN)
    eraser = _eraser(place)
    eraser.run()
    assert eraser.uncertified
    assert not list(place.certificates_dir.glob("*.json"))
    (place.state_dir / "restored.log").unlink()
    _eraser(place).run()
    assert {p.name: p.read_bytes() for p in place.certificates_dir.glob("*.json")} != signed
    assert verify_path(place.certificates_dir, place.keys_dir / "signing.pub")["valid"]


def test_needles_that_are_lost_after_the_scan_of_a_run_that_was_cut_off_are_certified_as_lost(
    place: Workspace,
) -> None:
    (request,) = take_requests(place, [ANN])
    _until(place, "scan")
    shutil.rmtree(place.needles.folder)
    _eraser(place).run()
    found = _predicate(place, request.request_id)
    assert not found["found"]["id_searched"] and found["scan"]["lost"] > 1
    assert verify_path(place.certificates_dir, place.keys_dir / "signing.pub")["valid"]


def test_asking_again_while_it_is_scanned_neither_stops_the_erasure_nor_is_lost(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (request,) = take_requests(place, [ANN])
    scan, told = WorkspaceResidue.scan, []

    def scanning(self: Any, *given: Any) -> Any:
        told.append(
            take_requests(_again(place), [ANN])[0].request_id
        )  # as it was given: it stands already
        with pytest.raises(UsageError, match="whose erasure has begun"):
            take_requests(_again(place), [ANN.upper()])
        return scan(self, *given)

    monkeypatch.setattr(WorkspaceResidue, "scan", scanning)
    _eraser(place).run()
    assert told == [request.request_id] and _again(place).ledger.state().certified
    assert take_requests(_again(place), [ANN.upper()])[0].request_id != request.request_id


def test_asking_again_while_it_is_certified_leaves_no_id(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_requests(place, [ANN])
    issue = CertificateFiles.issue

    def issuing(self: Any, *given: Any) -> Any:
        shutil.rmtree(place.needles.folder)  # so that asking again keeps it anew
        take_requests(_again(place), [ANN])
        return issue(self, *given)

    monkeypatch.setattr(CertificateFiles, "issue", issuing)
    _eraser(place).run()
    assert not [
        p for p in place.state_dir.rglob("*") if p.is_file() and ANN.encode() in p.read_bytes()
    ]


@pytest.mark.parametrize("by", ["id", "hash"])
def test_no_hold_is_acknowledged_for_whom_an_erasure_that_has_begun_erases(
    place: Workspace, by: str
) -> None:
    if by == "id":
        take_requests(place, [BOB])
    else:
        take_hashed(place, ["sha256:" + hashlib.sha256(BOB.encode()).hexdigest()])
    _until(place, "cut over")
    with pytest.raises(UsageError, match="erasure has begun"):
        hold(_again(place), BOB, "17(3)(e)", "a claim is before a court", "clerk")
    assert not _again(place).ledger.state().holds
    assert hold(_again(place), "other-1", "17(3)(e)", "a claim is before a court", "clerk") == 0


def test_a_restored_quarantine_row_of_whom_a_hash_found_nobody_goes(
    place: Workspace, tmp_path: Path
) -> None:
    quarantine = place.state_dir / "quarantine" / "rows.jsonl"
    spoilt = {
        "id": "x1",
        "who": "Zoe@Example.org",
        "what": "a text that nobody else has",
        "kind": "neither",
    }
    ingest_source(_again(place), HELD, _source(tmp_path, spoilt), False, 20_000, False)
    kept = quarantine.read_bytes()
    ingest_source(_again(place), HELD, _source(tmp_path), False, 20_000, False)
    take_hashed(_again(place), ["sha256:" + hashlib.sha256(b"zoe@example.org").hexdigest()])
    _eraser(place).run()
    quarantine.write_bytes(kept)
    assert (
        reconcile(_again(place), HELD).quarantined == 1
        and b"nobody else has" not in quarantine.read_bytes()
    )


def test_nothing_of_many_is_accepted_where_one_is_refused(place: Workspace) -> None:
    take_requests(place, [ANN])
    _until(place, "rewrite")
    size = place.ledger.head().size
    with pytest.raises(UsageError, match="Nothing was accepted"):
        take_requests(_again(place), [*(f"somebody {n}" for n in range(501)), ANN.upper()])
    assert (
        _again(place).ledger.head().size == size and len(_again(place).ledger.state().requests) == 1
    )
    assert "somebody" not in json.dumps([p.read_text() for p in place.needles.folder.iterdir()])


def _relabelled(path: Path) -> None:
    rows = list(read_rows(path))
    write_rows(path, [r._replace(label="bad" if r.label == "good" else "good") for r in rows])


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    "what", ["an erased person's rows", "other labels", "nothing", "another index"]
)
@pytest.mark.parametrize("after", ["the plan", "some of the rewriting"])
def test_what_lies_in_data_while_an_erasure_is_open_does_not_become_the_data(
    place: Workspace, tmp_path: Path, what: str, after: str
) -> None:
    """A file that is neither the recorded one nor what this erasure makes of it: certified people
    would be back."""
    took = {p: (p, p.read_bytes()) for p in (place.root / "data").rglob("*.parquet")}
    take_requests(place, [BOB])
    with access.changing(place):
        _eraser(place).run()
    changed, with_bob = next(
        (path, data)
        for path, data in took.values()
        if path.read_bytes() != data and path.name != IDENTITY_PATH
    )
    place = _again(place)
    take_requests(place, [ANN])
    with access.changing(place):
        eraser = _eraser(place)
        plan = eraser.plan()
        assert plan is not None
        if after != "the plan":
            state = place.ledger.state()
            with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
                patched.setattr(type(place.datasets.versions), "add", _killed)
                place.datasets.erase(
                    targets_of(place.requests.get(plan.requests), plan.subjects),
                    state.datasets,
                    state.destroyed_objects | set(plan.objects),
                )
    path = place.root / "data" / IDENTITY_PATH if what == "another index" else changed
    before = path.read_bytes()
    if what == "nothing":
        path.unlink()
    elif what == "other labels":
        _relabelled(path)
    elif what == "another index":  # somebody who is there is not found by it
        table = pq.read_table(path)
        path.unlink()
        somebody = subject_digest(place.keys, "other-3")
        pq.write_table(table.filter(pc.not_equal(table["subject"], somebody)), path)
    else:
        path.unlink()
        pq.write_table(
            pq.read_table(io.BytesIO(with_bob)).replace_schema_metadata({"by": "hand"}), path
        )
    if what == "another index":
        sweep(place, HELD)
    else:
        with (
            access.changing(place),
            pytest.raises(GuaranteeError, match="or what this erasure makes of it"),
        ):
            _eraser(place).run()
        assert len(place.ledger.state().certified) == 1
        path.unlink(missing_ok=True)
        path.write_bytes(before)
    with access.changing(place):
        assert _eraser(place).run() is not None
    place = _again(place)
    place.datasets.files.check_recorded(place.ledger.state().datasets)
    assert len(place.ledger.state().certified) == 2
    index = place.root / "data" / IDENTITY_PATH
    people = {
        r.subject
        for p in (place.root / "data").rglob("*.parquet")
        if p != index
        for r in read_rows(p)
    }
    assert people == named_in(index)
    assert (
        people.isdisjoint(subject_digest(place.keys, who) for who in (ANN, BOB))
        and len(people) == 10
    )
