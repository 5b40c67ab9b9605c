"""What the system asks a Prefect server about its deployments and their runs, and tells it of them:
the one place where a client of Prefect's is opened.

Names of deployments are as Prefect tells them: FLOW/DEPLOYMENT. Whatever is wrong between client
and server is Prefect's own exception, save what is not there, which is None.
"""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

BEGUN = ("RUNNING", "PENDING", "CANCELLING")
"""States of runs that Prefect holds for running, or about to."""
ENDED = ("COMPLETED", "FAILED")
PLANNED = ("SCHEDULED",)


class PrefectClient:
    """One open connection. Made by `prefect_client`."""

    def __init__(self, client: "SyncPrefectClient") -> None:
        self._client = client

    def deployment(self, name: str) -> "DeploymentResponse | None":
        """The deployment of this name, None where the server has none."""
        from prefect.exceptions import ObjectNotFound

        try:
            return self._client.read_deployment_by_name(name)
        except ObjectNotFound:
            return None

    def runs(
        self, states: Iterable[str], names: Iterable[str] | None = None, first: bool = False
    ) -> "list[FlowRun]":
        """Runs in these states, those expected last before the others, or, with `first`, behind
        them; of the deployments of these names, which need not be there, or of all."""
        from prefect.client.schemas.filters import (
            DeploymentFilter,
            DeploymentFilterId,
            FlowRunFilter,
            FlowRunFilterState,
            FlowRunFilterStateType,
        )
        from prefect.client.schemas.objects import StateType
        from prefect.client.schemas.sorting import FlowRunSort

        of = None
        if names is not None:
            ids = [found.id for name in names if (found := self.deployment(name)) is not None]
            if not ids:
                return []
            of = DeploymentFilter(id=DeploymentFilterId(any_=ids))
        kinds = FlowRunFilterStateType(any_=[StateType(s) for s in states])
        return self._client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=kinds)),
            deployment_filter=of,
            sort=FlowRunSort.EXPECTED_START_TIME_ASC
            if first
            else FlowRunSort.EXPECTED_START_TIME_DESC,
        )

    def has_ended(self, run: str) -> bool:
        """Whether the run of this id is over, whatever came of it, or its server forgot it."""
        from prefect.exceptions import ObjectNotFound

        try:
            found = self._client.read_flow_run(uuid.UUID(run))
        except ObjectNotFound:
            return True
        return found.state is not None and found.state.is_final()

    def mark_crashed(self, runs: "Iterable[FlowRun]", why: str) -> None:
        """Put runs that no process carries out any more into Prefect's state for that."""
        from prefect.states import Crashed

        for run in runs:
            self._client.set_flow_run_state(run.id, Crashed(message=why), force=True)

    def take_out(self, runs: "Iterable[FlowRun]") -> None:
        """Delete runs."""
        for run in runs:
            self._client.delete_flow_run(run.id)

    def take_out_deployment(self, deployment: "DeploymentResponse") -> None:
        """Delete a deployment, with what is planned of it."""
        self._client.delete_deployment(deployment.id)


@contextmanager
def prefect_client() -> Iterator[PrefectClient]:
    """A connection to the Prefect server of this process's settings."""
    from prefect import get_client

    with get_client(sync_client=True) as client:
        yield PrefectClient(client)


def wait_for_server() -> None:
    """Return when the server of this process's settings answers; Prefect starts one of its own
    where none is named."""
    from prefect import get_client

    with get_client(sync_client=True) as client:
        client.hello()


def begin_run(
    name: str, once: str | None = None, parameters: dict[str, object] | None = None
) -> str:
    """Ask for a run of the deployment of this name, whose id is returned. The same `once` again is
    the same run."""
    from prefect.deployments import run_deployment

    run: Any = run_deployment(
        name,
        timeout=0,
        idempotency_key=once,
        parameters=parameters,
        as_subflow=False,
    )
    return str(run.id)
