"""Checkpoints: a signed statement of how long the ledger was, and what its tree head was, at one
time.

Whoever holds one can tell, without us, whether a later ledger continues the one that was signed
(RFC 6962 section 2.1.2). A copy kept where the workspace's owner cannot rewrite it makes a
rolled-back or rewritten ledger visible.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from s3t_core.erasure.certificate import make_statement
from s3t_core.erasure.dsse import sign, verify_signed
from s3t_core.erasure.evidence_documents import (
    CHECKPOINT_TYPE,
    CheckpointSaid,
    Subject,
)
from s3t_core.erasure.growing_tree import root_at
from s3t_core.erasure.ledger import TreeHead
from s3t_core.erasure.merkle import leaf_hash
from s3t_core.errors import CertificateError, LedgerError


@dataclass(frozen=True)
class Checkpoint:
    """One head of one ledger. `ledger` is the leaf hash of its first entry, hex: the ledger's name.
    RFC 3339 UTC."""

    ledger: str
    head: TreeHead
    time: str


def sign_checkpoint(checkpoint: Checkpoint, private: Ed25519PrivateKey) -> bytes:
    """The checkpoint as an in-toto Statement in a signed envelope, canonical JSON."""
    return sign(
        make_statement(
            CheckpointSaid(
                ledger=checkpoint.ledger,
                size=checkpoint.head.size,
                root=checkpoint.head.root,
                time=checkpoint.time,
            ),
            Subject(
                name=f"ledger {checkpoint.ledger}",
                digest={"sha256": checkpoint.head.root},
            ),
            CHECKPOINT_TYPE,
        ),
        private,
    )


def read_checkpoint(envelope: bytes, *publics: Ed25519PublicKey) -> Checkpoint:
    """The checkpoint, when its signature is by one of `publics`. Raises CertificateError."""
    return read_signed_checkpoint(envelope, *publics)[0]


def read_signed_checkpoint(envelope: bytes, *publics: Ed25519PublicKey) -> tuple[Checkpoint, str]:
    """The same, with the id of the key that signed it."""
    statement, signer = verify_signed(envelope, *publics)
    return checkpoint_of(statement), signer


def checkpoint_of(statement: dict[str, Any]) -> Checkpoint:
    """The checkpoint that a statement is. Raises CertificateError for another one."""
    try:
        predicate = statement["predicate"]
        if statement["predicateType"] != CHECKPOINT_TYPE:
            raise TypeError
        found = Checkpoint(
            predicate["ledger"], TreeHead(predicate["size"], predicate["root"]), predicate["time"]
        )
        bytes.fromhex(found.head.root), bytes.fromhex(found.ledger)
    except (KeyError, TypeError, ValueError):
        raise CertificateError(
            f"expected a statement of type {CHECKPOINT_TYPE}, got another document"
        ) from None
    if type(found.head.size) is not int or found.head.size < 1:
        raise CertificateError("expected a checkpoint of at least one entry, got another size")
    return found


def export_ledger(signed: bytes, entries: list[bytes]) -> bytes:
    """A ledger as a file: the signed checkpoint, then the canonical bytes of every entry it signs,
    a line each."""
    return b"".join(line + b"\n" for line in [signed, *entries])


def read_export(
    exported: bytes, *publics: Ed25519PublicKey
) -> tuple[Checkpoint, list[dict[str, Any]], str]:
    """The checkpoint and the entries of an exported ledger, checked against each other, and the id
    of the key that signed the checkpoint.

    Raises CertificateError for a checkpoint that none of the keys signed, LedgerError when an entry
    is missing, added, moved, or changed in any byte.
    """
    signed, *entries = exported.split(b"\n")
    checkpoint, signer = read_signed_checkpoint(signed, *publics)
    if not entries or entries.pop() != b"":
        raise LedgerError("expected every entry to end its line, got a file that was cut")
    leaves = [leaf_hash(entry) for entry in entries]
    if len(leaves) != checkpoint.head.size:
        raise LedgerError(
            f"expected the {checkpoint.head.size} entries that were signed, got {len(leaves)}; ask "
            "the controller for a whole export"
        )
    check_continues(checkpoint, leaves)
    return checkpoint, [json.loads(entry) for entry in entries], signer


def check_continues(
    checkpoint: Checkpoint,
    leaves: Sequence[bytes],
) -> None:
    """That the ledger with these leaf hashes is the one that was signed, and has lost nothing
    since.

    Raises LedgerError when it is another, was cut, or was rewritten.
    """
    size = checkpoint.head.size
    if not leaves or leaves[0].hex() != checkpoint.ledger:
        raise LedgerError(
            "expected the ledger that the checkpoint names, got another one; put this workspace's "
            "own database back"
        )
    if len(leaves) < size:
        raise LedgerError(
            f"expected a ledger of at least {size} entries, as signed on {checkpoint.time}, got "
            f"{len(leaves)}: an older copy took its place; put the newest copy back. Requests may "
            "be lost in this one, and erased people may be back"
        )
    if root_at(leaves, size).hex() != checkpoint.head.root:
        raise LedgerError(
            f"expected the first {size} entries as they were signed on {checkpoint.time}, got "
            "others: the ledger was rewritten; put the true copy back and find out who changed it"
        )
