"""Repair as a Prefect flow, a task per stage (flows/use_cases/repairing.py)."""

from pathlib import Path
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

from flows.prefect_flows.quiet import flow
from flows.prefect_flows.steps import PrefectSteps
from flows.use_cases.repairing import run_repair
from flows.workspace.workspace import enter


@flow(name="repair", task_runner=ThreadPoolTaskRunner(max_workers=64))
def repair(workspace: str, minutes: float = 60, wait_seconds: float = 0) -> dict[str, Any]:
    """Repair the workspace directory's model for at most so many minutes."""
    opened = enter(Path(workspace))
    return run_repair(opened, minutes, wait_seconds, PrefectSteps()).__dict__
