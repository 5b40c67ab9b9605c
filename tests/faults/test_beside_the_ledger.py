"""State that is changed beside the ledger, by whoever can write to the database, the files or the
clock: each is noticed or has no effect, and none is believed (edges B4 to B8, B11)."""

import json
import os
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from zipfile import ZipFile

import pytest

from flows.adapters.database import Database, SqlLedger, seal_of
from flows.adapters.keys import read_signing_key
from flows.metrics import text_of
from flows.use_cases import evidence_together, taking
from flows.use_cases.erasing import erase_pending, why_erase_now
from flows.use_cases.evidence import write_bundle, write_ledger
from flows.use_cases.reporting import report_of, where_ended, write_report
from flows.use_cases.requests import extend, hold, list_requests, reject, withdraw
from flows.use_cases.rotating import rotate_signing_key
from flows.use_cases.status import status_of
from flows.use_cases.steps import AS_THEY_STAND
from flows.use_cases.taking import ask, take_requests
from flows.use_cases.verifying import verify_path, verify_paths
from flows.workspace import access
from flows.workspace.creating import create_workspace
from flows.workspace.verified import check_whole
from flows.workspace.workspace import Workspace
from s3t_core.canonical import sha256_hex
from s3t_core.config import Config
from s3t_core.erasure import events
from s3t_core.erasure.checkpoint import read_checkpoint
from s3t_core.erasure.dsse import sign, statement_of
from s3t_core.erasure.ledger import leaf_of
from s3t_core.erasure.merkle import leaf_hash
from s3t_core.erasure.offline import key_id
from s3t_core.erasure.report_document import parse_report
from s3t_core.erasure.vocabulary import STEPS, ClosingKind
from s3t_core.errors import LedgerError, NotNow, S3TError, StorageError, UsageError, WorkspaceError
from s3t_core.times import CLOCK_TOLERANCE, months_later, parse_time, rfc3339
from tests.faults.carried import carry_out, killed, plan_for, step


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    (tmp_path / "outside").mkdir()
    create_workspace(
        tmp_path / "w",
        Config.model_validate(
            {
                "erasure": {"log_checkpoints_to": str(tmp_path / "outside")},
                "data": {"id_rule": ["case"]},
            }
        ),
    )
    return Workspace(tmp_path / "w")


def _again(place: Workspace) -> Workspace:
    return Workspace(place.root)


def _sql(place: Workspace, statement: str, *values: Any) -> int:
    with sqlite3.connect(place.state_dir / "s3t.db") as connection:
        return connection.execute(statement, values).rowcount


def _inserted(place: Workspace, event: dict[str, Any], seal: bytes) -> None:
    """What whoever may insert into the ledger, and has no key, can do."""
    leaf, size = leaf_of(event), place.ledger.head().size
    _sql(
        place,
        "INSERT INTO ledger (seq, leaf, hash, seal) VALUES (?, ?, ?, ?)",
        size,
        leaf,
        leaf_hash(leaf),
        seal,
    )


# --- the tables themselves


@pytest.mark.parametrize(
    "statement",
    [
        *map(
            "UPDATE requests SET {0} = CAST({0} AS BLOB)".format,
            ("id", "subject", "suppression", "commitment", "salt", "received", "due"),
        ),
        "UPDATE requests SET certificate = 1.5",
        "UPDATE suppression SET request = x'00'",
        "UPDATE suppression SET digest = x'00'",
        "UPDATE suppression SET kind = 7",
        "UPDATE requests SET received = CAST(x'ff' AS TEXT)",
    ],
)
def test_a_row_of_other_types_than_ours_is_refused_in_words(
    place: Workspace, statement: str
) -> None:
    first, _ = take_requests(place, ["person 17", "person 18"])
    carry_out(place, first)
    check_whole(place)
    assert _sql(place, statement)
    with pytest.raises((LedgerError, StorageError)):
        check_whole(_again(place))


def _remade(place: Workspace, table: str, column: str, rule: str) -> None:
    """The table made anew by somebody, with a constraint that makes it do something else with a
    row."""
    with sqlite3.connect(place.state_dir / "s3t.db") as connection:
        made = connection.execute(
            "SELECT sql FROM sqlite_master WHERE name = ?", (table,)
        ).fetchone()[0]
        connection.execute(f"ALTER TABLE {table} RENAME TO theirs")
        connection.execute(made.rstrip().removesuffix(")") + f", UNIQUE ({column}) {rule})")
        connection.execute(" ".join(("INSERT INTO", table, "SELECT * FROM theirs")))
        connection.execute("DROP TABLE theirs")


@pytest.mark.parametrize(("table", "column"), [("requests", "due"), ("requests", "certificate")])
def test_a_request_that_a_table_swallows_is_not_acknowledged(
    place: Workspace, table: str, column: str
) -> None:
    """With no trigger: a constraint that drops a second row of its kind in silence."""
    take_requests(place, ["person 17"])
    _remade(place, table, column, "ON CONFLICT IGNORE")
    size = place.ledger.head().size
    with pytest.raises(LedgerError, match="just written"):
        take_requests(_again(place), ["person 18", "person 19"])
    assert (
        _again(place).ledger.head().size == size and len(_again(place).ledger.state().requests) == 1
    )


