"""Locks of a workspace on this machine: files that whoever holds them loses by dying."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from s3t_core.errors import Busy
from s3t_core.files import is_locked, locked

_PROBES_SECONDS = 0.25
"""A lock that is free is got within that, whoever looks meanwhile whether it is held (is_held)."""


@contextlib.contextmanager
def workspace_lock(path: Path, wait_seconds: float = 0) -> Iterator[None]:
    """Hold a lock of the workspace on this machine: the one under which it changes, or the one of
    who trains. A dead holder loses it.

    Raises Busy when another holds it for longer than `wait_seconds`.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(path, max(wait_seconds, _PROBES_SECONDS)))
        except TimeoutError:
            raise Busy(
                "another s3t process works on this workspace (a training, an erasure, a decision, "
                "an export); wait for it to finish, then run the command again"
            ) from None
        yield


def is_held(path: Path) -> bool:
    """Whether somebody holds this lock just now. Of several who ask that at once none takes another
    for its holder."""
    return is_locked(path)
