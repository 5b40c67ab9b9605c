"""Deletion requests: taken, listed, approved, held, given more time, withdrawn, rejected; and a
person who returns.

A request is durable, and a checkpoint tells of it, before it is acknowledged. The id as given goes
to a 0600 file, nowhere else. Whatever happens to a request is a ledger event.
"""

import hmac
import secrets
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol, get_args

from flows.adapters.footing import check_directory
from flows.use_cases.documents import RequestListed, RequestsDocument, TakenDocument
from flows.use_cases.finding import Findable, look_alikes, people_found, rule_of, spelt
from flows.use_cases.quoting import check_quotes_nobody, name_to_keep
from flows.workspace import access
from flows.workspace.parts import HasCertificates, HasSigning, Lockable
from flows.workspace.verified import discard_unrecorded
from flows.workspace.workspace import refuse_open_plan
from s3t_core.canonical import sha256_hex
from s3t_core.domain import DeletionRequest
from s3t_core.erasure import events
from s3t_core.erasure.certificate import certificate_subject
from s3t_core.erasure.closing import (
    STATES,
    as_counted,
    as_told,
    check_reason,
    check_words,
    closing_of,
    view_of,
)
from s3t_core.erasure.events import LedgerEvent
from s3t_core.erasure.evidence_documents import CLOSING_TYPE
from s3t_core.erasure.outcome import ErasureOutcome
from s3t_core.erasure.rules import MOST_MONTHS
from s3t_core.erasure.state import RequestRecord, State
from s3t_core.erasure.vocabulary import ClosingKind
from s3t_core.errors import LedgerError, NotNow, NotThere, S3TError, UsageError
from s3t_core.identity import (
    EXACT,
    forms_of,
    hashed_forms,
    near_spellings,
    parse_hashed,
    spelt_under,
)
from s3t_core.keys import keyed_digest
from s3t_core.ports import Closing, NewRequest
from s3t_core.records import record_digest, subject_digest
from s3t_core.snapshot import form_digest, near_digests, suppression_digest
from s3t_core.times import later, months_later, parse_time, rfc3339

_WAIT_SECONDS = 60
_WHO_ASKED = "the person who asked"
_BATCH = 500
"""Requests that are accepted in one transaction."""


class Asking(Findable, Lockable, HasSigning, HasCertificates, Protocol):
    """What requests are taken into, and decided on."""


def ask(
    workspace: Asking, subjects: list[str], hashed: list[str], record: str, key: str
) -> TakenDocument:
    """Take requests, by ids or by hashes of ids, and tell which of them were open before and who is
    in the data: what `s3t request` and any other door answer. Raises as `take_requests` and
    `take_hashed` do."""
    open_before = {r.request_id for r in workspace.requests.pending()}
    taken = (
        take_hashed(workspace, hashed, key)
        if hashed
        else take_requests(workspace, subjects, record, key)
    )
    ids, states = [r.request_id for r in taken], states_of(workspace, taken)
    state, now = workspace.ledger.state(), workspace.clock.now()
    return {
        "requests": [
            {
                "id": r.request_id,
                "received": r.received,
                "due": r.due,
                "state": states[r.request_id],
            }
            for r in (as_counted(each, state, now) for each in taken)
        ],
        "open_before": [i for i in ids if i in open_before],
        "found": people_found(workspace, subjects, hashed, record, ids),
    }


def told_ended(document: TakenDocument, record: str) -> str:
    """Why what was asked with an idempotency key is not going to happen, "" where it is, or has
    happened: the key stands for a request that is closed."""
    states = {r["id"]: r["state"] for r in document["requests"]}
    if any(state in get_args(ClosingKind) for state in states.values()):
        return (
            "what was asked with this key before was withdrawn or rejected, so nothing of it is "
            "pending"
        )
    back = (
        each["found"] == "in the data" and states[each["request"]] in get_args(ErasureOutcome)
        for each in document["found"]
    )
    if not record and any(back):
        return (
            "what was asked with this key before was carried out, and whoever it is about is in "
            "the data again, so nothing of it is pending"
        )
    return ""


