"""Deletion requests: taken, listed, approved, held, withdrawn, rejected; and a person who returns.

A request is durable, and a checkpoint tells of it, before it is acknowledged. The id as given goes to a 0600 file,
nowhere else. Whatever happens to a request is a ledger event.
"""

import hmac
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from flows.adapters.database import Asked, new_salt
from flows.wiring import Workspace, refuse_open_plan
from s3t_core.canonical import sha256_hex
from s3t_core.domain import DeletionRequest
from s3t_core.erasure.certificate import certificate_subject
from s3t_core.erasure.closing import CLOSING_TYPE, check_reason, closing_predicate, view_of
from s3t_core.erasure.state import Event, State
from s3t_core.errors import S3TError, UsageError
from s3t_core.keys import keyed_digest
from s3t_core.ports import Closing
from s3t_core.records import record_digest, subject_digest
from s3t_core.snapshot import suppression_digest
from s3t_core.times import later, rfc3339

_WAIT_SECONDS = 60
_BATCH = 500
"""Requests that are accepted in one transaction."""


def take_requests(place: Workspace, subjects: list[str], record: str = "", key: str = "") -> list[DeletionRequest]:
    """One request per distinct subject (or for one record of one subject). Asked twice while pending, or ever again
    with the same idempotency `key`: one request.

    Raises UsageError for an empty or over-long id, or a record id where the data has none.
    """
    distinct = list(dict.fromkeys(subjects))
    if not distinct:
        raise UsageError("expected at least one subject id, got none")
    _check_ids(place, distinct, record)
    taken = [request for begin in range(0, len(distinct), _BATCH)
             for request in _take(place, distinct[begin:begin + _BATCH], record, key)]
    place.write_checkpoint()
    return taken


def states_of(place: Workspace, requests: Iterable[DeletionRequest]) -> dict[str, str]:
    """The state of each request, as `list_requests` tells it."""
    known, now, needs = place.ledger.state(), place.clock.now(), place.config.erasure.needs_approval
    return {r.request_id: view_of(r, known, needs, now).state for r in requests}


def list_requests(place: Workspace, state: str = "", due_within_days: float | None = None) -> list[dict[str, Any]]:
    """Every request as JSON values, open ones by due time first; of one state only, or due within so many days."""
    place.requests.check()
    known, now = place.ledger.state(), place.clock.now()
    views = [view_of(r, known, place.config.erasure.needs_approval, now) for r in place.requests.all()]
    found = [v for v in views if (not state or v.state == state) and (
        due_within_days is None or (v.days_left is not None and v.days_left <= due_within_days))]
    return [{"id": v.request.request_id, "state": v.state, "received": v.request.received, "due": v.request.due,
             "days_left": v.days_left, "rows": v.rows, "scope": "record" if v.request.record else "subject"}
            for v in sorted(found, key=lambda v: (v.days_left is None, v.request.due))]


def approve(place: Workspace, request_ids: list[str], by: str) -> None:
    """Let requests be carried out. Raises UsageError for one that is unknown or closed."""
    with _changing(place) as state:
        requests = [_open_request(place, state, r) for r in request_ids]
        new = [r for r in requests if r.request_id not in state.approved]
        if new:
            place.ledger.append(*({"type": "approved", "time": place.now(), "request": r.request_id, "by": _name(by)}
                                  for r in new))


def withdraw(place: Workspace, request_id: str, by: str = "") -> None:
    """Close a request because whoever asked took it back. Raises UsageError once it is being carried out."""
    _close(place, request_id, "withdrawal", _name(by or "the person who asked"), "", "withdrawn by whoever asked")


def reject(place: Workspace, request_id: str, basis: str, reason: str, by: str) -> None:
    """Close a request without an erasure, on a legal basis (`closing.BASES`), with a reason that names nobody."""
    ids = place.needles.ids_of(request_id)
    _close(place, request_id, "rejection", _name(by), basis, check_reason(basis, reason, ids))


