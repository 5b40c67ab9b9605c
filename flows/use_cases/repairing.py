"""Repair: train again, within a time limit, what erasures deactivated, the worst shards first. Off
by default.

The same engine as a full retrain, and as exact: a stage is what training from nothing on the
remaining records would give. What is done when the time is up is served; the next repair goes on
from there.
"""

import time

from flows.use_cases.reconciling import healing_a_lost_lease
from flows.use_cases.steps import AS_THEY_STAND, Steps
from flows.use_cases.training import TrainReport, run_training
from flows.use_cases.training_case import LiveData, Trainable, TrainingCase
from flows.workspace import access
from s3t_core.erasure.state import State
from s3t_core.errors import UsageError
from s3t_core.learning.recipe import StageSpec
from s3t_core.learning.training_plan import TrainingPlan, worst_shards_first


def run_repair(
    workspace: Trainable, minutes: float, wait_seconds: float = 0, steps: Steps = AS_THEY_STAND
) -> TrainReport:
    """Repair the model for at most so many minutes; waits so long for another training. A stage
    that has begun is finished. Raises UsageError, Busy."""
    if not 0 < minutes < 100_000:
        raise UsageError(f"expected a time limit above 0 minutes, got {minutes:g}")
    with healing_a_lost_lease(workspace.root), access.training(workspace, wait_seconds):
        until = time.monotonic() + 60 * minutes
        case = TrainingCase(
            "repair",
            LiveData(workspace, wait_seconds),
            _worst_shards_first,
            is_out_of_time=lambda: time.monotonic() >= until,
            floor=0,  # a repaired version has all that the serving one has, and more
        )
        return run_training(workspace, case, steps)


def _worst_shards_first(plan: TrainingPlan, state: State) -> list[StageSpec]:
    if state.release is None:
        raise UsageError("expected a version to repair, got none; run `s3t train`")
    return worst_shards_first(plan, state.release)
