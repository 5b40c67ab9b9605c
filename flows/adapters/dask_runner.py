"""Runs each job on a Dask cluster: many machines, with nothing in common but the buckets.

A worker gets a job without paths: it fetches the slice files from the DVC remote and the earlier stages from the store,
both checked by digest, and trains in a process of its own, as a local runner does. Of the workspace's keys it gets the
one that checks contents, no other. Its profile must be that of the stage key, else it refuses. Nothing is kept there:
what was fetched is removed when the stage is done; what a killed worker left, by the next job on that machine.

A worker that is killed costs the stage that it trained: Dask gives it to another. Tasks declare CPUs, memory and, on
`device = "cuda"`, one GPU, so workers must be started with what they have (docs/operations.md):

    dask worker tls://SCHEDULER:8786 --host HOST --no-nanny --nthreads 2 --resources "CPU=2 MEMORY=8192"

Prefect's own tasks stay where the flow runs (one per stage, for its states and retries): a worker needs no Prefect.
"""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import psutil

from flows.adapters.dask_connection import connect
from flows.adapters.runner import ProcessRunner
from flows.adapters.s3 import S3Blobs
from s3t_core.errors import S3TError, StorageError, TrainingError, WorkspaceError
from s3t_core.files import remove_tree
from s3t_core.keys import WorkspaceKeys
from s3t_core.learning.jobs import DescribeJob, Description, FileRef, MeasureJob, StageJob, StageOutcome
from s3t_core.learning.store import StageStore

_WAIT_SECONDS = 60
_LOOK_SECONDS = 10
_GATHER_SECONDS = 600
_FETCHED = "s3t-stage-"
_RUNNER = threading.local()

Locate = Callable[[Path], str]
"""The name of a data file's object in the DVC remote, relative to it."""


@dataclass(frozen=True)
class Task:
    """A job for another machine: its data files are objects of `remote`, named in the order of `files_of(job)`."""

    job: StageJob | MeasureJob | DescribeJob
    remote: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Needs:
    """What one task takes: CPUs, MiB of memory, GPUs."""

    cpus: int
    memory_mib: int
    gpus: int

    def resources(self) -> dict[str, float]:
        """As Dask counts them."""
        return {"CPU": self.cpus, "MEMORY": self.memory_mib, **({"GPU": self.gpus} if self.gpus else {})}


class DaskRunner:
    """A cluster by the address of its scheduler. Fills what the flows ask of a runner."""

    def __init__(self, address: str, remote: str, locate: Locate, needs: Needs, patience: float = _WAIT_SECONDS,
                 plain_on_loopback: bool = False) -> None:
        """`patience`: seconds that a job may stand without any worker that could carry it out. `plain_on_loopback`:
        a scheduler on a loopback address may be asked without TLS."""
        self._plain = plain_on_loopback
        self._patience = patience
        self._address = address
        self._remote = remote
        self._locate = locate
        self._needs = needs
        self._lock = threading.Lock()
        self._client: Any = None
        self._running: set[Any] = set()
        self._stopped = False

    def describe(self, job: DescribeJob) -> Description:
        """What the backbone is, and the profile, on a worker."""
        return cast(Description, self._run(Task(job, self._remote, ())))

    def train(self, job: StageJob) -> StageOutcome:
        """Train one stage on a worker."""
        away = replace(job, keys=only_content(job.keys), store=StageStore(job.store.blobs), activations=None,
                       spill=None)
        return cast(StageOutcome, self._run(self._task(away)))

    def measure(self, job: MeasureJob) -> float | None:
        """Accuracy of a release, on a worker."""
        away = replace(job, keys=only_content(job.keys), store=StageStore(job.store.blobs))
        return cast("float | None", self._run(self._task(away)))

    def stop(self) -> None:
        """Wait for no job any more, and begin none: this process was told to end. A worker ends the stage that it
        trains, for nobody."""
        with self._lock:
            self._stopped = True
            for future in self._running:
                future.cancel()

    def _task(self, job: StageJob | MeasureJob) -> Task:
        return Task(job, self._remote, tuple(self._locate(f.path) for f in files_of(job)))

    def _run(self, task: Task) -> Any:
        from distributed.scheduler import KilledWorker
        client = self._connected()
        with self._lock:
            if self._stopped:
                raise TrainingError("a job was not begun because this command was told to end; run it again: what is "
                                    "trained is kept")
            future = client.submit(carry_out, task, pure=False, resources=self._needs.resources(), retries=0)
            self._running.add(future)
        try:
            outcome = self._result(client, future)
        except KilledWorker:
            raise TrainingError("a job was given up because several workers died over it; look at their memory, then "
                                "run the command again: what is trained is kept") from None
        except (OSError, TimeoutError, CancelledError) as error:
            raise TrainingError(f"the Dask cluster was lost ({type(error).__name__}); see that its scheduler is up, "
                                "then run the command again: what is trained is kept") from None
        finally:
            with self._lock:
                self._running.discard(future)
            future.release()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _result(self, client: Any, future: Any) -> Any:
        """Wait for it, as long as there is a worker that can carry it out. Raises TrainingError, TimeoutError."""
        from distributed import wait
        since = time.monotonic()
        while True:
            try:
                with client.as_current():  # `wait` asks for the current one, and there may be several
                    wait([future], timeout=min(_LOOK_SECONDS, self._patience))
                return future.result(timeout=_GATHER_SECONDS)
            except TimeoutError:
                if future.done() or client.status != "running":
                    raise
                if _able(client, self._needs):
                    since = time.monotonic()
                elif time.monotonic() - since > self._patience:
                    future.cancel()
                    raise TrainingError(f"no Dask worker with what a task takes was there for {self._patience:g} s; "
                                        "start one, then run the command again: what is trained is kept") from None

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None or self._client.status not in ("running", "connecting"):
                self._client = connect(self._address, self._plain, _WAIT_SECONDS)
                _check_workers(self._client, self._needs)
            return self._client


