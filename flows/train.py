"""Train: fill in the stages that data and config call for and that are not there, then register and serve a version.

1. describe the backbone (digests, layers) and the numeric profile; refuse a backbone that changed under its name
2. list the stage keys that should exist; take over what a crash left complete; train the rest, replicas in parallel,
   a process each, one MLflow run per stage under a parent run
3. register the release as a new version and move the alias; measure it on the held-out rows

A rerun with the same inputs trains nothing and registers nothing. The full retrain is the same work: stages whose
inputs did not change are re-used, and the result equals, byte for byte, training from nothing on the remaining rows.
"""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.adapters.local import workspace_lock
from flows.progress import Advance, current
from flows.tasks import task
from flows.wiring import ReleaseEvaluator, Workspace, refuse_open_plan
from s3t_core.canonical import sha256_hex
from s3t_core.capacity.sequences import choose_sequences
from s3t_core.domain import DatasetVersion, Release, Replica, StageRecord
from s3t_core.erasure.ledger import State, VersionRecord
from s3t_core.erasure.versions import accuracy_tags, release_tags
from s3t_core.errors import BackboneChanged, DataError, GuaranteeError, TrainingError
from s3t_core.learning.jobs import DescribeJob, Description, FileRef, StageJob, StageOutcome
from s3t_core.learning.recipe import Recipe, StageSpec, Wanted, make_recipe, wanted
from s3t_core.learning.release import recipe_to_json
from s3t_core.release_json import release_to_json, stage_to_json
from s3t_core.slicefile import HELD_OUT_PATH, slice_path


@dataclass(frozen=True)
class TrainReport:
    """What a training did: stages trained and re-used, the version that serves, its held-out accuracy (0 to 1)."""

    trained: int
    reused: int
    version: str
    accuracy: float | None
    seconds: float


@flow(name="train", task_runner=ThreadPoolTaskRunner(max_workers=64))
def train(workspace: str) -> dict[str, Any]:
    """Train what is missing in the workspace directory, register and serve it."""
    place = Workspace(Path(workspace))
    with workspace_lock(place.lock_path):
        return fill_in(place, "train").__dict__


def fill_in(place: Workspace, cause: str) -> TrainReport:
    """The work of the train and retrain flows (`cause`); the caller holds the lock and is inside a flow."""
    started = time.monotonic()
    place.sweep()
    session = TrainingSession(place, cause)
    trained = session.train_missing()
    version, accuracy = session.register()
    return TrainReport(trained, len(session.plan.stages) - trained, version, accuracy,
                       round(time.monotonic() - started, 1))


