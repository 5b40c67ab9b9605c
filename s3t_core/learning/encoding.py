"""Rows to token batches, padded to the longest row of the batch. A batch depends on its own rows only."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s3t_core.errors import DataError
from s3t_core.learning.recipe import Recipe
from s3t_core.records import Row


@dataclass(frozen=True)
class Encoded:
    """Token ids per row (cut at max_length), label indices, and the padding token. `states`: those that enter the layer
    where the computation is resumed, (tokens, hidden) per row; None where it is not."""

    tokens: list[list[int]]
    labels: list[int]
    padding: int
    states: list[Tensor] | None = None

    @property
    def lengths(self) -> list[int]:
        """Tokens per row."""
        return [len(t) for t in self.tokens]


def encode(tokenizer: Any, rows: list[Row], recipe: Recipe) -> Encoded:
    """Tokens and label indices of `rows`, in their order."""
    index = {label: i for i, label in enumerate(recipe.labels)}
    strange = {r.label for r in rows} - index.keys()
    if strange:
        raise DataError(f"expected the labels under [data] in s3t.toml, got {len(strange)} other(s) in the data; put "
                        "them back, or run `s3t ingest SOURCE` again")
    return Encoded(encode_texts(tokenizer, [r.text for r in rows], recipe.max_length),
                   [index[r.label] for r in rows], padding_token(tokenizer))


def encode_texts(tokenizer: Any, texts: list[str], max_length: int) -> list[list[int]]:
    """Token ids of each text, special tokens included, at most `max_length`."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
    return ids


def padding_token(tokenizer: Any) -> int:
    """The id that fills short rows; masked, so its value never reaches an answer."""
    return int(tokenizer.pad_token_id or 0)


def pad(tokens: list[list[int]], padding: int) -> dict[str, Tensor]:
    """(rows, longest) int64 `input_ids` and `attention_mask`."""
    longest = max(len(t) for t in tokens)
    return {
        "input_ids": torch.tensor([t + [padding] * (longest - len(t)) for t in tokens]),
        "attention_mask": torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in tokens]),
    }


def batch_of(rows: Encoded, indices: list[int]) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
    """The model input, the states that go with it (rows, longest, hidden), and the labels (rows,) of some rows."""
    states = None if rows.states is None else torch.nn.utils.rnn.pad_sequence(
        [rows.states[i] for i in indices], batch_first=True)
    return (pad([rows.tokens[i] for i in indices], rows.padding), states,
            torch.tensor([rows.labels[i] for i in indices]))


def in_order(parts: list[tuple[list[Row], Encoded]], padding: int) -> Encoded:
    """Rows of several slices as one, in record order."""
    numbered = sorted((row, part, i) for part, (rows, _) in enumerate(parts) for i, row in enumerate(rows))
    chosen = [(parts[part][1], i) for _, part, i in numbered]
    return Encoded([e.tokens[i] for e, i in chosen], [e.labels[i] for e, i in chosen], padding,
                   None if any(e.states is None for e, _ in chosen) else
                   [e.states[i] for e, i in chosen if e.states is not None])
