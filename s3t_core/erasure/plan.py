"""An erasure plan, and how it stands in the ledger."""

from dataclasses import asdict, dataclass, field
from typing import Any

from s3t_core.domain import Release, RowCounts, SliceId, StageRecord
from s3t_core.release_json import release_from_json, release_to_json, stage_from_json, stage_to_json


@dataclass(frozen=True)
class ErasurePlan:
    """What one erase run will do. `release` is the one to cut over to, None when nothing that
    serves is touched.

    `recipe` is None unless the release is a replacement that was trained first, on the data without
    the targets. `commitments`: keyed, of every stored row of each request. `texts`: how many texts
    of them were gathered to be looked for. `subjects`: by request that came with a hash, digests of
    the subjects whose id has it; `near`: what keeps those out under other spellings. `exports`:
    exported checkpoints with a stage that saw a row of the targets, or of which nobody can say so.
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
    exports: tuple[str, ...] = ()

    @property
    def touches_data(self) -> bool:
        """Whether any current file holds a targeted row."""
        return bool(self.slices) or self.held_out


def plan_to_json(plan: ErasurePlan) -> dict[str, object]:
    """The plan as it stands in the ledger: keyed digests, counts and names, no data."""
    exports = {"exports": list(plan.exports)} if plan.exports else {}
    return {
        **exports,
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
        exports=tuple(value.get("exports", ())),
    )
