"""All shards in one pass answer as one by one, whatever their depths; for a given batch, the same
bytes."""

import threading
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from s3t_core.domain import Release
from s3t_core.learning import ensemble
from s3t_core.learning.ensemble import Ensemble
from tests.exactness.system import TinySystem, make_slices

TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9", "w2 w2", "w11 w30 w7"]
SHARDS = 3


@pytest.fixture(scope="module")
def system(tiny_backbone: Path) -> TinySystem:
    trained = TinySystem(tiny_backbone, SHARDS, 3, 1)
    trained.train(make_slices(SHARDS, 3))
    return trained


def _at(system: TinySystem, depths: tuple[int, ...]) -> Release:
    release = system.release(system.plan(make_slices(SHARDS, 3)))
    return replace(
        release,
        replicas=tuple(
            replace(r, stages=r.stages[:d]) for r, d in zip(release.replicas, depths, strict=True)
        ),
    )


def _ensemble(system: TinySystem, release: Release) -> Ensemble:
    return Ensemble(system.backbone, system.recipe, release, system.artifacts.__getitem__)


@pytest.mark.long_but_first
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_at_every_combination_of_depths_one_pass_equals_separate_passes(
    tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    system = TinySystem(tiny_backbone, SHARDS, 3, 1, dtype)
    system.train(make_slices(SHARDS, 3))
    one_by_one = {
        (s, d): _ensemble(
            system, _at(system, tuple(d if i == s else 0 for i in range(SHARDS)))
        ).probabilities(TEXTS)
        for s in range(SHARDS)
        for d in range(1, 4)
    }
    for depths in product(range(4), repeat=SHARDS):
        if not any(depths):
            continue
        together = _ensemble(system, _at(system, depths))
        found = together.probabilities(TEXTS)
        monkeypatch.setattr(ensemble, "ONE_PASS_TOKENS", 0)
        apart = together.probabilities(TEXTS)
        monkeypatch.undo()
        alone = torch.stack([one_by_one[s, d] for s, d in enumerate(depths) if d]).mean(0)
        tolerance = 1e-5 if dtype == "float32" else 2e-2
        assert torch.allclose(found, apart, atol=tolerance) and torch.allclose(
            apart, alone, atol=tolerance
        )
        assert torch.equal(found, together.probabilities(TEXTS))  # the same bytes again


def test_the_shards_really_differ(system: TinySystem) -> None:
    answers = [
        _ensemble(system, _at(system, tuple(3 * (i == s) for i in range(SHARDS)))).probabilities(
            TEXTS
        )
        for s in range(SHARDS)
    ]
    assert not any(
        torch.allclose(answers[a], answers[b], atol=1e-4) for a, b in ((0, 1), (0, 2), (1, 2))
    )


def test_a_void_stage_in_between_is_passed_over(tiny_backbone: Path) -> None:
    data = make_slices(2, 3)
    first = next(s for s in data if s.shard == 0 and s.index == 0)
    system = TinySystem(tiny_backbone, 2, 3, 1)
    system.train(data | {first: []})
    release = system.release(system.plan(data | {first: []}))
    together = _ensemble(system, release)
    alone = [
        _ensemble(system, replace(release, replicas=(r,))).probabilities(TEXTS)
        for r in release.replicas
    ]
    assert torch.allclose(together.probabilities(TEXTS), torch.stack(alone).mean(0), atol=1e-5)


def test_any_number_of_texts_from_many_threads(system: TinySystem) -> None:
    together = _ensemble(system, _at(system, (3, 1, 2)))
    texts = [TEXTS[i % len(TEXTS)] + f" w{i % 60}" for i in range(150)]
    expected, found = together.probabilities(texts), {}
    workers = [
        threading.Thread(target=lambda n=n: found.update({n: together.probabilities(texts)}))  # type: ignore[misc]
        for n in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4 and all(torch.equal(f, expected) for f in found.values())
    assert together.probabilities([]).shape == (0, 2)
