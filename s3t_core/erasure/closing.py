"""What happens to a request besides being carried out: approval, a legal hold, withdrawal,
rejection.

A request that is withdrawn or rejected ends in a signed document of its own, as an erased one ends
in a certificate. It says on what basis and why, which the controller's letter needs (GDPR article
12(4)); the letter, which also names the complaint and the judicial remedy, is the controller's.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, get_args

from s3t_core.domain import DeletionRequest
from s3t_core.erasure.evidence_documents import (
    CLOSING_TYPE,
    ClosedHow,
    ClosingSaid,
    CommittedAlone,
    LedgerHead,
    RequestClosed,
)
from s3t_core.erasure.ledger import TreeHead
from s3t_core.erasure.outcome import ErasureOutcome
from s3t_core.erasure.state import State
from s3t_core.erasure.vocabulary import ClosingKind
from s3t_core.errors import CertificateError, LedgerError, UsageError
from s3t_core.times import parse_time

BASES = {
    "17(1)": "none of the grounds of article 17(1) applies",
    "12(2)": "the controller shows that it cannot tell whose data is meant (article 11(2))",
    "12(5)": "the request is manifestly unfounded or excessive",
    "12(6)": "the identity of who asks could not be confirmed",
    "17(3)(a)": "needed for freedom of expression and information",
    "17(3)(b)": "needed for a legal obligation or a task in the public interest",
    "17(3)(c)": "needed for public health",
    "17(3)(d)": "needed for archiving, research or statistics in the public interest",
    "17(3)(e)": "needed for legal claims",
    "other": "another law; the reason names it",
}
"""Articles of the GDPR on which an erasure may be refused or held back, and what they say in
short."""

_MOST_REASON = 300
_LEAST_ID = 4
"""Shorter ids are in many a sentence by chance."""


@dataclass(frozen=True)
class RequestView:
    """A request as it stands. `state`: one of STATES. `days_left` until it is due, negative when it
    is late, None once it is closed. `rows` that were found by the erasure that closed it."""

    request: DeletionRequest
    state: str
    days_left: float | None
    rows: int = 0


def check_reason(
    basis: str,
    reason: str,
    ids: Iterable[str] = (),
) -> str:
    """The reason, when it can be kept. Raises UsageError for an unknown legal basis, and for a
    reason that is missing, too long, or quotes an id as given: it stands in signed documents."""
    if basis not in BASES:
        raise UsageError(f"expected a legal basis, one of {', '.join(BASES)}, got another")
    return check_words(reason, ids)


def check_words(reason: str, ids: Iterable[str] = ()) -> str:
    """The reason, when it can be kept. Raises UsageError for one that is missing, too long, or
    quotes an id as given."""
    clean = " ".join(reason.split())
    if not clean or len(clean) > _MOST_REASON or not clean.isprintable():
        raise UsageError(
            f"expected a reason of 1 to {_MOST_REASON} printable characters, got {len(clean)}"
        )
    if any(len(i) >= _LEAST_ID and i.casefold() in clean.casefold() for i in ids):
        raise UsageError(
            "expected a reason without the person's id, got one that quotes it; it stands in "
            "documents that others read; nothing was changed"
        )
    return clean


def is_ready(
    request: DeletionRequest,
    state: State,
    needs_approval: bool,
) -> bool:
    """Whether an erase run may carry the request out: not held, and approved where that is
    needed."""
    return request.subject not in state.holds and (
        not needs_approval or request.request_id in state.approved
    )


STATES = (
    "pending",
    "awaiting approval",
    "held",
    "erasing",
    "uncertified",
    "deferred",
    *get_args(ErasureOutcome),
    *get_args(ClosingKind),
)
"""Every state of a request."""


def as_recorded(request: DeletionRequest, state: State) -> DeletionRequest:
    """Returns the request with the times that hold by the ledger: earlier ones, when it was
    received by a clock that had run ahead and was put right since."""
    recorded = state.requests.get(request.request_id)
    if recorded is None:
        raise LedgerError(
            "expected every request of the book in the ledger, got one that it does not know; "
            "restore the database from its backup, or find out who wrote to its table of requests"
        )
    return replace(
        request,
        received=recorded.received,
        due=recorded.due,
    )


def view_of(
    asked: DeletionRequest,
    state: State,
    needs_approval: bool,
    now: datetime,
) -> RequestView:
    """The request's state and its days left. `state`: as of `now` (ledger.as_of)."""
    request = as_recorded(asked, state)
    if not state.is_open(asked.request_id):
        return _closed_view(request, state)
    planned = request.request_id in state.planned
    if planned:
        shown = "erasing"
    elif request.request_id in state.set_aside:
        shown = "uncertified"
    elif request.subject in state.holds:
        shown = "held"
    elif not is_ready(request, state, needs_approval):
        shown = "awaiting approval"
    else:
        shown = "deferred" if request.request_id in state.deferred else "pending"
    return RequestView(
        request,
        shown,
        round((parse_time(request.due) - now) / timedelta(days=1), 2),
    )


