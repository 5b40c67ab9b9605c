"""The compliance report as a document: what it says, part by part, and the reading of one.

No personal data: requests appear by their ids. The schema (docs/schemas) is that of `Report`. GDPR
articles 5(2) and 12(3).
"""

from typing import Any, Literal

from pydantic import Field, ValidationError

from s3t_core.erasure.evidence_documents import MeasuredScore, Part
from s3t_core.erasure.outcome import ErasureOutcome
from s3t_core.erasure.vocabulary import ClosingKind, ExportStanding, ReleaseCause, Scope
from s3t_core.errors import CertificateError

REPORT_TYPE = "urn:s3t:compliance-report:v1"


Outcome = Literal["open"] | ErasureOutcome | ClosingKind
Use = Literal["answers", "stands by", "silenced", "empty"]
Document = Literal["as recorded", "missing", "other bytes", "none yet"]


class Period(Part):
    """What the report is about. Times are RFC 3339 UTC."""

    since: str = Field(
        description="start, included; the first entry of the ledger when none was asked for"
    )
    until: str = Field(description="end: when the report was made")


class RequestEntry(Part):
    """One request that was open at some time of the period."""

    left_out = ("extended_from",)

    id: str
    scope: Scope
    received: str
    due: str
    clock_corrected: bool = Field(
        description="it came by a clock that had run ahead and was put right since: received "
        "and due are what holds, and how long it took is not known"
    )
    outcome: Outcome
    rows: int = Field(description="stored rows that its erasure found")
    closed: str | None = Field(description="when its closing document was signed")
    met: bool | None = Field(
        description="closed by the due time (a rejection by extended_from, where its time was "
        "extended: GDPR 12(4)), with the document as the ledger recorded it; null "
        "while it is open and not due yet, for a document that is not there, and for "
        "one that is late by a clock that was corrected"
    )
    approver: str
    legal_basis: str = Field(description="of a rejection: an article of the GDPR")
    plan: str = Field(description="the erasure that carried it out")
    seconds_to_cut_over: int | None = Field(
        description="from received until no new prediction used the person's data"
    )
    seconds_to_certificate: int | None
    document_sha256: str
    document: Document = Field(description="the closing document on disk, held against the ledger")
    extended_from: str | None = Field(
        default=None, description="when it was due before its time was extended (GDPR 12(3))"
    )


class Timing(Part):
    """Seconds over the requests erased in the period; null without any."""

    median: float | None
    worst: int | None


class Summary(Part):
    """Counts of `requests`. One whose closing document is missing or has other bytes is counted by
    nothing but `requests` and `without_document`."""

    requests: int
    without_document: int
    erased: int = Field(description="with a certificate, and rows that were found")
    nothing_found: int = Field(description="with a certificate that says that nothing was there")
    rejected: int
    withdrawn: int
    open: int
    deadlines_met: int = Field(description="closed by their due time")
    deadlines_missed: int = Field(description="closed late, or open and overdue")
    to_cut_over: Timing
    to_certificate: Timing


class SliceName(Part):
    """A slice by its shard and number, from 0."""

    shard: int
    slice: int


class ErasureEntry(Part):
    """One erasure that was completed in the period: a batch of requests."""

    left_out = ("score_before", "score_after")

    plan: str
    planned: str
    cut_over: str
    certified: str
    requests: int
    slices: tuple[SliceName, ...] = Field(description="slices that held rows of the requests")
    held_out_touched: bool
    stages_deactivated: int
    collateral_rows: int = Field(
        description="live rows of others that the model does not use until a retrain"
    )
    data_objects_destroyed: int
    quarantined_rows_destroyed: int
    versions_destroyed: tuple[str, ...]
    old_version_refused_after_seconds: float
    scanned_files: int
    scanned_bytes: int
    needles: int
    unsearchable: int
    matches_in_rows_of_others: int
    copies_outside: int
    accuracy_before: float | None
    accuracy_after: float | None
    score_before: MeasuredScore | None = None
    score_after: MeasuredScore | None = None


class ShardUse(Part):
    """Which slices of a shard a version may use; none: the shard is dead."""

    shard: int
    slices: tuple[int, ...]


class VersionEntry(Part):
    """A model version that served at some time of the period."""

    left_out = ("score",)

    version: str
    cause: ReleaseCause
    served_from: str
    served_until: str | None
    destroyed: bool
    dataset: str
    accuracy: float | None
    score: MeasuredScore | None = None
    uses: tuple[ShardUse, ...]


class ExportEntry(Part):
    """A checkpoint that was put outside the workspace, and what has become of it."""

    export: str
    release: str
    exported: str
    standing: ExportStanding = Field(
        description="stale: it has a part that learned from somebody who was erased since, and was "
        "not where it had been put: the operator's to replace"
    )


class BudgetPoint(Part):
    """The deletion-rate budget when a version began to serve."""

    time: str
    version: str
    live_depths: tuple[int, ...]
    mean_live_depth: float
    requests_erased: int = Field(
        description="since the ledger began; those that found nobody are none"
    )
    certain_requests_left: int | None
    exhausted: bool


class SliceUse(Part):
    """What the serving version makes of a slice."""

    slice: int
    rows: int
    use: Use


class ShardPicture(Part):
    """A shard of the serving version."""

    shard: int
    live_depth: int
    slices: tuple[SliceUse, ...]


class ReplayEntry(Part):
    """Live stages that were trained again and compared byte for byte."""

    time: str
    version: str
    live: int
    same_profile: bool
    same: int
    other: int


class Act(Part):
    """Something a person decided, or a full retrain: what, when, by whom."""

    time: str
    kind: Literal[
        "hold set",
        "hold released",
        "deadline extended",
        "suppression lifted",
        "signing key changed",
        "signing key lost",
        "intake host added",
        "intake host removed",
        "checkpoints kept elsewhere",
        "checkpoints lost",
        "retrain wanted",
        "retrain triggered",
        "retrain failed",
        "retrain finished",
        "clock corrected",
        "healed after a restore",
        "moved",
        "request deferred",
        "request uncertified",
        "erasure resumed",
    ]
    by: str
    detail: str


class LedgerProof(Part):
    """Heads at the period's start and end, and the RFC 6962 proof that the second continues the
    first."""

    name: str
    size_before: int = Field(description="entries before the period; 0: it begins with the ledger")
    root_before: str
    size: int
    root: str
    consistency: tuple[str, ...]


class Report(Part):
    """Everything the report says."""

    left_out = ("exports",)

    system: str
    period: Period
    summary: Summary
    requests: tuple[RequestEntry, ...]
    erasures: tuple[ErasureEntry, ...]
    versions: tuple[VersionEntry, ...]
    exports: tuple[ExportEntry, ...] | None = None
    budget_policy: str
    budget: tuple[BudgetPoint, ...]
    picture: tuple[ShardPicture, ...]
    replays: tuple[ReplayEntry, ...]
    acts: tuple[Act, ...]
    suppressed: int = Field(description="subjects and records on the suppression list now")
    ledger: LedgerProof
    software: dict[str, str]
    limits: tuple[str, ...]
    not_proved: tuple[str, ...]


def parse_report(statement: dict[str, Any]) -> Report:
    """The report that a statement holds. Raises CertificateError for any other statement."""
    if statement.get("predicateType") != REPORT_TYPE:
        raise CertificateError(f"expected a statement of type {REPORT_TYPE}, got another document")
    try:
        return Report.model_validate(statement.get("predicate"))
    except ValidationError as error:
        raise CertificateError(
            f"expected a report as its schema says, got {error.error_count()} other value(s)"
        ) from None
