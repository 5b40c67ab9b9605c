"""How long a layout lasts: the paper's two lemmas, and a simulator of request streams (method.md,
"How long it lasts").

Requests are counted from 1. A request "ends" depth k of a shard when no live replica of the shard
reaches k after it. The simulator draws, per run, the request that first hits each slice; every
other figure follows from that table, so 10,000 runs of a large system take seconds.
"""

import math
from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s3t_core.capacity.sequences import prior_of
from s3t_core.domain import Sequence, Topology
from s3t_core.errors import UsageError

Floats = NDArray[np.float64]

_CHUNK = 4_000_000
"""Most numbers held at a time while runs are drawn."""


def harmonic(n: int) -> float:
    """H_n = 1 + 1/2 + ... + 1/n."""
    return math.fsum(1 / i for i in range(1, n + 1))


def deletion_rate(topology: Topology) -> float:
    """Expected uniform requests until every shard is dead: m L H(m min(B, L)) (paper, lemma 1).
    SISA is B = 1."""
    m, slices, budget = topology.shards, topology.slices, topology.budget
    return m * slices * harmonic(m * min(budget, slices))


def retention(
    slices: int,
    budget: int,
    depth: int,
    requests: int,
) -> float:
    """Probability that a shard keeps at least `depth` after `requests` uniform requests to it
    (paper, lemma 2).

    1 - (1 - (1 - k/L)^r)^B'' with B'' = min(B, L!/(L-k)!). It takes the sequences as independent:
    an approximation, not a bound. Raises UsageError unless 1 <= depth <= L, requests >= 0 and 1 <=
    B <= L!.
    """
    Topology(1, slices, budget)
    if not 1 <= depth <= slices or requests < 0:
        raise UsageError(
            f"expected a depth from 1 to {slices} and requests of at least 0, got {depth} and "
            f"{requests}"
        )
    one = (1 - depth / slices) ** requests
    return float(1 - (1 - one) ** min(budget, math.perm(slices, depth)))


@dataclass(frozen=True)
class RequestStream:
    """Who asks.

    `subjects` 0: requests name slices, drawn without end from `prior` (per slice of a shard; None =
    uniform; shards alike). Otherwise that many subjects are placed at random, and each asks at most
    once (`once`) or again and again; `zipf` s > 0 gives the subject of rank i a rate of i^-s.
    `likely` = (share of subjects, their share of requests) makes two groups; `tiers` = (slices of
    the likely, slices of the others) places each group in slices of its own, the likely ones first.
    `burst` k: whoever asks, asks k times in a row (record by record).
    """

    prior: tuple[float, ...] | None = None
    subjects: int = 0
    once: bool = False
    zipf: float = 0.0
    burst: int = 1
    likely: tuple[float, float] | None = None
    tiers: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.subjects < 0 or self.burst < 1 or self.zipf < 0 or not math.isfinite(self.zipf):
            raise UsageError(
                "expected subjects and a Zipf exponent of at least 0 and bursts of at least 1, got "
                f"{self.subjects}, {self.zipf:g} and {self.burst}"
            )
        if (self.once or self.zipf) and not self.subjects:
            raise UsageError(
                "expected the number of subjects with --once or --zipf, got none; add --subjects"
            )
        if self.prior is not None and (self.subjects or self.likely):
            raise UsageError(
                "expected either a prior per slice, or subjects or a skew (which make one), got "
                "both"
            )
        if self.zipf and self.likely:
            raise UsageError("expected either a Zipf exponent or a skew of two groups, got both")
        if self.likely is not None and not all(0 < share < 1 for share in self.likely):
            raise UsageError(
                "expected a skew of two shares between 0 and 1 (subjects, requests), such as "
                f"0.2:0.8, got {self.likely[0]:g}:{self.likely[1]:g}"
            )
        if self.tiers is not None and (
            self.likely is None or len(self.tiers) != 2 or min(self.tiers) < 1
        ):
            raise UsageError(
                "expected tiers as two slice counts of at least 1, with a skew, "
                f"got {self.tiers} and {'no skew' if self.likely is None else 'a skew'}"
            )

    def slice_shares(self, slices: int) -> tuple[float, ...]:
        """The probability of each slice of a shard: the prior for sequences. Raises UsageError."""
        self._check(slices)
        if self.tiers is None or self.likely is None:
            return prior_of(self.prior, slices)
        first, rest = self.tiers
        asked = self.likely[1]
        return (asked / first,) * first + ((1 - asked) / rest,) * rest

    def row_shares(self, slices: int) -> tuple[float, ...]:
        """The share of a shard's rows in each of its slices, subjects being alike."""
        self._check(slices)
        if self.tiers is None or self.likely is None:
            return (1 / slices,) * slices
        first, rest = self.tiers
        share = self.likely[0]
        likely = (share / first,) * first
        return likely + ((1 - share) / rest,) * rest

    def _check(self, slices: int) -> None:
        if self.tiers is not None and sum(self.tiers) != slices:
            raise UsageError(
                f"expected tiers whose slices sum to {slices}, got {'+'.join(map(str, self.tiers))}"
            )