def hold(place: Workspace, subject: str, basis: str, reason: str, by: str) -> int:
    """Stop every erasure of a subject, asked for or yet to be; returns how many open requests wait now."""
    _check_ids(place, [subject], "")
    digest, clean = subject_digest(place.keys, subject), check_reason(basis, reason, [subject])
    with _changing(place) as state:
        waiting = [r for r in place.requests.pending() if r.subject == digest]
        for request in waiting:
            _open_request(place, state, request.request_id)
        place.ledger.append({"type": "hold", "state": "set", "time": place.now(), "subject": digest, "basis": basis,
                             "reason": clean, "by": _name(by)})
    return len(waiting)


def release(place: Workspace, subject: str, by: str) -> None:
    """End a hold: what was asked for is carried out by the next erase run. Raises UsageError when there is none."""
    _check_ids(place, [subject], "")
    digest = subject_digest(place.keys, subject)
    with _changing(place) as state:
        if digest not in state.holds:
            raise UsageError("expected a subject with a legal hold, got one without; nothing was changed")
        place.ledger.append({"type": "hold", "state": "released", "time": place.now(), "subject": digest,
                             "by": _name(by)})


def lift(place: Workspace, subject: str, record: str, by: str) -> None:
    """Take a subject, or one record, off the suppression list because the person returned: later ingests may hold them
    again. Raises UsageError when they are not on it, or a request of theirs is open."""
    _check_ids(place, [subject], record)
    digest = suppression_digest(place.keys, subject, record)
    with _changing(place) as state:
        refuse_open_plan(state)
        if any(r.subject == subject_digest(place.keys, subject) for r in place.requests.pending()):
            raise UsageError("expected no open request of this subject, got one; `s3t erase` or `s3t withdraw` it "
                             "first")
        told = {"type": "lifted", "time": place.now(), "suppression": digest, "by": _name(by),
                "kind": "record" if record else "subject"}
        if not place.requests.lift(digest, told):
            raise UsageError("expected a subject (or record) on the suppression list, got one that is not on it; "
                             "nothing was changed")


@contextmanager
def _changing(place: Workspace) -> Iterator[State]:
    """Between erase runs: what is decided here is seen by the next one. The ledger is signed before anyone is told."""
    with place.changing(_WAIT_SECONDS):
        place.requests.check()
        yield place.ledger.state()
        place.write_checkpoint()


def _open_request(place: Workspace, state: State, request_id: str) -> DeletionRequest:
    found = next((r for r in place.requests.all() if r.request_id == request_id), None)
    if found is None:
        raise UsageError("expected the id of a request (`s3t requests` lists them), got another; nothing was changed")
    if found.certificate:
        raise UsageError(f"expected an open request, got {request_id}, which is closed already "
                         f"({state.closed.get(request_id, 'by a certificate')}); nothing was changed")
    if state.plan is not None and request_id in state.plan["plan"]["requests"]:
        raise UsageError(f"expected a request that is not being carried out, got {request_id}, whose erasure has "
                         "begun; run `s3t erase` to finish it")
    return found


def _close(place: Workspace, request_id: str, kind: str, by: str, basis: str, reason: str) -> None:
    with _changing(place) as state:
        request, head, now = _open_request(place, state, request_id), place.ledger.head(), place.now()
        predicate = closing_predicate(request, kind, now, by, basis, reason, place.ledger.leaves()[0].hex(), head)
        digest = place.certificates.issue({request_id: predicate}, certificate_subject(state, head),
                                          CLOSING_TYPE)[request_id]
        told: Event = {"type": "closed", "time": now, "request": request_id, "kind": kind, "certificate": digest,
                       "basis": basis}
        place.requests.close([Closing(request_id, digest, told)])
        place.needles.destroy("", [request_id])


