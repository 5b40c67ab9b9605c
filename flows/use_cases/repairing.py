"""Repair: train again, within a time limit, what erasures deactivated, the worst shards first. Off
by default.

The same engine as a full retrain, and as exact: a stage is what training from nothing on the
remaining records would give. What is done when the time is up is served; the next repair goes on
from there.
"""

import time

from flows.use_cases.reconciling import healing_a_lost_lease
from flows.use_cases.steps import AS_THEY_STAND, Steps
from flows.use_cases.training import Trainable, TrainingSession, TrainReport
from flows.workspace import access
from s3t_core.erasure.state import State
from s3t_core.errors import UsageError
from s3t_core.learning.recipe import StageSpec


def run_repair(
    workspace: Trainable, minutes: float, wait_seconds: float = 0, steps: Steps = AS_THEY_STAND
) -> TrainReport:
    """Repair the model for at most so many minutes; waits so long for another training. Raises
    UsageError, Busy."""
    if not 0 < minutes < 100_000:
        raise UsageError(f"expected a time limit above 0 minutes, got {minutes:g}")
    with healing_a_lost_lease(workspace.root), access.training(workspace, wait_seconds):
        return RepairSession(workspace, minutes, wait_seconds, steps).run()


class RepairSession(TrainingSession):
    """Trains the missing stages of the worst shards until the time is up. A stage that has begun is
    finished."""

    def __init__(
        self,
        workspace: Trainable,
        minutes: float,
        wait_seconds: float,
        steps: Steps,
    ) -> None:
        super().__init__(workspace, "repair", wait_seconds, steps)
        self._until = time.monotonic() + 60 * minutes

    def order(self, missing: list[StageSpec], state: State) -> list[StageSpec]:
        """Worst shard first, then those that others build on. Raises UsageError when what serves is
        not a part of what the settings and the data call for: then it cannot be repaired, only
        retrained."""
        if state.release is None:
            raise UsageError("expected a version to repair, got none; run `s3t train`")
        wanted = {s.key for s in self.plan.stages}
        if not state.release.stage_keys() <= wanted:
            raise UsageError(
                "expected the settings, the data and the machine that the serving version was "
                "trained with, got others; run `s3t retrain`"
            )
        release = state.release
        return sorted(
            missing, key=lambda s: (release.live_depth(s.shard), s.shard, len(s.prefix), s.prefix)
        )

    def out_of_time(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._until

    def check_floor(self, accuracy: float | None) -> None:
        """A repaired version has all that the serving one has, and more: the floor is for
        replacements."""
        del accuracy
