"""What a training has to do: the stages that should exist held against those that do (method.md,
"What a stage is called"). Pure, and without torch.

A stage that is recorded and whole is re-used, whoever trained it; one that a killed run stored and
did not record is taken over; the rest is missing. So a rerun trains nothing, a crash loses at most
what was under way, and a full retrain costs the stages whose inputs changed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from s3t_core.domain import DatasetVersion, Release, Replica, Sequence, SliceId, StageRecord
from s3t_core.errors import UsageError
from s3t_core.learning.recipe import Recipe, StageSpec, Wanted, wanted


@dataclass(frozen=True)
class TrainingPlan:
    """What a training of `dataset` by `recipe` should come to, and what of it there is.

    `recorded`: every stage that the ledger knows, by key. `present`: those of the wanted ones that
    are recorded and whole. `unrecorded`: those that are stored complete although the ledger does
    not know them, because the run that trained them was killed. `missing`: what is left to train,
    a stage after those that it builds on.
    """

    recipe: Recipe
    dataset: DatasetVersion
    wanted: Wanted
    recorded: Mapping[str, StageRecord]
    present: Mapping[str, StageRecord]
    unrecorded: tuple[StageRecord, ...]
    missing: tuple[StageSpec, ...]

    def at_hand(self) -> dict[str, StageRecord]:
        """The stages that need no training, by key."""
        return {**self.present, **{s.key: s for s in self.unrecorded}}

    def keys(self) -> set[str]:
        """The keys of every stage that should exist."""
        return {s.key for s in self.wanted.stages}


def plan_training(
    recipe: Recipe,
    sequences: list[Sequence],
    dataset: DatasetVersion,
    recorded: Mapping[str, StageRecord],
    stored: Mapping[str, str],
    is_whole: Callable[[str], bool],
) -> TrainingPlan:
    """The plan for one order of slices per replica of a shard, `sequences`.

    `recorded`: what the ledger knows, by key. `stored`: the digests under which the store has
    stages, by key, recorded or not. `is_whole(digest)`: whether the store has these bytes.
    """
    plan = wanted(recipe, sequences, dataset)
    present: dict[str, StageRecord] = {}
    unrecorded: list[StageRecord] = []
    missing: list[StageSpec] = []
    for spec in plan.stages:
        record = recorded.get(spec.key)
        if record is not None and is_whole(record.digest):
            present[spec.key] = record
        elif record is None and spec.key in stored:
            unrecorded.append(spec.record(stored[spec.key]))
        else:
            missing.append(spec)
    return TrainingPlan(
        recipe,
        dataset,
        plan,
        recorded,
        present,
        tuple(unrecorded),
        tuple(missing),
    )


def replicas_with(plan: Wanted, done: Mapping[str, StageRecord]) -> tuple[Replica, ...]:
    """Every replica with the stages that are done, up to the first that is not: what lies above a
    missing stage was trained on it, and counts for nothing without it."""
    found = []
    for replica in plan.replicas:
        stages: list[StageRecord] = []
        for key in replica.keys:
            if key is not None and key not in done:
                break
            if key is not None:
                stages.append(done[key])
        found.append(
            Replica(
                replica.shard,
                replica.number,
                replica.sequence,
                tuple(stages),
            )
        )
    return tuple(found)


def same_stages(release: Release, replicas: tuple[Replica, ...]) -> bool:
    """Whether a release has exactly these replicas' live stages: by key too, because stages of
    another numeric profile may have the same bytes, and are not of this recipe all the same."""
    mine = [(r.shard, r.number, [(s.key, s.digest) for s in r.stages]) for r in replicas]
    theirs = [(r.shard, r.number, [(s.key, s.digest) for s in r.stages]) for r in release.replicas]
    return mine == theirs


def is_complete(release: Release, dataset: DatasetVersion) -> bool:
    """Whether every replica has every stage that the data calls for, trained on the data as it
    is: then a full retrain would give the same release."""
    for replica in release.replicas:
        versions = [dataset.slice_versions.get(SliceId(replica.shard, s)) for s in replica.sequence]
        called_for = [
            tuple(v.digest for v in versions[:i] if v)
            for i in range(1, len(versions) + 1)
            if any(v and v.rows for v in versions[:i])
        ]
        if [s.slice_digests for s in replica.stages] != called_for:
            return False
    return True


def has_moved(
    dataset: DatasetVersion | None,
    stages: Mapping[str, StageRecord],
    spec: StageSpec,
) -> bool:
    """Whether what one stage sees, or builds on, is no longer there: a slice of another content in
    the present data, or a stage that is not recorded any more."""
    if dataset is None:
        return True
    seen = [dataset.slice_versions.get(SliceId(spec.shard, s)) for s in spec.prefix]
    return [v.digest if v else "" for v in seen] != list(spec.slice_digests) or not all(
        k in stages for k in spec.earlier if k
    )


def worst_shards_first(plan: TrainingPlan, release: Release) -> list[StageSpec]:
    """The missing stages in the order in which a repair trains them: those of the shard with the
    fewest live stages first, and a stage after those that it builds on.

    Raises UsageError when the release that serves is not a part of what is wanted: then it cannot
    be repaired, only retrained.
    """
    if not release.stage_keys() <= plan.keys():
        raise UsageError(
            "expected the settings, the data and the machine that the serving version was "
            "trained with, got others; run `s3t retrain`"
        )
    return sorted(
        plan.missing,
        key=lambda s: (release.live_depth(s.shard), s.shard, len(s.prefix), s.prefix),
    )
