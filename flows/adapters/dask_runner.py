"""Runs each job on a Dask cluster: many machines, with nothing in common but the buckets.

A worker gets a job without paths: it fetches the slice files from the DVC remote and the earlier
stages from the store, both checked by digest, and trains in a process of its own, as a local runner
does. It has no key of the buckets: its task brings addresses, each of one object, to read, for an
hour. Of the workspace's keys it gets the one that checks contents, no other. Its profile must be
that of the stage key, else it refuses. Nothing is kept there: what was fetched is removed when the
stage is done; what a killed worker left, by the next job at that place, of which the workspace
keeps account (adapters.away).

A worker that is killed costs the stage that it trained: Dask gives it to another. Tasks declare
CPUs, memory and, on `device = "cuda"`, one GPU, so workers must be started with what they have
(docs/operations.md):

    dask worker tls://SCHEDULER:8786 --host HOST --no-nanny --nthreads 2 --resources "CPU=2
    MEMORY=8192"

Prefect's own tasks stay where the flow runs (one per stage, for its states and retries): a worker
needs no Prefect.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from flows.adapters.away import AwayFiles, AwayJob, Looked
from flows.adapters.dask_connection import connect
from flows.adapters.places import here, look, working_directory
from flows.adapters.runner import ProcessRunner
from flows.adapters.s3 import S3Blobs
from flows.adapters.signed import AddressRefused, SignedBlobs, signed_fetch
from s3t_core.domain import Score
from s3t_core.errors import S3TError, StorageError, TrainingError, WorkspaceError
from s3t_core.keys import WorkspaceKeys
from s3t_core.learning.jobs import (
    DescribeJob,
    Description,
    FileRef,
    MeasureJob,
    Outcome,
    StageJob,
    StageOutcome,
)
from s3t_core.learning.store import StageStore

if TYPE_CHECKING:
    from distributed import Client, Future

_WAIT_SECONDS = 60
_LOOK_SECONDS = 10
_GATHER_SECONDS = 600
_ANSWER_SECONDS = 30
"""How long workers may take to look at their places."""
_SIGNED_SECONDS = 3600
"""How long an address of an object may be used: longer than a task waits for a worker that is
free."""
_TRIES = 5
"""Of a job that was declined: workers joined, or it waited too long."""
_RUNNER = threading.local()

Locate = Callable[[Path], str]
"""The name of a data file's object in the DVC remote, relative to it."""


@dataclass(frozen=True, repr=False)
class Task:
    """A job for another machine: the addresses of its data files, in the order of `files_of(job)`;
    the name of the job, and the places whose workers may carry it out. Without `repr`: Dask logs
    what it cannot carry out."""

    job: StageJob | MeasureJob | DescribeJob
    files: tuple[str, ...] = ()
    name: str = ""
    places: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Declined:
    """A worker at a place that is not in the job's lease did not begin it, or one whose addresses
    had run out."""

    place: str
    address: str


@dataclass(frozen=True)
class Needs:
    """What one task takes: CPUs, MiB of memory, GPUs."""

    cpus: int
    memory_mib: int
    gpus: int

    def resources(self) -> dict[str, float]:
        """As Dask counts them."""
        return {
            "CPU": self.cpus,
            "MEMORY": self.memory_mib,
            **({"GPU": self.gpus} if self.gpus else {}),
        }