def test_what_an_idempotency_key_stands_for_is_in_the_ledger_alone(place: Workspace) -> None:
    """For ever, also the key of somebody who asked again while the first request was open."""
    first = take_requests(place, ["person 17"], key="first")[0]
    assert (
        take_requests(_again(place), ["person 17"], key="second")[0].request_id == first.request_id
    )
    assert take_requests(_again(place), ["person 17"])[0].request_id == first.request_id
    size = place.ledger.head().size
    assert (
        take_requests(_again(place), ["person 17"], key="second")[0].request_id == first.request_id
    )
    assert place.ledger.head().size == size  # nothing new was told
    withdraw(_again(place), first.request_id)
    with sqlite3.connect(place.root / ".s3t" / "s3t.db") as database:
        names = [
            row[0]
            for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
    assert "idempotency" not in names
    for key in ("first", "second"):
        assert (
            take_requests(_again(place), ["person 17"], key=key)[0].request_id == first.request_id
        )
    assert (
        take_requests(_again(place), ["person 17"], key="third")[0].request_id != first.request_id
    )


# --- 4: checkpoints outside


def _outside(place: Workspace) -> list[Path]:
    return sorted((place.root.parent / "outside").glob("*.json"))


@pytest.mark.parametrize(
    "name",
    [
        "{ledger}-000000009999.json",
        "{ledger}-zzz.json",
        "{ledger}-000000000002.json",
        "aaa.json",
        "zzz.json",
    ],
)
def test_an_old_genuine_checkpoint_under_another_name_hides_no_newer_one(
    place: Workspace, name: str
) -> None:
    """The ledger and all files inside are rolled back, and a genuine old checkpoint is put where it
    would count."""
    kept = place.root.parent / "older"
    shutil.copytree(place.state_dir, kept)
    take_requests(place, ["person 1"])
    take_requests(place, ["person 2"])
    oldest = _outside(place)[0]
    target = oldest.with_name(name.format(ledger=oldest.name[:16]))
    there = target.exists()
    shutil.copy(oldest, target)
    for file in ("s3t.db", "checkpoint.json"):
        shutil.copy(kept / file, place.state_dir)
    (place.state_dir / "verified").unlink(missing_ok=True)
    with pytest.raises(LedgerError, match="under the name that its content calls for"):
        _again(place).ledger.state()
    if not there:
        target.unlink()
        with pytest.raises(LedgerError, match="an older copy took its place"):
            _again(place).ledger.state()


@pytest.mark.parametrize("remembered", [False, True])
def test_the_largest_signed_size_counts_whatever_sorts_last_and_whatever_is_remembered(
    place: Workspace, remembered: bool
) -> None:
    kept = place.root.parent / "older"
    take_requests(place, ["person 1"])
    shutil.copytree(place.state_dir, kept)
    _again(place).ledger.state()  # everything there is remembered
    take_requests(place, ["person 2"])
    if remembered:
        _again(place).ledger.state()
    for file in ("s3t.db", "checkpoint.json"):
        shutil.copy(kept / file, place.state_dir)
    with pytest.raises(LedgerError, match="an older copy took its place"):
        _again(place).ledger.state()


def test_other_bytes_under_a_checkpoints_name_are_an_error_also_when_it_is_to_be_written(
    place: Workspace,
) -> None:
    first = _outside(place)[0]
    genuine = first.read_bytes()
    _again(place).ledger.state()
    first.write_bytes(b"{}")
    with pytest.raises(LedgerError, match="got other bytes"):
        _again(place).ledger.state()
    first.write_bytes(genuine)
    blocked = first.with_name(f"{first.name[:16]}-{2:012d}.json")
    opened = _again(place)
    opened.ledger.state()
    blocked.write_bytes(genuine)  # the name of the next one is taken, so that it would be skipped
    with pytest.raises(LedgerError):
        take_requests(opened, ["person 1"])


def test_checkpoints_of_another_workspace_in_the_same_place_are_no_matter(
    place: Workspace, tmp_path: Path
) -> None:
    config = Config.model_validate({"erasure": {"log_checkpoints_to": str(tmp_path / "outside")}})
    other = create_workspace(tmp_path / "other", config)
    (tmp_path / "outside" / "notes.json").write_text("[]")
    for each in (place, other, place):
        assert len(take_requests(_again(each), [f"person {each.root.name}"])) == 1
        check_whole(_again(each))


# --- 5: lost needles


def test_asking_again_fills_in_an_id_that_a_restore_lost(place: Workspace) -> None:
    asked = take_requests(place, ["person 1", "person 2"])
    shutil.rmtree(place.state_dir / "needles")
    place = _again(place)
    assert [r.request_id for r in take_requests(place, ["person 1"])] == [asked[0].request_id]
    assert place.needles.ids_of(asked[0].request_id) == ["person 1"]
    found = place.needles.read("plan-x", {r.request_id: () for r in asked})
    assert (found.ids, found.ids_lost, found.texts_of) == (
        ["person 1"],
        [asked[1].request_id],
        None,
    )
    assert "person 1" not in json.dumps([p.name for p in place.needles.folder.iterdir()])


@pytest.mark.parametrize("again", ["first", "other", "third"])
def test_a_spelling_that_a_restore_lost_counts_as_lost_until_it_is_told_again(
    place: Workspace, again: str
) -> None:
    """Older files of ids are whole and under our seal: what came since, the ledger knows."""
    spellings = {"first": "person 1", "other": "PERSON 1", "third": "Person 1"}
    (hers,) = take_requests(place, [spellings["first"]])
    older = {p.name: p.read_bytes() for p in place.needles.folder.iterdir()}
    place = _again(place)
    assert [r.request_id for r in take_requests(place, [spellings["other"]])] == [hers.request_id]
    assert not _lost(place, hers.request_id)
    for path in place.needles.folder.iterdir():
        path.unlink()
    for name, content in older.items():
        (place.needles.folder / name).write_bytes(content)
    place = _again(place)
    assert _lost(place, hers.request_id)
    take_requests(place, [spellings[again]])
    place = _again(place)
    assert _lost(place, hers.request_id) == (again != "other")
    assert "person" not in json.dumps(place.ledger.events()).lower()


def _lost(place: Workspace, request_id: str) -> bool:
    told = {request_id: place.ledger.state().requests[request_id].ids}
    return place.needles.read("plan", told).ids_lost == [request_id]


@pytest.mark.parametrize("last", ["", "cut over", "scan"])
def test_a_spelling_that_comes_when_the_erasure_has_begun_is_not_taken_for_one_that_is_searched(
    place: Workspace, last: str
) -> None:
    hers, other = take_requests(place, ["person 1", "person 2"])
    place.ledger.append(
        {"type": "planned", "time": place.now(), "plan": plan_for(hers.request_id)},
        *(step(place, name) for name in STEPS[: STEPS.index(last) + 1 if last else 0]),
    )
    place = _again(place)
    assert take_requests(place, ["person 1"])[0].request_id == hers.request_id
    with pytest.raises(UsageError, match=r"whose erasure has begun.*Nothing was accepted"):
        take_requests(place, ["PERSON 1", "person 3"])
    assert len(place.ledger.state().requests) == 2 and all(
        map(place.needles.ids_of, place.ledger.state().requests)
    )
    assert take_requests(place, ["PERSON 2"])[0].request_id == other.request_id


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b'{"req": 1}', b"[" * 100_000]
)
def test_a_damaged_file_of_ids_counts_as_lost_and_stops_nobody(
    place: Workspace, damage: bytes
) -> None:
    hers, other = take_requests(place, ["person 1"])[0], take_requests(place, ["person 2"])[0]
    path = place.state_dir / "needles" / f"{hers.request_id}.json"
    path.write_bytes(damage)
    assert place.needles.read("p", {hers.request_id: ()}).ids_lost == [hers.request_id]
    place.needles.prune(lambda: [hers.request_id, other.request_id])
    withdraw(_again(place), other.request_id)
    take_requests(_again(place), ["person 1"])
    assert _again(place).needles.ids_of(hers.request_id) == ["person 1"]
    path.write_bytes(json.dumps({hers.request_id: []}).encode())
    assert place.needles.read("p", {hers.request_id: ()}).ids_lost == [
        hers.request_id
    ]  # emptied is lost


# --- 6: who may insert closes nothing


@pytest.mark.parametrize("seal", [b"", b"\0" * 32])
def test_whoever_may_only_insert_into_the_ledger_closes_no_request(
    place: Workspace, seal: bytes
) -> None:
    request = take_requests(place, ["person 1"])[0].request_id
    _inserted(
        place,
        {"type": "certified", "time": place.now(), "request": request, "certificate": "0" * 64},
        seal,
    )
    _sql(place, "UPDATE requests SET certificate = ? WHERE id = ?", "0" * 64, request)
    for command in (
        lambda p: p.ledger.state(),
        status_of,
        list_requests,
        lambda p: p.signing.write_checkpoint(),
        check_whole,
        lambda p: take_requests(p, ["person 2"]),
    ):
        with pytest.raises(LedgerError, match="with the seal of this workspace"):
            command(_again(place))


def test_an_entry_that_was_sealed_is_not_believed_anywhere_else(place: Workspace) -> None:
    """Copies of genuine entries, seals and all, appended again: as of an older erasure under the
    present one."""
    first = take_requests(place, ["person 1"])[0]
    carry_out(place, first)
    second = take_requests(place, ["person 2"])[0]
    place.ledger.append(
        {"type": "planned", "time": place.now(), "plan": plan_for(second.request_id, plan_id="p2")}
    )
    size = place.ledger.head().size
    assert (
        _sql(
            place,
            "INSERT INTO ledger SELECT ?, leaf, hash, seal FROM ledger WHERE "
            "CAST(leaf AS TEXT) LIKE '%\"cut over\"%'",
            size,
        )
        == 1
    )
    with pytest.raises(LedgerError, match="with the seal of this workspace"):
        _again(place).ledger.state()


