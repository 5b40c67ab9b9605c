"""The ensemble: each live shard answers with its deepest live replica; the answer is the mean of their probabilities.

A shard without a live replica leaves; with none left nothing answers (NoLiveShard), never a tainted stage.
Every shard's vote weighs the same: weights computed from records would be a trace of them (hazard 7).
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from s3t_core.domain import Release
from s3t_core.errors import NoLiveShard
from s3t_core.learning.backbone import Backbone, check_backbone, load_model, load_tokenizer
from s3t_core.learning.encoding import encode_texts, pad, padding_token
from s3t_core.learning.recipe import Recipe
from s3t_core.learning.replica import StagedModel
from s3t_core.records import Row

_BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """The label of a text and the probability of every label (they sum to 1)."""

    label: str
    probabilities: dict[str, float]


class Ensemble:
    """The model that a release describes: one backbone, the serving stages of every live shard on it."""

    def __init__(self, backbone: Backbone, recipe: Recipe, release: Release, artifact: Callable[[str], bytes]) -> None:
        """`artifact` returns the verified bytes of a stage digest. Raises BackboneChanged or ArtifactError."""
        check_backbone(backbone, recipe.backbone_digest, recipe.tokenizer_digest)
        self._recipe = recipe
        self._lock = threading.Lock()
        self._shards: list[list[str]] = []
        serving = [r for r in (release.serving(s) for s in release.shards()) if r]
        if serving:
            self._tokenizer = load_tokenizer(backbone)
            self._staged = StagedModel(load_model(backbone), recipe)
        for replica in serving:
            names = [f"shard{replica.shard}_stage{s.index}" for s in replica.stages]
            for name, stage in zip(names, replica.stages, strict=True):
                self._staged.load(name, stage.index, artifact(stage.digest))
            self._shards.append(names)

    def predict(self, texts: list[str]) -> list[Prediction]:
        """One prediction per text. Raises NoLiveShard when every shard is dead."""
        rows = self.probabilities(texts)
        labels = self._recipe.labels
        return [Prediction(labels[int(row.argmax())], dict(zip(labels, row.tolist(), strict=True))) for row in rows]

    @torch.inference_mode()
    def probabilities(self, texts: list[str]) -> Tensor:
        """(texts, labels) float32: the mean over live shards. Raises NoLiveShard."""
        if not self._shards:
            raise NoLiveShard("every shard is dead: the stages that are left all saw erased records, so nothing may "
                              "answer; run `s3t retrain`")
        if not texts:
            return torch.empty(0, len(self._recipe.labels))
        with self._lock:
            return self._mean_probabilities(texts)

    def _mean_probabilities(self, texts: list[str]) -> Tensor:
        tokens = encode_texts(self._tokenizer, texts, self._recipe.max_length)
        padding = padding_token(self._tokenizer)
        order = sorted(range(len(tokens)), key=lambda i: (len(tokens[i]), i))
        total = torch.zeros(len(tokens), len(self._recipe.labels))
        for names in self._shards:
            self._staged.activate(names)
            for start in range(0, len(order), _BATCH):
                chosen = order[start:start + _BATCH]
                logits = self._staged.logits(names[-1], pad([tokens[i] for i in chosen], padding))
                total[chosen] += torch.softmax(logits, dim=1)
        return total / len(self._shards)

    def accuracy(self, rows: Iterable[Row]) -> float | None:
        """Share of rows answered with their label, 0 to 1; None without rows or without a live shard."""
        rows = list(rows)
        if not rows or not self._shards:
            return None
        predictions = self.predict([r.text for r in rows])
        return sum(p.label == r.label for p, r in zip(predictions, rows, strict=True)) / len(rows)
