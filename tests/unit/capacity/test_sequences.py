"""Sequence selection: cyclic, bipartite matching, optimised."""

import math
import time
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t_core.capacity.sequences import (
    DepthObjective,
    bms_sequences,
    choose_sequences,
    cyclic_sequences,
    optimised_sequences,
    sequence_score,
)
from s3t_core.domain import Topology
from s3t_core.errors import UsageError


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int]:
    slices = draw(st.integers(1, 7))
    return slices, draw(st.integers(1, min(math.factorial(slices), 800)))


@settings(max_examples=150, deadline=None)
@given(shapes())
def test_sequences_are_distinct_orders_balanced_at_every_level_of_prefix(
    shape: tuple[int, int],
) -> None:
    slices, budget = shape
    found = cyclic_sequences(slices, budget)
    assert len(set(found)) == len(found) == budget
    assert all(sorted(s) == list(range(slices)) for s in found)
    for length in range(1, slices + 1):
        extended = Counter(s[:length] for s in found)
        for parent in {s[: length - 1] for s in found}:
            counts = [extended[(*parent, n)] for n in range(slices) if n not in parent]
            assert max(counts) - min(counts) <= 1


@given(st.integers(1, 12), st.data())
def test_up_to_one_rotation_each_no_slice_takes_a_position_twice(
    slices: int, data: st.DataObject
) -> None:
    budget = data.draw(st.integers(1, slices))
    for position in zip(*cyclic_sequences(slices, budget), strict=True):
        assert len(set(position)) == budget


def test_fewer_rotations_than_slices_are_spaced_evenly() -> None:
    assert [s[0] for s in cyclic_sequences(6, 3)] == [0, 2, 4]
    assert [s[0] for s in cyclic_sequences(5, 2)] == [0, 2]


@pytest.mark.parametrize(("slices", "budget"), [(3, 0), (3, 7), (1, 2), (0, 1)])
def test_a_budget_outside_1_to_l_factorial_is_refused(slices: int, budget: int) -> None:
    with pytest.raises(UsageError, match="expected"):
        cyclic_sequences(slices, budget)
    with pytest.raises(UsageError):
        Topology(1, slices, budget)


@st.composite
def priors(draw: st.DrawFn, most: int = 8) -> tuple[float, ...]:
    weights = draw(st.lists(st.integers(1, 50), min_size=1, max_size=most))
    return tuple(w / sum(weights) for w in weights)


@settings(max_examples=100, deadline=None)
@given(priors(), st.data())
def test_bms_is_latin_distinct_and_best_scoring_first(
    prior: tuple[float, ...], data: st.DataObject
) -> None:
    slices = len(prior)
    budget = data.draw(st.integers(1, slices))
    square = bms_sequences(prior, slices)
    for position in zip(*square, strict=True):
        assert sorted(position) == list(range(slices))
    scores = [sequence_score(s, prior, slices) for s in square]
    assert scores == sorted(scores, reverse=True)
    assert bms_sequences(prior, budget) == square[:budget]  # B < L keeps the best-scoring


def test_bms_solves_each_position_exactly() -> None:
    """Two positions of four slices, against every possible assignment."""
    prior = (0.1, 0.2, 0.3, 0.4)
    best = max(
        permutations(range(4)),
        key=lambda chosen: sum(
            sequence_score((row, column), prior, 4) if row != column else -math.inf
            for row, column in enumerate(chosen)
        ),
    )
    second = {s[0]: s[1] for s in bms_sequences(prior, 4)}
    total = sum(sequence_score((row, column), prior, 4) for row, column in second.items())
    assert total == pytest.approx(sum(sequence_score((r, c), prior, 4) for r, c in enumerate(best)))


def test_the_score_is_the_papers() -> None:
    assert sequence_score((1, 0), (0.25, 0.75), 2) == pytest.approx(1 * 0.25**2 + 2 * 0)
    assert sequence_score((0,), (0.25, 0.75), 3) == pytest.approx(0.75**3)


@settings(max_examples=8, deadline=None)
@given(priors(), st.data())
def test_optimised_is_distinct_and_never_worse(
    prior: tuple[float, ...], data: st.DataObject
) -> None:
    slices = len(prior)
    budget = data.draw(st.integers(1, min(math.factorial(slices), slices + 3)))
    found = optimised_sequences(prior, budget)
    assert len(set(found)) == len(found) == budget
    assert all(sorted(s) == list(range(slices)) for s in found)
    objective = DepthObjective(prior)
    value = objective.value(found)
    assert value >= objective.value(cyclic_sequences(slices, budget)) - 1e-9
    if budget <= slices:
        assert value >= objective.value(bms_sequences(prior, budget)) - 1e-9
    alone = [objective.value([s]) for s in found]
    assert alone == sorted(alone, reverse=True)


