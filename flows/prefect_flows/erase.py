"""Erase as a Prefect flow, a task per step (flows/use_cases/erasing.py)."""

from pathlib import Path

from prefect.task_runners import ThreadPoolTaskRunner

from flows.prefect_flows.quiet import flow
from flows.prefect_flows.steps import PrefectSteps
from flows.prefect_flows.triggering import FULL_RETRAIN, PrefectDeployment
from flows.use_cases.documents import ErasureDocument
from flows.use_cases.erasing import erase_pending
from flows.workspace.workspace import enter


@flow(name="erase", task_runner=ThreadPoolTaskRunner(max_workers=64))
def erase(workspace: str, wait_seconds: float = 0) -> ErasureDocument:
    """Erase everything pending in the workspace directory; retrain when the budget is spent. Waits
    so long for another command that changes the workspace, and for a training that is writing in
    any case. Raises RequestsLeftOpen once all is done that could be, ResidueFound where the scan
    stops an erasure."""
    opened = enter(Path(workspace))
    full_retrain = PrefectDeployment(FULL_RETRAIN, opened.serve_lock_path)
    return erase_pending(opened, wait_seconds, PrefectSteps(), full_retrain)
