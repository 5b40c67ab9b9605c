"""Watch a workspace whose deployments run on a work pool: what `s3t serve` does by itself (flows.serving).

1. A run whose machine died stays "running" for Prefect and keeps its deployment's only place. Whoever changes or trains
   holds a lease that beats (flows.adapters.lease): a run of ours that was begun a while ago, while nobody holds one, is
   marked as crashed. The ledger has what it did; the next run goes on from there.
2. An erase run is started at once when a request is due soon, an erasure is open, or a full retrain is wanted.
"""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import flow

from flows.adapters.lease import BEAT_SECONDS, beats
from flows.adapters.local import is_held
from flows.serving import ERASE, why_at_once
from flows.wiring import Workspace

DEPLOYMENT = "watch/watch"
_WATCHED = ("ingest/ingest", "train/train", ERASE, "full-retrain/full-retrain", "repair/repair")
_YOUNG = timedelta(seconds=120)
"""A run younger than this may not hold anything yet."""


@flow(name="watch")
def watch(workspace: str, young_seconds: float = _YOUNG.total_seconds()) -> dict[str, Any]:
    """Mark lost runs, start an erase run where one cannot wait. Returns how many, and why."""
    place = Workspace(Path(workspace))
    lost = mark_lost_runs(place, timedelta(seconds=young_seconds))
    reason = why_at_once(place)
    if reason and not _open_runs([ERASE], timedelta()):
        from prefect.deployments import run_deployment
        run_deployment(ERASE, timeout=0, as_subflow=False)
    return {"lost": lost, "started": reason}


def mark_lost_runs(place: Workspace, young: timedelta) -> int:
    """Mark runs of the workspace's deployments that no process carries out any more as crashed; how many."""
    suspects = _open_runs(_WATCHED, young)
    if not suspects or _somebody_works(place):
        return 0
    from prefect import get_client
    from prefect.states import Crashed
    still = {r.id for r in _open_runs(_WATCHED, young)}  # one may have ended while we looked
    with get_client(sync_client=True) as client:
        for run in (r for r in suspects if r.id in still):
            client.set_flow_run_state(run.id, Crashed(
                message="The process that ran it is gone; the ledger has what it did."), force=True)
    return len(still)


def _somebody_works(place: Workspace) -> bool:
    """Whether a lock of this machine is held, or a lease in the database beats."""
    until = time.monotonic() + 2.5 * BEAT_SECONDS
    before = beats(place.database)
    while not is_held(place.lock_path) and not is_held(place.training_lock_path):
        if beats(place.database) != before:
            return True
        if time.monotonic() > until or not before:
            return False
        time.sleep(1)
    return True


def _open_runs(names: Any, young: timedelta) -> list[Any]:
    """Runs of these deployments that Prefect holds for running, or about to, and that began so long ago."""
    from prefect import get_client
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.exceptions import ObjectNotFound
    begun = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    with get_client(sync_client=True) as client:
        ids = []
        for name in names:
            try:
                ids.append(client.read_deployment_by_name(name).id)
            except ObjectNotFound:
                continue
        if not ids:
            return []
        found = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=begun))),
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=ids)))
    long_ago = datetime.now(UTC) - young
    return [r for r in found if r.state is not None and r.state.timestamp < long_ago]