class TrainingSession:
    """One training: what should exist, what does, and the adapters that close the gap."""

    def __init__(self, place: Workspace, cause: str) -> None:
        self.place = place
        self.cause = cause
        state = place.ledger.state()
        refuse_open_plan(state)
        self.dataset = _usable_dataset(place, state)
        with current().spinner("Loading torch and the backbone"):
            job = DescribeJob(place.backbone, place.config.training.threads)
            description = place.runner.describe(job)
        _check_recorded(place, state, description)
        self.recipe: Recipe = make_recipe(
            place.config, place.backbone, description.digest, description.tokenizer_digest, description.layers,
            description.profile)
        system = place.config.system
        sequences = choose_sequences(system.sequences, system.slices, system.budget, system.slice_prior,
                                     place.config.training.seed)
        self.plan: Wanted = wanted(self.recipe, sequences, self.dataset)
        self.done: dict[str, StageRecord] = {}
        self.recorded = state.stages
        self.parent = ""

    def train_missing(self) -> int:
        """Train every stage without a valid artifact; returns how many were trained."""
        self._take_over()
        missing = [s for s in self.plan.stages if s.key not in self.done]
        if not missing:
            return 0
        self.parent = self.place.registry.start_training(_parameters(self.place, self.dataset, self.plan))
        failed = True
        try:
            with current().bar(f"Training {len(missing)} stages", len(missing)) as advance:
                self._submit(missing, advance)
            failed = False
        finally:
            self.place.registry.finish(self.parent, {"stages_trained": float(len(missing))}, failed)
        return len(missing)

    def register(self) -> tuple[str, float | None]:
        """Register the release unless it is what serves already: (version, held-out accuracy)."""
        state = self.place.ledger.state()
        replicas = tuple(Replica(w.shard, w.number, w.sequence, tuple(self.done[k] for k in w.keys if k))
                         for w in self.plan.replicas)
        champion = state.champion
        if champion and not champion.destroyed and _same(champion.release, replicas, self.dataset):
            return self._serve(champion.release, champion)
        release = Release(f"release-{uuid.uuid4().hex[:16]}", self.dataset.version, replicas)
        return self._serve(release, None)

    def _serve(self, release: Release, champion: VersionRecord | None) -> tuple[str, float | None]:
        """Make `release` the version that serves, in registry and ledger, and measured; what is so already stays."""
        document, recipe = release_to_json(release), recipe_to_json(self.recipe)
        with current().spinner("Registering the version and measuring it"):
            published = self.place.registry.publish(document, recipe, release_tags(release, self.place.ledger.head()))
            if champion is None or champion.version != published.version:
                self.place.ledger.append({
                    "type": "release", "time": self.place.now(), "cause": self.cause, "release": document,
                    "recipe": recipe, "version": published.version, "run_id": published.run_id,
                    "model_id": published.model_id, "staleness": self.place.config.erasure.staleness_seconds})
            elif champion.accuracy is not None or not self.dataset.held_out.rows:
                return champion.version, champion.accuracy
            accuracy = measure_task(self.place, document, self.recipe)
            self.place.ledger.append({"type": "measured", "time": self.place.now(), "accuracy": accuracy,
                                      "release": release.release_id})
            self.place.registry.tag(published.version, {**accuracy_tags(accuracy),
                                                        **self.place.budget_tags(self.place.ledger.state())})
        return published.version, accuracy

    def train_one(self, spec: StageSpec, pool: ThreadPoolExecutor) -> StageRecord:
        """Train, log and record one stage whose predecessors are done."""
        place = self.place
        files = tuple(FileRef(place.root / "data" / slice_path(spec.shard, s), d)
                      for s, d in zip(spec.prefix, spec.slice_digests, strict=True))
        job = StageJob(self.recipe, spec, files, tuple(self.done[k].digest if k else None for k in spec.earlier),
                       FileRef(place.root / "data" / HELD_OUT_PATH, self.dataset.held_out.digest),
                       place.store.root, place.keys)
        outcome: StageOutcome = pool.submit(place.runner.train, job).result()
        recorded = self.recorded.get(spec.key)
        if recorded is not None and recorded.digest != sha256_hex(outcome.artifact):
            raise GuaranteeError("expected a lost stage to be trained again to the bytes the ledger recorded, got "
                                 "others; this machine does not repeat its numeric profile: report it, and `s3t init` "
                                 "a new workspace here")
        digest = place.store.put(spec.key, outcome.artifact)
        if recorded is not None:
            return recorded
        run_id = place.registry.log_stage(self.parent, spec.key, _stage_name(spec), {
            "key": spec.key, "digest": digest, "shard": spec.shard, "slices": list(spec.prefix),
            "block": list(self.recipe.blocks[len(spec.prefix) - 1]), "steps": outcome.steps,
        }, {"loss": outcome.loss, "held_out_accuracy": outcome.accuracy,
            "artifact_bytes": float(len(outcome.artifact))})
        return self._record(spec, digest, run_id)

    def _record(self, spec: StageSpec, digest: str, run_id: str) -> StageRecord:
        record = spec.record(digest, run_id)
        self.place.ledger.append({"type": "stage", "time": self.place.now(), "stage": stage_to_json(record)})
        return record

    def _take_over(self) -> None:
        """Stages that are there: recorded and whole, or stored complete by a run that died before it could say so."""
        stored = self.place.store.bindings()
        for spec in self.plan.stages:
            record = self.recorded.get(spec.key)
            if record is not None and self.place.store.holds(record.digest):
                self.done[spec.key] = record
            elif record is None and spec.key in stored:
                self.done[spec.key] = self._record(spec, stored[spec.key], "")

    def _submit(self, missing: list[StageSpec], advance: Advance) -> None:
        """One Prefect task per stage; a stage waits for those it builds on. At most `workers` processes at a time."""
        futures: dict[str, Any] = {}
        with ThreadPoolExecutor(self.place.config.runner.workers) as pool:
            for spec in missing:
                waits = [futures[k] for k in spec.earlier if k in futures]
                futures[spec.key] = stage_task.with_options(task_run_name=_stage_name(spec)).submit(
                    Unmapped(self, spec, pool, advance), wait_for=waits)
            failures = []
            for future in futures.values():
                future.wait()
                if not future.state.is_completed():
                    failures.append(future)
            for future in failures:
                future.result(raise_on_failure=True)
            if failures:
                raise TrainingError(f"expected every stage to be trained, {len(failures)} were not; run it again")


