"""The ledger: append-only events; the state of the system is their fold.

The one source of truth for what is live: everything else can be rebuilt from it or is checked against it. Leaves are
the canonical JSON of events under an RFC 6962 tree head. Subjects appear as keyed digests, rows not at all.

| event | says |
|---|---|
| workspace | the workspace began; a check value of its key |
| settled | settings that must stay, recorded before the first data |
| migrated | database, store, remote or registry moved: what must stay from now on; ids of versions there |
| dataset | a data version: every slice's content digest, rows, file md5 |
| backbone | a backbone was first used under a model id, with its digests |
| stage | a stage was trained: key bound to digest |
| release | a model version was registered and serves; `cause` says why |
| measured | a release's accuracy on the held-out rows of its time |
| request | a deletion request was acknowledged |
| approved | a request may be carried out; by whom |
| hold | a subject's erasure is stopped for a legal reason (`set`), or no more (`released`) |
| closed | a request ended without an erasure: withdrawal or rejection |
| key | another key signs from now on; the old one signed its id, unless it was lost |
| replayed | live stages were trained again from their recorded inputs: which gave the same bytes, which did not |
| lifted | a subject or record left the suppression list: the person returned |
| planned | an erasure plan, written ahead |
| step | a step of the plan is complete, with its outcome |
| certified | a request ended in a certificate |
| retrain | a full retrain is wanted (the budget is spent), triggered, failed, or finished |
| healed | what a restore had brought back was destroyed again: how many of each kind |
| retired | clean versions past their time, and stages that nothing needs any more, were destroyed |
"""

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from s3t_core.canonical import canonical_json
from s3t_core.domain import DatasetVersion, Release, SliceId, SliceVersion, StageRecord
from s3t_core.erasure.merkle import inclusion_proof, leaf_hash, tree_head
from s3t_core.errors import LedgerError
from s3t_core.release_json import release_from_json, stage_from_json

Event = dict[str, Any]


@dataclass(frozen=True)
class TreeHead:
    """Size and RFC 6962 root (hex) of the ledger at one moment."""

    size: int
    root: str


@dataclass(frozen=True)
class Inclusion:
    """That an entry is in the ledger: its place, the head of the tree it is in, and the path to it (RFC 6962 section
    2.1.1), hex. `ledger` is the leaf hash of the first entry: the ledger's name."""

    ledger: str
    index: int
    head: TreeHead
    proof: tuple[str, ...]


def inclusion_of(event: Event, leaves: list[bytes]) -> Inclusion:
    """The proof for the last entry that is `event`, among leaf hashes. Raises LedgerError when none is."""
    wanted = leaf_hash(leaf_of(event))
    index = next((i for i in reversed(range(len(leaves))) if leaves[i] == wanted), None)
    if index is None:
        raise LedgerError("expected the event in the ledger, got none that is equal; restore the database from "
                          "its backup")
    return Inclusion(leaves[0].hex(), index, TreeHead(len(leaves), tree_head(leaves).hex()),
                     tuple(h.hex() for h in inclusion_proof(leaves, index)))


def head_of(leaves: Iterable[bytes]) -> TreeHead:
    """The tree head over leaf bytes."""
    hashes = [leaf_hash(leaf) for leaf in leaves]
    return TreeHead(len(hashes), tree_head(hashes).hex())


def leaf_of(event: Event) -> bytes:
    """The canonical bytes of an event: what is stored and hashed."""
    return canonical_json(event)


@dataclass(frozen=True)
class VersionRecord:
    """A registered model version. `staleness`, `offline`: seconds that a loaded one trusts its last confirmation, with
    and without a registry that answers. `superseded` is the time (RFC 3339) the alias moved on, "" while it serves."""

    release: Release
    version: str
    run_id: str
    model_id: str
    cause: str
    time: str
    recipe: dict[str, Any]
    staleness: float
    accuracy: float | None = None
    superseded: str = ""
    destroyed: bool = False
    offline: float = 0.0


@dataclass
class State:
    """What the ledger says. Built by `fold`; callers only read it.

    `retrain` is the last event of a full retrain that is wanted and not finished. `approved`: by whom, per request;
    `holds`: the event, per subject digest; `closed`: withdrawal or rejection, per request; `settled`: the settings
    that must stay, None before the first data.
    """

    datasets: list[DatasetVersion] = field(default_factory=list)
    stages: dict[str, StageRecord] = field(default_factory=dict)
    backbones: dict[str, tuple[str, str]] = field(default_factory=dict)
    versions: list[VersionRecord] = field(default_factory=list)
    plan: Event | None = None
    steps: dict[str, Event] = field(default_factory=dict)
    destroyed_objects: set[str] = field(default_factory=set)
    certified: dict[str, str] = field(default_factory=dict)
    approved: dict[str, str] = field(default_factory=dict)
    holds: dict[str, Event] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    retrain: Event | None = None
    requests_since_training: int = 0
    settled: dict[str, str] | None = None

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


def fold(events: Iterable[Event], before: State | None = None, first: int = 0) -> State:
    """The state after `events`, of which the first is ledger entry `first` and follows `before`, which stays as it
    is. Raises LedgerError at an event that no state allows."""
    state = State(**{k: copy(v) for k, v in vars(before).items()}) if before else State()
    for _ in _applied(state, events, first):
        pass
    return state


def walk(events: Iterable[Event]) -> Iterator[tuple[Event, State]]:
    """Each event with the state after it: one object that changes with the next. Raises LedgerError, as `fold`."""
    return _applied(State(), events, 0)


