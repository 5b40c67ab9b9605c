"""Model versions and training runs (MLflow). Never rows, never subject ids: params, losses,
accuracies, digests.

A version carries its release document and the stage files that answer, each a second name of the
store's file where both lie in one file system; the backbone goes by id and digest. So a version
costs what changed.

Deleting in MLflow leaves bytes behind unless done in this order: logged models, runs, `mlflow gc`,
then VACUUM with secure_delete.
"""

import contextlib
import io
import json
import logging
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flows.adapters.experiment import GONE, OWNER_TAG, ExperimentBook, OwnExperiment
from flows.adapters.mlflow_address import addressed
from flows.adapters.version_files import (
    MODEL_FOLDER,
    RELEASE,
    RELEASE_FOLDER,
    STAGE_FILE,
    check_digest,
    digest_of_files,
    files_in,
    is_part,
    remove_compiled,
    stages_by_model,
)
from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.erasure.state import VersionRecord
from s3t_core.erasure.versions import DOCUMENT_TAG, RELEASE_TAG
from s3t_core.errors import GuaranteeError, StorageError, WorkspaceError
from s3t_core.files import entries, remove_file, remove_tree, sync_directory, write_atomically
from s3t_core.learning.release import FORMAT
from s3t_core.learning.store import LocalStageStore, StageStore
from s3t_core.ports import Published
from s3t_core.release_json import release_from_json, release_to_json

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models.model import ModelInfo
    from mlflow.store.entities import PagedList

T = TypeVar("T")


ALIAS = "champion"
STAGE_TAG = "s3t.stage_key"
KIND_TAG = "s3t.kind"
COPY_TAG = "s3t.copy_of"
_CODE = Path(__file__).with_name("champion.py")
_PROMPT = "mlflow.prompt.is_prompt"
"""A tag that anybody sets: MLflow answers then as if the model or version were not there."""
_LONGEST = 250
"""Characters of an experiment's name, at most."""
_AT_ONCE = 100
"""So many runs a search asks for."""
EXAMPLE = ("words",)
"""What a version gives as an example of its input: nobody's row, and too short to be looked for as
one."""
UNPINNED = {"pinned": False}
"""The settings that whoever loads a version may change (served_model.py)."""
_AHEAD = 1000
"""Version numbers that are passed over at most, so that a moved version keeps its own."""


