"""Progress for whoever waits: a bar or a spinner on stderr. Flows take plain parameters, so they
find it here."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Advance = Callable[[], None]
Say = Callable[[str], None]


class Progress:
    """Draws nothing: what runs under a scheduler."""

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:  # noqa: ARG002
        """A bar of `total` steps; call the value to advance."""
        yield lambda: None

    @contextlib.contextmanager
    def spinner(self, what: str) -> Iterator[Say]:  # noqa: ARG002
        """Something of unknown length is going on; call the value with what it is at."""
        yield lambda _: None


class RichProgress(Progress):
    """Draws on a Rich console (stderr)."""

    def __init__(self, console: "Console") -> None:
        self._console = console

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Advance]:
        """A bar of `total` steps with elapsed and remaining time."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        with Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        ) as bars:
            task = bars.add_task(what, total=total)
            yield lambda: bars.advance(task)

    @contextlib.contextmanager
    def spinner(self, what: str) -> Iterator[Say]:
        """A bar that pulses until the work is done."""
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        with Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=self._console,
        ) as bars:
            task = bars.add_task(what, total=None)
            yield lambda at: bars.update(task, description=f"{what}: {at}")
            bars.update(task, total=1, completed=1)


_current: list[Progress] = [Progress()]


def use(progress: Progress) -> None:
    """Draw with `progress` from now on, in this process."""
    _current[0] = progress


def current() -> Progress:
    """What draws now."""
    return _current[0]
