"""Train: fill in the stages that data and config call for and that are not there, then register and
serve a version.

1. describe the backbone (digests, layers) and the numeric profile; refuse a backbone that changed
   under its name
2. list the stage keys that should exist; take over what a crash left complete; train the rest,
   replicas in parallel, a process each, one MLflow run per stage under a parent run
3. measure the release on the held-out rows; register it as a new version and move the alias
4. retire versions past their time, and stages that nothing needs any more

A rerun with the same inputs trains nothing and registers nothing. The full retrain is the same
work: stages whose inputs did not change are re-used, and the result equals, byte for byte, training
from nothing on the remaining rows.

Erasures go on meanwhile: the workspace is locked only while something is written, a stage is stored
only if what it saw is still the data, and a version is registered only if the data is still what
its stages were listed for. Otherwise the list is made anew, so every erasure that came in between
is honoured.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from flows.progress import current
from flows.use_cases.documents import ScoreEntry, score_entry
from flows.use_cases.reconciling import healing_a_lost_lease
from flows.use_cases.releasing import Served, register
from flows.use_cases.stage_run import StageRun, TrackedRun
from flows.use_cases.steps import AS_THEY_STAND, Steps
from flows.use_cases.training_case import LiveData, Trainable, TrainingCase
from flows.workspace import access
from flows.workspace.workspace import refuse_open_plan
from s3t_core.capacity.sequences import choose_sequences
from s3t_core.domain import DatasetVersion, Sequence
from s3t_core.erasure import events
from s3t_core.erasure.state import State
from s3t_core.erasure.vocabulary import ReleaseCause
from s3t_core.errors import BackboneChanged
from s3t_core.learning.jobs import DescribeJob, Description
from s3t_core.learning.recipe import make_recipe
from s3t_core.learning.training_plan import TrainingPlan, plan_training


@dataclass(frozen=True)
class TrainReport:
    """What a training did: stages trained and re-used, the version that serves, its held-out
    score, and that once more where it is an accuracy (0 to 1).

    `missing`: stages still not there, because a time limit was reached (repair only).
    """

    trained: int
    reused: int
    version: str
    accuracy: float | None
    seconds: float
    missing: int = 0
    score: ScoreEntry | None = None


def fill_in(
    workspace: Trainable,
    cause: ReleaseCause,
    wait_for_training: float = 0,
    wait_for_change: float = 0,
    steps: Steps = AS_THEY_STAND,
) -> TrainReport:
    """Train what is missing, register and serve it. `cause`: "train" or "retrain".

    Raises Busy while another trains, or changes the workspace, for longer than so many seconds.
    """
    floor = workspace.config.deletion_budget.floor
    case = TrainingCase(cause, LiveData(workspace, wait_for_change), floor=floor)
    with healing_a_lost_lease(workspace.root), access.training(workspace, wait_for_training):
        return run_training(workspace, case, steps)


def run_training(workspace: Trainable, case: TrainingCase, steps: Steps) -> TrainReport:
    """Train, measure, register, retire: again while erasures change the data meanwhile. The caller
    holds the training lock."""
    started = time.monotonic()
    with tracking(workspace, case) as tracked:
        description = describe(workspace)
        served = None
        while served is None:
            stages = train_stages(workspace, case, description, tracked, steps)
            if not stages.has_moved:
                served = register(workspace, case, stages.plan, stages.done, steps)
        if (release := workspace.ledger.state().release) is not None:
            tracked.came_to(release, served.score)
    workspace.signing.write_checkpoint()
    _show(workspace, stages, served, len(tracked.fresh), steps)
    wanted, fresh = stages.plan.keys(), len(tracked.fresh & stages.plan.keys())
    left = len(wanted - stages.done.keys())
    seconds = round(time.monotonic() - started, 1)
    return TrainReport(
        len(tracked.fresh),
        len(wanted) - left - fresh,
        served.version,
        served.score.accuracy if served.score else None,
        seconds,
        left,
        score_entry(served.score),
    )


def _show(
    workspace: Trainable,
    stages: StageRun,
    served: Served,
    trained: int,
    steps: Steps,
) -> None:
    """What came of it, on the page of this run. Numbers only."""
    release = workspace.ledger.state().release
    if release is None:
        return
    known, learned = stages.plan.dataset.slice_versions, release.learned()
    rows: list[dict[str, object]] = [
        {
            "shard": shard,
            "live depth": release.live_depth(shard),
            "rows learned": sum(
                version.rows for s, version in known.items() if s in learned and s.shard == shard
            ),
        }
        for shard in release.shards()
    ]
    score = (
        f"held-out {served.score.name} {served.score.in_words()}" if served.score else "unmeasured"
    )
    steps.show(
        "training",
        rows,
        f"{trained} stage(s) trained; version {served.version} serves, {score}.",
    )


@contextlib.contextmanager
def tracking(workspace: Trainable, case: TrainingCase) -> Iterator[TrackedRun]:
    """The MLflow run of a training, closed as what became of it."""
    tracked = TrackedRun(workspace)

    def finish(failed: bool) -> None:
        if tracked.is_begun:
            with case.data.changing():
                tracked.finish(failed)

    try:
        yield tracked
    except BaseException:
        with contextlib.suppress(Exception):  # what happened is told, not that this failed too
            finish(failed=True)
        raise
    finish(failed=False)


def describe(workspace: Trainable) -> Description:
    """Look at the backbone and the numeric profile."""
    training = workspace.config.training
    with current().spinner("Loading torch and the backbone"):
        return workspace.runner.describe(
            DescribeJob(workspace.backbone, training.threads, training.device)
        )


def train_stages(
    workspace: Trainable,
    case: TrainingCase,
    description: Description,
    tracked: TrackedRun,
    steps: Steps,
) -> StageRun:
    """Plan, and train what is missing; whether the data moved meanwhile stands in what is
    returned."""
    with case.data.changing() as held:
        state = workspace.ledger.state()
        refuse_open_plan(state)
        workspace.requests.check()
        dataset = case.data.prepare(held, state)
        _check_backbone(workspace, state, description)
        plan = _plan(workspace, case, state, dataset, description)
        for record in plan.unrecorded:
            workspace.ledger.append(events.StageTrained(time=workspace.now(), stage=record))
        workspace.activations.allow(
            {v.digest for d in (state.dataset, dataset) if d for v in d.files()}
        )
        if plan.missing:
            tracked.begin(plan)
    stages = StageRun(workspace, case, plan, tracked)
    stages.train(steps)
    return stages


def _plan(
    workspace: Trainable,
    case: TrainingCase,
    state: State,
    dataset: DatasetVersion,
    description: Description,
) -> TrainingPlan:
    recipe = make_recipe(
        workspace.config,
        workspace.backbone,
        description.digest,
        description.tokenizer_digest,
        description.layers,
        description.profile,
    )
    store = workspace.store
    plan = plan_training(
        recipe, _sequences(workspace), dataset, state.stages, store.bindings(), store.holds
    )
    return replace(plan, missing=tuple(case.order(plan, state)))


def _sequences(workspace: Trainable) -> list[Sequence]:
    system = workspace.config.system
    return choose_sequences(
        system.sequences,
        system.slices,
        system.budget,
        system.slice_prior,
        workspace.config.training.seed,
    )


def _check_backbone(workspace: Trainable, state: State, found: Description) -> None:
    """A backbone is recorded under its name when it is first used; other files under that name are
    refused."""
    model = workspace.backbone
    recorded = state.backbones.get(model)
    if recorded is None:
        workspace.ledger.append(
            events.BackboneUsed(
                time=workspace.now(),
                model=model,
                digest=found.digest,
                tokenizer_digest=found.tokenizer_digest,
            )
        )
    elif recorded != (found.digest, found.tokenizer_digest):
        raise BackboneChanged(
            f"expected the recorded backbone {recorded[0][:16]}... under [backbone] model, got "
            f"{found.digest[:16]}...; put the recorded files back, or name the new model by "
            "another id or path and train"
        )
