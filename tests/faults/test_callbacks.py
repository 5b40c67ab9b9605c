"""Callbacks: each change of a request is told to each target at least once, under one id, signed,
and to nobody else."""

import asyncio
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from flows.adapters import webhooks
from flows.adapters.outbox import Outbox
from flows.adapters.webhooks import Answer, Sender, is_public
from flows.metrics import text_of
from flows.use_cases import callbacks
from flows.use_cases.callbacks import (
    RETRIES,
    gather,
    list_callbacks,
    retry,
    send_due,
    signing_secret,
    target_digest,
)
from flows.use_cases.requests import approve, extend, reject, withdraw
from flows.use_cases.taking import take_requests
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.errors import LedgerError, NotThere, UsageError
from s3t_core.files import locked
from s3t_core.times import parse_time
from tests.faults.carried import carry_out
from tests.receiver import Received, check_signed, receiving

WHO = "person 17"
_STATES = ("waiting", "delivered", "dead")


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Received]:
    with receiving(tmp_path / "receiver") as found:
        yield found


def _place(root: Path, *targets: str, **more: object) -> Workspace:
    create_workspace(root, Config.model_validate({"callbacks": {"targets": targets, **more}}))
    place = Workspace(root)
    nobody = webhooks.Sender(1, may_reach=lambda _: False)
    assert send_due(place, nobody) == {"delivered": 0, "failed": 0, "dead": 0}  # from here on
    return place


@pytest.fixture
def place(tmp_path: Path, receiver: Received) -> Workspace:
    return _place(tmp_path / "w", receiver.url)


class _Clock:
    def __init__(self, place: Workspace) -> None:
        self.at = place.clock.now()
        place.clock = self  # type: ignore[assignment]

    def now(self) -> datetime:
        return self.at


@pytest.mark.parametrize("outcomes", [False, True])
def test_what_becomes_of_requests_is_told_without_saying_of_whom(
    tmp_path: Path, receiver: Received, outcomes: bool
) -> None:
    place = _place(tmp_path / "w", receiver.url, outcomes=outcomes)
    first, second, third = take_requests(place, [WHO, "person 18", "person 19"])
    approve(place, [first.request_id], "privacy officer")
    due = extend(place, first.request_id, "many letters at once", "privacy officer", 1)
    withdraw(place, second.request_id)
    reject(place, third.request_id, "17(3)(e)", "a claim is before the court", "legal")
    carry_out(place, first)
    assert send_due(place, receiver.sender())["delivered"] == 8
    told = [json.loads(body) for _, body, _ in receiver.came]
    expected = [("request.accepted", r.request_id) for r in (first, second, third)]
    expected += [("request.closed", r.request_id) for r in (first, second, third)]
    expected += [(f"request.{what}", first.request_id) for what in ("approved", "extended")]
    assert sorted((t["type"], t["data"]["id"]) for t in told) == sorted(expected)
    assert next(t for t in told if t["type"] == "request.extended")["data"]["due"] == due
    closed = [t["data"] for t in told if t["type"] == "request.closed"]
    kinds = {c.get("outcome") for c in closed}
    assert kinds == ({"withdrawal", "rejection", "certified"} if outcomes else {None})
    assert all(("document_sha256" in c) is outcomes for c in closed)
    assert len(set(receiver.ids)) == 8
    secret = signing_secret(place, receiver.url)
    assert signing_secret(place, "1") == secret
    for headers, body, path in receiver.came:
        check_signed(secret, headers, body)
        assert headers["host"] == f"receiver.example:{receiver.port}" and path == "/hook"
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
        assert WHO.encode() not in body and first.subject.encode() not in body
    assert send_due(place, receiver.sender()) == {"delivered": 0, "failed": 0, "dead": 0}


def test_a_target_that_is_new_is_told_what_comes_from_then_on(
    tmp_path: Path, receiver: Received
) -> None:
    place = _place(tmp_path / "w")
    take_requests(place, ["person 1"])
    settings = (place.root / "s3t.toml").read_text()
    (place.root / "s3t.toml").write_text(
        settings.replace("targets = []", f'targets = ["{receiver.url}"]')
    )
    place = Workspace(place.root)
    assert send_due(place, receiver.sender())["delivered"] == 0
    (later,) = take_requests(place, ["person 2"])
    assert send_due(place, receiver.sender())["delivered"] == 1
    assert json.loads(receiver.came[0][1])["data"]["id"] == later.request_id


