"""How well rows are answered: metrics, each with a 95% confidence interval.

An accuracy has Wilson's interval (E. B. Wilson 1927, "Probable inference", as scipy computes it).
Any other has that of the percentile bootstrap over rows (B. Efron and R. Tibshirani 1993, chapter
13), drawn from a fixed seed, so that one measurement tells one interval.
"""

from collections.abc import Callable
from typing import Any

import numpy
from numpy.typing import NDArray

from s3t_core.domain import ACCURACY, Score
from s3t_core.errors import UsageError

MACRO_F1, MICRO_F1 = "macro_f1", "micro_f1"
RMSE, PEARSON, SPEARMAN = "rmse", "pearson", "spearman"
PERPLEXITY, TOKEN_ACCURACY = "perplexity", "token_accuracy"
_LOWER = frozenset({RMSE, PERPLEXITY})
_RESAMPLES, _LEVEL = 1000, 0.95

Values = NDArray[Any]
"""Answers or targets: (rows, labels) of ones and zeros, or (rows,) of numbers. Of texts, what is
summed over each row's tokens, and how many tokens it has."""


def one_of(metric: str, known: tuple[str, ...]) -> str:
    """The metric, the first known where none is named. Raises UsageError for one that the task does
    not have."""
    if metric and metric not in known:
        raise UsageError(
            f"expected [task] metric to be {' or '.join(map(repr, known))}, got {metric!r}"
        )
    return metric or known[0]


def scored(
    metric: str,
    given: Values,
    asked: Values,
) -> Score:
    """The score of answers `given` to rows that `asked`, as many, at least one."""
    if len(given) != len(asked):
        raise ValueError("expected as many answers as rows")
    measure = _MEASURES[metric]
    value = measure(given, asked)
    if metric == ACCURACY:
        low, high = _wilson(round(value * len(asked)), len(asked))
    else:
        draw = numpy.random.default_rng(0)
        samples = [draw.integers(0, len(asked), len(asked)) for _ in range(_RESAMPLES)]
        resampled = [measure(given[rows], asked[rows]) for rows in samples]
        low, high = numpy.quantile(resampled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Score(
        metric,
        value,
        higher_is_better=metric not in _LOWER,
        low=float(min(low, value)),
        high=float(max(high, value)),
    )


def _wilson(hits: int, rows: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    found = binomtest(hits, rows).proportion_ci(_LEVEL, method="wilson")
    return float(found.low), float(found.high)


def _accuracy(given: Values, asked: Values) -> float:
    return float((given == asked).all(axis=1).sum()) / len(asked)


def _micro_f1(given: Values, asked: Values) -> float:
    """1 where no label applies and none is given."""
    wrong = float((given != asked).sum())
    hits = 2 * float((given * asked).sum())
    return hits / (hits + wrong) if hits + wrong else 1.0


def _macro_f1(given: Values, asked: Values) -> float:
    """The mean over labels that apply to some row, or are given; 1 where there is none."""
    wrong = (given != asked).sum(axis=0)
    hits = 2 * (given * asked).sum(axis=0)
    seen = hits + wrong > 0
    return float((hits[seen] / (hits + wrong)[seen]).mean()) if seen.any() else 1.0


def _rmse(given: Values, asked: Values) -> float:
    return float(numpy.sqrt(((given - asked) ** 2).mean()))


def _pearson(given: Values, asked: Values) -> float:
    """0 where all answers, or all rows, are the same number: nothing correlates with that."""
    apart, of_rows = given - given.mean(), asked - asked.mean()
    size = float(numpy.sqrt((apart**2).sum() * (of_rows**2).sum()))
    return (
        float(
            numpy.clip(
                (apart * of_rows).sum() / size,
                -1,
                1,
            )
        )
        if size > 0
        else 0.0
    )


def _spearman(given: Values, asked: Values) -> float:
    from scipy.stats import rankdata

    return _pearson(rankdata(given), rankdata(asked))


def _perplexity(losses: Values, tokens: Values) -> float:
    """e to the mean loss of a token, at most the largest number that there is."""
    return float(numpy.exp(min(losses.sum() / tokens.sum(), 700.0)))


def _token_accuracy(hits: Values, tokens: Values) -> float:
    return float(hits.sum() / tokens.sum())


_MEASURES: dict[str, Callable[[Values, Values], float]] = {
    ACCURACY: _accuracy,
    MACRO_F1: _macro_f1,
    MICRO_F1: _micro_f1,
    RMSE: _rmse,
    PEARSON: _pearson,
    SPEARMAN: _spearman,
    PERPLEXITY: _perplexity,
    TOKEN_ACCURACY: _token_accuracy,
}
