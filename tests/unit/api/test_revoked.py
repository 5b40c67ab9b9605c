"""A token that is taken back counts for nothing more at once: not for what waits its turn, nor for
what is being done."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flows.use_cases.requests import list_requests
from flows.use_cases.taking import take_requests
from flows.use_cases.tokens import list_tokens, revoke_token
from flows.workspace import access
from flows.workspace.workspace import Workspace
from tests.unit.api.conftest import Client

REQUESTS = "/api/v1/requests"
BASIS = {"basis": "12(5)", "reason": "manifestly unfounded"}
Send = Callable[[Any, str], Any]
SENT: dict[str, tuple[tuple[str, ...], Send]] = {
    "reject": (("decides",), lambda c, r: c.post(f"{REQUESTS}/{r}/reject", json=BASIS)),
    "withdraw": (("decides",), lambda c, r: c.post(f"{REQUESTS}/{r}/withdraw")),
    "extend": (("decides",), lambda c, r: c.post(f"{REQUESTS}/{r}/extend", json={"reason": "x"})),
    "hold": (
        ("decides",),
        lambda c, _: c.post("/api/v1/holds", json={"subject": "person 9", **BASIS}),
    ),
}


def _revoke(place: Workspace) -> None:
    for each in list_tokens(place):
        revoke_token(place, each["id"])


@contextmanager
def _waiting(send: Callable[[], Any]) -> Iterator[list[Any]]:
    """What is sent in another thread meanwhile; its answer, in the end."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(send()))
    thread.start()
    yield answers
    thread.join(60)


@pytest.mark.parametrize("what", SENT)
def test_what_waits_for_the_workspace_is_not_decided_for_one_that_was_revoked(
    place: Workspace, client: Client, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """An erasure has the workspace, for a minute say."""
    request = take_requests(place, ["person 1"])[0]
    roles, send = SENT[what]
    sender, began = client(*roles), threading.Event()
    waits = access.workspace_lock
    monkeypatch.setattr(access, "workspace_lock", lambda *a: (began.set(), waits(*a))[1])
    before = place.ledger.head().size
    with _waiting(lambda: send(sender, request.request_id)) as answers, waits(place.lock_path, 0):
        assert began.wait(30)
        _revoke(place)
    assert [a.status_code for a in answers] == [401]
    assert Workspace(place.root).ledger.head().size == before
    assert not list(place.certificates_dir.glob("req-*")), "nothing was signed for it either"
    assert [r["state"] for r in list_requests(place)] == ["pending"]
    again = send(client(*roles), request.request_id)  # nothing of it stands in the way
    assert again.status_code == 200


def test_what_waits_its_turn_is_not_done_for_one_that_was_revoked(
    place: Workspace, client: Client, desk: Any
) -> None:
    turn, came = threading.Event(), threading.Event()

    asks, real = client("asks"), desk._takes._answer

    def slow(workspace: Workspace, asked: Any) -> Any:
        came.set()
        turn.wait(30)
        return real(workspace, asked)

    desk._takes._answer = slow
    other = client("asks", name="another desk")
    other_id = list_tokens(place)[-1]["id"]
    with _waiting(lambda: other.post(REQUESTS, json={"subjects": ["person 1"]})) as first:
        assert came.wait(30)
        desk._takes._answer = real
        with _waiting(lambda: asks.post(REQUESTS, json={"subjects": ["person 2"]})) as second:
            while desk._takes._jobs.empty():
                threading.Event().wait(0.01)
            for each in list_tokens(place):
                if each["id"] != other_id:
                    revoke_token(place, each["id"])
            turn.set()
    assert [a.status_code for a in first] == [201] and [a.status_code for a in second] == [401]
    assert len(place.requests.open_now()) == 1


def test_of_those_who_ask_together_one_that_was_revoked_alone_is_refused(
    place: Workspace, client: Client, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After their turn came, and before the transaction that would acknowledge it."""
    accept = type(place.requests).accept
    good, bad = client("asks", name="good"), client("asks", name="bad")
    [bad_id] = [t["id"] for t in list_tokens(place) if t["name"] == "bad"]

    def late(self: Any, new: Any) -> Any:
        revoke_token(place, bad_id)
        return accept(self, new)

    monkeypatch.setattr(type(place.requests), "accept", late)
    assert bad.post(REQUESTS, json={"subjects": ["person 2"]}).status_code == 401
    assert good.post(REQUESTS, json={"subjects": ["person 1"]}).status_code == 201
    assert len(place.requests.open_now()) == 1


@pytest.mark.parametrize("where", ["/api/v1/bundle", "/api/v1/reports"])
def test_nothing_is_read_out_to_one_that_was_revoked_meanwhile(
    place: Workspace, client: Client, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    reads = client("audits")

    def meanwhile(*_: Any) -> Any:
        _revoke(place)
        return (b"a bundle", []) if "bundle" in where else []

    name = "bundle_of" if "bundle" in where else "_reports"
    monkeypatch.setattr(f"flows.api.evidence.{name}", meanwhile)
    answer = reads.get(where)
    assert answer.status_code == 401 and "revoked" in answer.text


@pytest.mark.parametrize("what", ["reject", "withdraw"])
@pytest.mark.parametrize("when", ["before it is signed", "before it is recorded"])
def test_after_the_lease_was_taken_nothing_signed_is_left_for_one_that_was_revoked(
    place: Workspace, client: Client, monkeypatch: pytest.MonkeyPatch, what: str, when: str
) -> None:
    request = take_requests(place, ["person 1"])[0]
    roles, send = SENT[what]
    sender, signed = client(*roles), list[bytes]()
    files = type(place.certificates)
    issue = files.issue

    def late(self: Any, *arguments: Any) -> Any:
        if when == "before it is signed":
            _revoke(place)
        try:
            return issue(self, *arguments)
        finally:
            _revoke(place)
            signed.extend(p.read_bytes() for p in place.certificates_dir.glob("req-*"))

    monkeypatch.setattr(files, "issue", late)
    assert send(sender, request.request_id).status_code == 401
    assert bool(signed) is (when == "before it is recorded")
    assert not list(place.certificates_dir.glob("req-*"))
    assert [r["state"] for r in list_requests(Workspace(place.root))] == ["pending"]
    monkeypatch.undo()
    assert send(client(*roles), request.request_id).status_code == 200
