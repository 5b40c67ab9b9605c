"""One label of several for a text or an image: a linear head, cross-entropy, and the mean of the
shards' probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from s3t_core.domain import ACCURACY, Score
from s3t_core.errors import DataError
from s3t_core.learning.tasks.heads import linear
from s3t_core.learning.tasks.metrics import MACRO_F1, one_of, scored
from s3t_core.learning.tasks.task import LabelPrediction, Prediction, Target
from s3t_core.records import Row


@dataclass(frozen=True)
class Classification:
    """`labels` in the order of the head's outputs. Fills `Task`."""

    labels: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """One per label."""
        return len(self.labels)

    def head(self, hidden: int) -> torch.nn.Module:
        """A linear layer of zeros: every label is as likely, and nothing is drawn."""
        return linear(hidden, self.outputs)

    def targets(self, rows: Sequence[Row]) -> list[Target]:
        """The index of each row's label. Raises DataError for one that is not declared."""
        index = {label: i for i, label in enumerate(self.labels)}
        strange = {r.label for r in rows} - index.keys()
        if strange:
            raise DataError(
                f"expected the labels under [data] in s3t.toml, got {len(strange)} other(s) in the "
                "data; put them back, or run `s3t ingest SOURCE` again"
            )
        return [index[r.label] for r in rows]

    def stacked(self, targets: Sequence[Target]) -> Tensor:
        """See Task."""
        return torch.tensor(list(targets))

    def loss(self, made: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits, the mean over rows."""
        return torch.nn.functional.cross_entropy(made, targets)

    def vote(self, made: Tensor, targets: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Probabilities, which sum to 1 in each row."""
        return torch.softmax(made, dim=1)

    def answers(self, voted: Tensor, targets: Tensor) -> list[Prediction]:  # noqa: ARG002
        """See Task."""
        return [self.answer(each) for each in voted]

    def score(
        self,
        answers: Sequence[Prediction],
        rows: Sequence[Row],
        metric: str = "",
    ) -> Score:
        """Accuracy, the share of rows that are answered with their label; or macro-F1. Both 0 to
        1."""
        chosen = one_of(metric, (ACCURACY, MACRO_F1))
        index = {label: i for i, label in enumerate(self.labels)}
        given = [index[a.label] for a in answers if isinstance(a, LabelPrediction)]
        asked = [index[row.label] for row in rows]
        return scored(
            chosen,
            numpy.eye(len(index))[given],
            numpy.eye(len(index))[asked],
        )

    def answer(self, voted: Tensor) -> LabelPrediction:
        """The likeliest label, the first among equals."""
        chances = dict(
            zip(
                self.labels,
                voted.tolist(),
                strict=True,
            )
        )
        return LabelPrediction(self.labels[int(voted.argmax())], chances)
