"""Nouns that more than one room uses."""

import pytest

from s3t_core.domain import Score, as_accuracy


@pytest.mark.parametrize(
    ("score", "floor", "misses"),
    [
        (Score("accuracy", 0.5), 0.6, True),
        (Score("accuracy", 0.6), 0.6, False),
        (Score("perplexity", 60, higher_is_better=False), 50, True),
        (Score("perplexity", 50, higher_is_better=False), 50, False),
    ],
)
def test_a_score_misses_a_floor_in_the_direction_of_its_metric(
    score: Score, floor: float, misses: bool
) -> None:
    assert score.misses(floor) == misses


def test_a_share_is_an_accuracy_and_no_share_is_no_score() -> None:
    assert as_accuracy(0.25) == Score("accuracy", 0.25) and as_accuracy(None) is None
