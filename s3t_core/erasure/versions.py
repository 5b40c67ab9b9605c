"""What a registered model version says of itself: tags, and a card for people. No personal data:
ids, depths, ledger head, scores."""

from collections.abc import Mapping

from s3t_core.domain import ACCURACY, Release, Score, Sequence
from s3t_core.erasure.ledger import TreeHead
from s3t_core.erasure.state import State

RELEASE_TAG = "s3t.release"
DOCUMENT_TAG = "s3t.document"
"""The SHA-256 of a version's release.json: a loaded model confirms itself by it."""
_WAYS = {"votes": "every live shard votes", "merged": "one merged model answers"}


def release_tags(
    release: Release,
    head: TreeHead,
) -> dict[str, str]:
    """Release id (a loaded model confirms itself by it), live depth per shard, data version, ledger
    head."""
    depths = ",".join(f"{shard}:{release.live_depth(shard)}" for shard in release.shards())
    return {
        RELEASE_TAG: release.release_id,
        "s3t.live_depths": depths,
        "s3t.dataset": release.dataset,
        "s3t.ledger_head": f"{head.size}:{head.root}",
    }


def score_tags(
    score: Score | None,
) -> dict[str, str]:
    """The score on held-out rows under its metric's name, with its 95% interval, and under each way
    in which shards answer; an accuracy, where nothing is known, is "unknown"."""
    if score is None:
        return {"s3t.accuracy": "unknown"}
    tags = {f"s3t.{score.metric}": f"{score.value:.4f}"}
    if score.low is not None and score.high is not None:
        tags[f"s3t.{score.metric}_interval"] = f"{score.low:.4f} to {score.high:.4f}"
    for way in (score, score.otherwise):
        if way is not None and way.combine is not None:
            tags[f"s3t.{way.metric}_{way.combine}"] = f"{way.value:.4f}"
    return tags


def score_metrics(
    score: Score | None,
) -> dict[str, float | None]:
    """The same as metrics of a run, with the interval."""
    if score is None:
        return {f"held_out_{ACCURACY}": None}
    name = f"held_out_{score.metric}"
    return {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}


def stage_name(
    shard: int,
    prefix: Sequence,
) -> str:
    """What a person calls the stage that saw these slices of a shard, and its run."""
    return f"shard {shard} stage {len(prefix)} of slices {'-'.join(map(str, prefix))}"


def names_in_registry(
    state: State,
) -> list[str]:
    """What the registry has under names that are made of parts, of every stage and version that
    the ledger tells of: names of runs, metrics and tags."""
    scores = [version.score for version in state.versions]
    return [
        *(stage_name(stage.shard, stage.prefix) for stage in state.stages.values()),
        *{name for score in scores for name in (*score_metrics(score), *score_tags(score))},
    ]


def version_card(
    release: Release,
    score: Score | None,
    budget: Mapping[str, str],
) -> str:
    """A model card in Markdown (Mitchell et al., arXiv 1810.03993): what the version may use, how
    well it answers, what is left of its budget, how it is loaded. `budget`: tags of it."""
    measured = (
        f"{score.name} {score.in_words()}, with its 95% interval" if score else "not measured"
    )
    other = score.otherwise if score else None
    if score and score.combine and other and other.combine:
        measured += (
            f", where {_WAYS[score.combine]}; {other.in_words()} where {_WAYS[other.combine]}"
        )
    lines = [
        "A model that can forget (S3T, arXiv 2406.16257). When somebody is erased, the parts that "
        "learned from them are destroyed, and the version after this one is, byte for byte, one "
        "that never saw them.",
        "",
        f"- Release `{release.release_id}`, of data version `{release.dataset}`.",
        f"- On held-out rows: {measured}.",
        *(f"- Shard {shard} may use {_used(release, shard)}." for shard in release.shards()),
        *(f"- {name.removeprefix('s3t.')}: {value}" for name, value in sorted(budget.items())),
        "",
        "Load it by its alias (`mlflow.pyfunc.load_model`), so that it follows an erasure to the "
        "version that serves next: it asks the registry whether it may still answer, and refuses "
        "where it may not.",
    ]
    return "\n".join(lines)


def _used(release: Release, shard: int) -> str:
    replica = release.serving(shard)
    if replica is None or not replica.stages:
        return "nothing: it is dead"
    return f"slices {' '.join(str(s) for s in sorted(replica.sequence[: replica.depth]))}"