def _name(by: str) -> str:
    clean = " ".join(by.split())
    if not clean or len(clean) > 100 or not clean.isprintable():
        raise UsageError("expected who decides with --by, a name or role of 1 to 100 printable characters, got "
                         "something else")
    return clean


def _check_ids(place: Workspace, subjects: list[str], record: str) -> None:
    longest = place.config.data.max_id_bytes
    for what, value in [*(("subject", s) for s in subjects), *([("record", record)] if record else [])]:
        size = len(value.encode(errors="surrogatepass"))
        if not value or size > longest:
            raise UsageError(f"expected a {what} id of 1 to {longest} bytes, got {size}; nothing was accepted")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise UsageError(f"expected a {what} id in UTF-8, got other bytes; nothing was accepted")
    if record and len(subjects) != 1:
        raise UsageError(f"expected one subject with --record, got {len(subjects)}")
    if record and not place.config.data.record:
        raise UsageError('expected [data] record in s3t.toml to name the id column, got ""; without record ids only a '
                         "whole subject can be erased")


def _asked(place: Workspace, subject: str, record: str, key: str) -> Asked:
    keys, received, salt = place.keys, place.clock.now(), new_salt()
    request = DeletionRequest(
        request_id=f"req-{uuid.uuid4().hex[:16]}",
        subject=subject_digest(keys, subject),
        record=record_digest(keys, subject, record) if record else "",
        suppression=suppression_digest(keys, subject, record),
        commitment=commitment(keys.commitment, salt, subject, record),
        received=rfc3339(received),
        due=rfc3339(later(received, days=place.config.erasure.deadline_days)),
    )
    once = keyed_digest(keys.suppression, "idempotency", key, request.suppression).hex() if key else ""
    return Asked(request, salt, {
        "type": "request", "time": request.received, "request": request.request_id, "subject": request.subject,
        "record": request.record, "suppression": request.suppression, "commitment": request.commitment,
        "salt": sha256_hex(salt.encode()), "due": request.due}, once)


def _take(place: Workspace, subjects: list[str], record: str, key: str) -> list[DeletionRequest]:
    """The ids as given are on disk before the requests are; those of a request that was there already go again, and so
    do all of them where none was accepted."""
    asked = [_asked(place, subject, record, key) for subject in subjects]
    with place.needles.accepting():
        try:
            place.needles.keep_ids({a.request.request_id: [record or s] for a, s in zip(asked, subjects, strict=True)})
            accepted = place.requests.accept(asked)
        except BaseException:
            _forget(place, asked)
            raise
        there = {a.request.request_id: r for a, r in zip(asked, accepted, strict=True)
                 if a.request.request_id != r.request_id}
        if there:
            _fill_in(place, there)
            place.needles.destroy("", there)
    return accepted


def _forget(place: Workspace, asked: Iterable[Asked]) -> None:
    """Destroy the ids of requests that were not accepted. A server may have accepted them and died before it said so:
    where nobody can tell, they stay until the next erase run asks again."""
    with suppress(S3TError):
        known = {r.request_id for r in place.requests.all()}
        place.needles.destroy("", {a.request.request_id for a in asked} - known)


def _fill_in(place: Workspace, there: Mapping[str, DeletionRequest]) -> None:
    """Asking again gives the id back to an open request that has lost it, after a restore of older files. `there`: the
    request that stands for what was asked, by the id under which what was asked is kept just now."""
    known = place.needles.known()
    lost = {r.request_id: place.needles.ids_of(asked) for asked, r in there.items()
            if not r.certificate and r.request_id not in known}
    place.needles.keep_ids(lost)


def commitment(key: bytes, salt: str, subject: str, record: str = "") -> str:
    """The salted commitment that a certificate holds: HMAC-SHA256(key, salt || id). Without key and salt it says
    nothing; destroying the salt makes it unopenable for ever."""
    message = bytes.fromhex(salt) + subject.encode() + (b"\x00" + record.encode() if record else b"")
    return hmac.digest(key, message, "sha256").hex()
