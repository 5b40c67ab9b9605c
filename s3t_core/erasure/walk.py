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

_GITDIR = "gitdir: "
_ESCAPE = re.compile(r"\\(?:([abfnrtv\"\\])|([0-3][0-7]{2}))")
_QUOTED = re.compile(rf'"((?:[^"\\]|{_ESCAPE.pattern})*)"', re.DOTALL)
_ESCAPES = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))


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
        return [path.parent / named] if (named := _text_of(path).rstrip("\r\n")) else []
    if path.name == ".git":
        named = _text_of(path).rstrip("\r\n")
        return [path.parent / named[len(_GITDIR) :]] if named.startswith(_GITDIR) else []
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
        lines = _text_of(place / "info" / "alternates").split("\n")
        others = [place / each for line in lines for each in _entries(line)]
        named += others
        waiting += others
    return named


def _text_of(
    path: Path,
) -> str:
    """What stands in a file, "" of what is none."""
    with contextlib.suppress(OSError, ValueError):
        return read_regular(path).decode("utf-8", "surrogateescape")
    return ""


def _entries(
    line: str,
) -> Iterator[str]:
    """The paths in a line of alternates as git reads them: in quotes with escapes as in C, or as it
    is, also where quotes are not closed; what stands behind closed ones, but for one character, is
    another."""
    while line and not line.startswith("#"):
        quoted = _QUOTED.match(line)
        yield _unescaped(quoted[1]) if quoted else line
        line = line[quoted.end() + 1 :] if quoted else ""


def _unescaped(
    quoted: str,
) -> str:
    raw = _ESCAPE.sub(_meant, quoted).encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "surrogateescape")


def _meant(
    escape: re.Match[str],
) -> str:
    """A letter, or the one byte that three octal digits are."""
    letter, octal = escape.groups()
    if letter:
        return _ESCAPES.get(letter, letter)
    return bytes([int(octal, 8)]).decode("utf-8", "surrogateescape")


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
