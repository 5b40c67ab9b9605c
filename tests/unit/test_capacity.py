"""Placement and budget."""

from collections import Counter
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from s3t_core.capacity.budget import budget_state, min_hitting_set
from s3t_core.capacity.placement import is_held_out, place
from s3t_core.domain import Release, Replica, StageRecord, Tiers

KEY = b"k" * 32


@given(st.lists(st.text(min_size=1), min_size=2, unique=True))
def test_hazard_5_where_a_subject_goes_depends_on_its_id_alone(subjects: list[str]) -> None:
    everyone = {s: place(KEY, s, 5, (0, 4)) for s in subjects}
    without_first = {s: place(KEY, s, 5, (0, 4)) for s in subjects[1:]}
    assert all(everyone[s] == where for s, where in without_first.items())


def test_placement_is_even_keyed_and_within_bounds() -> None:
    counts = Counter(place(KEY, f"subject {i}", 3, (0, 4)) for i in range(12_000))
    assert len(counts) == 12 and min(counts.values()) > 850  # 1,000 expected, deviation 30
    moved = sum(place(KEY, f"subject {i}", 3, (0, 4)) != place(b"x" * 32, f"subject {i}", 3, (0, 4))
                for i in range(1000))
    assert moved > 850


def test_a_tier_moves_a_subject_within_its_shard_to_the_tiers_own_slices() -> None:
    tiers = Tiers("plan", (("trial",), ("*",)), (1, 3))
    assert (tiers.tier_of("trial"), tiers.tier_of("anything"), tiers.span(0), tiers.span(1)) == (0, 1, (0, 1), (1, 3))
    assert Tiers("plan", (("a",), ("b",)), (1, 1)).tier_of("c") is None
    for i in range(300):
        plain = place(KEY, f"subject {i}", 3, (0, 4))
        likely, other = (place(KEY, f"subject {i}", 3, tiers.span(t)) for t in (0, 1))
        assert plain.shard == likely.shard == other.shard and likely.index == 0 and other.index in (1, 2, 3)


def test_the_held_out_share_is_what_was_asked_for() -> None:
    held = sum(is_held_out(KEY, f"conversation {i}", 0.2) for i in range(10_000))
    assert 1800 < held < 2200
    assert not any(is_held_out(KEY, str(i), 0.0) for i in range(100))


def _release(depths: dict[int, list[int]], slices: int = 3) -> Release:
    replicas = []
    for shard, live in depths.items():
        for number, depth in enumerate(live):
            sequence = tuple((number + i) % slices for i in range(slices))
            stages = tuple(StageRecord(f"{shard}{number}{i}", "d", shard, sequence[:i + 1], ("x",) * (i + 1))
                           for i in range(depth))
            replicas.append(Replica(shard, number, sequence, stages))
    return Release("r", "v", tuple(replicas))


def test_the_budget_names_dead_shards_and_counts_what_is_certain() -> None:
    healthy = budget_state("first_shard_dead", _release({0: [3, 3, 3], 1: [3, 3, 3]}))
    assert (healthy.exhausted, healthy.certain_requests) == (False, 2)  # three slices kill a shard, two cannot
    worn = budget_state("first_shard_dead", _release({0: [3, 3, 3], 1: [1, 0, 0]}))
    assert (worn.exhausted, worn.certain_requests, worn.live_depths) == (False, 0, (3, 1))
    dead = budget_state("first_shard_dead", _release({0: [3, 3, 3], 1: [0, 0, 0]}))
    assert (dead.exhausted, dead.dead_shards) == (True, (1,))
    assert not budget_state("all_shards_dead", _release({0: [3, 3, 3], 1: [0, 0, 0]})).exhausted
    assert budget_state("all_shards_dead", _release({0: [0], 1: [0]})).exhausted


def test_a_shard_without_records_never_counts_as_dead() -> None:
    assert not budget_state("first_shard_dead", _release({0: [3], 1: [0]}), frozenset({1})).exhausted


@given(st.lists(st.frozensets(st.integers(0, 4), min_size=1, max_size=3), max_size=5))
def test_the_smallest_hitting_set_is_exact(sets: list[frozenset[int]]) -> None:
    best = next(size for size in range(6) for chosen in combinations(range(5), size)
                if all(s & set(chosen) for s in sets))
    assert min_hitting_set(sets) == best


def test_a_shard_answers_with_its_deepest_live_replica() -> None:
    release = _release({0: [1, 3, 3], 1: [0, 0, 0]})
    serving = release.serving(0)
    assert serving is not None and serving.number == 1
    assert release.serving(1) is None and release.live_depth(1) == 0
