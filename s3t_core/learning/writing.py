"""How a language model's live shards write together: token by token, each the mean of what the
shards find likely (learning.tasks.generation).

1. The prompts of a batch are padded at their beginning, masked, and counted from their first token.
2. Each shard reads them once, and keeps the keys and values of its attention, as only its own
   adapters make them; each further token is one step of each.
3. The likeliest token is taken, the first among equals; or, with a temperature, one is drawn from a
   generator of the row's own: what a row draws depends on its seed and its place, never on its
   neighbours.

Deterministic for a given batch. A row's last bits depend on the padding of its batch (hazard 13),
so two tokens that are as likely may change places in another; who must have the same text again
asks for it alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from s3t_core.errors import DataError, GuaranteeError
from s3t_core.learning.batched_shards import ShardStages
from s3t_core.learning.encoding import ConversationReader
from s3t_core.learning.replica import StagedModel
from s3t_core.learning.tasks.generation import TextPrediction


@dataclass(frozen=True)
class Writing:
    """How to write. `most`: new tokens at most; `temperature`: 0 takes the likeliest, more draws
    (1: as likely as the model says); `seed` of what is drawn, 0 to 2^63-1."""

    most: int = 128
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.most < 1 or self.temperature < 0 or not 0 <= self.seed < 2**63:
            raise DataError(
                "expected at least one new token, a temperature from 0 on and a seed from 0 on, "
                f"got {self.most}, {self.temperature:g} and {self.seed}"
            )


def writing_of(params: Mapping[str, object], most: int) -> Writing:
    """How to write, from what whoever asks names: `max_new_tokens` (else `most`), `temperature`,
    `seed`. Raises DataError for a value of another kind."""
    found = (
        params.get("max_new_tokens", most),
        params.get("temperature", 0.0),
        params.get("seed", 0),
    )
    numbers = [n for n in found if isinstance(n, int | float) and math.isfinite(n)]
    if len(numbers) < len(found) or any(n != int(n) for n in (numbers[0], numbers[2])):
        raise DataError(
            "expected whole numbers for max_new_tokens and seed and a number for temperature, got "
            "something else"
        )
    return Writing(
        int(numbers[0]),
        float(numbers[1]),
        int(numbers[2]),
    )


class Writer:
    """The shards of a release as one author. Not for two threads at once."""

    def __init__(
        self,
        staged: StagedModel,
        shards: Sequence[ShardStages],
        reader: ConversationReader,
        merged: bool = False,
    ) -> None:
        """`shards`: loaded on `staged`; `merged`: they are one model, without adapters."""
        self._staged, self._shards, self._reader = staged, shards, reader
        self._merged, self._ends = merged, reader.ends
        limit = getattr(
            staged.model.config,
            "max_position_embeddings",
            None,
        )
        self._longest = int(limit) if isinstance(limit, int) else None

    def write(self, prompts: list[list[int]], how: Writing) -> list[TextPrediction]:
        """What is written behind each prompt (token ids, one at least). Raises DataError for one
        that leaves no room."""
        rows = [_Row(prompt) for prompt in prompts]
        for tokens in self._steps(prompts, how):
            for row, token in zip(rows, tokens, strict=True):
                row.take(token, self._ends)
            if all(row.is_over for row in rows):
                break
        return [row.prediction(self._reader) for row in rows]

    def stream(self, prompt: list[int], how: Writing) -> Iterator[str | TextPrediction]:
        """The same text for one prompt, piece by piece, as soon as the characters are whole; in the
        end the whole of it."""
        row, sent = _Row(prompt), ""
        for (token,) in self._steps([prompt], how):
            row.take(token, self._ends)
            text = row.prediction(self._reader).text
            if not row.is_over and text.endswith("\ufffd"):
                continue  # half a character
            if text.startswith(sent) and text != sent:
                yield text[len(sent) :]
                sent = text
            if row.is_over:
                break
        whole = row.prediction(self._reader)
        if whole.text.startswith(sent) and whole.text != sent:
            yield whole.text[len(sent) :]  # it was cut within a character
        yield whole

    @torch.inference_mode()
    def _steps(self, prompts: list[list[int]], how: Writing) -> Iterator[list[int]]:
        """The next token of every row, again and again. Rows that are over go on unheard."""
        self._check(prompts, how)
        ids, mask = _padded(prompts)
        caches = [DynamicCache() for _ in self._shards]
        draws = [_generator(how.seed, place) for place in range(len(prompts))]
        device = self._staged.split.device
        for _ in range(how.most):
            total: Tensor | None = None
            for shard, cache in zip(self._shards, caches, strict=True):
                chances = self._next(
                    shard,
                    ids.to(device),
                    mask.to(device),
                    cache,
                ).cpu()
                total = chances if total is None else total + chances
            if total is None:
                raise GuaranteeError("expected a live shard to write, got none")
            tokens = _chosen(
                total / len(self._shards),
                how.temperature,
                draws,
            )
            yield tokens
            ids = torch.tensor(tokens).unsqueeze(1)
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)

    def _next(
        self,
        shard: ShardStages,
        ids: Tensor,
        mask: Tensor,
        cache: DynamicCache,
    ) -> Tensor:
        """(rows, words): how likely each word is to come next."""
        if not self._merged:
            self._staged.activate(list(shard.names.values()))
        places = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        states = self._staged.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        if self._staged.words is None:
            raise GuaranteeError("expected a language model with its head, got none")
        return torch.softmax(self._staged.words(states[:, -1]).float(), dim=-1)

    def _check(self, prompts: list[list[int]], how: Writing) -> None:
        if not prompts or not all(prompts):
            raise DataError("expected a prompt of at least one token, got an empty one")
        longest = max(map(len, prompts))
        if self._longest is not None and longest + how.most > self._longest:
            raise DataError(
                f"expected a prompt that leaves room for {how.most} new tokens within the "
                f"{self._longest} that the backbone reads, got one of {longest}; shorten it, or "
                "ask for fewer new tokens"
            )


class _Row:
    """What is written behind one prompt."""

    def __init__(self, prompt: list[int]) -> None:
        self._ids: list[int] = []
        self._read, self._taken = len(prompt), 0
        self.is_over = False

    def take(self, token: int, ends: frozenset[int]) -> None:
        """One more token, unless it is over."""
        if self.is_over:
            return
        self._taken += 1
        self.is_over = token in ends
        if not self.is_over:
            self._ids.append(token)

    def prediction(self, reader: ConversationReader) -> TextPrediction:
        """What it says so far."""
        finish = "stop" if self.is_over else "length"
        return TextPrediction(
            reader.text(self._ids),
            finish,
            self._taken,
            self._read,
        )


def _padded(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """(rows, longest) int64 ids, filled at the beginning, and their mask."""
    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(p)) + p for p in prompts]
    mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def _generator(seed: int, place: int) -> torch.Generator:
    """Of a row's own: rows of one question draw differently."""
    return torch.Generator().manual_seed((seed + place) % 2**63)


def _chosen(
    chances: Tensor,
    temperature: float,
    draws: list[torch.Generator],
) -> list[int]:
    """One word a row. A temperature sharpens or flattens what the shards say together."""
    if temperature == 0:
        return [int(each) for each in chances.argmax(1)]
    logs = chances.double().clamp_min(torch.finfo().tiny).log()
    logs -= logs.amax(1, keepdim=True)  # or the least temperature makes nothing but infinities
    scaled = torch.softmax(logs / temperature, dim=-1).float()
    return [
        int(torch.multinomial(row, 1, generator=draw))
        for row, draw in zip(scaled, draws, strict=True)
    ]
