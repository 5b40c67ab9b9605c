"""Places of Dask workers: which one it is, whose directories lie there, and what goes."""

import os
import stat
import sys
import tempfile
from collections import UserDict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from flows.adapters import places
from flows.adapters.away import AwayFiles, Looked
from flows.adapters.dask_runner import Declined
from flows.adapters.places import here, look, working_directory
from s3t_core.errors import WorkspaceError

if TYPE_CHECKING:
    from s3t_core.learning.jobs import StageJob

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


@pytest.mark.parametrize(
    ("is_on", "mounts"),
    [
        ({"tmpfs"}, "30 1 {} / {} rw - tmpfs none rw\n31 1 8:1 / / rw - ext4 /dev/sda1 rw\n"),
        (set(), "30 1 0:99 / {1} rw - tmpfs none rw\n31 30 {0} /d {1} rw - ext4 /dev/sda1 rw\n"),
        (set(), "30 1 0:99 / {1} rw - tmpfs none rw\n31 30 {0} / /up rw,a:1 - ext4 /dev/x rw\n"),
        (set(), "30 1 0:99 / {1} rw - tmpfs none rw\n"),
        (set(), ""),
    ],
)
def test_what_is_in_memory_is_said_by_the_file_system_and_not_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_on: set[str], mounts: str
) -> None:
    """A disk that is mounted over one in memory, or above it, is a disk."""
    monkeypatch.undo()
    known = tmp_path.stat().st_dev
    told = tmp_path / "mountinfo"
    told.write_text(mounts.format(f"{os.major(known)}:{os.minor(known)}", tmp_path))
    monkeypatch.setattr(places, "_MOUNTS", told)
    assert places._in_memory(tmp_path) == bool(is_on)
    monkeypatch.setattr(places, "_MOUNTS", tmp_path / "none")
    assert not places._in_memory(tmp_path)


def _settled(lease: str, seen: str) -> bool:
    """Whether a lease of one place ends when a worker at the other one has looked."""
    with tempfile.TemporaryDirectory() as folder:
        away = AwayFiles(Path(folder))
        job = away.begin(["a" * 64], {lease: "10.0.0.5"})
        return not away.settle(job, [Looked(seen, frozenset())]).places


def test_what_memory_held_went_with_a_reboot_and_with_nothing_else(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two directories may have one path, in containers or mount namespaces, and two users may work
    in one: neither can say of the other's that nothing is there."""
    monkeypatch.setattr(places, "_in_memory", lambda folder: True)
    boot = temporary.with_name("boot_id")
    boot.write_text("first\n")
    monkeypatch.setattr(places, "_BOOT", boot)
    before = here()
    assert list(temporary.iterdir()) == [] and here() == before and _settled(before, here())
    temporary.rename(temporary.with_name("aside"))
    temporary.mkdir()
    assert not _settled(before, here())
    monkeypatch.setattr("os.getuid", lambda: 65534)
    another = here()
    assert not _settled(before, another) and _settled(another, another)
    boot.write_text("second\n")
    assert _settled(before, here()) and _settled(another, here())
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert not _settled(before, here())
    monkeypatch.setattr(places, "_in_memory", lambda folder: False)
    assert not _settled(before, here())


def test_a_worker_that_may_spill_carries_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it trained would lie on its disk, in a directory of Dask's, when it is killed."""
    from flows.adapters.dask_runner import Task, carry_out

    worker = SimpleNamespace(data={}, address="tcp://10.0.0.5:1")
    dask = SimpleNamespace(get_worker=lambda: worker)
    monkeypatch.setitem(sys.modules, "distributed", cast("ModuleType", dask))
    task = Task(cast("StageJob", None), (), "job", frozenset())
    assert isinstance(carry_out(task), Declined)
    worker.data = UserDict()  # as zict's buffers are: a mapping, and no dict
    refused = carry_out(task)
    assert isinstance(refused, WorkspaceError) and "MEMORY__SPILL=false" in str(refused)


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
