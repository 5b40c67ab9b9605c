"""Files and directories that are their owner's alone."""

import contextlib
import os
import stat
from pathlib import Path


def close_to_others(path: Path) -> None:
    """Make a directory its owner's alone, if there is one; another user's is theirs to open and
    close."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        path.chmod(0o700)


def close_files_to_others(folder: Path) -> None:
    """Make what holds rows below a directory its owner's alone to read: DVC, run by hand, writes it
    as this user's umask has it. What is not theirs to change stays."""
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            mode = path.lstat().st_mode
            if mode & 0o077 and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                path.chmod(stat.S_IMODE(mode) & 0o700)


def as_owner_only(path: Path) -> None:
    """Make a directory its owner's alone."""
    path.mkdir(parents=True, exist_ok=True)
    os.chmod(path, 0o700)
