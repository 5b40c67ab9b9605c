"""Serve: the deployments of one workspace on this machine, until stopped, on the server that its
commands share.

1. one at a time per workspace. It takes over the Prefect server that runs, or starts it at its
   port; it holds it, so that it does not end for want of use; the runner is a process that dies
   with this one
2. flow runs that a killed runner left as running are marked as crashed: else they would keep their
   deployment's only place for ever. The ledger has what they did, the next run goes on from there
3. the server or the runner dies: the runner is ended, with every flow run, and both are there
   again. An erasure survives that at any time
4. an erase run is started at once, not by schedule, when a request is due soon, when an erasure is
   open that no process carries out, or when a full retrain is wanted
5. deployments that somebody changed or deleted at the server are registered anew, a schedule that
   somebody paused is told, and runs that were planned while the clock was ahead are taken out
   (flows.supervisor.schedules); so are all where s3t.toml asks for others by now, once no run is
   underway
6. beside them, the HTTP door (flows.api) is open once there is a token, and callbacks are sent
   (flows.callbacks) once there is a target
7. stopped politely, it ends the server too, unless a command uses it just then; killed, the server
   ends by itself
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from flows.adapters.child import Child
from flows.adapters.doors import Door
from flows.adapters.locks import is_held, workspace_lock
from flows.adapters.prefect_client import BEGUN, begin_run, prefect_client
from flows.adapters.shared_prefect import Address, SharedServer
from flows.prefect_flows.deployments import Deployment, deployments, to_prefect
from flows.settings import operators_server, use_server
from flows.supervisor.beside import the_callbacks, the_door
from flows.supervisor.schedules import look_after, take_out_far_runs
from flows.use_cases.documents import DeploymentEntry
from flows.use_cases.erasing import why_erase_now
from flows.workspace.workspace import Workspace
from s3t_core.errors import Busy, OrchestrationError, S3TError, StorageError, UsageError

ERASE, AUDIT, REPAIR = "erase/erase", "audit/audit", "repair/repair"
_START_SECONDS = 180
_POLL_SECONDS = 1.0
_LOOK_SECONDS = 5.0
_SCHEDULES_SECONDS = 60.0
_AGAIN_SECONDS = 600.0
"""For the same reason an erase run is started again after so long at the earliest."""
_GRACE_SECONDS = 10.0

Say = Callable[[str], None]


class Serving:
    """The server and the runner of one workspace, and what watches them."""

    def __init__(
        self, root: Path, door: Door, say: Say, stop: threading.Event, insists: bool = False
    ) -> None:
        """`door`: where a server listens that is started from here. `insists`: one that runs
        elsewhere will not do."""
        self.workspace = Workspace(root)
        self._door = door
        self._insists = insists
        self._say = say
        self._stop = stop
        self._server = SharedServer(
            self.workspace.state_dir / "prefect", self.workspace.config.prefect.idle_minutes, door
        )
        self._address: Address | None = None
        self._runner: Child | None = None
        self._beside = (the_door(say), the_callbacks(say))
        self._registered: list[Deployment] = []
        """What the runner registers when it begins, by the settings of that moment."""
        self._paused: frozenset[str] = frozenset()
        self._wrong = ""
        self._asked: dict[str, float] = {}
        self._last_look = 0.0
        self._planned = 0.0

    @property
    def url(self) -> str:
        """Where the server's API is, once there is one."""
        return self._address.url if self._address else ""

    def run(self, began: Callable[[], None] = lambda: None) -> None:
        """Until stopped; `began` is called once the server's address is known. Raises Busy when
        another serves this workspace, or when a command uses the server that would have to move,
        UsageError for a port that is taken or a server of the operator's, ConfigError for a
        schedule that is none."""
        if operators_server():
            raise UsageError(
                "expected no PREFECT_API_URL for `s3t serve`, got one: deploy to that server with "
                "`prefect deploy --all --prefect-file infra/prefect.yaml` and a worker, or unset it"
            )
        self.workspace.ledger  # noqa: B018  # refuse a workspace that no flow could use
        for each in deployments(self.workspace.config, self.workspace.root):
            to_prefect(each)  # and settings that none could be made of
        with self._alone():
            try:
                self._attach()
                began()
                while not self._stop.is_set():
                    if self._start():
                        self._say(f"Serving at {self.url}")
                        self._watch()
                    self._end()
            finally:
                self._end(_GRACE_SECONDS)
                for process in self._beside:
                    process.stop(_GRACE_SECONDS)
                self._leave()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            with workspace_lock(self.workspace.serve_lock_path):
                yield
        except Busy:
            if not is_held(self.workspace.serve_lock_path):
                raise
            raise Busy("`s3t serve` runs for this workspace already; stop that one first") from None

    def _attach(self) -> None:
        """Hold the workspace's server, where it was asked for."""
        address = self._server.attach()
        wanted = self._server.url_at(self._door.port)
        if address.url != wanted and self._insists:
            address = self._moved(address, wanted)
        self._address = address
        self._server.door = replace(self._door, port=urlsplit(address.url).port or self._door.port)
        use_server(address, self._server.credential())

    def _attach_again(self) -> bool:
        """Hold a server again, after one that died: a command may have been faster, and its server
        is somewhere else. Where the port is another process's by now, take another one, or wait for
        the one that was insisted on. False when it was stopped meanwhile."""
        told = False
        while not self._stop.is_set():
            try:
                self._attach()
                return True
            except UsageError as error:
                if not self._insists and self._server.door.port:
                    self._server.door = replace(self._server.door, port=0)
                    continue
                if not told:
                    self._say(f"Could not start Prefect's server again: {error}; trying again")
                told = True
                self._stop.wait(_POLL_SECONDS)
        return False

    def _moved(self, there: Address, wanted: str) -> Address:
        """The server, made to listen there instead. Raises Busy while a command uses it where it
        is."""
        try:
            self._server.stop()
        except Busy:
            raise Busy(
                f"expected this workspace's Prefect server at {wanted}, got one at {there.url} "
                "that a command uses; wait for that command, or leave out --host and --port"
            ) from None
        return self._server.attach()

    def _start(self) -> bool:
        """Server, then runner. False when it was stopped meanwhile."""
        if not self._server.is_running() and not self._attach_again():
            return False
        address = self._address
        if address is None or not self._is_ready(address):
            return False
        self._mark_lost_runs()
        until = time.monotonic() + _START_SECONDS
        log = self._server.home / "serve.log"
        log.touch(mode=0o600)
        root = self.workspace.root
        self._registered = deployments(Workspace(root).config, root)
        self._runner = Child(
            "flows.prefect_flows.runner",
            str(self.workspace.root),
            cwd=self.workspace.root,
            env=os.environ,
            log=log,
        )
        while not self._deployed():
            if self._stop.wait(_POLL_SECONDS):
                return False
            if not self._runner.is_alive() or time.monotonic() > until:
                raise StorageError(
                    "Prefect's runner did not start; .s3t/prefect/serve.log says why"
                )
        return True

    def _is_ready(self, address: Address) -> bool:
        """Whether the server answers, once it is started; False when we are stopped before."""
        until = time.monotonic() + _START_SECONDS
        while not self._stop.is_set():
            try:
                self._server.wait(address, 0)
                return True
            except OrchestrationError:
                if not self._server.is_running() or time.monotonic() > until:
                    raise
        return False

    def _end(self, grace_seconds: float = 0) -> None:
        if self._runner is not None:
            self._runner.stop(grace_seconds)
        self._runner = None

    def _leave(self) -> None:
        """End the server, unless somebody else uses it: then it ends by itself."""
        self._server.detach()
        with suppress(Busy, OrchestrationError):
            self._server.stop()

    def _watch(self) -> None:
        """Until server or runner dies, or it is stopped."""
        while not self._stop.wait(_POLL_SECONDS):
            if not (self._runner and self._runner.is_alive() and self._server.is_running()):
                self._say("Prefect's server or runner ended; starting both again")
                return
            if time.monotonic() - self._last_look > _LOOK_SECONDS:
                self._last_look = time.monotonic()
                self._look()
                for each in self._beside:
                    each.see_to(self.workspace.root)
            if time.monotonic() - self._planned > _SCHEDULES_SECONDS:
                self._planned = time.monotonic()
                if self._asks_for_others() or self._look_after_deployments():
                    return

    def _asks_for_others(self) -> bool:
        """Whether s3t.toml asks for other deployments than the runner registered, and no run is
        underway, which would end with the runner. Settings that none can be made of are told
        once."""
        try:
            wanted = deployments(Workspace(self.workspace.root).config, self.workspace.root)
            for each in wanted:
                to_prefect(each)
            if wanted == self._registered or self._underway():
                return False
        except Exception as error:  # whatever it is, what was registered stays
            wrong = str(error) if isinstance(error, S3TError) else type(error).__name__
            if wrong != self._wrong:
                self._say(f"The schedules stay as they are: {wrong}")
            self._wrong = wrong
            return False
        self._wrong = ""
        self._say("s3t.toml asks for other schedules by now; registering them")
        return True

    def _underway(self) -> bool:
        """Whether a run of a deployment is being carried out."""
        with prefect_client() as prefect:
            return any(run.deployment_id for run in prefect.runs(BEGUN))

    def _look_after_deployments(self) -> bool:
        """Whether all of them have to be registered anew, by a runner that begins anew. Takes out
        what was planned while the clock was ahead."""
        try:
            standing = look_after(self._registered)
            for name in sorted(standing.paused - self._paused):
                self._say(
                    f"The schedule of {name} was changed or paused in Prefect: nothing runs by it "
                    "as s3t.toml says until it is resumed there, or `s3t serve` is started again"
                )
            self._paused = standing.paused
            if standing.gone:
                names = ", ".join(sorted(standing.gone))
                self._say(f"Deleted or changed in Prefect, registered anew: {names}")
                self._asked.clear()  # a run of what was there may not have begun
                return True
            for name in take_out_far_runs([ERASE, AUDIT, REPAIR]):
                self._say(f"{name} was planned far ahead, by a clock that was; planning it anew")
        except Exception as error:  # the server may be starting again: the next look is in a minute
            self._say(f"Could not look at the schedules ({type(error).__name__}); trying again")
        return False

    def _look(self) -> None:
        """Start an erase run if there is a reason not to wait for the schedule."""
        try:
            reason = why_erase_now(Workspace(self.workspace.root))
            if (
                reason
                and time.monotonic() - self._asked.get(reason, float("-inf")) > _AGAIN_SECONDS
            ):
                begin_run(ERASE, parameters=self._parameters_of(ERASE))
                self._asked[reason] = time.monotonic()
                self._say(f"An erase run was started at once: {reason}")
        except S3TError as error:
            self._say(f"Could not look for urgent requests: {error}")
        except Exception as error:  # the server may be starting again: the next look is in seconds
            self._say(f"Could not start an erase run ({type(error).__name__}); trying again")

    def _parameters_of(self, name: str) -> dict[str, object]:
        """What a deployment runs with, whatever somebody made of it at the server."""
        return next(each.parameters for each in self._registered if each.full_name == name)

    def _deployed(self) -> bool:
        """Whether the runner has registered them all: the last one is there."""
        with prefect_client() as prefect:
            return prefect.deployment(AUDIT) is not None

    def _mark_lost_runs(self) -> None:
        """Runs of deployments that no process carries out any more: the runner was killed with
        them."""
        with prefect_client() as prefect:
            lost = [run for run in prefect.runs(BEGUN) if run.deployment_id]
            prefect.mark_crashed(
                lost, "The process that ran it was killed; the ledger has what it did."
            )


def list_deployments(workspace: Workspace) -> list[DeploymentEntry]:
    """Each deployment."""
    return [
        {"name": d.name, "cron": d.cron, "active": bool(d.cron) and d.active, "does": d.description}
        for d in deployments(workspace.config, workspace.root)
    ]
