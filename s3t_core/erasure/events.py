"""What happened: one frozen class for each kind of ledger entry, and how it stands in the ledger.

What each kind says is in s3t_core.erasure.ledger, when it is taken in s3t_core.erasure.rules. An
entry is the canonical JSON of `to_json`, and is read by s3t_core.erasure.event_reader: members are
named as the fields are, `type` and, of a step, `step` say which class it is. A field that may be
left out is left out while it has its default. Times are RFC 3339 in UTC, digests are hexadecimal.
No entry has an id or a text of anybody's data: people are keyed digests, which are pseudonyms for
whoever has the key; what somebody typed (`by`, `reason`) is held against the data before it is
taken.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from s3t_core.domain import Combine, DatasetVersion, Release, Score, StageRecord, as_accuracy
from s3t_core.erasure.dataset_json import dataset_to_json
from s3t_core.erasure.plan import ErasurePlan, plan_to_json
from s3t_core.erasure.vocabulary import (
    ClosingKind,
    Event,
    HoldState,
    IntakeState,
    MoveState,
    ReleaseCause,
    RetrainState,
    Scope,
)
from s3t_core.release_json import (
    release_to_json,
    score_to_json,
    stage_to_json,
)

JsonObject = dict[str, Any]
"""An object of JSON values."""
_MAY_BE_LEFT_OUT = {"left_out": True}


@dataclass(frozen=True, kw_only=True)
class LedgerEvent:
    """What all of them have: when it happened, by the clock of who tells, and the token of the
    lease under which it was written, "" without one."""

    type: ClassVar[str]
    time: str
    lease: str = field(default="", metadata=_MAY_BE_LEFT_OUT)

    def to_json(self) -> Event:
        """The entry, as JSON values."""
        entry: Event = {"type": self.type}
        for each in fields(self):
            value = getattr(self, each.name)
            if "left_out" not in each.metadata or value != each.default:
                entry[each.name] = _json_of(value)
        return entry


def as_json(event: LedgerEvent | Event) -> Event:
    """The entry of an event; what is one already stays as it is."""
    return event.to_json() if isinstance(event, LedgerEvent) else event


def _json_of(value: object) -> object:
    for kind, to_json in _CODECS.items():
        if isinstance(value, kind):
            return to_json(value)
    return value


_CODECS: dict[type, Callable[[Any], Any]] = {
    DatasetVersion: dataset_to_json,
    ErasurePlan: plan_to_json,
    Release: release_to_json,
    Score: score_to_json,
    StageRecord: stage_to_json,
    tuple: list,
    frozenset: sorted,
}


# --- the workspace


@dataclass(frozen=True, kw_only=True)
class WorkspaceBegan(LedgerEvent):
    """The first entry of every ledger."""

    type = "workspace"
    key_check: str = ""
    signing_key: str = ""


@dataclass(frozen=True, kw_only=True)
class ClockCorrected(LedgerEvent):
    """`before`: the time that the newest entry had told."""

    type = "clock"
    before: str


@dataclass(frozen=True, kw_only=True)
class SettingsSettled(LedgerEvent):
    """Settings by their names."""

    type = "settled"
    settings: JsonObject


@dataclass(frozen=True, kw_only=True)
class CacheNamed(LedgerEvent):
    """`dir`: where DVC keeps data from now on; `shared`: whether other projects do too."""

    type = "cache"
    dir: str
    shared: bool


@dataclass(frozen=True, kw_only=True)
class CheckpointsPlaced(LedgerEvent):
    """`place`: the directory outside, "" for none; `lost`: whether the one before is."""

    type = "checkpoints"
    place: str
    by: str
    lost: bool


@dataclass(frozen=True, kw_only=True)
class ExperimentNamed(LedgerEvent):
    """As state.ExperimentRecord has it."""

    type = "experiment"
    registry: str
    id: str
    location: str
    created: int


@dataclass(frozen=True, kw_only=True)
class KeyReplaced(LedgerEvent):
    """`old`, `new`: ids of keys; `old_public` the replaced one itself; `vouched` its signature of
    the new one's id, "" where it was lost."""

    type = "key"
    old: str
    new: str
    by: str
    lost: bool
    old_public: str
    vouched: str


