"""What the system keeps stands on files and directories of its own: seen to before anything is
changed.

1. A link in the place of a file of ours is refused. What is destroyed or written anew there is the
   link: what it leads to would keep the rows, and no scan would come there any more.
2. So is a link in the place of a directory of ours, and a mount there: while its disk is away the
   place of it is an empty directory. Whatever looks for rows or stages finds none in it, and what
   is on the disk would outlive an erasure and its certificate. `.s3t/keys` alone may be
   either: nothing is written there that an erasure must find, and without keys no command begins.
3. A place outside that a setting names (the store, the remote, DVC's cache, another remote) may be
   reached by a link, or be a mount: it bears the workspace's mark (adapters.marks), or has DVC's
   directories in it (workspace.stores), without which it counts as away. Below it there is neither.
4. A pipe, a device or a socket is refused where a file is opened by its name: it would be waited
   for.
5. So is what others may change of that which has git run programs, or DVC send data
   (adapters.permissions).

Only names and kinds are read, which costs one look at each directory. A second name of a file (a
hard link) is none of this: it is a copy (docs/threat-model.md).
"""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from flows.adapters.permissions import refuse_open_to_others
from s3t_core.erasure.walk import git_homes
from s3t_core.errors import GuaranteeError

_KEPT = ("quarantine", "needles", "activations", "stages", "mlartifacts", "dvc-site", "remote")
"""What lies there is destroyed by its name."""
_SWEPT = ("tmp", "next", "placing", "loading")
"""What else lies there than files goes with the next sweep."""
_KEYS = "keys"
_MOUNTS = Path("/proc/self/mountinfo")
_MOUNTED_AT = 4
"""The member of a line in which the kernel tells where."""
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_OPENED = (
    "s3t.toml",
    "data.dvc",
    ".dvcignore",
    ".gitignore",
    ".dvc/config",
    ".dvc/config.local",
    ".dvc/.gitignore",
    ".git/HEAD",
    ".git/index",
    ".git/config",
    *(
        f".s3t/{name}.db{more}"
        for name in ("s3t", "mlflow")
        for more in ("", "-journal", "-wal", "-shm")
    ),
)
"""Files that are opened by their name; what an operator links there is theirs."""
_OBJECT = re.compile(r"(.*/)?[0-9a-f]{2}/[0-9a-f]{30}")
WORKSPACE_SIGN = Path(".s3t") / "keys"
"""What a directory has in it that is a workspace."""
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_footing(root: Path, stores: Iterable[Path] = (), of_dvc: Iterable[Path] = ()) -> None:
    """Look at what the workspace keeps below `root`, and at places of its that settings name,
    wherever they are: stores, and caches and remotes of DVC's. Raises GuaranteeError, which names
    the first that is none of its own."""
    state, homes = root / ".s3t", git_homes(root / ".git")
    objects = [home / "objects" for home in homes]
    for place in (state, root / "data", root / ".dvc", root / ".git"):
        refuse_link(place, root)
    refuse_open_to_others(root)
    for place in (state, root / "data", root / ".dvc", *objects):
        for mount in _mounts_at(place):
            if not mount.is_relative_to(state / _KEYS) and not _is_opened(mount, root):
                raise _mounted(mount, root)
    for mount in _mounts_at(root / ".git", below=False):
        raise _mounted(mount, root)
    for name in _OPENED:
        _check_opened(root / name, root)
    _check(root / "data", root, leads_to_object)
    for home in homes:
        _check(
            home,
            root,
            may_link=lambda path: not any(path.is_relative_to(each) for each in objects),
            may_be_odd=Path.is_socket,  # of git's watcher of files
        )
    _check(
        root / ".dvc",
        root,
        may_link=lambda path: path.parent == root / ".dvc" and path.is_file(),
    )
    _check(
        state,
        root,
        may_link=lambda path: (
            _is_in(path, state, (_KEYS,))
            or (path.is_file() and not _is_in(path, state, (*_KEPT, *_SWEPT)))
        ),
        may_be_odd=lambda path: not _is_in(path, state, _KEPT),
    )
    for place in stores:
        _check_way(place, root)
        check_place(place, root)
    check_places_of_dvc(root, of_dvc)


