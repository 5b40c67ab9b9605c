"""Train one stage (method.md, "Training a replica").

1. Load the backbone; the states that enter block i's lowest layer, frozen and without adapters,
   come from `activations`: once per row, whatever the number of epochs, sequences and replicas.
   Attach stages 1..i-1 from their artifacts, frozen and active.
2. Seed from the shard and the slices seen, so that nothing else decides the draws (hazard 9).
3. Attach a fresh adapter on block i and a fresh head; they alone train (asserted).
4. A fixed number of epochs over slices 1..i, which nothing stops early, with a fresh optimizer
   (hazards 8, 10); batches are laid out from these rows alone.
5. Save adapter and head as one immutable safetensors artifact.
"""

import math
import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from s3t_core.domain import Score
from s3t_core.errors import TrainingError, UsageError
from s3t_core.learning.activations import Activations
from s3t_core.learning.backbone import Backbone, is_vision, tokenizer_code
from s3t_core.learning.device_map import check_device, device_map
from s3t_core.learning.encoding import Encoded, Reader, encode, in_order, load_reader
from s3t_core.learning.fingerprint import fingerprint, keep_denormals
from s3t_core.learning.recipe import NumericProfile, Recipe, StageSpec
from s3t_core.learning.replica import StagedModel, load_staged
from s3t_core.learning.tasks.task import Prediction
from s3t_core.records import Row

_POOL_BATCHES = (
    16  # rows are sorted by length within pools of so many batches: little padding, still shuffled
)
_WARM_UP = 0.1
_WEIGHT_DECAY = 0.01
COMPUTED = Activations()
"""Frozen states that nothing keeps."""


@dataclass(frozen=True)
class StageResult:
    """A trained stage: its artifact, mean loss of the last epoch, and score at its depth on the
    held-out rows, None when nothing is held out. `steps` counts optimizer steps; `losses`: the mean
    loss of the rows of each."""

    artifact: bytes
    loss: float
    score: Score | None
    steps: int
    losses: tuple[float, ...] = ()


def numeric_profile(
    threads: int,
    device: str,
    backbone: Backbone,
) -> NumericProfile:
    """The profile of this process, with stages trained on `threads` threads. Raises UsageError
    without the device."""
    import accelerate
    import numpy
    import peft
    import safetensors
    import transformers

    return NumericProfile(
        torch=str(torch.__version__),
        transformers=transformers.__version__,
        peft=peft.__version__,
        cpu_capability=_capability(device),
        threads=threads,
        bfloat16=_multiplies_in_bfloat16(device),
        tokenizers=tokenizer_code(backbone),
        pillow=_pillow(is_vision(backbone)),
        safetensors=safetensors.__version__,
        numpy=numpy.__version__,
        accelerate=accelerate.__version__,
        cpu_vendor=_vendor(),
        fingerprint=fingerprint(threads, device),
    )


def _pillow(reads_images: bool) -> str:
    """The version of what reads images, and of the libraries that it was built with where images
    are read: the same Pillow decodes a JPEG to other pixels with another one."""
    import PIL
    from PIL import features

    parts = [str(PIL.__version__)]
    for name in ("jpg", "zlib") if reads_images else ():
        parts.append(f"{name} {features.version(name)}")
    if reads_images:
        parts.append(f"turbo {features.version('libjpeg_turbo')}")
    return ", ".join(parts)


def _vendor() -> str:
    """The maker of the CPU as Linux names it, "" where nothing tells it."""
    try:
        lines = (
            Path("/proc/cpuinfo")
            .read_text(
                encoding="utf-8",
                errors="replace",
            )
            .splitlines()
        )
    except OSError:
        return ""
    found = [
        line.partition(":")[2].strip()
        for line in lines
        if line.startswith(("vendor_id", "CPU implementer"))
    ]
    return found[0] if found else ""


def _capability(device: str) -> str:
    cpu = str(torch.backends.cpu.get_cpu_capability())
    if device == "cpu":
        return cpu
    if not torch.cuda.is_available():
        raise UsageError(
            f'expected a device that torch can use, got none for [training] device = "{device}"; '
            'set it to "cpu", or install torch with CUDA on a machine that has it'
        )
    parts = [
        torch.cuda.get_device_name(),
        f"CUDA {torch.version.cuda}",
        f"cuDNN {torch.backends.cudnn.version()}",  # type: ignore[no-untyped-call]
        cpu,
    ]
    return ", ".join(parts)


