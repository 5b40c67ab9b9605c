"""Training the missing stages of one plan: replicas beside each other, a process per stage, each
stored, logged and recorded as it comes, and only while what it saw is still the data."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from flows.progress import Advance, current
from flows.use_cases.steps import Step, Steps
from flows.use_cases.training_case import Trainable, TrainingCase
from flows.workspace.jobs import stage_job
from s3t_core.canonical import sha256_hex
from s3t_core.domain import Release, Score, StageRecord
from s3t_core.erasure import events
from s3t_core.erasure.versions import score_metrics, stage_name
from s3t_core.errors import GuaranteeError, S3TError, TrainingError
from s3t_core.learning.jobs import FileRef, StageJob, StageOutcome
from s3t_core.learning.recipe import StageSpec
from s3t_core.learning.training_plan import TrainingPlan
from s3t_core.slicefile import HELD_OUT_PATH, slice_path


class TrackedRun:
    """The MLflow run of a training, with one run per stage under it: begun with the first stage
    that is missing, kept through every plan that the training makes. `fresh`: the keys of the
    stages that it trained. Whoever calls holds the workspace."""

    def __init__(self, workspace: Trainable) -> None:
        self._workspace = workspace
        self._id = ""
        self.fresh: set[str] = set()
        self._depths: list[float] = []
        self._scores: dict[str, float | None] = {}

    def begin(self, plan: TrainingPlan) -> None:
        """Begin it, and tell the ledger so that a run of a killed process is known; the second time
        nothing."""
        if self._id:
            return
        self._id = self._workspace.registry.runs.start_training(_parameters(self._workspace, plan))
        self._workspace.ledger.append(
            events.TrainingBegan(time=self._workspace.now(), run=self._id)
        )

    @property
    def is_begun(self) -> bool:
        """Whether there is one."""
        return bool(self._id)

    def log(self, plan: TrainingPlan, spec: StageSpec, digest: str, outcome: StageOutcome) -> str:
        """Log a trained stage. Returns the id of its run."""
        run_id: str = self._workspace.registry.runs.log_stage(
            self._id,
            spec.key,
            stage_name(spec.shard, spec.prefix),
            {
                "key": spec.key,
                "digest": digest,
                "shard": spec.shard,
                "slices": list(spec.prefix),
                "block": list(plan.recipe.blocks[len(spec.prefix) - 1]),
                "steps": outcome.steps,
                "seed": plan.recipe.seed(spec.shard, spec.prefix),
                "adapter": plan.recipe.adapter["kind"],
                "learning_rate": plan.recipe.training["learning_rate"],
                "batch_size": plan.recipe.training["batch_size"],
            },
            {
                "loss": outcome.loss,
                **score_metrics(outcome.score),
                "artifact_bytes": float(len(outcome.artifact)),
                "seconds": outcome.seconds,
                "peak_memory_mib": outcome.peak_bytes / 2**20,
            },
            outcome.losses,
            {
                slice_path(spec.shard, number): digest
                for number, digest in zip(spec.prefix, spec.slice_digests, strict=True)
            },
        )
        return run_id

    def came_to(self, release: Release, score: Score | None) -> None:
        """What serves after it, and how well: shown when it is closed."""
        self._depths = [float(release.live_depth(shard)) for shard in release.shards()]
        self._scores = score_metrics(score)

    def finish(self, failed: bool) -> None:
        """Close it."""
        self._workspace.registry.runs.finish(
            self._id,
            {"stages_trained": float(len(self.fresh)), **self._scores},
            failed,
            self._depths,
        )


class StageRun:
    """The stages of one plan on their way. `done`: those that are there, by key; `has_moved`:
    whether an erasure changed the data under them, so that the plan has to be made anew."""

    def __init__(
        self, workspace: Trainable, case: TrainingCase, plan: TrainingPlan, tracked: TrackedRun
    ) -> None:
        self.plan = plan
        self.done = plan.at_hand()
        self.has_moved = False
        self._workspace = workspace
        self._case = case
        self._tracked = tracked

    def train(self, steps: Steps) -> None:
        """Train what is missing, a step each; stops early when the data moved, or when time is up.
        Raises what the first failed stage raised, TrainingError."""
        missing = self.plan.missing
        if not missing:
            return
        with current().bar(f"Training {len(missing)} stages", len(missing)) as advance:
            workers = self._workspace.config.runner.workers
            with ThreadPoolExecutor(workers) as pool, _ending(self._workspace.runner):
                left = steps.run_all([self._step(spec, pool, advance) for spec in missing])
        if left:
            raise TrainingError(
                f"expected every stage to be trained, {left} were not; run it again"
            )

    def _step(self, spec: StageSpec, pool: ThreadPoolExecutor, advance: Advance) -> Step:
        """What waits for the stages that this one builds on."""
        after = tuple(k for k in spec.earlier if k)
        work = partial(self._train, spec, pool, advance)
        return Step(spec.key, "train-stage", stage_name(spec.shard, spec.prefix), after, work)

    def _train(self, spec: StageSpec, pool: ThreadPoolExecutor, advance: Advance) -> None:
        record = self._train_one(spec, pool)
        if record is not None:
            self.done[spec.key] = record
        advance()

    def _train_one(self, spec: StageSpec, pool: ThreadPoolExecutor) -> StageRecord | None:
        """Train, log and record one stage whose predecessors are done; None when the data moved
        under it or time is up, now or for a stage it builds on."""
        if self.has_moved or not all(k in self.done for k in spec.earlier if k):
            return None
        outcome = self._outcome(self._job(spec), pool)
        if outcome is None:
            return None
        with self._case.data.changing():
            if self._case.data.has_moved(self._workspace.ledger.state(), self.plan.dataset, spec):
                self.has_moved = True
                return None
            return self._keep(spec, outcome)

    def _job(self, spec: StageSpec) -> StageJob:
        workspace, file_of = self._workspace, self._case.data.file_of
        held_out = FileRef(file_of(HELD_OUT_PATH), self.plan.dataset.held_out.digest)
        return replace(
            stage_job(workspace, self.plan.recipe, spec, self.done, held_out, file_of),
            activations=workspace.activations,
            measured=workspace.config.runner.measure_rows,
            spill=workspace.activations.root,
        )

    def _outcome(self, job: StageJob, pool: ThreadPoolExecutor) -> StageOutcome | None:
        def begin() -> StageOutcome | None:
            if self.has_moved or self._case.is_out_of_time():
                return None
            return self._workspace.runner.train(job)

        try:
            return pool.submit(begin).result()
        except S3TError:
            with self._case.data.changing():
                state = self._workspace.ledger.state()
                if not self._case.data.has_moved(state, self.plan.dataset):
                    raise
            self.has_moved = True
            return None

    def _keep(self, spec: StageSpec, outcome: StageOutcome) -> StageRecord:
        """Store the stage and record it. Raises GuaranteeError when a stage that was lost comes out
        with other bytes than the ledger has on record."""
        workspace = self._workspace
        recorded = self.plan.recorded.get(spec.key)
        if recorded is not None and recorded.digest != sha256_hex(outcome.artifact):
            raise GuaranteeError(
                "expected a lost stage to be trained again to the bytes the ledger recorded, got "
                "others; this machine does not repeat its numeric profile, or an earlier release "
                "trained it while the backbone's files were being changed: report it, and `s3t "
                "init` a new workspace here"
            )
        digest = workspace.store.put(spec.key, outcome.artifact)
        self._tracked.fresh.add(spec.key)
        if recorded is not None:
            return recorded
        record = spec.record(digest, self._tracked.log(self.plan, spec, digest, outcome))
        workspace.ledger.append(events.StageTrained(time=workspace.now(), stage=record))
        return record


@contextlib.contextmanager
def _ending(runner: Any) -> Iterator[None]:
    """An order to end this process (SIGINT, SIGTERM: no Exception) ends what the runner runs, too,
    and what waits."""
    try:
        yield
    except Exception:
        raise
    except BaseException:
        runner.stop()
        raise


def _parameters(workspace: Trainable, plan: TrainingPlan) -> dict[str, object]:
    config = workspace.config
    return {
        "shards": config.system.shards,
        "slices": config.system.slices,
        "budget": config.system.budget,
        "backbone": config.backbone.model,
        "max_length": config.backbone.max_length,
        "stages": len(plan.wanted.stages),
        "dataset": plan.dataset.version,
        "task": config.task.kind,
        "adapter": config.adapter.kind,
        "rank": config.adapter.rank,
        "dtype": plan.recipe.training["dtype"],
        "epochs": config.training.epochs,
        "learning_rate": config.training.learning_rate,
        "batch_size": config.training.batch_size,
    }
