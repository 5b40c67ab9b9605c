"""What a layout (m, L, B) would take and how long it would last: the figures behind `s3t plan`.
Pure.

Training is counted in plain fine-tunes of all the data, the adapter and the head alone, on frozen
blocks: a stage that sees i of L slices and trains through i of L blocks costs (i/L)^2 of one (paper
section 3.3). So a replica costs (L+1)(2L+1)/(6L) fine-tunes of its shard, and stages that replicas
share are counted once.
"""

import math
from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np

from s3t_core.capacity.deletion_rate import (
    Distribution,
    RequestStream,
    Survival,
    deletion_rate,
    simulate,
)
from s3t_core.capacity.sequences import choose_sequences
from s3t_core.domain import Sequence, Topology
from s3t_core.errors import UsageError


@dataclass(frozen=True)
class Work:
    """What training takes. `cost` in plain fine-tunes of all the data, `slice_visits` in slices
    read per epoch, of m·L.

    `repair_visits`: slices read per epoch to train again what one request silences, at full depth,
    on average.
    """

    stages: int
    cost: float
    slice_visits: int
    repair_visits: float


def work_of(
    topology: Topology,
    sequences: Listing[Sequence],
    shares: Listing[float],
) -> Work:
    """The work of `sequences` in every shard; `shares` is the chance of each slice of a shard to be
    named."""
    prefixes = {s[:i] for s in sequences for i in range(1, topology.slices + 1)}
    return Work(
        stages=topology.shards * len(prefixes),
        cost=sum((len(p) / topology.slices) ** 2 for p in prefixes),
        slice_visits=topology.shards * sum(map(len, prefixes)),
        repair_visits=sum(len(p) * sum(shares[s] for s in p) for p in prefixes),
    )


def sustained_requests_per_day(
    work: Work,
    rows_per_slice: float,
    epochs: int,
    rows_per_second: float,
) -> float:
    """How many requests a day repair keeps up with, training without a pause at
    `rows_per_second`."""
    seconds = work.repair_visits * rows_per_slice * epochs / rows_per_second
    return 86_400 / seconds if seconds else float("inf")


@dataclass(frozen=True)
class LayoutPlan:
    """A layout with its figures. `share_seen`: the share of all records that one full-depth model
    has seen."""

    topology: Topology
    sequences: tuple[Sequence, ...]
    work: Work
    survival: Survival

    @property
    def share_seen(self) -> float:
        """1/m."""
        return 1 / self.topology.shards

    @property
    def deletion_rate(self) -> float:
        """Lemma 1, for uniform requests."""
        return deletion_rate(self.topology)

    def lasts(self, policy: str, floor: float = 0.0) -> Distribution:
        """Requests until `policy` trips: "first_shard_dead", "all_shards_dead" or "mean_depth" with
        its floor."""
        if policy == "mean_depth":
            return Distribution.of(self.survival.mean_depth_under(floor))
        return Distribution.of(
            self.survival.all_shards_dead()
            if policy == "all_shards_dead"
            else self.survival.first_shard_dead()
        )


def plan_layout(
    topology: Topology,
    kind: str,
    stream: RequestStream,
    runs: int = 2000,
    seed: int = 0,
) -> LayoutPlan:
    """Choose sequences of `kind` for the stream's prior, count their work and simulate. Raises
    UsageError."""
    shares = stream.slice_shares(topology.slices)
    sequences = choose_sequences(
        kind,
        topology.slices,
        topology.budget,
        shares,
        seed,
    )
    survival = simulate(topology, sequences, stream, runs, seed)
    if not np.isfinite(survival.ends).all():
        raise UsageError(
            f"expected enough subjects for every one of the {topology.shards * topology.slices} "
            f"slices to have some, got {stream.subjects}, so that a shard may never die; raise "
            "--subjects, or let each ask once (--once)"
        )
    return LayoutPlan(
        topology,
        tuple(sequences),
        work_of(topology, sequences, shares),
        survival,
    )


def same_rate_layouts(topology: Topology, most_slices: int) -> list[Topology]:
    """Layouts with the same deletion rate as `topology`: only m·L and m·min(B, L) enter lemma 1
    (method.md).

    From few shards, each of whose models sees more data and costs more to train, to many. At most
    `most_slices` slices (a block needs a layer).
    """
    slices = topology.shards * topology.slices
    firsts = topology.shards * min(topology.budget, topology.slices)
    return [
        Topology(m, slices // m, firsts // m)
        for m in range(1, slices + 1)
        if slices % m == 0 and firsts % m == 0 and slices // m <= most_slices
    ]


def candidates(
    shards: Listing[int],
    slices: Listing[int],
    budgets: Listing[int] | None,
    kind: str = "cyclic",
) -> list[Topology]:
    """Layouts to search for a target, those that train least first, then those with fewer shards.

    Without `budgets`, B goes up to L: more sequences repeat first slices. `kind` "bms" takes no
    more.
    """
    found = [
        Topology(m, n, b)
        for m in shards
        for n in slices
        for b in (budgets or range(1, n + 1))
        if b <= (n if kind == "bms" else math.factorial(n))
    ]
    return sorted(
        found,
        key=lambda t: (
            t.budget * (t.slices + 1) * (2 * t.slices + 1) / (6 * t.slices),
            t.shards,
            t.slices,
        ),
    )
