"""Erase: carry out every pending deletion request (s3t_core.erasure.executor), a Prefect task per step.

When the deletion-rate budget is spent, the full retrain follows at once, in this process; what is left of the ensemble
keeps serving meanwhile.
"""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.adapters.local import workspace_lock
from flows.progress import current
from flows.tasks import task
from flows.train import fill_in
from flows.wiring import Workspace
from s3t_core.erasure.executor import STEPS, Eraser
from s3t_core.erasure.planner import ErasurePlan
from s3t_core.errors import S3TError

_TOLD = {"cut over": "Cutting over to a version without the tainted stages", "rewrite": "Rewriting the data",
         "destroy": "Destroying what is tainted", "measure": "Measuring the new version",
         "scan": "Scanning for residue", "certify": "Writing certificates"}


@flow(name="erase", task_runner=ThreadPoolTaskRunner(max_workers=64))
def erase(workspace: str) -> dict[str, Any]:
    """Erase everything pending in the workspace directory; retrain when the budget is spent."""
    started = time.monotonic()
    place = Workspace(Path(workspace))
    with workspace_lock(place.lock_path):
        place.sweep()
        eraser = Eraser(place.erase_ports(), place.erase_policy(), lambda: f"plan-{uuid.uuid4().hex[:16]}")
        plans = list(_erase(eraser))
        outcome, problem = _after(place)
    state = place.ledger.state()
    return {
        "version": state.champion.version if state.champion else None,
        "certificates": [{"request": r, "path": str(place.certificates_dir / f"{r}.json")}
                         for plan in plans for r in plan.requests],
        "deactivated": len({s.key for plan in plans for s in plan.deactivated}),
        "seconds": round(time.monotonic() - started, 1), "retrain": outcome, "problem": problem,
        "found_outside": list(eraser.outside),
    }


def _erase(eraser: Eraser) -> Iterator[ErasurePlan]:
    """Plan after plan until nothing is pending: an interrupted one first, then what came since."""
    while True:
        with current().spinner("Planning"):
            plan: ErasurePlan | None = plan_task(eraser)
        if plan is None:
            return
        for step in STEPS:
            with current().spinner(_TOLD[step]):
                step_task.with_options(name=step)(eraser, step, plan)
        yield plan


def _after(place: Workspace) -> tuple[str, str]:
    """Step 5 of the walk: "done" when the budget was spent and the full retrain ran, "failed" with the reason when it
    could not (what is left keeps serving, and the next erase tries again), else "no"."""
    state = place.ledger.state()
    budget = place.budget_of(state)
    if budget is None or not (budget["exhausted"] or state.retrain_pending):
        return "no", ""
    if state.dataset is None or state.dataset.rows() == 0:
        return "no", ""
    if not state.retrain_pending:
        place.ledger.append({"type": "retrain", "time": place.now(), "state": "started", "reason": budget["policy"]})
    try:
        fill_in(place, "retrain")
    except S3TError as error:
        return "failed", str(error)
    place.ledger.append({"type": "retrain", "time": place.now(), "state": "finished"})
    return "done", ""


@task(name="plan")
def plan_task(eraser: Eraser) -> ErasurePlan | None:
    """Step 1."""
    return eraser.plan()


@task(name="step")
def step_task(eraser: Eraser, step: str, plan: ErasurePlan) -> None:
    """Steps 2 to 7."""
    eraser.run_step(step, plan)
