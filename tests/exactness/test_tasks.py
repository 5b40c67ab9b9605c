"""Every task is as exact as classification, on every kind of backbone, with every kind of adapter.

Two at a time in CI (each task with each backbone, each adapter and each precision, and so on); the
whole product in `make test-all`.
"""

import shutil
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from s3t_core.config import ADAPTER_KINDS
from s3t_core.conversations import pair_text
from s3t_core.domain import Combine, Release, SliceId
from s3t_core.learning.activation_store import ActivationStore
from s3t_core.learning.activations import Activations
from s3t_core.learning.encoding import load_reader
from s3t_core.learning.ensemble import Ensemble
from s3t_core.learning.stage import COMPUTED
from tests.exactness.system import Slices, TinySystem, dataset_of
from tests.exactness.test_kinds import (
    BACKBONES,
    SHARDS,
    SLICES,
    _data,
    _system,
    _texts,
    folders,
)

__all__ = ["folders"]

ASKED = {
    "classification": ["a", "b"],
    "multilabel": ["[]", '["a"]', '["b"]', '["a","b"]'],
    "regression": ["0", "4", "1.5", "3.25", "0.1"],
}
"""What rows ask for, by task, in turn."""
APART = {"classification": ("a", "b"), "multilabel": ('["a"]', '["b"]'), "regression": ("0", "4")}
"""Two that can be told apart, of those."""
_PRECISIONS = ("float32", "bfloat16")


def _cases() -> list[Any]:
    backbones = list(BACKBONES)
    chosen = {
        (task, backbones[(i + n) % len(backbones)], kind, _PRECISIONS[(i + n) % 2])
        for i, task in enumerate(ASKED)
        for n, kind in enumerate(ADAPTER_KINDS)
    }
    return [
        pytest.param(*case, marks=() if case in chosen else pytest.mark.long, id="-".join(case))
        for case in product(ASKED, BACKBONES, ADAPTER_KINDS, _PRECISIONS)
    ]


CASES = _cases()
GONE = SliceId(0, 1)
"""The slice that loses a row."""


def _rows(task: str, backbone: str) -> Slices:
    asked = ASKED[task]
    return {
        place: [row._replace(label=asked[i % len(asked)]) for i, row in enumerate(rows)]
        for place, rows in _data(backbone).items()
    }


def test_what_ci_runs_has_every_two_of_task_backbone_adapter_and_precision() -> None:
    every = [list(ASKED), list(BACKBONES), list(ADAPTER_KINDS), list(_PRECISIONS)]
    run = [case.values for case in CASES if not case.marks]
    for (i, some), (j, others) in combinations(enumerate(every), 2):
        there = {(case[i], case[j]) for case in run}
        assert there == set(product(some, others)), f"{len(run)} cases"


def _untainted(release: Release) -> Release:
    """Without the stages that saw `GONE`, each of which was trained."""
    return replace(
        release,
        replicas=tuple(
            replace(r, stages=r.stages[: r.sequence.index(GONE.index)])
            if r.shard == GONE.shard
            else r
            for r in release.replicas
        ),
    )


def _answers(system: TinySystem, release: Release, backbone: str, combine: Combine) -> torch.Tensor:
    return Ensemble(
        system.backbone,
        system.recipe,
        release,
        system.artifacts.__getitem__,
        combine=combine,
    ).probabilities(_texts(backbone))


def _kept(path: Path, remaining: Slices) -> Activations:
    store = ActivationStore(path, b"k" * 32, 2**30)
    store.allow({v.digest for v in dataset_of(remaining, SHARDS, SLICES).files()})
    return Activations(store)


@pytest.mark.long_but_first(every=5)
@pytest.mark.parametrize(("task", "backbone", "kind", "precision"), CASES)
def test_what_is_left_after_an_erasure_equals_what_never_saw_the_row(
    folders: dict[str, Path], tmp_path: Path, task: str, backbone: str, kind: str, precision: str
) -> None:
    """Deactivation; erasure and retrain; frozen states computed, kept, taken from what was kept,
    and too large for memory: one set of bytes."""

    def system(activations: Activations = COMPUTED, **more: Any) -> TinySystem:
        return _system(
            folders, backbone, kind, dtype=precision, task=task, activations=activations, **more
        )

    data = _rows(task, backbone)
    remaining = data | {GONE: data[GONE][1:]}
    with_it, without = system(), system()
    before, after = with_it.train(data), without.train(remaining)
    live, tainted = before.stages, {s.key for s in before.stages} - {s.key for s in after.stages}
    assert tainted and len(tainted) < len(live)
    for stage in after.stages:
        if stage.key in with_it.artifacts:
            assert with_it.artifacts[stage.key] == without.artifacts[stage.key]
    mine = _untainted(with_it.release(before))
    theirs = _untainted(without.release(after))
    assert mine.stage_keys() == theirs.stage_keys()
    combined: tuple[Combine, ...] = ("votes", "merged")
    for combine in combined:
        assert torch.equal(
            _answers(with_it, mine, backbone, combine), _answers(without, theirs, backbone, combine)
        )
    retrained = system(artifacts=dict(with_it.artifacts))
    assert retrained.train(remaining) == after and 0 < retrained.trained < without.trained
    kept = _kept(tmp_path / "activations", remaining)
    spilled = Activations(memory_bytes=0, spill=tmp_path)
    for activations in (kept, kept, spilled):
        again = system(activations)
        again.train(remaining)
        assert again.artifacts == without.artifacts
    assert {k: retrained.artifacts[k] for k in without.artifacts} == without.artifacts


