"""Locks of a workspace, and whether somebody holds one."""

import threading
from pathlib import Path

import pytest

from flows.adapters.locks import is_held, workspace_lock
from s3t_core.errors import Busy, WorkspaceError


def test_who_looks_whether_it_is_held_neither_is_its_holder_nor_keeps_it_from_one(
    tmp_path: Path,
) -> None:
    path, stop, seen = tmp_path / "a.lock", threading.Event(), list[bool]()
    assert not is_held(path) and not path.exists()
    path.touch()

    def look() -> None:
        while not stop.is_set():
            seen.append(is_held(path))
            stop.wait(0.001)

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for looker in lookers:
        looker.start()
    while len(seen) < 1000:
        stop.wait(0.01)
    free = any(seen)
    for _ in range(100):
        with workspace_lock(path):  # or it raises Busy
            assert is_held(path)
    stop.set()
    for looker in lookers:
        looker.join()
    assert not free


def test_a_lock_that_another_holds_is_told(tmp_path: Path) -> None:
    with workspace_lock(tmp_path / "a.lock"):
        assert is_held(tmp_path / "a.lock")
        with pytest.raises(Busy), workspace_lock(tmp_path / "a.lock"):
            pass
    assert not is_held(tmp_path / "a.lock")
    (tmp_path / "odd").mkdir()
    with pytest.raises(WorkspaceError, match="a file of its own"):
        is_held(tmp_path / "odd")
