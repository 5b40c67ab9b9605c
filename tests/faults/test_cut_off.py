"""A withdrawal or a rejection that was killed between its signature and its entry in the ledger:
the signed document is of an act that never came to be."""

import sqlite3
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete

from flows.adapters.book import SqlRequestBook
from flows.adapters.certificates import CertificateFiles
from flows.adapters.checkpoints import CheckpointFiles
from flows.adapters.lease import LostLease
from flows.adapters.tables import LEASE
from flows.cli.app import _render_status
from flows.use_cases import requests
from flows.use_cases.erasing import erase_pending
from flows.use_cases.evidence import write_bundle, write_ledger
from flows.use_cases.reporting import write_report
from flows.use_cases.requests import hold, reject, withdraw
from flows.use_cases.rotating import rotate_signing_key
from flows.use_cases.status import status_of
from flows.use_cases.steps import AS_THEY_STAND
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path, verify_paths
from flows.workspace import access, verified
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.erasure.certificate import certificate_subject
from s3t_core.erasure.closing import closing_of
from s3t_core.erasure.dsse import sign
from s3t_core.erasure.evidence_documents import CERTIFICATE_TYPE, CLOSING_TYPE
from s3t_core.errors import LedgerError, S3TError, StorageError
from tests.faults.carried import carry_out, killed

NOTHING: dict[str, list[str]] = {"missing": [], "changed": [], "left": [], "lost": []}


class Killed(BaseException):
    """As a kill ends a process."""


class NoDeployment:
    """Nobody retrains."""

    def is_carried_out(self) -> bool:
        return False

    def begin(self, once: str, parameters: dict[str, object]) -> str:
        raise AssertionError((once, parameters))

    def has_ended(self, run: str) -> bool:
        raise AssertionError(run)


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    create_workspace(tmp_path / "w", Config())
    return Workspace(tmp_path / "w")