@dataclass(frozen=True)
class Distribution:
    """Mean, 5th and 95th percentile over the runs, and the standard error of the mean."""

    mean: float
    p5: float
    p95: float
    standard_error: float

    @classmethod
    def of(cls, values: Floats) -> "Distribution":
        """Of one value per run."""
        p5, p95 = np.percentile(values, [5, 95])
        runs = len(values)
        deviation = values.std(ddof=1) if runs > 1 else 0.0
        error = float(deviation / math.sqrt(runs))
        return cls(
            float(values.mean()),
            float(p5),
            float(p95),
            error,
        )


@dataclass(frozen=True)
class Survival:
    """What the runs did: `hits` [run, shard, slice] and `ends` [run, shard, depth - 1], in requests
    from 1."""

    hits: Floats
    ends: Floats

    def first_shard_dead(self) -> Floats:
        """Per run, the request after which some shard has no live replica."""
        return np.asarray(self.ends[:, :, 0].min(axis=1))

    def all_shards_dead(self) -> Floats:
        """Per run, the request after which no shard has a live replica."""
        return np.asarray(self.ends[:, :, 0].max(axis=1))

    def mean_depth_under(self, floor: float) -> Floats:
        """Per run, the request after which the mean live depth of the shards is under `floor`.

        Raises UsageError for a floor that is not above 0, or above the number of slices (which no
        state meets).
        """
        runs, shards, slices = self.ends.shape
        check_floor(floor, slices)
        left = max(1, math.ceil(floor * shards - 1e-9))  # so many shard-depths are just enough
        in_order = np.sort(self.ends.reshape(runs, -1), axis=1)
        return np.asarray(in_order[:, shards * slices - left])

    def mean_depth(self, after: Listing[int] | NDArray[np.int64]) -> Floats:
        """The mean live depth over shards and runs, after each of these numbers of requests."""
        ends = np.sort(self.ends, axis=None)
        standing = ends.size - np.searchsorted(
            ends,
            np.asarray(after),
            side="right",
        )
        return np.asarray(standing / (self.ends.shape[0] * self.ends.shape[1]))

    def collateral(
        self,
        after: int,
        records: int,
        row_shares: Listing[float],
        subjects: int = 0,
    ) -> float:
        """Expected live records that share a slice with a deleted one after `after` requests.

        `records` in all, spread over the shards alike and over each shard's slices by `row_shares`;
        an erased subject's own records (records / subjects) do not count. `subjects` 0 = one record
        each.
        """
        rows = records / self.hits.shape[1] * np.asarray(row_shares)
        silenced = float(((self.hits <= after).mean(axis=0) * rows).sum())
        return max(silenced - min(after * records / (subjects or records or 1), silenced), 0.0)


def check_floor(floor: float, slices: int) -> None:
    """Raises UsageError for a mean-depth floor that no state can meet, or that every state
    meets."""
    if not 0 < floor <= slices:
        raise UsageError(
            f"expected a mean-depth floor above 0 and at most {slices} (the full depth), got "
            f"{floor:g}"
        )


def simulate(
    topology: Topology,
    sequences: Listing[Sequence],
    stream: RequestStream,
    runs: int = 2000,
    seed: int = 0,
) -> Survival:
    """`runs` streams against a system that has just been trained: every shard with every sequence
    at full depth.

    Deterministic in `seed`. Raises UsageError for sequences or a stream that do not fit the
    topology.
    """
    for sequence in sequences:
        if sorted(sequence) != list(range(topology.slices)):
            raise UsageError(
                f"expected sequences of slices 0 to {topology.slices - 1}, got {sequence}"
            )
    if runs < 1:
        raise UsageError(f"expected at least one run, got {runs}")
    hits = _first_hits(
        topology,
        stream,
        runs,
        np.random.default_rng(seed),
    )
    full = tuple(range(1, topology.slices + 1))
    replicas = [
        (shard, sequence, full) for shard in range(topology.shards) for sequence in sequences
    ]
    return Survival(hits, _ends(hits, replicas))


def simulate_from(
    shards: Listing[Listing[tuple[Sequence, tuple[int, ...]]]],
    shares: Listing[Listing[float]],
    runs: int = 2000,
    seed: int = 0,
) -> Survival:
    """`runs` streams of endless requests against a system that is already worn.

    `shards` holds, per shard, each live replica's sequence and the lengths of its live stages'
    prefixes; `shares` the chance of each slice of each shard, in any unit. Raises UsageError when
    no slice has a chance.
    """
    probabilities = np.asarray(shares, dtype=np.float64)
    if not probabilities.sum() > 0:
        raise UsageError("expected a chance above 0 for at least one slice, got none")
    rng = np.random.default_rng(seed)
    hits = _endless(np.broadcast_to(probabilities.ravel(), (runs, probabilities.size)), rng)
    hits = hits.reshape(runs, *probabilities.shape)
    return Survival(
        hits,
        _ends(hits, [(s, *replica) for s, replicas in enumerate(shards) for replica in replicas]),
    )