def _patient(system: TinySystem) -> TinySystem:
    """The same, trained for long enough to learn."""
    more = {**system.recipe.training, "epochs": 30, "head_learning_rate": 0.05}
    system.recipe = replace(system.recipe, training=more)
    return system


@pytest.mark.long_but_first
@pytest.mark.parametrize("task", ASKED)
def test_a_stage_learns_what_the_task_asks(folders: dict[str, Path], task: str) -> None:
    """Not only the same bytes: rows of two kinds of words are told apart."""
    texts = ("w1 w2 w3", "w50 w51 w52")
    asked = APART[task]
    data = {
        place: [
            row._replace(record=f"{row.record[:-2]}{i:02d}", text=texts[i % 2], label=asked[i % 2])
            for i, row in enumerate(rows * 4)
        ]
        for place, rows in _data("encoder").items()
    }
    system = _patient(_system(folders, "encoder", "lora", task=task))
    release = system.release(system.train(data))
    model = Ensemble(system.backbone, system.recipe, release, system.artifacts.__getitem__)
    found = [each.document() for each in model.predict(list(texts))]
    score = model.score([row for rows in data.values() for row in rows])
    assert score is not None
    if "value" in found[0]:
        low, high = (float(str(each["value"])) for each in found)
        assert low < 1 and high > 3 and score.value < 1
    else:
        told = [each.get("labels", [each.get("label")]) for each in found]
        assert told == [["a"], ["b"]] and score.value == 1


@pytest.mark.parametrize("asks_sides", [True, False])
def test_pairs_are_tokens_of_both_texts_and_exact(
    folders: dict[str, Path], tmp_path: Path, asks_sides: bool
) -> None:
    """Against transformers' own encoding, with the sides that BERT asks for; and once more, an
    erasure leaves what never saw the row."""
    folder = shutil.copytree(folders["encoder"], tmp_path / "m")
    _with_sides(folder, asks_sides)
    system = _system({"encoder": folder}, "encoder", "lora")
    system.recipe = replace(system.recipe, task={"kind": "classification", "pairs": True})
    reader = load_reader(system.backbone, system.recipe)
    pairs = [("w1 w2", "w3"), ("w4", "w5 w6 w7"), (" ".join(["w8"] * 30), "w9")]
    items = reader.items([pair_text(*pair) for pair in pairs])
    assert reader.lengths(items) == [len(i[0]) for i in map(torch.as_tensor, items)]
    assert max(reader.lengths(items)) == reader.max_length  # type: ignore[attr-defined]
    told = reader.tokenizer(  # type: ignore[attr-defined]
        *(list(each) for each in zip(*pairs, strict=True)),
        truncation="longest_first",
        max_length=reader.max_length,  # type: ignore[attr-defined]
        padding=True,
        return_tensors="pt",
    )
    batch = reader.batch(items)
    assert batch.keys() == {k for k in told if asks_sides or k != "token_type_ids"}
    assert all(torch.equal(batch[name], told[name]) for name in batch)
    data = {
        place: [r._replace(text=pair_text(r.text, f"w{n}")) for n, r in enumerate(rows)]
        for place, rows in _data("encoder").items()
    }
    remaining = data | {GONE: data[GONE][1:]}
    without = _system({"encoder": folder}, "encoder", "lora")
    without.recipe = system.recipe
    mine = _untainted(system.release(system.train(data)))
    theirs = _untainted(without.release(without.train(remaining)))
    texts = [pair_text(*pair) for pair in pairs]
    models = [
        Ensemble(s.backbone, s.recipe, r, s.artifacts.__getitem__)
        for s, r in ((system, mine), (without, theirs))
    ]
    assert torch.equal(*(model.probabilities(texts) for model in models))
    swapped = models[0].probabilities([pair_text(*pair[::-1]) for pair in pairs])
    assert not torch.equal(swapped, models[0].probabilities(texts))


def _with_sides(folder: Path, asks: bool) -> None:
    """The tokenizer puts two texts together, and says of which each token is."""
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if asks else [])]
    PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=names,
    ).save_pretrained(folder)
