"""A checkpoint of one's own class: what the shards say, and nothing of what was erased."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoTokenizer,
    DeiTConfig,
    DeiTModel,
    ViTImageProcessorPil,
)

from s3t_core.config import ADAPTER_KINDS
from s3t_core.conversations import Turn
from s3t_core.domain import Release
from s3t_core.errors import NoLiveShard, UsageError
from s3t_core.learning.encoding import ConversationReader, load_reader
from s3t_core.learning.ensemble import Ensemble
from s3t_core.learning.plain import write_plain
from s3t_core.learning.tasks.task import NOT_LEARNT
from s3t_core.learning.writing import Writing
from tests.exactness.system import DEVICE, TinySystem, make_slices
from tests.exactness.test_generation import (
    QUESTIONS,
    SHARDS,
    SLICES,
    _data,
    _system,
    learnt,
    writer,
)
from tests.exactness.test_kinds import _system as _any_system
from tests.exactness.test_kinds import folders
from tests.exactness.test_tasks import GONE, _rows, _untainted
from tests.tiny import build_backbone, build_decoder, build_language_model, picture

__all__ = ["folders", "learnt", "writer"]


def _write(system: TinySystem, release: Release, folder: Path) -> Path:
    write_plain(system.backbone, system.recipe, release, system.artifacts.__getitem__, folder)
    return folder


def _digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def _merged(system: TinySystem, release: Release) -> Ensemble:
    return Ensemble(
        system.backbone, system.recipe, release, system.artifacts.__getitem__, combine="merged"
    )


@pytest.mark.long_but_first(every=5)
@pytest.mark.parametrize("kind", ADAPTER_KINDS)
@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_is_written_as_one_that_never_saw_what_was_erased(
    tmp_path: Path, kind: str, tied: bool
) -> None:
    """Byte for byte, of every kind of adapter, with tied words and with others."""
    backbone = build_language_model(tmp_path / "backbone", tied=tied)
    data = _data()
    remaining = data | {GONE: data[GONE][1:]}
    with_it, without = _system(backbone, kind), _system(backbone, kind)
    before, after = with_it.release(with_it.train(data)), without.release(without.train(remaining))
    mine = _write(with_it, _untainted(before), tmp_path / "mine")
    theirs = _write(without, _untainted(after), tmp_path / "theirs")
    assert _digests(mine) == _digests(theirs)
    whole = _write(with_it, before, tmp_path / "whole")
    changed = {n for n, digest in _digests(whole).items() if _digests(mine)[n] != digest}
    assert changed == {"model.safetensors"}


def test_transformers_alone_says_what_the_shards_say(
    learnt: tuple[TinySystem, Release], tmp_path: Path
) -> None:
    """Equal logits, and equal texts with its own ends."""
    folder = _write(*learnt, tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").to(DEVICE)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = _merged(*learnt)
    reader = load_reader(learnt[0].backbone, learnt[0].recipe)
    for question in ((Turn("user", "w1 w2"),), *QUESTIONS):
        (told,) = ours.write([question], Writing(10))
        asked = torch.tensor([reader.question(question)], device=DEVICE)
        with torch.inference_mode():
            logits = model(input_ids=asked).logits
        assert torch.equal(logits, _logits(ours, asked))
        got = model.generate(asked, max_new_tokens=10)[0, asked.shape[1] :]
        assert tokenizer.decode(got, skip_special_tokens=True) == told.text
    (told,) = ours.write([(Turn("user", "w1 w2"),)], Writing(10))
    chat = [{"role": "user", "content": "w1 w2"}]
    asked = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(DEVICE)
    got = model.generate(**asked, max_new_tokens=10)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(got, skip_special_tokens=True) == told.text == "w7 w8 w9"


def _logits(model: Ensemble, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        states = model._staged.model(input_ids=ids).last_hidden_state
        assert model._staged.words is not None
        return torch.as_tensor(model._staged.words(states))


def test_a_score_is_what_transformers_says_of_the_tokens_that_are_learnt(
    learnt: tuple[TinySystem, Release], tmp_path: Path
) -> None:
    """Perplexity and the share of tokens that are the likeliest, over all rows' learnt tokens."""
    system, release = learnt
    folder = _write(system, release, tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").to(DEVICE)
    reader = load_reader(system.backbone, system.recipe)
    assert isinstance(reader, ConversationReader)
    rows = [row for each in _data().values() for row in each]
    losses, hits = [], []
    for ids, wanted in zip(*reader.examples([row.text for row in rows]), strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids], device=DEVICE)).logits[0, :-1].cpu()
        targets = torch.tensor(wanted)[1:]
        chosen = targets != NOT_LEARNT
        losses += torch.nn.functional.cross_entropy(
            logits[chosen], targets[chosen], reduction="none"
        ).tolist()
        hits += (logits[chosen].argmax(1) == targets[chosen]).tolist()
    ours = _merged(system, release)
    perplexity, share = (ours.score(rows, m) for m in ("perplexity", "token_accuracy"))
    assert perplexity is not None and share is not None and len(losses) > len(rows)
    assert perplexity.value == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)
    assert share.value == pytest.approx(sum(hits) / len(hits)) and 0 < share.value < 1
    assert (perplexity.higher_is_better, share.higher_is_better) == (False, True)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_a_vision_models_labels_are_its_own_classes(
    folders: dict[str, Path], tmp_path: Path, task: str
) -> None:
    from transformers import AutoImageProcessor

    from s3t_core.images import read_image

    system = _any_system(folders, "vision", "lora", task=task)
    rows = _rows(task, "vision") if task == "multilabel" else _rows("multilabel", "vision")
    if task == "classification":
        rows = {
            p: [r._replace(label="ab"[i % 2]) for i, r in enumerate(each)]
            for p, each in rows.items()
        }
    release = system.release(system.train(rows))
    folder = _write(system, release, tmp_path / "plain")
    model = AutoModelForImageClassification.from_pretrained(folder, attn_implementation="eager")
    model.to(DEVICE)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    assert model.config.id2label == {0: "a", 1: "b"}
    images = [picture(n) for n in range(5)]
    given = processor([read_image(i) for i in images], return_tensors="pt").to(DEVICE)
    logits = model(**given).logits
    chances = torch.softmax(logits, 1) if task == "classification" else torch.sigmoid(logits)
    assert torch.equal(chances.cpu(), _merged(system, release).probabilities(images))


