"""The ensemble: each live shard answers with its deepest live replica; the answer is the mean of
what they vote, probabilities for classification (learning.tasks). Or, where that is asked for, one
model answers for all of them (learning.merged).

A shard without a live replica leaves; with none left nothing answers (NoLiveShard), never a tainted
stage. Every shard's vote weighs the same: weights computed from records would be a trace of them
(hazard 7).
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from s3t_core.conversations import Conversation
from s3t_core.domain import Combine, Release, Score
from s3t_core.errors import NoLiveShard, UsageError
from s3t_core.learning.adapters import ONE_PASS_KINDS
from s3t_core.learning.backbone import Backbone, check_backbone
from s3t_core.learning.batched_shards import BatchedShards, ShardStages, load_shards
from s3t_core.learning.device_map import device_map
from s3t_core.learning.encoding import ConversationReader, Item, encode, load_reader
from s3t_core.learning.merged import HEAD as MERGED_HEAD
from s3t_core.learning.merged import merge_shards
from s3t_core.learning.precision import lower_precision
from s3t_core.learning.recipe import Recipe, in_float32
from s3t_core.learning.replica import load_staged
from s3t_core.learning.split import Batch
from s3t_core.learning.tasks import task_of, writes_text
from s3t_core.learning.tasks.generation import TextPrediction
from s3t_core.learning.tasks.task import Prediction
from s3t_core.learning.writing import Writer, Writing
from s3t_core.records import Row

_BATCH = 32
_TOGETHER = 8
"""Questions that are written to at a time."""
ONE_PASS_TOKENS = 256
"""Batches of so many tokens are answered by all shards in one pass; larger ones shard by shard:
the products fill the machine then, and more rows at once only leave its caches (decision 012)."""


class Ensemble:
    """The model that a release describes: one backbone, the serving stages of every live shard on
    it."""

    def __init__(
        self,
        backbone: Backbone,
        recipe: Recipe,
        release: Release,
        artifact: Callable[[str], bytes],
        max_memory: str = "",
        combine: Combine = "votes",
    ) -> None:
        """`artifact` returns the verified bytes of a stage digest; `max_memory`: what devices may
        hold of the backbone (learning.device_map); `combine`: "votes" asks every shard, "merged"
        one model of them all (learning.merged). Raises BackboneChanged or ArtifactError, and
        UsageError for a merged model that is larger than one device."""
        check_backbone(
            backbone,
            recipe.backbone_digest,
            recipe.tokenizer_digest,
        )
        self._recipe = recipe
        self._task = task_of(recipe)
        self._lock = threading.Lock()
        self._merged = combine == "merged"
        self._shards: list[ShardStages] = []
        self._batched: BatchedShards | None = None
        serving = [r for r in (release.serving(s) for s in release.shards()) if r]
        if serving:
            self._reader = load_reader(backbone, recipe)
            deepest = max(stage.index for replica in serving for stage in replica.stages)
            lowest = min(recipe.blocks[deepest - 1])
            devices = device_map(backbone, max_memory, lowest)
            if self._merged and devices:
                raise UsageError(
                    'expected [serving] combine = "votes" for a backbone that is larger than one '
                    "device, got merged; set it, or leave [runner] max_memory empty"
                )
            loaded = in_float32(recipe) if self._merged else recipe
            self._staged = load_staged(backbone, loaded, devices)
            self._task = self._staged.task
            self._shards = load_shards(self._staged, release, artifact)
        if serving and self._merged:
            merge_shards(self._staged, self._shards)
            self._shards = [ShardStages({1: MERGED_HEAD})]
            if recipe.training["dtype"] == "bfloat16":
                lower_precision(self._staged.model)
        elif serving and recipe.adapter["kind"] in ONE_PASS_KINDS and not writes_text(recipe):
            self._batched = BatchedShards(self._staged, self._shards)

    @property
    def lives(self) -> bool:
        """Whether a shard is left that may answer."""
        return bool(self._shards)

    def predict(self, texts: list[str]) -> list[Prediction]:
        """One prediction per text. Raises NoLiveShard when every shard is dead."""
        return [self._task.answer(voted) for voted in self.probabilities(texts)]

    def write(
        self,
        asked: Sequence[Conversation],
        how: Writing,
    ) -> list[TextPrediction]:
        """What a language model's shards write behind each question (a prompt, the beginning of a
        text, a chat that ends with the user). Raises NoLiveShard, and DataError for a question that
        leaves no room."""
        with self._lock:
            reader, writer = self._writer()
            prompts = [reader.question(turns) for turns in asked]
            parts = range(0, len(prompts), _TOGETHER)
            return [
                prediction
                for begin in parts
                for prediction in writer.write(prompts[begin : begin + _TOGETHER], how)
            ]

    def stream(self, asked: Conversation, how: Writing) -> Iterator[str | TextPrediction]:
        """The text behind one question, piece by piece, then all of it. Another question waits for
        its end."""
        with self._lock:
            reader, writer = self._writer()
            yield from writer.stream(reader.question(asked), how)

    def _writer(self) -> tuple[ConversationReader, Writer]:
        self._check_alive()
        if not isinstance(self._reader, ConversationReader):
            raise UsageError("expected a model that writes texts, got one that labels them")
        return self._reader, Writer(
            self._staged,
            self._shards,
            self._reader,
            self._merged,
        )

    def _check_alive(self) -> None:
        if not self._shards:
            raise NoLiveShard(
                "every shard is dead: the stages that are left all saw erased records, so nothing "
                "may answer; run `s3t retrain`"
            )

    @torch.inference_mode()
    def probabilities(self, texts: list[str]) -> Tensor:
        """(texts, outputs) float32: the mean vote of the live shards. Raises NoLiveShard."""
        self._check_alive()
        if not texts:
            return torch.empty(0, self._task.outputs)
        with self._lock:
            return self._mean_probabilities(texts)

    def _mean_probabilities(self, texts: list[str]) -> Tensor:
        items = self._reader.items(texts)
        total = torch.zeros(len(items), self._task.outputs)
        for chosen in _batches(self._reader.lengths(items)):
            total[chosen] = self._mean_vote([items[i] for i in chosen])
        return total

    def _mean_vote(self, rows: list[Item], targets: Tensor | None = None) -> Tensor:
        """The mean vote of the live shards on the rows of one batch; `targets`: which places of
        texts are asked about."""
        batch = self._reader.batch(rows)
        total: Tensor | None = None
        states_of = self._states(batch, self._reader.weight(rows))
        for shard, states in zip(self._shards, states_of, strict=True):
            made = self._staged.classify(
                shard.head,
                states,
                batch,
            )
            asked = targets.to(made.device) if targets is not None else None
            voted = self._task.vote(made, asked).cpu()
            total = voted if total is None else total + voted
        if total is None:
            raise NoLiveShard("expected a live shard, got none; run `s3t retrain`")
        return total / len(self._shards)

    def _states(self, batch: Batch, tokens: int) -> Iterator[Tensor]:
        """The last states of every shard: in one pass where that pays, else shard by shard above
        what they share."""
        split = self._staged.split
        if self._merged:
            yield split.states(batch)
            return
        first = [min(self._recipe.blocks[shard.depth - 1]) for shard in self._shards]
        if self._batched is not None and tokens <= ONE_PASS_TOKENS and split.resumes(batch):
            yield from self._batched.states(batch)
            return
        self._staged.activate([])  # what the shards share is the backbone alone
        below: dict[int, Tensor] = {}
        if any(first) and split.resumes(batch):
            below = split.entering(batch, set(first) - {0})
        for shard, layer in zip(self._shards, first, strict=True):
            self._staged.activate(list(shard.names.values()))
            yield (
                split.resumed(batch, layer, below[layer]) if layer in below else split.states(batch)
            )

    def score(self, rows: Iterable[Row], metric: str = "") -> Score | None:
        """How well the rows are answered, by a metric of the task ("": its first); None without
        rows or without a live shard."""
        rows = list(rows)
        if not rows or not self._shards:
            return None
        with self._lock:
            return self._task.score(
                self._answers(rows),
                rows,
                metric,
            )

    @torch.inference_mode()
    def _answers(self, rows: list[Row]) -> list[Prediction]:
        """The answers to rows that say what is asked, in their order."""
        found: dict[int, Prediction] = {}
        encoded = encode(self._reader, rows, self._task)
        many = _TOGETHER if writes_text(self._recipe) else _BATCH  # a vocabulary a place is large
        for chosen in _batches(encoded.lengths, many):
            targets = self._task.stacked([encoded.targets[i] for i in chosen])
            voted = self._mean_vote([encoded.items[i] for i in chosen], targets)
            found |= dict(
                zip(
                    chosen,
                    self._task.answers(voted, targets),
                    strict=True,
                )
            )
        return [found[i] for i in range(len(rows))]


def _batches(lengths: list[int], many: int = _BATCH) -> Iterator[list[int]]:
    """Rows of like length together, as their numbers."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    for start in range(0, len(order), many):
        yield order[start : start + many]