def _ends(hits: Floats, replicas: list[tuple[int, Sequence, tuple[int, ...]]]) -> Floats:
    """A stage dies with the first hit in its prefix; a shard has depth k while one replica has k
    live stages."""
    ends = np.zeros_like(hits)
    for shard, sequence, lengths in replicas:
        first_hits = np.minimum.accumulate(hits[:, shard, list(sequence)], axis=1)
        died = first_hits[:, [n - 1 for n in lengths]]
        of_shard = ends[:, shard, : len(lengths)]
        np.maximum(of_shard, died, out=of_shard)
    return ends


def _first_hits(
    topology: Topology,
    stream: RequestStream,
    runs: int,
    rng: np.random.Generator,
) -> Floats:
    """[run, shard, slice]: the request that hits the slice first."""
    m, slices = topology.shards, topology.slices
    if stream.subjects:
        shares = stream.row_shares(slices)  # checks that the tiers fit
        rates = _rates(stream)
        likely = _likely(stream)
        hits = np.empty((runs, m * slices))
        for run in range(runs):
            where = _placed(
                len(rates),
                likely,
                stream.tiers,
                m,
                slices,
                rng,
            )
            if stream.once:
                hits[run] = _once(rates, where, len(shares) * m, rng)
            else:
                hits[run] = _endless(
                    np.bincount(where, rates, m * slices)[None].astype(np.float64), rng
                )[0]
    else:
        shares = stream.slice_shares(slices)
        size = max(_CHUNK // (m * slices), 1)
        chance = np.tile(np.asarray(shares) / m, m)
        hits = np.concatenate(
            [
                _endless(np.broadcast_to(chance, (min(size, runs - done), m * slices)), rng)
                for done in range(0, runs, size)
            ]
        )
    return ((hits - 1) * stream.burst + 1).reshape(
        runs,
        m,
        slices,
    )


def _likely(stream: RequestStream) -> int:
    """How many of the subjects, the first ones, are the likely group."""
    return (
        0
        if stream.likely is None
        else min(max(round(stream.likely[0] * stream.subjects), 1), stream.subjects)
    )


def _rates(stream: RequestStream) -> Floats:
    """How often each subject asks, relative to the others."""
    if stream.likely is None:
        return np.arange(1, stream.subjects + 1, dtype=np.float64) ** -stream.zipf
    first = _likely(stream)
    others = max(stream.subjects - first, 1)
    rates = np.full(stream.subjects, (1 - stream.likely[1]) / others)
    rates[:first] = stream.likely[1] / first
    return rates


def _placed(
    subjects: int,
    likely: int,
    tiers: tuple[int, int] | None,
    shards: int,
    slices: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """The number shard x slices + slice of each subject, as the keyed hash would spread them."""
    if tiers is None:
        return rng.integers(shards * slices, size=subjects)
    index = np.concatenate(
        [
            rng.integers(tiers[0], size=likely),
            tiers[0] + rng.integers(tiers[1], size=subjects - likely),
        ]
    )
    return np.asarray(rng.integers(shards, size=subjects) * slices + index)


_MOST_BETWEEN = 1e15


def _endless(chances: NDArray[np.float64], rng: np.random.Generator) -> Floats:
    """[run, slice]: the number of the request that hits each slice first, for requests drawn
    without end.

    An exponential race: slice s rings first at A_s ~ Exp(p_s). Between two first rings only slices
    that have rung ring again, so the requests in between are Poisson with their summed rate, which
    counts as 1e15 where it is more. A slice without a chance is never hit (infinity).
    """
    with np.errstate(divide="ignore", over="ignore"):
        first = rng.standard_exponential(chances.shape) / chances
    order = np.argsort(first, axis=1)
    times = np.take_along_axis(first, order, axis=1)
    rate = np.cumsum(np.take_along_axis(chances, order, axis=1), axis=1)
    finite = np.isfinite(times)
    gaps = np.diff(
        np.where(finite, times, 0),
        axis=1,
        prepend=0,
    ).clip(0)
    none_before = np.zeros((len(times), 1))
    rate_before = np.concatenate([none_before, rate[:, :-1]], axis=1)
    between = rng.poisson(np.minimum(rate_before * gaps, _MOST_BETWEEN))
    numbers = np.arange(1, times.shape[1] + 1) + np.cumsum(between, axis=1)
    hits = np.empty_like(first)
    np.put_along_axis(
        hits,
        order,
        np.where(finite, numbers, np.inf),
        axis=1,
    )
    return hits


def _once(
    rates: Floats,
    where: NDArray[np.int64],
    slices: int,
    rng: np.random.Generator,
) -> Floats:
    """[slice]: the same when every subject asks once, after an exponential time of its own rate.

    A slice in which nobody was placed lasts until everyone has asked.
    """
    with np.errstate(divide="ignore", over="ignore"):  # who hardly ever asks, asks never
        times = rng.standard_exponential(len(rates)) / rates
    first = np.full(slices, np.inf)
    np.minimum.at(first, where, times)
    last = first[np.isfinite(first)].max()
    earlier = np.sort(times[times <= last])
    position = np.searchsorted(earlier, first) + 1.0
    return np.where(
        np.isfinite(first),
        position,
        float(len(rates)),
    )
