"""Runs each job in a process of its own, forked from one that has torch imported already.

A stage never shares a process, a thread pool or a random generator with another (method.md), and
takes over neither the variables by which a shell could choose its kernels (learning.pins) nor
packages that nothing requires (learning.required). What a job raises is raised here; a job whose
process dies (out of memory, killed) is a TrainingError, and a rerun continues from there. An order
to end this process (SIGINT, SIGTERM) ends the jobs with it, and so does its death (kill -9).
"""

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import TypeVar, cast

from s3t_core.domain import Score
from s3t_core.errors import S3TError, TrainingError
from s3t_core.learning import pins
from s3t_core.learning.jobs import (
    JOBS,
    DescribeJob,
    Description,
    Job,
    MeasureJob,
    Outcome,
    StageJob,
    StageOutcome,
)
from s3t_core.learning.required import hide_strangers

T = TypeVar("T")
_HASHES = "PYTHONHASHSEED"
_STARTING = threading.Lock()
"""Of all runners of this process: they share its `__main__`."""
_SHORT = 107 - len("/pymp-12345678/listener-12345678")
"""Bytes that a temporary directory's path may have for multiprocessing's sockets in it: a socket's
has 108, the last one 0 (unix(7))."""
_SHARED = ("/tmp", "/var/tmp")  # noqa: S108  what is made there is this user's alone


class ProcessRunner:
    """Local processes. `threads` is what every job computes with."""

    def __init__(self) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["s3t_core.learning.preload"])
        self._lock = threading.Lock()
        self._running: set[BaseProcess] = set()
        self._stopped = False

    def begin(self) -> None:
        """Begin the process that jobs are forked from, which imports for seconds, beside whatever
        comes before the first job. What is wrong with it, a job says."""
        with contextlib.suppress(OSError), _alike():
            _shorten()
            forkserver.ensure_running()

    def describe(self, job: DescribeJob) -> Description:
        """What the backbone is."""
        return cast(Description, self._run(job))

    def train(self, job: StageJob) -> StageOutcome:
        """Train one stage."""
        return cast(StageOutcome, self._run(job))

    def measure(self, job: MeasureJob) -> Score | None:
        """The score of a release."""
        return cast("Score | None", self._run(job))

    def stop(self) -> None:
        """End every job that runs, and begin no other: this process was told to end, and nobody
        would take what they bring. Their callers get a TrainingError."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()

    def _run(self, job: Job) -> Outcome:
        process, receiving = self._begin(job)
        try:
            outcome: Outcome | BaseException = receiving.recv()
        except EOFError:
            process.join()
            raise self._died(job, process.exitcode) from None
        except BaseException:
            process.kill()
            raise
        finally:
            receiving.close()
            with self._lock:
                self._running.discard(process)
        process.join()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _begin(self, job: Job) -> "tuple[BaseProcess, Connection]":
        """The process of a job, and where its outcome will come."""
        receiving, sending = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_child, args=(sending, job), daemon=True)
        with self._lock:
            if self._stopped:
                raise self._died(job, None)
            try:
                with _alike():
                    _shorten()
                    process.start()
            except (OSError, EOFError) as error:  # the fork server is gone, or never came to be
                raise TrainingError(
                    f"the process of a {type(job).__name__} could not be started "
                    f"({type(error).__name__}); see what this Python imports at its start "
                    "(sitecustomize, .pth files), that it keeps docstrings (no -OO) and its "
                    f"TMPDIR has at most {_SHORT} bytes, and check free memory, then run the "
                    "command again"
                ) from None
            self._running.add(process)
        sending.close()
        return process, receiving

    def _died(self, job: Job, exit_code: int | None) -> TrainingError:
        if self._stopped:
            return TrainingError(
                f"a {type(job).__name__} was ended as this command was told to end; run it again: "
                "what is trained is kept"
            )
        return TrainingError(
            f"the process of a {type(job).__name__} died (exit code {exit_code}); check free "
            "memory, then run the command again: what is trained is kept"
        )


def _child(sending: Connection, job: Job) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        pins.pin(os.environ)  # it may come from a fork server that somebody else started
        hide_strangers()
        outcome: Outcome | BaseException = JOBS[type(job)](job)
    except S3TError as error:
        outcome = error
    except BaseException as error:  # the message may quote data: only its type leaves the process
        outcome = TrainingError(
            f"a {type(job).__name__} failed with {type(error).__name__} at {_place(error)}"
        )
    sending.send(outcome)
    sending.close()


def _shorten() -> None:
    """Where TMPDIR is too deep for a socket, the fork server's lies in a directory that every
    machine has, as from Python 3.14 on (util.get_temp_dir)."""
    config = vars(multiprocessing.current_process())["_config"]
    made = config.get("tempdir")
    if len(os.fsencode(Path(made).parent if made else tempfile.gettempdir())) <= _SHORT:
        return
    for shared in _SHARED:
        with contextlib.suppress(OSError):
            folder = tempfile.mkdtemp(prefix="pymp-", dir=shared)
            util.Finalize(None, shutil.rmtree, (folder, True), exitpriority=-100)
            config["tempdir"] = folder
            return


@contextlib.contextmanager
def _alike() -> Iterator[None]:
    """A process that is started meanwhile does not run this one's script again: what that imports
    is no part of a job. And it hashes texts as each such process does: no order of a set is drawn
    anew."""
    with _STARTING:
        main, seed = sys.modules["__main__"], os.environ.get(_HASHES)
        sys.modules["__main__"] = ModuleType("__main__")
        os.environ[_HASHES] = "0"
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            del os.environ[_HASHES]
            os.environ.update({} if seed is None else {_HASHES: seed})


def _end_with_parent() -> None:
    """A job has the rows of its slices in memory: it does not outlive whoever asked for it,
    whatever ended that. Their end of a pipe closes then (multiprocessing's sentinel of the
    parent)."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (
        f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        if trace
        else "an unknown place"
    )