def test_with_the_key_too_a_request_is_closed_only_by_an_erasure(place: Workspace) -> None:
    """The rules hold on every read, whatever the seal: an illegal entry by whoever has the key is
    refused."""
    request = take_requests(place, ["person 1"])[0].request_id
    event = {"type": "certified", "time": place.now(), "request": request, "certificate": "0" * 64}
    size = place.ledger.head().size
    before = bytes(
        sqlite3.connect(place.state_dir / "s3t.db")
        .execute("SELECT seal FROM ledger WHERE seq = ?", (size - 1,))
        .fetchone()[0]
    )
    _inserted(place, event, seal_of(place.keys.sealing, size, before, leaf_hash(leaf_of(event))))
    with pytest.raises(LedgerError, match="whose scan is done"):
        _again(place).ledger.state()


def test_what_does_not_follow_is_refused_before_it_is_appended(place: Workspace) -> None:
    request = take_requests(place, ["person 1"])[0].request_id
    head = place.ledger.head()
    with pytest.raises(LedgerError, match="does not follow"):
        place.ledger.append(
            {"type": "certified", "time": place.now(), "request": request, "certificate": "0" * 64}
        )
    assert place.ledger.head() == head and len(take_requests(_again(place), ["person 2"])) == 1


@pytest.mark.parametrize(
    "hide",
    [
        "DELETE FROM requests WHERE seq = 1",
        "UPDATE requests SET certificate = 'x'",
        "UPDATE requests SET id = id || 'x'",
    ],
)
def test_a_request_that_the_table_hides_is_not_passed_over(place: Workspace, hide: str) -> None:
    """Which are open, the ledger says: also to whoever looks at those alone."""
    asked = take_requests(place, ["person 1", "person 2"])
    _sql(place, hide)
    try:
        told = _again(place).requests.open_now()
    except LedgerError as error:
        assert "restore the database" in str(error)
    else:
        assert told == [r.request_id for r in asked]


def test_a_closing_document_that_is_gone_or_changed_is_told_by_every_look(place: Workspace) -> None:
    request = take_requests(place, ["person 1"])[0]
    withdraw(place, request.request_id)
    path = place.certificates.path_of(request.request_id)
    assert status_of(place)["documents"] == {"missing": [], "changed": [], "left": [], "lost": []}
    kept = path.read_bytes()
    path.write_bytes(kept + b" ")
    assert status_of(_again(place))["documents"] == {
        "missing": [],
        "changed": [request.request_id],
        "left": [],
        "lost": [],
    }
    assert check_whole(_again(place)).changed == (request.request_id,)
    path.unlink()
    assert status_of(_again(place))["documents"] == {
        "missing": [request.request_id],
        "changed": [],
        "left": [],
        "lost": [],
    }
    path.write_bytes(kept)
    assert check_whole(_again(place)).sentences() == []


def test_what_is_remembered_of_files_is_believed_only_under_our_seal(place: Workspace) -> None:
    request = take_requests(place, ["person 1"])[0]
    withdraw(place, request.request_id)
    status_of(place)
    memory = place.state_dir / "verified"
    assert memory.stat().st_mode & 0o077 == 0
    seal, _, body = memory.read_bytes().partition(b"\n")
    found = json.loads(body)
    found["documents"] = {
        f"{request.request_id}.json": [
            found["documents"][f"{request.request_id}.json"][0],
            "0" * 64,
        ]
    }
    memory.write_bytes(seal + b"\n" + json.dumps(found).encode())
    assert status_of(_again(place))["documents"] == {
        "missing": [],
        "changed": [],
        "left": [],
        "lost": [],
    }


# --- 7: suppression list and commitment


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM suppression",
        "UPDATE suppression SET digest = 'x'",
        "UPDATE suppression SET kind = 'record'",
        "UPDATE suppression SET request = 'req-0'",
        "INSERT INTO suppression VALUES ('y', 'subject', 'req-0', '')",
    ],
)
def test_a_suppression_list_that_the_ledger_does_not_make_stops_every_command(
    place: Workspace, statement: str
) -> None:
    carry_out(place, take_requests(place, ["person 1"])[0])
    status_of(_again(place))
    assert _sql(place, statement) == 1
    for command in (status_of, check_whole, lambda p: withdraw(p, "req-0")):
        with pytest.raises(LedgerError, match="suppression list"):
            command(_again(place))


@pytest.mark.parametrize(
    "column", ["suppression", "commitment", "subject", "record", "due", "received"]
)
def test_whom_a_request_is_about_and_its_commitment_stand_in_the_ledger(
    place: Workspace, column: str
) -> None:
    take_requests(place, ["person 1"])
    assert _sql(place, f"UPDATE requests SET {column} = 'x'") == 1  # noqa: S608
    with pytest.raises(LedgerError, match="request book"):
        status_of(_again(place))


def test_another_salt_than_the_one_that_was_drawn_is_noticed_and_none_is_a_destroyed_one(
    place: Workspace,
) -> None:
    """Only of a closed request: while it is open, nothing destroys its salt."""
    request = take_requests(place, ["person 1"])[0]
    drawn = (
        sqlite3.connect(place.state_dir / "s3t.db")
        .execute("SELECT salt FROM requests")
        .fetchone()[0]
    )
    _sql(place, "UPDATE requests SET salt = ''")
    with pytest.raises(LedgerError, match="none for an open request"):
        status_of(_again(place))
    _sql(place, "UPDATE requests SET salt = ?", drawn)
    withdraw(_again(place), request.request_id)
    _sql(place, "UPDATE requests SET salt = ''")
    status_of(_again(place))
    _sql(place, "UPDATE requests SET salt = ?", "0" * 64)
    with pytest.raises(LedgerError, match="salt of every commitment"):
        status_of(_again(place))


def test_a_request_is_acknowledged_only_by_what_the_ledger_has(place: Workspace) -> None:
    """A row that was made to look open, planted, or turned at somebody else takes no request."""
    first = take_requests(place, ["person 1"], key="ticket 1")[0]
    withdraw(place, first.request_id)
    document = place.ledger.state().documents[first.request_id]
    _sql(place, "UPDATE requests SET certificate = ''")  # as if it were open still
    second = take_requests(_again(place), ["person 1"])[0]
    assert second.request_id != first.request_id and place.ledger.state().is_open(second.request_id)
    _sql(place, "UPDATE requests SET certificate = ? WHERE id = ?", document, first.request_id)
    status_of(_again(place))
    _sql(
        place,
        "INSERT INTO requests (id, subject, record, suppression, commitment, salt, received, due, "
        "certificate) SELECT 'req-f00', 's', '', 'planted', '', '', received, due, '' FROM "
        "requests LIMIT 1",
    )
    for look in (list_requests, status_of):
        with pytest.raises(LedgerError, match="request book"):
            look(_again(place))
    _sql(place, "DELETE FROM requests WHERE id = 'req-f00'")
    _sql(place, "UPDATE requests SET suppression = 'another person' WHERE id = ?", first.request_id)
    with pytest.raises(LedgerError, match="for the same person"):
        take_requests(_again(place), ["person 1"], key="ticket 1")


# --- 8: idempotency, left-over and renamed documents


