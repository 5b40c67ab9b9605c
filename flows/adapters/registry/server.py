"""The files of versions on an MLflow server: its database and its artifacts are elsewhere.

What a deletion must reach there: `mlflow gc` needs the server's database (`[registry] backend`) to
remove rows and, through the server, artifacts; then the folders of models that no version has any
more, which gc leaves; then VACUUM, so that dead rows are gone. The stage files that answer are
logged with each version: a bucket has no second names.

The server may have other users. Nothing but what stands under this workspace's experiments, which
the ledger names (experiment.py), is deleted, collected or searched; before a version
serves it is looked for where `backend` and `artifacts` say it is.
"""

import contextlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.pool import NullPool

from flows.adapters.loading import folder_in_use
from flows.adapters.permissions import as_owner_only
from flows.adapters.registry.collecting import collect_deleted
from flows.adapters.registry.connection import Connection
from flows.adapters.registry.experiment import OwnExperiment
from flows.adapters.registry.files import (
    MODEL_FOLDER,
    STAGE_FILE,
    files_in,
    is_part,
    place_stages,
    stages_by_model,
)
from flows.adapters.registry.runs import Runs
from flows.adapters.s3 import S3Blobs, is_bucket
from s3t_core.domain import Release
from s3t_core.erasure.state import VersionRecord
from s3t_core.errors import StorageError, WorkspaceError
from s3t_core.learning.store import StageStore
from s3t_core.ports import Published

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.store.artifact.artifact_repo import ArtifactRepository


_PROXIED = "mlflow-artifacts:"


class ServerPlace:
    """Where a server keeps artifacts. Fills the protocol `ExperimentPlace`."""

    def __init__(self, destination: str, name: str) -> None:
        """`destination`: a bucket's URL or a directory; `name`: of the experiment, for errors."""
        self._destination, self._name = destination.rstrip("/"), name

    def new_location(self) -> None:
        """The server says where."""

    def location_of(self, experiment: "Experiment") -> str:
        """In the server's words."""
        return str(experiment.artifact_location)

    def check_expected(self, experiment: "Experiment") -> None:
        """That they lie where the server puts those of an experiment that nobody says another place
        for. Raises WorkspaceError."""
        place = self.of(str(experiment.artifact_location))
        if place != f"{self._destination}/{experiment.experiment_id}":
            raise WorkspaceError(
                f"expected the files of the experiment {self._name!r} where the server keeps those "
                "of new ones, got another place: somebody made it before this workspace did. Take "
                "another [system] name, or have that experiment deleted there for good (mlflow gc)"
            )

    def of(self, location: str) -> str:
        """The bucket's URL or the directory that the server means by a location."""
        if location.startswith(_PROXIED):
            return f"{self._destination}/{location.removeprefix(_PROXIED).strip('/')}"
        return location.removeprefix("file://")


