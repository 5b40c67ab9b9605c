"""Files that are whole or absent, and that are gone when removed."""

import errno
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from s3t_core.errors import StorageError

TEMPORARY_PREFIX = ".tmp-"
"""Names of files that are being written; one that stays was left by a killed process."""
_KERNEL = re.match(r"(\d+)\.(\d+)", os.uname().release) if sys.platform == "linux" else None
_HAS_SYNCFS = _KERNEL is not None and (int(_KERNEL[1]), int(_KERNEL[2])) >= (5, 8)
_OPEN = 200
"""Files that are open at a time."""


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Temporary file, sync, rename, sync the directory: `path` is whole or as it was. Raises StorageError."""
    write_each_atomically(path.parent, {path.name: data}, mode)


def write_each_atomically(folder: Path, files: Mapping[str, bytes], mode: int = 0o644) -> None:
    """The same for many files of one directory: each is whole or as it was, and all are durable when this returns.
    Raises StorageError."""
    names = list(files)
    for begin in range(0, len(names), _OPEN):
        _write_each(folder, {name: files[name] for name in names[begin:begin + _OPEN]}, mode)


def _write_each(folder: Path, files: Mapping[str, bytes], mode: int) -> None:
    opened: dict[str, tuple[int, str]] = {}
    name = folder.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            opened[name] = tempfile.mkstemp(dir=folder, prefix=TEMPORARY_PREFIX)
            _write(opened[name][0], data)
            os.fchmod(opened[name][0], mode)
        _sync([descriptor for descriptor, _ in opened.values()])
        for name, (_, temporary) in opened.items():
            os.replace(temporary, folder / name)
        sync_directory(folder)
    except OSError as error:
        for _, temporary in opened.values():
            Path(temporary).unlink(missing_ok=True)
        raise StorageError(f"could not write {name}: {error.strerror or type(error).__name__}; "
                           "free space or fix permissions, then run the command again") from None
    finally:
        for descriptor, _ in opened.values():
            os.close(descriptor)


def _sync(descriptors: list[int]) -> None:
    """Make open files of one directory durable: many at once where the system can do that and tell of errors, which
    takes one flush of the disk instead of one for each (syncfs(2), Linux 5.8)."""
    if len(descriptors) > 1 and _HAS_SYNCFS:
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptors[0]) == 0:
            return
        if ctypes.get_errno() != errno.ENOSYS:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    for descriptor in descriptors:
        os.fsync(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest):]


def remove_file(path: Path) -> None:
    """Unlink and sync the directory, so that a crash does not bring the file back. No error when it is gone."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """fsync a directory: renames and unlinks in it are durable afterwards."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