def _applied(state: State, events: Iterable[Event], first: int) -> Iterator[tuple[Event, State]]:
    for number, event in enumerate(events, first):
        handler = _HANDLERS.get(event.get("type", ""))
        if handler is None:
            raise LedgerError(f"expected a known event at ledger entry {number}, got {event.get('type')!r}; "
                              "this ledger was written by a newer release: upgrade s3t")
        try:
            handler(state, event)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise LedgerError(f"expected a whole {event['type']} event at ledger entry {number}, got one that cannot "
                              f"be applied ({type(error).__name__})") from None
        yield event, state


def _ignore(state: State, event: Event) -> None:
    pass


def _dataset(state: State, event: Event) -> None:
    dataset = dataset_from_json(event["dataset"])
    state.datasets.append(dataset)
    state.destroyed_objects -= {v.md5 for v in dataset.files()}  # the same content was ingested again


def _backbone(state: State, event: Event) -> None:
    state.backbones[event["model"]] = (event["digest"], event["tokenizer_digest"])


def _stage(state: State, event: Event) -> None:
    stage = stage_from_json(event["stage"])
    state.stages[stage.key] = stage


def _release(state: State, event: Event) -> None:
    if state.versions:
        state.versions[-1] = _changed(state.versions[-1], superseded=event["time"])
    state.versions.append(VersionRecord(
        release_from_json(event["release"]), event["version"], event["run_id"], event["model_id"], event["cause"],
        event["time"], event["recipe"], event["staleness"], offline=event.get("offline", 0.0)))
    if event["cause"] in ("train", "retrain"):
        state.requests_since_training = 0


def _measured(state: State, event: Event) -> None:
    for i, version in enumerate(state.versions):
        if version.release.release_id == event["release"]:
            state.versions[i] = _changed(version, accuracy=event["accuracy"])


def _planned(state: State, event: Event) -> None:
    if state.plan is not None:
        raise ValueError("a plan is open")
    state.plan, state.steps = event, {}
    state.requests_since_training += len(event["plan"]["requests"])


def _step(state: State, event: Event) -> None:
    if state.plan is None or state.plan["plan"]["plan_id"] != event["plan_id"]:
        raise ValueError("no such plan is open")
    state.steps[event["step"]] = event
    if event["step"] == "destroy":
        _forget(state, event["stages"], event["versions"])
        state.destroyed_objects |= set(event["objects"])
    if event["step"] == "certify":
        state.plan, state.steps = None, {}


def _certified(state: State, event: Event) -> None:
    state.certified[event["request"]] = event["certificate"]


def _approved(state: State, event: Event) -> None:
    state.approved[event["request"]] = event["by"]


def _hold(state: State, event: Event) -> None:
    if event["state"] == "set":
        state.holds[event["subject"]] = event
    else:
        state.holds.pop(event["subject"], None)


def _closed(state: State, event: Event) -> None:
    if state.plan is not None and event["request"] in state.plan["plan"]["requests"]:
        raise ValueError("the request is being carried out")
    state.closed[event["request"]] = event["kind"]


def _retrain(state: State, event: Event) -> None:
    state.retrain = None if event["state"] == "finished" else event
    if event["state"] == "finished":
        state.requests_since_training = 0  # also when nothing was missing, so that there is no new release


def _settled(state: State, event: Event) -> None:
    state.settled = event.get("settings")


def _migrated(state: State, event: Event) -> None:
    state.settled = event["settings"]
    ids = event["versions"]
    state.versions = [_changed(v, run_id=ids[v.version][0], model_id=ids[v.version][1]) if v.version in ids else v
                      for v in state.versions]


def _retired(state: State, event: Event) -> None:
    _forget(state, event["stages"], event["versions"])


def _forget(state: State, stages: Iterable[str], versions: Iterable[str]) -> None:
    for key in stages:
        state.stages.pop(key, None)
    gone = set(versions)
    state.versions = [_changed(v, destroyed=v.destroyed or v.version in gone) for v in state.versions]


_HANDLERS = {
    "workspace": _ignore, "settled": _settled, "migrated": _migrated, "dataset": _dataset, "backbone": _backbone,
    "stage": _stage, "release": _release, "measured": _measured, "request": _ignore, "lifted": _ignore,
    "replayed": _ignore, "key": _ignore, "healed": _ignore, "approved": _approved, "hold": _hold, "closed": _closed,
    "planned": _planned, "step": _step, "certified": _certified, "retrain": _retrain, "retired": _retired,
}


def _changed(version: VersionRecord, **changes: Any) -> VersionRecord:
    return VersionRecord(**(version.__dict__ | changes))


def dataset_to_json(dataset: DatasetVersion) -> dict[str, Any]:
    """A data version as JSON values: slices as rows of [digest, rows, md5], by shard then index."""
    return {
        "version": dataset.version, "shards": dataset.shards, "slices": dataset.slices,
        "content": [[_slice_to_json(dataset.slice_versions[SliceId(s, i)]) for i in range(dataset.slices)]
                    for s in range(dataset.shards)],
        "held_out": _slice_to_json(dataset.held_out),
    }


def dataset_from_json(value: dict[str, Any]) -> DatasetVersion:
    """The inverse of `dataset_to_json`."""
    content = {SliceId(s, i): SliceVersion(*v) for s, row in enumerate(value["content"]) for i, v in enumerate(row)}
    return DatasetVersion(value["version"], value["shards"], value["slices"], content, SliceVersion(*value["held_out"]))


def _slice_to_json(version: SliceVersion) -> list[Any]:
    return [version.digest, version.rows, version.md5]
