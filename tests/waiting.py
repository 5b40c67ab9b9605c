"""What waits for ever, for a pipe say, fails its test instead."""

import faulthandler
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def fails_after(seconds: int) -> Iterator[None]:
    """Fail what takes longer. What waits in a library that does not listen to signals takes the
    process with it, as long again later: exit status 1."""

    def late(*_: object) -> None:
        pytest.fail("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