@dataclass(frozen=True)
class Asked:
    """What somebody asks to have erased: by ids as given, or by hashes of them; one record of one
    subject; with an idempotency key."""

    subjects: tuple[str, ...] = ()
    hashed: tuple[str, ...] = ()
    record: str = ""
    key: str = ""


@dataclass(frozen=True)
class Taken:
    """The requests that now stand for what was asked, in its order; ids of those that stood
    before."""

    requests: tuple[DeletionRequest, ...]
    before: frozenset[str]


def take_each(workspace: Asking, asked: Sequence[Asked]) -> list[Taken | S3TError]:
    """Take what several people asked at the same time: one transaction and one checkpoint for all
    of them, where nobody's stands in another's way. Whoever asked what cannot be taken gets the
    error; the others' are taken. Raises what says that nothing can be taken from anybody, or that
    what was taken cannot be acknowledged."""
    check_directory(workspace.root, "needles")
    answers: dict[int, Taken | S3TError] = {}
    waiting: dict[int, list[_NewWithIds]] = {}
    for number, each in enumerate(asked):
        try:
            waiting[number] = _new_of(workspace, each)
        except UsageError as error:
            answers[number] = error
    while waiting:
        together = _apart(waiting)
        answers |= _taken_together(workspace, {n: waiting.pop(n) for n in together})
    workspace.signing.write_checkpoint()
    return [answers[number] for number in range(len(asked))]


def _apart(waiting: "Mapping[int, list[_NewWithIds]]") -> list[int]:
    """As many as may go into one transaction, the first among them: no two of them are about the
    same person or record, and few enough."""
    chosen, people, size = list[int](), set[str](), 0
    for number, new in waiting.items():
        mine = {each.new.request.suppression for each in new}
        if chosen and (not people.isdisjoint(mine) or size + len(new) > _BATCH):
            continue
        chosen.append(number)
        people |= mine
        size += len(new)
    return chosen


def _taken_together(
    workspace: Asking, each: "Mapping[int, list[_NewWithIds]]"
) -> dict[int, Taken | S3TError]:
    try:
        return _told_apart(
            each, _taken_in_parts(workspace, [n for new in each.values() for n in new])
        )
    except UsageError as error:
        if len(each) == 1:
            return dict.fromkeys(each, error)
        return {n: _taken_together(workspace, {n: new})[n] for n, new in each.items()}


def _told_apart(
    each: "Mapping[int, list[_NewWithIds]]", taken: list[DeletionRequest]
) -> dict[int, Taken | S3TError]:
    found: dict[int, Taken | S3TError] = {}
    rest = iter(taken)
    for number, new in each.items():
        mine = tuple(next(rest) for _ in new)
        stood = {
            r.request_id for n, r in zip(new, mine, strict=True) if r.request_id != n.request_id
        }
        found[number] = Taken(mine, frozenset(stood))
    return found


def take_requests(
    workspace: Asking, subjects: list[str], record: str = "", key: str = ""
) -> list[DeletionRequest]:
    """One request per distinct subject (or for one record of one subject). Asked twice while
    pending, or ever again with the same idempotency `key`: one request.

    Raises UsageError for an empty or over-long id, or a record id where the data has none.
    """
    return _take_all(workspace, _new_by_ids(workspace, subjects, record, key))


def _new_of(workspace: Asking, asked: Asked) -> "list[_NewWithIds]":
    """What is to be accepted of it. Raises UsageError."""
    if not asked.hashed:
        return _new_by_ids(workspace, list(asked.subjects), asked.record, asked.key)
    if asked.subjects or asked.record:
        raise UsageError(
            "expected ids or hashes of ids, got both (or a record beside a hash); ask twice"
        )
    return _new_by_hashes(workspace, asked.hashed, asked.key)


