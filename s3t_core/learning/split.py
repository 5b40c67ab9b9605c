"""A backbone that can be run in part: the layers below one once, those from it on as often as
needed.

Blocks below the one a stage trains are frozen and free of adapters (method.md), so the states that
enter its lowest layer are the same in every epoch, replica and sequence; likewise, when several
shards answer, the layers that none of them adapts. Every layer is asked, each time, whether it
computes or passes its input on; nothing here knows BERT.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from s3t_core.errors import GuaranteeError
from s3t_core.learning.backbone import layer_stack

Batch = dict[str, Tensor]


class SplitBackbone:
    """Runs a model's layers in part. Not for two threads at once."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        layers = list(model.get_submodule(layer_stack(model)).children())
        self.layers = len(layers)
        for index, layer in enumerate(layers):
            layer.forward = partial(self._layer, index, layer.forward)
        self.device = next(model.parameters()).device
        self._as_tuple = False
        self._resumes: bool | None = None
        self._first, self._stop = 0, self.layers
        self._given: Tensor | None = None
        self._wanted: frozenset[int] = frozenset()
        self._found: dict[int, Tensor] = {}

    def states(self, batch: Batch) -> Tensor:
        """The last states of all layers: ids and mask (rows, tokens) -> (rows, tokens, hidden)."""
        self._whole()
        return self._run(batch)

    def entering(
        self,
        batch: Batch,
        layers: Iterable[int],
        first: int = 0,
        states: Tensor | None = None,
    ) -> dict[int, Tensor]:
        """The states that enter each of some layers, (rows, tokens, hidden); nothing above the
        highest is computed, and nothing below `first` where the states that enter that are
        given."""
        self._whole()
        self._first, self._given = first, states
        self._wanted = frozenset(layers)
        self._stop = max(self._wanted)
        self._run(batch)
        found = self._found
        self._whole()
        return found

    def resumed(
        self,
        batch: Batch,
        layer: int,
        states: Tensor,
    ) -> Tensor:
        """The last states, computed from those that enter `layer`: equal to `states(batch)` where
        they are its own."""
        if not self.resumes(batch):
            raise GuaranteeError(
                "expected a backbone whose layers pass on states alone, got one that shares more"
            )
        self._whole()
        self._first, self._given = layer, states.to(self.device)
        result = self._run(batch)
        self._whole()
        return result

    def _run(self, batch: Batch) -> Tensor:
        moved = {name: tensor.to(self.device) for name, tensor in batch.items()}
        result: Tensor = self.model(**moved).last_hidden_state
        return result

    def resumes(self, batch: Batch) -> bool:
        """Whether the backbone can be resumed: tried once, on a row of `batch`, and compared byte
        by byte. A backbone whose layers share more than states (a position bias that the first one
        makes) is always computed whole."""
        if self._resumes is None:
            row = {name: tensor[:1] for name, tensor in batch.items()}
            middle = self.layers // 2
            with torch.no_grad():
                whole = self.states(row)
                self._resumes = True
                try:
                    again = self.resumed(
                        row,
                        middle,
                        self.entering(row, [middle])[middle],
                    )
                    self._resumes = torch.equal(whole, again)
                except (ValueError, TypeError, IndexError, AttributeError):
                    self._resumes = False
                self._whole()
        return self._resumes

    def _whole(self) -> None:
        self._first, self._stop, self._given = 0, self.layers, None
        self._wanted, self._found = frozenset(), {}

    def _layer(self, index: int, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        states = inputs[0] if inputs else named.pop("hidden_states")
        if index in self._wanted:
            self._found[index] = states
        if index < self._first or index >= self._stop:
            return (states,) if self._as_tuple else states
        if index == self._first and self._given is not None:
            states = self._given
        result = forward(states, *inputs[1:], **named)
        self._as_tuple = isinstance(result, tuple)
        return result