def _closed_view(request: DeletionRequest, state: State) -> RequestView:
    closed = state.closed.get(request.request_id)
    outcome, rows = (closed, 0) if closed else state.outcomes[request.request_id]
    return RequestView(request, outcome, None, rows)


def check_request(state: State, request: DeletionRequest) -> None:
    """That a request of the book is about whom the ledger says, by its times and with its document.
    Every look at the book's table asks this, at the moment of the look: an erasure that believed a
    row which was another one for a second would look for nobody, and certify that. Raises
    LedgerError."""
    if request.request_id not in state.requests or request != asked_at(state, request.request_id):
        raise _changed_book()


def asked_at(state: State, request_id: str) -> DeletionRequest:
    """A request of the ledger as the book has it at that moment, with the times that it was
    accepted with."""
    asked = state.requests[request_id]
    return DeletionRequest(
        request_id,
        asked.subject,
        asked.record,
        asked.suppression,
        asked.commitment,
        *asked.claimed,
        state.documents.get(request_id, ""),
    )


def _changed_book() -> LedgerError:
    return LedgerError(
        "expected the request book to say what the ledger says, got a request that was added, "
        "changed, removed or closed in one of them alone; restore the database from its "
        "backup, or find out who wrote to its table of requests"
    )


def check_book(
    state: State,
    requests: Iterable[DeletionRequest],
    suppressed: Mapping[str, tuple[str, str]],
    salts: Mapping[str, str],
) -> None:
    """That the request book and the suppression list say what the ledger says: whoever may write to
    those tables alone could make a request look closed, or another person's, or let an erased
    person be trained on again. `suppressed`: by digest on the list, what it is of and the request
    that put it there; `salts`: SHA-256 of each commitment's salt that was not destroyed, by
    request: only that of a closed one may be. Raises LedgerError."""
    asked = list(requests)
    for request in asked:
        check_request(state, request)
    if {r.request_id for r in asked} != state.requests.keys():
        raise _changed_book()
    another = any(salts[i] != r.salt for i, r in state.requests.items() if i in salts)
    missing = any(i not in salts for i in state.requests if state.is_open(i))
    if another or missing:
        raise LedgerError(
            "expected the salt of every commitment to be the one that was drawn, got another, or "
            "none for an open request: nobody could show any more whom a certificate is about; "
            "restore the database from its backup"
        )
    if dict(suppressed) != state.suppressed:
        raise LedgerError(
            "expected the suppression list to be what the ledger makes of it, got an entry that "
            "was added, changed or removed in one of them alone: an erased person could come back; "
            "restore the database from its backup, or find out who wrote to its table"
        )


