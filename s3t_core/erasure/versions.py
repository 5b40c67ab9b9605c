"""Tags of a registered model version. No personal data: ids, depths, ledger head, accuracy."""

from s3t_core.domain import Release, Score
from s3t_core.erasure.ledger import TreeHead

RELEASE_TAG = "s3t.release"
DOCUMENT_TAG = "s3t.document"
"""The SHA-256 of a version's release.json: a loaded model confirms itself by it."""


def release_tags(release: Release, head: TreeHead) -> dict[str, str]:
    """Release id (a loaded model confirms itself by it), live depth per shard, data version, ledger
    head."""
    depths = ",".join(f"{shard}:{release.live_depth(shard)}" for shard in release.shards())
    return {
        RELEASE_TAG: release.release_id,
        "s3t.live_depths": depths,
        "s3t.dataset": release.dataset,
        "s3t.ledger_head": f"{head.size}:{head.root}",
    }


def score_tags(score: Score | None) -> dict[str, str]:
    """The score on held-out rows under its metric's name, with its 95% interval; an accuracy, where
    nothing is known, is "unknown"."""
    if score is None:
        return {"s3t.accuracy": "unknown"}
    told = {f"s3t.{score.metric}": f"{score.value:.4f}"}
    if score.low is not None and score.high is not None:
        told[f"s3t.{score.metric}_interval"] = f"{score.low:.4f} to {score.high:.4f}"
    return told