@dataclass(frozen=True, eq=False)
class Unmapped:
    """What a stage task needs, opaque to Prefect."""

    session: TrainingSession
    spec: StageSpec
    pool: ThreadPoolExecutor
    advance: Advance


@task(name="train-stage")
def stage_task(work: Unmapped) -> None:
    """Train one stage in a process of its own."""
    work.session.done[work.spec.key] = work.session.train_one(work.spec, work.pool)
    work.advance()


@task(name="measure")
def measure_task(place: Workspace, document: dict[str, Any], recipe: Recipe) -> float | None:
    """Held-out accuracy of a release."""
    return ReleaseEvaluator(place).accuracy_of(document, recipe)


def _usable_dataset(place: Workspace, state: State) -> DatasetVersion:
    dataset, system = state.dataset, place.config.system
    if dataset is None:
        raise DataError("expected data in the workspace, got none; run `s3t ingest SOURCE`")
    if (dataset.shards, dataset.slices) != (system.shards, system.slices):
        raise DataError(f"expected data placed for {system.shards} shards of {system.slices} slices, got "
                        f"{dataset.shards} of {dataset.slices}; run `s3t ingest SOURCE` again")
    if dataset.rows() == 0:
        raise DataError("expected training records, got none at all; ingest a source with records")
    for slice_id, version in dataset.slice_versions.items():
        path = place.root / "data" / slice_path(slice_id.shard, slice_id.index)
        if version.rows and not path.exists():
            raise DataError(f"expected {path.parent.name}/{path.name} in the data directory, got none; run "
                            "`dvc checkout --force data.dvc`")
    return dataset


def _check_recorded(place: Workspace, state: State, found: Description) -> None:
    """A backbone is recorded under its name when it is first used; other files under that name are refused."""
    model = place.backbone
    recorded = state.backbones.get(model)
    if recorded is None:
        place.ledger.append({"type": "backbone", "time": place.now(), "model": model, "digest": found.digest,
                             "tokenizer_digest": found.tokenizer_digest})
    elif recorded != (found.digest, found.tokenizer_digest):
        raise BackboneChanged(f"expected the recorded backbone {recorded[0][:16]}... under [backbone] model, got "
                              f"{found.digest[:16]}...; put the recorded files back, or name the new model by another "
                              "id or path and train")


def _same(release: Release, replicas: tuple[Replica, ...], dataset: DatasetVersion) -> bool:
    mine = [(r.shard, r.number, [s.digest for s in r.stages]) for r in replicas]
    theirs = [(r.shard, r.number, [s.digest for s in r.stages]) for r in release.replicas]
    return mine == theirs and release.dataset == dataset.version


def _parameters(place: Workspace, dataset: DatasetVersion, plan: Wanted) -> dict[str, Any]:
    config = place.config
    return {"shards": config.system.shards, "slices": config.system.slices, "budget": config.system.budget,
            "backbone": config.backbone.model, "max_length": config.backbone.max_length, "stages": len(plan.stages),
            "dataset": dataset.version, "dtype": config.training.dtype, "epochs": config.training.epochs}


def _stage_name(spec: StageSpec) -> str:
    return f"shard {spec.shard} stage {len(spec.prefix)} of slices {'-'.join(map(str, spec.prefix))}"