def _new_by_ids(
    workspace: Asking, subjects: list[str], record: str, key: str
) -> "list[_NewWithIds]":
    if not subjects:
        raise UsageError("expected at least one subject id, got none")
    _check_ids(workspace, subjects, record)
    people: dict[str, list[str]] = {}
    for given, subject in spelt(workspace, subjects).items():
        people.setdefault(subject, []).append(given)
    spelt_record = spelt_under(rule_of(workspace), record)
    return [
        _new_by_id(
            workspace,
            given,
            subject,
            spelt_record,
            key,
            [record, spelt_record] if record else [*given, subject],
        )
        for subject, given in people.items()
    ]


def take_hashed(workspace: Asking, hashed: list[str], key: str = "") -> list[DeletionRequest]:
    """A request for whoever has an id with one of these hashes (`sha256:HEX`, `sha1:`, `md5:`) when
    it is carried out. Where nobody has it as it is, who has it with blanks or in other letter case
    is meant. Raises UsageError for what is no such hash."""
    return _take_all(workspace, _new_by_hashes(workspace, hashed, key))


def _new_by_hashes(workspace: Asking, hashed: Iterable[str], key: str) -> "list[_NewWithIds]":
    if not hashed:
        raise UsageError("expected at least one hashed id, got none")
    return [
        _new_by_hash(workspace, algorithm, digits, key)
        for algorithm, digits in dict.fromkeys(map(parse_hashed, hashed))
    ]


def _take_all(workspace: Asking, new: list["_NewWithIds"]) -> list[DeletionRequest]:
    check_directory(workspace.root, "needles")  # where the ids as given are kept
    taken = _taken_in_parts(workspace, new)
    workspace.signing.write_checkpoint()
    return taken


def _taken_in_parts(workspace: Asking, new: "list[_NewWithIds]") -> list[DeletionRequest]:
    if len(new) > _BATCH:
        _check_not_begun(workspace, new)
    return [
        request
        for begin in range(0, len(new), _BATCH)
        for request in _take(workspace, new[begin : begin + _BATCH])
    ]


def states_of(workspace: Asking, requests: Iterable[DeletionRequest]) -> dict[str, str]:
    """The state of each request, as `list_requests` tells it."""
    known, now, needs = (
        workspace.ledger.state(),
        workspace.clock.now(),
        workspace.config.erasure.needs_approval,
    )
    return {r.request_id: view_of(r, known, needs, now).state for r in requests}


def list_with_look_alikes(
    workspace: Asking, state: str = "", due_within_days: float | None = None
) -> RequestsDocument:
    """What `list_requests` lists, with how many other spellings of the id of each open request are
    in the data."""
    listed = list_requests(workspace, state, due_within_days)
    open_ones = {r["id"] for r in listed if r["days_left"] is not None}
    pending = workspace.requests.pending() if open_ones else []
    near = look_alikes(workspace, [r for r in pending if r.request_id in open_ones])
    asked = {r.subject for r in pending if not r.record}
    others = {request: len(found - asked) for request, found in near.items()}
    return {"requests": [{**r, "others": others.get(r["id"])} for r in listed]}


def list_requests(
    workspace: Asking, state: str = "", due_within_days: float | None = None
) -> list[RequestListed]:
    """Every request as JSON values, open ones by due time first; of one state only, or due within
    so many days. Raises UsageError for a state that there is not: an empty answer would say that
    nothing is in it."""
    if state and state not in STATES:
        raise UsageError(
            f"expected a state of requests ({', '.join(STATES)}), got another; see how it is spelt"
        )
    workspace.requests.check()
    known, now = workspace.ledger.state(), workspace.clock.now()
    views = [
        view_of(r, known, workspace.config.erasure.needs_approval, now)
        for r in workspace.requests.all()
    ]
    found = [
        v
        for v in views
        if (not state or v.state == state)
        and (
            due_within_days is None or (v.days_left is not None and v.days_left <= due_within_days)
        )
    ]
    return [
        {
            "id": v.request.request_id,
            "state": v.state,
            "received": v.request.received,
            "due": v.request.due,
            "days_left": v.days_left,
            "rows": v.rows,
            "scope": "record" if v.request.record else "subject",
            "extended_from": known.requests[v.request.request_id].extended_from or None,
        }
        for v in sorted(found, key=lambda v: (v.days_left is None, v.request.due))
    ]


