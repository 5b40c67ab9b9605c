"""What signed documents say, part by part: the erasure certificate, the document of a withdrawal or
rejection, the ledger's checkpoint.

Each is the predicate of an in-toto Statement (v1) in a DSSE envelope. The schemas that docs/schemas
publishes are those of `CertificateStatement`, `ClosingStatement` and `CheckpointStatement`. Times
are RFC 3339 UTC, digests SHA-256 in hex where nothing else is said, data subjects appear as salted
commitments, rows as counts. GDPR articles 5(2), 12(3) to 12(6), 17.
"""

from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from s3t_core.domain import Score
from s3t_core.erasure.outcome import ErasureOutcome
from s3t_core.erasure.vocabulary import ClosingKind, Scope

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
CERTIFICATE_TYPE = "urn:s3t:erasure-certificate:v1"
CLOSING_TYPE = "urn:s3t:request-closing:v1"
CHECKPOINT_TYPE = "urn:s3t:ledger-checkpoint:v1"

Number = int | float
"""As it was written: 5 and 5.0 are other bytes."""


class Part(BaseModel):
    """Frozen; what is not declared is refused. `left_out`: members that are not written while there
    is nothing to say, as documents of before there were such members have none."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    left_out: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        document: dict[str, object] = write(self)
        return {k: v for k, v in document.items() if v is not None or k not in self.left_out}

    def to_json(self) -> dict[str, object]:
        """JSON values."""
        return self.model_dump(mode="json")


class Subject(Part):
    """What a statement is about, by in-toto: a name and digests by their algorithm."""

    name: str
    digest: dict[str, str]


# --- the certificate


class RequestAsked(Part):
    """The request, its deadline and who approved it."""

    left_out = ("extended_from",)

    id: str
    received: str
    due: str
    scope: Scope
    met: bool | None = Field(
        description="certified by the due time; null where a clock that was put right makes it "
        "look late"
    )
    clock_corrected: bool
    jurisdiction: str
    approver: str
    extended_from: str | None = Field(
        default=None, description="when it was due before its time was extended (GDPR 12(3))"
    )


class Committed(Part):
    """Who asked, as a salted commitment that the controller can open."""

    commitment: str
    asked_by: str = Field(description='"id", or the kind of hash that the id came as')
    scheme: str


class Found(Part):
    """What was there of the person, and whether the id itself was searched for."""

    outcome: ErasureOutcome
    rows: int = Field(description="stored rows")
    training_rows: int
    held_out_rows: int
    rows_in_earlier_data_versions: int
    quarantined_rows: int
    known: bool
    erased_before_by_request: str = Field(description='id of an earlier request, "" for none')
    id_searched: bool = Field(
        description="false where the id came as a hash, or was lost: rows are then found by digest"
    )
    row_commitments: list[str] = Field(description="one per distinct stored row")
    row_commitment_scheme: str


class SliceTouched(Part):
    """A slice of the data that held a row of the plan's."""

    shard: int
    slice: int


class Batch(Part):
    """The erasure that carried the request out, with others at once."""

    plan: str
    requests: int
    slices: list[SliceTouched]
    held_out_touched: bool
    collateral_rows: int = Field(
        description="live training rows in those slices that the serving version learned nothing "
        "from"
    )


class Times(Part):
    """When each step was done, and the waits that were declared, in seconds."""

    planned: str
    alias_moved: str
    old_version_refused_after_seconds: Number
    offline_use_declared_seconds: Number
    deleted_bytes_kept_declared_seconds: Number
    destroyed: str
    scanned: str
    certified: str
    clock_corrected: bool = Field(
        description="the clock was put right meanwhile: the times do not follow each other"
    )


class VersionsAround(Part):
    """The model version before and after, what was destroyed, and how many stages of each shard
    answer now."""

    before: str | None
    after: str | None
    destroyed: list[str]
    live_depths: dict[str, int]


class LiveStage(Part):
    """A stage of the version that serves, with the slices that fed it: none of the erased."""

    digest: str
    shard: int
    slices: list[int]


class DatasetsAround(Part):
    """The data version (DVC's name) before and after."""

    before: str | None
    after: str | None


class Deactivated(Part):
    """A stage that saw a row of the plan's. `stage` counts from 1."""

    key: str
    digest: str
    shard: int
    stage: int
    slices: list[int]


class DestroyedThings(Part):
    """Digests of what was destroyed; of rows in quarantine their number."""

    stages: list[str]
    data_objects_md5: list[str]
    quarantined_rows: int
    stages_of_no_recorded_data: list[str]


class ScanCounts(Part):
    """What was searched, and how much of it was found: nothing, else there is no certificate."""

    files: int
    bytes: int
    needles: int
    unsearchable: int
    lost: int
    shared: int
    outside: int
    residue: int


