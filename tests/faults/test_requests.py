"""What may happen to a request besides being erased: each ends once, in one document, and none is
lost."""

import base64
import json
import sqlite3
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from flows.adapters import connecting
from flows.adapters.database import SqlLedger
from flows.use_cases.erasing import what_waits, why_erase_now
from flows.use_cases.evidence import write_bundle
from flows.use_cases.finding import Basis, people_found
from flows.use_cases.history import request_document
from flows.use_cases.id_files import read_ids
from flows.use_cases.reporting import write_report
from flows.use_cases.requests import (
    approve,
    extend,
    hold,
    lift,
    lift_hold,
    list_requests,
    list_with_look_alikes,
    reject,
    withdraw,
)
from flows.use_cases.status import status_of
from flows.use_cases.taking import ask, take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace.composing import erase_policy
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.erasure.closing import as_recorded
from s3t_core.erasure.state import State
from s3t_core.errors import StorageError, UsageError
from s3t_core.times import later, months_later, parse_time, rfc3339
from tests.faults.carried import carry_out, plan_for

PUB = "signing.pub"


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    create_workspace(tmp_path / "w", Config.model_validate({"data": {"record": "id"}}))
    return Workspace(tmp_path / "w")


def _states(place: Workspace) -> dict[str, str]:
    return {r["id"]: r["state"] for r in list_requests(place)}


def _told(place: Workspace) -> str:
    """Everything but the needles."""
    files = [
        p for p in place.root.rglob("*") if p.is_file() and p.parent.name not in ("needles", "keys")
    ]
    return "".join(p.read_bytes().decode(errors="replace") for p in files)


def test_a_request_is_withdrawn_or_rejected_once_by_a_signed_document(place: Workspace) -> None:
    first, second, third = take_requests(place, ["person 17", "person 18", "person 19"])
    withdraw(place, first.request_id)
    reject(place, second.request_id, "17(3)(e)", "a claim is before the court", "legal department")
    assert _states(place) == {
        first.request_id: "withdrawal",
        second.request_id: "rejection",
        third.request_id: "pending",
    }
    assert place.requests.open_now() == [third.request_id]
    found = verify_path(place.certificates_dir, place.keys_dir / PUB)
    assert found["valid"] and {c["closed"] for c in found["certificates"]} == {
        "withdrawal",
        "rejection",
    }
    assert {e["type"] for e in place.ledger.events()} >= {"closed"}
    assert not place.needles.ids_of(first.request_id) and place.needles.ids_of(third.request_id)
    for closed in (first, second):
        with pytest.raises(UsageError, match="closed already"):
            withdraw(place, closed.request_id)
    assert "person 1" not in _told(place)
    again = take_requests(place, ["person 17"])[0]
    assert again.request_id != first.request_id  # she may ask anew


def test_a_closed_request_is_in_the_evidence_bundle(place: Workspace, tmp_path: Path) -> None:
    first, second = take_requests(place, ["person 17", "person 18"])
    withdraw(place, first.request_id, "the person")
    reject(place, second.request_id, "12(6)", "no proof of identity came", "clerk")
    assert write_bundle(place, tmp_path / "b.zip", [])["certificates"] == 2
    found = verify_path(tmp_path / "b.zip", place.keys_dir / PUB)
    assert found["valid"] and {c["closed"] for c in found["certificates"]} == {
        "withdrawal",
        "rejection",
    }
    path = place.certificates_dir / f"{first.request_id}.json"
    path.write_bytes(path.read_bytes().replace(b'"payload"', b'"Payload"'))
    assert not verify_path(path, place.keys_dir / PUB)["valid"]


@pytest.mark.parametrize(
    ("basis", "reason", "expected"),
    [
        ("17(3)(z)", "a reason", "a legal basis"),
        ("other", "  ", "a reason of 1 to"),
        ("other", "x" * 301, "a reason of"),
        ("other", "bell \x07", "printable"),
        ("other", "Person 17 owes us money", "without the person's id"),
    ],
)
def test_a_rejection_needs_a_basis_and_a_reason_that_names_nobody(
    place: Workspace, basis: str, reason: str, expected: str
) -> None:
    taken = take_requests(place, ["person 17"])[0]
    with pytest.raises(UsageError, match=expected):
        reject(place, taken.request_id, basis, reason, "clerk")
    assert _states(place) == {taken.request_id: "pending"} and not list(
        place.certificates_dir.glob("*")
    )
    with pytest.raises(UsageError, match="--by"):
        reject(place, taken.request_id, "other", "a law", " ")
    with pytest.raises(UsageError, match="the id of a request"):
        reject(place, "../../etc/passwd", "other", "a law", "clerk")


