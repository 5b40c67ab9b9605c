"""Lower precision where it pays: the frozen linear layers in bfloat16, everything else in float32.

Attention, normalisation, adapters and heads stay in float32: on CPUs the bfloat16 attention
backward costs more than it saves (facts about torch 2.13), and what is trained keeps its precision.
"""

import torch
from torch import Tensor

from s3t_core.learning.backbone import layer_stack


class LowPrecisionLinear(torch.nn.Linear):
    """A frozen linear layer that multiplies in bfloat16: float32 in, float32 out. Its float32
    weight stays as it is."""

    low: Tensor

    @classmethod
    def of(cls, linear: torch.nn.Linear) -> "LowPrecisionLinear":
        """The same layer in low precision; the weight is shared, not copied."""
        made = cls(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            device="meta",
        )
        made.weight, made.bias = linear.weight, linear.bias
        made.register_buffer(
            "low",
            linear.weight.detach().to(torch.bfloat16),
            persistent=False,
        )
        return made

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out), float32."""
        result = torch.nn.functional.linear(input.to(torch.bfloat16), self.low).to(torch.float32)
        return result if self.bias is None else result + self.bias


def lower_precision(model: torch.nn.Module) -> None:
    """Make every linear layer of the backbone's stack a LowPrecisionLinear."""
    stack = model.get_submodule(layer_stack(model))
    for name, module in list(stack.named_modules()):
        if type(module) is torch.nn.Linear:
            parent, _, last = name.rpartition(".")
            setattr(
                stack.get_submodule(parent),
                last,
                LowPrecisionLinear.of(module),
            )
