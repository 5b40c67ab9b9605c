"""The door of one workspace: its port, what stands in front, what works behind. `s3t api`; beside
the schedules, `s3t serve` starts it as a process of its own."""

import threading
from collections.abc import Callable
from contextlib import closing

from flows.adapters.doors import Door, serve_until
from flows.adapters.guard import Guard
from flows.adapters.own_door import own_door
from flows.api.app import LIVE, READY, make_app
from flows.api.callers import Callers
from flows.api.desk import Desk, IntakeDesk
from flows.api.limits import Limits
from flows.use_cases.tokens import book_of
from flows.workspace.intake import IntakeHost
from flows.workspace.workspace import Workspace
from s3t_core.errors import S3TError

_OPEN = frozenset({LIVE, READY})
_MEGABYTE = 2**20


def serve(
    workspace: Workspace | IntakeHost,
    door: Door,
    stop: threading.Event,
    began: Callable[[str], None] = lambda _: None,
) -> None:
    """Answer at this door until stopped; `began` gets the address. Raises UsageError for a port
    that is taken, and whatever says that the workspace cannot be used."""
    workspace.ledger  # noqa: B018  # refuse a workspace that nobody could ask
    book_of(workspace).all()  # or it is said why nobody could be known
    answers = isinstance(workspace, Workspace)  # a host apart has no model to ask
    with (
        closing(_desk_of(workspace)) as desk,
        own_door(workspace.state_dir, answers and not door.tls_cert) as own,
    ):
        serve_until(
            door,
            lambda port: guarded(workspace, desk, door, port, own.secret),
            stop,
            began,
            own.socket,
            own.say,
        )


def _desk_of(workspace: Workspace | IntakeHost) -> Desk:
    settings = workspace.config.api
    if isinstance(workspace, IntakeHost):
        return IntakeDesk(workspace.root, settings.most_seconds)
    return Desk(workspace.root, settings.most_seconds, settings.texts_together)


def guarded(
    workspace: Workspace | IntakeHost, desk: Desk, door: Door, port: int, own: str = ""
) -> Guard:
    """The whole application, as it answers at this port. `own`: what the operator's commands here
    send."""
    settings = workspace.config.api
    callers = Callers(book_of(workspace), workspace.clock, settings.per_minute, own)
    app = Limits(
        make_app(desk, callers), settings.most_megabytes * _MEGABYTE, settings.most_seconds
    )
    return door.guarded(app, port, "bearer", "", _OPEN, "s3t", knows=_closed(callers))


def _closed(callers: Callers) -> Callable[[bytes], bool]:
    """Whether these bytes open anything; where nobody can say, they do not."""

    def knows(sent: bytes) -> bool:
        try:
            return callers.knows(sent)
        except S3TError:
            return False

    return knows
