"""The state of the system as the ledger's entries make it: what `s3t_core.erasure.ledger.fold`
builds."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from s3t_core.domain import Combine, DatasetVersion, Release, Score, SliceId, StageRecord
from s3t_core.erasure.events import (
    ErasurePlanned,
    HoldSet,
    MoveBegun,
    RetrainChanged,
    StepDone,
)
from s3t_core.erasure.outcome import ErasureOutcome
from s3t_core.erasure.vocabulary import ExportStanding, Scope
from s3t_core.times import later, months_later, parse_time, rfc3339

Done = TypeVar("Done", bound=StepDone)


@dataclass(frozen=True)
class VersionRecord:
    """A registered model version. `staleness`, `offline`: seconds that a loaded one trusts its last
    confirmation, with and without a registry that answers. `superseded` is the time (RFC 3339) the
    alias moved on, "" while it serves. `document` is the digest of its files, stages left out,
    `combine` how its shards answer."""

    release: Release
    version: str
    run_id: str
    model_id: str
    cause: str
    time: str
    recipe: dict[str, Any]
    staleness: float
    score: Score | None = None
    superseded: str = ""
    destroyed: bool = False
    offline: float = 0.0
    document: str = ""
    combine: Combine = "votes"

    @property
    def accuracy(self) -> float | None:
        """The value of its score where that is an accuracy; None where it is not, or was not
        measured."""
        return self.score.accuracy if self.score else None


@dataclass(frozen=True)
class ExperimentRecord:
    """The experiment that this workspace's runs and versions are in, at the tracking URI
    `registry`, "" for the one in the workspace. `created` is when the registry made it, in
    milliseconds since 1970: a number may be given again, that time is not. `location`: where its
    files lie, as the registry says it, or relative to the workspace."""

    registry: str
    id: str
    location: str
    created: int


@dataclass(frozen=True)
class ExportRecord:
    """A checkpoint of the release with the id `release` that was exported. `place`: the directory
    that it was put in, on the machine that wrote it; `files`: SHA-256, hex, by name. At most one of
    the last three: another one took its place, where it was, or somebody said that nobody uses it;
    an erasure destroyed it there; an erasure that had to did not find it there."""

    export: str
    release: str
    time: str
    place: str
    files: Mapping[str, str]
    replaced: bool = False
    destroyed: bool = False
    stale: bool = False


@dataclass(frozen=True)
class RequestRecord:
    """A request as the ledger acknowledged it. `salt` is the SHA-256 of its commitment's salt, hex.

    `received` and `due` (RFC 3339) are what holds now: earlier than what was `claimed` when a clock
    that had run ahead was put right since. `id_rule` is the rule for ids that it was asked by;
    `near` what keeps out whoever is spelt nearly so, and the ids as given under another rule; of a
    request that found nobody, those alone. `asked_by` is how the person was named: by an "id", or
    by one of its hashes, of which nobody can say the id. By a hash, `forms` are those of the
    identity index to look for, of the id itself first, and `subjects` the digests of whom its
    erasure found by them. `ids` are keyed digests of the ids as given, in all their spellings: what
    a scan must have to look for. `extended_from` is when it was due before somebody extended its
    time, "" where nobody did. `was_overdue`: the ledger told a time after its due one, and the
    clock was set back since: which of the two was right nobody can say.
    """

    subject: str
    record: str
    suppression: str
    commitment: str
    salt: str
    received: str
    due: str
    claimed: tuple[str, str]
    id_rule: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    asked_by: str = "id"
    forms: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    extended_from: str = ""
    was_overdue: bool = False

    def received_at(self, now: str) -> "RequestRecord":
        """Returns the request as if it had come then, with as much time as it had. What was a month
        at most is one again, whichever month it is now (s3t_core.times.due_after); so are the
        months that it was extended by."""
        received = parse_time(now)
        at_first = self.extended_from or self.due
        due = _moved(parse_time(at_first), parse_time(self.received), received)
        more = [
            n
            for n in (1, 2)
            if self.extended_from and months_later(parse_time(at_first), n) == parse_time(self.due)
        ]
        extended = months_later(due, more[0]) if more else due
        if self.extended_from and not more:
            extended = _moved(parse_time(self.due), parse_time(self.received), received)
        return replace(
            self,
            received=now,
            due=rfc3339(extended),
            extended_from=rfc3339(due) if self.extended_from else "",
        )

    @property
    def clock_corrected(self) -> bool:
        """Whether it came at another time than was told."""
        return self.received != self.claimed[0]

    @property
    def scope(self) -> Scope:
        """Whether it asks for one record or for the whole subject."""
        return "record" if self.record else "subject"


def _moved(moment: datetime, before: datetime, now: datetime) -> datetime:
    """A due time, by as much as the time at which its request came."""
    moved = later(now, seconds=(moment - before).total_seconds())
    is_a_month = moment <= months_later(before, 1)
    return min(moved, months_later(now, 1)) if is_a_month else moved


@dataclass(frozen=True)
class KeyChange:
    """Another key signs from ledger entry `entry` on. Keys by their ids (SHA-256 of the raw public
    key, hex). `vouched` is the old one's signature of the new one's id, hex, "" for one that was
    lost; `old_public` the old one's raw public key, hex."""

    entry: int
    old: str
    new: str
    time: str
    vouched: str
    old_public: str


