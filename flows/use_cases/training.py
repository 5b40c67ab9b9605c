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
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from flows.progress import Advance, current
from flows.use_cases.reconciling import Reconcilable, healing_a_lost_lease
from flows.use_cases.steps import AS_THEY_STAND, Step, Steps
from flows.workspace import access
from flows.workspace.change import Change
from flows.workspace.composing import Measurable, ReleaseEvaluator
from flows.workspace.parts import HasDatabase, HasRequests, Sweepable
from flows.workspace.sweeping import sweep
from flows.workspace.workspace import refuse_open_plan, require_data
from s3t_core.canonical import sha256_hex
from s3t_core.capacity.sequences import choose_sequences
from s3t_core.domain import DatasetVersion, Release, Replica, SliceId, StageRecord
from s3t_core.erasure import events
from s3t_core.erasure.events import LedgerEvent
from s3t_core.erasure.state import State
from s3t_core.erasure.versions import accuracy_tags, release_tags
from s3t_core.erasure.vocabulary import ReleaseCause
from s3t_core.errors import BackboneChanged, DataError, GuaranteeError, S3TError, TrainingError
from s3t_core.learning.jobs import DescribeJob, Description, FileRef, StageJob, StageOutcome
from s3t_core.learning.recipe import Recipe, StageSpec, Wanted, make_recipe, wanted
from s3t_core.learning.release import check_one_recipe, recipe_to_json
from s3t_core.ports import Published
from s3t_core.release_json import release_to_json
from s3t_core.slicefile import HELD_OUT_PATH, slice_path
from s3t_core.times import has_passed

_WAIT_SECONDS = 6 * 3600
"""How long a training waits for an erasure that holds the workspace, before it gives up what it is
about to write."""


class Trainable(Reconcilable, Measurable, Sweepable, HasDatabase, HasRequests, Protocol):
    """What is trained, measured and registered."""

    @property
    def backbone(self) -> str:
        """Where the backbone is. Raises UsageError."""

    @property
    def offline_seconds(self) -> float:
        """How long a loaded model may go on without its registry."""


@dataclass(frozen=True)
class TrainReport:
    """What a training did: stages trained and re-used, the version that serves, its held-out
    accuracy (0 to 1).

    `missing`: stages still not there, because a time limit was reached (repair only).
    """

    trained: int
    reused: int
    version: str
    accuracy: float | None
    seconds: float
    missing: int = 0


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
    with healing_a_lost_lease(workspace.root), access.training(workspace, wait_for_training):
        return TrainingSession(workspace, cause, wait_for_change, steps).run()


