"""Runs each job in a process of its own, forked from one that has torch imported already.

A stage never shares a process, a thread pool or a random generator with another (method.md), and takes over none of
the variables by which a shell could choose its kernels (learning.pins). What a job raises is
raised here; a job whose process dies (out of memory, killed) is a TrainingError, and a rerun continues from there.
"""

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

from s3t_core.errors import S3TError, TrainingError
from s3t_core.learning import pins
from s3t_core.learning.jobs import JOBS, DescribeJob, Description, MeasureJob, StageJob, StageOutcome

T = TypeVar("T")


class ProcessRunner:
    """Local processes. `threads` is what every job computes with."""

    def __init__(self) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["s3t_core.learning.preload"])

    def describe(self, job: DescribeJob) -> Description:
        """What the backbone is."""
        return cast(Description, self._run(job))

    def train(self, job: StageJob) -> StageOutcome:
        """Train one stage."""
        return cast(StageOutcome, self._run(job))

    def measure(self, job: MeasureJob) -> float | None:
        """Accuracy of a release."""
        return cast("float | None", self._run(job))

    def _run(self, job: Any) -> Any:
        receiving, sending = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_child, args=(sending, job), daemon=True)
        process.start()
        sending.close()
        try:
            outcome = receiving.recv()
        except EOFError:
            process.join()
            raise TrainingError(f"the process of a {type(job).__name__} died (exit code {process.exitcode}); check "
                                "free memory, then run the command again: what is trained is kept") from None
        finally:
            receiving.close()
        process.join()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def _child(sending: Connection, job: Any) -> None:
    try:
        pins.pin(os.environ)  # it may come from a fork server that somebody else started
        outcome = JOBS[type(job)](job)
    except S3TError as error:
        outcome = error
    except BaseException as error:  # the message may quote data: only its type leaves the process
        outcome = TrainingError(f"a {type(job).__name__} failed with {type(error).__name__} at {_place(error)}")
    sending.send(outcome)
    sending.close()


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "an unknown place"
