"""Places of Dask workers: which one it is, whose directories lie there, and what goes."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from flows.adapters import places
from flows.adapters.places import here, look, working_directory

NOBODY = 2**22 + 1
"""A number that no process has."""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(places, "_in_memory", lambda folder: False)
    return tmp_path


def test_an_empty_directory_where_the_disk_was_is_another_place(temporary: Path) -> None:
    before = here()
    assert here() == before
    (temporary / f"s3t-place-{os.getuid()}").unlink()
    assert here() != before


def test_a_file_system_in_memory_is_the_same_place_after_a_reboot(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_in_memory", lambda folder: True)
    before = here()
    assert list(temporary.iterdir()) == [] and here() == before


def test_another_directory_or_machine_is_another_place(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_in_memory", lambda folder: True)
    before = {here()}
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    before.add(here())
    (temporary / "b").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "b"))
    assert len({*before, here()}) == 3


def test_what_the_dead_left_goes_and_what_the_living_work_on_is_told(temporary: Path) -> None:
    dead, odd = temporary / f"s3t-stage-{NOBODY}-1-{'d' * 32}-x", temporary / "s3t-stage-nobody"
    reborn = temporary / f"s3t-stage-{os.getpid()}-1-{'e' * 32}-x"  # another process had our number
    for folder in (dead, odd, reborn):
        folder.mkdir()
        (folder / "0.parquet").write_bytes(b"rows")
    with working_directory("f" * 32) as mine:
        assert stat.S_IMODE(mine.stat().st_mode) == 0o700
        assert look().jobs == {"f" * 32}
        assert mine.exists() and odd.exists() and not dead.exists() and not reborn.exists()
    assert look().jobs == set() and not mine.exists()
