"""Checkpoints, requests, the suppression list and closing documents, held against the ledger."""

from typing import Protocol

from flows.workspace.parts import HasDocuments, HasHeads, HasLedger, HasRequests
from s3t_core.erasure.closing import DocumentProblems, check_documents


class Verifiable(HasLedger, HasRequests, HasHeads, HasDocuments, Protocol):
    """What is held against one another."""


def check_whole(workspace: Verifiable) -> DocumentProblems:
    """Hold everything against the ledger that a quick command takes from memory: every
    checkpoint, the requests, the suppression list. Returns what is wrong with closing
    documents: one that is gone stops no erasure. Raises LedgerError, CertificateError."""
    workspace.heads.check(workspace.ledger, whole=True)
    workspace.requests.check()
    return document_problems(workspace, whole=True)


def document_problems(workspace: Verifiable, whole: bool = False) -> DocumentProblems:
    """What is wrong with closing documents on disk; those that were as recorded before, and are
    the same files still, are taken from memory unless `whole`."""
    memory, folder = workspace.heads.memory, workspace.certificates_dir
    found = check_documents(
        workspace.ledger.state().documents,
        lambda request: memory.digest_of("documents", folder / f"{request}.json", whole),
    )
    memory.save()
    return found
