"""One label of several for a text or an image: a linear head, cross-entropy, and the mean of the
shards' probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s3t_core.domain import Score
from s3t_core.errors import DataError
from s3t_core.learning.tasks.task import Prediction, Target
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
        head = torch.nn.Linear(hidden, self.outputs)
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        return head

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

    def loss(self, made: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits, the mean over rows."""
        return torch.nn.functional.cross_entropy(made, targets)

    def vote(self, made: Tensor) -> Tensor:
        """Probabilities, which sum to 1 in each row."""
        return torch.softmax(made, dim=1)

    def right(self, made: Tensor, targets: Tensor) -> int:
        """Rows whose likeliest label is their own."""
        return int((made.argmax(1).cpu() == targets).sum())

    def score(self, answers: Sequence[Prediction], rows: Sequence[Row]) -> Score:
        """Accuracy: the share of rows that are answered with their label, 0 to 1."""
        pairs = zip(answers, rows, strict=True)
        return Score("accuracy", sum(a.label == row.label for a, row in pairs) / len(rows))

    def answer(self, voted: Tensor) -> Prediction:
        """The likeliest label, the first among equals."""
        chances = dict(zip(self.labels, voted.tolist(), strict=True))
        return Prediction(self.labels[int(voted.argmax())], chances)