def approve(workspace: Asking, request_ids: list[str], by: str) -> None:
    """Let requests be carried out. Raises UsageError for one that is unknown or closed, and for a
    name or role that quotes somebody's id."""
    who = name_to_keep(workspace, by)
    with _changing(workspace) as state:
        requests = [_open_request(workspace, state, r) for r in request_ids]
        new = [r for r in requests if r.request_id not in state.approved]
        if new:
            workspace.ledger.append(
                *(
                    events.RequestApproved(
                        time=workspace.now(),
                        request=r.request_id,
                        by=who,
                    )
                    for r in new
                )
            )


def extend(
    workspace: Asking, request_id: str, reason: str, by: str, months: int = MOST_MONTHS
) -> str:
    """Give an open request one or two more months, once, with a reason that names nobody; returns
    the new due time (RFC 3339). Whoever asked has to be told, with the reason, before the old one
    (GDPR article 12(3)): that is the caller's to do. Raises UsageError for one that is overdue or
    closed, or whose time was extended before."""
    if months not in range(1, MOST_MONTHS + 1):
        raise UsageError(
            f"expected 1 to {MOST_MONTHS} months (GDPR article 12(3)), got {months}; nothing was "
            "changed"
        )
    ids = _ids_asked_with(workspace, request_id, "extend it")
    who, why = name_to_keep(workspace, by, ids), _clean(workspace, check_words(reason, ids), ids)
    with _changing(workspace) as state:
        request = require_request(workspace, request_id)
        asked = state.requests[request_id]
        if request.certificate:
            raise _closed_already(state, request_id)
        if asked.extended_from:
            raise NotNow(
                f"expected a request whose time was not extended before, got {request_id}, which "
                f"was due {asked.extended_from} and is due {asked.due}; nothing was changed"
            )
        if workspace.now() > asked.due:
            raise NotNow(
                f"expected a request that is not due yet, got {request_id}, which was due "
                f"{asked.due}: its time could only have been extended before; carry it out with "
                "`s3t erase`; nothing was changed"
            )
        due = rfc3339(months_later(parse_time(asked.due), months))
        workspace.ledger.append(
            events.DeadlineExtended(
                time=workspace.now(), request=request_id, due=due, reason=why, by=who
            )
        )
    return due


def withdraw(workspace: Asking, request_id: str, by: str = "") -> None:
    """Close a request because whoever asked took it back. `by`: a role, as what stays must not name
    the person. Raises UsageError once it is being carried out."""
    who = name_to_keep(workspace, by, workspace.needles.ids_of(request_id)) if by else _WHO_ASKED
    _close(workspace, request_id, "withdrawal", who, "", "withdrawn by whoever asked")


def reject(workspace: Asking, request_id: str, basis: str, reason: str, by: str) -> None:
    """Close a request without an erasure, on a legal basis (`closing.BASES`), with a reason that
    names nobody. Raises UsageError also where the ids that were asked with are lost: nobody could
    say whether the reason quotes them."""
    ids = _ids_asked_with(workspace, request_id, "reject it, or withdraw it")
    _close(
        workspace,
        request_id,
        "rejection",
        name_to_keep(workspace, by, ids),
        basis,
        _reason(workspace, basis, reason, ids),
    )


