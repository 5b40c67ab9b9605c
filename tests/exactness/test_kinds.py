"""Every adapter kind on an encoder, a decoder and a vision model: stages are isolated, exact, and
answer alike."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from s3t_core.config import ADAPTER_KINDS, AdapterConfig
from s3t_core.domain import Combine, Release, SliceId
from s3t_core.errors import DataError
from s3t_core.learning.activation_store import ActivationStore
from s3t_core.learning.activations import Activations
from s3t_core.learning.backbone import load_model, modules_in_layers
from s3t_core.learning.encoding import load_reader
from s3t_core.learning.ensemble import Ensemble
from s3t_core.learning.replica import StagedModel
from tests.exactness.system import Slices, TinySystem, dataset_of, make_slices
from tests.tiny import build_backbone, build_decoder, build_vision, picture
from tests.unit.adapters.test_images import GOOD

SHARDS, SLICES, BUDGET = 2, 3, 2


@dataclass(frozen=True)
class Kind:
    """A kind of backbone: how it is built, what is adapted, how its rows look."""

    build: Callable[..., Path]
    targets: tuple[str, ...]
    stack: str
    pooling: str = "mean"
    texts: Callable[[str], str] = str


BACKBONES = {
    "encoder": Kind(build_backbone, ("query", "value"), "encoder.layer"),
    "decoder": Kind(build_decoder, ("q_proj", "v_proj"), "layers", "last"),
    "vision": Kind(
        build_vision, ("q_proj", "v_proj"), "layers", "cls", lambda text: picture(hash_of(text))
    ),
}
CASES = [(b, k) for b in BACKBONES for k in ADAPTER_KINDS]
TOLERANCE = {"float32": 1e-6, "bfloat16": 2e-2}


def hash_of(text: str) -> int:
    """A number for a text, the same in every process."""
    return sum(i * ord(c) for i, c in enumerate(text, 1))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: kind.build(tmp_path_factory.mktemp(name)) for name, kind in BACKBONES.items()}


def _data(backbone: str) -> Slices:
    return {
        slice_id: [row._replace(text=BACKBONES[backbone].texts(row.text)) for row in rows]
        for slice_id, rows in make_slices(SHARDS, SLICES, 4).items()
    }


def _system(folders: dict[str, Path], backbone: str, kind: str, **more: Any) -> TinySystem:
    chosen = BACKBONES[backbone]
    return TinySystem(
        folders[backbone],
        SHARDS,
        SLICES,
        BUDGET,
        pooling=chosen.pooling,
        adapter={"kind": kind, "target_modules": list(chosen.targets)},
        **more,
    )


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest) -> str:
    """What the frozen linear layers multiply in."""
    return str(request.param)


@pytest.fixture(scope="module")
def trained(folders: dict[str, Path], precision: str) -> Callable[[str, str], TinySystem]:
    """The trained system of a case, trained once."""
    made: dict[tuple[str, str], TinySystem] = {}

    def get(backbone: str, kind: str) -> TinySystem:
        if (backbone, kind) not in made:
            made[backbone, kind] = _system(folders, backbone, kind, dtype=precision)
            made[backbone, kind].train(_data(backbone))
        return made[backbone, kind]

    return get


def _texts(backbone: str) -> list[str]:
    return [BACKBONES[backbone].texts(t) for t in ("w1 w2 w3", "w4", "w5 w6 w7 w8 w9")]


def _answers(system: TinySystem, release: Release, texts: list[str]) -> torch.Tensor:
    return Ensemble(
        system.backbone, system.recipe, release, system.artifacts.__getitem__
    ).probabilities(texts)


@pytest.mark.parametrize(("backbone", "kind"), CASES)
def test_exactly_the_adapter_of_the_block_and_a_head_train_and_a_fresh_one_changes_nothing(
    folders: dict[str, Path], backbone: str, kind: str
) -> None:
    system = _system(folders, backbone, kind)
    staged = StagedModel(load_model(system.backbone), system.recipe)
    reader = load_reader(system.backbone, system.recipe)
    given = reader.batch(reader.items(_texts(backbone)))
    with torch.no_grad():
        before = staged.split.states(given)
        staged.attach("stage2", 2)  # block 2 of 3, from the top, is layer 1
        staged.activate(["stage2"])
        assert torch.allclose(staged.split.states(given), before, atol=1e-6)
    stack = BACKBONES[backbone].stack
    assert modules_in_layers(staged.model, (1,), BACKBONES[backbone].targets) == staged.adapted(
        "stage2"
    )
    chosen = staged.trainable("stage2")
    assert {n for n in chosen if not n.startswith((f"{stack}.1.", "head."))} == set()
    assert {n for n, p in staged.model.named_parameters() if p.requires_grad} == {
        n for n in chosen if not n.startswith("head.")
    }


@pytest.mark.long_but_first(every=3)
@pytest.mark.long_but_first(every=5)
@pytest.mark.parametrize(("backbone", "kind"), CASES)
def test_a_deeper_stage_leaves_the_earlier_ones_as_they_were(
    trained: Callable[[str, str], TinySystem], backbone: str, kind: str
) -> None:
    system = trained(backbone, kind)
    release = system.release(system.plan(_data(backbone)))
    replica = release.replicas[0]
    staged = StagedModel(load_model(system.backbone), system.recipe)
    for depth, stage in enumerate(replica.stages, 1):
        staged.load(f"stage{depth}", depth, system.artifacts[stage.digest])
    reader = load_reader(system.backbone, system.recipe)
    batch = reader.batch(reader.items(_texts(backbone)))
    answers = []
    for depth in range(1, len(replica.stages) + 1):
        names = [f"stage{i}" for i in range(1, depth + 1)]
        only = StagedModel(load_model(system.backbone), system.recipe)
        for i, name in enumerate(names, 1):
            only.load(name, i, system.artifacts[replica.stages[i - 1].digest])
        staged.activate(names)
        only.activate(names)
        assert staged.dump(names[-1]) == system.artifacts[replica.stages[depth - 1].digest]
        with torch.no_grad():
            answers.append(staged.logits(names[-1], batch))
            assert torch.equal(answers[-1], only.logits(names[-1], batch))
    assert not torch.equal(answers[0], answers[1]) and not torch.equal(
        answers[1], answers[2]
    )  # each does something


@pytest.mark.long_but_first(every=5)
@pytest.mark.parametrize(("backbone", "kind"), CASES)
def test_after_a_deactivation_every_live_stage_equals_one_that_never_saw_the_slice(
    trained: Callable[[str, str], TinySystem],
    folders: dict[str, Path],
    tmp_path: Path,
    backbone: str,
    kind: str,
) -> None:
    system, data, silenced = trained(backbone, kind), _data(backbone), SliceId(0, 1)
    kept = Activations(ActivationStore(tmp_path / "activations", b"k" * 32, 2**30))
    remaining = data | {silenced: data[silenced][1:]}
    without = _system(folders, backbone, kind, activations=kept, dtype=system.dtype)
    assert kept.store is not None
    kept.store.allow({v.digest for v in dataset_of(remaining, SHARDS, SLICES).files()})
    before, after = system.plan(data), without.train(remaining)
    assert list((tmp_path / "activations").iterdir())  # what was kept changes no byte either
    live = tainted = 0
    for old, new in zip(before.replicas, after.replicas, strict=True):
        first = old.sequence.index(1) if old.shard == 0 else SLICES
        for position, (a, b) in enumerate(zip(old.keys, new.keys, strict=True)):
            assert a is not None and b is not None
            if position < first:
                assert a == b and system.artifacts[a] == without.artifacts[b]
                live += 1
            else:
                assert a != b and system.artifacts[a] != without.artifacts[b]
                tainted += 1
    assert live and tainted
    mine, theirs = system.release(before), without.release(after)
    cut = replace(
        mine,
        replicas=tuple(
            replace(r, stages=r.stages[: r.sequence.index(1)] if r.shard == 0 else r.stages)
            for r in mine.replicas
        ),
    )
    same = replace(
        theirs,
        replicas=tuple(
            replace(r, stages=r.stages[: r.sequence.index(1)] if r.shard == 0 else r.stages)
            for r in theirs.replicas
        ),
    )
    assert torch.equal(
        _answers(system, cut, _texts(backbone)), _answers(without, same, _texts(backbone))
    )


@pytest.mark.long_but_first(every=5)
@pytest.mark.parametrize(("backbone", "kind"), CASES)
def test_shards_answer_together_as_they_do_one_by_one(
    trained: Callable[[str, str], TinySystem], backbone: str, kind: str
) -> None:
    system = trained(backbone, kind)
    release = system.release(system.plan(_data(backbone)))
    shallow = replace(
        release,
        replicas=tuple(
            replace(r, stages=r.stages[:1]) if r.shard == 1 else r for r in release.replicas
        ),
    )
    for whole in (release, shallow):
        alone = [
            _answers(
                system,
                replace(whole, replicas=tuple(r for r in whole.replicas if r.shard == s)),
                _texts(backbone),
            )
            for s in range(SHARDS)
        ]
        together = _answers(system, whole, _texts(backbone))
        assert torch.allclose(together, sum(alone) / SHARDS, atol=TOLERANCE[system.dtype])
        assert torch.equal(together, _answers(system, whole, _texts(backbone)))


@pytest.mark.parametrize("kind", ["prefix_tuning", "vera", "adalora", "x"])
def test_a_kind_that_cannot_be_isolated_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(
        ValueError, match="expected 'lora'" if kind == "x" else "block by block: .*'oft'"
    ):
        AdapterConfig(kind=kind)


def test_a_row_that_is_no_image_is_refused_and_not_quoted(folders: dict[str, Path]) -> None:
    system = _system(folders, "vision", "lora")
    for text in ("what she wrote", "d2hhdCBzaGUgd3JvdGU="):
        with pytest.raises(DataError, match="PNG or JPEG") as caught:
            load_reader(system.backbone, system.recipe).items([text])
        assert text not in str(caught.value)


@pytest.mark.parametrize("filling", [None, "[SEP]"])
def test_a_decoder_without_a_padding_token_or_with_another_trains_and_answers_alike(
    folders: dict[str, Path], tmp_path: Path, filling: str | None
) -> None:
    """What rows of unequal length are filled up with is masked: it reaches no stage and no
    answer."""
    folder = shutil.copytree(folders["decoder"], tmp_path / "m")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.pad_token = filling
    tokenizer.save_pretrained(folder)
    assert PreTrainedTokenizerFast.from_pretrained(folder).pad_token == filling
    texts = _texts("decoder")
    told = []
    for place in (folders["decoder"], folder):
        system = _system({"decoder": place}, "decoder", "lora")
        release = system.release(system.train(_data("decoder")))
        combined: tuple[Combine, ...] = ("votes", "merged")
        answers = [
            Ensemble(
                system.backbone, system.recipe, release, system.artifacts.__getitem__, combine=way
            ).probabilities(texts)
            for way in combined
        ]
        told.append((sorted(system.artifacts.values()), answers))
    (stages, answers), (others, same) = told
    assert stages == others
    assert all(torch.equal(a, b) for a, b in zip(answers, same, strict=True))


def test_hazard_20_an_image_is_the_same_pixels_alone_in_a_batch_and_each_time(
    folders: dict[str, Path],
) -> None:
    """Of every kind that is admitted, one pixel by one among them; and each is learnt from."""
    system = _system(folders, "vision", "lora")
    reader = load_reader(system.backbone, system.recipe)
    texts = list(GOOD.values())
    together = [torch.as_tensor(item) for item in reader.items(texts)]
    for text, pixels in zip(texts, together, strict=True):
        (alone,) = reader.items([text])
        (again,) = reader.items([text])
        assert torch.equal(torch.as_tensor(alone), pixels)
        assert torch.equal(torch.as_tensor(again), pixels)
    data = {
        place: [row._replace(text=texts[i % len(texts)]) for i, row in enumerate(rows)]
        for place, rows in _data("vision").items()
    }
    release = system.release(system.train(data))
    assert torch.isfinite(_answers(system, release, texts)).all()
