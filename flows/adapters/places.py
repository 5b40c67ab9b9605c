"""A place: the temporary directory of a machine, where Dask workers keep what they fetched while a
job runs.

1. A job's directory there bears its worker's process and its own name. It goes with the job; what a
   killed worker left goes when any worker at the place looks.
2. A place is told from others by the machine, the path, and, on a disk, by a file that lies there:
   an empty directory at which a disk is not mounted is another place. In memory it is told by the
   user and by the directory itself, of which several may bear one path, in containers or mount
   namespaces; and by the start of the machine, with which goes what memory held before it.
"""

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

from flows.adapters.away import Looked, in_memory
from flows.adapters.credentials import secret_of
from s3t_core.canonical import digest_of
from s3t_core.files import remove_tree

_PREFIX = "s3t-stage-"
_IN_MEMORY = frozenset(("tmpfs", "ramfs"))
_MOUNTS = Path("/proc/self/mountinfo")
_DEVICE = 2
"""The member of a line in which the kernel tells the device."""
_MACHINE = Path("/etc/machine-id")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_ONE_AT_A_TIME = threading.Lock()


def here() -> str:
    """This process's place: a digest, hex; in memory three of them (flows.adapters.away). Raises
    WorkspaceError where somebody else's file lies in it."""
    folder = Path(tempfile.gettempdir()).resolve()
    machine = _MACHINE.read_text().strip() if _MACHINE.is_file() else ""
    path = {"host": socket.gethostname(), "machine": machine, "folder": str(folder)}
    if _in_memory(folder):
        known = folder.stat()
        directory = {"user": os.getuid(), "device": known.st_dev, "inode": known.st_ino}
        boot = _BOOT.read_text().strip() if _BOOT.is_file() else ""
        return in_memory(digest_of({**path, "disk": ""}), digest_of(boot), digest_of(directory))
    with _ONE_AT_A_TIME:
        disk = secret_of(folder / f"s3t-place-{os.getuid()}")
    return digest_of({**path, "disk": disk})


def look() -> Looked:
    """Remove what workers were killed over at this place, and say whose directories are there.
    Raises StorageError."""
    place, jobs = here(), set()
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        number, _, rest = folder.name.removeprefix(_PREFIX).partition("-")
        began, _, rest = rest.partition("-")
        if not (number.isdecimal() and began.isdecimal() and _is_mine(folder)):
            continue  # another user's, or an earlier release's: nobody knows whose
        if _lives(int(number), int(began)):
            jobs.add(rest.partition("-")[0])
        else:
            remove_tree(folder)
    return Looked(place, frozenset(jobs))


@contextlib.contextmanager
def working_directory(job: str) -> Iterator[Path]:
    """A directory of this process for a job, which is gone afterwards."""
    began = int(psutil.Process().create_time())
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-{began}-{job}-") as folder:
        yield Path(folder)


def _is_mine(folder: Path) -> bool:
    """False also where it is gone meanwhile."""
    try:
        return folder.lstat().st_uid == os.getuid()
    except FileNotFoundError:
        return False


def _lives(number: int, began: int) -> bool:
    """Whether the process with this number that began then is there: it is told from any other that
    has the number."""
    try:
        there = psutil.Process(number)
        return int(there.create_time()) == began and there.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _in_memory(folder: Path) -> bool:
    """Whether the file system that the directory itself is on lies in memory. Its path does not
    say: of two that are mounted there, or above it, one covers the other. Where the kernel does not
    say either, it is a disk."""
    device = folder.stat().st_dev
    try:
        kinds = _kinds_of(f"{os.major(device)}:{os.minor(device)}", _MOUNTS.read_text())
    except OSError:
        return False
    return bool(kinds) and kinds <= _IN_MEMORY


def _kinds_of(device: str, mounts: str) -> set[str]:
    """The kinds of file systems on a device, "MAJOR:MINOR" (proc(5), /proc/pid/mountinfo)."""
    found = set()
    for line in mounts.splitlines():
        mount, _, kind = line.partition(" - ")
        if mount.split(" ")[_DEVICE] == device:
            found.add(kind.partition(" ")[0])
    return found
