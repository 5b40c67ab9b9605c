"""Which files a scan reads: what lies under a root, and where links lead, the file system's and
git's."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from s3t_core.files import read_regular

_STORE = re.compile(r"(^|/)objects(/info(/alternates)?)?$")
"""What of a store of git's objects can be a link, or names others."""


def walk(
    root: Path,
    extra_roots: list[Path],
    system_paths: list[str],
) -> Iterator[tuple[Path, bool, Path]]:
    """Every file and empty directory once, whether it is the system's own, and below what it was
    found; also directories that cannot be listed, and links of its own that lead nowhere. Links are
    followed where the system writes, and only there: what it keeps on another disk, or elsewhere
    under the root, is as much its own."""
    seen: set[Path] = set()
    linked: list[Path] = []
    for path in _below(root):
        if not _is_own(path, root, extra_roots, system_paths):
            continue
        linked += _leading(path)
        seen.update(() if path.is_symlink() else (path,))
        yield path, True, root
    linked += [extra for extra in extra_roots if not extra.is_relative_to(root)]
    entered: set[Path] = set()
    while linked:
        place = resolved(linked.pop())
        if place is None or place in entered:
            continue
        entered.add(place)
        for path in [place] if place.is_file() else _below(place):
            if path not in seen:
                seen.add(path)
                linked += _leading(path)
                yield path, True, place
    for path in _below(root):  # what is the user's: nothing of the system's leads there
        own = _is_own(path, root, extra_roots, system_paths)
        if not own and not path.is_symlink() and path not in seen:
            yield path, False, root


def _leading(
    path: Path,
) -> list[Path]:
    """What else is to be walked: where a link leads, and what git would open by a file or a link of
    this name, before it is known where that leads."""
    return [*([path] if path.is_symlink() else []), *git_links(path)]


def _is_own(
    path: Path,
    root: Path,
    extra_roots: list[Path],
    system_paths: list[str],
) -> bool:
    relative = path.relative_to(root).as_posix()
    named = any(relative == s or relative.startswith(s + "/") for s in system_paths)
    return named or any(path.is_relative_to(extra) for extra in extra_roots)


def resolved(
    path: Path,
) -> Path | None:
    """Where a path leads, None for links in a circle and for what is no path."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return None


def git_links(
    path: Path,
) -> list[Path]:
    """Directories that git opens because of a file or a link of this name: where the repository is
    (a `.git` that is a file), what worktrees of one share (commondir), and the stores whose objects
    it takes as its own (alternates, those of each in turn, whatever it is called)."""
    if store := _STORE.search(path.as_posix()):
        return _alternates(path.parents[store[2].count("/") - 1] if store[2] else path)
    if path.name == "commondir":
        return [path.parent / line for line in _lines(path)[:1]]
    if path.name == ".git":
        return [
            path.parent / line.removeprefix("gitdir: ")
            for line in _lines(path)[:1]
            if line.startswith("gitdir: ")
        ]
    return []


def git_homes(
    git: Path,
) -> list[Path]:
    """Directories of the repository that a `.git` is or names, and that a second worktree shares
    with others (gitrepository-layout(5))."""
    homes = [git, *git_links(git)]
    homes += [each for home in homes for each in git_links(home / "commondir")]
    return [git, *(resolved(home) or home for home in homes[1:])]


def _alternates(
    store: Path,
) -> list[Path]:
    """Stores whose objects git takes for those of this one, theirs among them. A relative name is
    one from where the store itself is."""
    named: list[Path] = []
    known: set[Path | None] = set()
    waiting = [store]
    while waiting:
        place = waiting.pop()
        if (real := resolved(place)) in known:
            continue
        known.add(real)
        others = [
            place / _unquoted(line)
            for line in _lines(place / "info" / "alternates")
            if line and not line.startswith("#")
        ]
        named += others
        waiting += others
    return named


def _lines(
    path: Path,
) -> list[str]:
    """None of what is no file. Only a line feed ends one, as for git; what ends a line for Python
    alone may stand in a name."""
    with contextlib.suppress(OSError, ValueError):
        text = read_regular(path).decode("utf-8", "surrogateescape")
        return text.removesuffix("\n").removesuffix("\r").split("\n")
    return []


def _unquoted(
    line: str,
) -> str:
    """A path as git writes it: in quotes, with escapes as in C, where it has letters of its own.
    What cannot be read as such stays as it is, and leads nowhere."""
    if not line.startswith('"'):
        return line
    with contextlib.suppress(UnicodeError):
        return (
            line.strip('"')
            .encode("utf-8", "surrogateescape")
            .decode("unicode_escape")
            .encode("latin-1")
            .decode("utf-8", "surrogateescape")
        )
    return line


def _below(
    place: Path,
) -> Iterator[Path]:
    """What is under a directory, empty directories among it, and the directories that cannot be
    listed, which hide what is in them."""
    hidden: list[OSError] = []
    for folder, folders, names in os.walk(place, onerror=hidden.append):
        folders.sort()
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from (Path(folder, name) for name in sorted([*names, *links]))
        if not names and not folders and Path(folder) != place:
            yield Path(folder)
    yield from (
        Path(error.filename) for error in hidden if not isinstance(error, FileNotFoundError)
    )
