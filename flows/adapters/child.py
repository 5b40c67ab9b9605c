"""A process that lives no longer than the one that started it, whatever ends that one: kill -9 too.

The parent holds one end of a pipe, the child's standard input is the other. When the parent is gone
its end closes, and the child kills its process group: itself, and every process that it started.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path


class Child:
    """`python -m MODULE ARGUMENTS`, a group of its own, told to a log file. MODULE calls
    `die_with_parent` first."""

    def __init__(
        self, module: str, *arguments: str, cwd: Path, env: Mapping[str, str], log: Path
    ) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def stop(self, grace_seconds: float = 0) -> None:
        """End it: politely for so many seconds, then with its whole group."""
        if grace_seconds and self.is_alive():
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def until_signalled() -> threading.Event:
    """An event that is set when this process is asked to end."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def die_with_parent() -> None:
    """In the child: watch the pipe. Raises nothing; needs a process group of its own."""
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os.killpg(0, signal.SIGKILL)
