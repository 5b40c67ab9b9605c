"""Planning: pending requests and what the ledger says in, an erasure plan out. Pure; the executor
carries it out.

In every replica whose sequence holds a touched slice at position p, stages p..L saw it and are
deactivated; stages 1..p-1 never did (paper section 3.2). Which stages saw a slice is read from the
slice *versions* they were trained on, not from the present data, so a re-ingest in between hides
nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from s3t_core.domain import DeletionRequest, Release, Replica, RowCounts, SliceId, StageRecord
from s3t_core.erasure.state import State
from s3t_core.ports import Findings, Target
from s3t_core.release_json import release_from_json, release_to_json, stage_from_json, stage_to_json
from s3t_core.times import has_passed, rfc3339


@dataclass(frozen=True)
class ErasurePlan:
    """What one erase run will do. `release` is the one to cut over to, None when nothing that
    serves is touched.

    `recipe` is None unless the release is a replacement that was trained first, on the data without
    the targets. `commitments`: keyed, of every stored row of each request. `texts`: how many texts
    of them were gathered to be looked for. `subjects`: by request that came with a hash, digests of
    the subjects whose id has it; `near`: what keeps those out under other spellings.
    """

    plan_id: str
    time: str
    requests: tuple[str, ...]
    rows: dict[str, RowCounts]
    slices: tuple[SliceId, ...]
    held_out: bool
    objects: tuple[str, ...]
    deactivated: tuple[StageRecord, ...]
    release: Release | None
    versions: tuple[str, ...]
    recipe: dict[str, Any] | None = None
    commitments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    texts: int = 0
    subjects: dict[str, tuple[str, ...]] = field(default_factory=dict)
    near: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def touches_data(self) -> bool:
        """Whether any current file holds a targeted row."""
        return bool(self.slices) or self.held_out


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
        versions=_versions_to_destroy(
            state, keys, now, keep_clean_days, replaced=release is not None
        ),
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


def _versions_to_destroy(
    state: State, tainted: set[str], now: datetime, keep_days: int, replaced: bool
) -> tuple[str, ...]:
    """Registry versions that hold a tainted stage, and clean superseded ones past their time."""
    last = len(state.versions) - 1
    chosen = []
    for i, version in enumerate(state.versions):
        if version.destroyed:
            continue
        serves = i == last and not replaced
        expired = version.superseded and has_passed(version.superseded, now, days=keep_days)
        if version.release.stage_keys() & tainted or (expired and not serves):
            chosen.append(version.version)
    return tuple(chosen)


def plan_to_json(plan: ErasurePlan) -> dict[str, Any]:
    """The plan as it stands in the ledger: keyed digests, counts and names, no data."""
    return {
        "plan_id": plan.plan_id,
        "time": plan.time,
        "requests": list(plan.requests),
        "rows": {k: asdict(v) for k, v in plan.rows.items()},
        "slices": [[s.shard, s.index] for s in plan.slices],
        "held_out": plan.held_out,
        "objects": list(plan.objects),
        "deactivated": [stage_to_json(s) for s in plan.deactivated],
        "release": release_to_json(plan.release) if plan.release else None,
        "versions": list(plan.versions),
        "recipe": plan.recipe,
        "commitments": {k: list(v) for k, v in plan.commitments.items()},
        "texts": plan.texts,
        "subjects": {k: list(v) for k, v in plan.subjects.items()},
        "near": {k: list(v) for k, v in plan.near.items()},
    }


def plan_from_json(value: dict[str, Any]) -> ErasurePlan:
    """The inverse of `plan_to_json`: a plan stands for itself, whatever an interrupted run
    destroyed since."""
    return ErasurePlan(
        plan_id=value["plan_id"],
        time=value["time"],
        requests=tuple(value["requests"]),
        rows={k: RowCounts(**v) for k, v in value["rows"].items()},
        slices=tuple(SliceId(*s) for s in value["slices"]),
        held_out=value["held_out"],
        objects=tuple(value["objects"]),
        deactivated=tuple(stage_from_json(s) for s in value["deactivated"]),
        release=release_from_json(value["release"]) if value["release"] else None,
        versions=tuple(value["versions"]),
        recipe=value["recipe"],
        commitments={k: tuple(v) for k, v in value["commitments"].items()},
        texts=value["texts"],
        subjects={k: tuple(v) for k, v in value["subjects"].items()},
        near={k: tuple(v) for k, v in value["near"].items()},
    )
