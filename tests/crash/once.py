"""One eraser on a prepared workspace, in a process of its own: python -m tests.crash.once WORKSPACE
[MOST_BYTES_A_FILE]

Prints what came of it as one JSON line. With a limit, every write beyond so many bytes of a file
fails, as on a full disk (RLIMIT_FSIZE, a limit of the operating system).
"""

import json
import resource
import sys
from pathlib import Path

from s3t_core.errors import S3TError
from tests.crash.driver import _erase


def main() -> None:
    """Exit code 0 when it is done, 1 when it stopped with an error of this system, else Python's
    own traceback."""
    import flows.adapters.datasets
    import flows.adapters.registry.opening  # noqa: F401

    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        _erase(Path(sys.argv[1]))
    except S3TError as error:
        sys.stdout.write(json.dumps({"error": type(error).__name__, "message": str(error)}) + "\n")
        sys.exit(1)
    sys.stdout.write(json.dumps({"error": ""}) + "\n")


if __name__ == "__main__":
    main()