@dataclass(frozen=True, kw_only=True)
class IntakeAdded(LedgerEvent):
    """A host apart may take requests from now on. `key`: the id of the key by which
    it signs checkpoints of what it took, and nothing else; `public` that key, raw; `seals_to` the
    X25519 key, raw, to which it seals ids as given; `called`: how people call it."""

    type = "intake"
    state: IntakeState = "added"
    key: str
    public: str
    seals_to: str
    called: str
    by: str


@dataclass(frozen=True, kw_only=True)
class IntakeRemoved(LedgerEvent):
    """The host with that key may take no more."""

    type = "intake"
    state: IntakeState = "removed"
    key: str
    by: str


@dataclass(frozen=True, kw_only=True)
class MoveBegun(LedgerEvent):
    """`old`, `new`: sections of settings, by name, that tell of the places."""

    type = "moving"
    state: MoveState = "begun"
    move: str
    old: JsonObject
    new: JsonObject


@dataclass(frozen=True, kw_only=True)
class MoveUndone(LedgerEvent):
    """The move of that name."""

    type = "moving"
    state: MoveState = "undone"
    move: str


@dataclass(frozen=True, kw_only=True)
class MoveEnded(LedgerEvent):
    """The places that the move of that name left are emptied."""

    type = "moving"
    state: MoveState = "ended"
    move: str


@dataclass(frozen=True, kw_only=True)
class Migrated(LedgerEvent):
    """`versions`: run id, model id and digest of the document by version; `runs`: copies by what
    they are of. `move` is "" where a version was registered again under its number."""

    type = "migrated"
    move: str
    settings: JsonObject
    versions: JsonObject
    runs: JsonObject | None = field(default=None, metadata=_MAY_BE_LEFT_OUT)


# --- data and training


@dataclass(frozen=True, kw_only=True)
class DatasetChanged(LedgerEvent):
    """`cause`: an "ingest", or an "erasure"."""

    type = "dataset"
    cause: str
    dataset: DatasetVersion


@dataclass(frozen=True, kw_only=True)
class BackboneUsed(LedgerEvent):
    """A model id with the digests of what was found under it."""

    type = "backbone"
    model: str
    digest: str
    tokenizer_digest: str


@dataclass(frozen=True, kw_only=True)
class TrainingBegan(LedgerEvent):
    """`run`: the id of its run in the registry."""

    type = "training"
    run: str


@dataclass(frozen=True, kw_only=True)
class StageTrained(LedgerEvent):
    """The stage, with the digest that its key is bound to."""

    type = "stage"
    stage: StageRecord


