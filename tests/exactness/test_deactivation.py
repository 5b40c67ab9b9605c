"""Invariant 2: after a deactivation every live stage is, byte for byte, one trained with the
slice's rows absent."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from s3t_core.domain import Release, SliceId
from s3t_core.learning.ensemble import Ensemble
from tests.exactness.system import TinySystem, make_slices

SHARDS, SLICES, BUDGET = 2, 3, 6  # every order of three slices
TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9"]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def full(tiny_backbone: Path, request: pytest.FixtureRequest) -> TinySystem:
    system = TinySystem(tiny_backbone, SHARDS, SLICES, BUDGET, request.param)
    system.train(make_slices(SHARDS, SLICES))
    return system


@pytest.mark.long_but_first(every=4)
@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("index", range(SLICES))
def test_each_replica_after_deactivation_equals_the_same_stages_trained_without_the_slice(
    full: TinySystem, tiny_backbone: Path, shard: int, index: int
) -> None:
    data = make_slices(SHARDS, SLICES)
    before = full.plan(data)
    emptied = data | {SliceId(shard, index): []}
    absent = TinySystem(tiny_backbone, SHARDS, SLICES, BUDGET, full.dtype)
    after = absent.train(
        {k: v for k, v in emptied.items() if k.shard == shard}
        | {k: [] for k in data if k.shard != shard}
    )
    compared = 0
    for old, new in zip(before.replicas, after.replicas, strict=True):
        if old.shard != shard:
            continue
        live = old.keys[
            : old.sequence.index(index)
        ]  # stages before the slice's position never saw it
        for key_before, key_after in zip(live, new.keys, strict=False):
            assert key_before is not None and key_after is not None
            assert full.artifacts[key_before] == absent.artifacts[key_after]
            compared += 1
        if live:
            depth = len(live)
            mine = _logits(full, _at(full.release(before), old.shard, old.number, depth))
            theirs = _logits(absent, _at(absent.release(after), old.shard, old.number, depth))
            assert torch.equal(mine, theirs)
    assert compared == 6  # of six orders, two keep depth 2 and two keep depth 1: 2 * 2 + 2 * 1


def test_erasing_and_retraining_equals_training_the_remaining_rows_from_nothing(
    full: TinySystem, tiny_backbone: Path
) -> None:
    data = make_slices(SHARDS, SLICES)
    target = SliceId(1, 1)
    remaining = data | {target: data[target][1:]}  # one record erased, its neighbours stay
    retrained = TinySystem(
        tiny_backbone, SHARDS, SLICES, BUDGET, full.dtype, artifacts=dict(full.artifacts)
    )
    plan = retrained.train(remaining)
    fresh = TinySystem(tiny_backbone, SHARDS, SLICES, BUDGET, full.dtype)
    assert fresh.train(remaining) == plan
    assert {k: retrained.artifacts[k] for k in fresh.artifacts} == fresh.artifacts
    assert 0 < retrained.trained < fresh.trained  # what did not change was re-used


def _at(release: Release, shard: int, number: int, depth: int) -> Release:
    """The release in which only one replica answers, at `depth`."""
    return replace(
        release,
        replicas=tuple(
            replace(r, stages=r.stages[:depth])
            for r in release.replicas
            if (r.shard, r.number) == (shard, number)
        ),
    )


def _logits(system: TinySystem, release: Release) -> torch.Tensor:
    return Ensemble(
        system.backbone, system.recipe, release, system.artifacts.__getitem__
    ).probabilities(TEXTS)
