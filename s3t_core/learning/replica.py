"""A backbone with stages on it: attach, load, silence and save the adapter and head of single
stages.

The model at depth d is backbone + adapters 1..d + head d (method.md). Adapters of different stages
sit on different layers, so several are active at once; nothing that is kept has them merged into
weights (hazard 11; learning.merged makes a model to answer with). Heads live outside peft, one per
stage (hazard 2). Attaching a stage never touches another's weights (hazard 3).
"""

import warnings
from collections.abc import Iterator, Mapping

import torch
from peft import get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from s3t_core.errors import ArtifactError, GuaranteeError, UsageError
from s3t_core.learning.adapters import adapter_config
from s3t_core.learning.backbone import (
    Backbone,
    load_language_model,
    load_model,
    modules_in_layers,
)
from s3t_core.learning.precision import lower_precision
from s3t_core.learning.recipe import Recipe
from s3t_core.learning.repeating import check_repeats_itself
from s3t_core.learning.split import Batch, SplitBackbone
from s3t_core.learning.tasks import task_of, writes_text

_HEAD = "head."
_ADAPTER = "adapter."


class StagedModel:
    """One backbone that stages of one or more replicas are attached to, by name."""

    def __init__(
        self,
        model: torch.nn.Module,
        recipe: Recipe,
        words: torch.nn.Module | None = None,
    ) -> None:
        """`words`: the head of a language model, which no stage changes (`load_language_model`)."""
        placed = getattr(model, "hf_device_map", {})
        if recipe.training["dtype"] == "bfloat16":
            if "disk" in placed.values():
                raise UsageError(
                    'expected [training] dtype = "float32" for a backbone of which layers stay on '
                    "disk, got bfloat16; set it, or give [runner] max_memory more"
                )
            lower_precision(model)
        self.model = model if placed else model.to(torch.device(recipe.training["device"]))
        self.split = SplitBackbone(self.model)
        self.recipe = recipe
        self.task = task_of(recipe, words)
        self.words = words.to(self.split.device) if words is not None else None
        self.hidden = int(model.config.hidden_size)  # type: ignore[union-attr,arg-type]
        self.heads = torch.nn.ModuleDict()
        self._adapted: dict[str, list[str]] = {}

    def attach(self, name: str, block: int) -> None:
        """A fresh adapter (a no-op) on block `block` (from 1) and a fresh head of the task's, both
        frozen."""
        adapter = self.recipe.adapter
        targets = modules_in_layers(
            self.model, self.recipe.blocks[block - 1], tuple(adapter["target_modules"])
        )
        config = adapter_config(adapter, targets)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # peft warns of several adapters: here that is the point
            inject_adapter_in_model(
                config,
                self.model,
                adapter_name=name,
            )
        self.heads[name] = self.task.head(self.hidden).to(self.split.device)
        self._adapted[name] = targets
        self.model.requires_grad_(False)
        self.heads.requires_grad_(False)
        self.model.eval()

    def load(
        self,
        name: str,
        block: int,
        artifact: bytes,
    ) -> None:
        """Attach a trained stage. Raises ArtifactError unless it holds exactly the tensors the
        stage has."""
        self.attach(name, block)
        tensors = load_tensors(artifact)
        expected = self.tensors(name)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if shapes != {name: tensor.shape for name, tensor in expected.items()}:
            raise ArtifactError(
                f"expected the {len(expected)} tensors of a stage of block {block}, got others; "
                "the artifact belongs to another config"
            )
        adapter = {
            k.removeprefix(_ADAPTER): v for k, v in tensors.items() if k.startswith(_ADAPTER)
        }
        set_peft_model_state_dict(
            self.model,
            adapter,
            adapter_name=name,
        )
        head = {k.removeprefix(_HEAD): v for k, v in tensors.items() if k.startswith(_HEAD)}
        self.heads[name].load_state_dict(head)
        if self.dump(name) != save_tensors(tensors):
            raise GuaranteeError(
                "expected a loaded stage to equal its artifact byte for byte, got other values; "
                "this peft version does not restore adapters exactly"
            )

    def activate(self, names: list[str]) -> None:
        """Exactly these adapters answer, every other is off. Changes no weight."""
        wanted = set(names)
        for layer in self._tuner_layers():
            layer.set_adapter([a for a in adapters_of(layer) if a in wanted])
        self.model.requires_grad_(False)

    def trainable(self, name: str) -> dict[str, torch.nn.Parameter]:
        """Make the stage `name`, and nothing else, trainable; returns its parameters by name.

        Raises GuaranteeError when the trainable set is not exactly the adapter tensors of its block
        and its head.
        """
        marker = f".{name}."
        for parameter_name, parameter in self.model.named_parameters():
            parameter.requires_grad_(marker in f".{parameter_name}.")
        self.heads[name].requires_grad_(True)
        chosen = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        chosen |= {f"{_HEAD}{n}": p for n, p in self.heads[name].named_parameters()}
        inside = tuple(f"{module}." for module in self._adapted[name])
        strange = [n for n in chosen if not n.startswith(("head.", *inside))]
        if strange or len(chosen) != len(self.tensors(name)):
            raise GuaranteeError(
                f"expected exactly the {len(self.tensors(name))} tensors of the stage to train, "
                f"got {len(chosen)}, {len(strange)} of them elsewhere"
            )
        return chosen

    def logits(
        self,
        name: str,
        batch: Batch,
        layer: int = 0,
        entering: Tensor | None = None,
    ) -> Tensor:
        """What the head `name` makes under the active adapters: ids and mask (rows, tokens) ->
        (rows, outputs). With the states that enter `layer`, (rows, tokens, hidden), what lies below
        it is not computed again."""
        states = (
            self.split.states(batch)
            if entering is None
            else self.split.resumed(batch, layer, entering)
        )
        return self.classify(name, states, batch)

    def classify(
        self,
        name: str,
        states: Tensor,
        batch: Batch,
    ) -> Tensor:
        """What the head `name` makes of the last states of a batch: (rows, tokens, hidden) ->
        (rows, outputs). The states as they are where the language model's own head answers."""
        if self.words is not None:
            return states
        mask = batch.get("attention_mask", torch.ones(states.shape[:2], dtype=torch.long))
        features = pool(
            states,
            mask.to(states.device),
            self.recipe.training["pooling"],
        )
        result: Tensor = self.heads[name](features)
        return result

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The stage's tensors by their names in the artifact, float32, shapes as in peft and
        `nn.Linear`."""
        adapter = get_peft_model_state_dict(self.model, adapter_name=name)
        state = {f"{_ADAPTER}{k}": v for k, v in adapter.items()}
        head = self.heads[name].state_dict()
        state |= {f"{_HEAD}{k}": v for k, v in head.items()}
        return {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in state.items()}

    def dump(self, name: str) -> bytes:
        """The stage as safetensors bytes: equal weights, equal bytes."""
        data: bytes = save_tensors(self.tensors(name))
        return data

    def adapted(self, name: str) -> list[str]:
        """The exact names of the modules that the stage `name` adapts."""
        return list(self._adapted[name])

    def _tuner_layers(self) -> Iterator[BaseTunerLayer]:
        return (m for m in self.model.modules() if isinstance(m, BaseTunerLayer))


def load_staged(
    backbone: Backbone,
    recipe: Recipe,
    devices: Mapping[str, int | str] | None = None,
) -> StagedModel:
    """The recipe's backbone, ready for stages; a language model with its own head where the task
    needs it. `devices`: as `load_model` takes them. Raises UsageError."""
    if not writes_text(recipe):
        model = load_model(backbone, devices)
        check_repeats_itself(model, recipe.max_length)
        return StagedModel(model, recipe)
    model, words = load_language_model(backbone)
    check_repeats_itself(model, recipe.max_length)
    return StagedModel(model, recipe, words)


def adapters_of(layer: BaseTunerLayer) -> list[str]:
    """Names of the adapters on a layer."""
    return list(
        dict.fromkeys(
            name for attribute in layer.adapter_layer_names for name in getattr(layer, attribute)
        )
    )


def pool(
    states: Tensor,
    mask: Tensor,
    pooling: str,
) -> Tensor:
    """(rows, tokens, hidden) -> (rows, hidden)."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        rows = torch.arange(len(states), device=states.device)
        return states[rows, mask.sum(1) - 1]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