def test_a_hold_stops_what_is_asked_and_what_will_be_until_it_is_released(place: Workspace) -> None:
    taken = take_requests(place, ["person 17", "person 18"])
    assert hold(place, "person 17", "17(3)(e)", "a claim", "legal department") == 1
    assert (
        _states(place)[taken[0].request_id] == "held"
        and _states(place)[taken[1].request_id] == "pending"
    )
    late = take_requests(place, ["person 17"], record="r1")[0]
    assert _states(place)[late.request_id] == "held"
    assert "person 1" not in _told(place)
    lift_hold(place, "person 17", "legal department")
    assert set(_states(place).values()) == {"pending"}
    with pytest.raises(UsageError, match="a subject with a legal hold"):
        lift_hold(place, "person 17", "legal department")


def test_where_config_asks_a_request_waits_for_approval(place: Workspace) -> None:
    path = place.root / "s3t.toml"
    path.write_text(path.read_text().replace("needs_approval = false", "needs_approval = true"))
    place = Workspace(place.root)
    assert erase_policy(place).needs_approval
    first, second = take_requests(place, ["person 17", "person 18"])
    approve(place, [first.request_id], "privacy officer")
    size = place.ledger.head().size
    approve(place, [first.request_id], "somebody else")  # once
    assert place.ledger.head().size == size and place.ledger.state().approved == {
        first.request_id: "privacy officer"
    }
    assert _states(place) == {first.request_id: "pending", second.request_id: "awaiting approval"}
    with pytest.raises(UsageError, match="the id of a request"):
        approve(place, [second.request_id, "req-0"], "privacy officer")
    assert _states(place)[second.request_id] == "awaiting approval"  # all or none


