"""Checkpoints, requests, the suppression list and closing documents, held against the ledger."""

from typing import Protocol

from flows.adapters.local import is_held
from flows.workspace.change import Change
from flows.workspace.parts import (
    HasCertificates,
    HasDocuments,
    HasHeads,
    HasLedger,
    HasLocks,
    HasRequests,
)
from s3t_core.erasure.closing import DocumentProblems, check_documents, never_came_to_be


class Verifiable(HasLedger, HasRequests, HasHeads, HasDocuments, HasLocks, Protocol):
    """What is held against one another."""


class Signed(HasLedger, HasCertificates, Protocol):
    """Closing documents, and the ledger that has them."""


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
    found = check_documents(
        workspace.ledger.state(),
        lambda request: memory.digest_of("documents", folder / f"{request}.json", whole),
        there,
    )
    memory.save()
    return found


def discard_unrecorded(workspace: Signed, held: Change) -> None:
    """Destroy the signed documents of acts that were cut off before the ledger had them: whoever
    found one would take it for the end of a request that is open."""
    held.require()
    state = workspace.ledger.state()
    left = [request for request in _there(workspace) if request not in state.documents]
    workspace.certificates.discard(never_came_to_be(state, left))


def _there(workspace: HasDocuments) -> list[str]:
    return [path.stem for path in workspace.certificates_dir.glob("req-*.json")]