def _multiplies_in_bfloat16(device: str) -> bool:
    """Whether the hardware does: without, it takes longer than float32."""
    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported())
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def train_stage(
    backbone: Backbone,
    recipe: Recipe,
    spec: StageSpec,
    slices: list[list[Row]],
    earlier: list[bytes | None],
    held_out: list[Row],
    activations: Activations = COMPUTED,
    held_out_digest: str = "",
    max_memory: str = "",
    metric: str = "",
) -> StageResult:
    """Train the stage `spec` on `slices` (those of its prefix, in order) on top of `earlier`
    artifacts (None: void).

    `activations`: where the frozen states below the block come from; `max_memory`: what devices may
    hold of the backbone (learning.device_map); `metric`: by which it is measured, "" for the task's
    first. They change no byte of the artifact. Raises
    TrainingError when the loss is not finite, UsageError where `max_memory` names other devices
    than the recipe.
    """
    torch.set_num_threads(recipe.profile.threads)
    torch.use_deterministic_algorithms(True)
    keep_denormals()
    check_device(max_memory, recipe.training["device"])
    lowest = min(recipe.blocks[len(spec.prefix) - 1])
    devices = device_map(backbone, max_memory, lowest)
    staged = load_staged(backbone, recipe, devices)
    reader = _StageReader(staged, load_reader(backbone, recipe), activations, lowest)
    parts = [
        (rows, reader.read(digest, rows))
        for digest, rows in zip(spec.slice_digests, map(sorted, slices), strict=True)
    ]  # before any adapter is there
    held_out = sorted(held_out)
    measured = reader.read(held_out_digest, held_out) if held_out else None
    names = []
    for block, artifact in enumerate(earlier, start=1):
        if artifact is not None:
            names.append(f"stage{block}")
            staged.load(names[-1], block, artifact)
    block = len(spec.prefix)
    name = f"stage{block}"
    seed = recipe.seed(spec.shard, spec.prefix)
    torch.manual_seed(seed)
    staged.attach(name, block)
    staged.activate([*names, name])
    rows = in_order(parts, reader.reader, staged.task)
    loss, losses = _fit(staged, name, rows, seed, reader.layer)
    staged.model.requires_grad_(False)
    score = None
    if measured:
        answers = _answers(staged, name, measured, reader.layer)
        score = staged.task.score(answers, held_out, metric)
    return StageResult(staged.dump(name), loss, score, len(losses), losses)


class _StageReader:
    """Rows to items, targets and the frozen states that enter `layer`."""

    def __init__(
        self,
        staged: StagedModel,
        reader: Reader,
        activations: Activations,
        layer: int,
    ) -> None:
        self.layer = layer
        self.reader = reader
        self._staged = staged
        self._activations = activations

    def read(self, slice_digest: str, rows: list[Row]) -> Encoded:
        """The rows of one slice, in the order given."""
        encoded = encode(
            self.reader,
            rows,
            self._staged.task,
        )
        split = self._staged.split
        if not rows or self.layer == 0:
            return encoded
        one, *_ = encoded.batch([0])
        if not split.resumes(one):
            return encoded
        found = self._activations.of_slice(
            split, self._staged.recipe, slice_digest, encoded, self.layer
        )
        return replace(encoded, states=[found.row(i) for i in range(len(rows))])


def batch_layout(
    lengths: list[int],
    batch_size: int,
    generator: random.Random,
) -> list[list[int]]:
    """One epoch's batches as row indices: shuffled, with rows of like length together. Depends on
    these rows alone."""
    order = list(range(len(lengths)))
    generator.shuffle(order)
    pool = batch_size * _POOL_BATCHES
    batches = []
    for start in range(0, len(order), pool):
        part = sorted(order[start : start + pool], key=lambda i: lengths[i])
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    generator.shuffle(batches)
    return batches


def _fit(
    staged: StagedModel,
    name: str,
    rows: Encoded,
    seed: int,
    layer: int,
) -> tuple[float, tuple[float, ...]]:
    """The mean loss of the last epoch's rows, and that of each step's."""
    training = staged.recipe.training
    parameters = staged.trainable(name)
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p for n, p in parameters.items() if not n.startswith("head.")],
                "lr": training["learning_rate"],
            },
            {
                "params": [p for n, p in parameters.items() if n.startswith("head.")],
                "lr": training["head_learning_rate"],
            },
        ],
        weight_decay=_WEIGHT_DECAY,
    )
    per_epoch = math.ceil(len(rows.targets) / training["batch_size"])
    total = per_epoch * training["epochs"]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total))
    generator = random.Random(seed)
    losses: list[float] = []
    curve: list[float] = []
    for _ in range(training["epochs"]):
        losses = []
        for indices in batch_layout(
            rows.lengths,
            training["batch_size"],
            generator,
        ):
            batch, states, targets = rows.batch(indices)
            made = staged.logits(name, batch, layer, states)
            loss = staged.task.loss(made, targets.to(staged.split.device))
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"expected a finite loss, got {loss.item()} at block "
                    f"{name.removeprefix('stage')}; lower [training] learning_rate"
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            curve.append(loss.item())
            losses.append(curve[-1] * len(indices))
    return sum(losses) / len(rows.targets), tuple(curve)


def _rate(step: int, total: int) -> float:
    """Share of the peak rate at `step`: 10% linear warm-up, then linear decay to zero."""
    warm_up = max(1, int(total * _WARM_UP))
    if step < warm_up:
        return (step + 1) / warm_up
    return max(0.0, (total - step) / max(1, total - warm_up))


@torch.inference_mode()
def _answers(
    staged: StagedModel,
    name: str,
    rows: Encoded,
    layer: int,
) -> list[Prediction]:
    """What the stage answers to each row, in their order."""
    order = sorted(range(len(rows.targets)), key=lambda i: rows.lengths[i])
    answers: dict[int, Prediction] = {}
    many = 8 if staged.words is not None else 32  # a vocabulary a place is large
    for start in range(0, len(order), many):
        chosen = order[start : start + many]
        batch, states, targets = rows.batch(chosen)
        made = staged.logits(name, batch, layer, states)
        voted = staged.task.vote(made, targets.to(made.device)).cpu()
        answers |= dict(
            zip(
                chosen,
                staged.task.answers(voted, targets),
                strict=True,
            )
        )
    return [answers[i] for i in range(len(order))]
