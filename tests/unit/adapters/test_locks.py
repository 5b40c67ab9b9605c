"""Locks of a workspace, and whether somebody holds one."""

import fcntl
import threading
from pathlib import Path

import pytest

from flows.adapters.locks import is_held, workspace_lock
from s3t_core.errors import Busy, WorkspaceError


def test_of_several_who_look_whether_it_is_held_none_is_its_holder(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.lock"
    assert not is_held(path) and not path.exists()
    path.touch()
    with path.open("rb") as looked:
        fcntl.flock(looked, fcntl.LOCK_SH)
        assert not is_held(path)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert is_held(path)


def test_a_lock_that_somebody_looks_at_is_got(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.touch()
    with path.open("rb") as looked:
        fcntl.flock(looked, fcntl.LOCK_SH)
        looks = threading.Timer(0.05, fcntl.flock, (looked, fcntl.LOCK_UN))
        looks.start()
        with workspace_lock(path):  # or it raises Busy
            assert is_held(path)
        looks.join()


def test_a_lock_that_another_holds_is_told(tmp_path: Path) -> None:
    with workspace_lock(tmp_path / "a.lock"):
        assert is_held(tmp_path / "a.lock")
        with pytest.raises(Busy), workspace_lock(tmp_path / "a.lock"):
            pass
    assert not is_held(tmp_path / "a.lock")
    (tmp_path / "odd").mkdir()
    with pytest.raises(WorkspaceError, match="a file of its own"):
        is_held(tmp_path / "odd")
