"""Deletion requests as they are taken: from one who asks, or from many at once.

A request is durable, and a checkpoint tells of it, before it is acknowledged. The id as given goes
to a 0600 file, nowhere else.
"""

import hmac
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, TypedDict, get_args

from flows.adapters.footing import check_directory
from flows.use_cases.documents import (
    RequestEntry,
    TakenDocument,
)
from flows.use_cases.finding import (
    Basis,
    Findable,
    basis_of,
    check_columns,
    people_found,
    spelt_by,
)
from flows.workspace.parts import (
    HasCertificates,
    HasFolders,
    HasHeads,
    HasSigning,
    Lockable,
    Taking,
)
from s3t_core.canonical import sha256_hex
from s3t_core.domain import DeletionRequest
from s3t_core.erasure import events
from s3t_core.erasure.closing import (
    as_recorded,
    view_of,
)
from s3t_core.erasure.ledger import as_of
from s3t_core.erasure.outcome import ErasureOutcome
from s3t_core.erasure.state import RequestRecord, State
from s3t_core.erasure.vocabulary import ClosingKind
from s3t_core.errors import LedgerError, NotNow, S3TError, UsageError
from s3t_core.identity import (
    hashed_forms,
    parse_hashed,
    spelt_under,
)
from s3t_core.keys import keyed_digest
from s3t_core.ports import NewRequest
from s3t_core.records import record_digest, subject_digest
from s3t_core.snapshot import form_digest, near_digests, suppression_digest
from s3t_core.times import due_after, rfc3339

_ENDS = frozenset({*get_args(ErasureOutcome), *get_args(ClosingKind)})
_BATCH = 500
"""Requests that are accepted in one transaction."""
_NONE = "Nothing was accepted"


class Asking(Findable, Lockable, HasSigning, HasHeads, HasCertificates, HasFolders, Protocol):
    """What requests are taken into, and decided on."""


class _Lifted(TypedDict, total=False):
    lifted: bool


def ask(
    workspace: Asking, subjects: list[str], hashed: list[str], record: str, key: str
) -> TakenDocument:
    """Take requests, by ids or by hashes of ids, and tell which of them were open before and who is
    in the data: what `s3t request` and any other door answer. Raises as `take_requests` and
    `take_hashed` do."""
    open_before = set(workspace.requests.open_now())
    taken = (
        take_hashed(workspace, hashed, key)
        if hashed
        else take_requests(workspace, subjects, record, key)
    )
    ids, states = [r.request_id for r in taken], states_of(workspace, taken)
    state = as_of(workspace.ledger.state(), workspace.now())
    return {
        "requests": [
            {
                "id": r.request_id,
                "received": r.received,
                "due": r.due,
                "state": states[r.request_id],
                **_lifted(state, r.request_id),
            }
            for r in (as_recorded(each, state) for each in taken)
        ],
        "open_before": [i for i in ids if i in open_before],
        "found": people_found(workspace, subjects, hashed, record, ids),
    }


def _lifted(state: State, request_id: str) -> _Lifted:
    kept_out = state.requests[request_id].suppression
    is_lifted = request_id in state.certified and kept_out not in state.suppressed
    return {"lifted": True} if is_lifted else {}


