"""Processes that `s3t serve` keeps beside its own, each for as long as there is a reason to: the
HTTP door, callbacks."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.adapters.child import Child
from flows.adapters.doors import Door
from flows.use_cases.tokens import list_tokens
from flows.workspace.workspace import Workspace
from s3t_core.errors import S3TError

_AGAIN_SECONDS = 60.0
"""One that ended is started again after so long at the earliest."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """How a process is started now, and what is said once it is."""

    arguments: tuple[str, ...]
    description: str


class Beside:
    """One of them."""

    def __init__(
        self,
        module: str,
        what: str,
        log: str,
        wanted: Callable[[Workspace], Wanted | None],
        say: Say,
    ) -> None:
        """`module`: run with the workspace's directory and what `wanted` says; None where there is
        no reason to. `what` could not be started, `log`: its file under .s3t."""
        self._module, self._what, self._log = module, what, log
        self._wanted, self._say = wanted, say
        self._child: Child | None = None
        self._problem = ""
        self._begun = float("-inf")

    def see_to(self, root: Path) -> None:
        """Start it where it is wanted and does not run; what stands against that is told once."""
        is_there = self._child is not None and self._child.is_alive()
        if is_there or time.monotonic() - self._begun < _AGAIN_SECONDS:
            return
        try:
            workspace = Workspace(root)
            wanted = self._wanted(workspace)
        except S3TError as error:
            if str(error) != self._problem:
                self._say(f"Could not start {self._what}: {error}")
            self._problem = str(error)
            return
        if wanted is None:
            return
        log = workspace.state_dir / self._log
        log.touch(mode=0o600)
        self._child = Child(
            self._module,
            str(workspace.root),
            *wanted.arguments,
            cwd=workspace.root,
            env=os.environ,
            log=log,
        )
        self._begun = time.monotonic()
        self._say(f"{wanted.description}; .s3t/{self._log} is its log")

    def stop(self, grace_seconds: float) -> None:
        """End it, where it runs."""
        if self._child is not None:
            self._child.stop(grace_seconds)
        self._child = None


def the_door(say: Say) -> Beside:
    """The HTTP door, once there is a token: nobody else could ask there."""

    def wanted(workspace: Workspace) -> Wanted | None:
        if not any(t["good"] for t in list_tokens(workspace)):
            return None
        door = Door(port=workspace.config.api.port)
        door.bind().close()  # a port that is taken is told here
        address = f"{door.origin(door.port)}/api/v1"
        return Wanted(("--port", str(door.port)), f"The HTTP door is at {address}")

    return Beside("flows.api", "the HTTP door", "api.log", wanted, say)


def the_callbacks(say: Say) -> Beside:
    """What sends callbacks, once there is a target."""

    def wanted(workspace: Workspace) -> Wanted | None:
        count = len(workspace.config.callbacks.targets)
        return Wanted((), f"Callbacks go to {count} target(s)") if count else None

    return Beside("flows.callbacks", "callbacks", "callbacks.log", wanted, say)
