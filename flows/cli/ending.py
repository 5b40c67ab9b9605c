"""How the process of a command ends."""

import atexit
import contextlib
import os
import sys


class Ending(contextlib.AbstractContextManager["Ending"]):
    """The end of the process, with the code that the command answered with.

    Python's own end runs: threads are joined, then what is registered with `atexit`, of which this
    is the first registered and so the last called. Nothing runs behind it. There a thread of a
    library (Arrow's pool was seen to) may still let go of what Python owns; Python ends such a
    thread, C++ takes that for a fault, and a command that had answered is told to have failed.
    """

    def __init__(self) -> None:
        self._code: int | None = None
        atexit.register(self.leave)

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        if error is None:
            self._code = 0
        elif isinstance(error, SystemExit):
            self._code = _code_of(error)
        elif isinstance(error, Exception):
            self._code = 1

    def leave(self) -> None:
        """Write out what was said, and end. Where that cannot be written, or a signal ended the
        command, Python says so in its own way."""
        if self._code is not None and _written_out():
            os._exit(self._code)


def _written_out() -> bool:
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _code_of(error: SystemExit) -> int:
    """What Python makes of it: nothing is 0, a number is itself, a message is 1."""
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1