def _check_workers(client: Any, needs: Needs) -> None:
    """Raises WorkspaceError unless a worker has what a task takes: Dask would wait for one for ever."""
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=_WAIT_SECONDS)
    if not _able(client, needs):
        wanted = " ".join(f"{k}={v:g}" for k, v in needs.resources().items())
        others = len(client.scheduler_info(n_workers=-1)["workers"])
        raise WorkspaceError(f"expected a Dask worker with {wanted}, got {others} without; start workers with "
                             f'`dask worker ADDRESS --no-nanny --resources "{wanted}"`')


def _able(client: Any, needs: Needs) -> bool:
    """Whether a worker declares what a task takes."""
    declared = [w["resources"] for w in client.scheduler_info(n_workers=-1)["workers"].values()]
    return any(all(d.get(k, 0) >= v for k, v in needs.resources().items()) for d in declared)


def files_of(job: StageJob | MeasureJob) -> tuple[FileRef, ...]:
    """The data files of a job, the held-out ones last."""
    return (*job.slices, job.held_out) if isinstance(job, StageJob) else (job.held_out,)


def only_content(keys: WorkspaceKeys) -> WorkspaceKeys:
    """The key that checks contents, without those that place, name or suppress people or seal stages."""
    return WorkspaceKeys(placement=b"", subject=b"", content=keys.content, suppression=b"", commitment=b"",
                         sealing=b"", identity=b"")


def carry_out(task: Task) -> Any:
    """On a worker: fetch, run in a process of its own, remove. Returns the outcome, or the error to raise."""
    try:
        with _fetched(task) as job:
            runner = _runner()
            if isinstance(job, StageJob):
                return runner.train(job)
            return runner.describe(job) if isinstance(job, DescribeJob) else runner.measure(job)
    except S3TError as error:
        return error
    except AssertionError:
        return WorkspaceError("expected a Dask worker that may start processes, got one under a nanny; start it with "
                              "--no-nanny")


def _runner() -> ProcessRunner:
    if not hasattr(_RUNNER, "made"):
        _RUNNER.made = ProcessRunner()
    return cast(ProcessRunner, _RUNNER.made)


def _me() -> str:
    """This process, told from any other that has or had its number."""
    return f"{os.getpid()}-{int(psutil.Process().create_time())}"


def _sweep() -> None:
    """Remove what workers of this machine fetched and were killed over."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FETCHED}*"):
        number, _, rest = folder.name.removeprefix(_FETCHED).partition("-")
        began = rest.partition("-")[0]
        if not (number.isdecimal() and began.isdecimal()):
            continue  # an earlier release's: nobody knows whose
        if folder.lstat().st_uid != os.getuid():
            continue  # another user's
        try:
            there = psutil.Process(int(number))
            alive = int(there.create_time()) == int(began) and there.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            alive = False
        if not alive:
            remove_tree(folder)


@contextlib.contextmanager
def _fetched(task: Task) -> Iterator[StageJob | MeasureJob | DescribeJob]:
    """The job with its files in a directory that is gone afterwards."""
    job = task.job
    if isinstance(job, DescribeJob):
        yield job
        return
    blobs = S3Blobs(task.remote)
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{_FETCHED}{_me()}-") as folder:
        refs = []
        for number, (ref, name) in enumerate(zip(files_of(job), task.names, strict=True)):
            path = Path(folder) / f"{number}.parquet"
            if not blobs.fetch(name, path):
                raise StorageError(f"expected data object {name[-12:]} in the DVC remote, got none; run `dvc push` in "
                                   "the workspace, then the command again")
            refs.append(FileRef(path, ref.digest))
        if isinstance(job, StageJob):
            yield replace(job, slices=tuple(refs[:-1]), held_out=refs[-1], spill=Path(folder))
        else:
            yield replace(job, held_out=refs[-1])
