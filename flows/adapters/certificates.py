"""Closing documents, signed and kept as files: certificates, withdrawals, rejections."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flows.adapters.database import SqlLedger
from s3t_core.canonical import sha256_hex
from s3t_core.erasure.certificate import make_statement
from s3t_core.erasure.dsse import sign, statement_of, verify
from s3t_core.erasure.evidence_documents import CERTIFICATE_TYPE, Part, Subject
from s3t_core.erasure.state import State
from s3t_core.errors import CertificateError, LedgerError
from s3t_core.files import read_regular, remove_file, write_each_atomically


class Heads(Protocol):
    """Signed heads of ledgers (flows.adapters.heads)."""

    def check(self, ledger: SqlLedger) -> None:
        """Raises where a ledger has lost anything of what they tell."""


class CertificateFiles:
    """Signed certificates, `REQUEST_ID.json`. Fills the port `Certificates`."""

    def __init__(
        self,
        folder: Path,
        key: Callable[[], Ed25519PrivateKey],
        publics: Callable[[], list[Ed25519PublicKey]],
        heads: Heads,
        ledger: SqlLedger,
    ) -> None:
        """`key`: the one that signs now, whatever did when the command began; `publics`: of that
        one and those before it. `heads`: what the ledger that is signed over is held against each
        time before a signature, because another copy of the database may have taken its place."""
        self.folder = folder
        self._key, self._publics = key, publics
        self._heads, self._ledger = heads, ledger

    def issue(
        self,
        said: Mapping[str, Part],
        subject: Subject,
        kind: str = CERTIFICATE_TYPE,
    ) -> dict[str, str]:
        """Sign and write one per request id; returns each file's SHA-256. One that was signed for
        the same entry of the ledger, and not recorded, is kept; a document of another act, which
        never came to be, is written over, and none that the ledger has. Raises LedgerError,
        LostLease."""
        self._heads.check(self._ledger)
        key = self._key()
        kept = {
            r: e
            for r, each in said.items()
            if (e := self._signed_before(r, kind, each.to_json(), key)) is not None
        }
        new = {
            r: sign(make_statement(each, subject, kind), key)
            for r, each in said.items()
            if r not in kept
        }
        with self._ledger.held_still() as state:
            _refuse_recorded(said, state)
            write_each_atomically(
                self.folder, {f"{r}.json": envelope for r, envelope in new.items()}
            )
        return {r: sha256_hex(envelope) for r, envelope in (kept | new).items()}

    def kind_of(self, request_id: str) -> str:
        """The type of the document there, "" where a key of this workspace did not sign it."""
        try:
            return str(
                verify(read_regular(self.path_of(request_id)), *self._publics())["predicateType"]
            )
        except (OSError, CertificateError, KeyError):
            return ""

    def said_kind_of(self, request_id: str) -> str:
        """The type of the document there, also of one by a key that the ledger does not know, where
        it names this ledger: both may be of a history that it lost. "" where it is none of ours."""
        if known := self.kind_of(request_id):
            return known
        with contextlib.suppress(OSError, CertificateError, KeyError, TypeError):
            said = statement_of(read_regular(self.path_of(request_id)))
            if said["predicate"]["ledger"]["name"] == self._ledger.leaves()[0].hex():
                return str(said["predicateType"])
        return ""

    def digest_of(self, request_id: str) -> str:
        """The SHA-256 of the document there, "" without one."""
        with contextlib.suppress(OSError):
            return sha256_hex(read_regular(self.path_of(request_id)))
        return ""

    def discard(self, request_ids: Iterable[str]) -> None:
        """Remove what was signed for these requests, of which no ledger entry tells. Idempotent.
        Raises LedgerError, LostLease."""
        with self._ledger.held_still() as state:
            self.discard_by(state, request_ids)

    def discard_by(self, state: State, request_ids: Iterable[str]) -> None:
        """The same, by this state of a ledger to which nobody writes meanwhile."""
        gone = list(request_ids)
        _refuse_recorded(gone, state)
        for request_id in gone:
            remove_file(self.path_of(request_id))

    def path_of(self, request_id: str) -> Path:
        """Where a request's closing document is."""
        return self.folder / f"{request_id}.json"

    def _signed_before(
        self, request_id: str, kind: str, predicate: dict[str, Any], key: Ed25519PrivateKey
    ) -> bytes | None:
        with contextlib.suppress(OSError, CertificateError):
            envelope = read_regular(self.path_of(request_id))
            statement = verify(envelope, key.public_key())
            same_kind = statement.get("predicateType") == kind == CERTIFICATE_TYPE
            if same_kind and _act(statement["predicate"]) == _act(predicate):
                return envelope
        return None


def _refuse_recorded(request_ids: Iterable[str], state: State) -> None:
    recorded = [r for r in request_ids if r in state.documents]
    if recorded:
        raise LedgerError(
            f"expected requests that are not closed, got {len(recorded)} whose document the ledger "
            f"has ({', '.join(recorded[:3])}): another process closed them. Nothing was written "
            "over; run the command again"
        )


def _act(certificate: dict[str, Any]) -> tuple[object, ...]:
    """Which erasure a certificate tells of, apart from when it was signed: its request, its plan
    and the ledger entry of its search."""
    return (
        certificate["request"]["id"],
        certificate["batch"]["plan"],
        certificate["ledger"].get("index"),
    )
