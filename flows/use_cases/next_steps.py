"""What to do next, and why: read from the ledger's state alone, so that every command can say
it."""

from collections.abc import Collection
from dataclasses import dataclass

from s3t_core.config import Config
from s3t_core.domain import DatasetVersion, Release
from s3t_core.erasure.state import State


@dataclass(frozen=True)
class NextStep:
    """A command, "" for none, and the reason in one sentence without its end."""

    command: str
    why: str


def after_erasure(state: State, config: Config, retrain: str) -> NextStep:
    """Which of train, retrain and repair follows an erasure, if any. `retrain`: what came of the
    full retrain, as `retraining.have_retrained` says it, or "first"."""
    dataset, release = state.dataset, state.release
    if retrain in ("triggered", "running"):
        return NextStep("s3t status", "the full retrain runs elsewhere; it says when it is done")
    if retrain == "failed" or (state.retrain is not None and retrain == "no"):
        return NextStep("s3t retrain", "the full retrain is wanted, and it is not done")
    if dataset is None:
        return NextStep("s3t ingest SOURCE", "there is no data yet")
    if not dataset.rows():
        return NextStep("s3t ingest SOURCE", "no row to train on is left")
    if release is None:
        return NextStep("s3t train", "there is data, and no version serves yet")
    return _of_release(release, dataset, config)


def _of_release(release: Release, dataset: DatasetVersion, config: Config) -> NextStep:
    dead, missing = _dead(release, dataset), _missing(release, dataset, config)
    if len(dead) == len(_filled(dataset)):
        return NextStep("s3t retrain", "every shard is dead, so nothing answers")
    if _was_ingested_since(release, dataset):
        return NextStep(
            "s3t train", "the data was ingested anew since the version that serves was trained"
        )
    if dead:
        return NextStep(
            "s3t repair",
            f"shard {', '.join(map(str, dead))} no longer answers, the others do; it trains "
            "the worst shards first, within a time limit (`s3t retrain`: all at once)",
        )
    if missing:
        return NextStep(
            "s3t repair",
            f"{missing} of the stages that there can be are deactivated; every shard that has rows "
            "still answers, so it can wait, but each further request may take more",
        )
    return NextStep("", "every stage that there can be is live")


def why_unmeasured(state: State, config: Config) -> str:
    """Why nobody knows the held-out score of the version that serves, "" where it is known or
    none serves."""
    champion, dataset = state.champion, state.dataset
    if champion is None or champion.score is not None or dataset is None:
        return ""
    if not any(r.depth for r in champion.release.replicas):
        return "no live stage is left to measure"
    if dataset.held_out.rows:
        return "it was not measured when it was registered; the next training or erasure measures"
    if not config.data.held_out:
        return "[data] held_out is 0, so no row is kept for measuring"
    return (
        f"no row is held out: all rows of one {config.data.split_by!r} ([data] held_out_by) are "
        f"kept for measuring or none, a share of {config.data.held_out:g} by chance, and there are "
        "too few; with more of them it is known, or with another column there"
    )


def thin_data(dataset: DatasetVersion | None, config: Config) -> list[str]:
    """What is too thin in the data, a sentence each with whether to act."""
    if dataset is None or not dataset.rows():
        return []
    return render_thin(
        dataset.held_out.rows, [v.rows for v in dataset.slice_versions.values()], config
    )


def render_thin(held_out: int, rows_per_slice: Collection[int], config: Config) -> list[str]:
    """The same of the rows that a snapshot would have."""
    found, system, data = [], config.system, config.data
    empty = sum(not rows for rows in rows_per_slice)
    if empty:
        found.append(
            f"{empty} of {len(rows_per_slice)} slices are empty: too few people for "
            f"{system.shards} shards of {system.slices} slices. It trains and erases rightly all "
            "the same; with fewer [system] shards or slices an erasure silences less (`s3t plan`), "
            "and then ingest again"
        )
    if not held_out:
        why = (
            "[data] held_out is 0"
            if not data.held_out
            else (
                f"too few {data.split_by!r} ([data] held_out_by), of which each is held out whole "
                "or not at all"
            )
        )
        found.append(
            f"no row is held out ({why}), so no score will be known. Nothing has to be done "
            "where you measure elsewhere"
        )
    return found


def _filled(dataset: DatasetVersion) -> set[int]:
    """Shards with rows: there is no stage to train on the others, which were empty from the begin
    or which erasures emptied."""
    return {s.shard for s, v in dataset.slice_versions.items() if v.rows}


def _dead(release: Release, dataset: DatasetVersion) -> list[int]:
    return sorted(s for s in _filled(dataset) if not release.live_depth(s))


def _was_ingested_since(release: Release, dataset: DatasetVersion) -> bool:
    """Whether a live stage saw what the data no longer holds: an erasure leaves no such stage."""
    there = {v.digest for v in dataset.slice_versions.values()}
    return any(d not in there for r in release.replicas for s in r.stages for d in s.slice_digests)


def _missing(release: Release, dataset: DatasetVersion, config: Config) -> int:
    """How many stages are not live that the replicas of the settings could have."""
    rows = {(s.shard, s.index): v.rows for s, v in dataset.slice_versions.items()}
    missing = 0
    for replica in release.replicas:
        held = [
            sum(rows.get((replica.shard, i), 0) for i in replica.sequence[: n + 1])
            for n in range(len(replica.sequence))
        ]
        missing += sum(1 for n in held if n) - replica.depth
    absent = config.system.budget * len(_filled(dataset)) - sum(
        1 for r in release.replicas if r.shard in _filled(dataset)
    )
    return max(missing + max(absent, 0) * config.system.slices, 0)
