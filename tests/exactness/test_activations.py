"""Frozen activations change no byte of a stage, however they are come by, and belong to their slice
alone."""

import io
import os
from pathlib import Path
from typing import IO

import pytest
import torch

from s3t_core.domain import SliceId
from s3t_core.learning import activations
from s3t_core.learning.activation_store import ActivationStore
from s3t_core.learning.activations import Activations, states_key
from s3t_core.learning.backbone import load_model
from s3t_core.learning.encoding import encode, load_reader
from s3t_core.learning.replica import StagedModel
from s3t_core.records import slice_digest
from tests.exactness.system import DEVICE, KEYS, Slices, TinySystem, dataset_of, make_slices

MIB = 2**20


def _store(folder: Path, data: Slices, limit: int = 64 * MIB) -> ActivationStore:
    store = ActivationStore(folder, KEYS.content, limit)
    store.allow({slice_digest(KEYS, rows) for rows in data.values()})
    return store


def _kept(store: ActivationStore) -> set[str]:
    return {p.parent.name for p in store.root.glob("*/*.safetensors")}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stages_are_the_same_bytes_cold_warm_spilled_evicted_and_bypassed(
    tiny_backbone: Path, tmp_path: Path, dtype: str
) -> None:
    data = make_slices(1, 3)
    store = _store(tmp_path / "kept", data)
    (tmp_path / "spill").mkdir()
    ways = {
        "bypassed": Activations(),
        "cold": Activations(store),
        "warm": Activations(store),
        "spilled": Activations(memory_bytes=0, spill=tmp_path / "spill"),
        "spilled and kept": Activations(
            _store(tmp_path / "other", data), memory_bytes=0, spill=tmp_path / "spill"
        ),
        "evicted": Activations(_store(tmp_path / "small", data, 4000)),
    }
    trained = {}
    for way, used in ways.items():
        system = TinySystem(tiny_backbone, 1, 3, 3, dtype, used)
        system.train(data)
        trained[way] = system.artifacts
        assert list((tmp_path / "spill").iterdir()) == []  # without a name from the start
    assert all(artifacts == trained["bypassed"] for artifacts in trained.values())
    assert _kept(store) == {
        slice_digest(KEYS, rows) for rows in data.values()
    }  # it was not for want of trying
    assert (
        sum(p.stat().st_size for p in (tmp_path / "small").glob("*/*.safetensors")) <= 4000 + 2000
    )


