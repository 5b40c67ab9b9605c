"""Placement and budget."""

from collections import Counter
from itertools import combinations
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_core.capacity.assignment import is_held_out, place
from s3t_core.capacity.budget import (
    BudgetPolicy,
    Spent,
    budget_state,
    forecast,
    min_hitting_set,
)
from s3t_core.capacity.deletion_rate import harmonic
from s3t_core.config.sections import DeletionBudgetConfig
from s3t_core.domain import Release, Replica, Score, StageRecord, Tiers, as_accuracy

KEY = b"k" * 32


@given(st.lists(st.text(min_size=1), min_size=2, unique=True))
def test_hazard_5_where_a_subject_goes_depends_on_its_id_alone(subjects: list[str]) -> None:
    everyone = {s: place(KEY, s, 5, (0, 4)) for s in subjects}
    without_first = {s: place(KEY, s, 5, (0, 4)) for s in subjects[1:]}
    assert all(everyone[s] == where for s, where in without_first.items())


def test_placement_is_even_keyed_and_within_bounds() -> None:
    counts = Counter(place(KEY, f"subject {i}", 3, (0, 4)) for i in range(12_000))
    assert len(counts) == 12 and min(counts.values()) > 850  # 1,000 expected, deviation 30
    moved = sum(
        place(KEY, f"subject {i}", 3, (0, 4)) != place(b"x" * 32, f"subject {i}", 3, (0, 4))
        for i in range(1000)
    )
    assert moved > 850


def test_a_tier_moves_a_subject_within_its_shard_to_the_tiers_own_slices() -> None:
    tiers = Tiers("plan", (("trial",), ("*",)), (1, 3))
    assert (tiers.tier_of("trial"), tiers.tier_of("anything"), tiers.span(0), tiers.span(1)) == (
        0,
        1,
        (0, 1),
        (1, 3),
    )
    assert Tiers("plan", (("a",), ("b",)), (1, 1)).tier_of("c") is None
    for i in range(300):
        plain = place(KEY, f"subject {i}", 3, (0, 4))
        likely, other = (place(KEY, f"subject {i}", 3, tiers.span(t)) for t in (0, 1))
        assert (
            plain.shard == likely.shard == other.shard
            and likely.index == 0
            and other.index in (1, 2, 3)
        )


def test_the_held_out_share_is_what_was_asked_for() -> None:
    held = sum(is_held_out(KEY, f"conversation {i}", 0.2) for i in range(10_000))
    assert 1800 < held < 2200
    assert not any(is_held_out(KEY, str(i), 0.0) for i in range(100))


def _release(depths: dict[int, list[int]], slices: int = 3) -> Release:
    replicas = []
    for shard, live in depths.items():
        for number, depth in enumerate(live):
            sequence = tuple((number + i) % slices for i in range(slices))
            stages = tuple(
                StageRecord(f"{shard}{number}{i}", "d", shard, sequence[: i + 1], ("x",) * (i + 1))
                for i in range(depth)
            )
            replicas.append(Replica(shard, number, sequence, stages))
    return Release("r", "v", tuple(replicas))


def test_the_budget_names_dead_shards_and_counts_what_is_certain() -> None:
    healthy = budget_state(BudgetPolicy("first_shard_dead"), _release({0: [3, 3, 3], 1: [3, 3, 3]}))
    assert (healthy.exhausted, healthy.certain_requests) == (
        False,
        2,
    )  # three slices kill a shard, two cannot
    worn = budget_state(BudgetPolicy("first_shard_dead"), _release({0: [3, 3, 3], 1: [1, 0, 0]}))
    assert (worn.exhausted, worn.certain_requests, worn.live_depths) == (False, 0, (3, 1))
    dead = budget_state(BudgetPolicy("first_shard_dead"), _release({0: [3, 3, 3], 1: [0, 0, 0]}))
    assert (dead.exhausted, dead.dead_shards) == (True, (1,))
    assert not budget_state(
        BudgetPolicy("all_shards_dead"), _release({0: [3, 3, 3], 1: [0, 0, 0]})
    ).exhausted
    assert budget_state(BudgetPolicy("all_shards_dead"), _release({0: [0], 1: [0]})).exhausted


def test_a_shard_without_records_never_counts_as_dead() -> None:
    assert not budget_state(
        BudgetPolicy("first_shard_dead"), _release({0: [3], 1: [0]}), frozenset({1})
    ).exhausted


