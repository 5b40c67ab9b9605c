"""Callbacks: other systems are told what becomes of requests, each at least once (docs/http.md).

What is told names no person and nothing of the data: the id of a request, a time, and what
happened. What an erasure came to is told only where `[callbacks] outcomes` says so: it says who was
in the data.
"""

import asyncio
import contextlib
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from flows.adapters.credentials import secret_of
from flows.adapters.outbox import Delivery, DeliveryState, Outbox
from flows.adapters.webhooks import Answer, Sender, secret_told, signed
from flows.use_cases.documents import CallbacksSent, CallbackTold
from flows.workspace.layout import CALLBACKS_LOCK, CALLBACKS_SECRET
from flows.workspace.parts import HasClock, HasFolders, HasLedger
from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.config import Config
from s3t_core.erasure import events
from s3t_core.erasure.events import LedgerEvent
from s3t_core.errors import NotThere, UsageError
from s3t_core.files import locked
from s3t_core.times import rfc3339

RETRIES = tuple(
    timedelta(**{unit: n})
    for unit, n in (
        ("seconds", 5),
        ("minutes", 5),
        ("minutes", 30),
        ("hours", 2),
        ("hours", 5),
        ("hours", 10),
        ("hours", 14),
        ("hours", 20),
        ("hours", 24),
    )
)
"""How long after each attempt that failed the next one is (Standard Webhooks, "deliverability and
reliability"); after the last of them a message is given up."""
_TOGETHER = 32
"""Messages on their way at once."""
_ENTRIES_TOGETHER = 1000
"""Entries of the ledger that are looked at in one step."""
_KEPT_ENTRIES = 10_000
"""Delivered messages are kept for so many entries of the ledger."""
_WAIT_SECONDS = 1


class Calling(HasLedger, HasFolders, HasClock, Protocol):
    """What callbacks are sent from."""

    config: Config

    @property
    def owner(self) -> str:
        """The name of the ledger."""

    @property
    def outbox(self) -> Outbox:
        """What is still to be sent."""


@dataclass(frozen=True)
class Message:
    """What is told of an entry of the ledger."""

    type: str
    request: str
    time: str
    data: dict[str, object]

    def body(self) -> bytes:
        """As it is sent: canonical JSON (RFC 8785)."""
        data = {"id": self.request, **self.data}
        return canonical_json({"type": self.type, "timestamp": self.time, "data": data})


def message_of(event: LedgerEvent, outcomes: bool) -> Message | None:
    """What is told of an event; None of most. `outcomes`: of what an erasure came to, too."""
    if isinstance(event, events.RequestTaken):
        return Message("request.accepted", event.request, event.time, {"due": event.due})
    if isinstance(event, events.RequestApproved):
        return Message("request.approved", event.request, event.time, {})
    if isinstance(event, events.DeadlineExtended):
        return Message("request.extended", event.request, event.time, {"due": event.due})
    if isinstance(event, events.RequestClosed | events.RequestCertified):
        told: dict[str, object] = {}
        if outcomes:
            kind = event.kind if isinstance(event, events.RequestClosed) else "certified"
            told = {"outcome": kind, "document_sha256": event.certificate}
        return Message("request.closed", event.request, event.time, told)
    return None


def target_digest(url: str) -> str:
    """How a target is called in the database: by a digest of its URL, which may have a secret in
    its path."""
    return sha256_hex(url.encode())[:32]


def secret_for(workspace: Calling, url: str) -> bytes:
    """The secret by which messages to a target are signed, 32 bytes: another one for each, so that
    none of them can sign for another."""
    key = secret_of(workspace.state_dir / CALLBACKS_SECRET).encode()
    return hmac.digest(key, b"s3t callbacks\0" + url.encode(), hashlib.sha256)


def told_secret(workspace: Calling, url: str) -> str:
    """The same, as the receiver is given it. Raises UsageError for a URL that is no target."""
    if url not in workspace.config.callbacks.targets:
        raise UsageError(
            "expected one of [callbacks] targets in s3t.toml, got another URL; write it there "
            "first, letter by letter the same"
        )
    return secret_told(secret_for(workspace, url))


def gather(workspace: Calling) -> None:
    """Take into the outbox what the ledger has told since the last time. A target that is new is
    told what comes from now on."""
    outbox, outcomes = workspace.outbox, workspace.config.callbacks.outcomes
    for url in workspace.config.callbacks.targets:
        target = target_digest(url)
        begin = outbox.begin(target, workspace.ledger.size())
        while told := workspace.ledger.told_since(begin, _ENTRIES_TOGETHER):
            new = [
                Delivery(target, _message_id(workspace.owner, number), number)
                for number, event in enumerate(told, begin)
                if message_of(event, outcomes) is not None
            ]
            outbox.take(target, begin, begin + len(told), new)
            begin += len(told)
            outbox.forget(begin - _KEPT_ENTRIES)


