"""Row e: answers per second of the ensemble, of as many separate models, and of one model; and of
all shards merged into one, beside one plain model (its adapters in its weights).

    python -m benchmarks.serving --dir DIR [--rows N]

The shards are replicas that benchmarks.training trained: with nine of them, up to eight answer as
shards of their own. The ways take turns, request by request, so that what else the machine
does falls on all alike.
"""

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter

from benchmarks.bed import Bed, bed_of, parser
from benchmarks.report import Line, at_least, tell
from s3t_core.domain import Release, Replica

SHARDS = (3, 8)
BATCHES = ((1, 100), (4, 20), (16, 7), (32, 5))
"""Rows of a request, and how many requests."""


def main() -> None:
    """Measure; what is not trained yet is trained."""
    bed = bed_of(parser("benchmarks.serving", __doc__).parse_args())
    if bed.missing():
        bed.train(bed.missing())
    tell(
        [
            line
            for shards in SHARDS
            for depth in (bed.topology.slices, 1)
            for line in _measured(bed, shards, depth)
        ]
    )


def _measured(bed: Bed, shards: int, depth: int) -> list[Line]:
    members = [
        replace(r, shard=n, number=0, stages=r.stages[:depth])
        for n, r in enumerate(_in_turn(bed)[:shards])
    ]
    together = bed.ensemble(_release(members))
    apart = [bed.ensemble(_release([m])) for m in members]
    merged = bed.ensemble(_release(members), "merged")
    texts = [r.text for r in bed.held_out]
    ways: dict[str, Callable[[list[str]], object]] = {
        "ensemble": together.predict,
        "separate": lambda batch: [a.predict(batch) for a in apart],
        "one": apart[0].predict,
        "merged": merged.predict,
        "plain": bed.ensemble(_release(members[:1]), "merged").predict,
    }
    told = [
        Line(
            "e",
            f"{way}, m={shards}, depth {depth} of {bed.topology.slices}",
            100 * score.value,
            f"% {score.metric}",
            f"on {len(bed.held_out)} held-out rows",
        )
        for way, model in (("votes", together), ("merged", merged))
        if (score := model.score(bed.held_out)) is not None
    ]
    for rows, requests in BATCHES:
        seconds = _in_turns(ways, texts, rows, requests)
        middle = {way: median(s) for way, s in seconds.items()}
        name = f"m={shards}, depth {depth} of {bed.topology.slices}, batch {rows}"
        p99 = sorted(seconds["ensemble"])[int(0.99 * requests)]
        told.append(
            Line(
                "e",
                f"ensemble, {name}",
                rows / middle["ensemble"],
                "rows/s",
                f"p50 {1000 * middle['ensemble']:.1f} ms, p99 {1000 * p99:.1f} ms; separate models "
                f"{rows / middle['separate']:.3g}, one model {rows / middle['one']:.3g} rows/s",
            )
        )
        told.append(
            Line(
                "e",
                f"merged, {name}",
                rows / middle["merged"],
                "rows/s",
                f"p50 {1000 * middle['merged']:.1f} ms; one plain model "
                f"{rows / middle['plain']:.3g} rows/s",
            )
        )
        told.append(
            at_least(
                "e",
                f"merged against one plain model, {name}",
                middle["plain"] / middle["merged"],
                0.95,
            )
        )
        gain = middle["separate"] / middle["ensemble"]
        if shards == SHARDS[0]:
            reach = (1.5 if rows == 1 else 1.0) if depth > bed.topology.slices / 2 else 1.3
            told.append(at_least("e", f"ensemble against separate models, {name}", gain, reach))
        else:
            told.append(Line("e", f"ensemble against separate models, {name}", gain, "x"))
    return told


def _in_turn(bed: Bed) -> list[Replica]:
    """Replicas, of different shards first."""
    return sorted(bed.release().replicas, key=lambda r: (r.number, r.shard))


def _release(members: list[Replica]) -> Release:
    return Release("release-bench", "", tuple(members))


def _in_turns(
    ways: dict[str, Callable[[list[str]], object]], texts: list[str], rows: int, requests: int
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(-3, requests):  # the first three warm up
        batch = [texts[(number * rows + i) % len(texts)] for i in range(rows)]
        for way, answer in ways.items():
            begun = perf_counter()
            answer(batch)
            if number >= 0:
                found[way].append(perf_counter() - begun)
    return found


if __name__ == "__main__":
    main()
