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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from flows.adapters.credentials import secret_of
from flows.adapters.outbox import Delivery, DeliveryState, Outbox
from flows.adapters.webhooks import Answer, Sender, secret_text, signed
from flows.use_cases.documents import CallbackEntry, CallbacksSent
from flows.workspace.layout import CALLBACKS_LOCK, CALLBACKS_SECRET
from flows.workspace.parts import HasClock, HasFolders, HasLedger
from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.config import Config
from s3t_core.erasure import events
from s3t_core.erasure.events import LedgerEvent
from s3t_core.errors import NotThere, UsageError
from s3t_core.files import locked
from s3t_core.times import later, rfc3339

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
_LONGEST_WAIT = timedelta(hours=27)
"""No message waits longer for its next attempt: a day, and a tenth of it."""
_TOGETHER = 32
"""Messages on their way to a target at once."""
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
        data = {"id": self.request, **self.data} if self.request else self.data
        return canonical_json({"type": self.type, "timestamp": self.time, "data": data})


def message_of(event: LedgerEvent, outcomes: bool) -> Message | None:
    """What is told of an event; None of most. `outcomes`: of what an erasure came to, too."""
    if isinstance(event, events.RequestTaken):
        return Message("request.accepted", event.request, event.time, {"due": event.due})
    if isinstance(event, events.RequestApproved):
        return Message("request.approved", event.request, event.time, {})
    if isinstance(event, events.DeadlineExtended):
        return Message("request.extended", event.request, event.time, {"due": event.due})
    if isinstance(event, events.ClockCorrected):
        return Message("clock.corrected", "", event.time, {})
    if isinstance(event, events.RequestClosed | events.RequestCertified):
        data: dict[str, object] = {}
        if outcomes:
            kind = event.kind if isinstance(event, events.RequestClosed) else "certified"
            data = {"outcome": kind, "document_sha256": event.certificate}
        return Message("request.closed", event.request, event.time, data)
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


def signing_secret(workspace: Calling, url: str) -> str:
    """The same, as the receiver is given it. `url`: a target's, or which of them it is, from 1:
    what has a secret in its path does not belong on a command line. Raises UsageError for what is
    no target."""
    targets = workspace.config.callbacks.targets
    chosen = dict(zip(map(str, range(1, len(targets) + 1)), targets, strict=True)).get(url, url)
    if chosen not in targets:
        raise UsageError(
            f"expected which of the {len(targets)} [callbacks] targets in s3t.toml, as 1, or one "
            "letter by letter, got another; write it there first"
        )
    return secret_text(secret_for(workspace, chosen))


def gather(workspace: Calling) -> None:
    """Take into the outbox what the ledger has told since the last time. A target that is new is
    told what comes from now on."""
    outbox, outcomes = workspace.outbox, workspace.config.callbacks.outcomes
    for url in workspace.config.callbacks.targets:
        target = target_digest(url)
        begin = outbox.begin(target, workspace.ledger.size())
        while entries := workspace.ledger.entries_since(begin, _ENTRIES_TOGETHER):
            new = [
                Delivery(target, _message_id(workspace.owner, number, leaf), number)
                for number, (event, leaf) in enumerate(entries, begin)
                if message_of(event, outcomes) is not None
            ]
            outbox.take(target, begin, begin + len(entries), new)
            begin += len(entries)
            outbox.forget(begin - _KEPT_ENTRIES)


def send_due(workspace: Calling, sender: Sender) -> CallbacksSent:
    """Gather, and send once whatever is due now. Nobody else in this directory does meanwhile: who
    comes second sends nothing."""
    states: Counter[DeliveryState] = Counter()
    with _alone(workspace) as is_mine:
        if is_mine and workspace.config.callbacks.targets:
            gather(workspace)
            states = asyncio.run(_sent(workspace, sender))
    return {
        "delivered": states["delivered"],
        "failed": states["waiting"],
        "dead": states["dead"],
    }


