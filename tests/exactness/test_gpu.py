"""What holds on a GPU and on no other device. The guarantee itself is the other modules of this
directory, run on it whole: `make test-gpu`."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flows.adapters.runner import ProcessRunner
from s3t_core.domain import SliceId
from s3t_core.errors import UsageError
from s3t_core.learning.backbone import find_backbone
from s3t_core.learning.fingerprint import fingerprint
from s3t_core.learning.recipe import make_recipe
from s3t_core.learning.stage import numeric_profile, train_stage
from tests.exactness.system import DEVICE, TinySystem, config_for, make_slices
from tests.exactness.test_profile import tiny_job

pytestmark = pytest.mark.skipif(DEVICE != "cuda", reason="needs a GPU: make test-gpu")


def test_a_job_of_its_own_process_gives_the_bytes_of_this_one(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    """Nothing that this process did on the GPU before, and no generator of it, decides a bit."""
    torch.manual_seed(5)
    torch.randn(1000, 1000, device="cuda") @ torch.randn(1000, 1000, device="cuda")
    job = tiny_job(ProcessRunner(), tiny_backbone, tmp_path)
    rows = make_slices(1, 1)[SliceId(0, 0)]
    backbone = find_backbone(str(tiny_backbone))
    here = train_stage(backbone, job.recipe, job.spec, [rows], [], rows)
    apart = [ProcessRunner().train(job) for _ in range(2)]
    assert {outcome.artifact for outcome in apart} == {here.artifact}


def test_the_key_names_the_gpu_and_what_it_computes(tiny_backbone: Path) -> None:
    backbone = find_backbone(str(tiny_backbone))
    gpu, cpu = (numeric_profile(1, device, backbone) for device in ("cuda", "cpu"))
    assert torch.cuda.get_device_name() in gpu.cpu_capability and "cuDNN" in gpu.cpu_capability
    assert gpu.fingerprint == fingerprint(1, "cuda") != cpu.fingerprint
    system = TinySystem(tiny_backbone, 1, 1, 1)
    [spec] = system.plan(make_slices(1, 1)).stages
    on_cpu = replace(system, artifacts={})
    on_cpu.recipe = make_recipe(
        config_for(tiny_backbone, 1, 1, 1),
        str(tiny_backbone),
        backbone.digest,
        backbone.tokenizer_digest,
        backbone.layers,
        cpu,
    )
    [other] = on_cpu.plan(make_slices(1, 1)).stages
    assert spec.key != other.key


def test_frozen_layers_are_multiplied_in_bfloat16_where_the_gpu_does(tiny_backbone: Path) -> None:
    low = torch.cuda.get_device_capability() >= (8, 0)
    system = TinySystem(tiny_backbone, 1, 1, 1, "auto")
    assert system.recipe.training["dtype"] == ("bfloat16" if low else "float32")


def test_a_gpu_that_this_machine_has_not_is_told(tiny_backbone: Path) -> None:
    system = TinySystem(tiny_backbone, 1, 1, 1)
    [spec] = system.plan(make_slices(1, 1)).stages
    rows = make_slices(1, 1)[SliceId(0, 0)]
    there = torch.cuda.device_count()
    with pytest.raises(UsageError, match="GPUs of this machine"):
        train_stage(
            system.backbone,
            system.recipe,
            spec,
            [rows],
            [],
            [],
            max_memory=f"{there}=1GiB",
        )
