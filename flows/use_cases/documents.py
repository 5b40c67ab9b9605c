"""What commands say with --json, member by member. Others script against the names: they stay, and
new ones come beside them. Times are RFC 3339, shares and accuracies 0 to 1."""

from typing import (
    Any,
    Literal,
    NotRequired,  # pydantic reads these alone
)

from typing_extensions import TypedDict

from s3t_core.domain import Combine, Score
from s3t_core.erasure.outcome import ErasureOutcome
from s3t_core.erasure.vocabulary import ExportStanding


class ErasedBefore(TypedDict):
    """Which request erased somebody, and when."""

    request: str
    time: str


class PersonFound(TypedDict):
    """Whether somebody who was asked for is in the data. `hashed`: the hash, where one was given;
    `request`: in which request they are; `line`: where the id stands in the file that was given,
    from 1; the rest as finding.Finding says."""

    subject: str
    hashed: str
    request: str
    found: str
    nearly: str
    spellings: list[str]
    others: int
    why: str
    erased: ErasedBefore | None
    line: NotRequired[int | None]


class RequestEntry(TypedDict):
    """A request and what becomes of it (closing.RequestView). `lifted`: it was carried out, and
    what it kept out of the data was let in again since."""

    id: str
    received: str
    due: str
    state: str
    lifted: NotRequired[bool]


class TakenDocument(TypedDict):
    """`s3t request`: the requests, those of them that were open before, and who is in the data."""

    requests: list[RequestEntry]
    open_before: list[str]
    found: list[PersonFound]


class TokenEntry(TypedDict):
    """A token of the HTTP door: whose it is, what it is for, until when; `good`: whether it opens
    anything now."""

    id: str
    name: str
    roles: list[str]
    made: str
    expires: str
    revoked: str | None
    good: bool


class IntakeEntry(TypedDict):
    """A host apart that takes requests, or took them: the id of its key, how it is called."""

    key: str
    name: str
    takes_requests: bool


class TokenMade(TokenEntry):
    """`s3t token make`: with what its holder sends, this once."""

    token: str


class HeldDocument(TypedDict):
    """`s3t hold`: how many open requests wait."""

    held: bool
    waiting: int
    found: list[PersonFound]


class RequestListed(RequestEntry):
    """A request as `s3t requests` lists it: days until it is due, negative once that has passed,
    None for a closed one; rows that were erased; "subject" or "record"; how many other spellings of
    the id are in the data, None where nobody can say; when it was due before its time was extended,
    None where nobody did."""

    days_left: float | None
    rows: int
    scope: str
    others: NotRequired[int | None]
    extended_from: NotRequired[str | None]


class HistoryEntry(TypedDict):
    """Something that happened to a request: the kind of ledger entry, who decided it, and what else
    it tells that names nobody."""

    time: str
    event: str
    by: str
    detail: str


class RequestDocument(RequestListed):
    """One request, with what happened to it, oldest first, and the digest of its closing document,
    None while it is open."""

    history: list[HistoryEntry]
    document_sha256: str | None


class RequestsDocument(TypedDict):
    """`s3t requests`."""

    requests: list[RequestListed]


class Certified(TypedDict):
    """What one request came to, and its certificate's file. `others`: how many people in the data
    have an id that is spelt nearly so, and stay, None where nobody can say."""

    request: str
    outcome: ErasureOutcome
    rows: int
    path: str
    others: int | None
    erased_before: ErasedBefore | None


class Waiting(TypedDict):
    """An open request that no erase run may carry out."""

    request: str
    state: str
    due: str


class Step(TypedDict):
    """Which command follows, "" for none, and why."""

    command: str
    why: str


class ErasureDocument(TypedDict):
    """`s3t erase`. `retrain`: what came of the full retrain; `healed`: as reconciling.Healed;
    `stale_exports`: checkpoints that are the operator's to replace;
    `ids_lost`: of how many requests the ids could not be searched for."""

    version: str | None
    certificates: list[Certified]
    deactivated: int
    seconds: float
    retrain: str
    problem: str
    found_outside: list[str]
    stale_exports: NotRequired[list[str]]
    ids_lost: int
    documents: dict[str, Any]
    healed: dict[str, Any]
    waiting: list[Waiting]
    next: NotRequired[Step]


class ScoreEntry(TypedDict):
    """How well the held-out rows are answered; `low` to `high`: its 95% interval; `combine`: how
    the shards answered, `otherwise`: the same the other way."""

    metric: str
    value: float
    higher_is_better: bool
    low: float | None
    high: float | None
    combine: NotRequired[Combine]
    otherwise: NotRequired["ScoreEntry"]