def hold(workspace: Asking, subject: str, basis: str, reason: str, by: str) -> int:
    """Stop every erasure of a subject, asked for or yet to be; returns how many open requests wait
    now. What an erasure has destroyed stays so: requests that wait for their certificates alone are
    none of these."""
    digest, clean, who = (
        _digest_of(workspace, subject),
        _reason(workspace, basis, reason, [subject]),
        name_to_keep(workspace, by, [subject]),
    )
    with _changing(workspace) as state:
        aside = set(state.set_aside)
        pending = [r for r in workspace.requests.pending() if r.request_id not in aside]
        waiting = [r for r in pending if r.subject == digest]
        for request in [
            *waiting,
            *(r for r in pending if digest in state.requests[r.request_id].subjects),
        ]:
            _open_request(workspace, state, request.request_id)
        workspace.ledger.append(
            events.HoldSet(
                time=workspace.now(),
                subject=digest,
                basis=basis,
                id_rule=tuple(rule_of(workspace)),
                reason=clean,
                by=who,
            )
        )
    return len(waiting)


def lift_hold(workspace: Asking, subject: str, by: str) -> None:
    """End a hold: what was asked for is carried out by the next erase run. Raises UsageError when
    there is none."""
    digest, who = _digest_of(workspace, subject), name_to_keep(workspace, by, [subject])
    with _changing(workspace) as state:
        if digest not in state.holds:
            raise NotNow(
                "expected a subject with a legal hold, got one without; nothing was changed"
            )
        workspace.ledger.append(
            events.HoldReleased(
                time=workspace.now(),
                subject=digest,
                by=who,
            )
        )


def lift(workspace: Asking, subject: str, record: str, by: str) -> None:
    """Take a subject, or one record, off the suppression list because the person returned: later
    ingests may hold them again. Raises UsageError when they are not on it, or a request of theirs
    is open."""
    digest, who = (
        _digest_of(workspace, subject, record),
        name_to_keep(workspace, by, [subject, record]),
    )
    with _changing(workspace) as state:
        refuse_open_plan(state)
        waiting = (r.request_id for r in workspace.requests.pending())
        people = [{state.requests[r].subject, *state.people_of(r)} for r in waiting]
        if any(digest in each for each in people):
            raise NotNow(
                "expected no open request of this subject, got one; `s3t erase` or `s3t withdraw` "
                "it first"
            )
        listed = _listed(workspace, state, subject, record)
        for suppression in listed:
            workspace.requests.lift(
                suppression,
                events.SuppressionLifted(
                    time=workspace.now(),
                    suppression=suppression,
                    by=who,
                    kind=state.suppressed[suppression][0],
                ),
            )
        if not listed:
            raise NotNow(
                "expected a subject (or record) on the suppression list, got one that is not on it"
                f"{_told_near(workspace, state, subject, record)}; nothing was changed"
            )


def _listed(workspace: Asking, state: State, subject: str, record: str) -> list[str]:
    """The digests on the suppression list that keep out who has this id: each under the rule that
    it was asked by, and by a hash those that meant this very person."""
    keys, found = workspace.keys, []
    for digest, (_, request) in state.suppressed.items():
        asked = state.requests[request]
        under = spelt_under(asked.id_rule, subject)
        if asked.asked_by == "id":
            mine = digest == suppression_digest(keys, under, spelt_under(asked.id_rule, record))
        elif asked.subjects:
            mine = not record and subject_digest(keys, under) in asked.subjects
        else:
            mine = not record and asked.forms[0] in forms_of(keys, subject, under, [EXACT])
        found += [digest] if mine else []
    return found


def _told_near(workspace: Asking, state: State, subject: str, record: str) -> str:
    """What to say where somebody was erased who is spelt nearly so: nobody but whoever asks knows
    whether it is the same person, and another's erasure is not undone by a look-alike."""
    under = spelt_under(rule_of(workspace), subject)
    near = set(near_digests(workspace.keys, subject, under, record, ()))
    near |= (
        set()
        if record
        else {form_digest(workspace.keys, f) for f in forms_of(workspace.keys, subject, under)}
    )
    if all(
        near.isdisjoint(state.requests[request].near) for _, request in state.suppressed.values()
    ):
        return ""
    meant = next((s for s in near_spellings(subject) if _listed(workspace, state, s, record)), "")
    return ", though one that is spelt nearly so; lift that one" + (
        f": {meant!r}" if meant else ", as it was spelt when it was erased"
    )