def render_ended(document: TakenDocument, record: str) -> str:
    """Why what was asked with an idempotency key is not going to happen, "" where it is, or has
    happened: the key stands for a request that is closed."""
    states = {r["id"]: r["state"] for r in document["requests"]}
    if any(state in get_args(ClosingKind) for state in states.values()):
        return (
            "what was asked with this key before was withdrawn or rejected, so nothing of it is "
            "pending"
        )
    if any(each.get("lifted") for each in document["requests"]):
        return (
            "what was asked with this key before was carried out, and what it kept out may come in "
            "again since (`s3t lift`), so nothing of it is pending"
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
    """The requests that now stand for what was asked, in its order, and what is told of them; ids
    of those that stood before."""

    requests: tuple[DeletionRequest, ...]
    before: frozenset[str]
    entries: tuple[RequestEntry, ...] = ()

    @property
    def open_before(self) -> list[str]:
        """Those that were open before."""
        open_now = {each["id"] for each in self.entries if each["state"] not in _ENDS}
        return [r.request_id for r in self.requests if r.request_id in self.before & open_now]


def take_each(workspace: Taking, asked: Sequence[Asked]) -> list[Taken | S3TError]:
    """Take what several people asked at the same time: one transaction and one checkpoint for all
    of them, where nobody's stands in another's way. Whoever asked what cannot be taken gets the
    error; the others' are taken. Raises what says that nothing can be taken from anybody, or that
    what was taken cannot be acknowledged."""
    check_directory(workspace.root, "needles")
    answers: dict[int, Taken | S3TError] = {}
    basis = basis_of(workspace)
    waiting: dict[int, list[_NewWithIds]] = {}
    for number, each in enumerate(asked):
        try:
            waiting[number] = _new_of(workspace, each, basis)
        except UsageError as error:
            answers[number] = error
    while waiting:
        together = _apart(waiting)
        answers |= _taken_together(workspace, {n: waiting.pop(n) for n in together})
    workspace.signing.write_checkpoint()
    state = as_of(workspace.ledger.state_so_far(), workspace.now())
    return [_with_entries(workspace, answers[number], state) for number in range(len(asked))]


def _with_entries(workspace: Taking, taken: Taken | S3TError, state: State) -> Taken | S3TError:
    if isinstance(taken, S3TError):
        return taken
    now, needs = workspace.clock.now(), workspace.config.erasure.needs_approval
    views = [view_of(r, state, needs, now) for r in taken.requests]
    entries = tuple(
        RequestEntry(
            id=v.request.request_id,
            received=v.request.received,
            due=v.request.due,
            state=v.state,
            **_lifted(state, v.request.request_id),
        )
        for v in views
    )
    return replace(taken, entries=entries)


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
    workspace: Taking, each: "Mapping[int, list[_NewWithIds]]"
) -> dict[int, Taken | S3TError]:
    try:
        return _by_number(
            each, _taken_in_parts(workspace, [n for new in each.values() for n in new])
        )
    except (UsageError, LedgerError) as error:
        if len(each) == 1:
            return dict.fromkeys(each, error)
        return {n: _taken_together(workspace, {n: new})[n] for n, new in each.items()}


def _by_number(
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
    workspace: Taking, subjects: list[str], record: str = "", key: str = ""
) -> list[DeletionRequest]:
    """One request per distinct subject (or for one record of one subject). Asked twice while
    pending, or ever again with the same idempotency `key`: one request.

    Raises UsageError for an empty or over-long id, or a record id where the data has none.
    """
    new = _new_by_ids(workspace, subjects, record, key, basis_of(workspace))
    return _take_all(workspace, new)


def _new_of(workspace: Taking, asked: Asked, basis: Basis) -> "list[_NewWithIds]":
    """What is to be accepted of it. Raises UsageError."""
    if not asked.hashed:
        return _new_by_ids(workspace, list(asked.subjects), asked.record, asked.key, basis)
    if asked.subjects or asked.record:
        raise UsageError(
            "expected ids or hashes of ids, got both (or a record beside a hash); ask twice"
        )
    return _new_by_hashes(workspace, asked.hashed, asked.key, basis)


def _new_by_ids(
    workspace: Taking,
    subjects: list[str],
    record: str,
    key: str,
    basis: Basis,
) -> "list[_NewWithIds]":
    if not subjects:
        raise UsageError("expected at least one subject id, got none")
    check_ids(workspace, subjects, record, basis)
    rule = basis.rule
    people: dict[str, list[str]] = {}
    for given, subject in spelt_by(rule, subjects).items():
        people.setdefault(subject, []).append(given)
    spelt_record = spelt_under(rule, record)
    return [
        _new_by_id(
            workspace,
            given,
            subject,
            spelt_record,
            key,
            [record, spelt_record] if record else [*given, subject],
            rule,
        )
        for subject, given in people.items()
    ]


