"""Planning: pending requests and what the ledger says in, an erasure plan out. Pure; the executor
carries it out.

In every replica whose sequence holds a touched slice at position p, stages p..L saw it and are
deactivated; stages 1..p-1 never did (paper section 3.2). Which stages saw a slice is read from the
slice *versions* they were trained on, not from the present data, so a re-ingest in between hides
nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from s3t_core.domain import (
    DatasetVersion,
    DeletionRequest,
    Release,
    Replica,
    RowCounts,
    StageRecord,
)
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.erasure.retirement import versions_to_destroy
from s3t_core.erasure.state import State
from s3t_core.ports import Findings, Target
from s3t_core.times import rfc3339

Replacement = tuple[Release, dict[str, Any]]
"""A release, and its recipe, that was trained on the data without the targeted rows."""


@dataclass(frozen=True)
class Draft:
    """An erasure before it begins. `targets`: whose rows go. `is_begun`: an earlier run wrote the
    plan, and it goes on as it stands."""

    plan: ErasurePlan
    targets: list[Target]
    is_begun: bool = False


def with_replacement(plan: ErasurePlan, found: Replacement | None) -> ErasurePlan:
    """The plan cutting over to what was trained first, if nothing to be erased is in it."""
    if found is None or found[0].stage_keys() & {s.key for s in plan.deactivated}:
        return plan
    release, recipe = found
    return replace(plan, release=release, recipe=recipe)


def plan_erasure(
    requests: list[DeletionRequest],
    findings: Findings,
    state: State,
    plan_id: str,
    now: datetime,
    keep_clean_days: int,
    damaged: frozenset[str] = frozenset(),
) -> ErasurePlan:
    """The plan for all of `requests` at once. Deletions only accumulate: it starts from what is
    live (hazard 6).

    `damaged`: keys of live stages whose artifacts do not verify. They are not tainted, but the new
    release must do without them, or one broken file could keep a tainted version serving.
    """
    tainted = tuple(s for s in state.stages.values() if findings.tainted & set(s.slice_digests))
    keys = {s.key for s in tainted}
    touched = bool(tainted) or findings.held_out or bool(findings.slices)
    saw = state.exports_that(lambda s: not findings.tainted.isdisjoint(s.slice_digests))
    exports = tuple(dict.fromkeys((*saw, *state.exports_in_doubt())))
    release = None
    if state.release is not None and touched:
        release = Release(
            f"{plan_id}-release",
            state.release.dataset,
            tuple(_silence(r, keys | damaged) for r in state.release.replicas),
        )
    return ErasurePlan(
        plan_id=plan_id,
        time=rfc3339(now),
        requests=tuple(r.request_id for r in requests),
        rows={r: findings.rows.get(r, RowCounts()) for r in (q.request_id for q in requests)},
        slices=tuple(sorted(findings.slices)),
        held_out=findings.held_out,
        objects=tuple(sorted(findings.objects)),
        deactivated=tuple(sorted(tainted, key=lambda s: (s.shard, s.prefix, s.key))),
        release=release,
        versions=versions_to_destroy(
            state,
            keys,
            now,
            keep_clean_days,
        ),
        exports=exports,
    )


def state_after(
    state: State,
    plan: ErasurePlan,
    dataset: DatasetVersion,
) -> State | None:
    """What the deletion-rate budget will be counted from once the plan is carried out and `dataset`
    is left; None where the plan cuts over to nothing. How accurate the release will be is not
    known."""
    if state.champion is None or plan.release is None:
        return None
    return State(
        datasets=[dataset],
        versions=[
            replace(
                state.champion,
                release=plan.release,
                score=None,
            )
        ],
        requests_since_training=state.requests_since_training + len(plan.requests),
    )


def targets_of(
    requests: list[DeletionRequest], subjects: Mapping[str, Iterable[str]]
) -> list[Target]:
    """What the requests ask to be erased. `subjects`: whom those mean that came with a hash."""
    return [
        Target(r.request_id, subject, r.record)
        for r in requests
        for subject in subjects.get(r.request_id, (r.subject,))
    ]


def subjects_in(state: State) -> dict[str, tuple[str, ...]]:
    """Whom the requests that came with a hash meant, when they were planned."""
    hashed = {i: r for i, r in state.requests.items() if r.asked_by != "id"}
    return {i: r.subjects for i, r in hashed.items()}


def _silence(replica: Replica, tainted: set[str]) -> Replica:
    """The replica cut before its first tainted stage."""
    live: list[StageRecord] = []
    for stage in replica.stages:
        if stage.key in tainted:
            break
        live.append(stage)
    return replace(replica, stages=tuple(live))


def unaccounted(state: State) -> set[str]:
    """Keys of stages that saw a slice version which never was the data, or whose file is destroyed:
    the run was killed while it trained a replacement first, and the data became another. Nobody can
    say whose rows they saw."""
    known = {
        v.digest
        for d in state.datasets
        for v in d.slice_versions.values()
        if v.md5 not in state.destroyed_objects
    }
    serving = state.release.stage_keys() if state.release else set()
    return {s.key for s in state.stages.values() if not set(s.slice_digests) <= known} - serving
