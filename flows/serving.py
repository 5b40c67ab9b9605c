"""Serve: a Prefect server and the deployments of one workspace on this machine, until stopped.

1. one at a time per workspace; a server and a runner are started as processes that die with this one
2. flow runs that a killed runner left as running are marked as crashed: else they would keep their deployment's only
   place for ever. The ledger has what they did, the next run goes on from there
3. the server or the runner dies: both are ended, with every flow run, and started again. An erasure survives that at
   any time
4. an erase run is started at once, not by schedule, when a request is due soon, when an erasure is open that no process
   carries out, or when a full retrain is wanted

While it serves, the commands of this workspace use its Prefect server (`settings.start_prefect`).
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from flows.adapters.child import Child
from flows.adapters.local import is_held, workspace_lock
from flows.deployments import deployments, to_prefect
from flows.settings import API_URL_FILE, is_serving
from flows.wiring import Workspace
from s3t_core.erasure.closing import is_ready
from s3t_core.errors import Busy, S3TError, StorageError, UsageError
from s3t_core.files import write_atomically
from s3t_core.times import parse_time

ERASE = "erase/erase"
_START_SECONDS = 180
_POLL_SECONDS = 1.0
_LOOK_SECONDS = 5.0
_AGAIN_SECONDS = 600.0
"""For the same reason an erase run is started again after so long at the earliest."""
_GRACE_SECONDS = 10.0

Told = Callable[[str], None]


class Serving:
    """The server and the runner of one workspace, and what watches them."""

    def __init__(self, root: Path, host: str, port: int, told: Told, stop: threading.Event) -> None:
        self.place = Workspace(root)
        self.url = f"http://{host}:{port}/api"
        self._host, self._port = host, port
        self._told = told
        self._stop = stop
        self._children: list[Child] = []
        self._asked: dict[str, float] = {}
        self._looked = 0.0

    def run(self) -> None:
        """Until stopped. Raises Busy when another serves this workspace, UsageError for a port that is taken,
        ConfigError for a schedule that is none."""
        self.place.ledger  # noqa: B018  # refuse a workspace that no flow could use
        for each in deployments(self.place.config, self.place.root):
            to_prefect(each)  # and settings that none could be made of
        with self._alone():
            self._check_port()
            try:
                while not self._stop.is_set():
                    if self._start():
                        self._told(f"Serving at {self.url}")
                        self._watch()
                    self._end()
            finally:
                (self.place.state_dir / API_URL_FILE).unlink(missing_ok=True)
                self._end(_GRACE_SECONDS)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            with workspace_lock(self.place.serve_lock_path):
                yield
        except Busy:
            if not is_held(self.place.serve_lock_path):
                raise
            raise Busy("`s3t serve` runs for this workspace already; stop that one first") from None

    def _check_port(self) -> None:
        """A server that a killed run left dies within moments."""
        until = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((self._host, self._port))
                    return
                except OSError as error:
                    if time.monotonic() > until:
                        raise UsageError(f"expected a free port, got {self._port} ({error.strerror}); pass another "
                                         "with --port") from None
            time.sleep(0.5)

    def _start(self) -> bool:
        """Server, then runner. False when it was stopped meanwhile."""
        folder = self.place.state_dir / "prefect"
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PREFECT_API_URL": self.url,
                       "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5"}
        log = folder / "serve.log"
        self._children = [Child("flows.adapters.prefect_server", self._host, str(self._port), cwd=self.place.root,
                                env=environment, log=log)]
        until = time.monotonic() + _START_SECONDS
        while not is_serving(self.url):
            if self._stop.wait(_POLL_SECONDS):
                return False
            if not self._children[0].is_alive() or time.monotonic() > until:
                raise StorageError("the Prefect server did not start; .s3t/prefect/serve.log says why")
        with self._talking():
            self._mark_lost_runs()
        self._children.append(Child("flows.runner", str(self.place.root), cwd=self.place.root, env=environment,
                                    log=log))
        while not self._deployed():
            if self._stop.wait(_POLL_SECONDS):
                return False
            if not self._children[1].is_alive() or time.monotonic() > until:
                raise StorageError("Prefect's runner did not start; .s3t/prefect/serve.log says why")
        write_atomically(self.place.state_dir / API_URL_FILE, self.url.encode())
        return True

    def _end(self, grace_seconds: float = 0) -> None:
        for child in reversed(self._children):
            child.stop(grace_seconds)
        self._children = []

    def _watch(self) -> None:
        """Until a child dies or it is stopped."""
        while not self._stop.wait(_POLL_SECONDS):
            if not all(child.is_alive() for child in self._children):
                self._told("Prefect's server or runner ended; starting both again")
                return
            if time.monotonic() - self._looked > _LOOK_SECONDS:
                self._looked = time.monotonic()
                self._look()

    def _look(self) -> None:
        """Start an erase run if there is a reason not to wait for the schedule."""
        try:
            reason = why_at_once(Workspace(self.place.root))
            if reason and time.monotonic() - self._asked.get(reason, float("-inf")) > _AGAIN_SECONDS:
                with self._talking():
                    from prefect.deployments import run_deployment
                    run_deployment(ERASE, timeout=0, as_subflow=False)
                self._asked[reason] = time.monotonic()
                self._told(f"An erase run was started at once: {reason}")
        except S3TError as error:
            self._told(f"Could not look for urgent requests: {error}")
        except Exception as error:  # the server may be starting again: the next look is in seconds
            self._told(f"Could not start an erase run ({type(error).__name__}); trying again")

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Prefect's client in this process, to our server and no other."""
        from prefect.settings import PREFECT_API_URL, temporary_settings
        with temporary_settings({PREFECT_API_URL: self.url}):
            yield

    def _deployed(self) -> bool:
        """Whether the runner has registered them all: the last one is there."""
        from prefect import get_client
        from prefect.exceptions import ObjectNotFound
        with self._talking(), get_client(sync_client=True) as client:
            try:
                client.read_deployment_by_name("audit/audit")
            except ObjectNotFound:
                return False
        return True

    def _mark_lost_runs(self) -> None:
        """Runs of deployments that no process carries out any more: the runner was killed with them."""
        from prefect import get_client
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
        from prefect.client.schemas.objects import StateType
        from prefect.states import Crashed
        begun = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
        with get_client(sync_client=True) as client:
            lost = client.read_flow_runs(flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=begun))))
            for run in (r for r in lost if r.deployment_id):
                client.set_flow_run_state(run.id, Crashed(
                    message="The process that ran it was killed; the ledger has what it did."), force=True)


def why_at_once(place: Workspace) -> str:
    """Why an erase run should start now, else ""."""
    if is_held(place.lock_path):
        return ""  # somebody is at it
    state = place.ledger.state()
    if state.plan is not None:
        return f"an erasure is unfinished ({state.plan['plan']['plan_id']})"
    if state.retrain is not None and state.retrain["state"] == "wanted" and not is_held(place.training_lock_path):
        return "a full retrain is wanted"
    until = place.clock.now() + timedelta(hours=place.config.erasure.at_once_hours)
    soon = [r for r in place.requests.pending()
            if is_ready(r, state, place.config.erasure.needs_approval) and parse_time(r.due) <= until]
    return f"{soon[0].request_id} is due {soon[0].due}" if soon else ""


def told_deployments(place: Workspace) -> list[dict[str, Any]]:
    """{"name", "cron", "active", "does"} of each deployment."""
    return [{"name": d.name, "cron": d.cron, "active": bool(d.cron) and d.active, "does": d.told}
            for d in deployments(place.config, place.root)]