class DaskRunner:
    """A cluster by the address of its scheduler. Fills what the flows ask of a runner."""

    def __init__(
        self,
        address: str,
        remote: str,
        locate: Locate,
        needs: Needs,
        away: AwayFiles,
        patience: float = _WAIT_SECONDS,
        plain_on_loopback: bool = False,
    ) -> None:
        """`away`: where leases are kept. `patience`: seconds that a job may stand without any
        worker that could carry it out. `plain_on_loopback`: a scheduler on a loopback address may
        be asked without TLS."""
        self._away = away
        self._plain = plain_on_loopback
        self._patience = patience
        self._address = address
        self._remote = remote
        self._locate = locate
        self._needs = needs
        self._lock = threading.Lock()
        self._client: Client = None
        self._running: set[Any] = set()
        self._stopped = False

    def begin(self) -> None:
        """Nothing: workers begin what they fork from with their first job."""

    def describe(self, job: DescribeJob) -> Description:
        """What the backbone is, and the profile, on a worker."""
        return cast(Description, self._run(self._connected(), Task(job)))

    def train(self, job: StageJob) -> StageOutcome:
        """Train one stage on a worker."""
        earlier = [d for d in job.earlier if d]
        away = replace(job, keys=only_content(job.keys), activations=None, spill=None)
        return cast(StageOutcome, self._run_leased(away, earlier))

    def measure(self, job: MeasureJob) -> Score | None:
        """The score of a release, on a worker."""
        stages = sorted({s.digest for r in job.release.replicas for s in r.stages})
        return cast(
            "Score | None", self._run_leased(replace(job, keys=only_content(job.keys)), stages)
        )

    def look(self) -> list[Looked]:
        """Have every worker remove what dead ones left at its place. Those that do not answer are
        left out. Raises S3TError without a cluster."""
        return list(self._seen_by_workers(self._connected()).values())

    def stop(self) -> None:
        """Wait for no job any more, and begin none: this process was told to end. A worker ends the
        stage that it trains, for nobody."""
        with self._lock:
            self._stopped = True
            for future in self._running:
                future.cancel()

    def _run_leased(self, job: StageJob | MeasureJob, stages: list[str]) -> "Outcome":
        """Run a job that fetches rows, and `stages` (digests), under a lease."""
        client = self._connected()
        lease = self._away.begin((f.digest for f in files_of(job)), self._places(client))
        try:
            for _ in range(_TRIES):
                outcome = self._run(client, self._signed(job, stages, lease))
                if not isinstance(outcome, Declined):
                    return outcome
                lease = self._away.widen(
                    lease, {outcome.place: outcome.address, **self._places(client)}
                )
            raise TrainingError(
                f"a job was declined {_TRIES} times: workers came and went, the bucket refused the "
                "addresses that it brought, or it waited for over an hour; run the command again: "
                "what is trained is kept"
            )
        finally:
            with contextlib.suppress(
                S3TError
            ):  # then the lease stays, and the next scan has it settled
                self._away.settle(lease, self._seen_by_workers(client).values())

    def _signed(self, job: StageJob | MeasureJob, stages: list[str], lease: AwayJob) -> Task:
        """A task with the address of each object that it reads."""
        remote, store = S3Blobs(self._remote), cast(S3Blobs, job.store.blobs)
        names = [f"{digest}.safetensors" for digest in stages]
        readable = SignedBlobs({name: store.signed(name, _SIGNED_SECONDS) for name in names})
        files = tuple(remote.signed(self._locate(f.path), _SIGNED_SECONDS) for f in files_of(job))
        return Task(
            replace(job, store=StageStore(readable)), files, lease.job, frozenset(lease.places)
        )

    def _places(self, client: "Client") -> dict[str, str]:
        """Where the workers of now work, each with the address of its machine."""
        return {
            each.place: _machine(worker) for worker, each in self._seen_by_workers(client).items()
        }

    @staticmethod
    def _seen_by_workers(client: "Client") -> dict[str, Looked]:
        """What each worker that answers saw, by its address. Raises TrainingError where the cluster
        is lost."""
        try:
            answers = client.sync(
                client._run, look, on_error="return", callback_timeout=_ANSWER_SECONDS
            )
        except (OSError, TimeoutError, CancelledError, RuntimeError) as error:
            raise _lost(error) from None
        return {worker: said for worker, said in answers.items() if isinstance(said, Looked)}

    def _run(self, client: "Client", task: Task) -> "Outcome | Declined":
        from distributed.scheduler import KilledWorker

        with self._lock:
            if self._stopped:
                raise TrainingError(
                    "a job was not begun because this command was told to end; run it again: what "
                    "is trained is kept"
                )
            future = client.submit(
                carry_out, task, pure=False, resources=self._needs.resources(), retries=0
            )
            self._running.add(future)
        try:
            outcome = self._result(client, future)
        except KilledWorker:
            raise TrainingError(
                "a job was given up because several workers died over it; look at their memory, "
                "then run the command again: what is trained is kept"
            ) from None
        except (OSError, TimeoutError, CancelledError) as error:
            raise _lost(error) from None
        finally:
            with self._lock:
                self._running.discard(future)
            future.release()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _result(self, client: "Client", future: "Future") -> "Outcome | Declined | BaseException":
        """Wait for it, as long as there is a worker that can carry it out. Raises TrainingError,
        TimeoutError, CancelledError."""
        since = time.monotonic()
        while not self._is_done(client, future):
            if client.status != "running":
                raise CancelledError
            if _able(client, self._needs):
                since = time.monotonic()
            elif time.monotonic() - since > self._patience:
                future.cancel()
                raise TrainingError(
                    f"no Dask worker with what a task takes was there for {self._patience:g} s; "
                    "start one, then run the command again: what is trained is kept"
                )
        outcome: Outcome | Declined | BaseException = future.result(timeout=_GATHER_SECONDS)
        return outcome

    def _is_done(self, client: "Client", future: "Future") -> bool:
        """After a while of waiting. It may end just when the waiting does: what it is now counts,
        not how that went."""
        from distributed import wait

        with (
            contextlib.suppress(TimeoutError),
            client.as_current(),
        ):  # `wait` asks for the current one of several
            wait([future], timeout=min(_LOOK_SECONDS, self._patience))
        return bool(future.done())

    def _connected(self) -> "Client":
        with self._lock:
            if self._client is None or self._client.status not in ("running", "connecting"):
                self._client = connect(self._address, self._plain, _WAIT_SECONDS)
                _check_workers(self._client, self._needs)
            return self._client


