"""Tests beside the stack have only the packages that `make test` installs.

Where `make install-stack` has run, the packages of requirements/servers.lock and stack.lock are
there as well, and a test that needs one would pass here and fail wherever they are not. So they
cannot be imported in this process, as if they were not installed, unless tests of tests/stack were
asked for. A test that needs one belongs there.
"""

import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from infra.lock import ROOT, entries

_STACK = ROOT / "tests" / "stack"


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
        """As PathFinder's: what is installed may be asked for, by its name."""
        return PathFinder.find_distributions(*args, **options)


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


def wants_servers(config: pytest.Config) -> bool:
    """Whether this run is asked for tests of tests/stack."""
    return _asked(config.args, config.getoption("ignore") or [], Path.cwd())


def _asked(args: Sequence[str], ignored: Sequence[object], place: Path) -> bool:
    if any(place / str(path) == _STACK for path in ignored):
        return False
    folders = [place / arg.partition("::")[0] for arg in args]
    return any(f.is_relative_to(_STACK) or _STACK.is_relative_to(f) for f in folders)


def leave_out(config: pytest.Config) -> None:
    """See above; before any module of tests is imported."""
    if not wants_servers(config):
        finder = NotInstalled(modules_of_servers())
        sys.meta_path[sys.meta_path.index(PathFinder)] = finder
