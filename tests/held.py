"""A hold on a workspace for tests that are alone in theirs and take no lock."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.workspace.change import Change


class _Nobody:
    """A lease that nobody else takes."""

    def check(self) -> None: ...


_nobody: Any = _Nobody()
HELD = Change(_nobody)


class NoScope:
    """Of a scan while nobody is being erased, and nobody's rows are kept."""

    def check_away(self) -> None: ...

    def needle_files(self) -> list[Path]:
        return []

    def kept(self) -> list[tuple[str, str]]:
        return []

    def known(self) -> Callable[[str], bool]:
        return lambda _: False

    def id_rule(self) -> list[str]:
        return []