@dataclass(frozen=True)
class IntakeRecord:
    """A host apart that takes requests. `public`: the raw key by which it signs checkpoints, hex;
    `seals_to` the raw key that ids as given are sealed to, hex; from ledger entry `since` on, until
    entry `until`, None while it may."""

    name: str
    public: str
    seals_to: str
    since: int
    until: int | None = None


@dataclass(frozen=True)
class Uncertified:
    """An erasure, or a part of one, that destroyed all it had to and has no certificate, because
    its search found what `plan`'s requests ask for, or, of those that are `waiting`, what another
    request of the same person asks for. `residue_digests` are keyed digests of the files in which
    it was. The rest as State has it of an open erasure."""

    plan: ErasurePlanned
    waiting: frozenset[str]
    residue_digests: frozenset[str]
    steps: dict[str, StepDone]
    planned_on: str
    planned_after: tuple[int, int]
    corrected_before_plan: int


@dataclass
class State:
    """What the ledger says. Built by `fold`; callers only read it.

    `size` counts the entries; `time` is the latest that any of them tells, since the clock was last
    put right. `plan` is the event of the open erasure, `steps` those of it that are done,
    `planned_on` the data version when it was planned, `planned_after` how many versions of data and
    of models there had been then, `plans` the ids of all plans there were. `uncertified` are
    erasures, by plan id, that wait until what their search found is gone.
    `requests` has every request by id; `approved` by whom, `certified` the digest of the
    certificate, `closed` how it ended without one, `documents` the digest of the closing document
    of either kind, each by request. `outcomes` has what its erasure came to and how many rows it
    found, and `ended` when it was certified (RFC 3339), by certified request; `silenced` are slices
    that stages saw which an erasure deactivated. `moving` is the event of a move that was begun and
    not ended, `moved` the name of the last one, while what it left is not emptied, `left_places`
    the sections of settings, by name, that told of the places which earlier moves left. `caches`
    are the directories that DVC kept data in, beside the one in the workspace, with
    whether others share them. `experiments` are those that runs and versions ever were in, oldest
    first; `trainings` the runs of trainings, and `copies` what the id of a run became when the
    registry moved. `once` has the request by the digest of each idempotency key that it was asked
    with. `deferred` are requests that an erasure left open, because what was asked for stands where
    no row is. `holds` has the event by subject digest; `suppressed`, by suppression digest, what it
    is of and the request that put it there. `retrain` is the last event of a full retrain that is
    wanted and not finished; `settled` the settings that must stay, None before the first data;
    `signing` the id of the key that signs, `key_changes` how it came to that; `corrected` counts
    how often a clock was put right, `corrected_before_plan` how often it had been when the open
    erasure was planned.
    """

    size: int = 0
    time: str = ""
    datasets: list[DatasetVersion] = field(default_factory=list)
    stages: dict[str, StageRecord] = field(default_factory=dict)
    backbones: dict[str, tuple[str, str]] = field(default_factory=dict)
    versions: list[VersionRecord] = field(default_factory=list)
    plan: ErasurePlanned | None = None
    steps: dict[str, StepDone] = field(default_factory=dict)
    planned_on: str = ""
    planned_after: tuple[int, int] = (0, 0)
    known_residue: frozenset[str] = frozenset()
    """Keyed digests of the files in which an earlier search of the open erasure found something."""
    uncertified: dict[str, Uncertified] = field(default_factory=dict)
    plans: set[str] = field(default_factory=set)
    destroyed_objects: set[str] = field(default_factory=set)
    requests: dict[str, RequestRecord] = field(default_factory=dict)
    certified: dict[str, str] = field(default_factory=dict)
    approved: dict[str, str] = field(default_factory=dict)
    holds: dict[str, HoldSet] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    deferred: set[str] = field(default_factory=set)
    documents: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, tuple[ErasureOutcome, int]] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    once: dict[str, str] = field(default_factory=dict)
    moving: MoveBegun | None = None
    moved: str = ""
    left_places: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    caches: dict[str, bool] = field(default_factory=dict)
    bindings: dict[str, str] = field(default_factory=dict)
    """The digest that each stage key was bound to, also of stages that are destroyed."""
    checkpoints_at: str = ""
    """The place outside the workspace where every checkpoint is kept too, "" before there is one.
    """
    experiments: list[ExperimentRecord] = field(default_factory=list)
    exports: dict[str, ExportRecord] = field(default_factory=dict)
    """Checkpoints that were exported, by the name of each, oldest first."""
    trainings: set[str] = field(default_factory=set)
    copies: dict[str, str] = field(default_factory=dict)
    silenced: set[SliceId] = field(default_factory=set)
    suppressed: dict[str, tuple[Scope, str]] = field(default_factory=dict)
    retrain: RetrainChanged | None = None
    requests_since_training: int = 0
    settled: dict[str, str] | None = None
    signing: str = ""
    key_changes: list[KeyChange] = field(default_factory=list)
    intakes: dict[str, IntakeRecord] = field(default_factory=dict)
    """Hosts apart that take requests, or took them, by the id of the key of each."""
    corrected: int = 0
    corrected_before_plan: int = 0

    @property
    def dataset(self) -> DatasetVersion | None:
        """The current data version."""
        return self.datasets[-1] if self.datasets else None

    @property
    def champion(self) -> VersionRecord | None:
        """The version that serves."""
        return self.versions[-1] if self.versions else None

    @property
    def release(self) -> Release | None:
        """The release that serves."""
        return self.versions[-1].release if self.versions else None

    def standing_of(self, export: str) -> ExportStanding:
        """What has become of an exported checkpoint."""
        record = self.exports[export]
        if record.destroyed:
            return "destroyed"
        if record.stale:
            return "stale"
        if record.replaced:
            return "replaced"
        serves = self.release is not None and self.release.release_id == record.release
        return "serves" if serves else "superseded"

    def exports_in_doubt(self) -> tuple[str, ...]:
        """Exported checkpoints that may still be somewhere, and of which nobody can say whose rows
        they saw: stale ones, and those of a slice version whose file is destroyed, or that never
        was the data."""
        stored = {
            v.digest
            for d in self.datasets
            for v in d.slice_versions.values()
            if v.md5 not in self.destroyed_objects
        }
        unknown = self.exports_that(lambda stage: not set(stage.slice_digests) <= stored)
        found = (self.exports[name] for name in unknown)
        stale = (e for e in self.exports.values() if e.stale)
        return tuple(dict.fromkeys(e.export for e in (*stale, *found) if not e.replaced))

    def exports_that(self, saw: Callable[[StageRecord], bool]) -> tuple[str, ...]:
        """Exported checkpoints, but those that an erasure destroyed, in which a stage is that
        `saw`."""
        found = {
            v.release.release_id
            for v in self.versions
            if any(saw(stage) for r in v.release.replicas for stage in r.stages)
        }
        there = (e for e in self.exports.values() if not e.destroyed)
        return tuple(e.export for e in there if e.release in found)

    def runs_of(self, stages: Iterable[str]) -> set[str]:
        """Ids, as they are now, of the runs in which stages of these keys were trained, and of all
        trainings."""
        runs = {self.stages[key].run_id for key in stages} | self.trainings
        return {self.copies.get(run, run) for run in runs if run}

    @property
    def signed_by(self) -> set[str]:
        """Ids of the key that signs and of those that it replaced."""
        return {self.signing, *(c.old for c in self.key_changes)}

    @property
    def planned(self) -> list[str]:
        """Ids of the requests of the open erasure."""
        return list(self.plan.plan.requests) if self.plan else []

    def done(self, step: type[Done]) -> Done:
        """What the open erasure's step came to. Raises KeyError before it is done."""
        return done_in(self.steps, step)

    @property
    def set_aside(self) -> list[str]:
        """Ids of the requests whose rows are destroyed, and which are found somewhere still."""
        return [r for aside in self.uncertified.values() for r in aside.plan.plan.requests]

    @property
    def begun(self) -> list[str]:
        """Ids of the requests that an erasure has begun to carry out."""
        return [*self.planned, *self.set_aside]

    @property
    def found_again(self) -> list[str]:
        """Ids of requests that were set aside because something of them was found. The others that
        were set aside wait for one of these."""
        return [
            r
            for aside in self.uncertified.values()
            for r in aside.plan.plan.requests
            if r not in aside.waiting
        ]

    def people_of(self, request_id: str) -> frozenset[str]:
        """Digests of whom a request means, as far as an erasure or the request itself has told."""
        asked = self.requests[request_id]
        if asked.asked_by == "id":
            return frozenset({asked.subject})
        return frozenset(asked.subjects)

    def keeps(self, request_id: str, but: str = "") -> bool:
        """Whether another request of the same person was found again, in another plan than `but`:
        as long as it stands somewhere, no document says that nothing does. A hash that was nobody's
        when it was planned may be of whoever waited then."""
        mine = self.people_of(request_id)
        for plan_id, aside in self.uncertified.items():
            requests = set(aside.plan.plan.requests)
            found = requests - aside.waiting - {request_id}
            if plan_id == but or not found:
                continue
            theirs = frozenset[str]().union(*map(self.people_of, found))
            is_of_now = request_id in requests or self.is_planned_by(plan_id)
            if not mine.isdisjoint(theirs) or not (mine or is_of_now):
                return True
        return False

    def is_planned_by(self, plan_id: str) -> bool:
        """Whether that is the open erasure's plan, or a part of it."""
        return self.plan is not None and self.plan.plan.plan_id == plan_id

    @property
    def sought(self) -> list[str]:
        """Those of the open erasure's requests that a scan searches for: all but the ones that were
        certified before an interruption, after a search of their own."""
        return [r for r in self.planned if r not in self.certified]

    def is_open(self, request_id: str) -> bool:
        """Whether a request was acknowledged and has no closing document yet."""
        return request_id in self.requests and request_id not in self.documents


def done_in(steps: Mapping[str, StepDone], step: type[Done]) -> Done:
    """What a step of an erasure came to, among those that are done. Raises KeyError before it
    is."""
    for event in steps.values():
        if isinstance(event, step):
            return event
    raise KeyError(step.__name__)
