"""Files that are whole or absent, that are their owner's alone, and that are gone when removed."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import IO, TextIO

from filelock import FileLock

from s3t_core.errors import StorageError, WorkspaceError
from s3t_core.unclosed import descriptors, open_unclosed

TEMPORARY_PREFIX = ".tmp-"
"""Names of files that are being written; one that stays was left by a killed process."""
_HALF_WRITTEN = re.compile(
    rf"{re.escape(TEMPORARY_PREFIX)}.*"  # ours; git's repack
    r"|.*\.[A-Za-z0-9_-]{22}\.tmp"  # DVC's, in its cache, in a remote, beside a file it replaces
    r"|tmp_(obj|pack|idx|rev|midx|bitmap)_\w+"
)  # git's
SHARED_MODE = 0o644
"""Of what is meant for others: settings without secrets, public keys, reports, bundles. The default
is 0600."""
OWNER = "s3t-owner"
"""The name of the mark that a place bears which is a workspace's: a file that holds the name of its
ledger (the hash of its first entry, hex)."""
_TRIES = 3
_YOUNG_SECONDS = 3600
_POLL_SECONDS = 0.01
_KERNEL = re.match(r"(\d+)\.(\d+)", os.uname().release) if sys.platform == "linux" else None
_RELEASE = (int(_KERNEL[1]), int(_KERNEL[2])) if _KERNEL is not None else (0, 0)
_HAS_SYNCFS = _RELEASE >= (5, 8)
_NO_SECOND_NAMES = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_OPEN = 200
"""Files that are open at a time."""


def write_atomically(
    path: Path,
    data: bytes,
    mode: int = 0o600,
) -> None:
    """Temporary file, sync, rename, sync the directory: `path` is whole or as it was. Raises
    StorageError."""
    write_each_atomically(
        path.parent,
        {path.name: data},
        mode,
    )


def write_each_atomically(
    folder: Path,
    files: Mapping[str, bytes],
    mode: int = 0o600,
) -> None:
    """The same for many files of one directory: each is whole or as it was, and all are durable
    when this returns. Raises StorageError."""
    names = list(files)
    for begin in range(0, len(names), _OPEN):
        _write_each(
            folder,
            {name: files[name] for name in names[begin : begin + _OPEN]},
            mode,
        )


def _write_each(
    folder: Path,
    files: Mapping[str, bytes],
    mode: int,
) -> None:
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
        raise StorageError(
            f"could not write {name}: {error.strerror or type(error).__name__}; "
            "free space or fix permissions, then run the command again"
        ) from None
    finally:
        for descriptor, _ in opened.values():
            os.close(descriptor)


def write_new(
    path: Path,
    data: bytes,
    mode: int = 0o600,
) -> bool:
    """The same where there is no file of that name, whoever else makes one at this moment; False,
    and nothing written, where there is. Raises StorageError.

    Where a file cannot have two names (some network file systems), one that another makes between
    the look and the renaming is replaced.
    """
    mine = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    write_atomically(mine, data, mode)
    try:
        os.link(mine, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_SECOND_NAMES:
            raise StorageError(
                f"could not write {path.name}: {error.strerror or type(error).__name__}; "
                "free space or fix permissions, then run the command again"
            ) from None
        if path.exists():
            return False
        os.replace(mine, path)
    finally:
        mine.unlink(missing_ok=True)
        sync_directory(path.parent)
    return True


@contextlib.contextmanager
def writing_atomically(path: Path, mode: int = 0o600) -> Iterator[TextIO]:
    """A text file (UTF-8) to write in parts; it takes the name `path` when the block ends, and is
    gone when it fails. Raises StorageError."""
    descriptor, temporary = -1, ""
    try:
        descriptor, temporary = tempfile.mkstemp(
            dir=path.parent,
            prefix=TEMPORARY_PREFIX,
        )
        with os.fdopen(
            descriptor,
            "w",
            encoding="utf-8",
            newline="",
        ) as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        raise StorageError(
            f"could not write {path.name}: {error.strerror or type(error).__name__}; "
            "free space or fix permissions, then run the command again"
        ) from None
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _sync(descriptors: list[int]) -> None:
    """Make open files of one directory durable: many at once where the system can do that and tell
    of errors, which takes one flush of the disk instead of one for each (syncfs(2), Linux 5.8)."""
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
        rest = rest[os.write(descriptor, rest) :]


def is_half_written(name: str) -> bool:
    """Whether a file of this name is on its way to another name, in any of the tools that write a
    workspace."""
    return _HALF_WRITTEN.fullmatch(name) is not None


def remove_half_written(folder: Path, is_open: Callable[[Path], bool]) -> None:
    """Remove what killed processes left half-written under `folder`; what a process has open stays.
    Raises StorageError."""
    for path in [
        p
        for p in folder.rglob("*")
        if is_half_written(p.name) and not p.is_dir() and not is_open(p)
    ]:
        remove_file(path)


def open_files() -> frozenset[tuple[int, int]]:
    """(device, inode) of every file that a process of this user has open, where the system tells
    (/proc); not what this one only keeps from being closed."""
    found: set[tuple[int, int]] = set()
    unused = {f"/proc/{os.getpid()}/fd/{n}" for n in descriptors()}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):  # another user's, or it has ended
            for entry in (e for e in os.scandir(folder) if e.path not in unused):
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def is_written(path: Path, opened: frozenset[tuple[int, int]]) -> bool:
    """Whether a process writes the file: one of `opened`, or, where the system does not tell,
    younger than an hour."""
    if not Path("/proc/self/fd").is_dir():
        return is_young(path)
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_dev, status.st_ino) in opened


def is_young(path: Path) -> bool:
    """Whether the file was changed within the last hour: somebody on another machine may write
    it."""
    try:
        return path.stat().st_mtime > time.time() - _YOUNG_SECONDS
    except OSError:
        return False


def remove_tree(place: Path) -> None:
    """Remove a directory with all that is in it; no error when there is none. Where `place` is a
    link to a directory on another disk, that directory is emptied and link and directory stay.
    Raises StorageError when anything is left, and for a link to a directory that `place` itself
    lies under."""
    target = place.resolve()
    if place.is_symlink() and place.parent.resolve().is_relative_to(target):
        raise StorageError(
            f"expected {place.name} to lead to a directory of its own, got one that holds this "
            "workspace as well; link it to a directory made for it, then run the command again"
        )
    for _ in range(_TRIES):
        doomed = _below_link(target) if place.is_symlink() else [place]
        for path in doomed:
            _remove_all(path)
        if not any(os.path.lexists(path) for path in doomed):
            return
    raise StorageError(
        f"expected everything in {place.name} to be removed, got files that cannot be: they may "
        "hold rows; fix the permissions there (or end the process that holds them), then run the "
        "command again"
    )


def _below_link(target: Path) -> list[Path]:
    """What a link stands for: the entries of the directory, or the file, that it leads to."""
    if target.is_dir():
        return sorted(target.iterdir())
    return [target] if target.exists() else []


def _remove_all(doomed: Path) -> None:
    """Try it; what is left is told by who asked."""
    if doomed.is_symlink() or not doomed.is_dir():
        with contextlib.suppress(OSError):
            doomed.unlink(missing_ok=True)
        return

    def open_up(_: object, failed: str, __: object) -> None:
        """So that the next try may list and change what is in the way, within what is doomed."""
        for folder in (Path(failed), Path(failed).parent):
            with contextlib.suppress(OSError):
                if folder.is_relative_to(doomed) and folder.is_dir() and not folder.is_symlink():
                    folder.chmod(0o700)

    shutil.rmtree(doomed, onerror=open_up)


def remove_file(path: Path) -> None:
    """Remove what has this name, a directory with all that is in it, and sync the directory above,
    so that a crash does not bring it back; of a link, the link alone. No error when it is gone.
    Raises StorageError when it stays."""
    try:
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync_directory(path.parent)
    except OSError as error:
        raise StorageError(
            f"expected {path.name} to be gone, got {error.strerror or type(error).__name__}; fix "
            "the permissions of its directory, then run the command again"
        ) from None


def open_regular(path: Path) -> BufferedReader:
    """A regular file, open to be read. Raises OSError for anything else that has a name: a
    directory, a link that leads nowhere or to itself, a pipe (which would be waited for), a socket,
    a device. What this process has locked stays locked when it is closed (s3t_core.unclosed)."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    file = open_unclosed(path)
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()  # another took its place just now
    raise OSError(errno.EINVAL, "not a regular file")


