"""A number for a text or an image: a linear head of one output, the squared error, and the mean of
the shards' numbers.

A head learns and answers in parts of the declared range, 0 to 1, so that one learning rate suits
stars and prices alike. The range is declared, not looked up in the data: what is computed from
records is a trace of them (hazard 7).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from s3t_core.domain import Score
from s3t_core.errors import DataError
from s3t_core.learning.tasks.heads import linear
from s3t_core.learning.tasks.metrics import PEARSON, RMSE, SPEARMAN, one_of, scored
from s3t_core.learning.tasks.task import NumberPrediction, Prediction, Target
from s3t_core.records import Row
from s3t_core.targets import number_of


@dataclass(frozen=True)
class Regression:
    """Numbers from `low` to `high`. Fills `Task`."""

    low: float
    high: float

    @property
    def outputs(self) -> int:
        """The number."""
        return 1

    def head(self, hidden: int) -> torch.nn.Module:
        """A linear layer that answers with the middle of the range to everything."""
        return linear(hidden, self.outputs, bias=0.5)

    def targets(self, rows: Sequence[Row]) -> list[Target]:
        """Each row's number as a part of the range, 0 to 1. Raises DataError for one outside."""
        return [self._number(row) for row in rows]

    def stacked(self, targets: Sequence[Target]) -> Tensor:
        """See Task."""
        return torch.tensor(list(targets))

    def loss(self, made: Tensor, targets: Tensor) -> Tensor:
        """Squared error in parts of the range, the mean over rows."""
        return torch.nn.functional.mse_loss(made.squeeze(1), targets)

    def vote(self, made: Tensor, targets: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """What the head says, kept within the range."""
        return made.clamp(0.0, 1.0)

    def answers(self, voted: Tensor, targets: Tensor) -> list[Prediction]:  # noqa: ARG002
        """See Task."""
        return [self.answer(each) for each in voted]

    def score(
        self,
        answers: Sequence[Prediction],
        rows: Sequence[Row],
        metric: str = "",
    ) -> Score:
        """The root of the mean squared error, in the units of the numbers; or Pearson's or
        Spearman's correlation, -1 to 1."""
        chosen = one_of(metric, (RMSE, PEARSON, SPEARMAN))
        given = [a.value for a in answers if isinstance(a, NumberPrediction)]
        asked = [number_of(row.label) for row in rows]
        return scored(
            chosen,
            numpy.array(given),
            numpy.array(asked),
        )

    def answer(self, voted: Tensor) -> NumberPrediction:
        """The number."""
        return NumberPrediction(self.low + (self.high - self.low) * float(voted[0]))

    def _number(self, row: Row) -> float:
        value = number_of(row.label)
        if not self.low <= value <= self.high:
            raise DataError(
                "expected numbers within the range under [task] in s3t.toml, got one outside in "
                "the data; put the range back, or run `s3t ingest SOURCE` again"
            )
        return (value - self.low) / (self.high - self.low)
