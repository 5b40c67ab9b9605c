"""Train as a Prefect flow, a task per stage (flows/use_cases/training.py)."""

from pathlib import Path
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

from flows.prefect_flows.quiet import flow
from flows.prefect_flows.steps import PrefectSteps
from flows.use_cases.training import fill_in
from flows.workspace.workspace import enter


@flow(name="train", task_runner=ThreadPoolTaskRunner(max_workers=64))
def train(workspace: str) -> dict[str, Any]:
    """Train what is missing in the workspace directory, register and serve it."""
    return fill_in(enter(Path(workspace)), "train", steps=PrefectSteps()).__dict__
