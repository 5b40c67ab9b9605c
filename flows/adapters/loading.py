"""Directories that a process works in for as long as it lives, and the sweep of those whose process
has died.

1. Whoever works in one holds a lock (flock) on the directory itself; the system lets go of it when
   the process dies. The number of a process says nothing: another one may have it by now.
2. The sweep removes every directory whose lock is free, and holds it meanwhile. Between making a
   directory and locking it the sweep may come: then another is made.
3. A directory may hold what is to be destroyed: who must know that it is gone waits until its
   process has let go of it.
"""

import contextlib
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from s3t_core.errors import Busy, StorageError
from s3t_core.files import remove_file

_PAUSE_SECONDS = 0.2


def place_of_user() -> Path:
    """A directory in the temporary one where this user's commands work that have no workspace, its
    owner's alone (`sweep_of_user`). Raises StorageError where somebody else's lies in its place."""
    place = _of_user()
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    known = place.lstat()
    if known.st_uid != os.getuid() or not stat.S_ISDIR(known.st_mode) or known.st_mode & 0o077:
        raise StorageError(
            f"expected {place.name} in the temporary directory to be this user's alone, got "
            "another's or one that is open; set TMPDIR to a directory of yours"
        )
    return place


def sweep_of_user() -> None:
    """Remove what killed commands of this user left there. What somebody else put in its place has
    nothing of ours in it, and stops nobody. Raises StorageError."""
    place = _of_user()
    with contextlib.suppress(FileNotFoundError):
        known = place.lstat()
        if known.st_uid == os.getuid() and stat.S_ISDIR(known.st_mode):
            sweep_unused(place)


def _of_user() -> Path:
    return Path(tempfile.gettempdir(), f"s3t-{os.getuid()}")


@contextlib.contextmanager
def folder_in_use(place: Path) -> Iterator[Path]:
    """A new directory in `place`, which no sweep removes until the block ends; then it is gone.
    Raises StorageError."""
    while True:
        with (
            tempfile.TemporaryDirectory(dir=place) as name,
            _locked(Path(name), fcntl.LOCK_EX) as held,
        ):
            if held and os.path.lexists(name):
                yield Path(name)
                return


def sweep_unused(place: Path) -> None:
    """Remove what is in `place` and no process works in. Of a link, the link alone. Raises
    StorageError."""
    for path in sorted(place.glob("*")):
        if path.is_symlink() or not path.is_dir():
            remove_file(path)
            continue
        with _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB) as held:
            if held:
                remove_file(path)


def wait_until_unused(place: Path, seconds: float) -> None:
    """Until every directory that is in `place` now is gone: its process ended, and it was removed.
    One that comes meanwhile is of no interest. Raises Busy after so many seconds."""
    until, names = time.monotonic() + seconds, {p.name for p in place.glob("*")}
    while True:
        sweep_unused(place)
        names &= {p.name for p in place.glob("*")}
        if not names:
            return
        if time.monotonic() > until:
            raise Busy(
                "expected nobody to load a model any more that was loaded before, got "
                f"{len(names)} process(es) that still do (s3t predict): their copies of destroyed "
                "stages are in .s3t/loading. Wait for them, or end them, then run `s3t erase` again"
            )
        time.sleep(_PAUSE_SECONDS)


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Iterator[bool]:
    """Whether the lock is held now: not where another process has it, or the directory is gone.
    Raises StorageError."""
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, kind)
            held = True
        except (BlockingIOError, FileNotFoundError):
            held = False
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StorageError(
                f"expected a directory in {folder.parent.name} that can be locked, got {reason}; "
                "fix its permissions, or take it away when nobody loads, then run it again"
            ) from None
        yield held
