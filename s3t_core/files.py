"""Files that are whole or absent, and that are gone when removed."""

import os
import tempfile
from pathlib import Path

from s3t_core.errors import StorageError

TEMPORARY_PREFIX = ".tmp-"
"""Names of files that are being written; one that stays was left by a killed process."""


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Temporary file, sync, rename, sync the directory: `path` is whole or as it was. Raises StorageError."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY_PREFIX)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise StorageError(f"could not write {path.name}: {error.strerror or type(error).__name__}; "
                           "free space or fix permissions, then run the command again") from None


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
