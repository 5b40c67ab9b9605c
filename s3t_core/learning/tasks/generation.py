"""A language model goes on with a text: the backbone's own head, frozen, and the mean of the shards'
next-token probabilities.

A stage is its adapter alone. A row teaches what is learnt of it (s3t_core.conversations), each row
as much as any other however long it is: a loss that is divided by the tokens of a batch would let
one row's length decide what another teaches (hazard 15).
"""  # noqa: E501

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from s3t_core.domain import Score
from s3t_core.errors import GuaranteeError
from s3t_core.learning.tasks.metrics import PERPLEXITY, TOKEN_ACCURACY, one_of, scored
from s3t_core.learning.tasks.task import NOT_LEARNT, Prediction, Target
from s3t_core.records import Row

_LEAST = torch.finfo(torch.float32).tiny
"""In the place of a probability that was rounded to nothing."""


@dataclass(frozen=True)
class TokensScored:
    """How a row's learnt tokens were foreseen: their negative log-likelihood together (nats), how
    many were the likeliest, and how many there are."""

    loss: float
    hits: int
    tokens: int

    def document(self) -> dict[str, object]:
        """As numbers: nobody asked for it."""
        return dict(vars(self))


@dataclass(frozen=True)
class TextPrediction:
    """What a model wrote. `finish`: "stop" where it ended by itself, "length" where it had to;
    `tokens`: how many it wrote, the one that ends it among them; `prompt_tokens`: how many it
    read."""

    text: str
    finish: str
    tokens: int
    prompt_tokens: int

    def document(self) -> dict[str, object]:
        """`text`, `finish`, `tokens`, `prompt_tokens`."""
        return {
            "text": self.text,
            "finish": self.finish,
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
        }


@dataclass(frozen=True)
class Generation:
    """`words`: the backbone's head, (positions, hidden) -> (positions, words); None where nothing
    is computed. Fills `Task`, with the last states in the place of what a head makes."""

    words: torch.nn.Module | None = None

    @property
    def outputs(self) -> int:
        """A stage has no head of its own."""
        return 0

    def head(self, hidden: int) -> torch.nn.Module:  # noqa: ARG002
        """Nothing that trains."""
        return torch.nn.Identity()

    def targets(self, rows: Sequence[Row]) -> list[Target]:
        """Made with the tokens, by what reads conversations (learning.encoding)."""
        raise GuaranteeError(f"expected tokens to learn from, got {len(rows)} row(s) as texts")

    def stacked(self, targets: Sequence[Target]) -> Tensor:
        """(rows, longest) int64, filled with what is not learnt."""
        tensors = [torch.tensor(each) for each in targets]
        return torch.nn.utils.rnn.pad_sequence(
            tensors,
            batch_first=True,
            padding_value=NOT_LEARNT,
        )

    def loss(self, made: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each learnt token given those before it: the mean of a row's, then the
        mean over rows. `made`: last states (rows, tokens, hidden); `targets` (rows, tokens)."""
        learnt = targets[:, 1:] != NOT_LEARNT
        each = torch.nn.functional.cross_entropy(
            self._said(made, learnt), targets[:, 1:][learnt], reduction="none"
        )
        shares = (learnt / learnt.sum(1, keepdim=True).clamp_min(1))[learnt]
        return (each * shares).sum() / len(targets)

    def vote(self, made: Tensor, targets: Tensor | None = None) -> Tensor:
        """The probability of every word at each learnt place, (places, words), rows one after
        another. What a model writes by itself: learning.writing."""
        if targets is None:
            raise GuaranteeError(f"expected texts to be written, got {len(made)} row(s) to answer")
        return torch.softmax(self._said(made, targets[:, 1:] != NOT_LEARNT), dim=-1)

    def answers(self, voted: Tensor, targets: Tensor) -> list[Prediction]:
        """How each row's learnt tokens were foreseen."""
        learnt = targets[:, 1:] != NOT_LEARNT
        asked = targets[:, 1:][learnt]
        losses = -voted.gather(1, asked.unsqueeze(1)).squeeze(1).clamp_min(_LEAST).log()
        hits = voted.argmax(1) == asked
        sizes = learnt.sum(1).tolist()
        rows = zip(
            torch.split(losses, sizes),
            torch.split(hits, sizes),
            sizes,
            strict=True,
        )
        return [
            TokensScored(
                float(loss.sum()),
                int(hit.sum()),
                size,
            )
            for loss, hit, size in rows
        ]

    def score(
        self,
        answers: Sequence[Prediction],
        rows: Sequence[Row],  # noqa: ARG002
        metric: str = "",
    ) -> Score:
        """Perplexity of the learnt tokens, all rows' together; or the share of them that are the
        likeliest, 0 to 1."""
        chosen = one_of(metric, (PERPLEXITY, TOKEN_ACCURACY))
        found = [a for a in answers if isinstance(a, TokensScored)]
        what = [a.loss if chosen == PERPLEXITY else a.hits for a in found]
        return scored(
            chosen,
            numpy.array(what),
            numpy.array([a.tokens for a in found]),
        )

    def answer(self, voted: Tensor) -> Prediction:
        """See `vote`."""
        raise GuaranteeError(f"expected a text to go on with, got {len(voted)} number(s)")

    def _said(self, states: Tensor, learnt: Tensor) -> Tensor:
        """What the head makes of the states before learnt tokens, (places, words)."""
        if self.words is None:
            raise GuaranteeError("expected a language model with its head, got none")
        said: Tensor = self.words(states[:, :-1][learnt])
        return said
