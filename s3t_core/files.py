"""Files that are whole or absent, and that are gone when removed."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from s3t_core.errors import StorageError

TEMPORARY_PREFIX = ".tmp-"
"""Names of files that are being written; one that stays was left by a killed process."""


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Temporary file, sync, rename, sync the directory: `path` is whole or as it was. Raises StorageError."""
    write_each_atomically(path.parent, {path.name: data}, mode)


def write_each_atomically(folder: Path, files: Mapping[str, bytes], mode: int = 0o644) -> None:
    """The same for many files of one directory: each is whole or as it was, and all are durable when this returns.
    Raises StorageError."""
    written: dict[str, Path] = {}
    name = folder.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            written[name] = _temporary(folder, data, mode)
        if len(files) > 1:
            os.sync()  # all at once; what is clean already is synced below in no time, and tells of errors
        for temporary in written.values():
            _sync(temporary)
        for name in files:
            os.replace(written.pop(name), folder / name)
        sync_directory(folder)
    except OSError as error:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)
        raise StorageError(f"could not write {name}: {error.strerror or type(error).__name__}; "
                           "free space or fix permissions, then run the command again") from None


def _temporary(folder: Path, data: bytes, mode: int) -> Path:
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=TEMPORARY_PREFIX)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(descriptor, mode)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def remove_file(path: Path) -> None:
    """Unlink and sync the directory, so that a crash does not bring the file back. No error when it is gone."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """fsync a directory: renames and unlinks in it are durable afterwards."""
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
