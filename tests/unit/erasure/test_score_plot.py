"""The plot of scores in a report, whichever way is better."""

from flows.reporting.plots import score_over_time
from s3t_core.domain import Score
from s3t_core.erasure.evidence_documents import MeasuredScore
from s3t_core.erasure.report_document import VersionEntry


def _version(number: int, score: Score, cause: str = "erasure") -> VersionEntry:
    return VersionEntry.model_validate(
        {
            "version": f"{number}",
            "cause": "train" if number == 1 else cause,
            "served_from": f"2026-11-0{number}T00:00:00Z",
            "served_until": None,
            "destroyed": False,
            "dataset": "d",
            "accuracy": score.accuracy,
            "score": MeasuredScore.of(score),
            "uses": (),
        }
    )


def _error(value: float) -> Score:
    return Score("rmse", value, higher_is_better=False, low=value - 0.1, high=value + 0.1)


def test_of_an_error_the_highest_is_told_with_intervals_and_in_its_own_units() -> None:
    """Versions that another metric measured are left out."""
    other = Score("pearson", 0.9, low=0.8, high=0.95)
    told = [other, _error(1.5), _error(2.25), _error(2.0)]
    drawn = score_over_time([_version(n, each) for n, each in enumerate(told, 1)])
    assert drawn is not None and drawn.caption == (
        "Held-out RMSE of 3 version(s): first 1.5, last 2, highest 2.25. The bars are 95% "
        "intervals."
    )
    assert "RMSE" in drawn.svg or len(drawn.png) > 1000


def test_of_an_accuracy_the_lowest_is_told_as_a_percentage() -> None:
    told = [Score("accuracy", share, low=share - 0.1, high=share + 0.1) for share in (0.8, 0.6)]
    drawn = score_over_time([_version(n, each) for n, each in enumerate(told, 1)])
    assert drawn is not None and "first 80.0%, last 60.0%, lowest 60.0%" in drawn.caption


def test_where_nothing_was_measured_nothing_is_drawn() -> None:
    assert score_over_time([]) is None
