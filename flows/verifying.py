"""Verify certificates offline: no torch, no Prefect, no MLflow, no network. The public key comes from the auditor."""

from pathlib import Path
from typing import Any

from flows.adapters.keys import read_public_key
from s3t_core.erasure.certificate import check_statement
from s3t_core.erasure.dsse import verify
from s3t_core.errors import CertificateError, UsageError

_MOST_BYTES = 64 * 2**20


def verify_path(path: Path, public_key: Path) -> dict[str, Any]:
    """{"valid", "problems", "certificates"}: one certificate file, or every one in a directory."""
    if not path.exists():
        raise UsageError(f"expected a certificate or a directory of them, got nothing at {path.name}")
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UsageError("expected certificates (*.json) in the directory, got none")
    key = read_public_key(public_key)
    problems, verified = [], []
    for file in files:
        try:
            if file.stat().st_size > _MOST_BYTES:
                raise CertificateError(f"expected a certificate, got a file of more than {_MOST_BYTES} bytes")
            predicate = check_statement(verify(file.read_bytes(), key))
            verified.append({"file": file.name, "request": predicate["request"]["id"],
                             "certified": predicate["times"]["certified"], "versions": predicate["versions"],
                             "found": predicate["found"], "deactivated": len(predicate["deactivated"])})
        except CertificateError as error:
            problems.append(f"{file.name}: {error}")
    return {"valid": not problems, "problems": problems, "certificates": verified}
