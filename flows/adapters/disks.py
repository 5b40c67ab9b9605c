"""Directories of the system's that stand on another disk, behind a link or as a mount: that they
are there.

1. While such a disk is away the place of it is an empty directory. Whatever looks for rows or
   stages finds none there, and what is on the disk would outlive an erasure and its certificate.
2. So such a directory bears the workspace's mark, and the ledger names it, before anything is
   written through it. From then on the mark must be there, wherever the directory leads by then:
   whoever moves it takes the mark along.
3. Sweeps and erasures spare the mark (s3t_core.files.OWNER).

Directories that a setting names outside the workspace are marked as that setting's
(adapters.marks).
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from s3t_core.errors import WorkspaceError
from s3t_core.files import OWNER
from s3t_core.learning.store import LocalBlobs

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_BESIDE = (".git", ".git/objects", ".dvc", ".dvc/tmp", ".dvc/cache")
_OF_DVC = (".", "files", "files/md5")
_KEYS = "keys"
"""Without them no command begins; and whoever mounts them may have mounted them to read alone."""


def on_other_disks(root: Path, kept: Iterable[Path]) -> list[str]:
    """Names of the directories of the workspace at `root` that are links to directories, or mounts:
    relative to it, or absolute where they lie outside. `kept`: the store, the remote, DVC's
    caches."""
    state, kept = root / ".s3t", list(kept)
    own = [root / name for name in _BESIDE]
    own += sorted(p for p in state.glob("*") if p.name != _KEYS)
    own += [place / name for place in kept for name in _OF_DVC]
    within = [state, root / ".dvc", root / ".git", *kept]
    mounts = set(_mounts())
    own += sorted(m for m in mounts if any(_is_below(m, place) for place in within))
    found = dict.fromkeys(
        _name(path, root)
        for path in own
        if path.is_dir()
        and (path.is_symlink() or Path(os.path.realpath(path)) in mounts)
        and (path.is_relative_to(root) or path not in kept)
    )
    return [n for n in found if n not in (".", ".s3t") and not n.startswith(f".s3t/{_KEYS}")]


def mark(root: Path, name: str, owner: str) -> None:
    """Leave the workspace's mark in a directory. Raises StorageError, and WorkspaceError where it
    bears another one's."""
    if not _is_marked(root / name, owner, name):
        LocalBlobs(root / name).write(OWNER, owner.encode())


def check_there(root: Path, named: Iterable[str], owner: str) -> None:
    """That every one of these directories bears the mark, or an empty one, which an operator makes
    by hand. Raises WorkspaceError."""
    for name in named:
        if not _is_marked(root / name, owner, name):
            raise WorkspaceError(
                f"expected {name}, which stood on another disk, with the mark of this workspace, "
                "got a directory without it: rows or stages may be on that disk, and an erasure "
                f"would not reach them. Mount it; or, where all of it was moved here or destroyed, "
                f"make an empty file {name}/{OWNER}, then run the command again"
            )


def _is_marked(place: Path, owner: str, name: str) -> bool:
    found = LocalBlobs(place).read(OWNER)
    if found and found != owner.encode():
        raise WorkspaceError(
            f"expected {name} to lead to a directory of this workspace's own, got one with the "
            "mark of another workspace, whose files an erasure here would destroy; let it lead "
            "elsewhere"
        )
    return found is not None


def _name(path: Path, root: Path) -> str:
    here = Path(os.path.realpath(root))
    base = root if path.is_relative_to(root) else here
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


def _is_below(path: Path, place: Path) -> bool:
    real = Path(os.path.realpath(place))
    return path != real and path.is_relative_to(real)


def _mounts() -> Iterator[Path]:
    """Where something is mounted, as the kernel tells this process (proc(5), mountinfo); none where
    it does not."""
    try:
        lines = _MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        place = line.split(" ")[4]
        yield Path(_ESCAPED.sub(lambda m: chr(int(m[1], 8)), place))
