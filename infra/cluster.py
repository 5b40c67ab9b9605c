"""A Dask cluster of processes on this machine, with TLS, for tests and measurements: as
docs/operations.md has it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from flows.adapters.dask_certificates import CLIENT, CLUSTER, make_certificates

RESOURCES = "CPU=1 MEMORY=2048"
_CLOSED = ("--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")


class Cluster:
    """A scheduler and workers, each in a directory of its own, with the certificates of
    `known_by`."""

    def __init__(self, folder: Path, known_by: Path) -> None:
        self.folder = folder
        self.known_by = known_by
        make_certificates(known_by, [])
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._begin(
            "scheduler",
            "distributed.cli.dask_scheduler",
            "--port",
            "0",
            *_CLOSED,
            "--scheduler-file",
            str(folder / "scheduler.json"),
        )
        until = time.monotonic() + 60
        while not (folder / "scheduler.json").exists():
            if time.monotonic() > until:
                raise TimeoutError("the Dask scheduler did not start")
            time.sleep(0.2)
        time.sleep(0.5)
        self.address = json.loads((folder / "scheduler.json").read_text())["address"]

    def add(self, resources: str = RESOURCES, home: str = "") -> subprocess.Popen[bytes]:
        """One more worker, in the directory of an earlier one or in its own."""
        name = (
            home or f"w{len(self.workers)}"
        )  # short: a socket of its jobs has it in its path, of 107 bytes
        self.workers.append(
            self._begin(
                name,
                "distributed.cli.dask_worker",
                self.address,
                "--no-nanny",
                "--nthreads",
                "1",
                *_CLOSED,
                "--resources",
                resources,
                "--name",
                name,
            )
        )
        return self.workers[-1]

    @property
    def env(self) -> dict[str, str]:
        """What a client sets before it imports Dask."""
        return {"DASK_CONFIG": str(self.known_by / CLIENT)}

    def stop(self) -> None:
        """kill -9 of everything."""
        for process in (*self.workers, self.scheduler):
            with_children(process.pid)

    def _begin(self, name: str, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        with (home / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=home,
                stdout=log,
                stderr=log,
                env=self._env(home),
                start_new_session=True,
            )

    def _env(self, home: Path) -> dict[str, str]:
        """Without the keys of buckets, which no worker needs."""
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("AWS_", "PG", "PREFECT_", "MLFLOW_"))
        }
        return {
            **kept,
            "TMPDIR": str(home),
            "DASK_CONFIG": str(self.known_by / CLUSTER),
            "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "warning",
        }


def with_children(pid: int) -> None:
    """kill -9 of a process and what it started."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


@contextmanager
def cluster(
    folder: Path, workers: int = 2, resources: str = RESOURCES, known_by: Path | None = None
) -> Iterator[Cluster]:
    """A running cluster in `folder`, which must not be there. `known_by`: where its certificates
    are, or are made."""
    folder.mkdir()
    made = Cluster(folder, known_by or folder / "certificates")
    try:
        for _ in range(workers):
            made.add(resources)
        yield made
    finally:
        made.stop()
