"""Model versions and runs on an MLflow server: its database and its artifacts are elsewhere.

What a deletion must reach there: `mlflow gc` needs the server's database (`[registry] backend`) to remove rows and,
through the server, artifacts; then the folders of models that no version has any more, which gc leaves; then VACUUM,
so that dead rows are gone. The stage files that answer are logged with each version: a bucket has no second names.

The server may have other users. Nothing but what stands under this workspace's experiment is deleted, collected or
searched; before a version serves it is looked for where `backend` and `artifacts` say it is.
"""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from flows.adapters.loading import folder_in_use
from flows.adapters.local import as_owner_only
from flows.adapters.registry import (
    MODEL_FOLDER,
    OWNER_TAG,
    RELEASE_FOLDER,
    STAGE_FILE,
    MlflowRegistry,
    check_digest,
    digest_of_files,
    files_in,
    remove_compiled,
)
from flows.adapters.s3 import S3Blobs, is_bucket
from s3t_core.erasure.state import VersionRecord
from s3t_core.errors import StorageError, WorkspaceError
from s3t_core.ports import Published

_PROXIED = "mlflow-artifacts:"


class ServerRegistry(MlflowRegistry):
    """A registered model on a server. Fills the port `Registry`."""

    def __init__(self, backend: str, destination: str, *arguments: Any) -> None:
        """`backend`: the SQLAlchemy URL of the server's database; `destination`: where it keeps artifacts, a bucket or
        a directory; the others as MlflowRegistry takes them."""
        super().__init__(*arguments)
        self._destination = destination.rstrip("/")
        self._backend = backend if not backend.startswith("postgresql://") else (
            f"postgresql+psycopg://{backend.partition('://')[2]}")

    def place(self) -> str:
        """Where the files of this workspace's runs and versions are: a bucket's URL or a directory."""
        with self._guarded():
            location = self._location()
        if location.startswith(_PROXIED):
            return f"{self._destination}/{location.removeprefix(_PROXIED).strip('/')}"
        return location.removeprefix("file://")

    def _before_logging(self, folder: Path, release: dict[str, Any]) -> None:
        self._place_stages(folder, release)

    def _complete(self, model_id: str, release: dict[str, Any]) -> None:
        """Nothing: a version is logged whole."""

    @contextlib.contextmanager
    def checked_files(self, record: VersionRecord, loading: Path) -> Iterator[Path]:
        """What MLflow brings from the server to a directory in `loading`, checked there: that is what is loaded. It is
        gone when the model is in memory: stages that a later erasure must destroy are among it."""
        self._check_named(record)
        as_owner_only(loading)  # what a killed process left there is swept by the next command
        with folder_in_use(loading) as folder:
            with self._guarded():
                self._mlflow.artifacts.download_artifacts(
                    f"models:/{record.model_id}", dst_path=f"{folder}/{MODEL_FOLDER}", tracking_uri=self._uri)
                remove_compiled(folder)
                files = files_in(folder)
            check_digest(record, digest_of_files(files), bool(files))
            yield folder / RELEASE_FOLDER

    def _location(self) -> str:
        return str(self._client.get_experiment(self._experiment()).artifact_location)

    def _files_of(self, model_id: str) -> dict[str, bytes]:
        if not model_id:
            return {}
        place = self.place()
        if not is_bucket(place):
            return files_in(Path(place) / "models" / model_id)
        blobs = S3Blobs(f"{place}/models/{model_id}")
        names = [n for n in blobs.names() if not n.endswith(("/", STAGE_FILE))]
        return {name: data for name in names if (data := blobs.read(name)) is not None}

    def _check_reach(self, published: Published) -> None:
        if self._document(published.model_id) is None:
            raise WorkspaceError("expected [registry] artifacts to name where the MLflow server keeps its files, got a "
                                 "place without the version that was just registered: no erasure would reach it. "
                                 "Correct it in s3t.toml, then run the command again")
        with self._engine().connect() as connection:
            known = connection.execute(text("SELECT 1 FROM experiments WHERE name = :name"), {"name": self.name})
            if known.first() is None:
                raise WorkspaceError("expected [registry] backend to be the MLflow server's database, got another: no "
                                     "erasure would reach its rows. Correct it in s3t.toml, then run the command again")

    def remove_leftovers(self, models: set[str]) -> bool:
        """Remove files of other models than these; whether there were any."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        with self._guarded():
            place = self._client.get_experiment(self._experiment()).artifact_location
            repository = get_artifact_repository(f"{place}/models", tracking_uri=self._uri)
            gone = [e.path for e in repository.list_artifacts() if Path(e.path).name not in models]
            full = [path for path in gone if _files(repository, path)]
            for path in full:
                repository.delete_artifacts(path)
            left = [f for path in gone for f in _files(repository, path)]
        if left:
            raise StorageError(f"expected the files of destroyed versions to be gone from the registry's artifacts, "
                               f"{len(left)} are there; check the server's rights, then run `s3t erase` again")
        return bool(full)

    def _collect(self, models: list[str]) -> None:
        """gc takes what it is told of each kind, and everything in the server's trash where it is told nothing: so one
        of each kind is made for it."""
        from mlflow.entities import ViewType
        trash = str(self._client.create_experiment(f"{self.name} collected {uuid.uuid4().hex}"))
        run = self._client.create_run(trash, run_name="collected").info.run_id
        model = self._client.create_logged_model(trash, name="collected").model_id
        self._client.delete_run(run)
        self._client.delete_logged_model(model)
        self._client.delete_experiment(trash)
        runs = self._runs(ViewType.DELETED_ONLY)
        self._gc(self._backend, "--run-ids", ",".join([run, *(r.info.run_id for r in runs)]),
                 "--logged-model-ids", ",".join([model, *models]), "--experiment-ids", trash)
        self._vacuum()

    def _vacuum(self) -> None:
        """Every table of the server's database. Raises StorageError where the user may not."""
        engine = self._engine()
        if engine.dialect.name != "postgresql":
            with engine.connect() as connection:
                connection.execute(text("VACUUM"))
            return
        refused: list[str] = []
        with engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.add_notice_handler(lambda notice: refused.append(str(notice.severity_nonlocalized)))
            quote = engine.dialect.identifier_preparer.quote
            for table in inspect(connection).get_table_names():
                connection.execute(text(f"VACUUM {quote(table)}"))
        if "WARNING" in refused:
            raise StorageError("expected a user in [registry] backend who may VACUUM the server's tables, got one who "
                               "may not: dead rows would stay. Let it be their owner, then run `s3t erase` again")

    def _engine(self) -> Engine:
        return create_engine(self._backend, poolclass=NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True)

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.name)
        if found is None:
            return str(self._client.create_experiment(self.name, tags={OWNER_TAG: self._owner}))
        return self._owned(found)


def _files(repository: Any, path: str) -> list[str]:
    """Files under a path, however deep. Some stores go on listing a folder whose last file is gone."""
    found = []
    for entry in repository.list_artifacts(path):
        found += _files(repository, entry.path) if entry.is_dir else [entry.path]
    return found
