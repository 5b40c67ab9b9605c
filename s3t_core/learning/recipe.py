"""Stage keys: everything that makes a stage, hashed before it is trained (method.md, "What a stage
is called").

Training lists the keys that the present data and config call for and trains those without a digest.
So a crash resumes where it was, replicas that share a prefix train it once, and a full retrain
re-uses every stage whose inputs did not change. This module imports no torch: what is wanted can be
listed anywhere.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from s3t_core import METHOD_VERSION
from s3t_core.canonical import digest_of
from s3t_core.config import Config
from s3t_core.domain import DatasetVersion, Sequence, SliceId, StageRecord
from s3t_core.errors import UsageError


def blocks(layers: int, slices: int) -> tuple[tuple[int, ...], ...]:
    """L contiguous groups of layer indices, counted from the top: block 1 holds the layers nearest
    the output.

    L need not divide the layer count: the upper blocks get one layer more. Raises UsageError when L
    > layers.
    """
    if slices > layers:
        raise UsageError(
            f"expected at most {layers} slices (the backbone has {layers} layers, a block needs "
            f"one), got {slices}; lower [system] slices"
        )
    groups, top = [], layers
    for i in range(slices):
        size = layers // slices + (i < layers % slices)
        groups.append(tuple(range(top - size, top)))
        top -= size
    return tuple(groups)


@dataclass(frozen=True)
class NumericProfile:
    """What else decides the bits of a stage. Byte equality is claimed within one profile.

    Library versions, of those too that turn a row into what a backbone reads (`tokenizers`: that of
    Python and others where the backbone's tokenizer is written in Python); the CPU's capability,
    its maker and whether it multiplies in bfloat16; threads; and `fingerprint`, a digest of what
    the machine computes (learning.fingerprint). The maker stands beside the fingerprint because
    libraries choose kernels by it, for shapes too that the fingerprint does not try. "" in a
    profile that an earlier release recorded, or where nothing tells it.
    """

    torch: str
    transformers: str
    peft: str
    cpu_capability: str
    threads: int
    bfloat16: bool = False
    tokenizers: str = ""
    pillow: str = ""
    safetensors: str = ""
    numpy: str = ""
    accelerate: str = ""
    cpu_vendor: str = ""
    fingerprint: str = ""

    def differences(self, other: "NumericProfile") -> str:
        """What differs, as "threads 1 and 2, torch 2.13.0 and 2.14.0": this one's value first. ""
        when nothing does."""
        found = []
        for name in (each.name for each in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                found.append(f"{name} {_short(mine)} and {_short(theirs)}")
        return ", ".join(found)


def _short(value: object) -> str:
    return str(value)[:40] or "none"


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a stage except its place and its data.

    `method`: the METHOD_VERSION it was made under; "" in a recipe that an earlier release recorded.
    `task`: `kind` and literals of the task (learning.tasks), empty for classification, which came
    first: its keys do not name it.
    """

    model: str
    backbone_digest: str
    tokenizer_digest: str
    labels: tuple[str, ...]
    max_length: int
    blocks: tuple[tuple[int, ...], ...]
    adapter: Mapping[str, Any] = field(hash=False)
    training: Mapping[str, Any] = field(hash=False)
    profile: NumericProfile
    method: str = METHOD_VERSION
    task: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def seed(self, shard: int, prefix: Sequence) -> int:
        """The stage's own seed: from the shard and the slices it sees, never from the replica's
        number (hazard 9)."""
        place = {
            "seed": self.training["seed"],
            "shard": shard,
            "prefix": list(prefix),
        }
        return int(digest_of(place)[:12], 16)

    def stage_key(
        self,
        shard: int,
        prefix: Sequence,
        slice_digests: tuple[str, ...],
        earlier: tuple[str | None, ...],
    ) -> str:
        """SHA-256 over all that makes the stage. `earlier`: keys of stages 1..i-1, None for a void
        one."""
        task = {"task": dict(self.task)} if self.task else {}
        return digest_of(
            {
                **task,
                "method": self.method,
                "backbone": self.backbone_digest,
                "tokenizer": self.tokenizer_digest,
                "labels": list(self.labels),
                "max_length": self.max_length,
                "adapter": dict(self.adapter),
                "training": dict(self.training),
                "block": list(self.blocks[len(prefix) - 1]),
                "seed": self.seed(shard, prefix),
                "slices": list(slice_digests),
                "earlier": list(earlier),
                "profile": asdict(self.profile),
            }
        )


def make_recipe(
    config: Config,
    model: str,
    backbone_digest: str,
    tokenizer_digest: str,
    layers: int,
    profile: NumericProfile,
) -> Recipe:
    """The recipe that `config` asks for on a given backbone. `model` is where to find it: "minilm",
    a path, an id.

    dtype "auto" is settled here, so that a stage key always names the precision.
    """
    adapter = config.adapter.model_dump(mode="json")
    training = config.training.model_dump(mode="json")
    del training["threads"]  # stands in the profile
    if training["dtype"] == "auto":
        low = profile.bfloat16 and not config.runner.max_memory  # what is read from disk is float32
        training["dtype"] = "bfloat16" if low else "float32"
    return Recipe(
        model=model,
        backbone_digest=backbone_digest,
        tokenizer_digest=tokenizer_digest,
        labels=config.require_labels(),
        max_length=config.backbone.max_length,
        blocks=blocks(layers, config.system.slices),
        adapter=adapter,
        training=training,
        profile=profile,
        task=_task_of(config),
    )


def _task_of(config: Config) -> dict[str, object]:
    """What of the task decides the bytes of a stage."""
    task = config.task
    settings: dict[str, object] = {"range": list(task.range)} if task.range else {}
    if config.data.text_pair:
        settings["pairs"] = True
    if task.kind == "classification" and not settings:
        return {}
    return {"kind": task.kind, **settings}


def in_float32(recipe: Recipe) -> Recipe:
    """The same for a model whose layers multiply in float32."""
    return replace(recipe, training={**recipe.training, "dtype": "float32"})


@dataclass(frozen=True)
class StageSpec:
    """A stage that should exist: where it stands, what it sees, the keys of the stages it builds on
    (None: void)."""

    key: str
    shard: int
    prefix: Sequence
    slice_digests: tuple[str, ...]
    earlier: tuple[str | None, ...]

    def record(self, digest: str, run_id: str = "") -> StageRecord:
        """The spec once trained to `digest`."""
        return StageRecord(
            self.key,
            digest,
            self.shard,
            self.prefix,
            self.slice_digests,
            run_id,
        )


@dataclass(frozen=True)
class WantedReplica:
    """A replica as data and config call for it: one key per position, None where the stage is
    void."""

    shard: int
    number: int
    sequence: Sequence
    keys: tuple[str | None, ...]


@dataclass(frozen=True)
class Wanted:
    """All replicas that should exist, and each distinct stage once, those that others build on
    first."""

    replicas: tuple[WantedReplica, ...]
    stages: tuple[StageSpec, ...]


def wanted(
    recipe: Recipe,
    sequences: list[Sequence],
    dataset: DatasetVersion,
) -> Wanted:
    """What should exist for `dataset`: m·B replicas, shared prefixes once. A stage that no row
    feeds is void."""
    replicas: list[WantedReplica] = []
    stages: dict[str, StageSpec] = {}
    for shard in range(dataset.shards):
        for number, sequence in enumerate(sequences):
            keys: list[str | None] = []
            for position in range(1, len(sequence) + 1):
                prefix = sequence[:position]
                versions = [dataset.slice_versions[SliceId(shard, s)] for s in prefix]
                if not any(v.rows for v in versions):
                    keys.append(None)
                    continue
                digests = tuple(v.digest for v in versions)
                key = recipe.stage_key(
                    shard,
                    prefix,
                    digests,
                    tuple(keys),
                )
                stages.setdefault(
                    key,
                    StageSpec(
                        key,
                        shard,
                        prefix,
                        digests,
                        tuple(keys),
                    ),
                )
                keys.append(key)
            replicas.append(
                WantedReplica(
                    shard,
                    number,
                    sequence,
                    tuple(keys),
                )
            )

    def place(stage: StageSpec) -> tuple[int, int, Sequence]:
        return len(stage.prefix), stage.shard, stage.prefix

    return Wanted(tuple(replicas), tuple(sorted(stages.values(), key=place)))
