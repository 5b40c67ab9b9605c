"""How the steps of a use case are carried out: as they stand, or as the tasks of an orchestrator,
which shows them (flows/prefect_flows/steps.py)."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")
_THREADS = 64


@dataclass(frozen=True, eq=False)
class Step:
    """One of several. `kind` names what is done and `title` to what, without personal data; it
    begins when those under the keys in `after` are done, of which the others are done already."""

    key: str
    kind: str
    title: str
    after: tuple[str, ...]
    work: Callable[[], None]


class Steps(Protocol):
    """Carries steps out."""

    def run(self, kind: str, work: Callable[[], T]) -> T:
        """Do one, and return what it returned. Raises what it raised."""

    def run_all(self, steps: Sequence[Step]) -> int:
        """Do several, those first that others come after, beside each other where they can be.
        Returns how many were not done although none failed. Raises, when all have ended, what the
        first that failed raised."""

    def show(self, key: str, table: list[dict[str, object]], description: str) -> None:
        """Show a table of numbers on the run's page, where there is one."""


class AsTheyStand:
    """In this process, shown nowhere."""

    def run(self, kind: str, work: Callable[[], T]) -> T:
        """Do it."""
        del kind
        return work()

    def run_all(self, steps: Sequence[Step]) -> int:
        """In threads."""
        begun: dict[str, Future[None]] = {}
        with ThreadPoolExecutor(_THREADS) as pool:
            for step in steps:
                before = [begun[key] for key in step.after if key in begun]
                begun[step.key] = pool.submit(_do, before, step.work)
        for future in begun.values():
            future.result()
        return 0

    def show(self, key: str, table: list[dict[str, object]], description: str) -> None:
        """Nowhere."""


def _do(before: list[Future[None]], work: Callable[[], None]) -> None:
    """Raises what one of those before it raised: then it is not done either."""
    wait_for(before)
    for future in before:
        future.result()
    work()


AS_THEY_STAND = AsTheyStand()