def test_deits_labels_are_its_own_classes_too(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = DeiTConfig(
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
    )
    DeiTModel(config).save_pretrained(tmp_path / "backbone")
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "backbone")
    system = _any_system({"vision": tmp_path / "backbone"}, "vision", "lora")
    release = system.release(system.train(_rows("classification", "vision")))
    folder = _write(system, release, tmp_path / "plain")
    model = AutoModelForImageClassification.from_pretrained(folder, attn_implementation="eager")
    images = [picture(n) for n in range(4)]
    reader = load_reader(system.backbone, system.recipe)
    given = reader.batch(reader.items(images))
    with torch.inference_mode():
        chances = torch.softmax(model.to(DEVICE)(**given).logits, 1)
    assert torch.equal(chances.cpu(), _merged(system, release).probabilities(images))


REFUSED = {
    "a pooler of its own": (build_backbone, {"pooling": "cls"}, "layers of its own"),
    "a head without a bias": (build_decoder, {"pooling": "last"}, "no bias"),
    "a number within a range": (build_backbone, {"task": "regression"}, "declared range"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_mean_something_else_is_refused(tmp_path: Path, name: str) -> None:
    build, more, why = REFUSED[name]
    targets = {"target_modules": ["q_proj"]} if build is build_decoder else {}
    adapter: dict[str, Any] = {"adapter": targets} if targets else {}
    system = TinySystem(build(tmp_path / "backbone"), 1, 2, 1, **more, **adapter)
    label = "1" if more.get("task") == "regression" else "a"
    data = {p: [r._replace(label=label) for r in rows] for p, rows in make_slices(1, 2, 3).items()}
    release = system.release(system.train(data))
    with pytest.raises(UsageError, match=why):
        _write(system, release, tmp_path / "plain")
    assert not (tmp_path / "plain").exists(), "refused before anything is written"


def test_a_head_that_pools_otherwise_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """Its class is asked: the same weights, and other answers."""
    system = TinySystem(
        folders["vision"],
        SHARDS,
        SLICES,
        2,
        pooling="mean",
        adapter={"target_modules": ["q_proj", "v_proj"]},
    )
    rows = {
        p: [r._replace(label="ab"[i % 2]) for i, r in enumerate(each)]
        for p, each in _rows("multilabel", "vision").items()
    }
    release = system.release(system.train(rows))
    with pytest.raises(UsageError, match="other answers"):
        _write(system, release, tmp_path / "plain")


def test_dead_shards_are_left_out_and_of_none_nothing_is_written(
    writer: Path, tmp_path: Path
) -> None:
    """The divisor is the number of live shards, as when it serves."""
    system = _system(writer)
    release = system.release(system.train(_data()))
    dead = replace(
        release,
        replicas=tuple(replace(r, stages=()) if r.shard == 0 else r for r in release.replicas),
    )
    folder = _write(system, dead, tmp_path / "plain")
    model = AutoModelForCausalLM.from_pretrained(folder)
    reader = load_reader(system.backbone, system.recipe)
    asked = torch.tensor([reader.question(QUESTIONS[0])])
    got = model.generate(asked, max_new_tokens=8)[0, asked.shape[1] :]
    (told,) = _merged(system, dead).write([QUESTIONS[0]], Writing(8))
    assert AutoTokenizer.from_pretrained(folder).decode(got, skip_special_tokens=True) == told.text
    none = replace(release, replicas=tuple(replace(r, stages=()) for r in release.replicas))
    with pytest.raises(NoLiveShard):
        _write(system, none, tmp_path / "none")
