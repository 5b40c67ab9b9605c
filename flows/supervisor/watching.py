"""Watch a workspace whose deployments run on a work pool: what `s3t serve` does by itself
(flows.supervisor.serving).

1. A run whose machine died stays "running" for Prefect and keeps its deployment's only place.
   Whoever changes or trains holds a lease that beats (flows.adapters.lease): a run of ours that was
   begun a while ago, while nobody holds one, is marked as crashed. The ledger has what it did; the
   next run goes on from there.
2. An erase run is started at once when a request is due soon, an erasure is open, or a full retrain
   is wanted.
3. Runs that were planned while Prefect's clock was ahead are taken out
   (flows.supervisor.schedules).
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from flows.adapters.lease import CHANGE, PATIENCE_SECONDS, TRAIN, heartbeats
from flows.adapters.locks import is_held
from flows.adapters.prefect_client import BEGUN, ENDED, begin_run, prefect_client
from flows.prefect_flows.quiet import flow
from flows.supervisor.schedules import take_out_far_runs
from flows.supervisor.serving import AUDIT, ERASE
from flows.use_cases.erasing import why_erase_now
from flows.workspace.workspace import Workspace, enter

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

_WATCHED = ("ingest/ingest", "train/train", ERASE, "full-retrain/full-retrain", "repair/repair")
_AGAIN = timedelta(minutes=10)
"""An erase run is started again after so long at the earliest."""
_YOUNG = timedelta(seconds=120)
"""A run younger than this may not hold anything yet."""


@flow(name="watch")
def watch(workspace: str, young_seconds: float = _YOUNG.total_seconds()) -> dict[str, object]:
    """Mark lost runs, start an erase run where one cannot wait. Returns how many, and why."""
    opened = enter(Path(workspace))
    take_out_far_runs([*_WATCHED, AUDIT])
    lost = mark_lost_runs(opened, timedelta(seconds=young_seconds))
    reason = why_erase_now(opened)
    if reason and not _open_runs([ERASE], timedelta()) and not _ended_lately():
        begin_run(ERASE)
    return {"lost": lost, "started": reason}


def mark_lost_runs(opened: Workspace, young: timedelta) -> int:
    """Mark runs of the workspace's deployments that no process carries out any more as crashed; how
    many."""
    suspects = _open_runs(_WATCHED, young)
    if not suspects:
        return 0
    living = _leases_that_live(opened)
    still = {r.id for r in _open_runs(_WATCHED, young)}  # one may have ended while we looked
    erase = {r.id for r in _open_runs([ERASE], young)}
    lost = [
        r
        for r in suspects
        if r.id in still and not living & ({CHANGE} if r.id in erase else {CHANGE, TRAIN})
    ]
    with prefect_client() as prefect:
        prefect.mark_crashed(lost, "The process that ran it is gone; the ledger has what it did.")
    return len(lost)


def _leases_that_live(opened: Workspace) -> set[str]:
    """Names of the leases that somebody held while we looked: a lock of this machine, or a beat in
    the database. It takes as long as a holder may stand still, so that a run that is just ending
    has ended."""
    living: set[str] = set()
    before, until = heartbeats(opened.database), time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until and living != {CHANGE, TRAIN}:
        now = heartbeats(opened.database)
        living |= {name for name in now if now[name] != before.get(name)}
        living |= {
            name
            for name, path in ((CHANGE, opened.lock_path), (TRAIN, opened.training_lock_path))
            if is_held(path)
        }
        time.sleep(1)
    return living


def _ended_lately() -> bool:
    """Whether an erase run came to its end, good or bad, a short while ago: what it could not do
    needs a person."""
    return any(_from_now(r) < _AGAIN for r in _runs([ERASE], ENDED))


def _open_runs(names: Iterable[str], young: timedelta) -> "list[FlowRun]":
    """Runs of these deployments that Prefect holds for running, or about to, and that began so long
    ago."""
    return [r for r in _runs(names, BEGUN) if _from_now(r) > young]


def _from_now(run: "FlowRun") -> timedelta:
    """How far off a run came to its state. It may be in time to come: the server's clock was
    ahead, and says nothing of when."""
    at = run.state.timestamp if run.state else datetime.now(UTC)
    return abs(datetime.now(UTC) - at)


def _runs(names: Iterable[str], states: Iterable[str]) -> "list[FlowRun]":
    """The newest runs of these deployments in these states."""
    with prefect_client() as prefect:
        return [r for r in prefect.runs(states, names) if r.state is not None]
