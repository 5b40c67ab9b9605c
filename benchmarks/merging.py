"""Votes against one merged model: the table by which `[serving] combine` was chosen.

    python -m benchmarks.merging --dir DIR [--rows N] [--m 1,3,8,16] [--kinds lora]

For each kind of adapter and each number of shards all replicas are trained once (those that are
there are used again), then answer on the held-out reviews: at full depth, cut to fewer stages, at
mixed depths; with the deepest live replica of each shard, and with all live ones. Intervals are 95%
percentiles of the paired bootstrap over held-out rows (Efron and Tibshirani 1993, chapter 13).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.bed import Bed, bench_config, parser
from benchmarks.report import Line, tell
from s3t_core.domain import Combine, Release, Replica

DRAWS = 10_000
_PART = 500
"""Draws at a time: 500 x 1,725 rows are 7 MB of positions."""


def main() -> None:
    """Measure; what is not trained yet is trained."""
    options = parser("benchmarks.merging", __doc__)
    options.add_argument("--m", default="1,3,8,16", help="numbers of shards")
    options.add_argument("--kinds", default="lora", help="kinds of adapters")
    given = options.parse_args()
    lines: list[Line] = []
    for kind in given.kinds.split(","):
        for shards in map(int, given.m.split(",")):
            bed = Bed(
                Path(given.dir).resolve() / f"{kind}-{shards}",
                bench_config(
                    shards, given.slices, given.budget, {"kind": kind}, epochs=given.epochs
                ),
                given.rows or None,
            )
            if bed.missing():
                bed.train(bed.missing())
            lines += Comparison(bed, kind).lines()
    tell(lines)


@dataclass(frozen=True)
class Answers:
    """What a model says of the held-out rows: whether each is `right` (rows,) 0 or 1, and the
    `surprise` (rows,) at the true label, in nats."""

    right: Tensor
    surprise: Tensor

    def told(self) -> str:
        """Accuracy and mean log-loss."""
        return f"{100 * float(self.right.mean()):.1f} %, {float(self.surprise.mean()):.3f}"


class Comparison:
    """The models of one bed."""

    def __init__(self, bed: Bed, kind: str) -> None:
        self._bed, self._kind = bed, kind
        self._texts = [r.text for r in bed.held_out]
        self._truth = torch.tensor([bed.recipe.labels.index(r.label) for r in bed.held_out])
        self._replicas = bed.release().replicas

    def lines(self) -> list[Line]:
        """One for each state of the shards, and one for all live replicas of every shard."""
        first = [r for r in self._replicas if r.number == 0]
        told = []
        for name, depths in self._depths():
            members = [_cut(r, n, depths[n % len(depths)]) for n, r in enumerate(first)]
            votes, merged = self._asked(members, "votes"), self._asked(members, "merged")
            told.append(self._line(name, votes, merged))
        if self._bed.topology.budget > 1:
            everyone = [_cut(r, n, r.depth) for n, r in enumerate(self._replicas)]
            deepest = [_cut(r, n, r.depth) for n, r in enumerate(first)]
            told.append(
                self._line(
                    "all live replicas merged",
                    self._asked(deepest, "votes"),
                    self._asked(everyone, "merged"),
                )
            )
        return told

    def _depths(self) -> Iterator[tuple[str, range]]:
        """Names of states, and the depths that shards have in turn."""
        slices = self._bed.topology.slices
        for depth in range(slices, 0, -1):
            yield f"depth {depth} of {slices}", range(depth, depth + 1)
        if self._bed.topology.shards > 1:
            yield "depths mixed", range(1, slices + 1)

    def _asked(self, members: list[Replica], combine: Combine) -> Answers:
        model = self._bed.ensemble(Release("release-bench", "", tuple(members)), combine)
        said = model.probabilities(self._texts)
        at_truth = said.gather(1, self._truth[:, None])[:, 0]
        return Answers((said.argmax(1) == self._truth).float(), -at_truth.clamp_min(1e-9).log())

    def _line(self, name: str, votes: Answers, merged: Answers) -> Line:
        low, high = paired_interval(merged.right - votes.right)
        return Line(
            "merging",
            f"merged minus votes, {self._kind}, m={self._bed.topology.shards}, {name}",
            100 * float((merged.right - votes.right).mean()),
            "points",
            f"{100 * low:+.1f} to {100 * high:+.1f}; votes {votes.told()}, merged {merged.told()}; "
            f"{len(self._texts)} held-out rows",
        )


def paired_interval(difference: Tensor) -> tuple[float, float]:
    """95% percentiles of the mean of `difference` (rows,) over draws of its rows with replacement,
    the same draws each time."""
    chance = torch.Generator().manual_seed(0)
    rows = len(difference)
    means = torch.cat(
        [
            difference[torch.randint(rows, (_PART, rows), generator=chance)].mean(1)
            for _ in range(DRAWS // _PART)
        ]
    )
    low, high = means.quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def _cut(replica: Replica, shard: int, depth: int) -> Replica:
    """The replica as a shard of its own, with its first stages."""
    return replace(replica, shard=shard, number=0, stages=replica.stages[:depth])


if __name__ == "__main__":
    main()
