"""Checkpoints, requests, the suppression list and closing documents, held against the ledger."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from sqlalchemy import Connection

from flows.adapters.database import Database
from flows.adapters.lease import CHANGE, LostLease, heartbeats
from flows.adapters.locks import is_held
from flows.workspace.change import Change
from flows.workspace.layout import ENDING
from flows.workspace.parts import (
    HasCertificates,
    HasDocuments,
    HasFolders,
    HasHeads,
    HasLedger,
    HasLocks,
    HasRequests,
)
from s3t_core.erasure.closing import DocumentProblems, check_documents, never_came_to_be
from s3t_core.erasure.evidence_documents import CLOSING_TYPE
from s3t_core.erasure.state import State
from s3t_core.errors import LedgerError, S3TError
from s3t_core.files import read_regular, remove_file, write_atomically


class Signed(HasLedger, HasCertificates, HasFolders, Protocol):
    """Closing documents, and the ledger that has them."""

    @property
    def database(self) -> Database:
        """In which that ledger is."""


class Verifiable(HasFolders, HasLedger, HasRequests, HasHeads, HasCertificates, HasLocks, Protocol):
    """What is held against one another."""

    @property
    def database(self) -> Database:
        """In which the ledger is."""


def check_whole(workspace: Verifiable) -> DocumentProblems:
    """Hold everything against the ledger that a quick command takes from memory: every
    checkpoint, the requests, the suppression list. Returns what is wrong with closing
    documents: one that is gone stops no erasure. Raises LedgerError, CertificateError."""
    workspace.heads.check(workspace.ledger, whole=True)
    workspace.requests.check()
    return document_problems(workspace, whole=True)


def document_problems(workspace: Verifiable, whole: bool = False) -> DocumentProblems:
    """What is wrong with closing documents on disk; those that were as recorded before, and are
    the same files still, are taken from memory unless `whole`. While somebody changes the
    workspace, one that is not recorded may be about to be."""
    memory, folder = workspace.heads.memory, workspace.certificates_dir
    there = [] if is_held(workspace.lock_path) else _there(workspace)
    holder, _ = heartbeats(workspace.database).get(CHANGE, ("", 0))
    certificates, cut = workspace.certificates, _cut_off(workspace, holder)
    found = check_documents(
        workspace.ledger.state(),
        lambda request: memory.digest_of("documents", folder / f"{request}.json", whole),
        there,
        lambda request: request != cut and certificates.said_kind_of(request) != "",
    )
    memory.save()
    return found


@contextmanager
def ending(workspace: Signed, request_id: str) -> Iterator[None]:
    """While a request is ended: signs its document, then records it. What is killed between the two
    leaves a mark, and is taken back by whoever changes the workspace next. What fails between the
    two is taken back here.

    The mark also says what lay in the document's place before: that is of another act, and is not
    taken back. And it says under which lease it was made: a database that still has that lease
    never had the entry, while one that was restored from before may have lost it."""
    mark, lease = workspace.state_dir / ENDING, workspace.database.lease
    with workspace.ledger.held_still():
        before = workspace.certificates.digest_of(request_id)
        write_atomically(mark, f"{request_id} {before} {lease}".encode())
    try:
        yield
    except BaseException:
        with (
            suppress(S3TError),  # else whoever changes the workspace next does it
            workspace.ledger.held_still() as state,
        ):
            discard_unrecorded(workspace, state, lease)
        raise
    with suppress(LostLease), workspace.ledger.held_still():  # else it is another's by now
        remove_file(mark)


def taking_over(workspace: Signed) -> Callable[[Connection, str], None]:
    """What whoever takes the lease does in the transaction that takes it, however the command goes
    on: `discard_unrecorded` of what was done under the lease before."""

    def take(connection: Connection, before: str) -> None:
        discard_unrecorded(workspace, workspace.database.caught_up(connection).state, before)

    return take


def discard_unrecorded(workspace: Signed, state: State, lease: str) -> None:
    """Destroy the signed document of an act that was cut off, under that lease, before the ledger
    had it: whoever found it would take it for the end of a request that is open. Others that the
    ledger does not have stay: they are what is left of acts that it lost. Nobody writes to the
    ledger meanwhile, whose state this is."""
    if (workspace.state_dir / ENDING).exists():
        cut = _cut_off(workspace, lease)
        left = [cut] if cut and cut not in state.documents else []
        workspace.certificates.discard_by(state, never_came_to_be(state, left))
        remove_file(workspace.state_dir / ENDING)


def refuse_over_lost_ends(workspace: Signed, held: Change) -> None:
    """Raises LedgerError where an open request was withdrawn or rejected in a history that the
    ledger lost: who took it back would be erased, against their will, for good. (Who was erased in
    it is erased again.) Whoever signed it: the key may have come in that history."""
    held.require()
    state = workspace.ledger.state()
    known = [r for r in _there(workspace) if r in state.requests and state.is_open(r)]
    ended = [r for r in sorted(known) if workspace.certificates.said_kind_of(r) == CLOSING_TYPE]
    if ended:
        raise LedgerError(
            f"expected no signed end of a request that is open, got {len(ended)} "
            f"({', '.join(ended[:3])}{', ...' if len(ended) > 3 else ''}): the database is older "
            "than the files in .s3t/certificates. Restore the newest one. If it is lost for good, "
            "read those files (`s3t verify FILE`), decide each request again as its file says "
            "(`s3t withdraw`, `s3t reject`), or move the file away where it shall be carried out"
        )


def _cut_off(workspace: Signed, lease: str) -> str:
    """The request of which there is a document that somebody was killed at recording, under this
    lease; "" where there is none."""
    try:
        mark = read_regular(workspace.state_dir / ENDING, 256).decode("ascii", "replace")
    except FileNotFoundError:
        return ""
    request, before, under = (*mark.split(" "), "", "")[:3]
    if not lease or under != lease:
        return ""
    return request if workspace.certificates.digest_of(request) not in ("", before) else ""


def _there(workspace: HasDocuments) -> list[str]:
    return [path.stem for path in workspace.certificates_dir.glob("req-*.json")]
