"""A replacement first, where a batch would spend the deletion-rate budget and its deadlines allow
it: trained on the data as it will be after the erasure, then cut over to."""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from flows.use_cases.steps import AS_THEY_STAND, Steps
from flows.use_cases.training import Trainable, TrainingSession
from flows.workspace import access
from flows.workspace.change import Change
from flows.workspace.sweeping import sweep
from s3t_core.domain import DatasetVersion, Release
from s3t_core.erasure.closing import as_counted
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.erasure.planner import Replacement, targets_of
from s3t_core.erasure.state import State
from s3t_core.errors import S3TError, TrainingError
from s3t_core.learning.recipe import StageSpec
from s3t_core.learning.release import check_one_recipe, recipe_to_json
from s3t_core.times import parse_time


def train_first(
    workspace: Trainable, held: Change, problems: list[str], steps: Steps, plan: ErasurePlan
) -> Replacement | None:
    """A replacement for what the plan would cut over to, when that would spend the budget and no
    request is due soon.

    None: go on without one. A replacement that cannot be trained is no reason to miss a deadline:
    whatever goes wrong, and when the margin is reached, the erasure goes on without it, and
    `problems` gets the reason.
    """
    state = workspace.ledger.state()
    requests = workspace.requests.get(plan.requests)
    margin = timedelta(hours=workspace.config.deletion_budget.retrain_first_margin_hours)
    now = workspace.clock.now()
    due = min(
        parse_time(as_counted(r, state, now).due) for r in workspace.requests.pending()
    )  # those not ready yet count too
    until = due - margin
    if (
        until <= now
        or state.dataset is None
        or not _would_spend(workspace, state, plan, state.dataset)
    ):
        return None
    try:
        with access.training(workspace):
            future = workspace.datasets.preview(
                targets_of(requests, plan.subjects), state.dataset, workspace.next_dir
            )
            if not _would_spend(workspace, state, plan, future):
                return None  # a shard that the erasure empties does not count as dead
            return ReplacementSession(workspace, held, future, until, steps).replacement()
    except S3TError as error:
        reason = str(error)
    except Exception as error:  # its message may quote data
        reason = type(error).__name__
    finally:
        sweep(workspace, held)
    problems.append(f"no replacement could be trained first: {reason}")
    return None


def _would_spend(
    workspace: Trainable, state: State, plan: ErasurePlan, dataset: DatasetVersion
) -> bool:
    if state.champion is None or plan.release is None or state.retrain is not None:
        return False
    after = State(
        datasets=[dataset],
        versions=[replace(state.champion, release=plan.release, accuracy=None)],
        requests_since_training=state.requests_since_training + len(plan.requests),
    )
    budgets = [workspace.budget.document(s) for s in (state, after)]
    return [bool(b and b["exhausted"]) for b in budgets] == [False, True]


class ReplacementSession(TrainingSession):
    """Trains on the data as it will be after an erasure, under the workspace lock that the erase
    run holds."""

    def __init__(
        self,
        workspace: Trainable,
        held: Change,
        future: DatasetVersion,
        until: datetime,
        steps: Steps = AS_THEY_STAND,
    ) -> None:
        super().__init__(workspace, "retrain", steps=steps)
        self._held = held
        self._future = future
        self._until = until

    @contextlib.contextmanager
    def changing(self) -> Iterator[Change]:
        """The erase run holds the workspace: only the threads of this one take turns."""
        with self._threads:
            yield self._held

    def present(self, state: State) -> DatasetVersion:
        """The data as it will be."""
        super().present(state)
        return self._future

    def file_of(self, relative: str) -> Path:
        """A file that will change is beside, the others are where they are."""
        changed = self.workspace.next_dir / relative
        return changed if changed.exists() else super().file_of(relative)

    def has_moved(self, state: State, spec: StageSpec | None = None) -> bool:
        """Nothing moves under the lock."""
        del state, spec
        return False

    def sweep(self, held: Change) -> None:
        """The erase run has swept."""

    def out_of_time(self) -> bool:
        """Whether the requests can wait no longer."""
        return self.workspace.clock.now() >= self._until

    def replacement(self) -> Replacement | None:
        """The release, measured and found good enough, and its recipe; None when there is nothing
        to train on."""
        if not self._future.rows():
            return None
        try:
            self.train_missing(self.list_missing(self.describe()))
            if any(s.key not in self.done for s in self.plan.stages):
                raise TrainingError(
                    "expected every stage before the requests had to go on, got fewer; raise "
                    "[erasure] deadline_days or lower [deletion_budget] retrain_first_margin_hours"
                )
            release = Release(
                f"release-{uuid.uuid4().hex[:16]}", self._future.version, self.replicas()
            )
            check_one_recipe(release, self.recipe)
            if self.workspace.config.deletion_budget.min_accuracy:
                self.check_floor(self.measured(release))
        except BaseException:
            with contextlib.suppress(Exception):
                self.finish(failed=True)
            raise
        self.finish(failed=False)
        return release, recipe_to_json(self.recipe)
