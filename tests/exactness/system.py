"""A whole S3T system in memory, on the tiny backbone: rows in, stage bytes out. Real training, no
orchestration."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3t_core.capacity.sequences import cyclic_sequences
from s3t_core.config import Config
from s3t_core.config.task import TaskConfig
from s3t_core.domain import DatasetVersion, Release, Replica, SliceId, SliceVersion
from s3t_core.keys import WorkspaceKeys
from s3t_core.learning.activations import Activations
from s3t_core.learning.backbone import Backbone, find_backbone
from s3t_core.learning.recipe import Recipe, Wanted, make_recipe, wanted
from s3t_core.learning.stage import COMPUTED, numeric_profile, train_stage
from s3t_core.records import Row, slice_digest
from tests.tiny import WORDS

DEVICE = os.environ.get("S3T_TEST_DEVICE", "cpu")
"""On which stages are trained and answer: `make test-gpu` says "cuda"."""
KEYS = WorkspaceKeys.derive(bytes(range(32)))
Slices = dict[SliceId, list[Row]]


def make_rows(shard: int, index: int, count: int) -> list[Row]:
    """Rows of differing lengths, two labels, own subjects."""
    return [
        Row(
            f"{shard}{index}{i:062d}",
            f"subject-{shard}-{index}-{i}",
            " ".join(WORDS[(shard * 7 + index * 5 + i * k) % 60] for k in range(1, 3 + i % 5)),
            "ab"[(i + shard) % 2],
        )
        for i in range(count)
    ]


def make_slices(shards: int, slices: int, rows: int = 6) -> Slices:
    """Every slice with a few rows, no two slices with the same number."""
    return {
        SliceId(s, i): make_rows(s, i, rows + i + s) for s in range(shards) for i in range(slices)
    }


def config_for(
    backbone: Path,
    shards: int,
    slices: int,
    budget: int,
    dtype: str = "float32",
    adapter: dict[str, Any] | None = None,
    pooling: str = "mean",
    task: str = "classification",
) -> Config:
    """A small, quick recipe."""
    asked = {"kind": task, "range": [0.0, 4.0] if task == "regression" else []}
    return Config.model_validate(
        {
            "data": {"labels": ["a", "b"] if TaskConfig.model_validate(asked).has_labels else []},
            "task": asked,
            "system": {"shards": shards, "slices": slices, "budget": budget},
            "backbone": {"model": str(backbone), "max_length": 16},
            "adapter": {"rank": 2, "alpha": 4, **(adapter or {})},
            "training": {
                "batch_size": 4,
                "dtype": dtype,
                "pooling": pooling,
                "device": DEVICE,
            },
        }
    )


def dataset_of(slices: Slices, shards: int, count: int, version: str = "v") -> DatasetVersion:
    """A data version of the given rows."""
    return DatasetVersion(
        version,
        shards,
        count,
        {k: SliceVersion(slice_digest(KEYS, rows), len(rows), "md5") for k, rows in slices.items()},
        SliceVersion(slice_digest(KEYS, []), 0, "md5"),
    )


@dataclass
class TinySystem:
    """Trains what is missing, keeps artifacts by key, remembers how many stages it trained."""

    backbone_path: Path
    shards: int
    slices: int
    budget: int
    dtype: str = "float32"
    activations: Activations = COMPUTED
    artifacts: dict[str, bytes] = field(default_factory=dict)
    trained: int = 0
    adapter: dict[str, Any] = field(default_factory=dict)
    pooling: str = "mean"
    task: str = "classification"

    def __post_init__(self) -> None:
        self.backbone: Backbone = find_backbone(str(self.backbone_path))
        config = config_for(
            self.backbone_path,
            self.shards,
            self.slices,
            self.budget,
            self.dtype,
            self.adapter,
            self.pooling,
            self.task,
        )
        self.recipe: Recipe = make_recipe(
            config,
            str(self.backbone_path),
            self.backbone.digest,
            self.backbone.tokenizer_digest,
            self.backbone.layers,
            numeric_profile(1, DEVICE, self.backbone),
        )
        self.sequences = cyclic_sequences(self.slices, self.budget)

    def plan(self, data: Slices) -> Wanted:
        """The replicas and stages that should exist for `data`."""
        return wanted(self.recipe, self.sequences, dataset_of(data, self.shards, self.slices))

    def train(self, data: Slices) -> Wanted:
        """Train what is missing."""
        plan = self.plan(data)
        for spec in plan.stages:
            if spec.key not in self.artifacts:
                result = train_stage(
                    self.backbone,
                    self.recipe,
                    spec,
                    [data[SliceId(spec.shard, s)] for s in spec.prefix],
                    [self.artifacts[k] if k else None for k in spec.earlier],
                    [],
                    self.activations,
                )
                self.artifacts[spec.key] = result.artifact
                self.trained += 1
        return plan

    def release(self, plan: Wanted) -> Release:
        """All stages of `plan`, live. The digest of a stage is its key here: artifacts are kept by
        key."""
        specs = {s.key: s for s in plan.stages}
        return Release(
            "r",
            "v",
            tuple(
                Replica(
                    w.shard, w.number, w.sequence, tuple(specs[k].record(k) for k in w.keys if k)
                )
                for w in plan.replicas
            ),
        )
