"""A replacement first, where a batch would spend the deletion-rate budget and its deadlines allow
it: trained on the data as it will be after the erasure, then cut over to."""

import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from flows.use_cases.releasing import candidate_of, check_floor, measured
from flows.use_cases.steps import AS_THEY_STAND, Steps
from flows.use_cases.training import describe, tracking, train_stages
from flows.use_cases.training_case import Trainable, TrainingCase, usable_dataset
from flows.workspace import access
from flows.workspace.change import Change
from flows.workspace.sweeping import sweep
from s3t_core.domain import DatasetVersion
from s3t_core.erasure.closing import as_recorded
from s3t_core.erasure.ledger import as_of
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.erasure.planner import Replacement, state_after, targets_of
from s3t_core.erasure.state import State
from s3t_core.errors import S3TError, TrainingError
from s3t_core.learning.recipe import StageSpec
from s3t_core.times import Moment, parse_time


def train_first(
    workspace: Trainable, held: Change, problems: list[str], steps: Steps, plan: ErasurePlan
) -> Replacement | None:
    """A replacement for what the plan would cut over to, when that would spend the budget and no
    request is due soon.

    None: go on without one. A replacement that cannot be trained is no reason to miss a deadline:
    whatever goes wrong, and when the margin is reached, the erasure goes on without it, and
    `problems` gets the reason.
    """
    state = as_of(workspace.ledger.state(), workspace.now())
    requests = workspace.requests.get(plan.requests)
    margin = timedelta(hours=workspace.config.deletion_budget.retrain_first_margin_hours)
    now = workspace.clock.now()
    pending = [as_recorded(r, state) for r in workspace.requests.pending(state)]
    due = min(parse_time(r.due) for r in pending)  # those not ready yet count too
    until, began = due - margin, Moment.now()
    left = (until - now).total_seconds()
    if (
        until <= now
        or state.dataset is None
        or not _would_spend(workspace, state, plan, state.dataset)
    ):
        return None
    try:
        with access.training(workspace):
            future = workspace.datasets.rewriting.preview(
                targets_of(requests, plan.subjects), state.dataset, workspace.next_dir
            )
            if not future.rows() or not _would_spend(workspace, state, plan, future):
                return None  # a shard that the erasure empties does not count as dead
            case = TrainingCase(
                "retrain",
                FutureData(workspace, held, future),
                is_out_of_time=lambda: (
                    workspace.clock.now() >= until or began.seconds_until(Moment.now()) >= left
                ),
                floor=workspace.config.deletion_budget.floor,
            )
            return train_replacement(workspace, case, steps)
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
    """Whether it is this erasure that spends the budget, and nobody wants a retrain yet."""
    after = state_after(state, plan, dataset)
    return (
        after is not None
        and state.retrain is None
        and not workspace.budget.is_spent(state)
        and workspace.budget.is_spent(after)
    )


class FutureData:
    """The data as it will be after an erasure, under the workspace lock that the erase run holds:
    nothing moves meanwhile. Fills TrainingData."""

    def __init__(self, workspace: Trainable, held: Change, future: DatasetVersion) -> None:
        self._workspace = workspace
        self._held = held
        self._future = future
        self._threads = threading.Lock()

    @contextlib.contextmanager
    def changing(self) -> Iterator[Change]:
        """The threads of this run take turns."""
        with self._threads:
            yield self._held

    def prepare(self, held: Change, state: State) -> DatasetVersion:
        """The erase run has swept."""
        held.require()
        usable_dataset(self._workspace, state)
        return self._future

    def file_of(self, relative: str) -> Path:
        """A file that will change lies beside, the others are where they are."""
        changed = self._workspace.next_dir / relative
        return changed if changed.exists() else self._workspace.root / "data" / relative

    def has_moved(
        self, state: State, dataset: DatasetVersion, spec: StageSpec | None = None
    ) -> bool:
        """Never."""
        del state, dataset, spec
        return False


def train_replacement(
    workspace: Trainable, case: TrainingCase, steps: Steps = AS_THEY_STAND
) -> Replacement:
    """The release, measured and found good enough, and its recipe. The caller holds the training
    lock. Raises TrainingError when time was up before every stage was there, or when it is worse
    than the configured floor."""
    with tracking(workspace, case) as tracked:
        stages = train_stages(workspace, case, describe(workspace), tracked, steps)
        if stages.plan.keys() - stages.done.keys():
            raise TrainingError(
                "expected every stage before the requests had to go on, got fewer; raise "
                "[erasure] deadline_days or lower [deletion_budget] retrain_first_margin_hours"
            )
        candidate = candidate_of(stages.plan, stages.done, None, workspace.config.serving.combine)
        if case.floor:
            candidate = measured(workspace, case, candidate, steps)
            check_floor(candidate.score, case.floor)
    return candidate.release, candidate.recipe
