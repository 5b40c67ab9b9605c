"""A backbone larger than its device: what stays on disk, and that no byte of a stage changes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from s3t_core.domain import SliceId
from s3t_core.errors import UsageError
from s3t_core.learning.backbone import find_backbone, load_model
from s3t_core.learning.device_map import DISK, device_map, parse_memory
from s3t_core.learning.ensemble import Ensemble
from s3t_core.learning.replica import StagedModel
from s3t_core.learning.stage import train_stage
from tests.exactness.system import DEVICE, TinySystem, make_slices
from tests.tiny import build_backbone, build_decoder

BUILD = {
    "encoder": (build_backbone, {}),
    "decoder": (build_decoder, {"adapter": {"target_modules": ["q_proj"]}}),
}


HERE = "cpu" if DEVICE == "cpu" else "0"
"""The device that `[runner] max_memory` may name for DEVICE."""


def least(path: Path, lowest: int) -> str:
    """The least memory with which the layers from `lowest` on can be trained through."""
    backbone = find_backbone(str(path))
    for size in range(4, 400, 4):
        try:
            device_map(backbone, f"{HERE}={size}KiB", lowest)
        except UsageError:
            continue
        return f"{HERE}={size}KiB"
    raise AssertionError("no size is enough")


@pytest.mark.parametrize("kind", BUILD)
def test_stages_and_answers_are_the_same_bytes_with_frozen_layers_on_disk(
    tmp_path: Path, kind: str
) -> None:
    build, more = BUILD[kind]
    path, data = build(tmp_path / "b", layers=6), make_slices(1, 3)
    system = TinySystem(path, 1, 3, 1, **more)  # type: ignore[arg-type]
    plan = system.train(data)
    on_disk = {}
    for spec in plan.stages:
        lowest = min(system.recipe.blocks[len(spec.prefix) - 1])
        memory = least(path, lowest)
        on_disk[len(spec.prefix)] = sum(
            d == DISK for d in device_map(system.backbone, memory, lowest).values()
        )
        result = train_stage(
            system.backbone,
            system.recipe,
            spec,
            [data[SliceId(0, s)] for s in spec.prefix],
            [system.artifacts[k] if k else None for k in spec.earlier],
            [],
            max_memory=memory,
        )
        assert result.artifact == system.artifacts[spec.key]
    assert on_disk == {1: 4, 2: 2, 3: 0}
    release = system.release(plan)
    texts = ["w1 w2", "w3 w4 w5"]
    whole = Ensemble(system.backbone, system.recipe, release, system.artifacts.__getitem__)
    placed = Ensemble(
        system.backbone, system.recipe, release, system.artifacts.__getitem__, least(path, 0)
    )
    assert placed.probabilities(texts).equal(whole.probabilities(texts))


def test_layers_that_are_trained_through_must_have_a_device(tmp_path: Path) -> None:
    backbone = find_backbone(str(build_backbone(tmp_path, layers=4)))
    with pytest.raises(UsageError, match="trained through, from 2 on"):
        device_map(backbone, "cpu=4KiB", 2)
    everything = device_map(backbone, "cpu=1GiB", 0)
    assert (
        set(everything.values()) == {"cpu"}
        and {f"encoder.layer.{i}" for i in range(4)} < everything.keys()
    )


def test_gpus_are_filled_from_the_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # planned without one
    backbone = find_backbone(str(build_backbone(tmp_path, layers=4)))
    sizes = {
        d: list(device_map(backbone, f"0={d}KiB,1=1GiB", 0).values()).count(0) for d in (20, 30, 40)
    }
    assert sizes[20] < sizes[30] < sizes[40]
    placed = device_map(backbone, "0=30KiB,1=1GiB", 0)
    layers = [placed[f"encoder.layer.{i}"] for i in range(4)]
    assert layers == sorted(layers, reverse=True) and placed["embeddings"] == 0  # type: ignore[type-var]


@pytest.mark.parametrize(("there", "memory"), [(1, "0=1GiB,1=1GiB"), (2, "0=1GiB,7=1GiB")])
def test_a_gpu_that_is_not_there_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int, memory: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    backbone = find_backbone(str(build_backbone(tmp_path, layers=2)))
    with pytest.raises(UsageError, match=f"GPUs of this machine, 0 to {there - 1}, got "):
        device_map(backbone, memory, 0)


@pytest.mark.skipif(DEVICE != "cpu", reason="it says what is refused beside a CPU's key")
@pytest.mark.parametrize("memory", ["0=1GiB", "0=20KiB,1=1GiB"])
def test_a_stage_is_computed_on_the_device_that_its_key_names(tmp_path: Path, memory: str) -> None:
    path, data = build_backbone(tmp_path / "b", layers=2), make_slices(1, 1)
    system: Any = TinySystem(path, 1, 1, 1)
    [spec] = system.plan(data).stages
    with pytest.raises(UsageError, match="max_memory"):
        train_stage(
            system.backbone, system.recipe, spec, [data[SliceId(0, 0)]], [], [], max_memory=memory
        )
    on_gpu = replace(system.recipe, training={**system.recipe.training, "device": "cuda"})
    with pytest.raises(UsageError, match="max_memory"):
        train_stage(
            system.backbone, on_gpu, spec, [data[SliceId(0, 0)]], [], [], max_memory="cpu=1GiB"
        )


@pytest.mark.parametrize(
    "text", ["8GiB", "cpu=much", "gpu=1GiB", "cpu=1GiB,0=1GiB", "0=1GiB,disk=1GiB", "=1GiB"]
)
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="max_memory"):
        parse_memory(text)


def test_layers_on_disk_are_float32(tmp_path: Path) -> None:
    path = build_backbone(tmp_path, layers=6)
    system: Any = TinySystem(path, 1, 3, 1, "bfloat16")
    devices = device_map(system.backbone, least(path, 4), 4)
    with pytest.raises(UsageError, match="float32"):
        StagedModel(load_model(system.backbone, devices), system.recipe)
