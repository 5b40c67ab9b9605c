"""A `map` over processes of their own, for work that is many times as long as their start."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

from s3t_core.errors import StorageError

MOST = 8
A = TypeVar("A")
B = TypeVar("B")


class Mapper(Protocol):
    """What `map` does with one argument."""

    def __call__(self, work: Callable[[A], B], items: Iterable[A], /) -> Iterator[B]:
        """What `work` makes of each, in order."""


@contextlib.contextmanager
def mapping(worth_it: bool) -> Iterator[Mapper]:
    """`map` over as many processes as there are cores (at most MOST), or the built-in one where it
    is not worth it.

    The processes are new ones (spawn): a fork of a process with threads may hang. Raises
    StorageError when one dies.
    """
    workers = min(os.cpu_count() or 1, MOST)
    if not worth_it or workers == 1:
        yield map
        return
    try:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            yield pool.map
    except BrokenProcessPool:
        raise StorageError(
            "a process that settled slices died; check free memory, then run the command again: "
            "nothing was changed"
        ) from None
