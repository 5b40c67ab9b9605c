"""What computes is what was there when the process that jobs are forked from began.

A stage's key names the versions of the libraries that compute. That process has them in its memory,
and each job imports from the disk what none before it needed. Where an installation changes files
meanwhile, a job computes by the new ones under the old name. So every file that could be imported
is known by device, inode, size and times from the beginning, and a stage during which one of those
that were imported became another is no stage. A file that was changed before that, in place and
under its version, nobody can tell from what pip put there.
"""

import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from s3t_core.errors import GuaranteeError
from s3t_core.learning.required import COMPUTE, READERS, modules_of, places_of

_WRITES = ("jinja2", "markupsafe")
"""What chat templates are written by."""
_ENDINGS = (".py", ".so")
_APART = frozenset({"__pycache__", "include", "tests"})
"""Directories of which nothing is imported."""
_Mark = tuple[int, int, int, int, int]


def remember_installed() -> None:
    """Know the files of what computes from now on. Idempotent."""
    _known()


def check_installed() -> None:
    """That what this process imported of them is what was there. Raises GuaranteeError."""
    known, tops = _known(), _tops()
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        top = name.partition(".")[0]
        if spec is None or not spec.has_location:
            continue
        if top not in tops:
            continue
        if _mark_of(str(spec.origin)) not in known:
            raise GuaranteeError(
                f"expected {top} as it was when this command began, got files that an "
                "installation changed under it: what a stage would come to hangs on when each of "
                "them was read. End what still runs, then run the command again"
            )


@cache
def _tops() -> frozenset[str]:
    found = {*COMPUTE, *_WRITES}
    for reader in READERS:
        found |= modules_of(reader)
    return frozenset(found)


@cache
def _known() -> frozenset[_Mark | None]:
    found = set[_Mark | None]()
    for top in _tops():
        found.update(map(_mark_of, _files_of(top)))
    return frozenset(found - {None})


def _files_of(
    top: str,
) -> Iterator[str]:
    spec = PathFinder.find_spec(top, sorted(places_of(top)))
    if spec is None:
        return
    waiting = [str(place) for place in spec.submodule_search_locations or ()]
    if not waiting and spec.origin:
        yield spec.origin
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting += [entry.path] if entry.name not in _APART else []
                elif entry.name.endswith(_ENDINGS):
                    yield entry.path


def _mark_of(
    path: str,
) -> _Mark | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
