"""The deletion-rate budget: what is left before a full retrain (method.md, "The deletion-rate budget").

A replica dies when the slice its first trained stage saw is silenced, so a shard survives any r requests as long as r
is below the number of distinct such slices among its live replicas: a certain lower bound, whatever the requests.
"""

from dataclasses import dataclass

from s3t_core.domain import Release


@dataclass(frozen=True)
class BudgetState:
    """Where the budget stands. `certain_requests`: so many more requests cannot trip the policy, whichever they are."""

    policy: str
    exhausted: bool
    dead_shards: tuple[int, ...]
    live_depths: tuple[int, ...]
    certain_requests: int


def budget_state(policy: str, release: Release, empty_shards: frozenset[int] = frozenset()) -> BudgetState:
    """The budget of a release under `policy` ("first_shard_dead" or "all_shards_dead").

    `empty_shards` have no records, so no retrain could revive them: they are left out.
    """
    shards = [s for s in release.shards() if s not in empty_shards]
    if not shards:
        return BudgetState(policy, False, (), (), 0)
    depths = tuple(release.live_depth(s) for s in shards)
    dead = tuple(s for s, depth in zip(shards, depths, strict=True) if depth == 0)
    needed = sorted(_slices_to_kill(release, s) for s in shards)
    if policy == "first_shard_dead":
        exhausted, to_trip = bool(dead), needed[0]
    else:
        exhausted, to_trip = len(dead) == len(shards), sum(needed)
    return BudgetState(policy, exhausted, dead, depths, 0 if exhausted else max(to_trip - 1, 0))


def _slices_to_kill(release: Release, shard: int) -> int:
    """The fewest slices whose silencing kills every live replica of the shard."""
    return min_hitting_set([frozenset(r.stages[0].prefix) for r in release.replicas if r.shard == shard and r.depth])


def min_hitting_set(sets: list[frozenset[int]]) -> int:
    """Size of a smallest set that meets every one of `sets`. Exact; the sets are almost always singletons."""
    if not sets:
        return 0
    smallest = min(sets, key=lambda s: (len(s), sorted(s)))
    return 1 + min(min_hitting_set([s for s in sets if member not in s]) for member in smallest)