class MlflowRegistry:
    """A registered model, its versions and the runs behind them, in a database and a directory of
    this machine. Fills the port `Registry`. On a server: flows.adapters.registry_server."""

    def __init__(
        self,
        tracking_uri: str,
        artifacts: Path,
        temporary: Path,
        name: str,
        store: StageStore,
        serving: Mapping[str, float | str],
        owner: str,
        book: ExperimentBook,
    ) -> None:
        """`serving`: staleness and declared offline use in seconds and the column of texts, for the
        code that answers (served_model.py). `owner`: the name of the ledger whose versions these
        are; nobody else's are touched. `book`: what that ledger knows of the experiments here."""
        import mlflow

        for noisy in (
            "alembic",
            "mlflow.store.db.utils",
            "mlflow",
        ):  # once it is there: it sets its own levels
            logging.getLogger(noisy).setLevel(logging.ERROR)
        self._mlflow = mlflow
        self._uri = tracking_uri
        self._artifacts = artifacts
        self._temporary = temporary
        self.name = name
        self._store = store
        self._serving = dict(serving)
        self._owner = owner
        self._book = book
        with self._guarded():
            self._client = mlflow.MlflowClient(tracking_uri, tracking_uri)
        self._own = OwnExperiment(self._client, name, owner, book, self)

    def addressed(self) -> AbstractContextManager[None]:
        """Until the block ends, MLflow's functions that are told no address work on this one: those
        that log, and those of a loaded version."""
        return addressed(self._uri)

    # --- where it is

    def claim(self) -> bool:
        """Make experiment and registered model as the ledger tells, where somebody renamed, deleted
        or hid them; whether anything was otherwise. The caller holds the workspace. Raises
        WorkspaceError for another's."""
        with self._guarded():
            _, changed = self._own.hold(lambda: bool(self._versions()))
            return self._unhide() or changed

    def places(self) -> list[str]:
        """Where else than in the workspace files of its runs and versions lie, or ever lay:
        buckets' URLs, directories."""
        return []

    def new_location(self) -> str | None:
        """Where files of a new experiment shall lie."""
        self._artifacts.mkdir(parents=True, exist_ok=True)
        return self._artifacts.as_uri()

    def location_of(self, experiment: "Experiment") -> str:
        """Where they lie, relative to the workspace. Raises WorkspaceError where they lie
        elsewhere."""
        if experiment.artifact_location != self._artifacts.as_uri():
            raise WorkspaceError(
                "expected the model files where this workspace was made, got a registry that "
                "points elsewhere: the workspace was moved or copied, and MLflow keeps absolute "
                "paths. Move it back, or make a new one with the same keys and s3t.toml"
            )
        return f"{self._artifacts.parent.name}/{self._artifacts.name}"

    def check_expected(self, experiment: "Experiment") -> None:
        """That they lie in the workspace. Raises WorkspaceError."""
        self.location_of(experiment)

    # --- runs

    def start_training(self, params: Mapping[str, object]) -> str:
        """A parent run for one training; returns its id."""
        with self._guarded():
            run = self._client.create_run(
                self._experiment(), run_name="train", tags={KIND_TAG: "training"}
            )
            for key, value in params.items():
                self._client.log_param(run.info.run_id, key, value)
            return str(run.info.run_id)

    def log_stage(
        self,
        parent: str,
        key: str,
        name: str,
        params: Mapping[str, object],
        metrics: Mapping[str, float | None],
    ) -> str:
        """One run for one stage, under the parent, so that its history can be destroyed with it."""
        from mlflow.entities import Metric, Param

        with self._guarded():
            run = self._client.create_run(
                self._experiment(),
                run_name=name,
                tags={"mlflow.parentRunId": parent, KIND_TAG: "stage", STAGE_TAG: key},
            )
            now = int(time.time() * 1000)
            self._client.log_batch(
                run.info.run_id,
                [Metric(k, v, now, 0) for k, v in metrics.items() if v is not None],
                [Param(k, str(v)) for k, v in params.items()],
            )
            self._client.set_terminated(run.info.run_id)
            return str(run.info.run_id)

    def finish(
        self, run_id: str, metrics: Mapping[str, float | None], failed: bool = False
    ) -> None:
        """Close a parent run."""
        with self._guarded():
            for key, value in metrics.items():
                if value is not None:
                    self._client.log_metric(run_id, key, value)
            self._client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    # --- versions

    def publish(
        self,
        release: dict[str, Any],
        recipe: dict[str, Any],
        tags: Mapping[str, str],
        document: str = "",
    ) -> Published:
        """Register a version for the release, or find the one whose files have the digest that the
        ledger recorded, `document`; move the alias. Every other version that says it is of this
        release goes, also one that a killed run registered and the ledger never learned of: nobody
        knows what became of its files since."""
        with self._guarded():
            self._experiment()
            known = self._find(release["id"], document)
            published = known or self._register(release, recipe, tags)
            if known:
                self._complete(
                    known.model_id, release
                )  # a file that was damaged is the store's again
            self._check_reach(published)
            self._client.set_registered_model_alias(self.name, ALIAS, published.version)
            return published

    def tags(self, version: str) -> dict[str, str]:
        """A version's tags."""
        with self._guarded():
            return dict(self._client.get_model_version(self.name, version).tags)

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Set tags on a version."""
        with self._guarded():
            for key, value in tags.items():
                self._client.set_model_version_tag(self.name, version, key, value)

    def destroy(self, keep: Iterable[VersionRecord], runs: Iterable[str]) -> None:
        """Destroy every version but those in `keep` and every run but theirs and `runs`, with their
        files: also what a crash left that the ledger never learned of, and whatever tags say."""
        kept = list(keep)
        if self._is_begun():
            with self._guarded():
                self._experiment()  # another workspace's is refused before anything goes
                self._unhide()
                self._delete_versions({v.version for v in kept})
                models = self._delete_logged_models({v.model_id for v in kept})
                self._delete_runs({*(v.run_id for v in kept), *runs})
                self._collect(models)
        self.remove_leftovers(kept)

    def remove_leftovers(self, keep: Iterable[VersionRecord]) -> bool:
        """Remove every file that belongs to none of these versions; whether there were any.
        MLflow's deletions leave empty folders, and would leave bytes where they failed half-way; a
        restore of files alone brings back what no database names; and whoever reaches the registry
        logs there what he likes."""
        kept = stages_by_model(keep)
        models = self._artifacts / "models"
        doomed = [p for p in entries(self._artifacts) if p.name != models.name]
        doomed += [p for p in entries(models) if p.name not in kept]
        doomed += [
            p
            for model in kept
            for p in (models / model).rglob(f"*{STAGE_FILE}")
            if not is_part(p.relative_to(self._artifacts).as_posix(), kept)
        ]
        for path in doomed:
            remove_tree(path) if path.is_dir() and not path.is_symlink() else remove_file(path)
        return bool(doomed)

    # --- moving

    def released(self) -> list[tuple[str, Published]]:
        """(release id, version) of every version that is here with its files; "" for one that says
        no release."""
        with self._guarded():
            return [
                (v.tags.get(RELEASE_TAG, ""), self._published(v))
                for v in self._versions()
                if self._document(_model_id(v.source)) is not None
            ]

    def count(self) -> int:
        """How many versions are here, whole or not."""
        with self._guarded():
            return len(self._versions())

    def serving(self) -> str:
        """The version that the alias names, "" for none."""
        from mlflow.exceptions import MlflowException

        with self._guarded():
            if not self._versions():
                return ""
            try:
                return str(self._client.get_model_version_by_alias(self.name, ALIAS).version)
            except MlflowException as error:
                if error.error_code in GONE:
                    return ""
                raise

    def serve(self, version: str) -> None:
        """Move the alias."""
        with self._guarded():
            self._client.set_registered_model_alias(self.name, ALIAS, version)

    def owner(self) -> str:
        """Whose the name is: its ledger's name, "" where there is nothing of it."""
        with self._guarded():
            if self._own.now() is not None:
                return self._owner
            found = self._client.get_experiment_by_name(self.name)
            return "" if found is None else str(found.tags.get(OWNER_TAG, "nobody"))

    def adopt(self, record: VersionRecord, tags: Mapping[str, str]) -> Published:
        """Register a version that another registry has, or that was lost here, under its number
        where that is not passed already. What is here and says it is of the same release goes: the
        ledger knows no digest of its files. The alias stays where it is."""
        with self._guarded():
            self._experiment()
            self._find(record.release.release_id, "")
            published = self._register(release_to_json(record.release), record.recipe, tags, record)
            self._check_reach(published)
            return published

    def differences(self, versions: Iterable[VersionRecord], serving: str) -> list[str]:
        """What the registry says otherwise than the ledger, a sentence each. `serving`: the version
        that is to serve, "" for none."""
        kept = {v.version: v for v in versions if not v.destroyed}
        with self._guarded():
            there = {str(v.version): v for v in self._versions()}
            whole = {
                n
                for n in kept.keys() & there.keys()
                if self._published(there[n]).document == kept[n].document
            }
            moved = self._own.problems()
            if any(self._prompts()):
                moved.append(
                    "the registry hides this workspace's versions, as if they were prompts"
                )
        named = self.serving()
        unknown, lost, changed = (
            sorted(names, key=int)
            for names in (
                there.keys() - kept.keys(),
                kept.keys() - there.keys(),
                kept.keys() & there.keys() - whole,
            )
        )
        return moved + [
            f"{what}: {', '.join(names)}"
            for what, names in (
                ("versions in the registry that the ledger does not know", unknown),
                ("versions that are gone from the registry", lost),
                ("versions with other files than the ledger recorded", changed),
                (
                    f"the alias {ALIAS!r} names another version than the one that serves, "
                    f"{serving or 'none'}",
                    [] if named == serving else [named or "none"],
                ),
            )
            if names
        ]

    def check_files(self, record: VersionRecord) -> None:
        """That the version's files are those that the ledger recorded: they decide labels, how long
        a loaded model may go on, and which code answers; and that the registry names this version,
        and these files as its own, to whoever asks for the one that serves. Raises
        GuaranteeError."""
        self._check_named(record)
        with self._guarded():
            self._remove_compiled(record.model_id)
            there, digest = (
                self._document(record.model_id) is not None,
                self._digest_of(record.model_id),
            )
        check_digest(record, digest, there)

    @contextlib.contextmanager
    def checked_files(self, record: VersionRecord, loading: Path) -> Iterator[Path]:  # noqa: ARG002
        """The directory with the version's release document and stages: the very one whose files
        were checked. Raises GuaranteeError."""
        self.check_files(record)
        yield self._artifacts / "models" / record.model_id / RELEASE_FOLDER

    def _check_named(self, record: VersionRecord) -> None:
        if self.serving() != record.version:
            raise GuaranteeError(
                f"expected the files of version {record.version} to serve under the alias "
                f"{ALIAS!r}, got another version or none; somebody moved it, or another command "
                "has just moved on: run `s3t erase`, which puts it right"
            )
        with self._guarded():
            version = self._version(record.version)
            named = version is not None and self._is_named_rightly(version, record.model_id)
        if not named:
            raise GuaranteeError(
                f"expected the registry to name the files of version {record.version} where this "
                "workspace keeps them, got another place: somebody changed it, or the workspace "
                "was moved or copied. Where it was moved, move it back; else run `s3t erase`, "
                "which puts it right"
            )

    def _version(self, number: str) -> "ModelVersion | None":
        """As MLflow tells whoever asks, None where it tells of none."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_model_version(self.name, number)
        except MlflowException as error:
            if error.error_code in GONE:
                return None
            raise

    def _is_named_rightly(self, version: "ModelVersion", model_id: str) -> bool:
        """Whether everything that MLflow would find a version's files by names the logged model of
        that id, here."""
        from mlflow.exceptions import MlflowException

        here = f"{self._location()}/models/{model_id}/{MODEL_FOLDER}"
        try:
            logged = self._client.get_logged_model(model_id).artifact_location
            told = self._client.get_model_version_download_uri(self.name, version.version)
        except MlflowException as error:
            if error.error_code in GONE:
                return False
            raise
        return version.source == f"models:/{model_id}" and told == here and logged == here

    def _location(self) -> str:
        """Where the registry keeps this workspace's files, in the words that it has for it."""
        return self._artifacts.as_uri()

    def _remove_compiled(self, model_id: str) -> None:
        remove_compiled(self._artifacts / "models" / model_id)

    def check_adopted(self, record: VersionRecord, published: Published) -> None:
        """That the version's files say what the ledger says and answer with its stages. Raises
        StorageError."""
        wanted = {
            s.digest
            for shard in record.release.shards()
            for r in [record.release.serving(shard)]
            if r
            for s in r.stages
        }
        with (
            self._guarded(),
            _temporary_in(self._temporary),
            tempfile.TemporaryDirectory(prefix="check-") as folder,
        ):
            self._mlflow.artifacts.download_artifacts(
                f"models:/{published.model_id}",
                dst_path=str(Path(folder, MODEL_FOLDER)),
            )
            document = next(Path(folder).rglob("release.json"), None)
            said = None if document is None else json.loads(document.read_bytes())["release"]
            stages = document.parent if document else Path(folder)
            whole = (
                said == release_to_json(record.release)
                and all(LocalStageStore(stages).holds(d) for d in wanted)
                and digest_of_files(files_in(Path(folder))) == published.document
            )
        if not whole:
            raise StorageError(
                f"expected version {record.version} to be whole in the registry it was moved to, "
                "got other files; nothing was removed: run the command again"
            )

    def copy_runs(self, other: "MlflowRegistry", wanted: set[str]) -> dict[str, str]:
        """Copy the runs of the ids `wanted`: names, tags, parameters, measurements, times. Those
        that are here already are passed over. Returns the copies' ids by theirs."""
        with self._guarded():
            here = {
                r.data.tags[COPY_TAG]: r.info.run_id
                for r in self._runs()
                if COPY_TAG in r.data.tags
            }
            theirs = [r for r in other._runs() if r.info.run_id in wanted]
            for run in sorted(
                theirs, key=lambda r: "mlflow.parentRunId" in r.data.tags
            ):  # parents first
                if run.info.run_id not in here:
                    here[run.info.run_id] = self._copy_run(run, here)
            return {r.info.run_id: here[r.info.run_id] for r in theirs}

    def forget(self) -> None:
        """Remove the registered model and everything under it, where the name is this workspace's.
        Idempotent."""
        from mlflow.exceptions import MlflowException

        with self._guarded():
            if self._own.now() is None:
                return
        self.destroy([], [])
        with self._guarded():
            try:
                self._client.delete_registered_model(self.name)
            except MlflowException as error:
                if error.error_code not in GONE:
                    raise
            self._collect([])
            number = self._experiment()
            self._client.rename_experiment(number, f"{self.name} left {self._owner}"[:_LONGEST])
            self._client.delete_experiment_tag(number, OWNER_TAG)

    def _runs(self, kind: int = 1) -> "list[Run]":
        """Of `kind` mlflow.entities.ViewType: those that are there, or those that are deleted."""
        numbers = self._numbers()
        return (
            _pages(
                lambda token: self._client.search_runs(
                    numbers, run_view_type=kind, page_token=token
                )
            )
            if numbers
            else []
        )

    def _numbers(self) -> list[str]:
        """Of every experiment that is this workspace's."""
        now = self._own.now()
        found = self._own.there() or ([] if now is None else [now])
        return [str(experiment.experiment_id) for experiment in found]

    def _copy_run(self, run: "Run", copies: Mapping[str, str]) -> str:
        from mlflow.entities import Metric, Param

        info, data = run.info, run.data
        tags = {
            k: copies.get(v, v) if k == "mlflow.parentRunId" else v for k, v in data.tags.items()
        }
        made = self._client.create_run(
            self._experiment(), info.start_time, tags, info.run_name
        ).info.run_id
        self._client.log_batch(
            made,
            [Metric(k, v, info.end_time or info.start_time, 0) for k, v in data.metrics.items()],
            [Param(k, v) for k, v in data.params.items()],
        )
        self._client.set_terminated(made, info.status, info.end_time)
        self._client.set_tag(made, COPY_TAG, info.run_id)  # last: a copy without it is no copy
        return str(made)

    # --- parts

    def _register(
        self,
        release: dict[str, Any],
        recipe: dict[str, Any],
        tags: Mapping[str, str],
        moved: VersionRecord | None = None,
    ) -> Published:
        from flows.adapters.mlflow_context import made_by_nobody

        serving = (
            self._serving
            if moved is None
            else {
                **self._serving,
                "staleness_seconds": moved.staleness,
                "offline_seconds": moved.offline,
            }
        )
        with (
            _temporary_in(self._temporary),
            tempfile.TemporaryDirectory(prefix="release-") as folder,
        ):
            document = canonical_json(
                {
                    "format": FORMAT,
                    "release": release,
                    "recipe": recipe,
                    "serving": {"name": self.name, **serving},
                }
            )
            tags = {**tags, DOCUMENT_TAG: sha256_hex(document)}
            write_atomically(Path(folder, RELEASE) / "release.json", document)
            self._before_logging(Path(folder, RELEASE), release)
            with (
                made_by_nobody(),
                warnings.catch_warnings(),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                warnings.simplefilter(
                    "ignore"
                )  # of type hints; the signature is what we want it to be
                with self._mlflow.start_run(
                    experiment_id=self._experiment(),
                    run_name=f"release {release['id']}",
                    tags={KIND_TAG: "release", RELEASE_TAG: release["id"]},
                ) as run:
                    info = self._log(Path(folder, RELEASE))
            self._complete(str(info.model_id), release)
            self._check_logged(str(info.model_id), document)
        version = self._number(info, run.info.run_id, tags)
        for _ in range(_AHEAD if moved else 0):
            if int(version) >= int(moved.version if moved else 0):
                break
            self._client.delete_model_version(self.name, version)
            version = self._number(info, run.info.run_id, tags)
        model_id = str(info.model_id)
        return Published(version, str(run.info.run_id), model_id, self._digest_of(model_id))

    def _log(self, release: Path) -> "ModelInfo":
        """As `mlflow.pyfunc.log_model` does, but MLflow does not load what it logs to try the
        example: it answers only when it is whole and the alias names it. No schema of the input: by
        one, MLflow would refuse lists, or cut a frame to its first column before the version sees
        it."""
        from types import SimpleNamespace

        from mlflow.models import Model, ModelSignature
        from mlflow.types import ColSpec, DataType, Schema
        from mlflow.types.schema import Map

        answers = ModelSignature(
            outputs=Schema(
                [ColSpec(DataType.string, "label"), ColSpec(Map(DataType.double), "probabilities")]
            )
        )

        def save(validate_serving_input: bool, **parts: Any) -> None:  # noqa: ARG001  # what Model.log alone looks at
            self._mlflow.pyfunc.save_model(**parts)

        logged: ModelInfo = Model.log(
            artifact_path=None,
            name="release",
            flavor=SimpleNamespace(save_model=save, __name__="mlflow.pyfunc"),
            validate_serving_input=False,
            python_model=str(_CODE),
            artifacts={RELEASE: str(release)},
            pip_requirements=_requirements(),
            signature=answers,
            input_example=list(EXAMPLE),
            model_config=dict(UNPINNED),
        )
        return logged

    def _check_logged(self, model_id: str, document: bytes) -> None:
        """That what decides the answers came there as it is here: the ledger is about to vouch for
        it."""
        there = {Path(name).name: data for name, data in self._files_of(model_id).items()}
        if (there.get("release.json"), there.get(_CODE.name)) != (document, _CODE.read_bytes()):
            raise StorageError(
                "expected the registry to hold the version's files as they were sent, got others; "
                "see who else writes to its artifacts, then run the command again"
            )

    def _number(self, info: "ModelInfo", run_id: str, tags: Mapping[str, str]) -> str:
        return str(
            self._client.create_model_version(
                self.name, info.model_uri, run_id, tags=dict(tags), model_id=str(info.model_id)
            ).version
        )

    def _before_logging(self, folder: Path, release: dict[str, Any]) -> None:
        """What else is logged with the release document in `folder`: nothing."""

    def _complete(self, model_id: str, release: dict[str, Any]) -> None:
        """The stage files of the replicas that answer, nothing else, beside the release document of
        a logged model, before it becomes a version. MLflow would copy every one of them, each
        time."""
        document = next((self._artifacts / "models" / model_id).glob("**/release.json"), None)
        if document is None:
            raise StorageError(
                "expected the release document among the files of a logged model, got none; "
                "restore .s3t/mlartifacts from its backup, then run the command again"
            )
        self._place_stages(document.parent, release)

    def _place_stages(self, folder: Path, release: dict[str, Any]) -> None:
        parsed = release_from_json(release)
        for replica in (parsed.serving(s) for s in parsed.shards()):
            for stage in replica.stages if replica else ():
                self._store.place(stage.digest, folder)
        sync_directory(folder)

    def _find(self, release_id: str, document: str) -> Published | None:
        """The version of a release whose files have the digest `document`. Others that say they are
        of it go, and all where that is ""."""
        from mlflow.exceptions import MlflowException

        self._unhide()
        try:
            self._client.get_registered_model(self.name)
        except MlflowException:
            self._client.create_registered_model(self.name)
        said = [
            self._published(v) for v in self._versions() if v.tags.get(RELEASE_TAG) == release_id
        ]
        found = next((p for p in said if document and p.document == document), None)
        for other in said:
            if other is not found:
                self._client.delete_model_version(self.name, other.version)
        return found

    def _published(self, version: "ModelVersion") -> Published:
        """A version as it is here. Its `document` is the digest of its files, "" where its tag
        names another release document, or the registry other files."""
        model_id = _model_id(version.source)
        same = sha256_hex(self._document(model_id) or b"") == version.tags.get(DOCUMENT_TAG)
        same = same and self._is_named_rightly(version, model_id)
        return Published(
            str(version.version),
            str(version.run_id),
            model_id,
            self._digest_of(model_id) if same else "",
        )

    def _digest_of(self, model_id: str) -> str:
        """Digest of all that decides what a version answers: the release document, the code that is
        loaded, what names it, what it needs. Stage files are named by their own digests."""
        return digest_of_files(self._files_of(model_id))

    def recorded_files(self, records: Iterable[VersionRecord]) -> Iterator[bytes]:
        """Names and content of the files of versions, stage files left out, of those that are as
        the ledger recorded them: what our code and MLflow write into every version."""
        for record in records:
            files = self._files_of(record.model_id)
            if record.document and digest_of_files(files) == record.document:
                yield from (b"\n".join((name.encode(), data)) for name, data in files.items())

    def _versions(self) -> "list[ModelVersion]":
        return self._search_versions(f"name = '{self.name}'")

    def _search_versions(self, wanted: str) -> "list[ModelVersion]":
        """Those that somebody made prompts of too. MLflow hides every version of a name that has
        one."""
        found: dict[tuple[str, str], ModelVersion] = {}
        for asked in (
            wanted,
            f"{wanted} and tag.`{_PROMPT}` = 'true'",
            f"{wanted} and tag.`{_PROMPT}` != 'true'",
        ):
            pages = _pages(partial(self._version_page, asked))
            found |= {(version.name, version.version): version for version in pages}
        return list(found.values())

    def _version_page(self, wanted: str, token: str | None) -> "PagedList[ModelVersion]":
        return self._client.search_model_versions(wanted, page_token=token)

    def _prompts(self) -> tuple[bool, list[str]]:
        """Whether somebody made a prompt of the registered model, and of which of its versions:
        MLflow answers then as if they were not there."""
        from mlflow.exceptions import MlflowException

        try:  # MlflowClient itself refuses whatever is a prompt
            registry = self._client._get_registry_client()  # type: ignore[no-untyped-call]
            model = registry.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code in GONE:
                return False, []
            raise
        return _PROMPT in model._tags, [
            str(v.version) for v in self._versions() if _PROMPT in v.tags
        ]

    def _unhide(self) -> bool:
        """Make MLflow answer for registered model and versions again; whether it did not."""
        registry = self._client._get_registry_client()  # type: ignore[no-untyped-call]
        model, versions = self._prompts()
        if model:
            registry.delete_registered_model_tag(self.name, _PROMPT)
        for version in versions:
            registry.delete_model_version_tag(self.name, version, _PROMPT)
        return model or bool(versions)

    def _delete_versions(self, keep: set[str]) -> None:
        for version in self._versions():
            if str(version.version) not in keep:
                self._client.delete_model_version(self.name, version.version)

    def _delete_elsewhere(self, runs: list[str]) -> None:
        """Versions of these runs, under whatever name somebody gave them."""
        registry = self._client._get_registry_client()  # type: ignore[no-untyped-call]
        for first in range(0, len(runs), _AT_ONCE):
            wanted = (
                "run_id IN ("
                + ", ".join(f"'{run}'" for run in runs[first : first + _AT_ONCE])
                + ")"
            )
            for version in self._search_versions(wanted):
                registry.delete_model_version(version.name, version.version)

    def _delete_logged_models(self, keep: set[str]) -> list[str]:
        numbers = self._numbers()
        found = _pages(lambda token: self._client.search_logged_models(numbers, page_token=token))
        gone = [m.model_id for m in found if m.model_id not in keep]
        for model_id in gone:
            self._client.delete_logged_model(model_id)
        return gone

    def _delete_runs(self, keep: set[str]) -> None:
        from mlflow.entities import ViewType

        doomed = [run.info.run_id for run in self._runs() if run.info.run_id not in keep]
        trash = [run.info.run_id for run in self._runs(ViewType.DELETED_ONLY)]
        self._delete_elsewhere([*doomed, *trash])
        for run_id in doomed:
            self._client.delete_run(run_id)

    def _document(self, model_id: str) -> bytes | None:
        """The release document of a logged model, None without one."""
        return next(
            (
                data
                for n, data in self._files_of(model_id).items()
                if Path(n).name == "release.json"
            ),
            None,
        )

    def _files_of(self, model_id: str) -> dict[str, bytes]:
        """The files of a logged model by their place in it, stage files left out; none of one
        without an id."""
        return files_in(self._artifacts / "models" / model_id) if model_id else {}

    def _check_reach(self, published: Published) -> None:
        """That an erasure would reach what was published. Raises WorkspaceError. Here it does."""

    def _collect(self, models: list[str]) -> None:  # noqa: ARG002
        """Remove the bytes of what is deleted: `mlflow gc`, then overwrite the database's free
        pages. `models` were deleted just now."""
        self._gc(self._uri)
        path = self._uri.removeprefix("sqlite:///")
        connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        try:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("VACUUM")
        finally:
            connection.close()

    def _gc(self, backend: str, *only: str) -> None:
        from click.testing import CliRunner
        from mlflow.cli import gc

        result = CliRunner().invoke(
            gc, ["--backend-store-uri", backend, "--tracking-uri", self._uri, *only]
        )
        if result.exit_code != 0:
            raise StorageError(
                f"mlflow gc failed ({type(result.exception).__name__}); run `s3t erase` again"
            )

    def _experiment(self) -> str:
        """The number of this workspace's experiment, which is there afterwards. The caller holds
        the workspace. Raises WorkspaceError."""
        return self._own.hold(lambda: bool(self._versions()))[0]

    def _is_begun(self) -> bool:
        """Whether anything was ever logged here."""
        with self._guarded():
            return bool(self._book.known()) or self._own.now() is not None

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self.addressed():
                yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            reason = (
                error.error_code if isinstance(error, MlflowException) else type(error).__name__
            )
            raise StorageError(
                f"the model registry refused ({reason}); check that it is up and writable, then "
                "run the command again"
            ) from None


def _pages(fetch: "Callable[[str | None], PagedList[T]]") -> list[T]:
    """Everything that a paged search returns."""
    found, token = [], None
    while True:
        page = fetch(token)
        found += list(page)
        token = page.token
        if not token:
            return found


@contextlib.contextmanager
def _temporary_in(folder: Path) -> Iterator[None]:
    """MLflow copies artifacts through the temporary directory: keep that within the workspace,
    where it is swept."""
    folder.mkdir(parents=True, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _model_id(source: str | None) -> str:
    """Returns the logged model that a version's source names, "" where it names something else:
    that is no version of ours."""
    model_id = (source or "").rpartition("/")[2]
    return model_id if model_id.startswith("m-") else ""


def _requirements() -> list[str]:
    names = (
        "mlflow",
        "torch",
        "transformers",
        "peft",
        "safetensors",
        "cryptography",
        "pyarrow",
        "rfc8785",
    )
    return [
        "s3t==" + package_version("s3t"),
        *(f"{n}=={package_version(n).split('+')[0]}" for n in names),
    ]