def _lost(error: BaseException) -> TrainingError:
    return TrainingError(
        f"the Dask cluster was lost ({type(error).__name__}); see that its scheduler is up and its "
        "workers answer, then run the command again: what is trained is kept"
    )


def _machine(worker: str) -> str:
    """Where a worker's machine is, of the worker's address."""
    return urlsplit(worker).hostname or ""


def _check_workers(client: "Client", needs: Needs) -> None:
    """Raises WorkspaceError unless a worker has what a task takes: Dask would wait for one for
    ever."""
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=_WAIT_SECONDS)
    if not _able(client, needs):
        wanted = " ".join(f"{k}={v:g}" for k, v in needs.resources().items())
        others = len(client.scheduler_info(n_workers=-1)["workers"])
        raise WorkspaceError(
            f"expected a Dask worker with {wanted}, got {others} without; start workers with "
            f'`dask worker ADDRESS --no-nanny --resources "{wanted}"`'
        )


def _able(client: "Client", needs: Needs) -> bool:
    """Whether a worker declares what a task takes."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    declared = [worker["resources"] for worker in workers.values()]
    wanted = needs.resources().items()
    return any(all(has.get(name, 0) >= least for name, least in wanted) for has in declared)


def files_of(job: StageJob | MeasureJob) -> tuple[FileRef, ...]:
    """The data files of a job, the held-out ones last."""
    return (*job.slices, job.held_out) if isinstance(job, StageJob) else (job.held_out,)


def only_content(keys: WorkspaceKeys) -> WorkspaceKeys:
    """The key that checks contents, without those that place, name or suppress people or seal
    stages."""
    return WorkspaceKeys(
        placement=b"",
        subject=b"",
        content=keys.content,
        suppression=b"",
        commitment=b"",
        sealing=b"",
        identity=b"",
    )


def carry_out(task: Task) -> "Outcome | Declined | S3TError":
    """On a worker: fetch, run in a process of its own, remove. Returns the outcome, or the error to
    raise."""
    try:
        if not isinstance(task.job, DescribeJob):
            _refuse_spilling()
            if here() not in task.places:
                return _declined()
        with _fetched(task) as job:
            runner = _runner()
            if isinstance(job, StageJob):
                return runner.train(job)
            return runner.describe(job) if isinstance(job, DescribeJob) else runner.measure(job)
    except AddressRefused:
        return _declined()
    except S3TError as error:
        return error
    except AssertionError:
        return WorkspaceError(
            "expected a Dask worker that may start processes, got one under a nanny; start it with "
            "--no-nanny"
        )


def _refuse_spilling() -> None:
    """Raises WorkspaceError on a worker that may write what it holds to its disk: what it trained
    would lie there, in a directory of Dask's, where no erasure looks."""
    from distributed import get_worker

    if type(get_worker().data) is not dict:
        raise WorkspaceError(
            "expected a Dask worker that keeps what it holds in memory, got one that may spill it "
            "to its disk; start workers with the configuration that `python -m "
            "flows.adapters.dask_certificates` makes, or with "
            "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL=false and "
            "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET=false"
        )


def _declined() -> Declined:
    from distributed import get_worker

    return Declined(here(), _machine(get_worker().address))


def _runner() -> ProcessRunner:
    if not hasattr(_RUNNER, "made"):
        _RUNNER.made = ProcessRunner()
    return cast(ProcessRunner, _RUNNER.made)


@contextlib.contextmanager
def _fetched(task: Task) -> Iterator[StageJob | MeasureJob | DescribeJob]:
    """The job with its files in a directory that is gone afterwards."""
    job = task.job
    if isinstance(job, DescribeJob):
        yield job
        return
    look()
    with working_directory(task.name) as folder:
        refs = []
        for number, (ref, address) in enumerate(zip(files_of(job), task.files, strict=True)):
            path = folder / f"{number}.parquet"
            if not signed_fetch(address, path):
                raise StorageError(
                    "expected a data object of this job in the DVC remote, got none; run `dvc "
                    "push` in the workspace, then the command again"
                )
            refs.append(FileRef(path, ref.digest))
        if isinstance(job, StageJob):
            yield replace(job, slices=tuple(refs[:-1]), held_out=refs[-1], spill=folder)
        else:
            yield replace(job, held_out=refs[-1])
