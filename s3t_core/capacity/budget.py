"""The deletion-rate budget: what is left before a full retrain (method.md, "The deletion-rate
budget").

Two answers, never mixed. What is *certain*: a replica dies when a slice that its first live stage
saw is silenced, so a shard survives any r requests as long as r is below the number of distinct
such slices among its live replicas. What is *expected*: a simulation from the present state, with
an interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from s3t_core.domain import Release, Score

FLOORS = ("accuracy_floor", "score_floor")
"""Policies that look at the score: how long it holds, nobody can foresee."""


@dataclass(frozen=True)
class BudgetPolicy:
    """When the budget is spent. Whatever the policy, it is spent when no shard is left to answer.

    `min_mean_depth` in stages, `floor` in the units of the score (accuracy_floor, score_floor),
    `max_requests` since the last training: each for its policy.
    """

    name: str
    min_mean_depth: float = 0.0
    floor: float = 0.0
    max_requests: int = 0


@dataclass(frozen=True)
class BudgetState:
    """Where the budget stands. `certain_requests`: so many more requests cannot trip the policy,
    whoever asks, as long as each is about one person, whose rows are in one slice (by a hash it may
    be about several); None where the policy gives no such bound."""

    policy: str
    exhausted: bool
    dead_shards: tuple[int, ...]
    live_depths: tuple[int, ...]
    certain_requests: int | None

    @property
    def mean_depth(self) -> float:
        """Mean live depth of the shards that have records, in stages."""
        return sum(self.live_depths) / len(self.live_depths) if self.live_depths else 0.0


@dataclass(frozen=True)
class Spent:
    """What a policy looks at besides the release: the score on held-out rows (None =
    unknown), requests since training."""

    score: Score | None = None
    requests: int = 0


def budget_state(
    policy: BudgetPolicy,
    release: Release,
    empty_shards: frozenset[int] = frozenset(),
    spent: Spent | None = None,
) -> BudgetState:
    """The budget of a release under `policy`.

    `empty_shards` have no records, so no retrain could revive them: they are left out.
    """
    spent = spent or Spent()
    shards = [s for s in release.shards() if s not in empty_shards]
    if not shards:
        return BudgetState(policy.name, False, (), (), 0)
    depths = tuple(release.live_depth(s) for s in shards)
    dead = tuple(s for s, depth in zip(shards, depths, strict=True) if depth == 0)
    needed = sorted(_slices_to_kill(release, s) for s in shards)
    certain: int | None = max(sum(needed) - 1, 0)
    tripped = len(dead) == len(shards)
    if policy.name == "first_shard_dead":
        tripped = bool(dead)
        certain = max(needed[0] - 1, 0)
    elif policy.name == "mean_depth":
        mean = sum(depths) / len(depths)
        tripped = tripped or mean < policy.min_mean_depth
        certain = None
    elif policy.name in FLOORS:
        is_low = spent.score is not None and spent.score.misses(policy.floor)
        tripped = tripped or is_low
        certain = None
    elif policy.name == "requests":
        tripped = tripped or spent.requests >= policy.max_requests
        left = max(policy.max_requests - spent.requests - 1, 0)
        certain = min(left, certain or 0)
    return BudgetState(
        policy.name,
        tripped,
        dead,
        depths,
        0 if tripped else certain,
    )


@dataclass(frozen=True)
class Forecast:
    """Expected requests until the policy trips, from the present state: mean, and 5th and 95th
    percentile of runs."""

    mean: float
    p5: float
    p95: float


def forecast(
    policy: BudgetPolicy,
    release: Release,
    rows: Mapping[tuple[int, int], int],
    prior: tuple[float, ...] | None = None,
    spent: Spent | None = None,
    runs: int = 2000,
    seed: int = 0,
) -> Forecast | None:
    """The forecast for requests that fall on slices by their present rows, or within a shard by
    `prior`.

    `rows` per (shard, slice). None where nothing can be foreseen: an accuracy floor, no rows, a
    live stage that no request can reach.
    """
    import numpy as np

    from s3t_core.capacity.deletion_rate import Distribution, simulate_from

    spent = spent or Spent()
    slices = max((len(r.sequence) for r in release.replicas), default=0)
    shards = []
    for shard in release.shards():
        if any(rows.get((shard, index)) for index in range(slices)):
            shards.append(shard)
    if policy.name in FLOORS or not shards:
        return None
    live = [
        [
            (r.sequence, tuple(len(s.prefix) for s in r.stages))
            for r in release.replicas
            if r.shard == shard and r.stages
        ]
        for shard in shards
    ]
    chances = [_chances([rows.get((s, i), 0) for i in range(slices)], prior) for s in shards]
    survival = simulate_from(live, chances, runs, seed)
    values = survival.all_shards_dead()
    if policy.name == "first_shard_dead":
        values = survival.first_shard_dead()
    elif policy.name == "mean_depth":
        values = np.minimum(values, survival.mean_depth_under(policy.min_mean_depth))
    elif policy.name == "requests":
        values = np.minimum(values, max(policy.max_requests - spent.requests, 0))
    if not np.isfinite(values).all():
        return None  # a live stage whose slices have no rows now: no request can reach it
    found = Distribution.of(values)
    return Forecast(found.mean, found.p5, found.p95)


def _chances(rows: list[int], prior: tuple[float, ...] | None) -> list[float]:
    """How likely a request falls on each slice of a shard, in rows; never on an empty one."""
    if prior is None:
        return [float(n) for n in rows]
    return [p * sum(rows) if n else 0.0 for p, n in zip(prior, rows, strict=True)]


def _slices_to_kill(release: Release, shard: int) -> int:
    """The fewest slices whose silencing kills every live replica of the shard."""
    return min_hitting_set(
        [frozenset(r.stages[0].prefix) for r in release.replicas if r.shard == shard and r.depth]
    )


def min_hitting_set(sets: list[frozenset[int]]) -> int:
    """Size of a smallest set that meets every one of `sets`. Exact; the sets are almost always
    singletons."""
    if not sets:
        return 0
    smallest = min(sets, key=lambda s: (len(s), sorted(s)))
    return 1 + min(min_hitting_set([s for s in sets if member not in s]) for member in smallest)
