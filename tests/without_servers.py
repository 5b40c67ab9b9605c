"""Tests beside the stack have only the packages that `make test` installs.

Where `make install-stack` has run, the packages of requirements/servers.lock and stack.lock are
there as well, and a test that needs one would pass here and fail wherever they are not. So they
cannot be imported in this process, as if they were not installed, unless tests of tests/stack were
asked for by name. A test that needs one belongs there.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, MetadataPathFinder, packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.utils import canonicalize_name

from infra.lock import ROOT, entries

_STACK = ROOT / "tests" / "stack"
_ASKED = "S3T_TEST_STACK_ASKED_FOR"


class NotInstalled:
    """In the place of Python's finder of installed modules: it finds all but the given ones."""

    def __init__(self, modules: Iterable[str]) -> None:
        self._modules = frozenset(modules)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As PathFinder's; None for the modules of such a package."""
        if name.partition(".")[0] in self._modules:
            return None
        return PathFinder.find_spec(name, path, target)

    def invalidate_caches(self) -> None:
        """As PathFinder's."""
        PathFinder.invalidate_caches()

    def find_distributions(self, *args: Any, **options: Any) -> Iterable[Distribution]:
        """As PathFinder's, which the package importlib_metadata takes away from it: what is
        installed may be asked for, by its name."""
        return MetadataPathFinder.find_distributions(*args, **options)


def modules_of_servers() -> set[str]:
    """Top-level modules that `make install-stack` adds to what `make install` brings."""
    there = _names("build", "run", "dev", "torch", "torch-cpu")
    added = _names("servers", "stack") - there
    return {
        module
        for module, names in packages_distributions().items()
        if not {canonicalize_name(name) for name in names} - added
    }


def _names(*locks: str) -> set[str]:
    return {e.name for lock in locks for e in entries(_text(lock))}


def _text(lock: str) -> str:
    return (ROOT / "requirements" / f"{lock}.lock").read_text()


def asks_for_stack(arguments: Sequence[str], place: Path) -> bool:
    """Whether pytest, called with these arguments in this directory, is asked for tests of
    tests/stack."""
    before = ["", *arguments]
    named = [
        a.partition("::")[0]
        for option, a in zip(before, arguments, strict=False)
        if option not in ("--ignore", "--deselect")
    ]
    return any((place / name).resolve().is_relative_to(_STACK) for name in named)


def leave_out() -> None:
    """See above. Called as the first conftest is imported: the next ones import what they need.
    Processes of pytest-xdist do as the one that started them."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ[_ASKED] = str(asks_for_stack(sys.argv[1:], Path.cwd()))
    if os.environ[_ASKED] == "False":
        finder = NotInstalled(modules_of_servers())
        sys.meta_path[sys.meta_path.index(PathFinder)] = finder