class AccuracyAround(Part):
    """Held-out accuracy, 0 to 1; null where nothing was measured."""

    before: Number | None
    after: Number | None


class MeasuredScore(Part):
    """How well held-out rows were answered: `value` of a `metric` in its own units, with its 95%
    confidence interval from `low` to `high`, null where none is known."""

    metric: str
    value: Number
    higher_is_better: bool
    low: Number | None
    high: Number | None

    @classmethod
    def of(cls, score: Score | None) -> "MeasuredScore | None":
        """A score as a document tells it. None of none, and of an accuracy that is told elsewhere
        and has no interval."""
        if score is None or (score.accuracy is not None and score.low is None):
            return None
        return cls(
            metric=score.metric,
            value=score.value,
            higher_is_better=score.higher_is_better,
            low=score.low,
            high=score.high,
        )

    def score(self) -> Score:
        """The score that the document tells."""
        return Score(
            self.metric,
            self.value,
            self.higher_is_better,
            self.low,
            self.high,
        )


class ScoreAround(Part):
    """The score of the version before, and of the one that serves since; null where nothing was
    measured."""

    before: MeasuredScore | None
    after: MeasuredScore | None


class ExportsReached(Part):
    """Exported checkpoints with a stage that saw a row of the plan's: those that were where they
    had been put, and destroyed there, and those that were not, and are stale: the operator's to
    replace."""

    destroyed: list[str]
    stale: list[str]


class ScanProof(Part):
    """The ledger's entry of the scan, with its RFC 6962 inclusion proof under the head that is
    named."""

    name: str
    size: int
    root: str
    entry: dict[str, Any]
    index: int
    proof: list[str]


class Certificate(Part):
    """What a certificate says about one request."""

    left_out = ("score", "exports")

    request: RequestAsked
    subject: Committed
    found: Found
    batch: Batch
    times: Times
    versions: VersionsAround
    live: list[LiveStage]
    dataset: DatasetsAround
    deactivated: list[Deactivated]
    destroyed: DestroyedThings
    exports: ExportsReached | None = None
    scan: ScanCounts
    accuracy: AccuracyAround
    score: ScoreAround | None = None
    deletion_budget: dict[str, Any] | None
    ledger: ScanProof
    software: dict[str, str]
    not_covered: list[str]


# --- the document of a withdrawal or rejection


class RequestClosed(Part):
    """The request that was closed without an erasure."""

    id: str
    received: str
    due: str
    scope: Scope


class CommittedAlone(Part):
    """Who asked, as a salted commitment that the controller can open."""

    commitment: str
    scheme: str


class ClosedHow(Part):
    """How, by whom and why."""

    kind: ClosingKind
    time: str
    by: str
    legal_basis: str = Field(description='an article of the GDPR, "" for a withdrawal')
    basis_in_short: str
    reason: str


class LedgerHead(Part):
    """The ledger's head just before."""

    name: str
    size: int
    root: str


class ClosingSaid(Part):
    """What the document says by which a request ends as a withdrawal or a rejection."""

    request: RequestClosed
    subject: CommittedAlone
    closing: ClosedHow
    ledger: LedgerHead


# --- the checkpoint


class CheckpointSaid(Part):
    """How long the ledger was, and its RFC 6962 root. `ledger` is its name: the leaf hash of its
    first entry."""

    ledger: str
    size: int
    root: str
    time: str


# --- the statements


class Statement(Part):
    """What every signed document is, by in-toto; what it says is its predicate."""

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[Subject]


class CertificateStatement(Statement):
    """A certificate as it is signed."""

    model_config = ConfigDict(title="S3T erasure certificate")

    predicateType: Literal["urn:s3t:erasure-certificate:v1"]  # noqa: N815
    predicate: Certificate


class ClosingStatement(Statement):
    """The document of a withdrawal or rejection as it is signed."""

    model_config = ConfigDict(title="S3T request closing")

    predicateType: Literal["urn:s3t:request-closing:v1"]  # noqa: N815
    predicate: ClosingSaid


class CheckpointStatement(Statement):
    """A checkpoint as it is signed."""

    model_config = ConfigDict(title="S3T ledger checkpoint")

    predicateType: Literal["urn:s3t:ledger-checkpoint:v1"]  # noqa: N815
    predicate: CheckpointSaid


SCHEMAS: dict[str, type[Statement]] = {
    "erasure-certificate.v1": CertificateStatement,
    "request-closing.v1": ClosingStatement,
    "ledger-checkpoint.v1": CheckpointStatement,
}
"""The published schemas, by their names in docs/schemas."""
