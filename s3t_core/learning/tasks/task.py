"""What a task has to say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from s3t_core.domain import Score
from s3t_core.records import Row

Target = int | float | list[float] | list[int]
"""What a row asks for, as the loss takes it: the index of a label, a number, a 1 or 0 for each
label; or, for each token, the token where it is learnt and NOT_LEARNT elsewhere."""

NOT_LEARNT = -100
"""In the place of a token that is only given."""


class Prediction(Protocol):
    """The answer to one row."""

    def document(self) -> dict[str, object]:
        """As whoever asked reads it: JSON values."""


@dataclass(frozen=True)
class LabelPrediction:
    """The label of a text and the probability of every label (they sum to 1)."""

    label: str
    probabilities: dict[str, float]

    def document(self) -> dict[str, object]:
        """`label`, `probabilities` by label."""
        return {"label": self.label, "probabilities": self.probabilities}


@dataclass(frozen=True)
class LabelSetPrediction:
    """The labels that apply to a text, of any number, and the probability of each that there is:
    each for itself, 0 to 1."""

    labels: tuple[str, ...]
    probabilities: dict[str, float]

    def document(self) -> dict[str, object]:
        """`labels`, `probabilities` by label."""
        return {"labels": list(self.labels), "probabilities": self.probabilities}


@dataclass(frozen=True)
class NumberPrediction:
    """The number of a text, within the declared range."""

    value: float

    def document(self) -> dict[str, object]:
        """`value`."""
        return {"value": self.value}


class Task(Protocol):
    """One kind of task. Everything of it is literal: nothing is computed from records (hazard
    7)."""

    @property
    def outputs(self) -> int:
        """How many numbers a head gives for a row."""

    def head(self, hidden: int) -> torch.nn.Module:
        """A fresh head, (rows, hidden) -> (rows, outputs), which is the same each time."""

    def targets(self, rows: Sequence[Row]) -> list[Target]:
        """What each row asks for. Raises DataError for a row that the task does not know."""

    def stacked(self, targets: Sequence[Target]) -> Tensor:
        """The targets of some rows as `loss` takes them."""

    def loss(self, made: Tensor, targets: Tensor) -> Tensor:
        """The mean loss over the rows of a batch, a scalar: `made` (rows, outputs), `targets`
        (rows,) or (rows, outputs). Each row's part of it depends on no other row (hazard 15)."""

    def vote(self, made: Tensor, targets: Tensor | None = None) -> Tensor:
        """What one shard contributes to the answers, (rows, outputs), or, of texts, (places, words)
        for the places that `targets` names; the answer is the mean over the live shards, each
        weighing the same."""

    def answers(self, voted: Tensor, targets: Tensor) -> Sequence[Prediction]:
        """The answers to rows whose targets are known, from the shards' mean vote: what `score`
        takes."""

    def score(
        self,
        answers: Sequence[Prediction],
        rows: Sequence[Row],
        metric: str = "",
    ) -> Score:
        """How well `answers` answer `rows`, one each, of which there is at least one. `metric`: one
        of the task's ([task] metric), "" for its first. Raises UsageError for another."""

    def answer(self, voted: Tensor) -> Prediction:
        """The answer to one row from the shards' mean vote, (outputs,)."""
