"""Where models are loaded: what a dead process left is swept, whatever number it had; what a living
one uses stays."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from flows.adapters import loading
from flows.adapters.loading import folder_in_use, sweep_unused, wait_until_unused
from flows.workspace.creating import create_workspace
from flows.workspace.sweeping import sweep
from s3t_core.config import Config
from s3t_core.errors import Busy, StorageError
from tests.held import HELD

_LOADS = """
import sys, time
from pathlib import Path
from flows.adapters.loading import folder_in_use
with folder_in_use(Path(sys.argv[1])) as folder:
    (folder / "stage.safetensors").write_text("weights")
    print(folder, flush=True)
    time.sleep(99)
"""


@pytest.mark.parametrize(
    "name", ["1-abc", "{me}-abc", "{parent}-", "tmpabc", "-", "x", "0-a", "-1-a"]
)
def test_what_a_dead_process_left_is_swept_whatever_its_number_was(
    tmp_path: Path, name: str
) -> None:
    place = create_workspace(tmp_path, Config(), b"\1" * 32)
    left = (
        place.state_dir / "loading" / name.format(me=os.getpid(), parent=os.getppid()) / "artifacts"
    )
    left.mkdir(parents=True)
    (left / "stage.safetensors").write_text("weights")
    sweep(place, HELD)
    assert not left.parent.exists()


def test_what_a_living_process_loads_stays_until_it_dies(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _LOADS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        try:
            sweep_unused(tmp_path)
            assert (folder / "stage.safetensors").exists()
        finally:
            process.kill()
    assert folder.exists()
    sweep_unused(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_who_must_know_that_it_is_gone_waits_until_its_process_lets_go(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _LOADS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        try:
            with pytest.raises(Busy, match="1 process"):
                wait_until_unused(tmp_path, 0.5)
            assert (folder / "stage.safetensors").exists()
            threading.Timer(0.5, process.kill).start()
            wait_until_unused(tmp_path, 30)
            assert not folder.exists()
        finally:
            process.kill()
    wait_until_unused(tmp_path / "nowhere", 0)


def test_a_sweep_that_comes_between_making_and_locking_takes_nothing_from_anybody(
    tmp_path: Path,
) -> None:
    ended = threading.Event()

    def sweeps() -> None:
        while not ended.is_set():
            sweep_unused(tmp_path)

    sweeping = threading.Thread(target=sweeps)
    sweeping.start()
    try:
        for _ in range(300):
            with folder_in_use(tmp_path) as folder:
                (folder / "a").write_text("weights")
                assert (folder / "a").read_text() == "weights"
            assert not folder.exists()
    finally:
        ended.set()
        sweeping.join()


def test_what_a_sweep_took_between_making_and_locking_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, swept = loading._locked, list[Path]()

    def sweeps_first(folder: Path, kind: int) -> Any:
        if not swept:
            swept.append(folder)
            sweep_unused(tmp_path)
        return locked(folder, kind)

    monkeypatch.setattr(loading, "_locked", sweeps_first)
    with folder_in_use(tmp_path) as folder:
        assert folder.is_dir() and swept and swept != [folder]


def test_a_link_goes_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a").write_text("kept")
    (tmp_path / "loading").mkdir()
    (tmp_path / "loading" / "link").symlink_to(tmp_path / "theirs")
    os.mkfifo(tmp_path / "loading" / "pipe")
    sweep_unused(tmp_path / "loading")
    assert list((tmp_path / "loading").iterdir()) == [] and (tmp_path / "theirs" / "a").exists()


def test_a_directory_that_cannot_be_locked_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(StorageError, match="can be locked, got Permission denied; fix"):
        sweep_unused(tmp_path)