_COPIED_BYTES = 1 << 20


@contextlib.contextmanager
def own_file(folder: Path | None) -> Iterator[tuple[IO[bytes], Path]]:
    """A file in `folder` (None: the temporary directory) that no other process finds, and a path by
    which this one opens it again: what was hashed there is what is used. What maps it may go on
    afterwards. On a system without such files it has a name meanwhile, its owner's alone."""
    with tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY_PREFIX) as file:
        again = Path(f"/proc/self/fd/{file.fileno()}")
        if again.exists():
            yield file, again
            return
    with tempfile.NamedTemporaryFile(dir=folder, prefix=TEMPORARY_PREFIX) as named:
        yield named, Path(named.name)


def copy_hashed(source: IO[bytes], into: IO[bytes]) -> bytes:
    """Copy all of a file from where it stands; the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    while chunk := source.read(_COPIED_BYTES):
        digest.update(chunk)
        into.write(chunk)
    into.flush()
    return digest.digest()


def open_to_lock(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """The descriptor of a file that is locked or written to, made where there is none, its owner's
    alone. Raises WorkspaceError for a directory, a pipe (which would be waited for) or anything
    else in its place; FileNotFoundError where there is none that `flags` do not ask to make."""
    try:
        descriptor = os.open(
            path,
            flags | os.O_NONBLOCK | os.O_CLOEXEC,
            0o600,
        )
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        reason = "something else"
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not flags & os.O_CREAT:
            raise
        reason = error.strerror or type(error).__name__
    raise WorkspaceError(
        f"expected {'/'.join(path.parts[-2:])} to be a file of its own, got {reason}; take away "
        "what lies there, or fix its permissions, then run the command again"
    )


@contextlib.contextmanager
def locked(path: Path, wait_seconds: float = -1) -> Iterator[None]:
    """Hold a lock file, which a dead holder loses; waits for ever by default. Raises TimeoutError
    when another holds it for longer than `wait_seconds`, WorkspaceError for anything but a file in
    its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(open_to_lock(path))
    lock = FileLock(path, is_singleton=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=wait_seconds, poll_interval=_POLL_SECONDS)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise _no_lock(path, error) from None
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether another holds this lock file (`locked`), which is not taken for that: it is shared
    for a moment with whoever else looks. Raises WorkspaceError for anything but a file in its
    place."""
    try:
        descriptor = open_to_lock(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise _no_lock(path, error) from None
    finally:
        os.close(descriptor)
    return False


def _no_lock(path: Path, error: Exception) -> WorkspaceError:
    name = "/".join(path.parts[-2:])
    reason = getattr(error, "strerror", None) or type(error).__name__
    return WorkspaceError(
        f"expected {name} to be a file that can be locked, got {reason}; take away what lies "
        "there, or where its file system has no flock(2), put the workspace on one that has"
    )


def read_regular(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file, of `most` at most. Raises OSError for anything else that has a
    name (open_regular), and for a larger file."""
    with open_regular(path) as file:
        if most is None:
            return file.read()
        size = os.fstat(file.fileno()).st_size
        content = file.read(most + 1) if size <= most else b""
        if size > most or len(content) > most:
            raise OSError(errno.EFBIG, "too large")
        return content


def md5_of(path: Path) -> str:
    """The md5 of a file's bytes, hex: DVC's name for it."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, hex. Raises OSError for anything but a regular file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_directory(path: Path) -> None:
    """fsync a directory: renames and unlinks in it are durable afterwards."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