def _is_opened(mount: Path, root: Path) -> bool:
    """Whether a single file is mounted that is opened by its name, such as settings."""
    return mount.is_relative_to(root) and mount.relative_to(root).as_posix() in _OPENED


def check_directory(root: Path, name: str) -> None:
    """The same for one directory in `.s3t` alone: what is written there without holding the
    workspace waits for nothing else."""
    state = root / ".s3t"
    for place in (state, state / name):
        refuse_link(place, root)
    for mount in (*_mounts_at(state, below=False), *_mounts_at(state / name)):
        raise _mounted(mount, root)


def _check_way(place: Path, root: Path) -> None:
    """That a place which lies in the workspace by its path does so: such a one bears no mark, by
    which it would be missed while a disk is away that it, or a directory on the way, stands on."""
    if not place.is_relative_to(root):
        return
    for path in (place, *place.parents):
        if path == root:
            return
        refuse_link(path, root)
        for mount in _mounts_at(path, below=False):
            raise _mounted(mount, root)


def check_places_of_dvc(root: Path, places: Iterable[Path]) -> None:
    """The same for caches and remotes: DVC's directories in them are none of links, and nothing is
    mounted there. What else lies beside them is somebody else's."""
    for place in dict.fromkeys(places):
        _check_way(place, root)
        for name in ("files", "files/md5"):
            refuse_link(place / name, root)
        for mount in _mounts_at(place / "files"):
            raise _mounted(mount, root)
        _check(place / "files" / "md5", root)


def _mounts_at(place: Path, below: bool = True) -> Iterator[Path]:
    """What is mounted at a place, or, with `below`, anywhere below it, by the place's own path."""
    real = Path(os.path.realpath(place))
    for mount in sorted(set(_mounts())):
        if mount == real or (below and mount.is_relative_to(real)):
            yield place / mount.relative_to(real)


def _is_in(path: Path, state: Path, names: Collection[str]) -> bool:
    return path.relative_to(state).parts[0] in names


def check_apart(root: Path, places: Iterable[Path]) -> None:
    """Look where places of the workspace's that settings name lead to, by links or as mounts of
    another place. Raises GuaranteeError for one that leads to no directory of its own: to one at,
    within or around another of the system's, or to another workspace's."""
    own = [root / ".s3t", *(root / name for name in ("data", ".git", ".dvc"))]
    own = list(dict.fromkeys([*own, *places]))
    for place in dict.fromkeys(places):
        if place.is_symlink() or _is_one_of(place, own):
            _check_alone(place, own, root)


def _check_alone(place: Path, others: list[Path], root: Path) -> None:
    target = Path(os.path.realpath(place))
    beside = [p for p in others if p != place and place not in p.parents]
    near = next((p for p in beside if _touch(target, p) or _is_same(place, p)), None)
    if near is None and not _touches_workspace(target, root):
        return
    owner = "a workspace" if near is None else _shown(near, root)
    raise GuaranteeError(
        f"expected {_shown(place, root)} to be a directory, or to lead to one made for it alone, "
        f"got a link to one at, within or around {owner}, which would be emptied with it; take the "
        "link away, or let it lead elsewhere, then run the command again"
    )


def _touch(one: Path, place: Path) -> bool:
    """Whether one place is the other, or lies in it, wherever that leads."""
    other = Path(os.path.realpath(place))
    return one.is_relative_to(other) or other.is_relative_to(one)