def test_a_request_is_given_more_time_once_and_before_it_is_due(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = take_requests(place, ["person 17", "person 18"])
    due = extend(place, first.request_id, "many letters at once", "privacy officer")
    assert parse_time(due) == months_later(parse_time(first.due), 2)
    listed = {r["id"]: r for r in list_requests(place)}
    assert listed[first.request_id]["due"] == due
    assert listed[first.request_id]["extended_from"] == first.due
    assert listed[second.request_id]["extended_from"] is None
    assert as_recorded(first, place.ledger.state()).due == due
    with pytest.raises(UsageError, match="was not extended before"):
        extend(place, first.request_id, "more letters", "privacy officer", 1)
    for months in (0, 3, -1):
        with pytest.raises(UsageError, match="1 to 2 months"):
            extend(place, second.request_id, "many letters", "privacy officer", months)
    with pytest.raises(UsageError, match="the id of a request"):
        extend(place, "req-0", "many letters", "privacy officer")
    for reason in ("", " ", "x" * 301, "person 18 has written again"):
        with pytest.raises(UsageError):
            extend(place, second.request_id, reason, "privacy officer")
    withdraw(place, first.request_id)
    with pytest.raises(UsageError, match="closed already"):
        extend(place, first.request_id, "many letters", "privacy officer")
    late = rfc3339(later(parse_time(second.due), seconds=1))
    monkeypatch.setattr(Workspace, "now", lambda _: late)
    with pytest.raises(UsageError, match="not due yet"):
        extend(place, second.request_id, "many letters", "privacy officer")
    assert place.ledger.state().requests[second.request_id].due == second.due


def test_the_same_key_is_the_same_request_also_when_it_is_closed(place: Workspace) -> None:
    first = take_requests(place, ["person 17"], key="ticket 9")[0]
    assert take_requests(place, ["person 17"], key="ticket 9")[0].request_id == first.request_id
    withdraw(place, first.request_id)
    assert take_requests(place, ["person 17"], key="ticket 9")[0].request_id == first.request_id
    other = take_requests(place, ["person 18"], key="ticket 9")[
        0
    ]  # another person's: the key alone decides nothing
    assert other.request_id != first.request_id
    pending = take_requests(place, ["person 17"])[0]
    joined = take_requests(place, ["person 17"], key="ticket 10")[0]
    assert joined.request_id == pending.request_id
    withdraw(place, pending.request_id)
    assert take_requests(place, ["person 17"], key="ticket 10")[0].request_id == pending.request_id
    assert "ticket" not in _told(place)


def test_lifting_is_recorded_and_only_for_who_is_on_the_list(place: Workspace) -> None:
    taken = take_requests(place, ["person 17"])
    with pytest.raises(UsageError, match="no open request"):
        lift(place, "person 17", "", "clerk")
    with pytest.raises(UsageError, match="no open request"):
        lift(place, "person 17", "", "clerk")
    carry_out(place, taken[0])
    assert place.ledger.state().suppressed == {
        taken[0].suppression: ("subject", taken[0].request_id)
    }
    lift(place, "person 17", "", "clerk")
    assert place.ledger.state().suppressed == {}
    place.requests.check()
    event: dict[str, Any] = place.ledger.events()[-1]
    assert (event["type"], event["by"]) == ("lifted", "clerk") and "person" not in json.dumps(event)
    with pytest.raises(UsageError, match="on the suppression list"):
        lift(place, "person 17", "", "clerk")


def test_an_erasure_that_has_begun_is_not_stopped(place: Workspace) -> None:
    taken = take_requests(place, ["person 17"])[0]
    plan = plan_for(taken.request_id)
    place.ledger.append({"type": "planned", "time": place.now(), "plan": plan})
    assert _states(place) == {taken.request_id: "erasing"}
    for act in (
        lambda: withdraw(place, taken.request_id),
        lambda: reject(place, taken.request_id, "other", "a law", "clerk"),
        lambda: hold(place, "person 17", "other", "a law", "clerk"),
    ):
        with pytest.raises(UsageError, match="has begun"):
            act()


HOSTILE = [
    "'; DROP TABLE requests; --",
    "../../etc/passwd",
    "*.json",
    "a\u2028b",
    "tab\there",
    "\x00",
    "ﬁ",
    "é",
    "e\u0301",
    "\x1b[31mred",
    "{}",
    "%s",
    "x" * 512,
]


def test_hostile_ids_in_a_file_are_each_one_request(place: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_bytes("\r\n".join(["", *HOSTILE, "  ", *HOSTILE, ""]).encode())
    given = read_ids(str(file)).ids
    assert given == HOSTILE  # each once
    taken = take_requests(place, given)
    assert (
        len(taken) == len(HOSTILE) == len({r.subject for r in taken})
    )  # composed and decomposed are two ids
    assert [place.needles.ids_of(r.request_id) for r in taken] == [[i] for i in HOSTILE]
    with pytest.raises(UsageError, match="bytes, got 1048576; nothing was accepted"):
        take_requests(place, ["somebody else", "x" * 2**20])
    assert len(place.requests.open_now()) == len(HOSTILE)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for bad in ("latin.txt", "none.txt"):
        with pytest.raises(UsageError, match="readable UTF-8 file"):
            read_ids(str(tmp_path / bad))


@pytest.mark.long
def test_many_ids_with_duplicates_and_blanks_are_taken_in_batches(
    place: Workspace, tmp_path: Path
) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("".join(f"person {i % 1200}\n\n" for i in range(3000)))
    taken = take_requests(place, read_ids(str(file)).ids)
    assert len(taken) == 1200
    assert set(place.requests.open_now()) == {r.request_id for r in taken}
    assert [r.request_id for r in take_requests(place, read_ids(str(file)).ids)] == [
        r.request_id for r in taken
    ]
    assert all(
        place.needles.ids_of(r.request_id) == [f"person {i}"] for i, r in enumerate(taken[:50])
    )
    place.needles.destroy("", [r.request_id for r in taken[1:]])
    assert [place.needles.ids_of(r.request_id) for r in taken[:2]] == [["person 0"], []]
    assert b"person 1" not in b"".join(p.read_bytes() for p in place.needles.folder.iterdir())
    place.needles.destroy("", [taken[0].request_id])
    assert list(place.needles.folder.iterdir()) == []


def test_requests_are_listed_by_the_days_they_have_left(place: Workspace) -> None:
    take_requests(place, ["person 17", "person 18"])
    assert [r["state"] for r in list_requests(place, due_within_days=31)] == ["pending"] * 2
    assert (
        list_requests(place, due_within_days=29) == [] and list_requests(place, state="held") == []
    )
    assert all(29.9 < r["days_left"] <= 30 for r in list_requests(place, state="pending"))
    for wrong in (
        "open",
        "Pending",
        "foo",
        " ",
    ):  # "no request" would say that nothing is left to do
        with pytest.raises(
            UsageError, match=r"expected a state of requests .pending, awaiting approval, held"
        ):
            list_requests(place, state=wrong)


_READERS: dict[str, Callable[[Workspace, str], object]] = {
    "the list": lambda place, _: list_with_look_alikes(place),
    "one of the list": request_document,
    "status": lambda place, _: status_of(place),
    "whether to erase at once": lambda place, _: why_erase_now(place),
    "who is found": lambda place, _: people_found(place, ["person 17"], [], "", []),
    "a hold": lambda place, _: hold(place, "person 18", "17(3)(e)", "a claim is open", "legal"),
    "more time": lambda place, request: extend(place, request, "many requests at once", "legal", 1),
    "a withdrawal": withdraw,
    "what waits for somebody": lambda place, _: what_waits(place, place.ledger.state()),
    "another request": lambda place, _: ask(place, ["person 19"], [], "", ""),
}


@pytest.mark.parametrize("reader", _READERS)
def test_requests_may_come_at_any_moment_of_what_reads_them(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    (first,) = take_requests(place, ["person 17"])
    asked, read = count(), SqlLedger.state

    def state(ledger: SqlLedger) -> State:
        found = read(ledger)
        with monkeypatch.context() as quiet:
            quiet.setattr(SqlLedger, "state", read)
            take_requests(Workspace(place.root), [f"meanwhile {next(asked)}"])
        return found

    monkeypatch.setattr(SqlLedger, "state", state)
    _READERS[reader](place, first.request_id)
    assert next(asked) > 0
    monkeypatch.undo()
    assert len(_states(place)) >= 2


@pytest.mark.parametrize("read", ["state", "events", "entries", "leaves", "head"])
def test_a_report_is_of_one_moment(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """Whatever is closed while it is made."""
    taken = take_requests(place, [f"person {n}" for n in range(30)])
    waiting, found = iter(taken), getattr(SqlLedger, read)

    def beside(ledger: SqlLedger) -> object:
        told = found(ledger)
        with monkeypatch.context() as quiet:
            quiet.setattr(SqlLedger, read, found)
            withdraw(Workspace(place.root), next(waiting).request_id)
        return told

    monkeypatch.setattr(SqlLedger, read, beside)
    report = write_report(Workspace(place.root), None, tmp_path / "report")
    monkeypatch.undo()
    assert report["without_document"] == 0
    told = json.loads((tmp_path / "report" / "report.json").read_bytes())
    said = json.loads(base64.b64decode(told["payload"]))["predicate"]
    for each in said["requests"]:
        closed = each["outcome"] == "withdrawal"
        assert each["document"] == ("as recorded" if closed else "none yet")


@pytest.mark.parametrize("locked", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_request_that_failed_leaves_no_id_behind_a_certificate_for_the_same_person(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, locked: str
) -> None:
    monkeypatch.setattr(
        connecting,
        "configure_sqlite",
        lambda connection, _: (
            setattr(connection, "isolation_level", None)
            or connection.execute("PRAGMA busy_timeout = 10")
        ),
    )
    holder = sqlite3.connect(place.state_dir / "s3t.db", isolation_level=None)
    refused = Workspace(place.root)
    assert refused.requests.open_now() == []
    for module in ("finding", "taking"):  # asked of the ledger before the lock comes
        monkeypatch.setattr(f"flows.use_cases.{module}.basis_of", lambda _: Basis((), ()))
    holder.execute(f"BEGIN {locked}")
    with pytest.raises(StorageError):
        take_requests(refused, ["person 4711"])
    holder.execute("ROLLBACK")
    left = list(place.needles.folder.iterdir())
    assert bool(left) is (locked == "EXCLUSIVE")  # then nobody can tell whether it was accepted
    asked = take_requests(Workspace(place.root), ["person 4711"])[0]
    place.needles.prune(
        lambda: [asked.request_id]
    )  # as each erase run does before it plans, and before it goes on
    assert [p.stem for p in place.needles.folder.iterdir()] == [asked.request_id]