def send_due(workspace: Calling, sender: Sender) -> CallbacksSent:
    """Gather, and send once whatever is due now. Nobody else in this directory does meanwhile: who
    comes second sends nothing."""
    states: Counter[DeliveryState] = Counter()
    with _alone(workspace) as is_mine:
        if is_mine and workspace.config.callbacks.targets:
            gather(workspace)
            for batch in _batches(workspace):
                done = asyncio.run(_sent(workspace, sender, batch))
                states.update(each.state for each in done)
    return {
        "delivered": states["delivered"],
        "failed": states["waiting"],
        "dead": states["dead"],
    }


def list_callbacks(workspace: Calling, states: Iterable[DeliveryState]) -> list[CallbackTold]:
    """Every message in one of these states, as they came."""
    urls = {target_digest(url): url for url in workspace.config.callbacks.targets}
    found = workspace.outbox.all(states)
    told = workspace.ledger.told_at({each.entry for each in found})
    listed: list[CallbackTold] = []
    for each in found:
        message = message_of(told[each.entry], outcomes=False)
        listed.append(
            {
                "message": each.message,
                "target": urls.get(each.target, ""),
                "type": message.type if message else "",
                "request": message.request if message else "",
                "state": each.state,
                "attempts": each.attempts,
                "next": (each.due or None) if each.state == "waiting" else None,
                "answer": each.answer,
            }
        )
    return listed


def retry(workspace: Calling, messages: Sequence[str]) -> int:
    """Have messages that were given up sent anew, all of them where none is named; returns how many
    those are. Raises NotThere for an id that is of none."""
    dead = workspace.outbox.all(["dead"])
    strange = set(messages) - {each.message for each in dead}
    if strange:
        raise NotThere(
            f"expected ids of messages that were given up (`s3t callbacks list --state dead`), got "
            f"{len(strange)} other(s); nothing was changed"
        )
    again = [each for each in dead if not messages or each.message in messages]
    workspace.outbox.write(
        replace(each, state="waiting", attempts=0, due=workspace.now()) for each in again
    )
    return len(again)


def _message_id(ledger: str, entry: int) -> str:
    return "msg_" + sha256_hex(f"{ledger} {entry}".encode())[:32]


@contextlib.contextmanager
def _alone(workspace: Calling) -> Iterator[bool]:
    try:
        with locked(workspace.state_dir / CALLBACKS_LOCK, _WAIT_SECONDS):
            yield True
    except TimeoutError:
        yield False


def _batches(workspace: Calling) -> Iterator[list[Delivery]]:
    """What is due, some at a time, each once: what failed meanwhile is due later."""
    targets = [target_digest(url) for url in workspace.config.callbacks.targets]
    begun = workspace.now()
    while batch := workspace.outbox.due(targets, begun, _TOGETHER):
        yield batch


async def _sent(workspace: Calling, sender: Sender, batch: Sequence[Delivery]) -> list[Delivery]:
    """Send a batch, each to its target, and write what became of it."""
    callbacks = workspace.config.callbacks
    urls = {target_digest(url): url for url in callbacks.targets}
    told = workspace.ledger.told_at({each.entry for each in batch})
    now = workspace.clock.now()

    async def one(each: Delivery) -> Delivery:
        message, url = message_of(told[each.entry], callbacks.outcomes), urls[each.target]
        if message is None:  # it tells of nothing: somebody wrote to the table
            return replace(each, state="dead", answer="tells of nothing")
        body = message.body()
        headers = signed(secret_for(workspace, url), each.message, now, body)
        return _after(each, await sender.send(url, headers, body), workspace.clock.now())

    done = await asyncio.gather(*map(one, batch))
    workspace.outbox.write(done)
    return done


def _after(each: Delivery, answer: Answer, now: datetime) -> Delivery:
    """What has become of a message by an attempt."""
    attempts = each.attempts + 1
    if answer.outcome == "delivered":
        return replace(each, attempts=attempts, state="delivered", answer=answer.told)
    if answer.outcome == "gone" or attempts > len(RETRIES):
        return replace(each, attempts=attempts, state="dead", answer=answer.told)
    wait = max(RETRIES[attempts - 1], answer.wait)
    spread = 1 + secrets.randbelow(100) / 1000  # what failed together is not tried again together
    return replace(
        each,
        attempts=attempts,
        due=rfc3339(now + timedelta(seconds=wait.total_seconds() * spread + 1)),
        answer=answer.told,
    )
