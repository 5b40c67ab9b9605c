"""Which B orders of its L slices a shard trains (paper section 3.4, method.md "Choosing the B
sequences").

Three selections, none of which looks at a record:

- `cyclic_sequences`, for a uniform prior: iterative cyclic rotation.
- `bms_sequences`, for a known prior: bipartite-matching selection, one maximum-weight assignment
  per position.
- `optimised_sequences`, ours: local search for the set with the highest expected depth over a
  horizon of requests.

A prior holds, per slice of a shard, the probability that the next request which names that shard
falls there.
"""

import math
from collections.abc import Sequence as Listing

import numpy as np
from numpy.typing import NDArray

from s3t_core.domain import Sequence, check_prior
from s3t_core.errors import UsageError

EXACT_SLICES = 12
"""Up to so many slices the objective is exact (all 2^L sets of silenced slices); above, it is
sampled."""

KINDS = ("cyclic", "bms", "optimised")

_MOST_SLICES = 60
_STREAMS = 128
_SEARCH_WORK = 2e9
_MOST_ROUNDS = 400
_LEAST = 1e-9
"""Bounds of one local search: candidates tried x slices x sets weighed, and restarts. Counts, not
seconds, so that the result depends on the seed alone; and what counts as a rise."""

Floats = NDArray[np.float64]
Masks = NDArray[np.int64]


def choose_sequences(
    kind: str,
    slices: int,
    budget: int,
    prior: Listing[float] | None = None,
    seed: int = 0,
) -> list[Sequence]:
    """The sequences that `[system] sequences = kind` trains. `prior` None = uniform. Raises
    UsageError."""
    if kind == "cyclic":
        return cyclic_sequences(slices, budget)
    if kind == "bms":
        return bms_sequences(prior_of(prior, slices), budget)
    if kind == "optimised":
        return optimised_sequences(
            prior_of(prior, slices),
            budget,
            seed,
        )
    raise UsageError(f"expected sequences {', '.join(KINDS)}, got {kind!r}")


def prior_of(prior: Listing[float] | None, slices: int) -> tuple[float, ...]:
    """`prior` checked, or the uniform one for None. Raises UsageError."""
    return (1 / slices,) * slices if prior is None else check_prior(prior, slices)


def cyclic_sequences(slices: int, budget: int) -> list[Sequence]:
    """`budget` distinct orders of slices 0..L-1 by iterative cyclic rotation. UsageError unless 1
    <= budget <= L!.

    For B <= L: rotations of one order, so that every slice stands first at most once and takes each
    position at most once. Ours: for B < L they are spaced evenly. For B > L: the extra sequences
    are spread over the L first slices so that the number per first slice differs by at most one,
    and within each the tail is rotated by the same rule, and so on: balanced at every level of
    prefix, all distinct, up to L! of them.
    """
    _check_budget(slices, budget)
    return _expand(tuple(range(slices)), budget)


def _check_budget(slices: int, budget: int) -> None:
    if slices < 1:
        raise UsageError(f"expected at least one slice, got {slices}")
    most = math.factorial(slices)
    if not 1 <= budget <= most:
        raise UsageError(
            f"expected a budget from 1 to {most} ({slices} slices have {most} orders), got {budget}"
        )


