"""Any number of labels for a text or an image: a linear head, a sigmoid for each label, and the
mean of the shards' probabilities. A label applies from one half on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from s3t_core.domain import Score
from s3t_core.errors import DataError
from s3t_core.learning.tasks.heads import linear
from s3t_core.learning.tasks.metrics import MACRO_F1, MICRO_F1, one_of, scored
from s3t_core.learning.tasks.task import LabelSetPrediction, Prediction, Target
from s3t_core.records import Row
from s3t_core.targets import label_set_of

_APPLIES = 0.5
"""The probability from which on a label applies: a literal, as one chosen by looking at rows would
be a trace of them (hazard 7)."""


@dataclass(frozen=True)
class Multilabel:
    """`labels` in the order of the head's outputs. Fills `Task`."""

    labels: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """One per label."""
        return len(self.labels)

    def head(self, hidden: int) -> torch.nn.Module:
        """A linear layer of zeros: every label applies or not with the same chance."""
        return linear(hidden, self.outputs)

    def targets(self, rows: Sequence[Row]) -> list[Target]:
        """A 1.0 for each label that applies, else 0.0. Raises DataError for a row with one that is
        not declared."""
        return [self._applying(row) for row in rows]

    def stacked(self, targets: Sequence[Target]) -> Tensor:
        """See Task."""
        return torch.tensor(list(targets))

    def loss(self, made: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy of logits, the mean over rows and labels."""
        return torch.nn.functional.binary_cross_entropy_with_logits(made, targets)

    def vote(self, made: Tensor, targets: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Probabilities, each from 0 to 1 by itself."""
        return torch.sigmoid(made)

    def answers(self, voted: Tensor, targets: Tensor) -> list[Prediction]:  # noqa: ARG002
        """See Task."""
        return [self.answer(each) for each in voted]

    def score(
        self,
        answers: Sequence[Prediction],
        rows: Sequence[Row],
        metric: str = "",
    ) -> Score:
        """F1 of the labels that apply, over all of them together (micro) or the mean over labels
        (macro), 0 to 1."""
        chosen = one_of(metric, (MICRO_F1, MACRO_F1))
        given = [
            [float(label in a.labels) for label in self.labels]
            for a in answers
            if isinstance(a, LabelSetPrediction)
        ]
        asked = [self._applying(row) for row in rows]
        return scored(
            chosen,
            numpy.array(given),
            numpy.array(asked),
        )

    def answer(self, voted: Tensor) -> LabelSetPrediction:
        """The labels that apply, in the order of their declaration."""
        chances = dict(
            zip(
                self.labels,
                voted.tolist(),
                strict=True,
            )
        )
        applying = tuple(label for label, chance in chances.items() if chance >= _APPLIES)
        return LabelSetPrediction(applying, chances)

    def _applying(self, row: Row) -> list[float]:
        found = label_set_of(row.label)
        strange = len(set(found) - set(self.labels))
        if strange:
            raise DataError(
                f"expected the labels under [data] in s3t.toml, got {strange} other(s) in the "
                "data; put them back, or run `s3t ingest SOURCE` again"
            )
        return [float(label in found) for label in self.labels]
