"""Releases, stage records and scores as JSON values: the spelling that ledger and model versions
share."""

from dataclasses import asdict, replace
from typing import Any

from s3t_core.domain import Release, Replica, Score, StageRecord


def release_to_json(release: Release) -> dict[str, object]:
    """A release as JSON values."""
    return {
        "id": release.release_id,
        "dataset": release.dataset,
        "replicas": [
            {
                "shard": r.shard,
                "number": r.number,
                "sequence": list(r.sequence),
                "stages": [stage_to_json(s) for s in r.stages],
            }
            for r in release.replicas
        ],
    }


def release_from_json(value: dict[str, Any]) -> Release:
    """The inverse of `release_to_json`."""
    return Release(
        value["id"],
        value["dataset"],
        tuple(
            Replica(
                r["shard"],
                r["number"],
                tuple(r["sequence"]),
                tuple(stage_from_json(s) for s in r["stages"]),
            )
            for r in value["replicas"]
        ),
    )


def stage_to_json(stage: StageRecord) -> dict[str, object]:
    """A stage record as JSON values."""
    return {
        "key": stage.key,
        "digest": stage.digest,
        "shard": stage.shard,
        "prefix": list(stage.prefix),
        "slice_digests": list(stage.slice_digests),
        "run_id": stage.run_id,
    }


def stage_from_json(value: dict[str, Any]) -> StageRecord:
    """The inverse of `stage_to_json`."""
    return StageRecord(
        value["key"],
        value["digest"],
        value["shard"],
        tuple(value["prefix"]),
        tuple(value["slice_digests"]),
        value["run_id"],
    )


def score_to_json(score: Score) -> dict[str, object]:
    """A score as JSON values. How the shards answered is left out where it is not known."""
    document = asdict(replace(score, otherwise=None))
    del document["otherwise"]
    if score.combine is None:
        del document["combine"]
    if score.otherwise is not None:
        document["otherwise"] = score_to_json(score.otherwise)
    return document


def score_from_json(value: dict[str, Any]) -> Score:
    """The inverse of `score_to_json`. Raises ValueError or TypeError for what is no score."""
    members = dict(value)
    other = members.pop("otherwise", None)
    if other is None:
        return Score(**members)
    if "otherwise" in other:
        raise ValueError("expected two ways of answering, got more")
    return Score(
        **members,
        otherwise=Score(**other),
    )