def _digest_of(workspace: Asking, subject: str, record: str = "") -> str:
    """The digest of a subject by the id as given. Raises UsageError."""
    _check_ids(workspace, [subject], record)
    return subject_digest(workspace.keys, spelt(workspace, [subject])[subject])


@contextmanager
def _changing(workspace: Asking) -> Iterator[State]:
    """Between erase runs: what is decided here is seen by the next one. The ledger is signed before
    anyone is told."""
    with access.changing(workspace, _WAIT_SECONDS) as held:
        workspace.requests.check()
        discard_unrecorded(workspace, held)
        yield workspace.ledger.state()
        workspace.signing.write_checkpoint()


def require_request(workspace: Asking, request_id: str) -> DeletionRequest:
    """The request of this id, closed or open. Raises NotThere."""
    found = next((r for r in workspace.requests.all() if r.request_id == request_id), None)
    if found is None:
        raise NotThere(
            "expected the id of a request (`s3t requests` lists them), got another; nothing was "
            "changed"
        )
    return found


def _closed_already(state: State, request_id: str) -> NotNow:
    return NotNow(
        f"expected an open request, got {request_id}, which is closed already "
        f"({state.closed.get(request_id, 'by a certificate')}); nothing was changed"
    )


def _open_request(workspace: Asking, state: State, request_id: str) -> DeletionRequest:
    found = require_request(workspace, request_id)
    if found.certificate:
        raise _closed_already(state, request_id)
    if request_id in state.begun:
        raise NotNow(
            f"expected a request that is not being carried out, got {request_id}, whose erasure "
            "has begun; run `s3t erase` to finish it"
        )
    return as_told(found, state)


def _close(
    workspace: Asking, request_id: str, kind: ClosingKind, by: str, basis: str, reason: str
) -> None:
    with _changing(workspace) as state:
        request, head, now = (
            _open_request(workspace, state, request_id),
            workspace.ledger.head(),
            workspace.now(),
        )
        predicate = closing_of(
            request, kind, now, by, basis, reason, workspace.ledger.leaves()[0].hex(), head
        )
        digest = workspace.certificates.issue(
            {request_id: predicate}, certificate_subject(state, head), CLOSING_TYPE
        )[request_id]
        told = events.RequestClosed(
            time=now,
            request=request_id,
            kind=kind,
            certificate=digest,
            basis=basis,
        )
        workspace.requests.close([Closing(request_id, digest, told)])
        workspace.needles.forget("", [request_id])


def _reason(workspace: Asking, basis: str, reason: str, ids: Collection[str]) -> str:
    """The reason, as it can be kept. Raises UsageError."""
    return _clean(workspace, check_reason(basis, reason, ids), ids)


def _clean(workspace: Asking, reason: str, ids: Collection[str]) -> str:
    check_quotes_nobody(workspace, reason, "a reason", ids)
    return reason


def _ids_asked_with(workspace: Asking, request_id: str, then: str) -> list[str]:
    """The ids as given of a request, against which a reason is held. Raises UsageError where a
    restore lost some of an open one's; `then`: what to do once they are there again."""
    ids, state = workspace.needles.ids_of(request_id), workspace.ledger.state()
    asked = state.requests.get(request_id)
    if (
        asked is not None
        and state.is_open(request_id)
        and not set(asked.ids) <= {workspace.needles.digest_of(request_id, i) for i in ids}
    ):
        raise UsageError(
            "expected the ids that this request was asked with, got fewer: a restore lost them, "
            "and nobody can say whether the reason quotes them; ask again with the same ids, then "
            f"{then}; nothing was changed"
        )
    return ids


