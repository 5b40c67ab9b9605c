"""Databases of SQLite's, read beside whoever has them open in this process.

Where a process closes a file, through any descriptor, the kernel takes away every POSIX lock that
the process has on it (fcntl(2)). SQLite locks so: whoever reads a database as a file and closes it
has a transaction that another thread is in the middle of go on without its lock, and other
processes write between (https://www.sqlite.org/howtocorrupt.html, 2.2). So the descriptor of a
database stays open for as long as the process runs and the file has a name, and so does that of an
empty file that is open here already: a database that is being made.
"""

import contextlib
import io
import os
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SQLITE_MAGIC = b"SQLite format 3\0"
_LOCKED = "-shm"
"""The end of the name of the file on which SQLite locks a database with a write-ahead log."""
_MOST = 256
"""Descriptors that stay. Of more databases than that, those that were not read for longest are
closed, if nothing else in this process has them open."""
_open: dict[tuple[int, int], int] = {}
"""By device and inode, the one that was read last at the end."""
_readers: Counter[int] = Counter()
"""How many files read through a descriptor."""
_guard = threading.RLock()


class _Reader(io.RawIOBase):
    """A file of its own place, and no end of its own, over a descriptor."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._at = 0
        _readers[descriptor] += 1

    def close(self) -> None:
        if not self.closed:
            with _guard:
                _readers[self._descriptor] -= 1
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def readinto(self, into: "WriteableBuffer") -> int:
        count = os.preadv(self._descriptor, [into], self._at)
        self._at += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(self._descriptor).st_size}
        at = begin.get(whence, 0) + offset
        if at < 0:
            raise OSError(22, "a place before the file begins")
        self._at = at
        return at


def open_unclosed(path: Path) -> io.BufferedReader:
    """A file, open to be read. What the caller closes is closed, but for a database's. Raises
    OSError."""
    with _guard:
        status = path.stat()
        descriptor = _open.pop((status.st_dev, status.st_ino), -1)
        if descriptor < 0:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if not _is_locked_on(descriptor, path.name):
                return os.fdopen(descriptor, "rb")
        _keep(descriptor)
        return io.BufferedReader(_Reader(descriptor))


def descriptors() -> frozenset[int]:
    """Those that stay open: what is open by them, nobody uses."""
    with _guard:
        return frozenset(_open.values())


def _is_locked_on(descriptor: int, name: str) -> bool:
    try:
        head = os.pread(descriptor, len(SQLITE_MAGIC), 0)
    except OSError:
        os.close(descriptor)
        raise
    is_new = not head and _is_open_otherwise(descriptor)
    return name.endswith(_LOCKED) or head == SQLITE_MAGIC or is_new


def _keep(descriptor: int) -> None:
    """Let it stay, as the one that was read last, and let go of who is one too many, or whose file
    has no name any more; not while somebody reads."""
    status = os.fstat(descriptor)
    _open[status.st_dev, status.st_ino] = descriptor
    for key, other in list(_open.items()):
        unnamed = not os.fstat(other).st_nlink
        if other == descriptor or _readers[other]:
            continue
        if unnamed or (len(_open) > _MOST and not _is_open_otherwise(other)):
            os.close(_open.pop(key))


def _is_open_otherwise(descriptor: int) -> bool:
    """Whether this process has the file open by another descriptor as well, which may have locked
    it; True where nobody can tell."""
    file, ours = os.fstat(descriptor), Path("/proc/self/fd")
    try:
        others = [int(entry.name) for entry in ours.iterdir() if int(entry.name) != descriptor]
    except OSError:
        return True
    for other in others:
        with contextlib.suppress(OSError):  # that of the listing is closed by now
            if os.path.samestat(file, os.fstat(other)):
                return True
    return False
