"""All live shards as one model: its weights are the backbone's and the mean of the shards' updates,
and it is as exact as the stages that it is made of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from s3t_core.domain import Release, SliceId
from s3t_core.errors import GuaranteeError, NoLiveShard, UsageError
from s3t_core.learning.backbone import load_model
from s3t_core.learning.batched_shards import ShardStages
from s3t_core.learning.ensemble import Ensemble
from s3t_core.learning.merged import merge_shards
from s3t_core.learning.recipe import in_float32
from s3t_core.learning.replica import StagedModel
from tests.exactness.system import TinySystem
from tests.exactness.test_kinds import (
    CASES,
    SHARDS,
    SLICES,
    _data,
    _system,
    _texts,
    folders,
    precision,
    trained,
)

__all__ = ["folders", "precision", "trained"]

Trained = Callable[[str, str], TinySystem]


def _merged(system: TinySystem, release: Release) -> Ensemble:
    return Ensemble(
        system.backbone,
        system.recipe,
        release,
        system.artifacts.__getitem__,
        combine="merged",
    )


def _votes(system: TinySystem, release: Release) -> Ensemble:
    return Ensemble(system.backbone, system.recipe, release, system.artifacts.__getitem__)


def _weights(model: Ensemble) -> dict[str, torch.Tensor]:
    staged = model._staged
    return {
        **{f"model.{n}": p.cpu() for n, p in staged.model.state_dict().items()},
        **{f"head.{n}": p.cpu() for n, p in staged.heads.state_dict().items()},
    }


def _of_shards(release: Release, *shards: int) -> Release:
    return replace(
        release,
        replicas=tuple(r if r.shard in shards else replace(r, stages=()) for r in release.replicas),
    )


def _cut(release: Release, shard: int, depth: int) -> Release:
    """Every replica of a shard, at most so deep."""
    return replace(
        release,
        replicas=tuple(
            replace(r, stages=r.stages[:depth]) if r.shard == shard else r for r in release.replicas
        ),
    )


@pytest.mark.long_but_first(every=5)
@pytest.mark.parametrize(("backbone", "kind"), CASES)
def test_of_one_live_shard_it_answers_as_that_does(
    trained: Trained, precision: str, backbone: str, kind: str
) -> None:
    system = trained(backbone, kind)
    release = _of_shards(system.release(system.plan(_data(backbone))), 0)
    texts = _texts(backbone)
    merged, alone = _merged(system, release), _votes(system, release)
    tolerance = {"float32": 1e-5, "bfloat16": 3e-2}[precision]  # an update is rounded with it
    assert torch.allclose(
        merged.probabilities(texts), alone.probabilities(texts), atol=tolerance, rtol=tolerance
    )


@pytest.mark.long_but_first(every=3)
@pytest.mark.parametrize(("backbone", "kind"), CASES)
def test_every_weight_is_the_backbones_and_the_mean_update_of_the_live_shards(
    trained: Trained, backbone: str, kind: str
) -> None:
    """By the weights that each shard alone merges to; one shard is not as deep as the others, and
    the divisor stays their number."""
    system = trained(backbone, kind)
    release = _cut(system.release(system.plan(_data(backbone))), 1, 1)
    staged = StagedModel(load_model(system.backbone), in_float32(system.recipe))
    pristine = {n: p.cpu() for n, p in staged.model.state_dict().items()}
    of_each = [_weights(_merged(system, _of_shards(release, s))) for s in range(SHARDS)]
    found = _weights(_merged(system, release))
    changed = 0
    for name, weight in found.items():
        own = pristine.get(name.removeprefix("model."), torch.zeros(1))
        expected = own + sum(each[name] - own for each in of_each) / SHARDS
        if name.endswith(".low"):  # the same, rounded once for the product
            whole = found[f"{name.removesuffix('low')}weight"]
            assert whole.dtype == torch.float32 and torch.equal(weight, whole.bfloat16())
            continue
        assert torch.allclose(weight, expected, atol=1e-6), name
        changed += not torch.equal(weight, own.expand_as(weight))
    assert changed > SLICES and not any("lora" in n or "base_layer" in n for n in found)
    unlike = {n for n, w in of_each[1].items() if not torch.equal(w, of_each[0][n])}
    assert unlike  # the shallow one adds nothing to what the others do


@pytest.mark.long_but_first(every=5)
@pytest.mark.parametrize(("backbone", "kind"), CASES)
def test_after_a_deactivation_every_byte_equals_one_that_never_saw_the_record(
    trained: Trained, folders: dict[str, Path], backbone: str, kind: str
) -> None:
    system, data, silenced = trained(backbone, kind), _data(backbone), SliceId(0, 1)
    without = _system(folders, backbone, kind, dtype=system.dtype)
    before, after = (
        system.plan(data),
        without.train(data | {silenced: data[silenced][1:]}),
    )

    def live(release: Release) -> Release:
        return replace(
            release,
            replicas=tuple(
                replace(r, stages=r.stages[: r.sequence.index(1)] if r.shard == 0 else r.stages)
                for r in release.replicas
            ),
        )

    whole = _weights(_merged(system, system.release(before)))
    mine = _weights(_merged(system, live(system.release(before))))
    theirs = _weights(_merged(without, live(without.release(after))))
    assert mine.keys() == theirs.keys() == whole.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert not all(torch.equal(mine[name], whole[name]) for name in mine)


def test_it_is_the_same_at_each_load_and_changes_no_stage(trained: Trained) -> None:
    system = trained("encoder", "lora")
    release, kept = system.release(system.plan(_data("encoder"))), dict(system.artifacts)
    first, second = (_weights(_merged(system, release)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert system.artifacts == kept


def test_a_stage_of_no_live_shard_is_not_merged_with_them(trained: Trained) -> None:
    system = trained("encoder", "lora")
    staged = StagedModel(load_model(system.backbone), in_float32(system.recipe))
    first, second = system.release(system.plan(_data("encoder"))).replicas[0].stages[:2]
    staged.load("live", 1, system.artifacts[first.digest])
    staged.load("dead", 2, system.artifacts[second.digest])
    with pytest.raises(GuaranteeError, match="live shards alone"):
        merge_shards(staged, [ShardStages({1: "live"})])


def test_without_a_live_shard_it_does_not_answer(trained: Trained) -> None:
    system = trained("encoder", "lora")
    dead = _of_shards(system.release(system.plan(_data("encoder"))))
    with pytest.raises(NoLiveShard):
        _merged(system, dead).predict(["w1 w2"])


def test_a_backbone_that_is_larger_than_one_device_is_refused(trained: Trained) -> None:
    system = trained("encoder", "lora")
    release = system.release(system.plan(_data("encoder")))
    with pytest.raises(UsageError, match="combine"):
        Ensemble(
            system.backbone,
            system.recipe,
            release,
            system.artifacts.__getitem__,
            "cpu=1MB",
            "merged",
        )
