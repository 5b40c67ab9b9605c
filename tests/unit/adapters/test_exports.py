"""What an erasure may remove where a checkpoint was put, and what it may not touch."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.adapters.exports import RECORD, ExportedFiles, beside, digests_of, write_record
from s3t_core.erasure.state import ExportRecord
from s3t_core.keys import seal_over

KEY = b"k" * 32
FILES = ("model.safetensors", "tokenizer.json", "chat_template.jinja")


def _put(place: Path, name: str = "export-1") -> ExportRecord:
    place.mkdir(parents=True)
    for file in FILES:
        (place / file).write_bytes(f"{file} of the backbone, or of the model".encode())
    write_record(place, {"export": name})
    return ExportRecord(name, "release-1", "2026-01-01T00:00:00Z", str(place), digests_of(place))


def _linked(place: Path) -> Path:
    """It was moved, and a link leads to it."""
    moved = place.with_name("moved")
    place.rename(moved)
    place.symlink_to(moved)
    return moved


def _above(place: Path) -> Path:
    """The directory above it was."""
    moved = place.parent.with_name("moved")
    place.parent.rename(moved)
    place.parent.symlink_to(moved)
    return moved / place.name


def _backbone(place: Path) -> Path:
    """A link leads to a backbone, whose tokenizer is the export's byte for byte."""
    place.rename(place.with_name("moved"))
    other = place.with_name("backbone")
    _put(other)
    (other / RECORD).unlink()
    (other / "model.safetensors").write_bytes(b"the backbone's weights")
    place.symlink_to(other)
    return other


@pytest.mark.parametrize("done", [_linked, _above, _backbone])
def test_no_link_is_followed(tmp_path: Path, done: Callable[[Path], Path]) -> None:
    export = _put(tmp_path / "of" / "plain")
    behind = done(Path(export.place))
    before = digests_of(behind)
    assert ExportedFiles(KEY).destroy([export]) == []
    assert digests_of(behind) == before, "not one file, and its record says nothing"


@pytest.mark.parametrize("above", [False, True])
def test_no_link_by_the_name_that_it_comes_by_is_followed(tmp_path: Path, above: bool) -> None:
    export = _put(tmp_path / "of" / "plain")
    thesis = tmp_path / "thesis"
    incoming = beside(Path(export.place), export.export)
    (thesis / incoming.name if above else thesis).mkdir(parents=True)
    work = (thesis / incoming.name if above else thesis) / "model.safetensors"
    work.write_text("years of work")
    if above:
        Path(export.place).parent.rename(tmp_path / "moved")
        Path(export.place).parent.symlink_to(thesis)
    else:
        incoming.symlink_to(thesis)
    ExportedFiles(KEY).destroy([export])
    assert work.read_text() == "years of work"


def test_without_its_record_only_weights_go(tmp_path: Path) -> None:
    """What else has its bytes may be the backbone's own directory."""
    export = _put(tmp_path / "plain")
    (tmp_path / "plain" / RECORD).unlink()
    assert ExportedFiles(KEY).destroy([export]) == []
    assert digests_of(tmp_path / "plain").keys() == set(FILES) - {"model.safetensors"}


def test_in_its_place_it_goes_and_its_record_stays(tmp_path: Path) -> None:
    export = _put(tmp_path / "plain")
    for _ in range(2):
        assert ExportedFiles(KEY).destroy([export]) == ["export-1"]
    assert digests_of(tmp_path / "plain").keys() == {RECORD}


@pytest.mark.parametrize(
    "said", [True, "0" * 64, seal_over(b"another key", "destroyed", "export-1")]
)
def test_nobody_else_says_that_it_was_destroyed(tmp_path: Path, said: object) -> None:
    """Its record lies where whoever uses it may write."""
    export = _put(tmp_path / "plain")
    (tmp_path / "plain" / "model.safetensors").rename(tmp_path / "kept")
    record = tmp_path / "plain" / RECORD
    record.write_text(json.dumps({**json.loads(record.read_bytes()), "destroyed": said}))
    assert ExportedFiles(KEY).destroy([export]) == []