def test_the_other_policies_trip_at_their_thresholds() -> None:
    worn = _release({0: [3, 3, 3], 1: [1, 0, 0]})
    for floor, trips in ((2.0, False), (2.1, True)):
        found = budget_state(BudgetPolicy("mean_depth", min_mean_depth=floor), worn)
        assert (found.exhausted, found.mean_depth) == (trips, 2.0)
        assert found.certain_requests == (0 if trips else None)
    floor = BudgetPolicy("accuracy_floor", floor=0.7)
    spent = [Spent(as_accuracy(share)) for share in (None, 0.7, 0.69)]
    assert [budget_state(floor, worn, spent=s).exhausted for s in spent] == [False, False, True]
    worst = BudgetPolicy("score_floor", floor=12.0)  # of a score of which lower is better
    spent = [Spent(Score("perplexity", v, higher_is_better=False)) for v in (11.0, 12.0, 12.1)]
    assert [budget_state(worst, worn, spent=s).exhausted for s in spent] == [False, False, True]
    best = BudgetPolicy("score_floor", floor=0.5)
    spent = [Spent(Score("macro_f1", v)) for v in (0.6, 0.5, 0.4)]
    assert [budget_state(best, worn, spent=s).exhausted for s in spent] == [False, False, True]
    limit = BudgetPolicy("requests", max_requests=3)
    states = [budget_state(limit, worn, spent=Spent(None, n)) for n in range(4)]
    assert [s.exhausted for s in states] == [False, False, False, True]
    assert [s.certain_requests for s in states] == [2, 1, 0, 0]


@pytest.mark.parametrize(
    "policy",
    [
        BudgetPolicy(p, min_mean_depth=1, floor=0.1, max_requests=99)
        for p in get_args(DeletionBudgetConfig.model_fields["policy"].annotation)
    ],
)
def test_whatever_the_policy_it_trips_when_nothing_is_left_to_answer(policy: BudgetPolicy) -> None:
    assert budget_state(policy, _release({0: [0, 0], 1: [0]})).exhausted


def test_the_forecast_starts_from_the_present_state() -> None:
    rows = {(shard, i): 10 for shard in (0, 1) for i in range(3)}
    first, every = BudgetPolicy("first_shard_dead"), BudgetPolicy("all_shards_dead")
    full, worn = _release({0: [3, 3, 3], 1: [3, 3, 3]}), _release({0: [3, 3, 3], 1: [1, 0, 0]})
    fresh = forecast(every, full, rows, runs=6000)
    assert fresh is not None and fresh.mean == pytest.approx(
        6 * harmonic(6), rel=0.04
    )  # lemma 1, m=2 L=3 B=3
    left = forecast(first, worn, rows, runs=6000)
    assert (
        left is not None and left.mean < 6 and left.p5 <= left.mean <= left.p95
    )  # one slice of six kills shard 1
    dead = forecast(first, _release({0: [3], 1: [0]}), rows)
    assert dead is not None and dead.mean == 0
    capped = forecast(BudgetPolicy("requests", max_requests=5), full, rows, spent=Spent(None, 2))
    assert capped is not None and capped.p95 == 3
    floor = forecast(BudgetPolicy("mean_depth", min_mean_depth=2.5), full, rows)
    assert floor is not None and floor.mean < fresh.mean
    unlikely = forecast(first, worn, {**rows, (1, 0): 1}, runs=6000)
    assert (
        unlikely is not None and unlikely.mean > 1.5 * left.mean
    )  # few rows stand in the slice that matters
    feared = forecast(first, worn, rows, (0.8, 0.1, 0.1), runs=6000)
    assert (
        feared is not None and feared.mean < left.mean
    )  # the slice that matters is the likely one
    assert forecast(BudgetPolicy("accuracy_floor", floor=0.5), full, rows) is None
    assert forecast(every, worn, {**rows, (1, 0): 0}) is None  # shard 1 can never be reached


@given(st.lists(st.frozensets(st.integers(0, 4), min_size=1, max_size=3), max_size=5))
def test_the_smallest_hitting_set_is_exact(sets: list[frozenset[int]]) -> None:
    best = next(
        size
        for size in range(6)
        for chosen in combinations(range(5), size)
        if all(s & set(chosen) for s in sets)
    )
    assert min_hitting_set(sets) == best


def test_a_shard_answers_with_its_deepest_live_replica() -> None:
    release = _release({0: [1, 3, 3], 1: [0, 0, 0]})
    serving = release.serving(0)
    assert serving is not None and serving.number == 1
    assert release.serving(1) is None and release.live_depth(1) == 0