def list_callbacks(workspace: Calling, states: Iterable[DeliveryState]) -> list[CallbackEntry]:
    """Every message in one of these states, as they came."""
    urls = {target_digest(url): url for url in workspace.config.callbacks.targets}
    found = workspace.outbox.all(states)
    events = workspace.ledger.events_at({each.entry for each in found})
    listed: list[CallbackEntry] = []
    for each in found:
        message = _message_at(events, each.entry, outcomes=False)
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
    """Have messages that were given up, or wait, sent anew and now, all of them where none is
    named; returns how many those are. Raises NotThere for an id that is of none."""
    left = workspace.outbox.all(["dead", "waiting"])
    strange = set(messages) - {each.message for each in left}
    if strange:
        raise NotThere(
            f"expected ids of messages that wait or were given up (`s3t callbacks list`), got "
            f"{len(strange)} other(s); nothing was changed"
        )
    again = [each for each in left if not messages or each.message in messages]
    workspace.outbox.write(
        replace(each, state="waiting", attempts=0, due=workspace.now()) for each in again
    )
    return len(again)


def _message_id(
    ledger: str,
    entry: int,
    leaf: bytes,
) -> str:
    return "msg_" + sha256_hex(f"{ledger} {entry} {leaf.hex()}".encode())[:32]


def _message_at(
    events: Mapping[int, LedgerEvent],
    entry: int,
    outcomes: bool,
) -> Message | None:
    """What is told of an entry; None where it tells of nothing, or is not there: somebody wrote to
    the outbox."""
    return message_of(events[entry], outcomes) if entry in events else None


@contextlib.contextmanager
def _alone(workspace: Calling) -> Iterator[bool]:
    try:
        with locked(workspace.state_dir / CALLBACKS_LOCK, _WAIT_SECONDS):
            yield True
    except TimeoutError:
        yield False


async def _sent(workspace: Calling, sender: Sender) -> Counter[DeliveryState]:
    """Send what is due, to each target by itself: one that keeps others waiting keeps itself."""
    sending = [_sent_to(workspace, sender, url) for url in workspace.config.callbacks.targets]
    states: Counter[DeliveryState] = Counter()
    for found in await asyncio.gather(*sending):
        states += found
    return states


async def _sent_to(
    workspace: Calling,
    sender: Sender,
    url: str,
) -> Counter[DeliveryState]:
    """Send a target what is due, each message once, some at a time, until a time at which none of
    them went."""
    target, tried = target_digest(url), set[str]()
    states: Counter[DeliveryState] = Counter()
    latest = rfc3339(later(workspace.clock.now(), seconds=_LONGEST_WAIT.total_seconds()))
    while True:
        due = workspace.outbox.due(target, workspace.now(), latest, _TOGETHER + len(tried))
        batch = [each for each in due if each.message not in tried][:_TOGETHER]
        if not batch:
            return states
        tried |= {each.message for each in batch}
        events = workspace.ledger.events_at({each.entry for each in batch})
        done = await asyncio.gather(
            *(_attempt(workspace, sender, url, events, each) for each in batch)
        )
        states.update(each.state for each in done)
        if all(each.state == "waiting" for each in done):
            return states


async def _attempt(
    workspace: Calling,
    sender: Sender,
    url: str,
    events: Mapping[int, LedgerEvent],
    each: Delivery,
) -> Delivery:
    """Send a message, and write what became of it."""
    message = _message_at(events, each.entry, workspace.config.callbacks.outcomes)
    if message is None:
        done = replace(each, state="dead", answer="tells of nothing")
    else:
        body, now = message.body(), workspace.clock.now()
        headers = signed(secret_for(workspace, url), each.message, now, body)
        done = _after(each, await sender.send(url, headers, body), workspace.clock.now())
    workspace.outbox.write([done])
    return done


def _after(
    each: Delivery,
    answer: Answer,
    now: datetime,
) -> Delivery:
    """What has become of a message by an attempt."""
    attempts = each.attempts + 1
    if answer.outcome == "delivered":
        return replace(each, attempts=attempts, state="delivered", answer=answer.summary)
    if answer.outcome == "gone" or attempts > len(RETRIES):
        return replace(each, attempts=attempts, state="dead", answer=answer.summary)
    wait = max(RETRIES[attempts - 1], answer.wait)
    spread = 1 + secrets.randbelow(100) / 1000  # what failed together is not tried again together
    return replace(
        each,
        attempts=attempts,
        due=rfc3339(later(now, seconds=wait.total_seconds() * spread + 1)),
        answer=answer.summary,
    )
