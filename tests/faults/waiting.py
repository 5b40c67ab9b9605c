"""What waits for ever, for a pipe say, fails its test instead."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def fails_after(seconds: int) -> Iterator[None]:
    """Fail what takes longer."""

    def late(*_: object) -> None:
        pytest.fail("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
