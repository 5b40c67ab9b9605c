"""What tests of the flows need before they begin, made once and kept beside them: Prefect's server,
the tiny backbone and a trained workspace.

`python -m tests.ready FOLDER` makes it, writes a line when it is there, and keeps the server until
its input ends. Tests that find the folder in S3T_TEST_READY take it from there: `make
test-mutants`, where each attempt is a run of pytest with one or two tests, spends most of its time
on it otherwise. A mutant that acts where these are made is not noticed by such a run: whatever
survives is tried again without them.
"""

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

_NAME = "S3T_TEST_READY"
_SERVER = "prefect"


def ready_folder() -> Path | None:
    """Where it was made, if somebody did."""
    return Path(os.environ[_NAME]) if _NAME in os.environ else None


def backbone_in(folder: Path) -> Path:
    """The tiny backbone."""
    return folder / "backbone"


def trained_in(folder: Path, canary: bool) -> Path:
    """Where a trained workspace is kept; with somebody whom an erasure can reach, or not."""
    return folder / ("trained-canary" if canary else "trained")


def server_in(folder: Path) -> AbstractContextManager[Any]:
    """Prefect's settings for the server."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    return temporary_settings({PREFECT_API_URL: (folder / _SERVER).read_text()})


def environment_for(folder: Path) -> dict[str, str]:
    """What tests that are to find it are started with."""
    return {_NAME: str(folder)}


def make_ready(folder: Path, until: Callable[[], object]) -> None:
    """Make it, and keep its server `until` that returns."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    from tests.flows.prepared import Kept, make_trained
    from tests.tiny import build_backbone

    backbone = build_backbone(backbone_in(folder), layers=3)
    with prefect_test_harness(server_startup_timeout=120):
        (folder / _SERVER).write_text(str(PREFECT_API_URL.value()))
        for canary in (False, True):
            at = trained_in(folder, canary)
            at.mkdir()
            Kept(at, lambda root, canary=canary: make_trained(root, backbone, canary))
        until()


if __name__ == "__main__":

    def _until_input_ends() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()

    make_ready(Path(sys.argv[1]), _until_input_ends)