@dataclass(frozen=True, kw_only=True)
class ReleaseServes(LedgerEvent):
    """A version was registered, and serves. `release` and `recipe` as JSON values; `document`: the
    digest of its files, stages left out; `staleness`, `offline`: seconds that a loaded one may
    trust its last confirmation, with and without a registry that answers; `combine`: how its shards
    answer, as votes where nothing is said."""

    type = "release"
    cause: ReleaseCause
    release: Release
    recipe: JsonObject
    version: str
    run_id: str
    model_id: str
    document: str
    staleness: float
    offline: float = 0.0
    combine: Combine = field(default="votes", metadata=_MAY_BE_LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class ReleaseMeasured(LedgerEvent):
    """`accuracy`: 0 to 1, None where it is not known, or another metric decides. `score`: what was
    measured, where an accuracy alone does not say it."""

    type = "measured"
    release: str
    accuracy: float | None
    score: Score | None = field(default=None, metadata=_MAY_BE_LEFT_OUT)

    @classmethod
    def of(
        cls,
        time: str,
        release: str,
        score: Score | None,
    ) -> "ReleaseMeasured":
        """The event of a score, None where none is known."""
        accuracy = score.accuracy if score else None
        is_accuracy = score == as_accuracy(accuracy)
        return cls(
            time=time,
            release=release,
            accuracy=accuracy,
            score=None if is_accuracy else score,
        )

    @property
    def measured(self) -> Score | None:
        """The score, however it was told."""
        return self.score or as_accuracy(self.accuracy)


@dataclass(frozen=True, kw_only=True)
class Exported(LedgerEvent):
    """A checkpoint of the release that serves, as state.ExportRecord has it; `files`: SHA-256 by
    name. `replaces`: earlier ones that are no more, or nobody uses."""

    type = "exported"
    export: str
    release: str
    place: str
    files: JsonObject
    replaces: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Retired(LedgerEvent):
    """Versions by number, stages by key."""

    type = "retired"
    versions: tuple[str, ...]
    stages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Replayed(LedgerEvent):
    """`live`: how many stages there were to choose from; `same`, `other`: keys of those that gave
    the same bytes again, and other ones. `same_profile`: whether machine, libraries and version of
    the method are those that they were made by: else nothing can be said."""

    type = "replayed"
    version: str
    live: int
    same_profile: bool
    same: tuple[str, ...]
    other: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RetrainChanged(LedgerEvent):
    """`attempt` counts from 1, None for one that is finished; `reason`: the policy that wanted it;
    `flow_run`: the run that carries it out; `problem`: what it failed with."""

    type = "retrain"
    id: str
    attempt: int | None = field(default=None, metadata=_MAY_BE_LEFT_OUT)
    state: RetrainState
    reason: str = field(default="", metadata=_MAY_BE_LEFT_OUT)
    flow_run: str = field(default="", metadata=_MAY_BE_LEFT_OUT)
    problem: str = field(default="", metadata=_MAY_BE_LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class Healed(LedgerEvent):
    """How many of each came back; whether registry and data were made to agree again."""

    type = "healed"
    stages: int
    objects: int
    quarantined: int
    registry: bool
    data: bool


# --- requests


@dataclass(frozen=True, kw_only=True)
class RequestTaken(LedgerEvent):
    """As state.RequestRecord has it. `once`: the digest of its idempotency key, or ""."""

    type = "request"
    request: str
    subject: str
    record: str
    suppression: str
    commitment: str
    salt: str
    due: str
    id_rule: tuple[str, ...]
    once: str
    ids: tuple[str, ...]
    near: tuple[str, ...]
    asked_by: str
    forms: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RequestRepeated(LedgerEvent):
    """`once`: the digest of the other idempotency key."""

    type = "repeated"
    request: str
    once: str


@dataclass(frozen=True, kw_only=True)
class RequestSpelt(LedgerEvent):
    """`ids`: digests of the new spellings; `near`: what else keeps them out."""

    type = "spelt"
    request: str
    ids: tuple[str, ...]
    near: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RequestApproved(LedgerEvent):
    """By whom."""

    type = "approved"
    request: str
    by: str


@dataclass(frozen=True, kw_only=True)
class DeadlineExtended(LedgerEvent):
    """`due`: until when, instead of what held before. By whom, and why: whoever asked is told so
    (GDPR article 12(3))."""

    type = "extended"
    request: str
    due: str
    reason: str
    by: str


@dataclass(frozen=True, kw_only=True)
class HoldSet(LedgerEvent):
    """Of a subject, by digest, on a legal basis (closing.BASES), told under that rule for ids."""

    type = "hold"
    state: HoldState = "set"
    subject: str
    basis: str = ""
    id_rule: tuple[str, ...]
    reason: str = ""
    by: str = ""


@dataclass(frozen=True, kw_only=True)
class HoldReleased(LedgerEvent):
    """Of a subject, by digest."""

    type = "hold"
    state: HoldState = "released"
    subject: str
    by: str = ""


@dataclass(frozen=True, kw_only=True)
class RequestClosed(LedgerEvent):
    """Without an erasure. `certificate`: the digest of the closing document, which says by whom and
    why; what `by` and `reason` may say here, no release of ours writes."""

    type = "closed"
    request: str
    kind: ClosingKind
    certificate: str
    basis: str = ""
    by: str = field(default="", metadata=_MAY_BE_LEFT_OUT)
    reason: str = field(default="", metadata=_MAY_BE_LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class SuppressionLifted(LedgerEvent):
    """`kind`: of a subject or a record."""

    type = "lifted"
    suppression: str
    by: str
    kind: Scope


# --- erasures


@dataclass(frozen=True, kw_only=True)
class ErasurePlanned(LedgerEvent):
    """The plan, whole: it stands for itself after a crash."""

    type = "planned"
    plan: ErasurePlan


@dataclass(frozen=True, kw_only=True)
class StepDone(LedgerEvent):
    """A step of a plan is complete."""

    type = "step"
    step: str
    plan_id: str


@dataclass(frozen=True, kw_only=True)
class CutOver(StepDone):
    """`moved`: when the alias moved; `staleness`, `offline`: seconds that a loaded version may have
    trusted the old one."""

    step: str = "cut over"
    moved: str
    staleness: float
    offline: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Rewritten(StepDone):
    """The data is without the rows."""

    step: str = "rewrite"


@dataclass(frozen=True, kw_only=True)
class Destroyed(StepDone):
    """Stages by key, versions by number, data objects by md5; how many quarantined rows and kept
    activations went; `bytes_kept`: seconds that a bucket's server may keep what is deleted;
    `exports`: those of the plan's exported checkpoints that lay where they were put."""

    step: str = "destroy"
    stages: tuple[str, ...]
    versions: tuple[str, ...]
    objects: tuple[str, ...]
    quarantined: int
    activations: int = 0
    bytes_kept: float = 0.0
    exports: tuple[str, ...] = field(default=(), metadata=_MAY_BE_LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class Measured(StepDone):
    """What serves was measured, or could not be."""

    step: str = "measure"


@dataclass(frozen=True, kw_only=True)
class Scanned(StepDone):
    """Nothing was found. Files and bytes that were searched, needles that were searched for;
    `spellings` of ids that were told; `unsearchable` needles, `lost` ones among them; `shared`
    matches in rows of others, `outside` files of the operator's with a match; requests of which no
    id as given was there, or not every form of it could be searched for."""

    step: str = "scan"
    files: int
    bytes: int
    needles: int
    spellings: int
    unsearchable: int
    lost: int
    ids_lost: tuple[str, ...]
    shared: int
    outside: int
    ids_unsearchable: tuple[str, ...] = field(default=(), metadata=_MAY_BE_LEFT_OUT)


SCAN_COUNTS = (
    "files",
    "bytes",
    "needles",
    "unsearchable",
    "lost",
    "shared",
    "outside",
)
"""Members of Scanned that count something, and stand in certificates."""


@dataclass(frozen=True, kw_only=True)
class Certified(StepDone):
    """Every request of the plan has its certificate."""

    step: str = "certify"


@dataclass(frozen=True, kw_only=True)
class RequestsDeferred(LedgerEvent):
    """Requests of that plan of which no row was found."""

    type = "deferred"
    plan_id: str
    requests: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RequestsUncertified(LedgerEvent):
    """Requests of that plan whose rows are destroyed. `waiting` are those of them of which nothing
    was found: they wait for another request of the same person. `texts`: how many texts were
    gathered of all of the plan's that are set aside, `texts_of_others` of the rest; `left`: keyed
    digests of the files in which something was found."""

    type = "uncertified"
    plan_id: str
    requests: tuple[str, ...]
    waiting: tuple[str, ...]
    texts: int
    texts_of_others: int
    left: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ErasureResumed(LedgerEvent):
    """Of requests that were set aside."""

    type = "resumed"
    plan_id: str


@dataclass(frozen=True, kw_only=True)
class RequestCertified(LedgerEvent):
    """`certificate`: the digest of the certificate."""

    type = "certified"
    request: str
    certificate: str
