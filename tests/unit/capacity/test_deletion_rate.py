"""How long a layout lasts: lemmas, and the simulator against them and against streams played one by
one."""

import math
import random
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s3t_core.capacity.deletion_rate import (
    Distribution,
    RequestStream,
    deletion_rate,
    retention,
    simulate,
    simulate_from,
)
from s3t_core.capacity.sequences import choose_sequences, cyclic_sequences
from s3t_core.domain import Sequence, Topology
from s3t_core.errors import UsageError


@pytest.mark.parametrize(
    ("shards", "slices", "budget", "lemma"),
    [
        (5, 4, 1, 45.67),
        (5, 4, 2, 58.58),
        (5, 4, 4, 71.95),
        (5, 6, 1, 68.50),
        (5, 6, 3, 99.55),
        (5, 6, 6, 119.85),
    ],
)
def test_the_simulated_deletion_rate_is_lemma_1(
    shards: int, slices: int, budget: int, lemma: float
) -> None:
    topology = Topology(shards, slices, budget)
    assert deletion_rate(topology) == pytest.approx(lemma, abs=0.005)
    found = Distribution.of(
        simulate(
            topology, cyclic_sequences(slices, budget), RequestStream(), 10_000
        ).all_shards_dead()
    )
    assert abs(found.mean - lemma) < 3 * found.standard_error


def test_one_shard_lasts_as_long_as_three_with_the_same_product() -> None:
    assert (
        deletion_rate(Topology(1, 6, 6))
        == pytest.approx(deletion_rate(Topology(3, 2, 2)))
        == pytest.approx(14.7)
    )


def test_requests_to_the_first_dead_shard() -> None:
    found = {
        budget: Distribution.of(
            simulate(
                Topology(5, 6, budget), cyclic_sequences(6, budget), RequestStream(), 8000, seed=2
            ).first_shard_dead()
        )
        for budget in (1, 6)
    }
    assert found[1].mean == pytest.approx(6.0, abs=0.3)
    assert found[6].mean == pytest.approx(38.4, abs=0.7)
    assert found[6].p5 < found[6].mean < found[6].p95


def test_retention_is_lemma_2_which_is_an_approximation() -> None:
    assert retention(4, 1, 2, 3) == pytest.approx((1 - 2 / 4) ** 3)
    assert retention(4, 4, 1, 6) == pytest.approx(0.543, abs=0.0005)
    ends = simulate(
        Topology(1, 4, 4), cyclic_sequences(4, 4), RequestStream(), 20_000, seed=3
    ).ends[:, 0, 0]
    assert np.mean(ends > 6) == pytest.approx(0.619, abs=0.01)  # what cyclic rotation really keeps
    with pytest.raises(UsageError, match="expected a depth from 1 to 4"):
        retention(4, 4, 5, 1)


