"""Model versions and training runs (MLflow). Never rows, never subject ids: params, losses, accuracies, digests.

A version carries its release document and the stage files that answer, each a second name of the store's file where
both lie in one file system; the backbone goes by id and digest. So a version costs what changed.

Deleting in MLflow leaves bytes behind unless done in this order: logged models, runs, `mlflow gc`, then VACUUM with
secure_delete.
"""

import contextlib
import io
import logging
import os
import shutil
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from s3t_core.canonical import canonical_json
from s3t_core.erasure.ledger import VersionRecord
from s3t_core.erasure.versions import RELEASE_TAG
from s3t_core.errors import GuaranteeError, StorageError, WorkspaceError
from s3t_core.files import sync_directory, write_atomically
from s3t_core.learning.release import FORMAT
from s3t_core.learning.store import StageStore
from s3t_core.ports import Published
from s3t_core.release_json import release_from_json

ALIAS = "champion"
STAGE_TAG = "s3t.stage_key"
KIND_TAG = "s3t.kind"
_RELEASE = "release"


class MlflowRegistry:
    """A registered model, its versions and the runs behind them, in a database and a directory of this machine. Fills
    the port `Registry`. On a server: flows.adapters.registry_server."""

    def __init__(self, tracking_uri: str, artifacts: Path, temporary: Path, name: str, store: StageStore,
                 serving: Mapping[str, float]) -> None:
        """`serving`: staleness and declared offline use in seconds, for the code that answers (champion.py)."""
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is for this system's own answer
        for noisy in ("alembic", "mlflow.store.db.utils", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        import mlflow
        self._mlflow = mlflow
        self._uri = tracking_uri
        self._artifacts = artifacts
        self._temporary = temporary
        self.name = name
        self._store = store
        self._serving = dict(serving)
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_registry_uri(tracking_uri)
        with self._guarded():
            self._client = mlflow.MlflowClient(tracking_uri, tracking_uri)

    # --- runs

    def start_training(self, params: Mapping[str, Any]) -> str:
        """A parent run for one training; returns its id."""
        run = self._client.create_run(self._experiment(), run_name="train", tags={KIND_TAG: "training"})
        for key, value in params.items():
            self._client.log_param(run.info.run_id, key, value)
        return str(run.info.run_id)

    def log_stage(self, parent: str, key: str, name: str, params: Mapping[str, Any],
                  metrics: Mapping[str, float | None]) -> str:
        """One run for one stage, under the parent, so that its history can be destroyed with it."""
        from mlflow.entities import Metric, Param
        run = self._client.create_run(self._experiment(), run_name=name, tags={
            "mlflow.parentRunId": parent, KIND_TAG: "stage", STAGE_TAG: key})
        now = int(time.time() * 1000)
        self._client.log_batch(run.info.run_id, [Metric(k, v, now, 0) for k, v in metrics.items() if v is not None],
                               [Param(k, str(v)) for k, v in params.items()])
        self._client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    def finish(self, run_id: str, metrics: Mapping[str, float | None], failed: bool = False) -> None:
        """Close a parent run."""
        for key, value in metrics.items():
            if value is not None:
                self._client.log_metric(run_id, key, value)
        self._client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    # --- versions

    def publish(self, release: dict[str, Any], recipe: dict[str, Any], tags: Mapping[str, str]) -> Published:
        """Register a version for the release, or find the one a run before a crash registered; move the alias."""
        with self._guarded():
            known = self._find(release["id"])
            published = known or self._register(release, recipe, tags)
            if known:
                self._complete(known.model_id, release)  # a file that was damaged is the store's again
            self._client.set_registered_model_alias(self.name, ALIAS, published.version)
            return published

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Set tags on a version."""
        with self._guarded():
            for key, value in tags.items():
                self._client.set_model_version_tag(self.name, version, key, value)

    def destroy(self, keep: Iterable[VersionRecord], live_stages: Iterable[str]) -> None:
        """Destroy every version but those in `keep` and every stage's run but those of the given keys, with their
        files: also what a crash left that the ledger never learned of."""
        kept = list(keep)
        with self._guarded():
            self._delete_versions({v.version for v in kept})
            self._delete_logged_models({v.model_id for v in kept})
            self._delete_runs({v.run_id for v in kept}, set(live_stages))
            self._collect()
        self._remove_leftovers({v.model_id for v in kept})

    def _remove_leftovers(self, models: set[str]) -> None:
        """MLflow's deletions leave empty folders, and would leave bytes where they failed half-way."""
        for folder in (self._artifacts / "models").glob("*"):
            if folder.name not in models:
                shutil.rmtree(folder)

    def _register(self, release: dict[str, Any], recipe: dict[str, Any], tags: Mapping[str, str]) -> Published:
        with _temporary_in(self._temporary), tempfile.TemporaryDirectory(prefix="release-") as folder:
            document = {"format": FORMAT, "release": release, "recipe": recipe,
                        "serving": {"name": self.name, **self._serving}}
            write_atomically(Path(folder, _RELEASE) / "release.json", canonical_json(document))
            self._before_logging(Path(folder, _RELEASE), release)
            with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")  # of type hints; the signature is what we want it to be
                with self._mlflow.start_run(experiment_id=self._experiment(), run_name=f"release {release['id']}",
                                            tags={KIND_TAG: "release", RELEASE_TAG: release["id"]}) as run:
                    info = self._mlflow.pyfunc.log_model(
                        name="release", python_model=str(Path(__file__).with_name("champion.py")),
                        artifacts={_RELEASE: str(Path(folder, _RELEASE))}, pip_requirements=_requirements())
            self._complete(str(info.model_id), release)
        version = self._client.create_model_version(self.name, info.model_uri, run.info.run_id, tags=dict(tags),
                                                    model_id=str(info.model_id))
        return Published(str(version.version), str(run.info.run_id), str(info.model_id))

    def _before_logging(self, folder: Path, release: dict[str, Any]) -> None:
        """What else is logged with the release document in `folder`: nothing."""

    def _complete(self, model_id: str, release: dict[str, Any]) -> None:
        """The stage files of the replicas that answer, nothing else, beside the release document of a logged model,
        before it becomes a version. MLflow would copy every one of them, each time."""
        document = next((self._artifacts / "models" / model_id).glob("**/release.json"), None)
        if document is None:
            raise StorageError("expected the release document among the files of a logged model, got none; restore "
                               ".s3t/mlartifacts from its backup, then run the command again")
        self._place_stages(document.parent, release)

    def _place_stages(self, folder: Path, release: dict[str, Any]) -> None:
        parsed = release_from_json(release)
        for replica in (parsed.serving(s) for s in parsed.shards()):
            for stage in replica.stages if replica else ():
                self._store.place(stage.digest, folder)
        sync_directory(folder)

    def _find(self, release_id: str) -> Published | None:
        from mlflow.exceptions import MlflowException
        try:
            self._client.get_registered_model(self.name)
        except MlflowException:
            self._client.create_registered_model(self.name)
        for version in self._versions():
            if version.tags.get(RELEASE_TAG) == release_id:
                return Published(str(version.version), str(version.run_id), _model_id(version.source))
        return None

    def _versions(self) -> list[Any]:
        return _pages(lambda token: self._client.search_model_versions(f"name = '{self.name}'", page_token=token))

    def _delete_versions(self, keep: set[str]) -> None:
        for version in self._versions():
            if str(version.version) not in keep:
                self._client.delete_model_version(self.name, version.version)

    def _delete_logged_models(self, keep: set[str]) -> None:
        for model in _pages(lambda token: self._client.search_logged_models([self._experiment()], page_token=token)):
            if model.model_id not in keep:
                self._client.delete_logged_model(model.model_id)

    def _delete_runs(self, keep: set[str], live_stages: set[str]) -> None:
        for run in _pages(lambda token: self._client.search_runs([self._experiment()], page_token=token)):
            tags = run.data.tags
            stale_release = tags.get(KIND_TAG) == "release" and run.info.run_id not in keep
            if stale_release or (STAGE_TAG in tags and tags[STAGE_TAG] not in live_stages):
                self._client.delete_run(run.info.run_id)

    def _collect(self) -> None:
        """Remove the bytes of what is deleted: `mlflow gc`, then overwrite the database's free pages."""
        self._gc(self._uri)
        path = self._uri.removeprefix("sqlite:///")
        connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        try:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("VACUUM")
        finally:
            connection.close()

    def _gc(self, backend: str) -> None:
        from click.testing import CliRunner
        from mlflow.cli import gc
        result = CliRunner().invoke(gc, ["--backend-store-uri", backend, "--tracking-uri", self._uri])
        if result.exit_code != 0:
            raise StorageError(f"mlflow gc failed ({type(result.exception).__name__}); run `s3t erase` again")

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.name)
        if found is not None:
            if found.artifact_location != self._artifacts.as_uri():
                raise WorkspaceError("expected the model files where this workspace was made, got a registry that "
                                     "points elsewhere: the workspace was moved or copied, and MLflow keeps absolute "
                                     "paths. Move it back, or make a new one with the same keys and s3t.toml")
            return str(found.experiment_id)
        self._artifacts.mkdir(parents=True, exist_ok=True)
        return str(self._client.create_experiment(self.name, artifact_location=self._artifacts.as_uri()))

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
        try:
            yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            reason = error.error_code if isinstance(error, MlflowException) else type(error).__name__
            raise StorageError(f"the model registry refused ({reason}); check that it is up and writable, then run the "
                               "command again") from None


def _pages(fetch: Callable[[str | None], Any]) -> list[Any]:
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
    """MLflow copies artifacts through the temporary directory: keep that within the workspace, where it is swept."""
    folder.mkdir(parents=True, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _model_id(source: str) -> str:
    model_id = source.rpartition("/")[2]
    if not model_id.startswith("m-"):
        raise GuaranteeError("expected the version's source to name a logged model, got something else")
    return model_id


def _requirements() -> list[str]:
    names = ("mlflow", "torch", "transformers", "peft", "safetensors", "cryptography", "pyarrow", "rfc8785")
    return ["s3t==" + package_version("s3t"), *(f"{n}=={package_version(n).split('+')[0]}" for n in names)]
