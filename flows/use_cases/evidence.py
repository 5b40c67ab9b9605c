"""Evidence that others check without this system (s3t_core.erasure.bundle, offline)."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from flows.workspace.parts import HasSigning
from flows.workspace.verified import Verifiable, check_whole
from s3t_core.erasure.bundle import make_bundle
from s3t_core.erasure.checkpoint import check_continues, export_ledger, read_checkpoint
from s3t_core.erasure.ledger import fold
from s3t_core.errors import CertificateError, NotThere, UsageError
from s3t_core.files import SHARED_MODE, read_regular, write_atomically

_EPOCH = (1980, 1, 1, 0, 0, 0)


class Shown(Verifiable, HasSigning, Protocol):
    """What an outsider is shown."""


def write_bundle(workspace: Shown, target: Path, earlier: list[Path]) -> dict[str, object]:
    """Every certificate with its proofs, as a zip file. `earlier`: checkpoints that an auditor
    kept; the bundle proves that the ledger continues them. Raises as `bundle_of` does."""
    bundle, summary = bundle_of(workspace, earlier)
    write_atomically(target, bundle, SHARED_MODE)
    return {"bundle": str(target), **summary}


def bundle_of(workspace: Shown, earlier: list[Path]) -> tuple[bytes, dict[str, object]]:
    """The bytes of that file, and what is told of it: what was closed by the entries that its
    checkpoint signs, no less and no more.

    Raises LedgerError when the ledger does not continue an earlier checkpoint, CertificateError
    when a certificate is not as the ledger recorded it, NotThere when there is none.
    """
    check_whole(workspace)
    leaves = workspace.ledger.leaves()
    kept = [read_checkpoint(_read(path), *workspace.signing.public_keys()) for path in earlier]
    for checkpoint in kept:
        check_continues(checkpoint, leaves)
    newest, signed = workspace.signing.write_checkpoint()
    events = workspace.ledger.events()[: newest.head.size]  # others may be closed meanwhile
    closed = fold(events).documents
    if not closed:
        raise NotThere(
            "expected at least one certificate, got none; `s3t request` and `s3t erase` make them"
        )
    certificates = {request: _certificate(workspace, request) for request in closed}
    files = make_bundle(certificates, newest, signed, events, kept)
    return _zipped(files), {
        "certificates": len(certificates),
        "ledger": newest.head.__dict__,
        "checkpoint": newest.time,
    }


def write_ledger(workspace: Shown, target: Path) -> dict[str, object]:
    """The whole ledger with a checkpoint of it, as a text file: keyed digests, no personal data."""
    newest, signed = workspace.signing.write_checkpoint()
    write_atomically(
        target, export_ledger(signed, workspace.ledger.entries()[: newest.head.size]), SHARED_MODE
    )
    return {"ledger": str(target), "entries": newest.head.size, "root": newest.head.root}


def _certificate(workspace: Shown, request: str) -> bytes:
    try:
        return read_regular(workspace.certificates_dir / f"{request}.json")
    except OSError:
        raise CertificateError(
            f"expected the certificate of {request} in .s3t/certificates, got none; restore it "
            "from the backup: it cannot be made again, its request is closed"
        ) from None


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise UsageError(
            f"expected a readable checkpoint at {path.name}, got {type(error).__name__}"
        ) from None


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """The same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