def take_hashed(workspace: Taking, hashed: list[str], key: str = "") -> list[DeletionRequest]:
    """A request for whoever has an id with one of these hashes (`sha256:HEX`, `sha1:`, `md5:`) when
    it is carried out. Where nobody has it as it is, who has it with blanks or in other letter case
    is meant. Raises UsageError for what is no such hash."""
    return _take_all(workspace, _new_by_hashes(workspace, hashed, key, basis_of(workspace)))


def _new_by_hashes(
    workspace: Taking, hashed: Iterable[str], key: str, basis: Basis
) -> "list[_NewWithIds]":
    if not hashed:
        raise UsageError("expected at least one hashed id, got none")
    check_columns(workspace.config.data, basis, "")
    return [
        _new_by_hash(workspace, algorithm, digits, key, basis.rule)
        for algorithm, digits in dict.fromkeys(map(parse_hashed, hashed))
    ]


def _take_all(workspace: Taking, new: list["_NewWithIds"]) -> list[DeletionRequest]:
    check_directory(workspace.root, "needles")  # where the ids as given are kept
    taken = _taken_in_parts(workspace, new)
    workspace.signing.write_checkpoint()
    return taken


def _taken_in_parts(workspace: Taking, new: "list[_NewWithIds]") -> list[DeletionRequest]:
    if len(new) > _BATCH:
        _check_not_begun(workspace, new)
    taken: list[DeletionRequest] = []
    for begin in range(0, len(new), _BATCH):
        others = f"The first {begin} were accepted, and no others" if begin else _NONE
        try:
            taken += _take(workspace, new[begin : begin + _BATCH], others)
        except Exception:
            if begin:  # these are durable: whoever asked is told so
                workspace.signing.write_checkpoint()
            raise
    return taken


def states_of(workspace: Taking, requests: Iterable[DeletionRequest]) -> dict[str, str]:
    """The state of each request, as `list_requests` tells it."""
    known, now, needs = (
        as_of(workspace.ledger.state(), workspace.now()),
        workspace.clock.now(),
        workspace.config.erasure.needs_approval,
    )
    return {r.request_id: view_of(r, known, needs, now).state for r in requests}


def check_ids(workspace: Taking, subjects: list[str], record: str, basis: Basis) -> None:
    """That these can be ids of the data there is. Raises UsageError."""
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
    check_columns(workspace.config.data, basis, record)


@dataclass(frozen=True)
class _NewWithIds:
    """A request to be accepted, and the ids as given that its rows are looked for by."""

    new: NewRequest
    ids: list[str]

    @property
    def request_id(self) -> str:
        return self.new.request.request_id


def _new_by_id(
    workspace: Taking,
    given: list[str],
    subject: str,
    record: str,
    key: str,
    ids: list[str],
    rule: tuple[str, ...],
) -> _NewWithIds:
    keys = workspace.keys
    near = {n: None for each in given for n in near_digests(keys, each, subject, record, rule)}
    request = _request(
        workspace,
        subject_digest(keys, subject),
        record_digest(keys, subject, record) if record else "",
        suppression_digest(keys, subject, record),
    )
    who = (subject, record) if record else (subject,)
    return _new(workspace, request, who, key, list(dict.fromkeys(ids)), near, rule, "id")


def _new_by_hash(
    workspace: Taking, algorithm: str, digits: str, key: str, rule: tuple[str, ...]
) -> _NewWithIds:
    keys, forms = workspace.keys, hashed_forms(workspace.keys, algorithm, digits)
    near = [form_digest(keys, form) for form in forms]
    request = _request(
        workspace, keyed_digest(keys.subject, "hashed", algorithm, digits).hex(), "", near[0]
    )
    who = (f"{algorithm}:{digits}",)
    return _new(workspace, request, who, key, [digits], near, rule, algorithm, forms)