def _check_ids(workspace: Asking, subjects: list[str], record: str) -> None:
    longest = workspace.config.data.max_id_bytes
    for what, value in [
        *(("subject", s) for s in subjects),
        *([("record", record)] if record else []),
    ]:
        size = len(value.encode(errors="surrogatepass"))
        if not value or size > longest:
            raise UsageError(
                f"expected a {what} id of 1 to {longest} bytes, got {size}; nothing was accepted"
            )
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise UsageError(
                f"expected a {what} id in UTF-8, got other bytes; nothing was accepted"
            )
    if record and len(subjects) != 1:
        raise UsageError(f"expected one subject with --record, got {len(subjects)}")
    if record and not workspace.config.data.record:
        raise UsageError(
            'expected [data] record in s3t.toml to name the id column, got ""; without record ids '
            "only a whole subject can be erased"
        )


@dataclass(frozen=True)
class _NewWithIds:
    """A request to be accepted, and the ids as given that its rows are looked for by."""

    new: NewRequest
    ids: list[str]

    @property
    def request_id(self) -> str:
        return self.new.request.request_id


def _new_by_id(
    workspace: Asking, given: list[str], subject: str, record: str, key: str, ids: list[str]
) -> _NewWithIds:
    keys, rule = workspace.keys, rule_of(workspace)
    near = {n: None for each in given for n in near_digests(keys, each, subject, record, rule)}
    request = _request(
        workspace,
        subject_digest(keys, subject),
        record_digest(keys, subject, record) if record else "",
        suppression_digest(keys, subject, record),
    )
    who = (subject, record) if record else (subject,)
    return _new(workspace, request, who, key, list(dict.fromkeys(ids)), near, "id")


def _new_by_hash(workspace: Asking, algorithm: str, digits: str, key: str) -> _NewWithIds:
    keys, forms = workspace.keys, hashed_forms(workspace.keys, algorithm, digits)
    near = [form_digest(keys, form) for form in forms]
    request = _request(
        workspace, keyed_digest(keys.subject, "hashed", algorithm, digits).hex(), "", near[0]
    )
    who = (f"{algorithm}:{digits}",)
    return _new(workspace, request, who, key, [digits], near, algorithm, forms)


def _request(workspace: Asking, subject: str, record: str, suppression: str) -> DeletionRequest:
    """Without its commitment."""
    received = workspace.clock.now()
    return DeletionRequest(
        request_id=f"req-{uuid.uuid4().hex[:16]}",
        subject=subject,
        record=record,
        suppression=suppression,
        commitment="",
        received=rfc3339(received),
        due=rfc3339(later(received, days=workspace.config.erasure.deadline_days)),
    )


def _new(
    workspace: Asking,
    uncommitted: DeletionRequest,
    who: tuple[str, ...],
    key: str,
    ids: list[str],
    near: Iterable[str],
    asked_by: str,
    forms: Iterable[str] = (),
) -> _NewWithIds:
    """The request with its commitment, which is of `who`, and the event that tells of it. `near`,
    `asked_by` and `forms` say in the ledger how the person was named."""
    salt = secrets.token_hex(32)
    request = replace(uncommitted, commitment=commitment(workspace.keys.commitment, salt, *who))
    once = (
        keyed_digest(workspace.keys.suppression, "idempotency", key, request.suppression).hex()
        if key
        else ""
    )
    event = events.RequestTaken(
        time=request.received,
        request=request.request_id,
        subject=request.subject,
        record=request.record,
        suppression=request.suppression,
        commitment=request.commitment,
        salt=sha256_hex(salt.encode()),
        due=request.due,
        id_rule=tuple(rule_of(workspace)),
        once=once,
        ids=tuple(workspace.needles.digest_of(request.request_id, i) for i in ids),
        near=tuple(near),
        asked_by=asked_by,
        forms=tuple(forms),
    )
    return _NewWithIds(NewRequest(request, salt, event), ids)


