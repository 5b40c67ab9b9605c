"""Files of evidence: which kind each is, and what is read of it."""

import errno
from pathlib import Path
from typing import Any

from s3t_core.erasure.certificate import check_statement
from s3t_core.erasure.checkpoint import checkpoint_of
from s3t_core.erasure.closing import check_closing
from s3t_core.erasure.evidence_documents import CHECKPOINT_TYPE, CLOSING_TYPE
from s3t_core.erasure.report_document import REPORT_TYPE, parse_report
from s3t_core.errors import CertificateError
from s3t_core.files import read_regular

MOST_BYTES = 64 * 2**20
"""Of a document."""
MOST_LEDGER_BYTES = 4 * 2**30


def is_bundle(path: Path) -> bool:
    """Also one that was unpacked, into a directory of such a name."""
    return path.suffix == ".zip"


def is_ledger(path: Path) -> bool:
    """Whether it is called as an exported ledger is."""
    return path.suffix == ".jsonl"


def is_folder(path: Path) -> bool:
    """Whether it is a directory of documents."""
    return path.is_dir() and not is_bundle(path) and not is_ledger(path)


def documents_in(path: Path) -> list[Path]:
    """The documents of a directory of them, or the file itself."""
    return sorted(path.glob("*.json")) if is_folder(path) else [path]


def summary_of(statement: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Which kind of evidence a statement is ("certificates", "checkpoints", "reports"), and what it
    says. Raises CertificateError."""
    kind = statement.get("predicateType")
    if kind == CHECKPOINT_TYPE:
        read = checkpoint_of(statement)
        return "checkpoints", {"size": read.head.size, "root": read.head.root, "signed": read.time}
    if kind == CLOSING_TYPE:
        closing = check_closing(statement)
        return "certificates", {
            "request": closing["request"]["id"],
            "closed": closing["closing"]["kind"],
            "certified": closing["closing"]["time"],
        }
    if kind == REPORT_TYPE:
        report = parse_report(statement)
        return "reports", {**report.period.model_dump(), **report.summary.model_dump()}
    predicate = check_statement(statement)
    return "certificates", {
        "request": predicate["request"]["id"],
        "closed": predicate["found"]["outcome"],
        "rows": predicate["found"]["rows"],
        "certified": predicate["times"]["certified"],
        "versions": predicate["versions"],
        "found": predicate["found"],
        "deactivated": len(predicate["deactivated"]),
    }


def content_of(file: Path, most: int = MOST_BYTES) -> bytes:
    """What a file holds. Raises CertificateError for more than `most` bytes, and for no file."""
    try:
        return read_regular(file, most)
    except OSError as error:
        got = (
            f"a file of more than {most} bytes"
            if error.errno == errno.EFBIG
            else (f"what is no file that can be read ({error.strerror or type(error).__name__})")
        )
        raise CertificateError(f"expected evidence, got {got}") from None
