"""Requests at the door: what is accepted is durable and signed, who may not be told learns nothing,
and every decision says whose token it was."""

import json
import sqlite3
import threading
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.adapters import book
from flows.api import desk as desk_module
from flows.api.bodies import State
from flows.api.desk import Desk
from flows.use_cases.requests import (
    extend,
    lift,
    list_requests,
    list_some_requests,
    place_in_list,
    withdraw,
)
from flows.use_cases.taking import Asked, Taken, take_each, take_requests
from flows.workspace.signing import Signing
from flows.workspace.workspace import Workspace
from s3t_core.erasure.checkpoint import read_checkpoint
from s3t_core.errors import LedgerError, NotNow, StorageError, UsageError
from s3t_core.files import write_atomically
from tests.faults.carried import carry_out
from tests.unit.api.conftest import Client

REQUESTS = "/api/v1/requests"


def test_what_is_accepted_is_in_the_ledger_under_a_signed_checkpoint(
    place: Workspace, client: Client
) -> None:
    answer = client("asks").post(REQUESTS, json={"subjects": ["person 17", "person 18"]})
    assert answer.status_code == 201
    told = answer.json()
    ids = [r["id"] for r in told["requests"]]
    assert told["open_before"] == [] and told["found"] is None and len(ids) == 2
    fresh = Workspace(place.root)
    assert fresh.requests.open_now() == ids
    signed = (place.state_dir / "checkpoint.json").read_bytes()
    assert read_checkpoint(signed, *place.signing.public_keys()).head == fresh.ledger.head()
    again = client("asks").post(REQUESTS, json={"subjects": ["person 17"]})
    assert again.status_code == 200 and again.json()["open_before"] == ids[:1]


