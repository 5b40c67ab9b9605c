"""All live shards as one model, which answers at the price of one.

Every weight is the pristine backbone's plus the mean, over the live shards, of what their stages
add to it; a shard without a live stage on a block adds nothing there, and the divisor stays the
number of live shards. The head is the mean of the heads that answer, bias and all. Weight averaging
of models that were fine-tuned from one (Wortsman et al., "Model soups", arXiv 2203.05482); nothing
here is computed from records (hazard 7).

Made in memory from live stages at each load, never stored, and never subtracted from: so it is as
exact as they are (hazard 11 is about weights that are kept). Sums are float64, rounded once.
"""

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from s3t_core.errors import GuaranteeError
from s3t_core.learning.batched_shards import ShardStages
from s3t_core.learning.replica import StagedModel, adapters_of

HEAD = "merged"
"""The name of the head that answers for all shards."""


@torch.no_grad()
def merge_shards(staged: StagedModel, shards: list[ShardStages]) -> None:
    """Put every adapter on `staged` into the weights below it, and take it off; add the head
    `HEAD`. `staged` is a float32 model on which exactly the stages of `shards` are loaded, of which
    there is at least one. Raises GuaranteeError for a stage of anybody else's."""
    ours = {name for shard in shards for name in shard.names.values()}
    for module, layer in list(staged.model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            strange = set(adapters_of(layer)) - ours
            if strange:
                raise GuaranteeError(
                    f"expected the adapters of live shards alone, got {len(strange)} other(s)"
                )
            parent, _, last = module.rpartition(".")
            plain = _with_mean_update(
                layer,
                adapters_of(layer),
                len(shards),
            )
            setattr(
                staged.model.get_submodule(parent),
                last,
                plain,
            )
    head = staged.task.head(staged.hidden).to(staged.split.device)
    given = [staged.heads[shard.head].state_dict() for shard in shards]
    head.load_state_dict({name: _mean([each[name] for each in given]) for name in given[0]})
    for name in ours:
        del staged.heads[name]
    staged.heads[HEAD] = head.requires_grad_(False)


def _with_mean_update(
    layer: BaseTunerLayer,
    names: list[str],
    shards: int,
) -> torch.nn.Module:
    """The layer below, whose weights are its own plus the sum of the adapters' updates over
    `shards`."""
    layer.double()
    below: torch.nn.Module = layer.get_base_layer()
    own = {name: tensor.detach().clone() for name, tensor in below.named_parameters()}
    added = {name: torch.zeros_like(tensor) for name, tensor in own.items()}
    for name in names:
        layer.merge(
            adapter_names=[name],
            safe_merge=True,
        )  # peft knows how each kind is applied
        for which, tensor in below.named_parameters():
            added[which] += tensor.detach() - own[which]
            tensor.data = own[which].clone()
        layer.merged_adapters.clear()
    for which, tensor in below.named_parameters():
        tensor.data = own[which] + added[which] / shards
    return below.float().requires_grad_(False)


def _mean(tensors: list[Tensor]) -> Tensor:
    return (torch.stack([t.double() for t in tensors]).sum(0) / len(tensors)).float()