def test_each_target_has_a_secret_of_its_own_and_is_told_by_itself(
    tmp_path: Path, receiver: Received
) -> None:
    """One that does not answer keeps nothing from another."""
    with receiving(tmp_path / "other", "other.example") as other:
        other.status = lambda _: 500
        url = other.url.replace("receiver.example", "other.example")
        place = _place(tmp_path / "w", receiver.url, url)
        assert signing_secret(place, receiver.url) != signing_secret(place, url)
        take_requests(place, ["person 1", "person 2"])
        both = tmp_path / "both.pem"
        both.write_bytes(receiver.certificate.read_bytes() + other.certificate.read_bytes())
        trusting = Received(receiver.port, both).sender()
        assert send_due(place, trusting) == {"delivered": 2, "failed": 2, "dead": 0}
        assert sorted(receiver.ids) == sorted(other.ids)
    with pytest.raises(UsageError, match="letter by letter"):
        signing_secret(place, receiver.url + "x")


def test_what_fails_is_tried_again_later_and_later_and_then_given_up(
    place: Workspace, receiver: Received
) -> None:
    receiver.status = lambda n: (500, 302, 404, 503)[n % 4]
    receiver.headers = {"location": f"{receiver.url}/elsewhere"}
    clock = _Clock(place)
    (asked,) = take_requests(place, [WHO])
    waits = []
    for attempt in range(len(RETRIES)):
        assert send_due(place, receiver.sender())["failed"] == 1
        assert send_due(place, receiver.sender())["failed"] == 0  # not yet
        (told,) = list_callbacks(place, ["waiting"])
        assert told["attempts"] == attempt + 1 and told["request"] == asked.request_id
        waits.append(parse_time(told["next"] or "") - clock.at)
        clock.at += waits[-1]
    assert all(
        0 <= (w - r).total_seconds() <= r.total_seconds() / 10 + 2
        for w, r in zip(waits, RETRIES, strict=True)
    )
    assert send_due(place, receiver.sender()) == {"delivered": 0, "failed": 0, "dead": 1}
    assert len(receiver.came) == len(RETRIES) + 1 and {p for _, _, p in receiver.came} == {"/hook"}
    (dead,) = list_callbacks(place, ["dead"])
    assert dead["answer"] == "302" and dead["next"] is None
    clock.at += timedelta(days=30)
    assert send_due(place, receiver.sender())["dead"] == 0
    with pytest.raises(NotThere):
        retry(place, ["msg_of_nobody"])
    assert retry(place, [dead["message"]]) == 1
    receiver.status = lambda _: 200
    assert send_due(place, receiver.sender())["delivered"] == 1
    assert len(set(receiver.ids)) == 1 and len({body for _, body, _ in receiver.came}) == 1


def test_metrics_say_how_many_wait_and_were_given_up(place: Workspace, receiver: Received) -> None:
    take_requests(place, [WHO, "person 18"])
    receiver.status = lambda n: (410, 500)[n % 2]
    send_due(place, receiver.sender())
    told = text_of(place)
    assert 's3t_callbacks{state="waiting"} 1.0' in told
    assert 's3t_callbacks{state="dead"} 1.0' in told
    assert 's3t_callbacks{state="delivered"} 0.0' in told


def test_what_was_delivered_is_forgotten_after_a_while(
    place: Workspace, receiver: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_requests(place, [f"person {n}" for n in range(9)])
    receiver.status = lambda n: 410 if n == 0 else 200
    send_due(place, receiver.sender())
    monkeypatch.setattr(callbacks, "_KEPT_ENTRIES", 3)
    take_requests(place, ["person 9"])
    callbacks.gather(place)
    states = [each.state for each in place.outbox.all()]
    assert states.count("dead") == 1 and states.count("delivered") < 4
    assert states.count("waiting") == 1


def test_who_is_gone_is_told_no_more_and_who_asks_for_time_has_it(
    place: Workspace, receiver: Received
) -> None:
    clock = _Clock(place)
    receiver.status, receiver.headers = (lambda _: 503), {"retry-after": "7200"}
    take_requests(place, [WHO])
    send_due(place, receiver.sender())
    (told,) = list_callbacks(place, ["waiting"])
    assert parse_time(told["next"] or "") - clock.at >= timedelta(hours=2)
    receiver.status = lambda _: 410
    clock.at += timedelta(hours=3)
    assert send_due(place, receiver.sender())["dead"] == 1


@pytest.mark.parametrize("waits", ["nonsense", "-5", "Wed, 99 Nov", "9" * 400, "é"])
def test_no_answer_can_stop_what_sends(place: Workspace, receiver: Received, waits: str) -> None:
    receiver.status = lambda _: 500
    receiver.headers = {"retry-after": waits.encode("latin-1").decode("latin-1")}
    take_requests(place, [WHO])
    assert send_due(place, receiver.sender())["failed"] == 1


PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::8.8.8.8",
    "2002:7f00:1::1",
    "2001:db8::1",
    "fec0::1",
    "3fff::1",
    "5f00::1",
    "192.0.0.8",
    "192.0.0.192",
    "192.88.99.1",
    "168.63.129.16",
    "::ffff:168.63.129.16",
    "not an address",
    "",
]