class ServerFiles:
    """Files of versions in the server's bucket or directory, rows in its database. Fills the
    protocol `ModelFiles`, whose docstrings hold here."""

    def __init__(
        self,
        connection: Connection,
        own: OwnExperiment,
        place: ServerPlace,
        runs: Runs,
        store: StageStore,
        backend: str,
    ) -> None:
        """`backend`: the SQLAlchemy URL of the server's database."""
        self._connection, self._client, self._own = connection, connection.client, own
        self._place, self._runs, self._store = place, runs, store
        scheme, _, rest = backend.partition("://")
        self.backend = f"postgresql+psycopg://{rest}" if scheme == "postgresql" else backend

    def places(self) -> list[str]:
        """Buckets' URLs or directories, the present one last."""
        return [self._place.of(location) for location in self._own.locations()]

    def location(self) -> str:
        """In the server's words."""
        now = self._own.now()
        return "" if now is None else str(now.artifact_location)

    def of(self, model_id: str) -> dict[str, bytes]:
        """By their place in the logged model."""
        if not model_id:
            return {}
        place = self._present_place()
        if not is_bucket(place):
            return files_in(Path(place) / "models" / model_id)
        blobs = S3Blobs(f"{place}/models/{model_id}")
        names = [n for n in blobs.names() if not n.endswith(("/", STAGE_FILE))]
        return {name: data for name in names if (data := blobs.read(name)) is not None}

    @contextlib.contextmanager
    def fetched(self, model_id: str, loading: Path) -> Iterator[Path]:
        """It is gone when the model is in memory: stages that a later erasure must destroy are
        among it."""
        import mlflow

        as_owner_only(loading)  # what a killed process left there is swept by the next command
        with folder_in_use(loading) as folder:
            with self._connection.guarded():
                mlflow.artifacts.download_artifacts(
                    f"models:/{model_id}", dst_path=f"{folder}/{MODEL_FOLDER}"
                )
            yield folder

    def remove_compiled(self, model_id: str) -> None:
        """Nothing: nobody loads the server's files where they lie."""

    def add_before(self, folder: Path, release: Release) -> None:
        """The stage files of the replicas that answer."""
        place_stages(self._store, folder, release)

    def add_after(self, model_id: str, release: Release) -> None:
        """Nothing: a version is logged whole."""

    def check_reach(self, published: Published) -> None:
        """By [registry] artifacts and backend."""
        if not any(Path(name).name == "release.json" for name in self.of(published.model_id)):
            raise WorkspaceError(
                "expected [registry] artifacts to name where the MLflow server keeps its files, "
                "got a place without the version that was just registered: no erasure would reach "
                "it. Correct it in s3t.toml, then run the command again"
            )
        now = self._client.get_experiment(self._own.number())
        with self._engine().connect() as connection:
            known = connection.execute(
                text("SELECT 1 FROM experiments WHERE experiment_id = :id AND name = :name"),
                {"id": int(now.experiment_id), "name": now.name},
            )
            if known.first() is None:
                raise WorkspaceError(
                    "expected [registry] backend to be the MLflow server's database, got another: "
                    "no erasure would reach its rows. Correct it in s3t.toml, then run the command "
                    "again"
                )

    def remove_leftovers(self, keep: Iterable[VersionRecord]) -> bool:
        """Wherever this workspace's ever lay."""
        with self._connection.guarded():
            if not self._own.is_begun():
                return False
            kept = stages_by_model(keep)
            *before, now = self._own.locations()
            left = [self._clean(location, {}) for location in before]
            return any([*left, self._clean(now, kept)])

    def collect(self, models: list[str]) -> None:
        """gc takes what it is told of each kind, and everything in the server's trash where it is
        told nothing: so one of each kind is made for it."""
        trash = str(
            self._client.create_experiment(f"{self._connection.name} collected {uuid.uuid4().hex}")
        )
        run = self._client.create_run(trash, run_name="collected").info.run_id
        model = self._client.create_logged_model(trash, name="collected").model_id
        self._client.delete_run(run)
        self._client.delete_logged_model(model)
        self._client.delete_experiment(trash)
        runs = [r.info.run_id for r in self._runs.deleted()]
        models = [*models, *self.deleted_models()]
        collect_deleted(
            self.backend,
            self._connection.uri,
            self.location(),
            [run, *runs],
            [model, *models],
            "--run-ids",
            ",".join([run, *runs]),
            "--logged-model-ids",
            ",".join(dict.fromkeys([model, *models])),
            "--experiment-ids",
            trash,
        )
        self._vacuum()

    def deleted_models(self) -> list[str]:
        """Logged models of this workspace's experiments that somebody deleted: MLflow lists them to
        nobody."""
        wanted = text(
            "SELECT model_id FROM logged_models WHERE lifecycle_stage = 'deleted' AND "
            "experiment_id = :id"
        )
        with self._engine().connect() as connection:
            return [
                str(row[0])
                for number in self._own.numbers()
                for row in connection.execute(wanted, {"id": int(number)})
            ]

    def _present_place(self) -> str:
        location = self.location()
        if not location:
            raise WorkspaceError(
                f"expected the experiment {self._connection.name!r} on the MLflow server, got none "
                "of this workspace's; run `s3t erase`, which makes it anew"
            )
        return self._place.of(location)

    def _clean(self, location: str, kept: Mapping[str, set[str]]) -> bool:
        """By the server, whose files they are; what it does not come to, in the bucket itself.
        Raises StorageError."""
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(location, tracking_uri=self._connection.uri)
        place = self._place.of(location)
        doomed = {*_strange(repository, kept), *_strange_in(place, kept)}
        for name in doomed:
            with contextlib.suppress(MlflowException, OSError):  # of a name that the server refuses
                repository.delete_artifacts(name)  # type: ignore[no-untyped-call]
        for name in _strange_in(place, kept) if is_bucket(place) else []:
            S3Blobs(place).remove(name)
        left = {*_strange(repository, kept), *_strange_in(place, kept)}
        if left:
            raise StorageError(
                "expected nothing but the files of kept versions among the registry's artifacts, "
                f"{len(left)} others are there; check the server's rights, then run `s3t erase` "
                "again"
            )
        return bool(doomed)

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
            driver.add_notice_handler(
                lambda notice: refused.append(str(notice.severity_nonlocalized))
            )
            quote = engine.dialect.identifier_preparer.quote
            for table in inspect(connection).get_table_names():
                connection.execute(text(f"VACUUM {quote(table)}"))
        if "WARNING" in refused:
            raise StorageError(
                "expected a user in [registry] backend who may VACUUM the server's tables, got one "
                "who may not: dead rows would stay. Let it be their owner, then run `s3t erase` "
                "again"
            )

    def _engine(self) -> Engine:
        return create_engine(
            self.backend, poolclass=NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True
        )


def _strange(repository: "ArtifactRepository", kept: Mapping[str, set[str]]) -> list[str]:
    """Files that the server lists below an experiment's place, outside of the models that are
    `kept`."""
    entries = [e for e in repository.list_artifacts() if e.path != "models"]
    entries += [e for e in repository.list_artifacts("models") if Path(e.path).name not in kept]
    return [
        name for e in entries for name in (_files(repository, e.path) if e.is_dir else [e.path])
    ]


def _strange_in(place: str, kept: Mapping[str, set[str]]) -> list[str]:
    """Files that lie there and belong to no model that is `kept`."""
    if is_bucket(place):
        names = [n for n in S3Blobs(place).names() if not n.endswith("/")]
    else:
        names = [p.relative_to(place).as_posix() for p in Path(place).rglob("*") if not p.is_dir()]
    return [name for name in names if not is_part(name, kept)]


def _files(repository: "ArtifactRepository", path: str) -> list[str]:
    """Files under a path, however deep. Some stores go on listing a folder whose last file is
    gone."""
    found: list[str] = []
    for entry in repository.list_artifacts(path):
        found += _files(repository, entry.path) if entry.is_dir else [entry.path]
    return found