def _request(workspace: Taking, subject: str, record: str, suppression: str) -> DeletionRequest:
    """Without its commitment."""
    received = workspace.clock.now()
    return DeletionRequest(
        request_id=f"req-{uuid.uuid4().hex[:16]}",
        subject=subject,
        record=record,
        suppression=suppression,
        commitment="",
        received=rfc3339(received),
        due=rfc3339(due_after(received, workspace.config.erasure.deadline_days)),
    )


def _new(
    workspace: Taking,
    uncommitted: DeletionRequest,
    who: tuple[str, ...],
    key: str,
    ids: list[str],
    near: Iterable[str],
    rule: tuple[str, ...],
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
        id_rule=rule,
        once=once,
        ids=tuple(workspace.needles.digest_of(request.request_id, i) for i in ids),
        near=tuple(near),
        asked_by=asked_by,
        forms=tuple(forms),
    )
    return _NewWithIds(NewRequest(request, salt, event), ids)


def _take(workspace: Taking, new: list[_NewWithIds], others: str) -> list[DeletionRequest]:
    """The ids as given are on disk before the requests are; those of a request that was there
    already go again, and so do all of them where none was accepted. `others`: what became of those
    that were asked for beside them."""
    with workspace.needles.accepting():
        try:
            workspace.needles.keep_ids({n.request_id: n.ids for n in new})
            _check_not_begun(workspace, new, others)
            accepted = workspace.requests.accept([n.new for n in new])
        except BaseException:
            _forget(workspace, [n.request_id for n in new])
            raise
        again = [(n, r) for n, r in zip(new, accepted, strict=True) if n.request_id != r.request_id]
        if again:
            _fill_in(workspace, [(n, r) for n, r in again if not r.certificate])
            workspace.needles.destroy("", [n.request_id for n, _ in again])
    return accepted


def _forget(workspace: Taking, request_ids: list[str]) -> None:
    """Destroy the ids of requests that were not accepted. A server may have accepted them and died
    before it said so: where nobody can tell, they stay until the next erase run asks again."""
    with suppress(S3TError):
        known = workspace.ledger.state().requests.keys()
        workspace.needles.destroy("", set(request_ids) - known)


def _fill_in(workspace: Taking, again: Sequence[tuple[_NewWithIds, DeletionRequest]]) -> None:
    """Asking again gives the id back to an open request that has lost it, after a restore of older
    files, and adds another spelling of it, of which the ledger is told: what it was told of, a
    restore does not lose in silence. `again`: what was asked, with the request that stands for
    it."""
    state, kept = workspace.ledger.state(), {}
    entries: list[events.RequestSpelt] = []
    for new, request in again:
        asked, known = (
            state.requests[request.request_id],
            workspace.needles.ids_of(request.request_id),
        )
        kept[request.request_id] = [i for i in new.ids if i not in known]
        spellings = _new_spellings(workspace, new, request.request_id, asked)
        if spellings:
            near = [n for n in new.new.event.near if n not in asked.near]
            entries.append(
                events.RequestSpelt(
                    time=workspace.now(),
                    request=request.request_id,
                    ids=tuple(spellings),
                    near=tuple(near),
                )
            )
    workspace.needles.keep_ids({r: ids for r, ids in kept.items() if ids})
    workspace.requests.keep_again(kept.keys() - {e.request for e in entries})
    if entries:
        try:
            workspace.requests.spell(entries)
        except LedgerError:
            _check_not_begun(workspace, [new for new, _ in again], "The others were accepted")
            raise


def _new_spellings(
    workspace: Taking, new: _NewWithIds, request_id: str, asked: RequestRecord
) -> list[str]:
    """Digests of the ids as given that the ledger was not told of for a request."""
    return [
        d
        for d in (workspace.needles.digest_of(request_id, i) for i in new.ids)
        if d not in asked.ids
    ]


def _check_not_begun(workspace: Taking, new: Iterable[_NewWithIds], others: str = _NONE) -> None:
    """Raises UsageError for another spelling of an id whose erasure has begun: what it searches for
    is settled."""
    state = workspace.ledger.state_so_far()
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