def test_what_is_kept_is_used_and_what_is_damaged_or_forged_is_not(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    data = make_slices(1, 3)
    store = _store(tmp_path, data)
    plain = TinySystem(tiny_backbone, 1, 3, 1)
    plain.train(data)
    TinySystem(tiny_backbone, 1, 3, 1, activations=Activations(store)).train(data)
    files = sorted(store.root.glob("*/*.safetensors"))
    assert (
        len(files) == 4
    )  # two slices at two layers; the lowest block, which alone sees the third, has none below it
    for path in files:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    again = TinySystem(tiny_backbone, 1, 3, 1, activations=Activations(store))
    again.train(data)
    assert again.artifacts == plain.artifacts
    other = ActivationStore(tmp_path, b"another key", 64 * MIB)
    assert all(
        store.copy(p.parent.name, p.stem, io.BytesIO())
        and not other.copy(p.parent.name, p.stem, io.BytesIO())
        for p in store.root.glob("*/*.safetensors")
    )
    used = Activations(store)
    system = TinySystem(tiny_backbone, 1, 3, 1, activations=used)
    first = next(iter(sorted(store.root.glob("*/*.safetensors"))))
    assert used._kept(first.parent.name, first.stem) is not None  # mapped
    system.train(data)
    assert system.artifacts == plain.artifacts


def test_states_that_are_written_over_after_they_were_checked_train_as_they_were(
    tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place, as a tool does that was pointed there: before they are read, and under a stage that
    trains."""
    data = make_slices(1, 3)
    store = _store(tmp_path, data)
    plain = TinySystem(tiny_backbone, 1, 3, 1)
    plain.train(data)
    TinySystem(tiny_backbone, 1, 3, 1, activations=Activations(store)).train(data)
    real, spoilt = ActivationStore.copy, list[Path]()

    def copied(self: ActivationStore, slice_digest: str, key: str, into: IO[bytes]) -> bool:
        found = real(self, slice_digest, key, into)
        path = self._path(slice_digest, key)
        if found:
            spoilt.append(path)
            with path.open("r+b") as file:
                file.seek(-64, os.SEEK_END)
                file.write(b"\x3f" * 64)
        return found

    monkeypatch.setattr(ActivationStore, "copy", copied)
    again = TinySystem(tiny_backbone, 1, 3, 1, activations=Activations(store))
    again.train(data)
    assert spoilt and again.artifacts == plain.artifacts


def test_states_that_are_written_over_before_they_are_sealed_are_not_used(
    tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_slices(1, 3)
    store = _store(tmp_path, data)
    plain = TinySystem(tiny_backbone, 1, 3, 1)
    plain.train(data)
    real = activations._save

    def saved(states: activations.RowStates, path: Path) -> None:
        real(states, path)
        with path.open("r+b") as file:
            file.seek(-64, os.SEEK_END)
            file.write(b"\x3f" * 64)

    monkeypatch.setattr(activations, "_save", saved)
    TinySystem(tiny_backbone, 1, 3, 1, activations=Activations(store)).train(data)
    monkeypatch.setattr(activations, "_save", real)
    assert not list(store.root.glob("*/*.safetensors"))
    again = TinySystem(tiny_backbone, 1, 3, 1, activations=Activations(store))
    again.train(data)
    assert again.artifacts == plain.artifacts


def test_hazard_13_kept_states_of_a_slice_say_nothing_of_any_other_slice(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    data = make_slices(1, 3)
    longer = data | {
        SliceId(0, 1): make_slices(1, 3, rows=30)[SliceId(0, 1)]
    }  # other lengths, other padding
    found = []
    for name, slices in (("a", data), ("b", longer)):
        store = _store(tmp_path / name, slices)
        TinySystem(tiny_backbone, 1, 3, 3, activations=Activations(store)).train(slices)
        untouched = [slice_digest(KEYS, slices[SliceId(0, i)]) for i in (0, 2)]
        found.append(
            {
                p.relative_to(store.root).as_posix(): p.read_bytes()
                for d in untouched
                for p in (store.root / d).glob("*.safetensors")
            }
        )
    assert found[0] == found[1] != {}


def test_after_an_erasure_nothing_of_the_slice_is_kept_or_can_come_back(
    tiny_backbone: Path, tmp_path: Path
) -> None:
    data = make_slices(1, 3)
    store = _store(tmp_path, data)
    system = TinySystem(tiny_backbone, 1, 3, 3, activations=Activations(store))
    system.train(data)
    gone = slice_digest(KEYS, data[SliceId(0, 1)])
    remaining = data | {SliceId(0, 1): data[SliceId(0, 1)][1:]}
    live = {slice_digest(KEYS, rows) for rows in remaining.values()}
    (store.root / gone / ".tmp-half").write_bytes(b"of a killed process")
    assert gone in _kept(store) and store.allow(live) == 2
    assert (
        _kept(store) == live - {slice_digest(KEYS, remaining[SliceId(0, 1)])}
        and not (store.root / gone).exists()
    )
    TinySystem(tiny_backbone, 1, 3, 3, activations=Activations(store)).train(
        data
    )  # it began before the erasure
    assert not (store.root / gone).exists()
    retrained = TinySystem(
        tiny_backbone, 1, 3, 3, activations=Activations(store), artifacts=dict(system.artifacts)
    )
    fresh = TinySystem(tiny_backbone, 1, 3, 3)
    retrained.train(remaining)
    fresh.train(remaining)
    assert all(retrained.artifacts[k] == v for k, v in fresh.artifacts.items())
    assert ActivationStore(tmp_path, KEYS.content, 0).allow(live) > 0 and not _kept(
        store
    )  # no longer wanted at all


def test_the_key_of_kept_states_names_everything_that_decides_them(tiny_backbone: Path) -> None:
    from dataclasses import replace

    system = TinySystem(tiny_backbone, 1, 3, 3)
    recipe, profile = system.recipe, system.recipe.profile
    others = [
        replace(recipe, backbone_digest="x"),
        replace(recipe, tokenizer_digest="x"),
        replace(recipe, max_length=9),
        replace(recipe, training={**recipe.training, "dtype": "bfloat16"}),
        replace(recipe, profile=replace(profile, threads=2)),
        replace(recipe, profile=replace(profile, cpu_capability="other")),
    ]
    keys = {states_key(r, "digest", 1, 5) for r in [recipe, *others]}
    keys |= {
        states_key(recipe, "other", 1, 5),
        states_key(recipe, "digest", 2, 5),
        states_key(recipe, "digest", 1, 4),
    }
    assert len(keys) == len(others) + 4


def test_states_are_those_that_the_whole_model_has_there(tiny_backbone: Path) -> None:
    system, data = TinySystem(tiny_backbone, 1, 3, 1), make_slices(1, 3, rows=40)
    rows = sorted(data[SliceId(0, 0)])
    staged = StagedModel(load_model(system.backbone), system.recipe)
    encoded = encode(load_reader(system.backbone, system.recipe), rows, staged.task)
    found = Activations().of_slice(staged.split, system.recipe, "d", encoded, 2)
    for i, row in enumerate(encoded.items):
        batch = {
            "input_ids": torch.tensor([row], device=DEVICE),
            "attention_mask": torch.ones(1, len(row), dtype=torch.long, device=DEVICE),
        }
        whole = staged.model(**batch, output_hidden_states=True).hidden_states[2][0].cpu()
        assert torch.allclose(found.row(i), whole, atol=1e-5)
    assert dataset_of(data, 1, 3).rows() == sum(map(len, data.values()))
