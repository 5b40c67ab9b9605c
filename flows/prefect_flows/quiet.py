"""Prefect flows and tasks as this project uses them. Prefect keeps what it is told, for good, in a
database that may be a server's, where no erasure reaches it: so it is told names, states and
numbers, and nothing that a person typed or a source said.

1. What flows and tasks are given or return is neither cached, hashed nor stored. Of a flow's
   parameters Prefect learns the workspace's path, numbers and switches; every other text stands
   there as `KEPT`. What they return it holds in an envelope that shows nothing: its debug mode logs
   states with their results.
2. An error whose message may quote what was given or read (bad usage, bad data, a trace that was
   found, whatever is not this project's own) reaches Prefect as its class alone, and no log.
   Whoever called the flow gets the error itself; of a flow that a worker or a server runs, the
   command by hand tells, and of a fault of ours its place is told.
"""

import sys
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import wraps
from typing import Any, cast

from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.settings import operators_server
from s3t_core.errors import ConfigError, ResidueFound, S3TError, UsageError, WorkspaceError

KEPT = "(kept from Prefect)"
_PASSED_ON = ("workspace",)
"""Parameters that Prefect learns as they are."""
_ANSWERED: ContextVar[bool] = ContextVar("answered", default=False)
"""Whether somebody who called the flow gets its errors."""


class KeptFromPrefect(Exception):
    """Stands for `error` in what Prefect keeps."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"{type(error).__name__}: what it says may quote somebody, so it is not kept here; the "
            "same command by hand tells"
        )
        self.error = error


class Returned:
    """What a flow or task returned, in what Prefect holds of it."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        return KEPT


class QuietFlow(Flow[..., Any]):
    """A flow of which Prefect learns no more than the first lines here say."""

    def serialize_parameters(self, parameters: dict[str, object]) -> dict[str, object]:
        """As Prefect keeps them."""
        plain = {
            k: v if k in _PASSED_ON or isinstance(v, bool | int | float) else KEPT
            for k, v in parameters.items()
        }
        return dict(super().serialize_parameters(plain))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Run it. Raises what it raised. On a server of the workspace's own it has no heartbeat:
        nobody there listens to it, and Prefect waits for its thread for up to a second."""
        answered = _ANSWERED.set(True)
        beating = {} if operators_server() else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
        try:
            with temporary_settings(beating):
                return _opened(super().__call__(*arguments, **named))
        except KeptFromPrefect as kept:
            error = kept.error
        finally:
            _ANSWERED.reset(answered)
        raise error


class QuietTask(Task[..., Any]):
    """A task of which Prefect learns no more."""

    def with_options(self, **options: Any) -> "QuietTask":
        """As Prefect's, which would make a task of another class."""
        made = super().with_options(**options)
        made.__class__ = QuietTask
        return cast(QuietTask, made)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Run it. Raises what it raised."""
        try:
            return _opened(super().__call__(*arguments, **named))
        except KeptFromPrefect as kept:
            error = kept.error
        raise error


def _opened(result: object) -> object:
    return result.value if isinstance(result, Returned) else result


def _may_quote(error: Exception) -> bool:
    if isinstance(error, S3TError):
        return isinstance(error, UsageError | ResidueFound) and not isinstance(
            error, ConfigError | WorkspaceError
        )
    return type(error).__module__.partition(".")[0] not in ("prefect", "httpx", "httpcore")


def _quiet(work: Callable[..., Any], tell: bool) -> Callable[..., Any]:
    @wraps(work)
    def run(*arguments: Any, **named: Any) -> Any:
        try:
            return Returned(work(*arguments, **named))
        except KeptFromPrefect as error:  # of a task that was submitted
            kept = error
        except Exception as error:
            if not _may_quote(error):
                raise
            if tell and not isinstance(error, S3TError) and not _ANSWERED.get():
                sys.stderr.write(
                    "s3t: "
                    f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
                )
            kept = KeptFromPrefect(error)
        raise kept  # outside, so that it has no context to be told

    return run


def flow(name: str, **options: Any) -> Callable[[Callable[..., Any]], QuietFlow]:
    """As `prefect.flow`; its runs are named for what they do, and when they began."""

    def run_name() -> str:
        return f"{name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"

    return lambda work: QuietFlow(
        _quiet(work, tell=True),
        name=name,
        flow_run_name=run_name,
        persist_result=False,
        **options,
    )


def task(name: str, **options: Any) -> Callable[[Callable[..., Any]], QuietTask]:
    """As `prefect.task`."""
    return lambda work: QuietTask(
        _quiet(work, tell=False), name=name, cache_policy=NO_CACHE, persist_result=False, **options
    )


def outcome_of(future: Any) -> Any:
    """What a submitted task returned. Raises what it raised."""
    try:
        return _opened(future.result(raise_on_failure=True))
    except KeptFromPrefect as kept:
        error = kept.error
    raise error
