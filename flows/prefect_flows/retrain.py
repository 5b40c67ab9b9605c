"""The full retrain as a Prefect flow, a task per stage (flows/use_cases/retraining.py)."""

from pathlib import Path
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

from flows.prefect_flows.quiet import flow
from flows.prefect_flows.steps import PrefectSteps
from flows.use_cases.retraining import run_retrain
from flows.workspace.workspace import enter


@flow(name="full-retrain", task_runner=ThreadPoolTaskRunner(max_workers=64))
def retrain(workspace: str, wait_seconds: float = 0) -> dict[str, Any]:
    """Retrain the workspace directory's model on what is there now; waits so long for another run
    to end."""
    opened = enter(Path(workspace))
    return run_retrain(opened, wait_seconds, wait_seconds, PrefectSteps()).__dict__