def _is_same(one: Path, other: Path) -> bool:
    """Whether both are one directory, under whatever paths."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def _is_one_of(place: Path, others: Iterable[Path]) -> bool:
    """Whether a directory that is no link is another one of these as well: it was mounted there."""
    return any(place != p and place.resolve() != p.resolve() and _is_same(place, p) for p in others)


def _touches_workspace(target: Path, root: Path) -> bool:
    """Whether a place lies around the workspace, or at, within or right around another one."""
    here = Path(os.path.realpath(root))
    places = [target, *(p for p in target.parents if p != here)]
    with contextlib.suppress(OSError):
        places += [p for p in target.iterdir() if p.is_dir()]
    return here.is_relative_to(target) or any((p / WORKSPACE_SIGN).is_dir() for p in places)


def check_place(place: Path, root: Path | None = None) -> None:
    """The same for one place of stages that a setting names, wherever it is: below it there is no
    link, and nothing is mounted. `root`: by which errors name it."""
    base = place if root is None else root
    for mount in _mounts_at(place):
        if mount != place:
            raise _mounted(mount, base)
    _check(place, base)


def _mounted(path: Path, root: Path) -> GuaranteeError:
    return GuaranteeError(
        f"expected {_shown(path, root)} to be a directory of its own, got a mount: while its disk "
        "is away no erasure would reach what is on it. Move what is in it to the directory itself; "
        "store, remote and DVC's cache may lie on another disk as a whole (docs/operations.md)"
    )


def _mounts() -> Iterator[Path]:
    """Where something is mounted, as the kernel tells this process (proc(5), mountinfo); none where
    it does not."""
    try:
        listing = _MOUNTS.read_bytes()
    except OSError:
        return
    for line in listing.split(b"\n"):  # what ends a line for Python alone may stand in a name
        members = line.split(b" ")
        if len(members) > _MOUNTED_AT:
            place = _ESCAPED.sub(lambda m: bytes([int(m[1], 8)]), members[_MOUNTED_AT])
            yield Path(os.fsdecode(place))


def refuse_link(path: Path, root: Path) -> None:
    """Raises GuaranteeError for a link, wherever it leads."""
    if path.is_symlink():
        raise GuaranteeError(
            f"expected {_shown(path, root)} to be a file or directory of its own, got a link to "
            "one elsewhere, which no erasure would reach; put it itself there, and destroy the "
            "other"
        )


def leads_to_object(link: Path) -> bool:
    """Whether a link leads to a file that is named as DVC names objects: DVC may put links to its
    cache in the place of data files (`cache.type`)."""
    found = os.path.realpath(link)
    return _OBJECT.fullmatch(found) is not None and Path(found).is_file()


def _check(
    place: Path,
    root: Path,
    may_link: Callable[[Path], bool] = lambda _: False,
    may_be_odd: Callable[[Path], bool] = lambda _: False,
) -> None:
    for path, is_link in _odd_ones(place):
        if is_link and not may_link(path):
            refuse_link(path, root)
        if not is_link and not may_be_odd(path):
            _check_opened(path, root)


def _odd_ones(place: Path) -> Iterator[tuple[Path, bool]]:
    """What is neither file nor directory below a place, and whether it is a link. What cannot be
    listed, or goes meanwhile, is left to who opens it."""
    waiting = [os.fspath(place)]
    while waiting:
        try:
            entries = os.scandir(waiting.pop())
        except OSError:
            continue
        with entries:
            for entry in entries:
                if entry.is_symlink():
                    yield Path(entry.path), True
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    yield Path(entry.path), False


def _check_opened(path: Path, root: Path) -> None:
    try:
        kind = _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except OSError:
        return  # there is none, or who opens it is told
    if kind:
        raise GuaranteeError(
            f"expected {_shown(path, root)} to be a file, got {kind}, which would be waited for; "
            "take it away, and restore the file if there was one, then run the command again"
        )


def _shown(path: Path, root: Path) -> str:
    return (
        path.relative_to(root).as_posix()
        if path.is_relative_to(root)
        else "/".join(path.parts[-3:])
    )
