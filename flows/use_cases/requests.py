"""What becomes of deletion requests: listed, approved, held, given more time, withdrawn, rejected;
and a person who returns. They are taken in flows.use_cases.taking.

Whatever happens to a request is a ledger event.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

from flows.use_cases.documents import (
    RequestListed,
    RequestsDocument,
)
from flows.use_cases.finding import basis_of, look_alikes, rule_of, spelt
from flows.use_cases.intakes import open_sealed
from flows.use_cases.quoting import check_quotes_nobody, is_plain, name_to_keep
from flows.use_cases.taking import Asking, check_ids
from flows.workspace import access
from flows.workspace.verified import ending
from flows.workspace.workspace import refuse_open_plan
from s3t_core.domain import DeletionRequest
from s3t_core.erasure import events
from s3t_core.erasure.certificate import certificate_subject
from s3t_core.erasure.closing import (
    STATES,
    as_recorded,
    asked_at,
    check_reason,
    check_words,
    closing_of,
    view_of,
)
from s3t_core.erasure.evidence_documents import CLOSING_TYPE
from s3t_core.erasure.ledger import as_of
from s3t_core.erasure.rules import MOST_MONTHS
from s3t_core.erasure.state import State
from s3t_core.erasure.vocabulary import ClosingKind
from s3t_core.errors import NotNow, NotThere, UsageError
from s3t_core.identity import (
    EXACT,
    forms_of,
    spelt_under,
)
from s3t_core.ports import Closing
from s3t_core.records import subject_digest
from s3t_core.snapshot import form_digest, near_digests, suppression_digest
from s3t_core.times import months_later, parse_time, rfc3339

_WAIT_SECONDS = 60
_WHO_ASKED = "the person who asked"
PlaceInList = tuple[bool, str, str]
"""Whether it is closed, when it is or was due, and its id."""


def list_with_look_alikes(
    workspace: Asking, state: str = "", due_within_days: float | None = None
) -> RequestsDocument:
    """What `list_requests` lists, with how many other spellings of the id of each open request are
    in the data."""
    listed = list_requests(workspace, state, due_within_days)
    open_ones = {r["id"] for r in listed if r["days_left"] is not None}
    pending = workspace.requests.pending(workspace.ledger.state()) if open_ones else []
    near = look_alikes(workspace, [r for r in pending if r.request_id in open_ones])
    asked = {r.subject for r in pending if not r.record}
    others = {request: len(found - asked) for request, found in near.items()}
    return {"requests": [{**r, "others": others.get(r["id"])} for r in listed]}


def list_requests(
    workspace: Asking, state: str = "", due_within_days: float | None = None
) -> list[RequestListed]:
    """Every request as JSON values, open ones by due time first, those that came before others
    before them; of one state only, or due within so many days. Raises UsageError for a state that
    there is not: an empty answer would say that nothing is in it."""
    workspace.requests.check()
    known = workspace.ledger.state()
    came = {request_id: number for number, request_id in enumerate(known.requests)}
    found = list(_in_order(workspace, known, state, due_within_days))
    return sorted(found, key=lambda r: (r["days_left"] is None, r["due"], came[r["id"]]))


def list_some_requests(
    workspace: Asking,
    state: str,
    due_within_days: float | None,
    after: PlaceInList | None,
    most: int,
) -> list[RequestListed]:
    """So many of them at most, behind a place in the list: for a workspace that stays open, and
    that looks from time to time whether book and ledger say the same. It reads what came since."""
    found = _in_order(workspace, workspace.ledger.state_so_far(), state, due_within_days, after)
    return list(islice(found, most))


def place_in_list(listed: RequestListed) -> PlaceInList:
    """Where it stands: behind all that are less."""
    return listed["days_left"] is None, listed["due"], listed["id"]


def _in_order(
    workspace: Asking,
    state: State,
    wanted: str,
    due_within_days: float | None,
    after: PlaceInList | None = None,
) -> Iterator[RequestListed]:
    """Of the requests that the ledger has at this moment, in order, no more than are asked for."""
    if wanted and wanted not in STATES:
        raise UsageError(
            f"expected a state of requests ({', '.join(STATES)}), got another; see how it is spelt"
        )
    now = workspace.clock.now()
    known, needs = as_of(state, rfc3339(now)), workspace.config.erasure.needs_approval
    places = sorted((not known.is_open(i), asked.due, i) for i, asked in known.requests.items())
    for _, _, request_id in places[bisect_right(places, after) if after else 0 :]:
        view = view_of(asked_at(known, request_id), known, needs, now)
        if wanted and view.state != wanted:
            continue
        if due_within_days is not None and (
            view.days_left is None or view.days_left > due_within_days
        ):
            return  # so do all that come behind it
        yield {
            "id": request_id,
            "state": view.state,
            "received": view.request.received,
            "due": view.request.due,
            "days_left": view.days_left,
            "rows": view.rows,
            "scope": "record" if view.request.record else "subject",
            "extended_from": known.requests[request_id].extended_from or None,
        }


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
    ids = _ids_asked_with(workspace, request_id, (reason, by))
    who, why = name_to_keep(workspace, by, ids), _clean(workspace, check_words(reason, ids), ids)
    with _changing(workspace) as state:
        request = _asked_in(workspace, state, request_id)
        if request.certificate:
            raise _closed_already(state, request_id)
        now, asked = workspace.now(), state.requests[request_id]
        if asked.extended_from:
            raise NotNow(
                f"expected a request whose time was not extended before, got {request_id}, which "
                f"was due {asked.extended_from} and is due {asked.due}; nothing was changed"
            )
        if now > asked.due or asked.was_overdue:
            set_back = " by the clock that was set back since" * asked.was_overdue
            raise NotNow(
                f"expected a request that is not due yet, got {request_id}, which was due "
                f"{asked.due}{set_back}: its time could only have been extended before; carry it "
                "out with `s3t erase`; nothing was changed"
            )
        due = rfc3339(months_later(parse_time(asked.due), months))
        workspace.ledger.append(
            events.DeadlineExtended(time=now, request=request_id, due=due, reason=why, by=who)
        )
    return due


def withdraw(workspace: Asking, request_id: str, by: str = "") -> None:
    """Close a request because whoever asked took it back. `by`: a role, as what stays must not name
    the person. Raises UsageError once it is being carried out."""
    who = name_to_keep(workspace, by, workspace.needles.ids_of(request_id)) if by else _WHO_ASKED
    _close(workspace, request_id, "withdrawal", who, "", "withdrawn by whoever asked")


def reject(workspace: Asking, request_id: str, basis: str, reason: str, by: str) -> None:
    """Close a request without an erasure, on a legal basis (`closing.BASES`), with a reason that
    names nobody: in words of letters alone where the ids that were asked with are lost, since
    nobody can say then what quotes them. Raises UsageError."""
    ids = _ids_asked_with(workspace, request_id, (reason, by))
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
        pending = [r for r in workspace.requests.pending(state) if r.request_id not in aside]
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
        waiting = filter(state.is_open, state.requests)
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
                f"{_render_near(workspace, state, subject, record)}; nothing was changed"
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


def _render_near(workspace: Asking, state: State, subject: str, record: str) -> str:
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
    return (
        ", though one that is spelt nearly so (in other capitals, with blanks or an accent, as a "
        "number with a point); lift that one, as it was spelt when it was erased"
    )


def _digest_of(workspace: Asking, subject: str, record: str = "") -> str:
    """The digest of a subject by the id as given. Raises UsageError."""
    check_ids(workspace, [subject], record, basis_of(workspace))
    return subject_digest(workspace.keys, spelt(workspace, [subject])[subject])


@contextmanager
def _changing(workspace: Asking) -> Iterator[State]:
    """Between erase runs: what is decided here is seen by the next one. A clock that was put right
    is on the record before anything is decided, and signed, by its times. The ledger is signed
    before anyone is told."""
    with access.changing(workspace, _WAIT_SECONDS):
        workspace.heads.check(workspace.ledger)
        workspace.requests.check()
        workspace.ledger.put_clock_right(workspace.now())
        yield workspace.ledger.state()
        workspace.signing.write_checkpoint()


def require_request(workspace: Asking, request_id: str) -> DeletionRequest:
    """The request of this id, closed or open. Raises NotThere."""
    return _asked_in(workspace, workspace.ledger.state(), request_id)


def _asked_in(workspace: Asking, state: State, request_id: str) -> DeletionRequest:
    found = next((r for r in workspace.requests.all(state) if r.request_id == request_id), None)
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
    found = _asked_in(workspace, state, request_id)
    if found.certificate:
        raise _closed_already(state, request_id)
    if request_id in state.begun:
        raise NotNow(
            f"expected a request that is not being carried out, got {request_id}, whose erasure "
            "has begun; run `s3t erase` to finish it"
        )
    return as_recorded(found, state)


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
        with ending(workspace, request_id):
            digest = workspace.certificates.issue(
                {request_id: predicate}, certificate_subject(state, head), CLOSING_TYPE
            )[request_id]
            event = events.RequestClosed(
                time=now,
                request=request_id,
                kind=kind,
                certificate=digest,
                basis=basis,
            )
            workspace.requests.close([Closing(request_id, digest, event)])
        workspace.needles.forget("", [request_id])


def _reason(workspace: Asking, basis: str, reason: str, ids: Collection[str]) -> str:
    """The reason, as it can be kept. Raises UsageError."""
    return _clean(workspace, check_reason(basis, reason, ids), ids)


def _clean(workspace: Asking, reason: str, ids: Collection[str]) -> str:
    check_quotes_nobody(workspace, reason, "a reason", ids)
    return reason


def _ids_asked_with(workspace: Asking, request_id: str, said: Iterable[str]) -> list[str]:
    """The ids as given of a request, against which what is `said` of it is held; those that a host
    apart sealed are opened for it. Where some of an open one's are not there (a restore lost them,
    or a host told of an id that it never sealed), it has to be in words of letters alone. Raises
    UsageError."""
    state = workspace.ledger.state()
    if state.intakes and _lacks_ids(workspace, state, request_id):
        with _changing(workspace):
            open_sealed(workspace)
    if _lacks_ids(workspace, state, request_id) and not all(map(is_plain, said)):
        raise UsageError(
            "expected words of letters alone, since ids that this request was asked with are not "
            "here (a restore lost them, or they never came) and nobody can say what quotes them, "
            "got a digit, an @ or another sign that ids have; write numbers in words, or ask again "
            "with the same ids first; nothing was changed"
        )
    return workspace.needles.ids_of(request_id)


def _lacks_ids(workspace: Asking, state: State, request_id: str) -> bool:
    """Whether the ledger was told of an id of an open request that is not there."""
    asked, ids = state.requests.get(request_id), workspace.needles.ids_of(request_id)
    known = {workspace.needles.digest_of(request_id, i) for i in ids}
    return asked is not None and state.is_open(request_id) and not set(asked.ids) <= known
