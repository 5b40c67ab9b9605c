"""Verify evidence offline: no torch, no Prefect, no MLflow, no network. The public key comes from the auditor."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.adapters.keys import read_public_key
from s3t_core.erasure.certificate import check_statement
from s3t_core.erasure.checkpoint import CHECKPOINT_TYPE, read_checkpoint, read_export
from s3t_core.erasure.closing import CLOSING_TYPE, check_closing
from s3t_core.erasure.dsse import verify
from s3t_core.erasure.ledger import fold
from s3t_core.erasure.offline import NotValid, check_bundle, read_files
from s3t_core.erasure.report import REPORT_TYPE, parse_report
from s3t_core.errors import CertificateError, GuaranteeError, UsageError

_MOST_BYTES = 64 * 2**20
_MOST_LEDGER_BYTES = 4 * 2**30


def verify_path(path: Path, public_key: Path | Sequence[Path], earlier: Path | None = None) -> dict[str, Any]:
    """{"valid", "problems", "certificates"} and more by kind: a certificate, a directory of them, a report, a
    checkpoint, an evidence bundle (.zip) or an exported ledger (.jsonl). `earlier`: a checkpoint that the bundle must
    continue. Several public keys, when the controller changed theirs."""
    if not path.exists():
        raise UsageError("expected a certificate, a directory of them, a bundle or a ledger, got nothing at "
                         f"{path.name}")
    keys = [read_public_key(p) for p in ([public_key] if isinstance(public_key, Path) else public_key)]
    if earlier is not None and path.suffix != ".zip":
        raise UsageError("expected a bundle (.zip) with --checkpoint, got another kind of file")
    if path.suffix == ".zip":
        try:
            return check_bundle(read_files(path), keys, earlier.read_bytes() if earlier else None)
        except NotValid as error:
            return {"valid": False, "problems": [str(error)], "certificates": []}
        except OSError as error:
            raise UsageError(f"expected a readable checkpoint, got {type(error).__name__}") from None
    if path.suffix == ".jsonl":
        return _verify_ledger(path, keys)
    return _verify_files(path, keys)


def _verify_ledger(path: Path, keys: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"valid": True, "problems": [], "certificates": []}
    try:
        checkpoint, events = read_export(_content(path, _MOST_LEDGER_BYTES), *keys)
        state = fold(events)
    except GuaranteeError as error:
        return found | {"valid": False, "problems": [f"{path.name}: {error}"]}
    requests = sum(e["type"] == "request" for e in events)
    return found | {"ledger": {"size": checkpoint.head.size, "root": checkpoint.head.root, "signed": checkpoint.time,
                               "requests": requests, "certified": len(state.certified)}}


def _verify_files(path: Path, keys: list[Any]) -> dict[str, Any]:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UsageError("expected certificates (*.json) in the directory, got none")
    problems, verified = [], []
    checkpoints: list[dict[str, Any]] = []
    reports: list[dict[str, Any]] = []
    for file in files:
        try:
            envelope = _content(file, _MOST_BYTES)
            statement = verify(envelope, *keys)
            if statement.get("predicateType") == CHECKPOINT_TYPE:
                read = read_checkpoint(envelope, *keys)
                checkpoints.append({"file": file.name, "size": read.head.size, "root": read.head.root,
                                    "signed": read.time})
                continue
            if statement.get("predicateType") == CLOSING_TYPE:
                told = check_closing(statement)
                verified.append({"file": file.name, "request": told["request"]["id"],
                                 "closed": told["closing"]["kind"], "certified": told["closing"]["time"]})
                continue
            if statement.get("predicateType") == REPORT_TYPE:
                report = parse_report(statement)
                reports.append({"file": file.name, **report.period.model_dump(), **report.summary.model_dump()})
                continue
            predicate = check_statement(statement)
            verified.append({"file": file.name, "request": predicate["request"]["id"], "closed": "erased",
                             "certified": predicate["times"]["certified"], "versions": predicate["versions"],
                             "found": predicate["found"], "deactivated": len(predicate["deactivated"])})
        except CertificateError as error:
            problems.append(f"{file.name}: {error}")
    return {"valid": not problems, "problems": problems, "certificates": verified, "checkpoints": checkpoints,
            "reports": reports}


def _content(file: Path, most: int) -> bytes:
    if file.stat().st_size > most:
        raise CertificateError(f"expected evidence, got a file of more than {most} bytes")
    return file.read_bytes()
