"""What the system keeps stands on files of its own: seen to before anything is changed.

1. A link in the place of a file of ours is refused. What is destroyed or written anew there is the
   link: what it leads to would keep the rows, and no scan would come there any more. A directory
   that holds such files may be a link: an operator puts the stages, or DVC's cache, on another disk
   so (adapters.disks). Within it none may.
2. Where such a directory is a link, it leads to one of its own: to none of the system's, to none
   within or around one, and to no other workspace's. Some of them are emptied, by each sweep or by
   an erasure, and the keys would go with the spools.
3. A pipe, a device or a socket is refused where a file is opened by its name: it would be waited
   for.

Only names and kinds are read, which costs one look at each directory. A second name of a file (a
hard link) is none of this: it is a copy (docs/threat-model.md).
"""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from s3t_core.errors import GuaranteeError

_KEPT = ("quarantine", "needles", "activations", "stages", "mlartifacts", "dvc-site")
_SWEPT = ("tmp", "next", "placing", "loading")
"""What else lies there than files goes with the next sweep."""
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


def check_footing(root: Path, stores: Iterable[Path] = (), remotes: Iterable[Path] = ()) -> None:
    """Look at what the workspace keeps below `root`, and in stores and remotes wherever they are.
    Raises GuaranteeError, which names the first that is no file of its own."""
    state, objects = root / ".s3t", root / ".git" / "objects"
    for name in _OPENED:
        _check_opened(root / name, root)
    _check(root / "data", root, leads_to_object)
    _check(
        root / ".git", root, lambda path: objects not in path.parents, sockets=True
    )  # of git's watcher of files
    _check(root / ".dvc" / "tmp", root)
    kept = [root / ".dvc" / "cache", *dict.fromkeys([state / "remote", *remotes])]
    check_objects(root, [place / "files" / "md5" for place in kept])
    for place in dict.fromkeys([*(state / name for name in _KEPT), *stores]):
        _check(place, root)
    refuse_link(state / "placing", root)  # what is made there is renamed to where it belongs
    for name in _SWEPT:
        _check(state / name, root, swept=True)


def check_apart(
    root: Path,
    stores: Iterable[Path] = (),
    remotes: Iterable[Path] = (),
    others: Callable[[], Iterable[Path]] = tuple,
) -> None:
    """Look where directories of the system's lead to that are links, or mounts of another place,
    whatever they are called. `others`: what else the system keeps, or reads; asked where there is
    such a link. Raises GuaranteeError for one that leads to no directory of its own."""
    state = root / ".s3t"
    names = {*_KEPT, *_SWEPT, "keys", "certificates", "remote"}
    with contextlib.suppress(OSError):
        names |= {p.name for p in state.iterdir() if p.is_dir()}
    own = [state / name for name in sorted(names)]
    own += [state, *(root / name for name in ("data", ".git", ".dvc", ".dvc/cache", ".dvc/tmp"))]
    own += [*stores, *remotes]
    own = list(dict.fromkeys(own))
    linked = [p for p in own if p.is_symlink() or _is_one_of(p, own)]
    for place in linked:
        _check_alone(place, own, root)
    emptied = [p for p in linked if _is_emptied(p, root)]
    more = list(others()) if emptied else []
    for place in emptied:
        _check_alone(place, [*own, *more], root)


def _check_alone(place: Path, others: list[Path], root: Path) -> None:
    target = Path(os.path.realpath(place))
    beside = [p for p in others if p != place and place not in p.parents]
    near = next((p for p in beside if _touch(target, p) or _is_same(place, p)), None)
    if near is None and not _touches_workspace(target, root, _is_emptied(place, root)):
        return
    raise GuaranteeError(
        f"expected {_shown(place, root)} to be a directory, or to lead to one made for it alone, "
        f"got a link to one at, within or around {_told(near, root)}, which would be emptied with "
        "it; take the link away, or let it lead elsewhere, then run the command again"
    )


def _is_emptied(place: Path, root: Path) -> bool:
    """Whether a sweep, or an erasure, removes what is there, whatever it is."""
    return place.parent == root / ".s3t" and place.name in (*_SWEPT, "activations")


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


def _touches_workspace(target: Path, root: Path, is_emptied: bool) -> bool:
    """Whether a place lies around the workspace, or at, within or right around another one; one
    that `is_emptied`, anywhere around."""
    here = Path(os.path.realpath(root))
    places = [target, *(p for p in target.parents if p != here)]
    with contextlib.suppress(OSError):
        places += [p for p in target.iterdir() if p.is_dir()]
    if is_emptied:
        places += [Path(folder) for folder, _, _ in os.walk(target)]
    return here.is_relative_to(target) or any((p / WORKSPACE_SIGN).is_dir() for p in places)


def _told(place: Path | None, root: Path) -> str:
    return "a workspace" if place is None else _shown(place, root)


def check_objects(root: Path, places: Iterable[Path]) -> None:
    """The same for directories of DVC's that hold objects."""
    for place in places:
        _check(place, root)


def check_place(place: Path) -> None:
    """The same for one place of stages or of data objects, wherever it is."""
    _check(place, place)


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
    swept: bool = False,
    sockets: bool = False,
) -> None:
    if place.is_symlink() and not place.is_dir():
        raise GuaranteeError(
            f"expected {_shown(place, root)} to lead to a directory, got a link that leads to "
            "none; mount its disk, or take the link away, then run the command again"
        )
    for path, is_link in _odd_ones(place):
        if is_link and not may_link(path):
            refuse_link(path, root)
        if not is_link and not swept and not (sockets and path.is_socket()):
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