def test_of_many_that_are_asked_for_it_is_said_how_many_were_accepted(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go in parts; what keeps a later part out says nothing of the first."""
    monkeypatch.setattr(taking, "_BATCH", 2)
    check, asked = taking._check_not_begun, [0]

    def begun(workspace: Workspace, new: Any, others: str = "") -> None:
        asked[0] += 1
        if asked[0] == 3:  # the eraser began between two parts
            raise NotNow(f"expected the id as before, got another. {others}")
        check(workspace, new, others)

    monkeypatch.setattr(taking, "_check_not_begun", begun)
    with pytest.raises(NotNow, match="The first 2 were accepted, and no others"):
        take_requests(place, ["person 1", "person 2", "person 3"])
    opened = _again(place)
    assert len(opened.requests.open_now()) == 2
    signed = read_checkpoint(
        (place.state_dir / "checkpoint.json").read_bytes(), *place.signing.public_keys()
    )
    assert signed.head == opened.ledger.head(), "whoever is told so has it signed"


def test_a_key_of_a_withdrawn_request_is_told_as_that(place: Workspace) -> None:
    first = take_requests(place, ["person 1"], key="ticket 9")[0]
    withdraw(place, first.request_id)
    again = take_requests(place, ["person 1"], key="ticket 9")
    state = {r["id"]: r["state"] for r in list_requests(place)}[again[0].request_id]
    assert (
        again[0].request_id == first.request_id
        and state == "withdrawal"
        and state in get_args(ClosingKind)
    )


def test_a_rejection_cut_before_it_closed_is_not_taken_for_the_withdrawal_that_followed(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = take_requests(place, ["person 1"])[0]
    with killed(place, monkeypatch) as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(
            type(place.requests), "close", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt())
        )
        reject(place, request.request_id, "12(6)", "no proof of identity", "clerk")
    path = place.certificates.path_of(request.request_id)
    assert statement_of(path.read_bytes())["predicate"]["closing"]["kind"] == "rejection"
    place = _again(place)
    withdraw(place, request.request_id)
    assert statement_of(path.read_bytes())["predicate"]["closing"]["kind"] == "withdrawal"
    assert (
        place.ledger.state().closed == {request.request_id: "withdrawal"}
        and check_whole(place).sentences() == []
    )


def test_documents_that_other_evidence_contradicts_are_not_valid_beside_it(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is genuine: of an act that was cut off, whose document somebody kept, and of what
    happened then."""
    request = take_requests(place, ["person 1"])[0]
    with killed(place, monkeypatch) as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(
            type(place.requests), "close", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt())
        )
        reject(place, request.request_id, "12(6)", "no proof of identity", "clerk")
    path, kept = place.certificates.path_of(request.request_id), tmp_path / "kept"
    kept.mkdir()
    shutil.copy(path, kept / path.name)
    place = _again(place)
    withdraw(place, request.request_id)
    write_bundle(place, tmp_path / "b.zip", [])
    write_ledger(place, tmp_path / "l.jsonl")
    report = Path(write_report(place, None, tmp_path / "report")["json"])
    public = place.keys_dir / "signing.pub"
    unpacked = tmp_path / "unpacked" / "b.zip"
    with ZipFile(tmp_path / "b.zip") as bundle:
        bundle.extractall(unpacked)
    true = [tmp_path / "b.zip", tmp_path / "l.jsonl", report, unpacked]
    assert verify_paths(true, public)["valid"] and verify_paths([*true, path], public)["valid"]
    for other in true:
        for document in (kept / path.name, kept):
            assert verify_paths([document], public)["valid"]
            found = verify_paths([document, other], public)
            assert not found["valid"] and any("closing document" in p for p in found["problems"]), (
                other
            )
    with monkeypatch.context() as blind:  # whatever kind of evidence comes one day
        blind.setattr(evidence_together, "_shown_by", lambda *_: (_ for _ in ()).throw(KeyError()))
        found = verify_paths(true, public)
    assert not found["valid"] and len(found["between"]) == len(true)