def _cut(place: Workspace, kind: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ask, and close it until the kill; where the document is."""
    [asked] = take_requests(place, ["person 1"])

    def kill(*_: object) -> None:
        raise Killed

    with killed(place, monkeypatch) as patched:
        patched.setattr(SqlRequestBook, "close", kill)
        with pytest.raises(Killed):
            if kind == "withdrawal":
                withdraw(place, asked.request_id)
            else:
                reject(place, asked.request_id, "12(5)", "asked a hundred times", "the office")
    return place.certificates.path_of(asked.request_id)


@pytest.mark.parametrize("kind", ["withdrawal", "rejection"])
def test_it_is_named_and_goes_with_the_next_decision(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = _cut(place, kind, monkeypatch)
    assert path.is_file()
    told = {**status_of(Workspace(place.root)), "registry": []}
    assert told["documents"] == {"missing": [], "changed": [], "left": [path.stem], "lost": []}
    assert any("of acts that the ledger does not have" in line for line in _render_status(told))
    hold(Workspace(place.root), "person 1", "17(3)(e)", "a claim", "the office")
    assert not path.exists()
    assert status_of(Workspace(place.root))["documents"]["left"] == []


def test_it_goes_with_the_next_erasure(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _cut(place, "withdrawal", monkeypatch)
    erase_pending(Workspace(place.root), 0, AS_THEY_STAND, NoDeployment())
    assert place.certificates.kind_of(path.stem) == CERTIFICATE_TYPE
    assert not (place.state_dir / "ending").exists()


def test_one_of_a_request_that_nobody_knows_is_named_and_stays(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database may be another one: who destroys it may destroy evidence."""
    other = create_workspace(tmp_path / "o", Config())
    theirs = _cut(other, "withdrawal", monkeypatch)
    path = place.certificates_dir / theirs.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(theirs.read_bytes())
    take_requests(place, ["person 2"])
    hold(Workspace(place.root), "person 2", "17(3)(e)", "a claim", "the office")
    assert path.is_file()
    assert status_of(Workspace(place.root))["documents"]["left"] == [path.stem]


def test_one_that_is_about_to_be_recorded_is_none(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cut(place, "withdrawal", monkeypatch)
    with access.changing(Workspace(place.root)):
        assert status_of(Workspace(place.root))["documents"]["left"] == []


@pytest.mark.parametrize("kind", ["withdrawal", "rejection"])
@pytest.mark.parametrize("beside", ["a ledger", "a bundle", "a report"])
def test_beside_later_evidence_that_shows_as_open_what_it_closes_it_is_undecided(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, beside: str
) -> None:
    [other] = take_requests(place, ["person 9"])
    withdraw(place, other.request_id)
    path = _cut(place, kind, monkeypatch)
    key = place.keys_dir / "signing.pub"
    later = tmp_path / "ledger.jsonl"

    def evidence() -> Path:
        if beside == "a ledger":
            write_ledger(place, later)
            return later
        if beside == "a bundle":
            write_bundle(place, later.with_suffix(".zip"), [])
            return later.with_suffix(".zip")
        return Path(write_report(place, None, tmp_path / "report")["json"])

    before = evidence()
    assert verify_path(path, key)["valid"]  # alone it says what it says
    assert verify_paths([path, before], key)["valid"]  # signed over no less than that one
    take_requests(place, ["person 2"])
    found = verify_paths([path.parent, evidence()], key)
    assert not found["valid"] and found["problems"] == []
    [told] = found["undecided"]
    assert told.startswith(path.name) and "shows as open" in told
    withdraw(Workspace(place.root), path.stem)
    assert verify_paths([path.parent, evidence()], key)["valid"]


# --- in a history that the ledger lost


def _older(place: Workspace, kept: dict[str, bytes]) -> None:
    """Put these files of an older moment back in place, as a restore of single files does."""
    for name, content in kept.items():
        with (place.state_dir / name).open("r+b") as file:
            file.truncate()
            file.write(content)


def _now(place: Workspace, *names: str) -> dict[str, bytes]:
    return {name: (place.state_dir / name).read_bytes() for name in names}


def _entries(place: Workspace) -> int:
    with closing(sqlite3.connect(place.state_dir / "s3t.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM ledger").fetchone()
    return int(count)


def test_one_of_a_request_that_an_older_ledger_does_not_know_stays(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_requests(place, ["person 0"])
    kept = _now(place, "s3t.db")
    path = _cut(Workspace(place.root), "withdrawal", monkeypatch)
    _older(place, kept)
    (place.state_dir / "checkpoint.json").unlink()
    hold(Workspace(place.root), "person 2", "17(3)(e)", "a claim", "the office")
    assert path.is_file()


def test_no_decision_destroys_a_document_before_the_ledger_is_held_against_its_checkpoints(
    place: Workspace,
) -> None:
    """Somebody decides who opened the workspace before an older database took its place."""
    a, b = take_requests(place, ["person 1", "person 2"])
    decider = Workspace(place.root)
    hold(decider, "person 3", "17(3)(e)", "a claim", "the office")
    kept = _now(place, "s3t.db")
    withdraw(Workspace(place.root), a.request_id)
    document = place.certificates.path_of(a.request_id)
    newest = _now(place, "s3t.db")
    _older(place, kept)
    with pytest.raises(LedgerError, match="an older copy took its place"):
        withdraw(decider, b.request_id)
    size = _entries(place)
    with pytest.raises(LedgerError, match="an older copy took its place"):
        hold(decider, "person 4", "17(3)(e)", "a claim", "the office")
    assert document.is_file() and _entries(place) == size
    _older(place, newest)
    assert status_of(Workspace(place.root))["documents"] == NOTHING


@pytest.mark.parametrize("kind", ["withdrawal", "rejection"])
@pytest.mark.parametrize("then", ["is decided again", "is moved away"])
def test_who_took_a_request_back_is_not_erased_because_an_older_database_was_restored(
    place: Workspace, kind: str, then: str
) -> None:
    a, b = take_requests(place, ["person 1", "person 2"])
    kept = _now(place, "s3t.db")
    if kind == "withdrawal":
        withdraw(Workspace(place.root), a.request_id)
    else:
        reject(Workspace(place.root), a.request_id, "12(5)", "asked a hundred times", "the office")
    document = place.certificates.path_of(a.request_id)
    _older(place, kept)
    (place.state_dir / "checkpoint.json").unlink()  # docs/operations.md: the decision to go on
    withdraw(Workspace(place.root), b.request_id)
    told = {**status_of(Workspace(place.root)), "registry": []}
    assert told["documents"] == {**NOTHING, "lost": [a.request_id]}
    assert any("of a later ledger than this one" in line for line in _render_status(told))
    with pytest.raises(LedgerError, match=f"signed end of a request .*{a.request_id}"):
        erase_pending(Workspace(place.root), 0, AS_THEY_STAND, NoDeployment())
    assert document.is_file() and Workspace(place.root).ledger.state().is_open(a.request_id)
    if then == "is decided again":
        withdraw(Workspace(place.root), a.request_id)
    else:
        document.rename(place.root.parent / document.name)
    erase_pending(Workspace(place.root), 0, AS_THEY_STAND, NoDeployment())
    state = Workspace(place.root).ledger.state()
    assert (a.request_id in state.certified) == (then == "is moved away")


@pytest.mark.parametrize("kind", ["withdrawal", "rejection"])
@pytest.mark.parametrize("again", [False, True], ids=["as it is", "lost and replaced"])
def test_an_end_that_a_key_of_the_lost_history_signed_is_one(
    place: Workspace, kind: str, again: bool
) -> None:
    """The older ledger does not know that the key was replaced, nor by which."""
    [a] = take_requests(place, ["person 1"])
    kept = _now(place, "s3t.db")
    rotate_signing_key(Workspace(place.root), "officer", lost=False)
    if kind == "withdrawal":
        withdraw(Workspace(place.root), a.request_id)
    else:
        reject(Workspace(place.root), a.request_id, "12(5)", "asked often", "the office")
    document = place.certificates.path_of(a.request_id)
    signed = document.read_bytes()
    _older(place, kept)
    (place.state_dir / "checkpoint.json").unlink()
    if again:
        (place.keys_dir / "signing.key").rename(place.root.parent / "away.key")
        rotate_signing_key(Workspace(place.root), "officer", lost=True)
    assert status_of(Workspace(place.root))["documents"] == {**NOTHING, "lost": [a.request_id]}
    with pytest.raises(S3TError):
        erase_pending(Workspace(place.root), 0, AS_THEY_STAND, NoDeployment())
    if again:
        with pytest.raises(LedgerError, match="expected no signed end of a request that is open"):
            erase_pending(Workspace(place.root), 0, AS_THEY_STAND, NoDeployment())
    assert document.read_bytes() == signed


def test_a_decision_that_fails_before_it_signs_destroys_no_document_of_a_lost_one(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lay there before is not what was cut off."""
    [a] = take_requests(place, ["person 1"])
    kept = _now(place, "s3t.db")
    withdraw(Workspace(place.root), a.request_id)
    document = place.certificates.path_of(a.request_id)
    _older(place, kept)
    (place.state_dir / "checkpoint.json").unlink()

    def fail(*_: object) -> None:
        raise StorageError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(CertificateFiles, "issue", fail)
        with pytest.raises(StorageError):
            withdraw(Workspace(place.root), a.request_id)
    hold(Workspace(place.root), "person 9", "17(3)(e)", "a claim", "the office")
    assert document.is_file()
    assert status_of(Workspace(place.root))["documents"] == {**NOTHING, "lost": [a.request_id]}


def test_who_was_erased_in_it_is_erased_again(place: Workspace) -> None:
    [a] = take_requests(place, ["person 1"])
    kept = _now(place, "s3t.db")
    erase_pending(Workspace(place.root), 0, AS_THEY_STAND, NoDeployment())
    first = place.certificates.path_of(a.request_id).read_bytes()
    _older(place, kept)
    (place.state_dir / "checkpoint.json").unlink()
    assert status_of(Workspace(place.root))["documents"] == {**NOTHING, "lost": [a.request_id]}
    erase_pending(Workspace(place.root), 0, AS_THEY_STAND, NoDeployment())
    again = Workspace(place.root)
    assert a.request_id in again.ledger.state().certified
    assert again.certificates.path_of(a.request_id).read_bytes() != first
    assert status_of(again)["documents"] == NOTHING


def test_what_is_no_document_of_ours_holds_nobody_up(place: Workspace) -> None:
    [a] = take_requests(place, ["person 1"])
    path = place.certificates.path_of(a.request_id)
    path.parent.mkdir(exist_ok=True)
    key = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    said = {"ledger": {"name": "0" * 64, "size": 99, "root": "0" * 64}}
    for content in (
        b"",
        b"{}",
        sign({"predicateType": CLOSING_TYPE, "predicate": said}, key),
    ):
        path.write_bytes(content)
        assert status_of(Workspace(place.root))["documents"] == {**NOTHING, "left": [a.request_id]}
    erase_pending(Workspace(place.root), 0, AS_THEY_STAND, NoDeployment())
    assert place.certificates.kind_of(a.request_id) == CERTIFICATE_TYPE


@pytest.mark.parametrize("ended_by", ["a kill", "Ctrl-C"])
def test_what_ends_a_decision_from_outside_takes_its_document_back(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, ended_by: str
) -> None:
    if ended_by == "a kill":
        path = _cut(place, "withdrawal", monkeypatch)
        with access.changing(Workspace(place.root)):  # whoever it is
            pass
    else:
        [asked] = take_requests(place, ["person 1"])
        path = place.certificates.path_of(asked.request_id)

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(SqlRequestBook, "close", interrupt)
            with pytest.raises(KeyboardInterrupt):
                withdraw(place, asked.request_id)
    assert not path.exists() and not (place.state_dir / "ending").exists()


@pytest.mark.parametrize("mark", ["left by a kill", "brought back"])
def test_a_mark_of_an_act_that_was_recorded_makes_no_lost_end_one_that_never_came_to_be(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    """It lies there behind the entry, until somebody changes the workspace; then an older database
    is restored."""
    [a] = take_requests(place, ["person 1"])
    kept = _now(place, "s3t.db")

    def kill(path: Path) -> None:
        if path.name == "ending":
            raise Killed
        path.unlink(missing_ok=True)

    with killed(Workspace(place.root), monkeypatch) as patched:
        patched.setattr(verified, "remove_file", kill)
        with pytest.raises(Killed):
            withdraw(Workspace(place.root), a.request_id)
    left = (place.state_dir / "ending").read_bytes()
    document = place.certificates.path_of(a.request_id)
    signed = document.read_bytes()
    if mark == "brought back":
        hold(Workspace(place.root), "person 9", "17(3)(e)", "a claim", "the office")
        assert not (place.state_dir / "ending").exists() and document.read_bytes() == signed
        (place.state_dir / "ending").write_bytes(left)
    _older(place, kept)
    (place.state_dir / "checkpoint.json").unlink(missing_ok=True)
    assert status_of(Workspace(place.root))["documents"] == {**NOTHING, "lost": [a.request_id]}
    with pytest.raises(LedgerError, match="expected no signed end of a request that is open"):
        erase_pending(Workspace(place.root), 0, AS_THEY_STAND, NoDeployment())
    assert document.read_bytes() == signed


# --- whoever stood still, and wakes up when another has taken over


def _elsewhere(place: Workspace, monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Do it as another machine does, to which the one that stands still is dead."""
    with Workspace(place.root).database.transaction() as connection:
        connection.execute(delete(LEASE))
    with monkeypatch.context() as there:
        there.setattr(access, "workspace_lock", lambda *_: nullcontext())
        do()


@pytest.mark.parametrize("before", ["its mark", "its document"])
def test_whoever_wakes_up_writes_over_no_document_and_takes_none_away(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """It withdraws; the other rejects. The lease is asked in the moment of each write."""
    [a] = take_requests(place, ["person 1"])
    other = Workspace(place.root)
    where, name = (
        (CertificateFiles, "issue") if before == "its document" else (requests, "closing_of")
    )
    woken = getattr(where, name)

    def stand_still(*given: Any) -> Any:
        monkeypatch.setattr(where, name, woken)
        _elsewhere(
            other,
            monkeypatch,
            lambda: reject(other, a.request_id, "12(5)", "asked a hundred times", "the office"),
        )
        return woken(*given)

    monkeypatch.setattr(where, name, stand_still)
    with pytest.raises(LostLease):
        withdraw(Workspace(place.root), a.request_id)
    state = Workspace(place.root).ledger.state()
    assert state.closed[a.request_id] == "rejection"
    assert place.certificates.digest_of(a.request_id) == state.documents[a.request_id]
    assert status_of(Workspace(place.root))["documents"] == NOTHING
    assert not (place.state_dir / "ending").exists()


def test_whoever_wakes_up_writes_over_no_document_that_is_about_to_be_recorded(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other has written it, and not told the ledger yet: the lease alone says whose it is."""
    [a] = take_requests(place, ["person 1"])
    other = Workspace(place.root)
    issue, close = CertificateFiles.issue, SqlRequestBook.close
    refused: list[BaseException] = []

    def stand_still(*given: Any) -> Any:
        def close_late(*closing: Any) -> Any:
            monkeypatch.setattr(SqlRequestBook, "close", close)
            with pytest.raises(LostLease) as found:
                issue(*given)
            refused.append(found.value)
            return close(*closing)

        monkeypatch.setattr(CertificateFiles, "issue", issue)
        monkeypatch.setattr(SqlRequestBook, "close", close_late)
        _elsewhere(
            other,
            monkeypatch,
            lambda: reject(other, a.request_id, "12(5)", "asked a hundred times", "the office"),
        )
        raise refused[0]

    monkeypatch.setattr(CertificateFiles, "issue", stand_still)
    with pytest.raises(LostLease):
        withdraw(Workspace(place.root), a.request_id)
    state = Workspace(place.root).ledger.state()
    assert place.certificates.digest_of(a.request_id) == state.documents[a.request_id]
    assert status_of(Workspace(place.root))["documents"] == NOTHING


def test_whoever_wakes_up_takes_no_mark_of_anothers_away(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has ended one request; the other ends another one, and is killed before it is recorded."""
    a, b = take_requests(place, ["person 1", "person 2"])
    woken = SqlRequestBook.close

    def kill(*_: object) -> None:
        raise Killed

    def cut() -> None:
        with killed(place, monkeypatch) as patched, pytest.raises(Killed):
            patched.setattr(SqlRequestBook, "close", kill)
            withdraw(Workspace(place.root), b.request_id)

    def stand_still(*given: Any) -> Any:
        monkeypatch.setattr(SqlRequestBook, "close", woken)
        closed = woken(*given)
        _elsewhere(place, monkeypatch, cut)
        return closed

    monkeypatch.setattr(SqlRequestBook, "close", stand_still)
    with suppress(LostLease):
        withdraw(Workspace(place.root), a.request_id)
    assert (place.state_dir / "ending").read_text().startswith(b.request_id)
    assert place.certificates.path_of(b.request_id).exists()
    hold(Workspace(place.root), "person 9", "17(3)(e)", "a claim", "the office")
    assert not place.certificates.path_of(b.request_id).exists()
    assert status_of(Workspace(place.root))["documents"] == NOTHING


@pytest.mark.parametrize("act", ["issue", "discard"])
def test_a_document_that_the_ledger_has_is_not_written_over_and_not_removed(
    place: Workspace, act: str
) -> None:
    """As an erasure would that goes on from what it read before another certified."""
    [a] = take_requests(place, ["person 1"])
    digest = carry_out(place, a)
    head, name = place.ledger.head(), place.ledger.leaves()[0].hex()
    said = closing_of(a, "withdrawal", place.now(), "who asked", "", "not meant", name, head)
    with pytest.raises(LedgerError, match="whose document the ledger has"):
        if act == "issue":
            subject = certificate_subject(place.ledger.state(), head)
            place.certificates.issue({a.request_id: said}, subject, CLOSING_TYPE)
        else:
            place.certificates.discard([a.request_id])
    assert place.certificates.digest_of(a.request_id) == digest


@pytest.mark.parametrize("meanwhile", ["a move", "a refusal", "a second kill"])
def test_what_was_cut_off_is_taken_back_whoever_takes_over_first(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """A move asks for nothing that a decision asks for; a change of [erasure] refuses whoever comes
    next; a kill ends them before they got anywhere."""
    path = _cut(place, "withdrawal", monkeypatch)
    assert path.exists()
    other = Workspace(place.root)
    if meanwhile == "a move":
        with access.lease_of(other).held():
            pass
    else:

        def ends(*_: object) -> None:
            raise Killed

        with monkeypatch.context() as patched, pytest.raises(Killed):
            refuses = meanwhile == "a refusal"
            patched.setattr(Workspace, "refuse_other_rules", ends)
            if not refuses:
                patched.setattr(CheckpointFiles, "check_again", ends)
            hold(other, "person 9", "17(3)(e)", "a claim", "the office")
    assert not path.exists() and not (place.state_dir / "ending").exists()
    erase_pending(Workspace(place.root), 0, AS_THEY_STAND, NoDeployment())
    assert place.ledger.state().certified