class TrainingSession:
    """One training: what should exist, what does, and the adapters that close the gap.

    The caller holds the training lock.
    """

    def __init__(
        self,
        workspace: Trainable,
        cause: ReleaseCause,
        wait_seconds: float = 0,
        steps: Steps = AS_THEY_STAND,
    ) -> None:
        self.workspace = workspace
        self.cause = cause
        self._steps = steps
        self.done: dict[str, StageRecord] = {}
        self.fresh: set[str] = set()
        self.moved = False
        self.parent = ""
        self.recipe: Recipe
        self.dataset: DatasetVersion
        self.plan: Wanted
        self.recorded: dict[str, StageRecord] = {}
        self._threads = threading.Lock()
        self._wait = wait_seconds  # for the first time; later it waits for an erasure to end

    # --- what may differ: a replacement trained first, a repair

    @contextlib.contextmanager
    def changing(self) -> Iterator[Change]:
        """Hold the workspace while something is written. Raises Busy."""
        with self._threads, access.changing(self.workspace, self._wait) as held:
            self._wait = _WAIT_SECONDS
            yield held

    def present(self, state: State) -> DatasetVersion:
        """The data to train on."""
        return _usable_dataset(self.workspace, state)

    def file_of(self, relative: str) -> Path:
        """Where a data file is."""
        return self.workspace.root / "data" / relative

    def has_moved(self, state: State, spec: StageSpec | None = None) -> bool:
        """Whether the data is no longer what was listed: all of it, or what one stage sees and
        builds on."""
        refuse_open_plan(state)
        if state.dataset is None:
            return True
        if spec is None:
            return state.dataset.version != self.dataset.version
        seen = [state.dataset.slice_versions.get(SliceId(spec.shard, s)) for s in spec.prefix]
        return [v.digest if v else "" for v in seen] != list(spec.slice_digests) or not all(
            k in state.stages for k in spec.earlier if k
        )

    def order(self, missing: list[StageSpec], state: State) -> list[StageSpec]:
        """The missing stages to train, those that others build on first."""
        del state
        return missing

    def out_of_time(self) -> bool:
        """Whether no further stage may begin."""
        return False

    # --- the work

    def run(self) -> TrainReport:
        """Train, measure, register, retire: again while erasures change the data meanwhile."""
        started = time.monotonic()
        try:
            description = self.describe()
            served = None
            while served is None:
                self.train_missing(self.list_missing(description))
                served = None if self.moved else self.register()
        except BaseException:
            with contextlib.suppress(
                Exception
            ):  # what happened is told, not that its run could not be closed
                self.finish(failed=True)
            raise
        self.finish(failed=False)
        self.workspace.signing.write_checkpoint()
        left = sum(s.key not in self.done for s in self.plan.stages)
        reused = len(self.plan.stages) - left - sum(s.key in self.fresh for s in self.plan.stages)
        return TrainReport(
            len(self.fresh), reused, *served, round(time.monotonic() - started, 1), left
        )

    def finish(self, failed: bool) -> None:
        """Close the MLflow run of this training, if there is one."""
        if self.parent:
            with self.changing():
                self.workspace.registry.finish(
                    self.parent, {"stages_trained": float(len(self.fresh))}, failed
                )

    def describe(self) -> Description:
        """Look at the backbone and the numeric profile."""
        with current().spinner("Loading torch and the backbone"):
            found: Description = self.workspace.runner.describe(
                DescribeJob(
                    self.workspace.backbone,
                    self.workspace.config.training.threads,
                    self.workspace.config.training.device,
                )
            )
        return found

    def list_missing(self, description: Description) -> list[StageSpec]:
        """What should exist and does not."""
        workspace, system = self.workspace, self.workspace.config.system
        sequences = choose_sequences(
            system.sequences,
            system.slices,
            system.budget,
            system.slice_prior,
            workspace.config.training.seed,
        )
        with self.changing() as held:
            state = workspace.ledger.state()
            refuse_open_plan(state)
            workspace.requests.check()
            self.sweep(held)
            self.dataset = self.present(state)
            _check_recorded(workspace, state, description)
            self.recipe = make_recipe(
                workspace.config,
                workspace.backbone,
                description.digest,
                description.tokenizer_digest,
                description.layers,
                description.profile,
            )
            self.plan = wanted(self.recipe, sequences, self.dataset)
            self.recorded, self.moved, self.done = state.stages, False, {}
            self._take_over()
            workspace.activations.allow(
                {v.digest for d in (state.dataset, self.dataset) if d for v in d.files()}
            )
            missing = self.order([s for s in self.plan.stages if s.key not in self.done], state)
            if missing and not self.parent:
                self.parent = workspace.registry.start_training(
                    _parameters(workspace, self.recipe, self.dataset, self.plan)
                )
                workspace.ledger.append(events.TrainingBegan(time=workspace.now(), run=self.parent))
        return missing

    def sweep(self, held: Change) -> None:
        """Remove what a killed process left half-written."""
        sweep(self.workspace, held)

    def train_missing(self, missing: list[StageSpec]) -> None:
        """Train them; stops early when the data moved."""
        if missing:
            with current().bar(f"Training {len(missing)} stages", len(missing)) as advance:
                self._submit(missing, advance)

    def replicas(self) -> tuple[Replica, ...]:
        """Every replica with the stages it has, up to the first that is missing."""
        found = []
        for replica in self.plan.replicas:
            stages: list[StageRecord] = []
            for key in replica.keys:
                if key is not None and key not in self.done:
                    break
                if key is not None:
                    stages.append(self.done[key])
            found.append(Replica(replica.shard, replica.number, replica.sequence, tuple(stages)))
        return tuple(found)

    def register(self) -> tuple[str, float | None] | None:
        """Measure and serve the release unless it is what serves already: (version, held-out
        accuracy), None when the data moved. Raises TrainingError when it is worse than the
        configured floor, GuaranteeError when its stages are not of one recipe; what serves
        stays."""
        workspace, replicas = self.workspace, self.replicas()
        champion = workspace.ledger.state().champion
        same = bool(champion and not champion.destroyed and same_stages(champion.release, replicas))
        release = (
            champion.release
            if champion and same
            else Release(f"release-{uuid.uuid4().hex[:16]}", self.dataset.version, replicas)
        )
        check_one_recipe(release, self.recipe)
        document, recipe = release_to_json(release), recipe_to_json(self.recipe)
        with current().spinner("Measuring the version and registering it"):
            known = champion and same and champion.release.dataset == self.dataset.version
            accuracy = champion.accuracy if champion and known else None
            if accuracy is None and self.dataset.held_out.rows:
                accuracy = self.measured(release)
            if self.moved:
                return None
            if not same:
                self.check_floor(accuracy)
            with self.changing():
                state = workspace.ledger.state()
                if self.has_moved(state):
                    return None
                if state.champion and (
                    champion is None or state.champion.version != champion.version
                ):
                    return None  # an erasure without a change of the data moved the version on
                version = self._serve(state, release, document, recipe, accuracy)
                self._retire(replaced=bool(champion and same and champion.version != version))
        return version, accuracy

    def measured(self, release: Release) -> float | None:
        """Held-out accuracy of a release, 0 to 1; None without held-out rows, or when the data
        moved."""
        try:
            return self._steps.run("measure", lambda: self._accuracy_of(release))
        except S3TError:
            if not self._moved_now():
                raise
            self.moved = True
            return None

    def _accuracy_of(self, release: Release) -> float | None:
        evaluator, document = ReleaseEvaluator(self.workspace), release_to_json(release)
        return evaluator.accuracy_on(document, self.recipe, self._held_out())

    def _held_out(self) -> FileRef:
        return FileRef(self.file_of(HELD_OUT_PATH), self.dataset.held_out.digest)

    def check_floor(self, accuracy: float | None) -> None:
        """Raises TrainingError when a configured floor is not reached, or cannot be shown to be."""
        floor = self.workspace.config.deletion_budget.min_accuracy
        if floor and (accuracy is None or accuracy < floor):
            raise TrainingError(
                f"expected a held-out accuracy of at least {floor:g} ([deletion_budget] "
                "min_accuracy), got "
                f"{'none: nothing is held out' if accuracy is None else f'{accuracy:.4f}'}; the "
                "version that serves stays; ingest more data, train longer or lower the floor, "
                "then run `s3t retrain`"
            )

    def _serve(
        self,
        state: State,
        release: Release,
        document: dict[str, Any],
        recipe: dict[str, Any],
        accuracy: float | None,
    ) -> str:
        """Make `release` the version that serves, in registry and ledger; what is so already
        stays."""
        workspace, champion = self.workspace, state.champion
        same = champion is not None and champion.release.release_id == release.release_id
        published = workspace.registry.publish(
            document,
            recipe,
            release_tags(release, workspace.ledger.head()),
            champion.document if champion and same else "",
        )
        told: list[LedgerEvent] = []
        if champion is None or not same or champion.version != published.version:
            told.append(self._registered(release, recipe, published))
            if champion and same and not champion.destroyed:
                gone = (champion.version,)
                told.append(
                    events.Retired(
                        time=workspace.now(),
                        versions=gone,
                        stages=(),
                    )
                )
        elif (champion.run_id, champion.model_id) != (published.run_id, published.model_id):
            told.append(self._logged_anew(published))
        if told or (champion and champion.accuracy != accuracy):
            told.append(
                events.ReleaseMeasured(
                    time=workspace.now(),
                    release=release.release_id,
                    accuracy=accuracy,
                )
            )
        spent = state.retrain is not None or (not told and state.requests_since_training > 0)
        if spent and self.cause in ("train", "retrain"):
            wanted = state.retrain.id if state.retrain else ""
            told.append(
                events.RetrainChanged(
                    time=workspace.now(),
                    id=wanted,
                    state="finished",
                )
            )
        if told:
            workspace.ledger.append(*told)
        workspace.registry.tag(
            published.version,
            {**accuracy_tags(accuracy), **workspace.budget.tags(workspace.ledger.state())},
        )
        return published.version

    def _registered(
        self, release: Release, recipe: dict[str, Any], published: Published
    ) -> LedgerEvent:
        """That a version serves from now on."""
        return events.ReleaseServes(
            time=self.workspace.now(),
            cause=self.cause,
            release=release,
            recipe=recipe,
            version=published.version,
            run_id=published.run_id,
            model_id=published.model_id,
            document=published.document,
            staleness=self.workspace.config.erasure.staleness_seconds,
            offline=self.workspace.offline_seconds,
        )

    def _logged_anew(self, published: Published) -> LedgerEvent:
        """That the version which serves lies in another run, or is another logged model."""
        lies = [published.run_id, published.model_id, published.document]
        return events.Migrated(
            time=self.workspace.now(),
            move="",
            settings=self.workspace.pinned.wanted(),
            versions={published.version: lies},
        )

    def _retire(self, replaced: bool) -> None:
        """Destroy clean versions that were replaced and are past their time, and stages that
        nothing needs any more. `replaced`: a version was registered anew, and what is left of the
        one before goes too."""
        workspace, state = self.workspace, self.workspace.ledger.state()
        now, days = workspace.clock.now(), workspace.config.erasure.keep_clean_versions_days
        old = [
            v
            for v in state.versions[:-1]
            if not v.destroyed and v.superseded and has_passed(v.superseded, now, days=days)
        ]
        keep = [v for v in state.versions if not v.destroyed and v not in old]
        needed = {s.key for s in self.plan.stages}.union(*(v.release.stage_keys() for v in keep))
        unneeded = [k for k in state.stages if k not in needed]
        if not old and not unneeded and not replaced:
            return
        workspace.registry.destroy(keep, state.runs_of(k for k in state.stages if k in needed))
        live = {s.digest for k, s in state.stages.items() if k in needed}
        for digest in {state.stages[k].digest for k in unneeded} - live:
            workspace.store.delete(digest)
        if old or unneeded:
            workspace.ledger.append(
                events.Retired(
                    time=workspace.now(),
                    versions=tuple(v.version for v in old),
                    stages=tuple(unneeded),
                )
            )

    def train_one(self, spec: StageSpec, pool: ThreadPoolExecutor) -> StageRecord | None:
        """Train, log and record one stage whose predecessors are done; None when the data moved
        under it or time is up, now or for a stage it builds on."""
        workspace = self.workspace
        if self.moved or not all(k in self.done for k in spec.earlier if k):
            return None
        files = tuple(
            FileRef(self.file_of(slice_path(spec.shard, s)), d)
            for s, d in zip(spec.prefix, spec.slice_digests, strict=True)
        )
        job = StageJob(
            self.recipe,
            spec,
            files,
            tuple(self.done[k].digest if k else None for k in spec.earlier),
            self._held_out(),
            workspace.store,
            workspace.keys,
            workspace.activations,
            workspace.config.runner.measure_rows,
            workspace.activations.root,
            workspace.config.runner.max_memory,
        )
        outcome = self._outcome(job, pool)
        if outcome is None:
            return None
        with self.changing():
            if self.has_moved(workspace.ledger.state(), spec):
                self.moved = True
                return None
            return self._keep(spec, outcome)

    def _outcome(self, job: StageJob, pool: ThreadPoolExecutor) -> StageOutcome | None:
        def begin() -> StageOutcome | None:
            return None if self.moved or self.out_of_time() else self.workspace.runner.train(job)

        try:
            return pool.submit(begin).result()
        except S3TError:
            if not self._moved_now():
                raise
            self.moved = True
            return None

    def _moved_now(self) -> bool:
        with self.changing():
            return self.has_moved(self.workspace.ledger.state())

    def _keep(self, spec: StageSpec, outcome: StageOutcome) -> StageRecord:
        workspace = self.workspace
        recorded = self.recorded.get(spec.key)
        if recorded is not None and recorded.digest != sha256_hex(outcome.artifact):
            raise GuaranteeError(
                "expected a lost stage to be trained again to the bytes the ledger recorded, got "
                "others; this machine does not repeat its numeric profile: report it, and `s3t "
                "init` a new workspace here"
            )
        digest = workspace.store.put(spec.key, outcome.artifact)
        self.fresh.add(spec.key)
        if recorded is not None:
            return recorded
        run_id = workspace.registry.log_stage(
            self.parent,
            spec.key,
            _stage_name(spec),
            {
                "key": spec.key,
                "digest": digest,
                "shard": spec.shard,
                "slices": list(spec.prefix),
                "block": list(self.recipe.blocks[len(spec.prefix) - 1]),
                "steps": outcome.steps,
            },
            {
                "loss": outcome.loss,
                "held_out_accuracy": outcome.accuracy,
                "artifact_bytes": float(len(outcome.artifact)),
            },
        )
        return self._record(spec, digest, run_id)

    def _record(self, spec: StageSpec, digest: str, run_id: str) -> StageRecord:
        record = spec.record(digest, run_id)
        self.workspace.ledger.append(events.StageTrained(time=self.workspace.now(), stage=record))
        return record

    def _take_over(self) -> None:
        """Stages that are there: recorded and whole, or stored complete by a run that died before
        it could say so."""
        stored = self.workspace.store.bindings()
        for spec in self.plan.stages:
            record = self.recorded.get(spec.key)
            if record is not None and self.workspace.store.holds(record.digest):
                self.done[spec.key] = record
            elif record is None and spec.key in stored:
                self.done[spec.key] = self._record(spec, stored[spec.key], "")

    def _submit(self, missing: list[StageSpec], advance: Advance) -> None:
        """A step per stage; a stage waits for those it builds on. At most `workers` processes at a
        time. Raises what the first failed stage raised, TrainingError."""
        workers = self.workspace.config.runner.workers
        with ThreadPoolExecutor(workers) as pool, _ending(self.workspace.runner):

            def step(spec: StageSpec) -> Step:
                after = tuple(k for k in spec.earlier if k)
                work = partial(self._train, spec, pool, advance)
                return Step(spec.key, "train-stage", _stage_name(spec), after, work)

            left = self._steps.run_all([step(spec) for spec in missing])
        if left:
            raise TrainingError(
                f"expected every stage to be trained, {left} were not; run it again"
            )

    def _train(self, spec: StageSpec, pool: ThreadPoolExecutor, advance: Advance) -> None:
        record = self.train_one(spec, pool)
        if record is not None:
            self.done[spec.key] = record
        advance()


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


