"""Where a backbone's layers lie when it is larger than one device (Hugging Face accelerate carries
it out).

1. Given is what each device may hold of the backbone, `max_memory`: "0=20GiB,1=20GiB" for GPUs by
   number, "cpu=8GiB" for a machine without. What is not a layer (embeddings, norms) goes to the
   first.
2. Layers are placed from the top down. Those that a stage trains through, and those with adapters
   on them, must have a device; the frozen ones below stay on disk, as safetensors, and are read in
   the one pass that each slice takes through them (learning.activations). So a shallow stage trains
   where the whole backbone would not fit.
3. Every GPU must be of one kind: a layer computes the same bits wherever it lies.

Placement changes no byte of a stage, so it is no part of its key.
"""

from typing import Any

import torch
from accelerate import init_empty_weights
from accelerate.utils import compute_module_sizes, convert_file_size_to_int
from transformers import AutoModel

from s3t_core.errors import GuaranteeError, UsageError
from s3t_core.learning.backbone import Backbone, layer_stack, load_settings

DISK = "disk"
Device = int | str


def parse_memory(text: str) -> dict[Device, int]:
    """Bytes per device, in the order given. Raises UsageError."""
    found: dict[Device, int] = {}
    try:
        for part in text.split(","):
            device, _, size = part.strip().partition("=")
            found[int(device) if device.isdecimal() else device] = convert_file_size_to_int(size)
        if {type(d) for d in found} != {int} and list(found) != ["cpu"]:
            raise ValueError
    except ValueError:
        raise UsageError(
            'expected [runner] max_memory as "cpu=8GiB", or "0=20GiB,1=20GiB" for GPUs, got '
            "another text"
        ) from None
    return found


def check_device(max_memory: str, device: str) -> None:
    """That a stage is computed on the kind of device that stands in its key: layers on another one
    would be computed by other kernels under an equal key. `device`: of the recipe, "cpu" or "cuda".
    Raises UsageError."""
    given = parse_memory(max_memory) if max_memory else {}
    if any((each == "cpu") != (device == "cpu") for each in given):
        raise UsageError(
            f'expected [runner] max_memory to name what [training] device = "{device}" does, got '
            f'{", ".join(map(repr, given))}; name GPUs by number with "cuda", "cpu=8GiB" with '
            '"cpu"'
        )


def device_map(
    backbone: Backbone,
    max_memory: str,
    lowest: int,
) -> dict[str, Device]:
    """Module name to device, for a float32 backbone whose layers from `lowest` on need one; empty
    when `max_memory` is: all on one device. Raises UsageError when these do not fit, GuaranteeError
    for GPUs of several kinds."""
    if not max_memory:
        return {}
    room = parse_memory(max_memory)
    _check_gpus([d for d in room if isinstance(d, int)])
    with init_empty_weights():
        model = AutoModel.from_config(load_settings(backbone.path), dtype=torch.float32)
    stack = layer_stack(model)
    sizes = compute_module_sizes(model, dtype=torch.float32)
    devices = list(room)
    placed: dict[str, Device] = dict.fromkeys(_beside(model, stack), devices[0])
    room[devices[0]] -= sum(sizes[name] for name in placed)
    at = 0
    for index in range(backbone.layers - 1, -1, -1):
        name = f"{stack}.{index}"
        while at < len(devices) and room[devices[at]] < sizes[name]:
            at += 1
        if at == len(devices) and index >= lowest:
            trained = [f"{stack}.{i}" for i in range(lowest, backbone.layers)]
            needed = sum(sizes[n] for n in (*trained, *_beside(model, stack)))
            raise UsageError(
                "expected [runner] max_memory to hold the layers that are trained through, from "
                f"{lowest} on, {needed / 2**20:,.0f} MiB in all, got less; give it more, or lower "
                "the depth with [system] slices"
            )
        placed[name] = DISK if at == len(devices) else devices[at]
        if at < len(devices):
            room[devices[at]] -= sizes[name]
    return placed


def _beside(model: torch.nn.Module, stack: str) -> list[str]:
    """The largest modules and the single parameters that hold none of the stack's layers."""
    names: list[str] = []
    for name, module in model.named_modules():
        inside = (
            any(name.startswith(f"{n}.") for n in names)
            or name == stack
            or name.startswith(f"{stack}.")
        )
        if name and not inside and not stack.startswith(f"{name}."):
            names.append(name)
        if not inside or not name:
            prefix = f"{name}." if name else ""
            own = [f"{prefix}{n}" for n, _ in module.named_parameters(recurse=False)]
            known = tuple(f"{n}." for n in names)
            names += [parameter for parameter in own if not parameter.startswith(known)]
    return names


def _check_gpus(gpus: list[int]) -> None:
    """That they are there, on a machine that has any, and of one kind."""
    if not gpus or not torch.cuda.is_available():
        return
    there = torch.cuda.device_count()
    if max(gpus) >= there:
        raise UsageError(
            f"expected [runner] max_memory to name GPUs of this machine, 0 to {there - 1}, got "
            f"{max(gpus)}; leave it out, or show this process more of them"
        )
    kinds: set[Any] = {torch.cuda.get_device_name(g) for g in gpus}
    if len(kinds) > 1:
        raise GuaranteeError(
            f"expected GPUs of one kind in [runner] max_memory, got {', '.join(sorted(kinds))}: a "
            "layer would compute other bits where it lies elsewhere"
        )