def _play(
    topology: Topology,
    sequences: list[Sequence],
    draw: "random.Random",
    weights: list[float],
    requests: int,
) -> tuple[list[float], int, int]:
    """One stream, request by request, by the definition: mean depth after each, first and last
    death."""
    hit: set[int] = set()
    depths, first, last = [], 0, 0
    for number in range(1, requests + 1):
        hit.add(draw.choices(range(len(weights)), weights)[0])
        live = []
        for shard in range(topology.shards):
            dead = {h % topology.slices for h in hit if h // topology.slices == shard}
            live.append(
                max(next((i for i, s in enumerate(q) if s in dead), len(q)) for q in sequences)
            )
        depths.append(sum(live) / topology.shards)
        first = first or (number if 0 in live else 0)
        last = last or (number if not any(live) else 0)
    return depths, first, last


def test_the_simulator_agrees_with_streams_played_one_by_one() -> None:
    topology, prior = Topology(2, 3, 2), (0.6, 0.3, 0.1)
    sequences = choose_sequences("bms", 3, 2, prior)
    survival = simulate(topology, sequences, RequestStream(prior=prior), 20_000, seed=4)
    draw = random.Random(4)
    played = [
        _play(topology, sequences, draw, [p / 2 for p in prior] * 2, 300) for _ in range(1200)
    ]
    for index, found in ((1, survival.first_shard_dead()), (2, survival.all_shards_dead())):
        values = np.array([p[index] for p in played], dtype=float)
        assert values.min() > 0
        error = math.hypot(
            Distribution.of(values).standard_error, Distribution.of(found).standard_error
        )
        assert abs(values.mean() - found.mean()) < 4 * error
    curve = survival.mean_depth([1, 3, 6, 12])
    played_curve = np.mean([[p[0][i - 1] for i in (1, 3, 6, 12)] for p in played], axis=0)
    assert curve == pytest.approx(played_curve, abs=0.08)
    # the floor: the first request after which the mean is under it
    floors = np.array(
        [next(i for i, d in enumerate(p[0], 1) if d < 1.5) for p in played], dtype=float
    )
    assert survival.mean_depth_under(1.5).mean() == pytest.approx(floors.mean(), abs=0.35)


def test_tiers_and_subjects_who_ask_once() -> None:
    """method.md: 73 -> 250 with endless subjects, 74 -> 148 with 645 who ask once."""
    topology, skew = Topology(5, 4, 4), (0.2, 0.8)
    tiers = choose_sequences(
        "optimised", 4, 4, RequestStream(likely=skew, tiers=(1, 3)).slice_shares(4)
    )

    def lasts(tiered: bool, subjects: int, once: bool) -> float:
        stream = RequestStream(
            likely=skew, tiers=(1, 3) if tiered else None, subjects=subjects, once=once
        )
        return float(simulate(topology, tiers, stream, 1500, seed=5).all_shards_dead().mean())

    assert lasts(False, 0, False) == pytest.approx(72, abs=3)
    assert lasts(True, 0, False) == pytest.approx(250, abs=8)
    assert lasts(False, 645, True) == pytest.approx(74, abs=3)
    assert lasts(True, 645, True) == pytest.approx(148, abs=6)


def test_subjects_without_end_agree_with_slices_when_they_are_many_and_alike() -> None:
    found = simulate(
        Topology(2, 3, 3), cyclic_sequences(3, 3), RequestStream(subjects=3000), 1500, seed=6
    )
    assert found.all_shards_dead().mean() == pytest.approx(
        deletion_rate(Topology(2, 3, 3)), rel=0.08
    )


def test_a_zipf_of_subjects_lasts_longer_and_bursts_too() -> None:
    topology = Topology(2, 3, 3)
    sequences = cyclic_sequences(3, 3)
    plain = simulate(topology, sequences, RequestStream(), 1500, seed=7).all_shards_dead().mean()
    zipf = (
        simulate(topology, sequences, RequestStream(subjects=200, zipf=1.2), 1500, seed=7)
        .all_shards_dead()
        .mean()
    )
    burst = simulate(topology, sequences, RequestStream(burst=3), 1500, seed=7).all_shards_dead()
    assert zipf > 1.3 * plain  # the same few subjects ask again and again
    assert burst.mean() == pytest.approx(3 * plain - 2)
    assert set(burst % 3) == {1.0}


@given(
    subjects=st.integers(1, 3000),
    zipf=st.floats(0, 1e6),
    burst=st.integers(1, 10**6),
    likely=st.floats(1e-300, 1 - 1e-12),
)
@settings(max_examples=60, deadline=None)
@example(subjects=34181, zipf=90.98408469844148, burst=1, likely=0.5)
def test_however_unlike_people_are_there_is_an_answer(
    subjects: int, zipf: float, burst: int, likely: float
) -> None:
    """More requests between two than a generator can draw are as many as there can be."""
    for stream in (
        RequestStream(subjects=subjects, zipf=zipf, burst=burst),
        RequestStream(subjects=subjects, zipf=zipf, once=True),
        RequestStream(subjects=subjects, likely=(0.5, likely)),
        RequestStream(likely=(0.5, likely), burst=burst),
    ):
        found = simulate(Topology(2, 3, 2), cyclic_sequences(3, 2), stream, 10, seed=1)
        assert (found.first_shard_dead() <= found.all_shards_dead()).all()
        assert (found.mean_depth_under(5e-324) == found.all_shards_dead()).all()


def test_fewer_subjects_than_slices_run_out_of_requests() -> None:
    found = simulate(
        Topology(2, 4, 1), cyclic_sequences(4, 1), RequestStream(subjects=3, once=True), 200, seed=8
    )
    assert found.all_shards_dead().max() == 3


def test_collateral_counts_live_records_that_share_a_slice_with_a_deleted_one() -> None:
    survival = simulate(Topology(1, 4, 1), cyclic_sequences(4, 1), RequestStream(), 4000, seed=9)
    assert survival.collateral(0, 400, (0.25,) * 4) == 0
    assert survival.collateral(1, 400, (0.25,) * 4) == pytest.approx(99)
    assert survival.collateral(2, 400, (0.25,) * 4) == pytest.approx(175 - 2, abs=3)
    assert survival.collateral(1, 400, (0.25,) * 4, subjects=20) == pytest.approx(100 - 20)


def test_from_a_worn_state_only_what_is_left_counts() -> None:
    sequences = cyclic_sequences(3, 3)
    full = [[(s, (1, 2, 3)) for s in sequences]]
    fresh = simulate_from(full, [[1, 1, 1]], 6000, seed=10)
    assert fresh.all_shards_dead().mean() == pytest.approx(
        deletion_rate(Topology(1, 3, 3)), rel=0.05
    )
    worn = simulate_from(
        [[(sequences[1], (1,))]], [[1, 1, 1]], 6000, seed=10
    )  # one slice left to lose: 3 on average
    assert worn.all_shards_dead().mean() == pytest.approx(3, rel=0.06)
    assert worn.mean_depth([0])[0] == 1
    assert not np.isfinite(
        simulate_from([[(sequences[1], (1,))]], [[1, 0, 1]], 5).all_shards_dead()
    ).any()
    with pytest.raises(UsageError, match="at least one slice"):
        simulate_from(full, [[0, 0, 0]])


def test_the_same_seed_gives_the_same_runs() -> None:
    once = RequestStream(subjects=50, once=True)
    runs = [
        simulate(Topology(2, 3, 3), cyclic_sequences(3, 3), once, 50, seed=11).ends
        for _ in range(2)
    ]
    assert (runs[0] == runs[1]).all()


def test_a_large_system_is_simulated_in_seconds() -> None:
    started = time.monotonic()
    simulate(Topology(20, 12, 12), cyclic_sequences(12, 12), RequestStream(), 10_000)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: RequestStream(once=True), "number of subjects"),
        (lambda: RequestStream(zipf=1.0), "number of subjects"),
        (lambda: RequestStream(prior=(0.5, 0.5), subjects=5), "either a prior"),
        (lambda: RequestStream(likely=(0.2, 1.0)), "two shares between 0 and 1"),
        (lambda: RequestStream(tiers=(1, 3)), "with a skew"),
        (lambda: RequestStream(burst=0), "bursts of at least 1"),
        (lambda: RequestStream(likely=(0.2, 0.8), tiers=(1, 2)).slice_shares(4), "slices sum to 4"),
        (lambda: RequestStream(prior=(0.5, 0.4)).slice_shares(2), "sums to 1"),
        (
            lambda: simulate(Topology(1, 3, 1), [(0, 1)], RequestStream()),
            "sequences of slices 0 to 2",
        ),
        (
            lambda: simulate(Topology(1, 2, 1), [(0, 1)], RequestStream(), 5).mean_depth_under(2.5),
            "at most 2",
        ),
        (lambda: simulate(Topology(1, 2, 1), [(0, 1)], RequestStream(), 0), "at least one run"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        make()  # type: ignore[operator]
