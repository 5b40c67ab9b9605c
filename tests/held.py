"""A hold on a workspace for tests that are alone in theirs and take no lock."""

from typing import Any

from flows.workspace.change import Change


class _Nobody:
    """A lease that nobody else takes."""

    def check(self) -> None: ...


_nobody: Any = _Nobody()
HELD = Change(_nobody)