def test_an_act_that_was_cut_off_and_is_done_again_has_a_document_of_its_own(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document tells the time of the act that the ledger has, however soon after the first."""
    clock = _Clock()
    request = take_requests(_with(place, clock), ["person 1"])[0]
    with killed(place, monkeypatch) as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(
            type(place.requests), "close", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt())
        )
        withdraw(_with(place, clock), request.request_id)
    path = place.certificates.path_of(request.request_id)
    first = statement_of(path.read_bytes())["predicate"]["closing"]["time"]
    clock.at += timedelta(seconds=90)
    withdraw(_with(place, clock), request.request_id)
    last, event = statement_of(path.read_bytes())["predicate"]["closing"], place.ledger.events()[-1]
    assert first < last["time"] == event["time"] and last["kind"] == event["kind"] == "withdrawal"
    assert event["certificate"] == sha256_hex(path.read_bytes())
    assert check_whole(_again(place)).sentences() == []


def test_a_renamed_copy_of_a_document_is_no_document_of_another_request(place: Workspace) -> None:
    first, second = take_requests(place, ["person 1", "person 2"])
    withdraw(place, first.request_id)
    key, path = place.keys_dir / "signing.pub", place.certificates.path_of(first.request_id)
    copy = place.certificates.path_of(second.request_id)
    shutil.copy(path, copy)
    for where in (copy, place.certificates_dir):
        found = verify_path(where, key)
        assert not found["valid"] and "a renamed copy" in found["problems"][0]
    copy.unlink()
    plain = place.root.parent / "certificate.json"  # under a name that names no request
    shutil.copy(path, plain)
    assert verify_path(plain, key)["certificates"][0]["request"] == first.request_id


@pytest.mark.parametrize(
    "name", ["req\u2011{}", " req-{}", "\uff52\uff45\uff51-{}", "req\u200b-{}", "copy"]
)
def test_a_name_in_a_directory_that_only_looks_like_a_requests_is_a_renamed_copy(
    place: Workspace, name: str
) -> None:
    first, second = take_requests(place, ["person 1", "person 2"])
    withdraw(place, first.request_id)
    path = place.certificates.path_of(first.request_id)
    path.rename(path.with_name(f"{name.format(second.request_id.removeprefix('req-'))}.json"))
    found = verify_path(place.certificates_dir, place.keys_dir / "signing.pub")
    assert not found["valid"] and "a renamed copy" in found["problems"][0]


# --- 11: the clock


class _Clock:
    def __init__(self) -> None:
        self.at = datetime.now(UTC).replace(microsecond=0)

    def now(self) -> datetime:
        return self.at


def _with(place: Workspace, clock: _Clock) -> Workspace:
    opened = _again(place)
    opened.clock = clock
    return opened


@pytest.mark.parametrize("told", [True, False])
def test_a_clock_that_is_set_back_gives_no_overdue_request_more_time(
    place: Workspace, told: bool
) -> None:
    """Once the ledger has told a time after its due one; whichever of the two was right."""
    clock = _Clock()
    today = clock.at
    asked = take_requests(_with(place, clock), ["person 1"])[0]
    clock.at = today + timedelta(days=31)
    if told:
        take_requests(_with(place, clock), ["person 2"])
    clock.at = today + timedelta(days=20)
    later = take_requests(_with(place, clock), ["person 3"])[0]
    opened = _with(place, clock)
    given = ("many letters at once", "legal department")
    if told:
        with pytest.raises(UsageError, match="by the clock that was set back"):
            extend(opened, asked.request_id, *given)
        with pytest.raises(LedgerError):
            opened.ledger.append(
                events.DeadlineExtended(
                    time=opened.now(),
                    request=asked.request_id,
                    due=rfc3339(today + timedelta(days=40)),
                    reason=given[0],
                    by=given[1],
                )
            )
    else:
        extend(opened, asked.request_id, *given)
    extend(_with(place, clock), later.request_id, *given)  # it came by the clock that holds
    for request in (asked, later):
        withdraw(_with(place, clock), request.request_id)
    met = {r.id: r.met for r in report_of(_with(place, clock), None, clock.now()).requests}
    assert met[asked.request_id] is (None if told else True) and met[later.request_id] is True


def test_the_first_command_after_a_clock_was_put_right_extends_what_its_correction_leaves(
    place: Workspace,
) -> None:
    """Its own entry brings the correction: times are those that hold behind it."""
    clock, given = _Clock(), ("many letters at once", "legal department")
    today = clock.at
    asked = take_requests(_with(place, clock), ["person 1"])[0]
    clock.at = today + timedelta(days=700)
    ahead, told = take_requests(_with(place, clock), ["person 2", "person 3"])
    clock.at = today + timedelta(days=1)
    with pytest.raises(NotNow, match="by the clock that was set back"):
        extend(_with(place, clock), asked.request_id, *given)
    until = extend(_with(place, clock), ahead.request_id, *given)
    kept = _with(place, clock).ledger.state().requests[ahead.request_id]
    assert kept.due == until < ahead.received
    assert until == rfc3339(months_later(parse_time(kept.extended_from), 2))
    extend(_with(place, clock), told.request_id, *given)
    events_ = _with(place, clock).ledger.events()
    assert [e["type"] for e in events_].count("clock") == 1


def test_what_a_command_of_ours_may_not_tell_blames_nobody(place: Workspace) -> None:
    """Its entry is not in the ledger: nobody wrote to the database."""
    asked = take_requests(_again(place), ["person 1"])[0]
    withdraw(_again(place), asked.request_id)
    opened = _again(place)
    approval = events.RequestApproved(time=opened.now(), request=asked.request_id, by="desk")
    with pytest.raises(LedgerError, match="nothing was written") as told:
        opened.ledger.append(approval)
    assert "find out who" not in str(told.value)


def test_a_process_that_stood_still_is_no_clock_that_was_put_right(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took the time of what it tells, and was stopped, or waited for a lock, before it told it:
    a correction on the record would excuse a deadline that is missed."""
    slow, clock = _Clock(), _Clock()
    opened, real = _with(place, slow), taking._taken_in_parts

    def stands_still(workspace: Workspace, new: list[Any]) -> object:
        slow.at += timedelta(seconds=400)
        clock.at = slow.at
        with monkeypatch.context() as other:
            other.setattr(taking, "_taken_in_parts", real)
            take_requests(_with(place, clock), ["person 1"])
        return real(workspace, new)

    with monkeypatch.context() as once, pytest.raises(StorageError, match="stood still"):
        once.setattr(taking, "_taken_in_parts", stands_still)
        take_requests(opened, ["person 2"])
    assert [r["state"] for r in list_requests(opened)] == ["pending"], "nothing of it was written"
    assert "clock" not in {e["type"] for e in opened.ledger.events()}
    asked = take_requests(opened, ["person 2"])[0]  # again
    assert asked.received == rfc3339(slow.at)

    def sleeps(workspace: Workspace, new: list[Any]) -> object:  # and nobody else writes
        slow.at += timedelta(days=60)
        return real(workspace, new)

    with monkeypatch.context() as once, pytest.raises(StorageError, match="stood still"):
        once.setattr(taking, "_taken_in_parts", sleeps)
        take_requests(opened, ["person 3"])
    assert "clock" not in {e["type"] for e in _again(place).ledger.events()}


def test_a_clock_that_ran_700_days_ahead_buys_no_time(place: Workspace) -> None:
    clock = _Clock()
    today = clock.at
    clock.at = today + timedelta(days=700)
    asked = take_requests(_with(place, clock), ["person 1"])[0]
    clock.at = today
    _again_asked = take_requests(_with(place, clock), ["person 2"])[0]
    opened = _with(place, clock)
    assert [e["type"] for e in opened.ledger.events()][-2:] == ["clock", "request"]
    days = {r["id"]: r["days_left"] for r in list_requests(opened)}
    assert days[asked.request_id] == days[_again_asked.request_id] == 30
    record = opened.ledger.state().requests[asked.request_id]
    assert record.clock_corrected and record.due == _again_asked.due
    carry_out(opened, opened.requests.get([asked.request_id])[0])

    entry = next(
        r for r in report_of(opened, None, clock.now()).requests if r.id == asked.request_id
    )
    assert entry.clock_corrected and entry.seconds_to_certificate is None and entry.met
    assert any(a.kind == "clock corrected" for a in report_of(opened, None, clock.now()).acts)
    clock.at = today + timedelta(days=40)  # the deadline counts from when the clock was put right
    late = {r["id"]: r["days_left"] for r in list_requests(_with(place, clock))}
    assert late[_again_asked.request_id] == -10


def test_whoever_tells_of_a_request_tells_the_times_that_hold_since_the_clock_was_put_right(
    place: Workspace,
) -> None:
    """The answer to who asks again, the signed withdrawal, what is due at once, metrics."""
    clock = _Clock()
    today = clock.at
    clock.at = today + timedelta(days=700)
    asked = take_requests(_with(place, clock), ["person 1"])[0]
    clock.at = today
    other = take_requests(_with(place, clock), ["person 2"])[0]
    again = take_requests(_with(place, clock), ["person 1"])[0]
    assert again.request_id == asked.request_id and (again.received, again.due) == (
        other.received,
        other.due,
    )
    clock.at = today + timedelta(days=29, hours=23)
    opened = _with(place, clock)
    assert why_erase_now(opened) == f"{asked.request_id} is due {other.due}"  # the older one
    withdraw(opened, asked.request_id)
    told = statement_of(opened.certificates.path_of(asked.request_id).read_bytes())["predicate"][
        "request"
    ]
    assert (told["received"], told["due"]) == (other.received, other.due)


def test_whoever_only_looks_tells_no_time_to_come(place: Workspace) -> None:
    """The clock was put right, and nobody has written since."""
    clock = _Clock()
    today = clock.at
    clock.at = today + timedelta(days=700)
    asked = take_requests(_with(place, clock), ["person 1"])[0]
    clock.at = today
    opened = _with(place, clock)
    [listed] = list_requests(opened)
    [told] = status_of(opened)["pending"]
    [asked_again] = ask(_with(place, clock), ["person 1"], [], "", "")["requests"]
    assert asked_again["due"] == listed["due"]
    assert (
        why_erase_now(opened) == f"{asked.request_id} bears a time to come: the clock was put back"
    )
    other = take_requests(_with(place, clock), ["person 2"])[0]  # which puts it on the record
    again = _with(place, clock)
    assert (listed["received"], listed["due"]) == (other.received, other.due)
    assert (told["received"], told["due"]) == (other.received, other.due)
    assert [r["due"] for r in list_requests(again)] == [other.due] * 2
    assert why_erase_now(again) == ""


def test_metrics_tell_no_time_that_a_clock_made(place: Workspace) -> None:
    clock = _Clock()
    today = clock.at
    clock.at = today + timedelta(days=700)
    asked = take_requests(_with(place, clock), ["person 1"])[0]
    clock.at = today
    opened = _with(place, clock)
    carry_out(opened, opened.requests.get([asked.request_id])[0])
    assert "s3t_cut_over_seconds" not in text_of(_again(place))
    opened = _with(place, clock)
    asked = take_requests(opened, ["person 2"])[0]
    carry_out(opened, asked, "p2")
    assert "s3t_cut_over_seconds" in text_of(_again(place))
    clock.at = today + timedelta(days=1)
    opened = _with(place, clock)
    asked = take_requests(opened, ["person 3"])[0]
    carry_out(opened, asked, "p3")  # by a clock that is ahead of now, and no entry says so yet
    assert "s3t_cut_over_seconds" not in text_of(_again(place))


def test_reports_of_a_schedule_leave_out_nothing_that_was_told_between_them(
    place: Workspace, tmp_path: Path
) -> None:
    """One that runs late, or looks back for less than the time between two, begins where the last
    one ended; one of another ledger, or a file that is none, is no last one."""
    clock, folder = _Clock(), place.reports_dir
    hour = timedelta(hours=1)
    first = write_report(_with(place, clock), clock.at - hour, folder / "1", folder)
    clock.at += hour
    withdrawn = take_requests(_with(place, clock), ["person 1"])[0]
    withdraw(_with(place, clock), withdrawn.request_id)
    clock.at += 24 * hour
    (folder / "0").mkdir()
    (folder / "0" / "report.json").write_text("{}")
    alone = write_report(_with(place, clock), clock.at - hour, tmp_path / "alone")
    assert alone["requests"] == 0
    second = write_report(_with(place, clock), clock.at - hour, folder / "2", folder)
    assert second["requests"] == second["withdrawn"] == 1
    ended, began = (
        parse_report(statement_of(Path(str(told["json"])).read_bytes())).ledger
        for told in (first, second)
    )
    assert began.size_before == ended.size
    shutil.rmtree(folder / "1")
    third = write_report(_with(place, clock), clock.at - hour, folder / "3", folder)
    assert third["requests"] == 0, "two tells of it"


@pytest.mark.parametrize("of", ["a lost history", "nobody who signed", "a replaced key"])
def test_a_report_that_is_none_of_this_history_lets_no_entry_be_left_out(
    place: Workspace, of: str
) -> None:
    """It says that all is told up to an entry that the ledger has not, or did not have then."""
    folder, old = place.reports_dir, read_signing_key(place.keys_dir)
    take_requests(place, ["person 1"])
    first = write_report(_again(place), None, folder / "1")
    rotate_signing_key(_again(place), "officer", lost=False)
    take_requests(_again(place), ["person 2"])
    second = write_report(_again(place), None, folder / "2")
    again = _again(place)
    leaves, publics = again.ledger.leaves(), again.signing.public_keys()
    entries = again.ledger.events()
    replaced = {e["old"]: at for at, e in enumerate(entries) if e["type"] == "key"}
    ends = [
        parse_report(statement_of(Path(str(told["json"])).read_bytes())).ledger.size
        for told in (first, second)
    ]
    assert where_ended(folder, leaves, publics, replaced) == ends[1] == len(leaves)
    path = Path(str(second["json"]))
    envelope = json.loads(path.read_bytes())
    if of == "a lost history":
        leaves = [*leaves[:-1], leaf_hash(b"another entry")]
    elif of == "nobody who signed":
        envelope["signatures"][0]["sig"] = "AAAA"
        path.write_text(json.dumps(envelope))
    else:  # that a thief has
        path.write_bytes(sign(statement_of(path.read_bytes()), old))
    assert where_ended(folder, leaves, publics, replaced) == ends[0]
    shutil.rmtree(folder / "1")
    assert where_ended(folder, leaves, publics, replaced) is None


def test_a_decision_by_a_clock_that_is_behind_a_little_is_in_the_report_after(
    place: Workspace,
) -> None:
    """It tells of a time before the report that was made just before it."""
    clock = _Clock()
    asked = take_requests(_with(place, clock), ["person 1"])[0]
    clock.at += timedelta(minutes=10)
    until = clock.at
    assert report_of(_with(place, clock), None, until).requests[0].outcome == "open"
    clock.at -= CLOCK_TOLERANCE
    withdraw(_with(place, clock), asked.request_id)
    clock.at = until + timedelta(days=31)
    (entry,) = report_of(_with(place, clock), until, clock.at).requests
    assert entry.id == asked.request_id and entry.outcome == "withdrawal"


@pytest.mark.parametrize("waits", ["held", "not approved"])
def test_a_deadline_does_not_slide_until_somebody_asks_for_something(
    place: Workspace, waits: str
) -> None:
    """What no erase run may carry out, received by a clock that was ahead, is received once: as
    the first run after finds the clock put right. Until then no report is signed."""
    clock = _Clock()
    today = clock.at
    clock.at = today + timedelta(days=700)
    if waits == "held":
        hold(_with(place, clock), "person 1", "17(3)(e)", "a claim is pending", "legal")
    else:
        settings = (place.root / "s3t.toml").read_text()
        (place.root / "s3t.toml").write_text(
            settings.replace("needs_approval = false", "needs_approval = true")
        )
    take_requests(_with(place, clock), ["person 1"])
    clock.at = today
    with pytest.raises(NotNow, match="the clock was put back"):
        write_report(_with(place, clock), None, place.reports_dir / "0")
    assert "the clock was put back" in why_erase_now(_with(place, clock))
    erase_pending(_with(place, clock), 0, AS_THEY_STAND, lambda *_: {})
    assert why_erase_now(_with(place, clock)) == ""
    told = set()
    for days in (0, 10, 40):
        clock.at = today + timedelta(days=days)
        write_report(_with(place, clock), None, place.reports_dir / str(days))
        (entry,) = report_of(_with(place, clock), None, clock.at).requests
        (listed,) = list_requests(_with(place, clock))
        told |= {(entry.received, entry.due), (listed["received"], listed["due"])}
    assert len(told) == 1


def test_what_is_signed_after_a_clock_was_put_right_has_the_times_that_hold(
    place: Workspace,
) -> None:
    """Nobody wrote in between: a rejection, a withdrawal, and a report."""
    clock = _Clock()
    today = clock.at
    clock.at = today + timedelta(days=700)
    asked = take_requests(_with(place, clock), ["person 1", "person 2", "person 3"])
    clock.at = today
    report = report_of(_with(place, clock), None, clock.now())
    assert report.ledger.size == _with(place, clock).ledger.size()
    for entry in report.requests:
        assert entry.clock_corrected and entry.received == rfc3339(today)
    assert report.summary.deadlines_missed == 0
    reject(_with(place, clock), asked[0].request_id, "17(3)(e)", "a claim is pending", "legal")
    withdraw(_with(place, clock), asked[1].request_id)
    state = _with(place, clock).ledger.state()
    for request in asked[:2]:
        path = place.certificates.path_of(request.request_id)
        said = statement_of(path.read_bytes())["predicate"]
        kept = state.requests[request.request_id]
        assert (said["request"]["received"], said["request"]["due"]) == (kept.received, kept.due)
        assert kept.clock_corrected and kept.received == rfc3339(today)


def test_what_was_carried_out_under_a_clock_that_was_ahead_is_reported_as_in_doubt(
    place: Workspace,
) -> None:
    clock = _Clock()
    today = clock.at
    asked = take_requests(_with(place, clock), ["person 1"])[0]
    clock.at = today + timedelta(days=700)
    opened = _with(place, clock)
    carry_out(opened, opened.requests.get([asked.request_id])[0])
    clock.at = today + timedelta(days=1)
    report = report_of(_with(place, clock), None, clock.now())
    (entry,) = report.requests
    assert entry.outcome != "open" and entry.met is None and not report.summary.deadlines_missed
    assert entry.seconds_to_cut_over is None and entry.seconds_to_certificate is None
    take_requests(_with(place, clock), ["person 2"])  # which puts it on the record
    told = report_of(_with(place, clock), None, clock.now())
    again = next(r for r in told.requests if r.id == asked.request_id)
    assert again == entry


def test_one_command_under_a_clock_that_is_behind_makes_nothing_missed(place: Workspace) -> None:
    clock = _Clock()
    today = clock.at
    asked = take_requests(_with(place, clock), ["person 1"])[0]
    clock.at = today - timedelta(days=40)
    take_requests(_with(place, clock), ["person 2"])
    clock.at = today + timedelta(days=1)
    opened = _with(place, clock)
    carry_out(opened, opened.requests.get([asked.request_id])[0])

    report = report_of(opened, None, clock.now())
    entry = next(r for r in report.requests if r.id == asked.request_id)
    assert entry.clock_corrected and entry.met is None  # nobody can say; it is not told as missed
    assert (
        report.summary.deadlines_missed == 1
    )  # only that of who asked under the wrong clock, and is overdue by it


def test_a_clock_of_no_plausible_year_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.adapters import clock

    class Broken(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(9999, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(clock, "datetime", Broken)
    with pytest.raises(S3TError, match="expected a clock between"):
        clock.SystemClock().now()


def test_clocks_that_differ_a_little_are_no_correction(place: Workspace) -> None:
    clock = _Clock()
    for seconds in (0, -20, 30, -60, 5):
        opened = _with(place, clock)
        clock.at += timedelta(seconds=seconds)
        take_requests(opened, [f"person {seconds}"])
    assert "clock" not in {e["type"] for e in _again(place).ledger.events()}


def test_the_staleness_bound_runs_on_while_a_machine_sleeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CLOCK_MONOTONIC stands still in sleep; a paused virtual machine finds only the wall clock
    moved on."""
    import time

    from s3t_core.times import Moment

    began = Moment.now()
    real, wall = time.clock_gettime, time.time
    for boot, clock, expected in (
        (3600, 3600, 3600),
        (0, 3600, 3600),
        (3600, 0, 3600),
        (3600, -9999, 3600),
        (0, 0, 0),
    ):
        with monkeypatch.context() as asleep:
            asleep.setattr(
                time,
                "clock_gettime",
                lambda which, b=boot: real(which) + (b if which == time.CLOCK_BOOTTIME else 0),
            )
            asleep.setattr(time, "time", lambda c=clock: wall() + c)
            assert began.seconds_until(Moment.now()) == pytest.approx(expected, abs=5)


# --- what a hostile reader tried on keys: A2


def _forged(place: Workspace, request: str, key: Any) -> Path:
    """A withdrawal that nobody asked for, signed by whoever has the key."""
    genuine = statement_of(place.certificates.path_of(request).read_bytes())
    genuine["predicate"]["closing"] |= {"by": "a thief", "reason": "forged"}
    path = place.root.parent / "forged.json"
    path.write_bytes(sign(genuine, key))
    return path


def test_what_a_replaced_key_signs_is_told_as_that_whatever_keys_an_auditor_has(
    place: Workspace,
) -> None:
    from flows.adapters.keys import read_signing_key
    from flows.use_cases.rotating import rotate_signing_key

    request = take_requests(place, ["person 1"])[0].request_id
    withdraw(place, request)
    leaked = read_signing_key(place.keys_dir)
    old, new = (place.root.parent / n for n in ("old.pem", "new.pem"))
    old.write_bytes((place.keys_dir / "signing.pub").read_bytes())
    rotate_signing_key(place, "security", lost=False)
    new.write_bytes((place.keys_dir / "signing.pub").read_bytes())
    forged = _forged(place, request, leaked)
    for keys in ([old, new], [new, old]):
        for document in (
            forged,
            place.certificates.path_of(request),
        ):  # alone they cannot be told apart
            found = verify_path(document, keys)
            assert not found["valid"] and found["problems"] == []
            assert "which was replaced at" in found["undecided"][0]
        assert verify_path(place.state_dir / "checkpoint.json", keys)["valid"]
    alone = verify_path(forged, new)  # the newest file has the key that it replaced
    assert not alone["valid"] and "which was replaced at" in alone["undecided"][0]
    bare = (
        place.root.parent / "bare.pem"
    )  # the new key without its history: nothing says which is the newer one
    bare.write_bytes(new.read_bytes()[new.read_bytes().index(b"-----BEGIN") :])
    found = verify_path(forged, [old, bare])
    assert not found["valid"] and "nothing says which replaced which" in found["undecided"][0]


def test_a_key_file_that_claims_a_succession_nobody_vouched_for_is_refused(
    place: Workspace,
) -> None:
    from flows.use_cases.rotating import rotate_signing_key

    old = place.root.parent / "old.pem"
    old.write_bytes((place.keys_dir / "signing.pub").read_bytes())
    rotate_signing_key(place, "security", lost=False)
    path = place.keys_dir / "signing.pub"
    text = path.read_text()
    vouched = text.partition("vouched ")[2].partition(",")[0]
    path.write_text(text.replace(vouched, vouched[::-1]))
    found = verify_path(place.state_dir / "checkpoint.json", [old, path])
    assert not found["valid"] and "to have signed the id" in found["problems"][0]


def test_a_ledger_or_bundle_made_from_before_the_change_by_the_old_key_is_refused(
    place: Workspace,
) -> None:
    """A thief has the old key and a copy of the workspace from before it was replaced."""
    from flows.adapters.keys import read_signing_key
    from flows.use_cases.evidence import write_bundle, write_ledger
    from flows.use_cases.rotating import rotate_signing_key

    withdraw(place, take_requests(place, ["person 1"])[0].request_id)
    shutil.copytree(place.root, place.root.with_name("copy"))
    thief = Workspace(place.root.with_name("copy"))
    old, new = (place.root.parent / n for n in ("old.pem", "new.pem"))
    old.write_bytes((place.keys_dir / "signing.pub").read_bytes())
    rotate_signing_key(place, "security", lost=False)
    new.write_bytes((place.keys_dir / "signing.pub").read_bytes())
    for path in (place.root.parent / "outside").iterdir():
        path.unlink()
    withdraw(thief, take_requests(thief, ["person 2"])[0].request_id)
    write_bundle(thief, thief.root / "b.zip", [])
    write_ledger(thief, thief.root / "l.jsonl")
    for keys in ([old, new], [new, old]):
        for name in ("b.zip", "l.jsonl"):
            found = verify_path(thief.root / name, keys)
            assert not found["valid"] and "key" in found["problems"][0], name
    bare = new.with_name("bare.pem")  # of which nothing says that it vouches for another
    bare.write_bytes(new.read_bytes()[new.read_bytes().index(b"-----BEGIN") :])
    found = verify_path(thief.root / "b.zip", [old, bare])
    assert not found["valid"] and "neither in use nor replaced" in found["problems"][0]
    for path in (place.root.parent / "outside").iterdir():
        path.unlink()  # the thief's own came there too: every command here would have refused them
    assert thief.ledger.state().signing == key_id(read_signing_key(thief.keys_dir).public_key())
    place = _again(place)
    withdraw(place, take_requests(place, ["person 3"])[0].request_id)
    write_bundle(place, place.root / "b.zip", [])
    write_ledger(place, place.root / "l.jsonl")
    for keys in ([old, new], [new]):
        assert (
            verify_path(place.root / "b.zip", keys)["valid"]
            and verify_path(place.root / "l.jsonl", keys)["valid"]
        )


def _taken_back(place: Workspace, rewritten: bool) -> tuple[dict[str, bytes], bytes]:
    """Files of a bundle, and an exported ledger, by whoever has the first key of the workspace: it
    goes on from before the change, or begins anew, and says that the second key was lost and the
    first one came after it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from flows.adapters.keys import read_public_key, read_signing_key
    from s3t_core.erasure.bundle import make_bundle
    from s3t_core.erasure.checkpoint import Checkpoint, export_ledger, sign_checkpoint
    from s3t_core.erasure.ledger import head_of

    leaked = read_signing_key(place.root.with_name("copy") / ".s3t" / "keys")
    newer = read_public_key(place.keys_dir / "signing.pub")
    events = SqlLedger(
        Database("sqlite:///.s3t/s3t.db", place.root.with_name("copy"), place.keys.sealing)
    ).events()
    if rewritten:
        events[0] = {**events[0], "signing_key": key_id(newer)}
    first = leaf_hash(leaf_of(events[0])).hex()
    asked = next(e for e in events if e["type"] == "request")
    events = [e for e in events if e["type"] != "closed"]
    kept = Checkpoint(first, head_of([leaf_hash(leaf_of(e)) for e in events]), asked["time"])
    events.append(
        {
            "type": "key",
            "time": asked["time"],
            "old": key_id(newer),
            "new": key_id(leaked.public_key()),
            "by": "x",
            "lost": True,
            "vouched": "",
            "old_public": newer.public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
        }
    )
    statement = statement_of(place.certificates.path_of(asked["request"]).read_bytes())
    head = head_of([leaf_hash(leaf_of(e)) for e in events])
    statement["predicate"]["ledger"] = {"name": first, "size": head.size, "root": head.root}
    document = sign(statement, leaked)
    events.append(
        {
            "type": "closed",
            "time": asked["time"],
            "request": asked["request"],
            "kind": "withdrawal",
            "certificate": sha256_hex(document),
            "basis": "",
        }
    )
    newest = Checkpoint(first, head_of([leaf_hash(leaf_of(e)) for e in events]), asked["time"])
    signed = sign_checkpoint(newest, leaked)
    return make_bundle({asked["request"]: document}, newest, signed, events, [kept]), export_ledger(
        signed, [leaf_of(e) for e in events]
    )


@pytest.mark.parametrize("rewritten", [False, True])
def test_a_replaced_key_does_not_come_back_by_a_ledger_that_calls_its_successor_lost(
    place: Workspace, rewritten: bool
) -> None:
    """A change of a lost key needs no signature: only the controller's key file says which key came
    after which."""
    from flows.use_cases.evidence import _zipped, write_bundle, write_ledger
    from flows.use_cases.rotating import rotate_signing_key
    from s3t_core.erasure.offline import check_bundle, read_key_file

    withdraw(place, take_requests(place, ["person 1"])[0].request_id)
    shutil.copytree(place.root, place.root.with_name("copy"))
    old, new = (place.root.parent / n for n in ("old.pem", "new.pem"))
    old.write_bytes((place.keys_dir / "signing.pub").read_bytes())
    rotate_signing_key(place, "security", lost=False)
    new.write_bytes((place.keys_dir / "signing.pub").read_bytes())
    bare = place.root.parent / "bare.pem"  # a key file that says nothing of the other key
    bare.write_bytes(new.read_bytes()[new.read_bytes().index(b"-----BEGIN") :])
    files, exported = _taken_back(place, rewritten)
    for keys in ([old, new], [new, old], [old, bare]):
        assert not check_bundle(files, [read_key_file(k.read_bytes()) for k in keys])["valid"]
        for name, content in (("b.zip", _zipped(files)), ("l.jsonl", exported)):
            (place.root.parent / name).write_bytes(content)
            assert not verify_path(place.root.parent / name, keys)["valid"], name
    (place.keys_dir / "signing.key").unlink()  # one that was lost, in truth
    place = _again(place)
    rotate_signing_key(place, "security", lost=True)
    write_bundle(place, place.root / "b.zip", [])
    write_ledger(place, place.root / "l.jsonl")
    for keys in ([old, place.keys_dir / "signing.pub"], [bare, place.keys_dir / "signing.pub"]):
        assert (
            verify_path(place.root / "b.zip", keys)["valid"]
            and verify_path(place.root / "l.jsonl", keys)["valid"]
        )


def test_a_checkpoint_by_a_replaced_key_counts_only_for_what_it_signed_then(
    place: Workspace,
) -> None:
    from flows.adapters.checkpoints import _name
    from flows.adapters.keys import read_signing_key
    from flows.use_cases.rotating import rotate_signing_key
    from s3t_core.erasure.checkpoint import Checkpoint, sign_checkpoint

    leaked = read_signing_key(place.keys_dir)
    rotate_signing_key(place, "security", lost=False)
    place = _again(place)
    take_requests(place, ["person 1"])
    forged = Checkpoint(place.ledger.leaves()[0].hex(), place.ledger.head(), place.now())
    (place.root.parent / "outside" / _name(forged)).write_bytes(sign_checkpoint(forged, leaked))
    with pytest.raises(LedgerError, match="which was replaced at entry"):
        _again(place).ledger.state()


def test_no_state_and_no_error_of_these_names_a_person(
    place: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    take_requests(place, ["a-person-of-that-name"])
    _sql(place, "UPDATE requests SET due = 'x'")
    with pytest.raises(S3TError) as told:
        status_of(_again(place))
    assert "a-person" not in str(told.value)


def test_a_database_opened_with_another_key_is_refused(place: Workspace) -> None:
    take_requests(place, ["person 1"])
    from flows.adapters.database import SqlLedger

    for key in (b"", b"\x01" * 32):
        other = SqlLedger(Database("sqlite:///.s3t/s3t.db", place.root, key))
        for act in (other.state, other.events, lambda o=other: o.append(step(place, "scan"))):
            with pytest.raises(LedgerError, match="with the seal of this workspace"):
                act()


# --- what is no file, under the name of one


def _odd(path: Path, kind: str, elsewhere: Path) -> None:
    path.unlink(missing_ok=True)
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "large file":
        with path.open("wb") as file:
            file.truncate(6 * 2**30)  # sparse
    else:
        path.symlink_to(path.name if kind == "link to itself" else elsewhere / "nowhere")


ODD = ["directory", "link to itself", "link to nowhere", "pipe"]


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_among_the_checkpoints_is_told_by_its_name(
    place: Workspace, tmp_path: Path, kind: str
) -> None:
    take_requests(place, ["person 1"])
    ours = f"{place.ledger.leaves()[0].hex()[:16]}-000000000099.json"
    for path in (tmp_path / "outside" / ours, place.state_dir / "checkpoint.json"):
        _odd(path, kind, tmp_path)
        with pytest.raises(WorkspaceError, match=rf"{path.name} in .* find out who put it there"):
            take_requests(_again(place), ["person 2"])
        path.rmdir() if kind == "directory" else path.unlink()
    assert len(take_requests(_again(place), ["person 2"])) == 1


def test_a_file_of_many_gigabytes_among_the_checkpoints_is_not_read(
    place: Workspace, tmp_path: Path
) -> None:
    take_requests(place, ["person 1"])
    _odd(tmp_path / "outside" / "zz.json", "large file", tmp_path)
    assert (
        len(take_requests(_again(place), ["person 2"])) == 1
    )  # it cannot be a checkpoint of any ledger
    ours = next(p for p in (tmp_path / "outside").iterdir() if p.name != "zz.json")
    _odd(ours, "large file", tmp_path)
    with pytest.raises(LedgerError, match="got other bytes"):
        check_whole(_again(place))


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_in_a_closing_documents_place_is_a_changed_document(
    place: Workspace, tmp_path: Path, kind: str
) -> None:
    request = take_requests(place, ["person 1"])[0].request_id
    withdraw(place, request)
    _odd(place.certificates.path_of(request), kind, tmp_path)
    told = status_of(_again(place))["documents"]
    assert told["missing" if kind == "link to nowhere" else "changed"] == [request]
    assert check_whole(_again(place)).sentences()


@pytest.mark.parametrize(
    ("old", "new", "is_refused"),
    [
        ("needs_approval = false", "needs_approval = true", True),
        ("staleness_seconds = ", "staleness_seconds = 1", True),  # and what follows
        ('log_checkpoints_to = "', 'log_checkpoints_to = "/elsewhere', True),
        ("[erasure]", "# a remark\n[erasure]", False),
        ("[erasure]", "[erasure]  ", False),
    ],
)
def test_rules_that_changed_while_a_command_waited_are_not_gone_by(
    place: Workspace, old: str, new: str, is_refused: bool
) -> None:
    """A scheduled erase run may wait for an hour, a training runs for days."""
    waits = Workspace(place.root)
    assert waits.ledger.state()
    path = place.root / "s3t.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    if is_refused:
        with (
            pytest.raises(WorkspaceError, match="by rules that hold no more"),
            access.changing(waits),
        ):
            raise AssertionError
        path.write_text(path.read_text().replace(new, old))
    with access.changing(waits):
        pass
