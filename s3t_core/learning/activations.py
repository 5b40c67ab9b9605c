"""Frozen activations: the states that enter a stage's lowest layer, computed once per slice and
kept.

1. What lies below the block that a stage trains is frozen and free of adapters, so a row's states
   there are the same in every epoch, sequence and replica. They are computed in batches of one
   slice's rows only (hazard 13: a row's last bits depend on its neighbours' padding), so they
   belong to the slice's digest and go with it (activation_store).
2. Where nothing is kept they are computed the same way, so the bytes of a stage are the same: in
   memory, or beyond a bound in a file without a name, which is gone with the process.
"""

import os
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from s3t_core import METHOD_VERSION
from s3t_core.canonical import digest_of
from s3t_core.files import TEMPORARY_PREFIX, own_file
from s3t_core.learning.activation_store import ActivationStore
from s3t_core.learning.encoding import Encoded, TextReader
from s3t_core.learning.recipe import Recipe
from s3t_core.learning.split import SplitBackbone

_BATCH = 32
_MEMORY_BYTES = 512 * 2**20
"""States of one slice beyond this lie in a file without a name while they are used."""


@dataclass(frozen=True)
class RowStates:
    """States of rows at one layer: `flat` (tokens of all rows, hidden) float32; row i from
    offsets[i]."""

    flat: Tensor
    offsets: list[int]

    def row(self, index: int) -> Tensor:
        """(tokens, hidden) of one row."""
        return self.flat[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Activations:
    """How a stage comes by its rows' states: from a store, which may keep nothing, or computed.
    `seals_later`: what is kept counts from `seal` on, when it is known that what computed it was
    what its key says."""

    store: ActivationStore | None = None
    memory_bytes: int = _MEMORY_BYTES
    spill: Path | None = None
    seals_later: bool = False
    _unsealed: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def of_slice(
        self,
        split: SplitBackbone,
        recipe: Recipe,
        slice_digest: str,
        rows: Encoded,
        layer: int,
    ) -> RowStates:
        """The states of a slice's rows (in their order) that enter `layer`. What is computed for
        one stage is kept for those of other blocks too: one pass gives the states at every block.
        Raises StorageError."""
        key = states_key(
            recipe,
            slice_digest,
            layer,
            len(rows.items),
        )
        found = self._kept(slice_digest, key)
        if found is not None:
            return found
        layers = {layer}
        if self.store is not None and self.store.keeps(slice_digest):
            layers |= {min(block) for block in recipe.blocks} - {0}
        computed = self._compute(split, rows, layers)
        if self.store is not None:
            for at, states in computed.items():
                seal = self.store.put(
                    slice_digest,
                    states_key(
                        recipe,
                        slice_digest,
                        at,
                        len(rows.items),
                    ),
                    states.flat.numel() * 4,
                    partial(_save, states),
                    partial(_is, states),
                )
                if seal is not None:
                    self._unsealed.append(seal)
        if not self.seals_later:
            self.seal()
        return computed[layer]

    def seal(self) -> None:
        """Let what was kept count: what computed it is what it should have been. Raises
        StorageError."""
        while self._unsealed:
            self._unsealed.pop()()

    def _kept(self, slice_digest: str, key: str) -> RowStates | None:
        """What was kept, from a copy of this process's own: what the seal is of is what trains."""
        if self.store is None:
            return None
        try:
            with own_file(self._spilled()) as (own, place):
                if not self.store.copy(slice_digest, key, own):
                    return None
                with safe_open(place, framework="pt") as tensors:
                    return RowStates(
                        tensors.get_tensor("states"), tensors.get_tensor("offsets").tolist()
                    )
        except (OSError, SafetensorError):
            return None  # no room for it, or no such file: it is computed again

    def _spilled(self) -> Path | None:
        """Where files without a name are made."""
        if self.spill is not None:
            self.spill.mkdir(
                parents=True,
                exist_ok=True,
            )
        return self.spill

    @torch.no_grad()
    def _compute(
        self,
        split: SplitBackbone,
        rows: Encoded,
        layers: Collection[int],
    ) -> dict[int, RowStates]:
        """Batches of rows of like length, of this slice alone."""
        hidden = int(split.model.config.hidden_size)  # type: ignore[union-attr,arg-type]
        lengths = _positions(split, rows)
        offsets = [0]
        for length in lengths:
            offsets.append(offsets[-1] + length)
        found = {
            at: RowStates(
                self._room(
                    offsets[-1],
                    hidden,
                    len(layers),
                ),
                offsets,
            )
            for at in layers
        }
        order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
        for begin in range(0, len(order), _BATCH):
            chosen = order[begin : begin + _BATCH]
            for at, states in split.entering(rows.batch(chosen)[0], layers).items():
                for place, i in enumerate(chosen):
                    found[at].row(i).copy_(states[place, : lengths[i]])
        return found

    def _room(
        self,
        rows: int,
        hidden: int,
        share: int,
    ) -> Tensor:
        """(rows, hidden) float32: in memory, or, when it is larger than that, in a file that has no
        name any more."""
        if rows * hidden * 4 * share <= self.memory_bytes:
            return torch.empty(rows, hidden)
        descriptor, name = tempfile.mkstemp(
            dir=self._spilled(),
            prefix=TEMPORARY_PREFIX,
        )
        try:
            os.truncate(descriptor, rows * hidden * 4)
            return torch.from_file(
                name,
                shared=True,
                size=rows * hidden,
                dtype=torch.float32,
            ).view(rows, hidden)
        finally:
            os.close(descriptor)
            Path(name).unlink(missing_ok=True)


def _positions(split: SplitBackbone, rows: Encoded) -> list[int]:
    """Per row, how many states it has: its tokens, or, for images, what the backbone makes of
    one."""
    if isinstance(rows.reader, TextReader):
        return rows.lengths
    first, *_ = rows.batch([0])
    states = split.entering(first, [1])[1]
    return [states.shape[1]] * len(rows.items)


def states_key(
    recipe: Recipe,
    slice_digest: str,
    layer: int,
    rows: int,
) -> str:
    """What decides the bits of a slice's states, hashed. `rows`: how many of the slice's rows, the
    first ones."""
    task = {"task": dict(recipe.task)} if recipe.task else {}
    return digest_of(
        {
            **task,
            "method": METHOD_VERSION,
            "slice": slice_digest,
            "rows": rows,
            "layer": layer,
            "backbone": recipe.backbone_digest,
            "tokenizer": recipe.tokenizer_digest,
            "max_length": recipe.max_length,
            "dtype": recipe.training["dtype"],
            "batch": _BATCH,
            "profile": vars(recipe.profile),
        }
    )


def _save(states: RowStates, path: Path) -> None:
    try:
        save_file({"states": states.flat, "offsets": torch.tensor(states.offsets)}, path)
    except SafetensorError as error:  # no room, say
        raise OSError(f"safetensors: {type(error).__name__}") from None


def _is(states: RowStates, path: Path) -> bool:
    with safe_open(path, framework="pt") as tensors:
        same = torch.equal(tensors.get_tensor("states"), states.flat)
        return same and tensors.get_tensor("offsets").tolist() == states.offsets