def _take(workspace: Asking, new: list[_NewWithIds]) -> list[DeletionRequest]:
    """The ids as given are on disk before the requests are; those of a request that was there
    already go again, and so do all of them where none was accepted."""
    with workspace.needles.accepting():
        try:
            workspace.needles.keep_ids({n.request_id: n.ids for n in new})
            _check_not_begun(workspace, new)
            accepted = workspace.requests.accept([n.new for n in new])
        except BaseException:
            _forget(workspace, [n.request_id for n in new])
            raise
        again = [(n, r) for n, r in zip(new, accepted, strict=True) if n.request_id != r.request_id]
        if again:
            _fill_in(workspace, [(n, r) for n, r in again if not r.certificate])
            workspace.needles.destroy("", [n.request_id for n, _ in again])
    return accepted


def _forget(workspace: Asking, request_ids: list[str]) -> None:
    """Destroy the ids of requests that were not accepted. A server may have accepted them and died
    before it said so: where nobody can tell, they stay until the next erase run asks again."""
    with suppress(S3TError):
        known = {r.request_id for r in workspace.requests.all()}
        workspace.needles.destroy("", set(request_ids) - known)


def _fill_in(workspace: Asking, again: Sequence[tuple[_NewWithIds, DeletionRequest]]) -> None:
    """Asking again gives the id back to an open request that has lost it, after a restore of older
    files, and adds another spelling of it, of which the ledger is told: what it was told of, a
    restore does not lose in silence. `again`: what was asked, with the request that stands for
    it."""
    state, kept = workspace.ledger.state(), {}
    told: list[LedgerEvent] = []
    for new, request in again:
        asked, known = (
            state.requests[request.request_id],
            workspace.needles.ids_of(request.request_id),
        )
        kept[request.request_id] = [i for i in new.ids if i not in known]
        spellings = _new_spellings(workspace, new, request.request_id, asked)
        if spellings:
            near = [n for n in new.new.event.near if n not in asked.near]
            told.append(
                events.RequestSpelt(
                    time=workspace.now(),
                    request=request.request_id,
                    ids=tuple(spellings),
                    near=tuple(near),
                )
            )
    workspace.needles.keep_ids({r: ids for r, ids in kept.items() if ids})
    if told:
        try:
            workspace.ledger.append(*told)
        except LedgerError:
            _check_not_begun(workspace, [new for new, _ in again], "The others were accepted")
            raise


def _new_spellings(
    workspace: Asking, new: _NewWithIds, request_id: str, asked: RequestRecord
) -> list[str]:
    """Digests of the ids as given that the ledger was not told of for a request."""
    return [
        d
        for d in (workspace.needles.digest_of(request_id, i) for i in new.ids)
        if d not in asked.ids
    ]


def _check_not_begun(
    workspace: Asking, new: Iterable[_NewWithIds], others: str = "Nothing was accepted"
) -> None:
    """Raises UsageError for another spelling of an id whose erasure has begun: what it searches for
    is settled."""
    state = workspace.ledger.state()
    begun = {state.requests[r].suppression: r for r in state.begun if state.is_open(r)}
    for each in new:
        request_id = begun.get(each.new.request.suppression)
        if request_id and _new_spellings(workspace, each, request_id, state.requests[request_id]):
            raise NotNow(
                "expected the id as it was given before, got another spelling of it for "
                f"{request_id}, whose erasure has begun; when `s3t erase` has ended, ask again. "
                f"{others}"
            )


def commitment(key: bytes, salt: str, subject: str, record: str = "") -> str:
    """The salted commitment that a certificate holds: HMAC-SHA256(key, salt || id). Without key and
    salt it says nothing; destroying the salt makes it unopenable for ever."""
    message = (
        bytes.fromhex(salt) + subject.encode() + (b"\x00" + record.encode() if record else b"")
    )
    return hmac.digest(key, message, "sha256").hex()