@pytest.mark.parametrize(
    ("slices", "budget", "cyclic", "optimised"),
    [(6, 6, 31.38, 31.87), (6, 3, 24.98, 24.98), (4, 4, 15.33, 15.33), (5, 5, 22.91, 22.91)],
)
def test_the_reference_values_of_the_objective(
    slices: int, budget: int, cyclic: float, optimised: float
) -> None:
    objective = DepthObjective((1 / slices,) * slices)
    assert objective.value(cyclic_sequences(slices, budget)) == pytest.approx(cyclic, abs=0.01)
    assert objective.value(optimised_sequences((1 / slices,) * slices, budget)) >= optimised


def test_consecutive_rotations_are_worse_than_evenly_spaced_ones() -> None:
    objective = DepthObjective((1 / 6,) * 6)
    consecutive = [tuple((start + i) % 6 for i in range(6)) for start in range(3)]
    assert objective.value(consecutive) == pytest.approx(23.69, abs=0.005)
    assert objective.value(cyclic_sequences(6, 3)) == pytest.approx(24.99, abs=0.005)


def test_the_objective_agrees_with_streams_drawn_one_by_one() -> None:
    import numpy as np

    prior = (0.5, 0.3, 0.2)
    sequences = [(2, 1, 0), (1, 2, 0)]
    rng = np.random.default_rng(3)
    totals = []
    for _ in range(4000):
        dead: set[int] = set()
        total = 0
        for hit in rng.choice(3, size=12, p=prior):
            total += max(next((i for i, s in enumerate(q) if s in dead), 3) for q in sequences)
            dead.add(int(hit))
        totals.append(total)
    error = np.std(totals) / math.sqrt(len(totals))
    assert abs(DepthObjective(prior, horizon=12).value(sequences) - np.mean(totals)) < 4 * error


def test_twelve_slices_are_exact_and_take_seconds_the_same_each_time() -> None:
    prior = (1 / 12,) * 12
    started = time.monotonic()
    found = optimised_sequences(prior, 12, seed=7)
    assert time.monotonic() - started < 30  # 4 s on an idle core; the issue asks for 10
    assert (
        DepthObjective(prior).value(found)
        > DepthObjective(prior).value(cyclic_sequences(12, 12)) + 3
    )


def test_a_seed_gives_the_same_sequences_again() -> None:
    prior = (0.4, 0.3, 0.1, 0.1, 0.1)
    assert optimised_sequences(prior, 4, seed=5) == optimised_sequences(prior, 4, seed=5)


def test_above_twelve_slices_the_objective_is_sampled_and_still_helps() -> None:
    prior = (1 / 14,) * 14
    found = optimised_sequences(prior, 6, seed=1)
    other = DepthObjective(prior, seed=99)  # a sample that the search never saw
    assert other.sets < 2**14
    assert other.value(found) > other.value(cyclic_sequences(14, 6))


def test_a_likely_slice_stands_late() -> None:
    for kind in ("bms", "optimised"):
        found = choose_sequences(kind, 4, 3, (0.8, 0.2 / 3, 0.2 / 3, 0.2 / 3))
        assert 0 not in {s[0] for s in found} and 0 in {s[-1] for s in found}


@pytest.mark.parametrize(
    "prior", [(0.5, 0.4), (0.5, 0.25, 0.25), (1.0, 0.0), (1.5, -0.5), (float("nan"), 0.5)]
)
def test_a_prior_that_is_none_is_refused(prior: tuple[float, ...]) -> None:
    for kind in ("bms", "optimised"):
        with pytest.raises(UsageError, match=r"expected (the|a|every probability of the) prior"):
            choose_sequences(kind, 2, 1, prior)


def test_more_sequences_than_slices_do_not_go_with_bms() -> None:
    with pytest.raises(UsageError, match="Latin square"):
        bms_sequences((0.5, 0.5), 3)
    with pytest.raises(UsageError, match="expected sequences cyclic, bms, optimised"):
        choose_sequences("random", 2, 1)
