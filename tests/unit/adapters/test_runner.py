"""A job lives no longer than the process that asked for it: it has people's rows in memory (edges
A1)."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from s3t_core.learning import installed
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


@dataclass(frozen=True)
class Looking:
    """A job that says what is there when it begins."""


def _look(job: Looking) -> dict[str, object]:
    import transformers.conversion_mapping as mapping

    return {
        "modules": set(sys.modules),
        "patterns": mapping._checkpoint_conversion_mapping_cache is not None,
        "threads": threading.active_count(),
        "order": hash("a text"),
        "installed": installed._known.cache_info().currsize,
    }


JOBS[Looking] = _look  # type: ignore[index]


def test_what_every_job_needs_is_there_when_it_begins() -> None:
    """Else each of hundreds of stages imports it anew, for longer than it trains. No thread of
    Python's but its own and the one that watches its parent is."""
    asks = (
        "from flows.adapters.runner import ProcessRunner; "
        "from tests.unit.adapters.test_runner import Looking\n"
        "if __name__ == '__main__':\n"
        "    runner = ProcessRunner(); runner.begin(); runner.begin()\n"
        "    found = runner._run(Looking())\n"
        "    needed = {'torch', 'peft', 'scipy.stats', 'transformers.modeling_utils'}\n"
        "    print(sorted(needed - found['modules']), found['patterns'], found['threads'], "
        "found['installed'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", asks],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split("\n")[0] == "[] True 2 1"


@pytest.mark.long_but_first
@pytest.mark.parametrize("begins", [True, False], ids=["begun before", "with the job"])
def test_every_job_hashes_texts_alike_whatever_the_shell_says(begins: bool) -> None:
    """Else whatever goes over a set in a stage, in code of whoever, would go another way in each
    process, under one key."""
    asks = (
        "import os; from flows.adapters.runner import ProcessRunner; "
        "from tests.unit.adapters.test_runner import Looking\n"
        "if __name__ == '__main__':\n"
        f"    runner = ProcessRunner(); {'runner.begin()' if begins else 'pass'}\n"
        "    print(runner._run(Looking())['order'], os.environ.get('PYTHONHASHSEED'))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", asks],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if k != "PYTHONHASHSEED"} | shell,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout.split()
        for shell in ({}, {"PYTHONHASHSEED": "7"})
    ]
    assert told[0][0] == told[1][0]
    assert [seed for _, seed in told] == ["None", "7"]


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


@pytest.mark.long_but_first
@pytest.mark.parametrize("spare", [0, -1, -200], ids=["full", "a byte over", "deep"])
def test_a_deep_temporary_directory_starts_jobs_too(shallow: Path, spare: int) -> None:
    """A socket's path has 107 bytes, and macOS, batch systems and test runners give deep ones. What
    is made elsewhere for it is gone with the command."""
    deep = shallow / "t"
    for size in _parts(107 - len("/pymp-12345678/listener-12345678") - spare - len(str(deep))):
        deep = deep / ("d" * (size - 1))
    deep.mkdir(parents=True)
    asks = (
        "import multiprocessing; from flows.adapters.runner import ProcessRunner; "
        "from tests.unit.adapters.test_runner import Looking\n"
        "if __name__ == '__main__':\n"
        "    runner = ProcessRunner(); runner.begin(); runner._run(Looking())\n"
        "    print(multiprocessing.util.get_temp_dir())"
    )
    done = subprocess.run(
        [sys.executable, "-c", asks],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(deep)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    place = Path(done.stdout.strip())
    assert (place.parent == deep) == (spare >= 0)
    assert not place.exists() and list(deep.glob("pymp-*")) == []


@pytest.fixture
def shallow() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def _parts(size: int) -> list[int]:
    """Of a path of `size` bytes, with their slashes: none too long for a file system."""
    return [200] * (size // 200) + [size % 200] * (size % 200 > 0)