def _rotations(order: Sequence, count: int) -> list[Sequence]:
    """`count` <= len(order) rotations of `order`, evenly spaced."""
    starts = [i * len(order) // count for i in range(count)]
    return [order[s:] + order[:s] for s in starts]


def _expand(order: Sequence, count: int) -> list[Sequence]:
    """`count` orders of the members of `order`: whole rotations while they last, then each one's
    tail rotated."""
    if count <= len(order):
        return _rotations(order, count)
    rotations = _rotations(order, len(order))
    each, more = divmod(count, len(order))
    shares = [each + (i < more) for i in range(len(order))]
    return [
        rotation[:1] + tail
        for rotation, share in zip(rotations, shares, strict=True)
        for tail in _expand(rotation[1:], share)
    ]


def sequence_score(
    sequence: Sequence,
    prior: Listing[float],
    horizon: int,
) -> float:
    """The score of a (partial) sequence under BMS: sum over n of n (1 - C_n)^t (paper section 3.4).

    C_n is the probability that one request falls in the first n slices, t = `horizon` the number of
    requests.
    """
    alive = np.clip(
        1 - np.cumsum([prior[s] for s in sequence]),
        0,
        1,
    )
    return float(np.sum(np.arange(1, len(sequence) + 1) * alive**horizon))


def bms_sequences(
    prior: Listing[float],
    budget: int,
    horizon: int = 0,
) -> list[Sequence]:
    """The `budget` best-scoring sequences of a Latin square built by bipartite matching (paper
    section 3.4).

    One partial sequence starts at each slice; at every position one maximum-weight assignment
    extends them all, an edge weighing the score of the extended prefix over `horizon` requests (0 =
    as many as there are slices). Every column is a permutation, so any two sequences differ at
    every position. Best-scoring first.

    Raises UsageError unless 1 <= budget <= L and the prior is one.
    """
    from scipy.optimize import linear_sum_assignment

    slices = len(prior)
    prior = check_prior(prior, slices)
    if not 1 <= budget <= slices:
        raise UsageError(
            f'expected a budget from 1 to {slices} with sequences = "bms" (a Latin square has one '
            f'sequence per slice), got {budget}; "cyclic" and "optimised" take more'
        )
    horizon = horizon or slices
    partial: list[Sequence] = [(s,) for s in range(slices)]
    for _ in range(slices - 1):
        cost = np.full((slices, slices), np.inf)
        for row, prefix in enumerate(partial):
            for column in set(range(slices)) - set(prefix):
                cost[row, column] = -sequence_score((*prefix, column), prior, horizon)
        rows, columns = linear_sum_assignment(cost)
        for row, column in zip(rows, columns, strict=True):
            partial[row] = (*partial[row], int(column))
    return sorted(partial, key=lambda s: (-sequence_score(s, prior, horizon), s))[:budget]


class DepthObjective:
    """The summed expected live depth of one shard over requests 0..h-1 that name the shard.

    Each request names one slice, drawn from the prior, so all of a set A still stand after r
    requests with probability (1 - P(A))^r; a Moebius transform over the subsets gives the weight of
    "exactly A stands", summed over the horizon. (Independent Poisson streams, the textbook
    approximation, put the same quantity 10% higher at L = 6.) Exact up to 12 slices; above, over
    streams drawn from `seed`. The default horizon is 40 requests up to 6 slices and 20L/3 above, by
    when hardly any slice stands.
    """

    def __init__(
        self,
        prior: Listing[float],
        horizon: int = 0,
        seed: int = 0,
    ) -> None:
        """Weighs the sets. Raises UsageError for a wrong prior or more than 60 slices."""
        self.prior = check_prior(prior, len(prior))
        self.slices = len(self.prior)
        if self.slices > _MOST_SLICES:
            raise UsageError(
                f"expected at most {_MOST_SLICES} slices for optimised sequences, got "
                f'{self.slices}; use sequences = "cyclic"'
            )
        self.horizon = horizon or max(40, math.ceil(20 * self.slices / 3))
        if self.slices <= EXACT_SLICES:
            self._masks, self._weights = _exact_weights(self.prior, self.horizon)
        else:
            self._masks, self._weights = _sampled_weights(
                self.prior, self.horizon, np.random.default_rng(seed)
            )

    @property
    def sets(self) -> int:
        """How many sets of standing slices are weighed."""
        return len(self._masks)

    def value(self, sequences: Listing[Sequence]) -> float:
        """What the set is worth, in depth x requests."""
        return self.score(self.depths(sequences).max(axis=0))

    def depths(self, sequences: Listing[Sequence]) -> NDArray[np.int8]:
        """[sequence, set]: how many slices of the sequence stand before the first that does not."""
        prefixes = np.cumsum(np.int64(1) << np.asarray(sequences, dtype=np.int64), axis=1)
        found = np.zeros((len(sequences), self.sets), dtype=np.int8)
        for position in range(prefixes.shape[1]):
            prefix = prefixes[:, position, None]
            found += (self._masks & prefix) == prefix
        return found

    def score(self, depths: NDArray[np.int8]) -> float:
        """The weighted sum of the best depth per set."""
        return float(depths @ self._weights)

    def scores(self, depths: NDArray[np.int8]) -> Floats:
        """`score` of each row."""
        return np.asarray(depths @ self._weights)


def _exact_weights(prior: tuple[float, ...], horizon: int) -> tuple[Masks, Floats]:
    masks = np.arange(2 ** len(prior), dtype=np.int64)
    mass = np.zeros(1)
    for probability in prior:  # the bit of each slice doubles the table
        mass = np.concatenate([mass, mass + probability])
    stands = np.clip(1 - mass, 0, 1)
    weights = np.sum(stands ** np.arange(horizon)[:, None], axis=0)
    for s in range(len(prior)):
        table = weights.reshape(-1, 2, 2**s)  # [.., slice s absent or present, ..]
        table[:, 0] -= table[:, 1]
    return masks, np.clip(weights, 0, None)


def _sampled_weights(
    prior: tuple[float, ...],
    horizon: int,
    rng: np.random.Generator,
) -> tuple[Masks, Floats]:
    slices = len(prior)
    chances = np.asarray(prior) / sum(prior)
    named = rng.choice(
        slices,
        size=(_STREAMS, horizon - 1),
        p=chances,
    )
    silenced = np.bitwise_or.accumulate(np.int64(1) << named.astype(np.int64), axis=1)
    none_yet = np.zeros((_STREAMS, 1), dtype=np.int64)
    silenced = np.concatenate([none_yet, silenced], axis=1)
    standing = np.int64(2**slices - 1) & ~silenced
    masks, counts = np.unique(standing, return_counts=True)
    return masks, counts / _STREAMS


def optimised_sequences(
    prior: Listing[float],
    budget: int,
    seed: int = 0,
) -> list[Sequence]:
    """The best set that a local search finds from the cyclic and BMS sets, never worse than either
    (method.md, ours).

    A step swaps two slices of one sequence and is taken when `DepthObjective` rises; where no step
    helps, a few swaps at random start it anew from the best set. The amount of work is fixed, so
    the result depends on `seed` alone. Best-scoring sequence first. Raises UsageError unless 1 <=
    budget <= L! and the prior is one.
    """
    prior = check_prior(prior, len(prior))
    slices = len(prior)
    _check_budget(slices, budget)
    objective = DepthObjective(prior, seed=seed)
    starts = _starts(prior, budget)
    best = max(starts, key=objective.value)
    value = objective.value(best)
    if slices > 1:
        best = _search(
            objective,
            starts,
            best,
            value,
            np.random.default_rng(seed),
        )
    alone = dict(
        zip(
            best,
            objective.scores(objective.depths(best)),
            strict=True,
        )
    )
    return sorted(best, key=lambda s: (-alone[s], s))


def _starts(prior: tuple[float, ...], budget: int) -> list[list[Sequence]]:
    slices = len(prior)
    cyclic = cyclic_sequences(slices, budget)
    safest_first = sorted(range(slices), key=lambda s: (prior[s], s))
    starts = [cyclic, [tuple(safest_first[s] for s in sequence) for sequence in cyclic]]
    if budget <= slices:
        starts += [bms_sequences(prior, budget, horizon) for horizon in (slices, 2 * slices, 1)]
    return starts


def _search(
    objective: DepthObjective,
    starts: list[list[Sequence]],
    best: list[Sequence],
    value: float,
    rng: np.random.Generator,
) -> list[Sequence]:
    climb = _Climb(objective)
    rounds = 0
    while climb.work > 0 and rounds < _MOST_ROUNDS:
        start = list(starts[rounds]) if rounds < len(starts) else _shaken(best, rng)
        found, level = climb(start)
        is_distinct = len(set(found)) == len(found)
        if level > value + _LEAST and is_distinct:
            best, value = found, level
        rounds += 1
    return best


class _Climb:
    """Takes swaps of two slices of one sequence as long as the objective rises."""

    def __init__(self, objective: DepthObjective) -> None:
        self.work = _SEARCH_WORK
        self._objective = objective
        slices = objective.slices
        self._pairs = [(i, j) for i in range(slices) for j in range(i + 1, slices)]

    def __call__(self, start: list[Sequence]) -> tuple[list[Sequence], float]:
        """The set that is reached from `start`, which is changed, and what it is worth."""
        current = start
        depths = self._objective.depths(current)
        level = self._objective.score(depths.max(axis=0))
        number, unchanged = 0, 0
        while unchanged < len(current) and self.work > 0:
            candidates = [_swapped(current[number], i, j) for i, j in self._pairs]
            tried = self._objective.depths(candidates)
            others = _best_without(depths, number)
            scores = self._objective.scores(np.maximum(tried, others))
            self.work -= len(self._pairs) * self._objective.sets * self._objective.slices
            found = int(scores.argmax())
            unchanged += 1
            if scores[found] > level + _LEAST:
                current[number] = candidates[found]
                depths[number] = tried[found]
                level = float(scores[found])
                unchanged = 0
            number = (number + 1) % len(current)
        return current, level


def _best_without(depths: NDArray[np.int8], number: int) -> NDArray[np.int8]:
    """The best depth per set of all sequences but one; zeros where there is no other."""
    if len(depths) == 1:
        return np.zeros_like(depths[0])
    others: NDArray[np.int8] = np.delete(depths, number, axis=0).max(axis=0)
    return others


def _shaken(sequences: list[Sequence], rng: np.random.Generator) -> list[Sequence]:
    """A copy with one to four swaps at random places, still distinct."""
    shaken = list(sequences)
    for _ in range(int(rng.integers(1, 5))):
        number = int(rng.integers(len(shaken)))
        i, j = sorted(
            rng.choice(
                len(shaken[number]),
                size=2,
                replace=False,
            )
        )
        changed = _swapped(shaken[number], int(i), int(j))
        if changed not in shaken:
            shaken[number] = changed
    return shaken


def _swapped(
    sequence: Sequence,
    i: int,
    j: int,
) -> Sequence:
    swapped = list(sequence)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    return tuple(swapped)
