"""Audit reports: `report.html` and `report.pdf` for people, `report.json` signed for whoever
checks."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flows.workspace.composing import software_versions
from flows.workspace.parts import HasBudget, HasConfig, HasSigning
from flows.workspace.verified import Verifiable, check_whole
from s3t_core.erasure.certificate import certificate_subject, make_statement
from s3t_core.erasure.dsse import sign, verify_signed
from s3t_core.erasure.ledger import correction_of, fold, head_of, leaf_of
from s3t_core.erasure.merkle import leaf_hash, roots_at
from s3t_core.erasure.report import build_report
from s3t_core.erasure.report_document import REPORT_TYPE, Report, parse_report
from s3t_core.erasure.state import State
from s3t_core.erasure.vocabulary import Event
from s3t_core.errors import NotNow, S3TError, StorageError, UsageError
from s3t_core.files import SHARED_MODE, read_regular, write_each_atomically
from s3t_core.times import rfc3339

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

_DAY = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)(-(?P<number>\d{1,6}))?")
_FIRST_YEAR = 1970
"""No clock of a computer's tells of an earlier one."""
_WINDOWS = {"h": "hours", "d": "days", "w": "weeks"}


class Reported(HasConfig, Verifiable, HasSigning, HasBudget, Protocol):
    """What a report tells of."""

    def key_of_documents(self) -> "Ed25519PrivateKey":
        """What it is signed by."""

    @property
    def reports_dir(self) -> Path:
        """Where reports are kept."""


def write_report(
    workspace: Reported,
    since: datetime | None,
    folder: Path | None = None,
    goes_on: Path | None = None,
) -> dict[str, object]:
    """Write the three files into `folder`, in the place of what is called so there, or, without
    one, into a new directory in `.s3t/reports`; {"html", "pdf", "json", "requests",
    "deadlines_missed", ...}. `goes_on`: a directory of earlier reports, of which none is to be left
    out: it begins where they end, if that is before `since`."""
    from flows.reporting.html import write_html
    from flows.reporting.pdf import write_pdf
    from flows.reporting.plots import pictures
    from flows.reporting.sections import document_of

    now = workspace.clock.now()
    if since is not None and since > now:
        raise UsageError(f"expected --since in the past, got {rfc3339(since)}")
    check_whole(workspace)
    entries = workspace.ledger.events()
    state = fold(entries)
    _refuse_unsaid_clock(state, rfc3339(now))
    leaves = [leaf_hash(leaf_of(event)) for event in entries]
    publics = workspace.signing.public_keys()
    replaced = {e["old"]: at for at, e in enumerate(entries) if e["type"] == "key"}
    ended = where_ended(goes_on, leaves, publics, replaced) if goes_on else None
    report = report_of(workspace, since, now, entries, ended)
    document = document_of(report, pictures(report))
    head = head_of(leaves)
    statement = make_statement(report, certificate_subject(state, head), REPORT_TYPE)
    shown = write_html(document), write_pdf(document)
    workspace.heads.check_again(workspace.ledger)  # it may have been another copy's place
    files = {
        "html": ("report.html", shown[0]),
        "pdf": ("report.pdf", shown[1]),
        "json": ("report.json", sign(statement, workspace.key_of_documents())),
    }
    try:
        folder = _of_today(workspace.reports_dir, rfc3339(now)[:10]) if folder is None else folder
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"could not make the directory for the report ({type(error).__name__}); pass another "
            "one with --out"
        ) from None
    write_each_atomically(folder, dict(files.values()), SHARED_MODE)
    return {
        **{kind: str(folder / name) for kind, (name, _) in files.items()},
        "since": report.period.since,
        "until": report.period.until,
        **report.summary.model_dump(mode="json"),
    }


def _of_today(reports: Path, day: str) -> Path:
    """A new directory for a report of a day (`2026-12-01`, then `2026-12-01-2`): one that was
    signed may be the only one that tells of its entries, and is not written over."""
    for number in count(1):
        folder = reports / (day if number == 1 else f"{day}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError("numbers do not end")


def reports_in(reports: Path) -> list[Path]:
    """The directories of reports there, the newest first."""
    found = [(m, p) for p in reports.glob("*") if (m := _DAY.fullmatch(p.name)) and p.is_dir()]
    found.sort(key=lambda each: (each[0]["day"], int(each[0]["number"] or 1)), reverse=True)
    return [path for _, path in found]


def _refuse_unsaid_clock(state: State, now: str) -> None:
    """Refuse to sign what hangs on a correction of the clock that is not on record: the next report
    of the same ledger would tell other times. Raises NotNow."""
    if correction_of(state, now):
        raise NotNow(
            "expected the ledger to tell of no time to come, got one: the clock was put back, and "
            "no entry says so yet, or this machine's is behind. Set it, where it is; else run "
            "`s3t erase`, which puts that on the record, then this again"
        )


def report_of(
    workspace: Reported,
    since: datetime | None,
    now: datetime,
    entries: list[Event] | None = None,
    at_latest: int | None = None,
) -> Report:
    """The report's content, by the ledger as it was at one moment: by `entries`, or by what
    it tells now. Requests may be closed while a report is made."""
    entries = workspace.ledger.events() if entries is None else entries
    state = fold(entries)
    recorded = (workspace.certificates_dir / f"{request}.json" for request in state.documents)
    documents = {path.stem: path.read_bytes() for path in recorded if path.is_file()}
    return build_report(
        workspace.config.system.name,
        entries,
        documents,
        since,
        now,
        workspace.budget.document,
        len(state.suppressed),
        software_versions(),
        at_latest,
    )


def where_ended(
    reports: Path,
    leaves: Sequence[bytes],
    publics: Sequence["Ed25519PublicKey"],
    replaced: Mapping[str, int],
) -> int | None:
    """Up to which entry of this ledger (`leaves`: the hash of each) reports in the directories of
    `reports` tell of it without a gap; None where there is none. Only what one of its keys signed
    counts, while it was in use (`replaced`: the entry that replaced a key, by the key's id), and of
    the history that it has: entries of now are told of by no report of one that was lost, or that
    somebody made."""
    found = []
    for path in sorted(reports.glob("*/report.json")):
        with contextlib.suppress(OSError, ValueError, S3TError):
            statement, key = verify_signed(read_regular(path), *publics)
            proof = parse_report(statement).ledger
            if proof.size <= replaced.get(key, proof.size):
                found.append(proof)
    roots = roots_at(leaves, [proof.size for proof in found])
    told = sorted(
        (proof.size_before, proof.size)
        for proof in found
        if proof.name == leaves[0].hex()
        and proof.size in roots
        and proof.root == roots[proof.size].hex()
    )
    if not told:
        return None
    end = told[0][1]
    for begin, size in told:
        if begin <= end:
            end = max(end, size)
    return end


def parse_since(text: str, now: datetime) -> datetime | None:
    """A day (2026-10-01), a time with zone, or how far back (30d, 12h, 2w). "", and whatever is
    before computers told the time, is the beginning. Raises UsageError."""
    since = _moment(text, now) if text else None
    return since if since is not None and since.year >= _FIRST_YEAR else None


def _moment(text: str, now: datetime) -> datetime | None:
    number, unit = text[:-1], text[-1]
    if unit in _WINDOWS and number.isdecimal():
        try:
            return now - timedelta(**{_WINDOWS[unit]: int(number)})
        except (
            OverflowError,
            ValueError,
        ):  # from before there was a calendar, or more digits than Python reads
            return None
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            "expected --since as a day (2026-10-01), a time (2026-10-01T12:00:00Z) or how far back "
            "(30d, 12h), got something else"
        ) from None
