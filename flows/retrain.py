"""The full retrain: train on the remaining data beside the serving version, register, move the alias.

It is filling in what is missing, so every stage whose inputs did not change is re-used.
"""

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.adapters.local import workspace_lock
from flows.train import fill_in
from flows.wiring import Workspace


@flow(name="full-retrain", task_runner=ThreadPoolTaskRunner(max_workers=64))
def retrain(workspace: str) -> dict[str, Any]:
    """Retrain the workspace directory's model on what is there now."""
    place = Workspace(Path(workspace))
    with workspace_lock(place.lock_path):
        return fill_in(place, "retrain").__dict__