def test_nothing_is_accepted_where_no_checkpoint_can_be_signed(
    place: Workspace, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be durable, and nobody was told so: asked again, it is the same one."""

    def fails(_: Signing) -> None:
        raise StorageError("expected room for a checkpoint, got none; make room")

    monkeypatch.setattr(Signing, "write_checkpoint", fails)
    answer = client("asks").post(
        REQUESTS, json={"subjects": ["person 17"]}, headers={"Idempotency-Key": "ticket 9"}
    )
    assert answer.status_code == 503 and answer.headers["retry-after"]
    assert "person" not in answer.text and "ticket" not in answer.text
    monkeypatch.undo()
    again = client("asks").post(
        REQUESTS, json={"subjects": ["person 17"]}, headers={"Idempotency-Key": "ticket 9"}
    )
    assert again.status_code in (200, 201) and len(place.requests.open_now()) == 1


def test_what_many_ask_at_once_is_one_transaction_and_one_checkpoint(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[int] = []
    write = Signing.write_checkpoint
    monkeypatch.setattr(
        Signing, "write_checkpoint", lambda self: (signed.append(1), write(self))[1]
    )
    begun: list[int] = []
    accept = book.SqlRequestBook.accept
    monkeypatch.setattr(
        book.SqlRequestBook,
        "accept",
        lambda self, new: (begun.append(1), accept(self, new))[1],
    )
    taken = take_each(place, [Asked((f"person {n}",)) for n in range(40)])
    assert (len(signed), len(begun)) == (1, 1)
    assert len({t.requests[0].request_id for t in taken if not isinstance(t, Exception)}) == 40


def test_what_two_ask_of_one_person_is_one_request(place: Workspace) -> None:
    asked = [
        Asked(("person 17",)),
        Asked(("person 18", "person 17")),
        Asked(("person 17",), key="ticket 9"),
        Asked((), ("sha256:" + "0" * 64,)),
        Asked((), ("sha256:" + "0" * 64,)),
        Asked(("person 17",), record="r1"),
    ]
    taken = [t for t in take_each(place, asked) if not isinstance(t, Exception)]
    first = taken[0].requests[0].request_id
    assert [r.request_id for r in taken[1].requests][1] == first
    assert taken[2].requests[0].request_id == first and taken[2].before == {first}
    assert taken[3].requests == taken[4].requests and taken[4].before
    assert taken[5].requests[0].record and len(place.requests.open_now()) == 4
    later = take_requests(place, ["person 17"], key="ticket 9")
    assert later[0].request_id == first


def test_what_cannot_be_taken_of_one_is_taken_of_the_others(place: Workspace) -> None:
    (begun,) = take_requests(place, ["person 17"])
    asked = [
        Asked(("person 18",)),
        Asked(()),
        Asked(("x" * 2000,)),
        Asked(("person 19",), ("sha256:" + "0" * 64,)),
        Asked((), ("md6:00",)),
        Asked(("person 20", "person 21"), record="r1"),
        Asked(("person 22",)),
    ]
    taken = take_each(place, asked)
    refused = [n for n, t in enumerate(taken) if isinstance(t, UsageError)]
    assert refused == [1, 2, 3, 4, 5]
    assert set(place.requests.open_now()) == {
        begun.request_id,
        *(r.request_id for t in (taken[0], taken[6]) for r in t.requests),  # type: ignore[union-attr]
    }


def test_one_whose_erasure_has_begun_stops_nobody_else(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.use_cases import taking

    check = taking._check_not_begun

    def begun(workspace: Any, new: Any, others: str = "") -> None:
        if any("begun" in each.ids for each in new):
            raise NotNow("expected the id as it was given before, got another spelling of it; ask")
        check(workspace, new)

    monkeypatch.setattr(taking, "_check_not_begun", begun)
    taken = take_each(place, [Asked(("person 17",)), Asked(("begun",)), Asked(("person 18",))])
    assert [isinstance(t, NotNow) for t in taken] == [False, True, False]
    assert len(place.requests.open_now()) == 2


def test_a_row_that_somebody_changed_stops_nobody_else(place: Workspace) -> None:
    (changed,) = take_requests(place, ["person 17"])
    with sqlite3.connect(place.state_dir / "s3t.db") as connection:
        connection.execute("UPDATE requests SET due = '2999-01-01T00:00:00Z'")
    taken = take_each(place, [Asked(("person 18",)), Asked(("person 17",))])
    assert isinstance(taken[0], Taken) and isinstance(taken[1], LedgerError)
    assert changed.request_id not in {r.request_id for r in taken[0].requests}


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The door looks each time whether the rest is what it was, and not from time to time."""
    monkeypatch.setattr(desk_module, "_CHECK_SECONDS", 0.0)
    monkeypatch.setattr(desk_module, "_CHECK_SHARE", 0)


@pytest.mark.usefixtures("looking")
def test_nothing_is_accepted_over_a_ledger_that_somebody_changed(
    place: Workspace, client: Client
) -> None:
    """What the door read before, it does not read at each request; it looks again, and soon."""
    asks = client("asks")
    assert asks.post(REQUESTS, json={"subjects": ["person 17"]}).status_code == 201
    with sqlite3.connect(place.state_dir / "s3t.db") as connection:
        connection.execute("UPDATE ledger SET leaf = x'7b7d' WHERE seq = 1")
    answer = asks.post(REQUESTS, json={"subjects": ["person 18"]})
    assert answer.status_code == 500 and "restore" in answer.json()["do"]


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize("how", ["a row is gone", "another person"])
def test_nothing_is_accepted_over_a_book_that_somebody_changed(
    place: Workspace, client: Client, how: str
) -> None:
    """The ledger is as it was; whom it would erase by is not."""
    asks = client("asks")
    assert asks.post(REQUESTS, json={"subjects": ["person 17"]}).status_code == 201
    change = {
        "a row is gone": "DELETE FROM requests",
        "another person": "UPDATE requests SET subject = lower(hex(zeroblob(32)))",
    }[how]
    with sqlite3.connect(place.state_dir / "s3t.db") as connection:
        connection.execute(change)
    answer = asks.post(REQUESTS, json={"subjects": ["person 18"]})
    assert answer.status_code == 500 and len(Workspace(place.root).ledger.state().requests) == 1


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize("change", ["UPDATE ledger SET leaf = x'7b7d'", "DELETE FROM requests"])
def test_no_page_is_told_for_long_over_what_somebody_changed(
    place: Workspace, client: Client, change: str
) -> None:
    """A page reads what is new; whether the rest is what it was is looked at from time to time."""
    asks, audits = client("asks"), client("audits")
    assert audits.get(REQUESTS).json() == {"requests": [], "next": None}
    assert asks.post(REQUESTS, json={"subjects": ["person 17"]}).status_code == 201
    assert len(audits.get(REQUESTS).json()["requests"]) == 1
    with sqlite3.connect(place.state_dir / "s3t.db") as connection:
        connection.execute(change)
    for _ in range(2):
        answer = audits.get(REQUESTS)
        assert answer.status_code == 500 and "restore" in answer.json()["do"]


@given(
    most=st.integers(1, 5),
    days=st.one_of(st.none(), st.floats(0, 60)),
    state=st.sampled_from(["", "pending", "withdrawal"]),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_behind_each_other_are_the_list(
    book_of_states: Workspace, most: int, days: float | None, state: str
) -> None:
    after: tuple[bool, str, str] | None = None
    paged = []
    while page := list_some_requests(book_of_states, state, days, after, most):
        assert len(page) <= most
        paged += page
        after = place_in_list(page[-1])
    every = list_requests(book_of_states, state, days)
    assert [p["id"] for p in paged] == [r["id"] for r in sorted(every, key=place_in_list)]


@pytest.fixture
def book_of_states(place: Workspace) -> Workspace:
    """Open requests, one with more time, and some that were taken back."""
    place.database.now = None
    ids = [r.request_id for r in take_requests(place, [f"person {n}" for n in range(9)])]
    for taken_back in ids[:3]:
        withdraw(place, taken_back)
    extend(place, ids[4], "many letters at once", "clerk", 1)
    return place


def test_nothing_is_accepted_over_an_older_ledger(place: Workspace, client: Client) -> None:
    """Whoever put the copy back is told before anything is written to it, not when it is signed."""
    asks, file = client("asks"), place.state_dir / "s3t.db"
    older = file.read_bytes()
    assert asks.post(REQUESTS, json={"subjects": ["person 17"]}).status_code == 201
    write_atomically(file, older)
    answer = client("asks").post(REQUESTS, json={"subjects": ["person 18"]})
    assert answer.status_code == 500
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM requests").fetchone() == (0,)


def test_many_at_once_through_the_door_lose_none(place: Workspace, client: Client) -> None:
    asks, found = client("asks"), list[str]()

    def ask(number: int) -> None:
        answer = asks.post(REQUESTS, json={"subjects": [f"person {number}"]})
        assert answer.status_code == 201, answer.text
        found.append(answer.json()["requests"][0]["id"])

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(24)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(found) == sorted(place.requests.open_now())
    assert len(found) == 24


@pytest.mark.parametrize("roles", [("asks",), ("asks", "erases")], ids=" ".join)
def test_a_key_of_what_was_lifted_since_is_spent(
    place: Workspace, client: Client, roles: tuple[str, ...]
) -> None:
    asks = client(*roles)
    key = {"Idempotency-Key": "ticket 9"}
    asks.post(REQUESTS, json={"subjects": ["person 17"]}, headers=key)
    [request] = place.requests.get(place.requests.open_now())
    carry_out(place, request)
    again = asks.post(REQUESTS, json={"subjects": ["person 17"]}, headers=key)
    assert again.status_code == 200  # they are kept out
    lift(place, "person 17", "", "officer")
    spent = asks.post(REQUESTS, json={"subjects": ["person 17"]}, headers=key)
    assert spent.status_code == 409 and "another key" in spent.json()["do"]
    both = asks.post(REQUESTS, json={"subjects": ["person 17", "person 18"]}, headers=key)
    assert both.status_code == 201
    assert ("lifted" in both.json()["requests"][0]) == ("erases" in roles)


def test_a_key_is_a_request_for_ever(place: Workspace, client: Client) -> None:
    asks = client("asks")
    key = {"Idempotency-Key": "ticket 9"}
    first = asks.post(REQUESTS, json={"subjects": ["person 17"]}, headers=key).json()
    request = first["requests"][0]["id"]
    assert asks.post(f"{REQUESTS}/{request}/withdraw").json()["state"] == "withdrawal"
    spent = asks.post(REQUESTS, json={"subjects": ["person 17"]}, headers=key)
    assert spent.status_code == 409 and "another key" in spent.json()["do"]
    assert not place.requests.open_now()
    both = asks.post(REQUESTS, json={"subjects": ["person 17", "person 18"]}, headers=key)
    states = [each["state"] for each in both.json()["requests"]]
    assert both.status_code == 201 and states == ["withdrawal", "pending"]  # it was accepted
    assert asks.post(REQUESTS, json={"subjects": ["person 17"]}).status_code == 201


def test_decisions_say_whose_token_it_was(place: Workspace, client: Client) -> None:
    requests = take_requests(place, [f"person {n}" for n in range(4)])
    first, second, third, fourth = (r.request_id for r in requests)
    decides = client("decides", name="legal department")
    approved = decides.post(f"{REQUESTS}/{first}/approve")
    assert approved.status_code == 200 and [
        (h["event"], h["by"]) for h in approved.json()["history"]
    ] == [("request", ""), ("approved", "legal department")]
    extended = decides.post(f"{REQUESTS}/{second}/extend", json={"reason": "many letters"})
    assert extended.json()["extended_from"] == requests[1].due
    assert "many letters" in extended.json()["history"][-1]["detail"]
    again = decides.post(f"{REQUESTS}/{second}/extend", json={"reason": "many letters"})
    assert again.status_code == 409
    rejected = decides.post(
        f"{REQUESTS}/{third}/reject", json={"basis": "12(6)", "reason": "nobody could say who"}
    )
    assert rejected.json()["state"] == "rejection"
    held = decides.post(
        "/api/v1/holds",
        json={"subject": "person 3", "basis": "17(3)(e)", "reason": "a claim"},
    )
    assert held.json() == {"held": True, "waiting": 1}
    assert decides.get(f"{REQUESTS}/{fourth}").json()["state"] == "held"
    assert decides.post("/api/v1/holds/release", json={"subject": "person 3"}).status_code == 200
    not_held = decides.post("/api/v1/holds/release", json={"subject": "person 3"})
    assert not_held.status_code == 409
    by = {e["type"]: e.get("by") for e in Workspace(place.root).ledger.events()}
    assert by["approved"] == by["extended"] == by["hold"] == "legal department"
    document = decides.get(f"{REQUESTS}/{third}/certificate")
    assert document.status_code == 200 and "payload" in document.json()
    assert decides.get(f"{REQUESTS}/{first}/certificate").status_code == 404


def test_who_may_ask_and_not_erase_learns_of_nobody_whether_they_are_there(
    place: Workspace, client: Client
) -> None:
    """Neither when asking, nor by what an erasure came to, nor by what is refused."""
    (closed, other) = take_requests(place, ["person 17", "person 18"])
    carry_out(place, closed)
    desk = client("asks", "decides", "audits")
    shown = desk.get(f"{REQUESTS}/{closed.request_id}").json()
    assert shown["state"] == "closed" and shown["rows"] is None and shown["history"] is None
    for state in (None, *get_args(State)):  # a list of a state would tell it of each
        asked = {"state": state} if state else {}
        assert desk.get(REQUESTS, params=asked).status_code == 403
    assert desk.get(f"{REQUESTS}/{closed.request_id}/certificate").status_code == 403
    for told in ("status", "forecast", "versions", "reports", "bundle"):
        assert desk.get(f"/api/v1/{told}").status_code == 403
        assert client("decides", "audits").get(f"/api/v1/{told}").status_code in (200, 404)
    quoting = desk.post(f"{REQUESTS}/{other.request_id}/extend", json={"reason": "about person 99"})
    assert quoting.status_code == 422 and "letters alone" in quoting.json()["detail"]
    eraser = client("erases", "asks")
    told = eraser.get(f"{REQUESTS}/{closed.request_id}").json()
    assert told["state"] not in ("closed", "pending") and told["rows"] is not None
    asked = eraser.post(REQUESTS, json={"subjects": ["person 20"]}).json()
    assert asked["found"][0]["subject"] == "person 20"


def test_pages_have_every_request_once(place: Workspace, client: Client) -> None:
    taken = take_requests(place, [f"person {n}" for n in range(25)])
    audits = client("audits")
    carry_out(place, taken[0])
    found, cursor, pages = list[str](), "", 0
    while cursor is not None:
        page = audits.get(REQUESTS, params={"limit": 7, "cursor": cursor}).json()
        found += [r["id"] for r in page["requests"]]
        cursor, pages = page["next"], pages + 1
    assert sorted(found) == sorted(r.request_id for r in taken) and pages == 4
    assert len(audits.get(REQUESTS, params={"state": "pending"}).json()["requests"]) == 24
    assert not audits.get(REQUESTS, params={"due_within": 1}).json()["requests"]
    for wrong in ("x", "W10=", "bnVsbA==", "eyJhIjoxfQ==", "\u00e9"):
        assert audits.get(REQUESTS, params={"cursor": wrong}).status_code == 422
    assert audits.get(REQUESTS, params={"state": "gone"}).status_code == 422


def test_ids_of_no_request_are_not_found(client: Client) -> None:
    decides = client("decides", "asks", "erases")
    nobody = f"{REQUESTS}/req-{'0' * 16}"
    assert decides.get(nobody).status_code == 404
    for act in ("approve", "withdraw"):
        assert decides.post(f"{nobody}/{act}").status_code == 404
    assert decides.get(f"{REQUESTS}/req-x").status_code == 422


def test_settings_that_change_count_at_once(place: Workspace, client: Client) -> None:
    asks = client("asks")
    assert (
        asks.post(REQUESTS, json={"subjects": ["person 17"]}).json()["requests"][0]["state"]
        == "pending"
    )
    path = place.root / "s3t.toml"
    path.write_text(path.read_text().replace("needs_approval = false", "needs_approval = true"))
    assert (
        asks.post(REQUESTS, json={"subjects": ["person 18"]}).json()["requests"][0]["state"]
        == "awaiting approval"
    )


def test_what_came_too_late_is_not_called_accepted(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, desk: Desk, client: Client
) -> None:
    """The answer says that it may still be done, and how to find out."""
    monkeypatch.setattr(desk, "_seconds", 0.0)
    answer = client("asks").post(REQUESTS, json={"subjects": ["person 17"]})
    assert answer.status_code == 503 and "same idempotency key" in answer.json()["do"]
    monkeypatch.undo()
    assert client("asks").post(REQUESTS, json={"subjects": ["person 17"]}).status_code in (200, 201)
    assert len(list_requests(Workspace(place.root))) == 1
    assert json.dumps(answer.json()).count("person") == 0