def test_no_address_that_is_not_public_is_reached(place: Workspace, receiver: Received) -> None:
    """Whatever a name resolves to, and whatever it has beside."""
    assert not [address for address in PRIVATE if is_public(address)]
    beside = [([a], ["8.8.8.8", a], [a, "8.8.8.8"]) for a in PRIVATE]
    for found in ([], *(each for of_one in beside for each in of_one)):

        async def resolve(_: str, __: int, found: list[str] = found) -> list[str]:
            return found

        sender = receiver.sender(resolve=resolve, may_reach=None)
        answer = asyncio.run(sender.send(place.config.callbacks.targets[0], {}, b"{}"))
        assert answer == Answer("failed", "address not public"), found
        assert not receiver.came, found


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_a_public_address_is_one(address: str) -> None:
    assert is_public(address)


def test_by_default_this_machine_is_not_reached_by_any_name(
    place: Workspace, receiver: Received
) -> None:
    sender = Sender(10)
    for host in ("localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"):
        url = f"https://{host}:{receiver.port}/hook"
        assert asyncio.run(sender.send(url, {}, b"{}")).summary in (
            "address not public",
            "no such host",
        )
    assert not receiver.came


def test_another_name_or_another_authority_is_not_told(
    tmp_path: Path, place: Workspace, receiver: Received
) -> None:
    take_requests(place, [WHO])
    with receiving(tmp_path / "other") as other:
        send_due(place, other.sender())  # another's certificate under the same name
    (told,) = list_callbacks(place, ["waiting"])
    assert told["answer"] == "certificate not trusted" and not receiver.came
    url = receiver.url.replace("receiver.example", "another.example")
    answer = asyncio.run(receiver.sender().send(url, {}, b"{}"))
    assert answer == Answer("failed", "certificate not trusted") and not receiver.came


def test_a_slow_receiver_holds_up_nobody(place: Workspace, receiver: Received) -> None:
    receiver.waits = threading.Event()
    take_requests(place, [f"person {n}" for n in range(5)])
    begun = time.monotonic()
    assert send_due(place, receiver.sender(seconds=0.5))["failed"] == 5
    assert time.monotonic() - begun < 10
    assert {t["answer"] for t in list_callbacks(place, ["waiting"])} == {"no answer in time"}


