"""Callbacks as a process of `s3t serve`: `python -m flows.callbacks ROOT`. It dies with who started
it."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path

from flows.adapters.child import die_with_parent, until_signalled
from flows.adapters.webhooks import Sender
from flows.settings import CONFIG_NAME
from flows.use_cases.callbacks import send_due
from flows.workspace.workspace import Workspace, enter
from s3t_core.errors import S3TError

_LOOK_SECONDS = 2


def send_until(root: Path, stop: threading.Event, tell: Callable[[str], None]) -> None:
    """Send what is due, again and again, until stopped. Settings that change are read anew; what
    cannot be done now is told, once, and tried again."""
    problem, opened, settings = "", None, (0, 0)
    while not stop.is_set():
        try:
            now = (root / CONFIG_NAME).stat()
            if opened is None or settings != (now.st_mtime_ns, now.st_size):
                opened, settings = Workspace(root), (now.st_mtime_ns, now.st_size)
            workspace = opened
            sender = Sender(workspace.config.callbacks.most_seconds)
            sent = send_due(workspace, sender)
            problem = ""
            if any(sent.values()):
                tell(", ".join(f"{n} {state}" for state, n in sent.items() if n))
        except (S3TError, OSError) as error:
            opened = None
            if str(error) != problem:
                tell(f"Could not send callbacks: {error}")
            problem = str(error)
        stop.wait(_LOOK_SECONDS)


def main() -> None:
    """Send until ended."""
    die_with_parent()
    root = enter(Path(sys.argv[1])).root
    send_until(root, until_signalled(), lambda message: print(message, file=sys.stderr, flush=True))  # noqa: T201  # into its log


if __name__ == "__main__":
    main()
