"""Which export a checkpoint is, by its bytes."""

import shutil
from pathlib import Path

from flows.adapters.exports import digests_of, write_record
from flows.use_cases.exporting import verify_checkpoint
from s3t_core.domain import Release
from s3t_core.erasure.state import ExportRecord, State, VersionRecord

NOW = "2026-01-01T00:00:00Z"


def _twice(folder: Path) -> tuple[State, list[str]]:
    """The release that serves, exported twice: the weights are the same bytes."""
    exports = {}
    for name in ("export-1", "export-2"):
        place = folder / name
        place.mkdir()
        (place / "model.safetensors").write_bytes(b"the weights")
        (place / "README.md").write_text(f"written as {name}")
        write_record(place, {"export": name})
        exports[name] = ExportRecord(name, "release-1", NOW, str(place), digests_of(place))
    serving = VersionRecord(Release("release-1", "", ()), "1", "run", "model", "train", NOW, {}, 0)
    return State(exports=exports, versions=[serving]), list(exports)


def test_of_two_with_the_same_weights_it_is_the_one_that_its_record_names(tmp_path: Path) -> None:
    state, names = _twice(tmp_path)
    for name in names:
        shutil.copytree(tmp_path / name, tmp_path / f"copy of {name}")
        for folder in (tmp_path / name, tmp_path / f"copy of {name}"):
            told = verify_checkpoint(folder, state)
            assert (told["export"], told["serves"], told["problems"]) == (name, True, [])


def test_what_was_changed_is_told_of_that_one_and_without_a_record_of_the_newest(
    tmp_path: Path,
) -> None:
    state, (first, newest) = _twice(tmp_path)
    (tmp_path / first / "README.md").write_text("changed")
    told = verify_checkpoint(tmp_path / first, state)
    assert told["export"] == first and "README.md" in told["problems"][0]
    (tmp_path / first / "s3t-release.json").unlink()
    assert verify_checkpoint(tmp_path / first, state)["export"] == newest