def test_killed_before_it_is_written_a_message_is_sent_again_under_its_id(
    place: Workspace, receiver: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_requests(place, [WHO])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Outbox, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            send_due(place, receiver.sender())
    assert send_due(Workspace(place.root), receiver.sender())["delivered"] == 1
    assert len(receiver.ids) == 2 and len(set(receiver.ids)) == 1
    assert receiver.came[0][1] == receiver.came[1][1]


def test_killed_while_it_takes_from_the_ledger_nothing_is_lost_or_told_twice(
    place: Workspace, receiver: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_requests(place, [f"person {n}" for n in range(30)])
    monkeypatch.setattr(callbacks, "_ENTRIES_TOGETHER", 4)
    take, calls = Outbox.take, iter(range(99))

    def killed(*given: object) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        take(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Outbox, "take", killed)
    with pytest.raises(KeyboardInterrupt):
        send_due(place, receiver.sender())
    assert send_due(Workspace(place.root), receiver.sender())["delivered"] == 30
    assert len(receiver.ids) == 30 == len(set(receiver.ids))


def test_two_that_take_the_same_entries_put_them_there_once(place: Workspace) -> None:
    """One on another machine, whose lock this one does not see."""
    take_requests(place, [WHO])
    callbacks.gather(place)
    outbox, target = place.outbox, target_digest(place.config.callbacks.targets[0])
    (waiting,) = outbox.all()
    begin = outbox.begin(target, 0)
    outbox.take(target, begin - 1, begin, [waiting])
    assert outbox.all() == [waiting] and outbox.begin(target, 0) == begin


def test_one_sends_at_a_time(place: Workspace, receiver: Received) -> None:
    take_requests(place, [WHO])
    with locked(place.state_dir / "callbacks.lock", 1):
        assert send_due(place, receiver.sender())["delivered"] == 0
    assert send_due(place, receiver.sender())["delivered"] == 1


def test_who_writes_to_the_outbox_alone_has_nothing_told_that_was_not(
    place: Workspace, receiver: Received
) -> None:
    """What is told is read from the ledger, whose entries are sealed."""
    (asked,) = take_requests(place, [WHO])
    callbacks.gather(place)
    place.database.engine.dispose()
    with sqlite3.connect(place.root / ".s3t" / "s3t.db") as database:
        database.execute("UPDATE outbox SET entry = 0, message = 'msg_x'")
    assert send_due(place, receiver.sender())["dead"] == 1 and not receiver.came
    with sqlite3.connect(place.root / ".s3t" / "s3t.db") as database:
        database.execute("UPDATE outbox SET entry = 99, state = 'waiting'")
    assert send_due(place, receiver.sender())["dead"] == 1 and not receiver.came
    with sqlite3.connect(place.root / ".s3t" / "s3t.db") as database:
        database.execute("UPDATE outbox SET state = 'certified'")
    with pytest.raises(LedgerError, match="another state"):
        list_callbacks(place, ["waiting", "certified"])  # type: ignore[list-item]
    assert asked.request_id


def test_what_reads_of_the_ledger_in_parts_holds_each_against_its_seal(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_requests(place, [WHO, "person 18"])
    size = place.ledger.size()
    assert size == place.ledger.state().size
    since = place.ledger.entries_since(size - 2, 9)
    assert [e.type for e, _ in since] == ["request", "request"]
    assert [leaf for _, leaf in since] == place.ledger.leaves()[-2:]
    assert [e.type for e, _ in place.ledger.entries_since(0, 1)] == ["workspace"]
    assert place.ledger.events_at([size - 1])[size - 1].type == "request"
    assert place.ledger.events_at([]) == place.ledger.events_at([-1, size, 2**40]) == {}
    with monkeypatch.context() as patched:
        patched.setattr("flows.adapters.database.CHUNK", 2)
        told = place.ledger.events_at(range(size))
        assert list(told) == list(range(size)) and told[0].type == "workspace"
    place.database.engine.dispose()
    with sqlite3.connect(place.root / ".s3t" / "s3t.db") as database:
        rows = database.execute("SELECT seq, leaf FROM ledger ORDER BY seq DESC").fetchall()
        database.execute("UPDATE ledger SET leaf = ? WHERE seq = ?", (rows[1][1], rows[0][0]))
    for read in (
        lambda: place.ledger.entries_since(size - 1, 9),
        lambda: place.ledger.events_at([size - 1]),
    ):
        with pytest.raises(LedgerError):
            read()


@pytest.mark.parametrize(
    "target",
    [
        "http://hooks.example.org/",
        "https://",
        "https://user:word@hooks.example.org/",
        "https://hooks.example.org/#x",
        "https://hooks.example.org:99999/",
        "https://hooks example.org/",
        "https://hööks.example.org/",
        "hooks.example.org",
        "file:///etc/passwd",
        "https://a..b/",
        "https://300.1.1.1/",
        "https://1.2.3/",
        "https://0x7f.1/",
        "https://[v1.x]/",
        "https://[::1/",
        f"https://{'a' * 64}.example/",
        f"https://{'a.' * 130}example/",
        "https://-a.example/",
        "https://a_b.example/",
        f"https://hooks.example.org/{'a' * 2000}",
    ],
)
def test_what_is_no_target_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="expected https://HOST/PATH"):
        Config.model_validate({"callbacks": {"targets": [target]}})


@pytest.mark.parametrize(
    "target",
    [
        "https://xn--i-7iq.ws/h",
        "https://xn--a/h",
        "https://xn--strae-oqa.de/h",
        "https://8.8.8.8/h",
        "https://[2606:4700::1111]:8443/h",
        "https://A.Example/h",
        "https://localhost/h",
    ],
)
def test_no_target_that_is_taken_stops_what_sends(
    tmp_path: Path, receiver: Received, target: str
) -> None:
    """The others are told, once, and it is asked for as it stands in DNS."""
    asked: list[str] = []

    async def resolve(name: str, _: int) -> list[str]:
        asked.append(name)
        return ["127.0.0.1"] if name == "receiver.example" else ["10.0.0.1"]

    place = _place(tmp_path / "w", target, receiver.url)
    gather(place)
    take_requests(place, [WHO])
    sender = receiver.sender(1, resolve=resolve, may_reach=lambda a: a == "127.0.0.1")
    for _ in range(2):
        send_due(place, sender)
    assert len(receiver.came) == 1
    host = target.removeprefix("https://").partition("/")[0].lower()
    assert (host.strip("[]") in asked) or (host.rpartition(":")[0].strip("[]") in asked)
    states = {c["target"]: (c["state"], c["answer"]) for c in list_callbacks(place, _STATES)}
    assert states[target] == ("waiting", "address not public")
    assert states[receiver.url][0] == "delivered"


@pytest.mark.long_but_first
@pytest.mark.parametrize("error", [RuntimeError, UnicodeError, ValueError, OSError])
def test_what_went_is_written_though_another_one_fails_as_nobody_foresaw(
    tmp_path: Path, receiver: Received, error: type[Exception]
) -> None:
    async def resolve(name: str, _: int) -> list[str]:
        if name != "receiver.example":
            await asyncio.sleep(1)
            raise error("x")
        return ["127.0.0.1"]

    place = _place(tmp_path / "w", "https://other.example/", receiver.url)
    gather(place)
    take_requests(place, [WHO])
    for _ in range(3):
        with suppress(RuntimeError):
            send_due(place, receiver.sender(resolve=resolve))
    assert len(receiver.came) == 1
    assert [c["target"] for c in list_callbacks(place, ["delivered"])] == [receiver.url]


def test_a_target_that_hangs_keeps_no_other_waiting(tmp_path: Path, receiver: Received) -> None:
    hangs = threading.Event()

    async def resolve(name: str, _: int) -> list[str]:
        if name == "hangs.example":
            await asyncio.sleep(30)
        return ["127.0.0.1"]

    place = _place(tmp_path / "w", "https://hangs.example/", receiver.url)
    gather(place)
    take_requests(place, [f"person {n}" for n in range(100)])
    sender = receiver.sender(8, resolve=resolve)
    begun = time.monotonic()
    send_due(place, sender)
    assert len(receiver.came) == 100 and time.monotonic() - begun < 28, hangs
    waits = list_callbacks(place, ["waiting"])
    assert sum(c["attempts"] for c in waits) == 32  # nobody was home: the rest waits


def test_a_name_that_nobody_answers_for_is_given_up_in_time(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ended.wait(20) and [])
    begun = time.monotonic()
    url = place.config.callbacks.targets[0]
    answer = asyncio.run(Sender(1).send(url, {}, b"{}"))
    took = time.monotonic() - begun
    ended.set()
    assert answer.summary == "no answer in time" and took < 6


def test_a_message_has_an_id_of_its_own_also_where_an_older_database_goes_on_otherwise(
    place: Workspace, receiver: Received
) -> None:
    """A receiver takes an id that it knows for a message that it has."""
    gather(place)
    place.database.engine.dispose()
    kept = (place.state_dir / "s3t.db").read_bytes()
    told = []
    for who in ("person 1", "person 2"):
        again = Workspace(place.root)
        take_requests(again, [who])
        send_due(again, receiver.sender())
        again.database.engine.dispose()
        told.append((receiver.ids[-1], json.loads(receiver.came[-1][1])["data"]["id"]))
        for name in ("s3t.db-wal", "s3t.db-shm", "checkpoint.json"):
            (place.state_dir / name).unlink(missing_ok=True)
        (place.state_dir / "s3t.db").write_bytes(kept)
    assert told[0][0] != told[1][0] and told[0][1] != told[1][1]


def test_a_clock_that_was_ahead_makes_no_message_wait_for_years(
    place: Workspace, receiver: Received
) -> None:
    clock = _Clock(place)
    clock.at += timedelta(days=700)
    gather(place)
    take_requests(place, [WHO])
    receiver.status = lambda _: 503
    send_due(place, receiver.sender())
    clock.at -= timedelta(days=700)
    receiver.status = lambda _: 204
    take_requests(place, ["person 18"])
    send_due(place, receiver.sender())
    assert not list_callbacks(place, ["waiting", "dead"])
    kinds = [json.loads(body)["type"] for _, body, _ in receiver.came[1:]]
    assert sorted(kinds) == ["clock.corrected", "request.accepted", "request.accepted"]
    (corrected,) = [json.loads(body) for _, body, _ in receiver.came if b"clock.corrected" in body]
    assert corrected["data"] == {}


def test_a_clock_that_is_set_while_it_sends_spends_one_attempt(
    place: Workspace, receiver: Received
) -> None:
    clock = _Clock(place)
    gather(place)
    take_requests(place, [WHO, "person 18"])

    def status(number: int) -> int:
        if number == 0:  # fails while the clock is behind: it is due at once when that is put right
            clock.at -= timedelta(days=1)
            return 503
        time.sleep(1)
        clock.at += timedelta(days=number == 1)
        return 204

    receiver.status = status
    send_due(place, receiver.sender())
    (waits,) = list_callbacks(place, ["waiting"])
    assert waits["attempts"] == 1 and len(receiver.came) == 2


def test_what_waits_is_sent_now_where_somebody_says_so(
    place: Workspace, receiver: Received
) -> None:
    take_requests(place, [WHO, "person 18"])
    receiver.status = lambda _: 503
    send_due(place, receiver.sender())
    receiver.status = lambda _: 204
    first, _ = list_callbacks(place, ["waiting"])
    assert retry(place, [first["message"]]) == 1
    assert send_due(place, receiver.sender())["delivered"] == 1
    assert retry(place, []) == 1
    assert send_due(place, receiver.sender())["delivered"] == 1


@pytest.mark.parametrize("entry", [-5, 0, 99999, 2**40])
def test_a_table_that_was_set_back_or_tells_of_nothing_stops_nothing(
    place: Workspace, receiver: Received, entry: int
) -> None:
    take_requests(place, [WHO])
    send_due(place, receiver.sender())
    take_requests(place, ["person 18"])
    place.database.engine.dispose()
    with closing(sqlite3.connect(place.state_dir / "s3t.db")) as database, database:
        database.execute("UPDATE callbacks SET entry = 0")
        database.execute("UPDATE outbox SET entry = ?, state = 'waiting', due = ''", (entry,))
    again = Workspace(place.root)
    send_due(again, receiver.sender())
    list_callbacks(again, _STATES)
    assert len({*receiver.ids}) == 2
    assert {json.loads(body)["type"] for _, body, _ in receiver.came} == {"request.accepted"}
    again.database.engine.dispose()
    with closing(sqlite3.connect(place.state_dir / "s3t.db")) as database, database:
        database.execute("UPDATE callbacks SET entry = -1")
    with pytest.raises(LedgerError, match="number of an entry"):
        send_due(Workspace(place.root), receiver.sender())


_SENDS = """
import sys
from pathlib import Path
from flows.use_cases.callbacks import send_due
from flows.workspace.workspace import Workspace
from tests.receiver import sender_to
place = Workspace(Path(sys.argv[1]))
while True:
    send_due(place, sender_to(Path(sys.argv[2]), 5))
"""


def test_killed_at_any_time_it_loses_none(place: Workspace, receiver: Received) -> None:
    taken = take_requests(place, [f"person {n}" for n in range(200)])
    receiver.status = lambda n: 503 if n % 7 == 3 else 204
    chance = random.Random(7)
    for _ in range(4):
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _SENDS,
                str(place.root),
                str(receiver.certificate),
            ],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        before = len(receiver.came)
        until = time.monotonic() + 60
        while len(receiver.came) < before + 20 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(chance.random() / 10)
        child.send_signal(signal.SIGKILL)
        child.wait()
    receiver.status = lambda _: 204
    clock = _Clock(place)
    clock.at += timedelta(minutes=1)
    send_due(place, receiver.sender())
    told = {json.loads(body)["data"]["id"] for _, body, _ in receiver.came}
    assert told == {r.request_id for r in taken}
    assert not list_callbacks(place, ["waiting", "dead"])
    by_id = {(h["webhook-id"], body) for h, body, _ in receiver.came}
    assert len(by_id) == 200 == len(set(receiver.ids))