@dataclass(frozen=True)
class DocumentProblems:
    """Requests whose closing documents are not on disk (`missing`), whose documents there have
    other bytes than the ledger recorded (`changed`), and of whom there is one although the ledger
    has none: of an act that was cut off, and never came to be (`left`), or of one that came to be
    in a history that the ledger lost (`lost`)."""

    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    @classmethod
    def of(cls, problems: Mapping[str, Iterable[str]]) -> "DocumentProblems":
        """The same, as a command's document has them: request ids by kind."""
        return cls(**{kind: tuple(found) for kind, found in problems.items()})

    def sentences(self) -> list[str]:
        """Returns a sentence for each kind of problem, and what to do."""
        restore = "restore .s3t/certificates from its backup"
        kinds = (
            ("missing", self.missing, restore),
            ("not what the ledger recorded", self.changed, restore),
            (
                "of acts that the ledger does not have",
                self.left,
                "they prove nothing: give them to nobody; `s3t erase` removes those of open "
                "requests, see where others come from",
            ),
            (
                "of a later ledger than this one",
                self.lost,
                "an older database took its place: restore the newest one, or decide these "
                "requests again, as their documents say",
            ),
        )
        return [
            f"{len(found)} closing document(s) are {kind} ({', '.join(found[:3])}"
            f"{', ...' if len(found) > 3 else ''}); {advice}"
            for kind, found, advice in kinds
            if found
        ]


def check_documents(
    state: State,
    digest_of: Callable[[str], str | None],
    there: Iterable[str],
    is_lost: Callable[[str], bool],
) -> DocumentProblems:
    """Returns what is wrong with closing documents, as the ledger has them. `digest_of`: the
    SHA-256 of the file of a request, None without one; `there`: the requests of which there is a
    file; `is_lost`: whether that of a request was signed over another history."""
    documents = state.documents
    found = {request: digest_of(request) for request in documents}
    unknown = sorted(r for r in there if r not in documents and r not in state.begun)
    lost = tuple(filter(is_lost, unknown))
    return DocumentProblems(
        missing=tuple(sorted(r for r, digest in found.items() if digest is None)),
        changed=tuple(sorted(r for r, d in found.items() if d not in (None, documents[r]))),
        left=tuple(r for r in unknown if r not in lost),
        lost=lost,
    )


def never_came_to_be(state: State, left: Iterable[str]) -> list[str]:
    """Those of `left` whose document may be destroyed: of an open request that no erasure carries
    out. Of a request that the ledger does not know, who knows."""
    return [r for r in left if r in state.requests and state.is_open(r) and r not in state.begun]


def closing_of(
    request: DeletionRequest,
    kind: ClosingKind,
    time: str,
    by: str,
    basis: str,
    reason: str,
    ledger: str,
    head: TreeHead,
) -> ClosingSaid:
    """What the document says by which a request ends as a `kind`. `ledger` is the ledger's name
    (the leaf hash of its first entry) and `head` its head just before."""
    return ClosingSaid(
        request=RequestClosed(
            id=request.request_id,
            received=request.received,
            due=request.due,
            scope="record" if request.record else "subject",
        ),
        subject=CommittedAlone(
            commitment=request.commitment,
            scheme="HMAC-SHA256(key: commitment key, salt, id); the controller holds key and salt",
        ),
        closing=ClosedHow(
            kind=kind,
            time=time,
            by=by,
            legal_basis=basis,
            basis_in_short=BASES.get(basis, ""),
            reason=reason,
        ),
        ledger=LedgerHead(
            name=ledger,
            size=head.size,
            root=head.root,
        ),
    )


def check_closing(statement: dict[str, Any]) -> dict[str, Any]:
    """The predicate of a withdrawal or rejection. Raises CertificateError for any other
    statement."""
    try:
        predicate: dict[str, Any] = statement["predicate"]
        kinds = statement["predicateType"], predicate["closing"]["kind"]
        if kinds not in ((CLOSING_TYPE, "withdrawal"), (CLOSING_TYPE, "rejection")):
            raise TypeError
        predicate["request"]["id"], predicate["closing"]["time"], predicate["ledger"]["root"]
    except (KeyError, TypeError):
        raise CertificateError(
            f"expected a statement of type {CLOSING_TYPE}, got another document"
        ) from None
    return predicate