def _usable_dataset(workspace: Trainable, state: State) -> DatasetVersion:
    dataset, system = require_data(state), workspace.config.system
    if (dataset.shards, dataset.slices) != (system.shards, system.slices):
        raise DataError(
            f"expected data placed for {system.shards} shards of {system.slices} slices, got "
            f"{dataset.shards} of {dataset.slices}; run `s3t ingest SOURCE` again"
        )
    if dataset.rows() == 0:
        raise DataError("expected training records, got none at all; ingest a source with records")
    for slice_id, version in dataset.slice_versions.items():
        path = workspace.root / "data" / slice_path(slice_id.shard, slice_id.index)
        if version.rows and not path.exists():
            raise DataError(
                f"expected {path.parent.name}/{path.name} in the data directory, got none; run "
                "`dvc checkout --force data.dvc`"
            )
    return dataset


def _check_recorded(workspace: Trainable, state: State, found: Description) -> None:
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


def same_stages(release: Release, replicas: tuple[Replica, ...]) -> bool:
    """Whether a release has exactly these replicas' live stages: by key too, because stages of
    another numeric profile may have the same bytes, and are not of this recipe all the same."""
    mine = [(r.shard, r.number, [(s.key, s.digest) for s in r.stages]) for r in replicas]
    theirs = [(r.shard, r.number, [(s.key, s.digest) for s in r.stages]) for r in release.replicas]
    return mine == theirs


def _parameters(
    workspace: Trainable, recipe: Recipe, dataset: DatasetVersion, plan: Wanted
) -> dict[str, Any]:
    config = workspace.config
    return {
        "shards": config.system.shards,
        "slices": config.system.slices,
        "budget": config.system.budget,
        "backbone": config.backbone.model,
        "max_length": config.backbone.max_length,
        "stages": len(plan.stages),
        "dataset": dataset.version,
        "dtype": recipe.training["dtype"],
        "epochs": config.training.epochs,
    }


def _stage_name(spec: StageSpec) -> str:
    return (
        f"shard {spec.shard} stage {len(spec.prefix)} of slices {'-'.join(map(str, spec.prefix))}"
    )
