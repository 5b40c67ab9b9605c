"""Several shards answer in one pass over one backbone.

1. Layers that no shard adapts are computed once for all (learning.split).
2. From the lowest block of each depth on, the rows of the shards that are adapted there lie one
   shard after another in one batch, those of the rest once behind them; so no row is computed twice
   where it would be the same.
3. An adapted linear layer multiplies all rows with the frozen weight at once and adds each shard's
   low-rank product to its own rows, which are contiguous: two batched products, and no gathering of
   rows.

Right for LoRA (rank-stabilised or not), whose adapter only adds; other kinds take one pass per
shard (peft's own `adapter_names` ignores them silently).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from s3t_core.domain import Release
from s3t_core.learning.replica import StagedModel
from s3t_core.learning.split import Batch


@dataclass(frozen=True)
class ShardStages:
    """A shard that answers: the names of its stages on the model, by block (from 1), top first."""

    names: dict[int, str]

    @property
    def depth(self) -> int:
        """The lowest block that is adapted."""
        return max(self.names)

    @property
    def head(self) -> str:
        """The stage whose head answers."""
        return self.names[self.depth]


def load_shards(
    staged: StagedModel,
    release: Release,
    artifact: Callable[[str], bytes],
) -> list[ShardStages]:
    """Put the stages of every live shard's deepest replica on a model. `artifact` returns the
    verified bytes of a stage digest. Raises ArtifactError, and what `artifact` raises."""
    shards: list[ShardStages] = []
    for replica in filter(None, map(release.serving, release.shards())):
        names = {s.index: f"shard{replica.shard}_stage{s.index}" for s in replica.stages}
        for stage in replica.stages:
            staged.load(
                names[stage.index],
                stage.index,
                artifact(stage.digest),
            )
        shards.append(ShardStages(names))
    return shards


class StackedLora(torch.nn.Module):
    """A linear layer under the adapters of several shards. With `rows` = 0 it is the layer it
    stands for."""

    def __init__(self, layer: LoraLayer, names: list[str | None]) -> None:
        """`layer`: peft's; `names`: the adapter of each shard that diverged by here, None where it
        has none here."""
        super().__init__()
        self.layer = layer
        self.rows = 0
        here = [n for n in names if n is not None]
        down = {n: layer.lora_A[n].weight.T for n in here}
        up = {n: layer.lora_B[n].weight.T * layer.scaling[n] for n in here}
        no_down = torch.zeros_like(down[here[0]])
        no_up = torch.zeros_like(up[here[0]])
        self.down = torch.stack([down[n] if n else no_down for n in names]).contiguous()
        self.up = torch.stack([up[n] if n else no_up for n in names]).contiguous()

    def forward(self, states: Tensor) -> Tensor:
        """(shards x rows [+ rows], tokens, in) -> (..., out): shard after shard, those without an
        adapter last."""
        if not self.rows:
            result: Tensor = self.layer(states)
            return result
        made: Tensor = self.layer.base_layer(states)
        shards = len(self.down)
        of_shards = shards * self.rows
        own = states[:of_shards].reshape(
            shards,
            -1,
            states.shape[-1],
        )
        added = torch.bmm(torch.bmm(own, self.down), self.up)
        made[:of_shards] += added.view(of_shards, *made.shape[1:])
        return made


class BatchedShards:
    """Last states of every shard, computed together. Not for two threads at once."""

    def __init__(self, staged: StagedModel, shards: list[ShardStages]) -> None:
        """`shards`: on `staged`, loaded. Replaces the adapted layers in the model by stacked
        ones."""
        self._staged = staged
        self._order = sorted(range(len(shards)), key=lambda i: -shards[i].depth)
        ordered = [shards[i] for i in self._order]
        self._depths = [s.depth for s in ordered]
        blocks = staged.recipe.blocks
        self._first = {depth: min(blocks[depth - 1]) for depth in set(self._depths)}
        self._layers: list[StackedLora] = []
        for block in range(1, max(self._depths) + 1):
            names = [s.names.get(block) for s in ordered if s.depth >= block]
            for module in staged.adapted(next(n for n in names if n)) if any(names) else ():
                parent, _, last = module.rpartition(".")
                stacked = StackedLora(staged.model.get_submodule(module), names)
                setattr(
                    staged.model.get_submodule(parent),
                    last,
                    stacked,
                )
                self._layers.append(stacked)

    def states(self, batch: Batch) -> list[Tensor]:
        """The last states of each shard, in the order given: ids and mask (rows, tokens) -> (rows,
        tokens, hidden)."""
        split, rows = self._staged.split, len(next(iter(batch.values())))
        levels = sorted(self._first, reverse=True)
        lowest = self._first[levels[0]]
        base = split.entering(batch, [lowest])[lowest] if lowest else None
        diverged: list[Tensor] = []
        states = torch.empty(0)
        with self._stacked(rows):
            for i, depth in enumerate(levels):
                new = self._depths.count(depth)
                shallower = sum(d < depth for d in self._depths)
                copies = sum(d >= depth for d in self._depths) + bool(shallower)
                many = {
                    name: tensor.repeat(copies, *[1] * (tensor.dim() - 1))
                    for name, tensor in batch.items()
                }
                entering = (
                    None
                    if base is None
                    else torch.cat([*diverged, *[base] * (new + bool(shallower))])
                )
                if i + 1 == len(levels):
                    states = (
                        split.states(many)
                        if entering is None
                        else split.resumed(
                            many,
                            self._first[depth],
                            entering,
                        )
                    )
                    break
                stop = self._first[levels[i + 1]]
                found = split.entering(
                    many,
                    [stop],
                    self._first[depth],
                    entering,
                )[stop]
                diverged, base = [found[:-rows]], found[-rows:]
        parts = torch.split(states, rows)
        return [parts[self._order.index(i)] for i in range(len(parts))]

    @contextmanager
    def _stacked(self, rows: int) -> Iterator[None]:
        for layer in self._layers:
            layer.rows = rows
        try:
            yield
        finally:
            for layer in self._layers:
                layer.rows = 0
