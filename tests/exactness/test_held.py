"""What is hashed of a backbone is what computes, whatever becomes of its directory meanwhile."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from s3t_core import METHOD_VERSION
from s3t_core.errors import BackboneChanged, StorageError
from s3t_core.learning import jobs
from s3t_core.learning.backbone import check_backbone, find_backbone, load_model, load_tokenizer
from s3t_core.learning.code import CODE
from tests.tiny import build_backbone


def _other(backbone: Path, folder: Path) -> Path:
    """A model of the same shape, with other weights."""
    other = folder / "other"
    shutil.copytree(backbone, other)
    weights = load_file(other / "model.safetensors")
    changed = {name: tensor + 0.25 for name, tensor in weights.items()}
    save_file(changed, other / "model.safetensors", {"format": "pt"})
    assert (other / "model.safetensors").stat().st_size == (
        backbone / "model.safetensors"
    ).stat().st_size
    return other


def _overwritten(backbone: Path, other: Path) -> None:
    """In place, as `rsync --inplace` does."""
    with (backbone / "model.safetensors").open("r+b") as file:
        file.write((other / "model.safetensors").read_bytes())


def _cut(backbone: Path, other: Path) -> None:
    """As the beginning of `cp` leaves it: whoever had it mapped would die."""
    del other
    os.truncate(backbone / "model.safetensors", 8)


def _linked(backbone: Path, other: Path) -> None:
    backbone.rename(backbone.with_name("away"))
    backbone.symlink_to(other)


def _gone(backbone: Path, other: Path) -> None:
    del other
    shutil.rmtree(backbone)


CHANGED = pytest.mark.parametrize("change", [_overwritten, _cut, _linked, _gone])


@CHANGED
@pytest.mark.parametrize("when", ["before it is loaded", "while it is used"])
def test_a_backbone_that_is_changed_after_its_hash_computes_as_it_was(
    tmp_path: Path, change: Callable[[Path, Path], None], when: str
) -> None:
    backbone = build_backbone(tmp_path / "backbone", layers=2)
    other = _other(backbone, tmp_path)
    asked = torch.tensor([[2, 5, 7, 3]])
    expected = load_model(find_backbone(str(backbone)))(asked).last_hidden_state
    found = find_backbone(str(backbone))
    if when == "before it is loaded":
        change(backbone, other)
    with found:
        model = load_model(found)
        assert load_tokenizer(found)("w1")["input_ids"]
    if when == "while it is used":
        change(backbone, other)
    assert torch.equal(model(asked).last_hidden_state, expected)
    assert not found.path.exists()
    if change in (_overwritten, _linked):
        with pytest.raises(BackboneChanged):
            check_backbone(find_backbone(str(backbone)), found.digest, found.tokenizer_digest)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what is mapped")
def test_no_weight_of_a_loaded_model_is_a_file_that_anybody_can_change(tmp_path: Path) -> None:
    backbone = build_backbone(tmp_path / "backbone", layers=2)
    model = load_model(find_backbone(str(backbone)))
    mapped = Path("/proc/self/maps").read_text()
    assert str(tmp_path) not in mapped and model.training is False


def test_a_model_of_which_a_file_goes_while_it_is_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = build_backbone(tmp_path / "backbone", layers=2)
    real = shutil.copyfile

    def copied(source: Path, copy: Path) -> object:
        (backbone / "model.safetensors").unlink(missing_ok=True)
        return real(source, copy)

    monkeypatch.setattr(shutil, "copyfile", copied)
    before = set(Path(tempfile.gettempdir()).glob("s3t-backbone-*"))
    with pytest.raises(BackboneChanged, match="got one that went"):
        find_backbone(str(backbone))
    assert set(Path(tempfile.gettempdir()).glob("s3t-backbone-*")) <= before


def test_without_a_temporary_directory_the_model_is_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = build_backbone(tmp_path / "backbone", layers=2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(StorageError, match="set TMPDIR"):
        find_backbone(str(backbone))


@pytest.mark.parametrize("ending", [".safetensors", ".json"])
@pytest.mark.parametrize("memory", [True, False], ids=["in memory", "in the temporary directory"])
def test_without_room_for_a_backbone_it_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: bool, ending: str
) -> None:
    backbone = build_backbone(tmp_path / "backbone", layers=2)
    real = shutil.copyfile

    def copied(source: Path, copy: Path) -> object:
        if source.suffix == ending:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(source, copy)

    monkeypatch.setattr(shutil, "copyfile", copied)
    if not memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    with pytest.raises(StorageError, match="expected room for a copy"):
        find_backbone(str(backbone))


def test_where_no_memory_without_a_name_is_a_copy_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = build_backbone(tmp_path / "backbone", layers=2)
    asked = torch.tensor([[2, 5, 7, 3]])
    expected = load_model(find_backbone(str(backbone)))(asked).last_hidden_state
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with find_backbone(str(backbone)) as found:
        assert (found.path / "model.safetensors").is_file()
        model = load_model(found)
    _cut(backbone, backbone)
    assert torch.equal(model(asked).last_hidden_state, expected) and not found.path.exists()


def test_the_weights_of_a_model_larger_than_memory_are_looked_at_again_behind_their_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read where they lie: what was computed with others is not kept."""
    backbone = build_backbone(tmp_path / "backbone", layers=2)
    other, found = _other(backbone, tmp_path), find_backbone(str(backbone))
    recipe = SimpleNamespace(
        method=METHOD_VERSION,
        model=str(backbone),
        backbone_digest=found.digest,
        tokenizer_digest=found.tokenizer_digest,
    )
    job: Any = SimpleNamespace(
        code=CODE, recipe=recipe, max_memory="cpu=1GiB", activations=None, spill=None
    )
    result = SimpleNamespace(artifact=b"", loss=0.0, score=None, steps=1, losses=())
    monkeypatch.setattr(jobs, "_trained", lambda *_: result)
    assert jobs.train(job).steps == 1

    def changed(*_: Any) -> Any:
        _overwritten(backbone, other)
        return result

    monkeypatch.setattr(jobs, "_trained", changed)
    with pytest.raises(BackboneChanged):
        jobs.train(job)
