"""A job lives no longer than the process that asked for it: it has people's rows in memory (edges
A1)."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from s3t_core.learning.jobs import JOBS

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Sleeping:
    """A job that says its process's number, and goes on."""

    told: str


def _sleep(job: Sleeping) -> None:
    Path(job.told).with_suffix(".new").write_text(str(os.getpid()))
    Path(job.told).with_suffix(".new").rename(job.told)
    time.sleep(600)


JOBS[Sleeping] = _sleep  # type: ignore[index]


def test_a_job_ends_when_whoever_asked_for_it_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    asks = (
        "from flows.adapters.runner import ProcessRunner; "
        "from tests.unit.adapters.test_runner import "
        f"Sleeping; ProcessRunner()._run(Sleeping({str(told)!r}))"
    )
    run = subprocess.Popen([sys.executable, "-c", asks], cwd=ROOT, start_new_session=True)
    try:
        while not told.exists():
            assert run.poll() is None
            time.sleep(0.1)
        job = psutil.Process(int(told.read_text()))
        run.send_signal(signal.SIGKILL)
        assert psutil.wait_procs([job], 10)[1] == []
    finally:
        run.kill()
        run.wait()