class VersionEntry(TypedDict):
    """A model version as the ledger has it."""

    version: str
    release: str
    cause: str
    served_from: str
    served_until: str | None
    destroyed: bool
    combine: Combine
    score: ScoreEntry | None


def score_entry(score: Score | None) -> ScoreEntry | None:
    """A score as JSON values; None for none."""
    if score is None:
        return None
    entry: ScoreEntry = {
        "metric": score.metric,
        "value": score.value,
        "higher_is_better": score.higher_is_better,
        "low": score.low,
        "high": score.high,
    }
    if score.combine is not None:
        entry["combine"] = score.combine
    if (other := score_entry(score.otherwise)) is not None:
        entry["otherwise"] = other
    return entry


class TrainingDocument(TypedDict):
    """`s3t train`, `retrain` and `repair`, as training.TrainReport; why the accuracy is not known,
    "" where it is; what of the data is thin."""

    trained: int
    reused: int
    version: str
    accuracy: float | None
    score: ScoreEntry | None
    seconds: float
    missing: int
    unmeasured: NotRequired[str]
    thin: NotRequired[list[str]]


class IngestDocument(TypedDict):
    """`s3t ingest`, as ingesting.IngestReport."""

    records: int
    held_out: int
    quarantined: int
    suppressed: int
    nearly: int
    subjects: int
    reasons: dict[str, int]
    warnings: dict[str, int]
    rows_per_slice: list[list[int]]
    largest_subjects: list[int]
    dataset_version: str
    changed: bool
    read_as: str
    notes: list[str]
    refused_labels: dict[str, int]


class ReplicaEntry(TypedDict):
    """A replica's order of slices, and its live depth."""

    sequence: list[int]
    depth: int


class ShardEntry(TypedDict):
    """A shard's live depth, which is that of its deepest replica."""

    shard: int
    live_depth: int
    replicas: list[ReplicaEntry]


class RetrainEntry(TypedDict):
    """Where the full retrain stands, and since when."""

    state: str
    time: str


class HeadEntry(TypedDict):
    """The ledger's entries and the root of their tree, hex."""

    size: int
    root: str


class ExportDocument(TypedDict):
    """`s3t export`: its name, where it lies, of which release, SHA-256 by file; the earlier ones in
    whose place it came."""

    export: str
    directory: str
    release: str
    version: str
    files: dict[str, str]
    bytes: int
    replaced: list[str]


class ExportEntry(TypedDict):
    """An exported checkpoint, and what has become of it (erasure.vocabulary). `in_place`: whether
    it lies where it was put."""

    export: str
    release: str
    time: str
    place: str
    standing: ExportStanding
    in_place: bool


class CheckpointDocument(TypedDict):
    """`s3t verify` of an exported checkpoint: which export of which release it is, "" for none,
    and whether that serves."""

    path: str
    export: str
    release: str
    serves: bool
    problems: list[str]


class StatusDocument(TypedDict):
    """`s3t status`. `deletion_budget`: as budget.budget_document, with `forecast`; `registry`: what
    it says otherwise than the ledger."""

    name: str
    version: str | None
    accuracy: float | None
    score: ScoreEntry | None
    unmeasured: str
    dataset_version: str | None
    records: int
    held_out: int
    shards: list[ShardEntry]
    pending: list[RequestEntry]
    documents: dict[str, list[str]]
    certified: int
    withdrawn_or_rejected: int
    full_retrain: RetrainEntry | None
    interrupted_erasure: bool
    deletion_budget: dict[str, Any]
    ledger: HeadEntry
    registry: NotRequired[list[str]]
    exports: NotRequired[list[ExportEntry]]


class DeploymentEntry(TypedDict):
    """A schedule of `s3t serve`."""

    name: str
    cron: str
    active: bool
    does: str


class ServingDocument(TypedDict):
    """`s3t serve`."""

    url: str
    deployments: list[DeploymentEntry]


Answer = dict[str, Any]
"""What a model answers to one text: `label` and `probabilities` (classification), `labels` and
`probabilities` (multilabel), `value` (regression), `text`, `finish`, `tokens` and `prompt_tokens`
(generation)."""


class CallbackEntry(TypedDict):
    """A message, and what has become of it. `target`: its URL, "" for one that is no more among
    [callbacks] targets; `type`: what it tells; `next`: when it is sent next, null for one that is
    not; `answer`: what the last attempt came to, "" before the first."""

    message: str
    target: str
    type: str
    request: str
    state: Literal["waiting", "delivered", "dead"]
    attempts: int
    next: str | None
    answer: str


class CallbacksSent(TypedDict):
    """What a pass came to: messages that went, that will be tried again, and that were given up."""

    delivered: int
    failed: int
    dead: int


class CallbacksListed(TypedDict):
    """`s3t callbacks list`."""

    callbacks: list[CallbackEntry]
