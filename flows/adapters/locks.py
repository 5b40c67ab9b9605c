"""Locks of a workspace on this machine: files that whoever holds them loses by dying."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from s3t_core.errors import Busy
from s3t_core.files import locked


@contextlib.contextmanager
def workspace_lock(path: Path, wait_seconds: float = 0) -> Iterator[None]:
    """Hold a lock of the workspace on this machine: the one under which it changes, or the one of
    who trains. A dead holder loses it.

    Raises Busy when another holds it for longer than `wait_seconds`.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(path, wait_seconds))
        except TimeoutError:
            raise Busy(
                "another s3t process works on this workspace (a training, an erasure, a decision, "
                "an export); wait for it to finish, then run the command again"
            ) from None
        yield


def is_held(path: Path) -> bool:
    """Whether somebody holds this lock just now."""
    try:
        with workspace_lock(path):
            return False
    except Busy:
        return True
