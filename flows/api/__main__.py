"""The door as a process of `s3t serve`: `python -m flows.api ROOT [--port N] ...`. It dies with who
started it."""

import argparse
import sys
from pathlib import Path

from flows.adapters.child import die_with_parent, until_signalled
from flows.adapters.doors import door_of, door_options, serve_or_tell
from flows.api.server import serve
from flows.workspace.workspace import enter


def main() -> None:
    """Serve until ended."""
    die_with_parent()
    options = door_options("python -m flows.api", 0)
    options.add_argument("root")
    serve_or_tell("HTTP", _serve, options.parse_args())


def _serve(given: argparse.Namespace) -> None:
    serve(enter(Path(given.root)), door_of(given), until_signalled(), _tell)


def _tell(url: str) -> None:
    print(url, file=sys.stderr, flush=True)  # noqa: T201  # into its log


if __name__ == "__main__":
    main()
