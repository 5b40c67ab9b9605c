"""Model versions and runs on an MLflow server: its database and its artifacts are elsewhere.

What a deletion must reach there: `mlflow gc` needs the server's database (`[registry] backend`) to remove rows and,
through the server, artifacts; then the folders of models that no version has any more, which gc leaves; then VACUUM,
so that dead rows are gone. The stage files that answer are logged with each version: a bucket has no second names.
"""

from pathlib import Path
from typing import Any

from flows.adapters.registry import MlflowRegistry
from s3t_core.errors import StorageError


class ServerRegistry(MlflowRegistry):
    """A registered model on a server. Fills the port `Registry`."""

    def __init__(self, backend: str, *arguments: Any) -> None:
        """`backend`: the SQLAlchemy URL of the server's database; the others as MlflowRegistry takes them."""
        super().__init__(*arguments)
        self._backend = backend if not backend.startswith("postgresql://") else (
            f"postgresql+psycopg://{backend.partition('://')[2]}")

    def _before_logging(self, folder: Path, release: dict[str, Any]) -> None:
        self._place_stages(folder, release)

    def _complete(self, model_id: str, release: dict[str, Any]) -> None:
        """Nothing: a version is logged whole."""

    def _remove_leftovers(self, models: set[str]) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
        with self._guarded():
            place = self._client.get_experiment(self._experiment()).artifact_location
            repository = get_artifact_repository(f"{place}/models", tracking_uri=self._uri)
            gone = [e.path for e in repository.list_artifacts() if Path(e.path).name not in models]
            for path in gone:
                if _files(repository, path):
                    repository.delete_artifacts(path)
            left = [f for path in gone for f in _files(repository, path)]
        if left:
            raise StorageError(f"expected the files of destroyed versions to be gone from the registry's artifacts, "
                               f"{len(left)} are there; check the server's rights, then run `s3t erase` again")

    def _collect(self) -> None:
        from sqlalchemy import create_engine, text
        from sqlalchemy.pool import NullPool
        self._gc(self._backend)
        engine = create_engine(self._backend, poolclass=NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True)
        with engine.connect() as connection:
            connection.execute(text("VACUUM"))

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.name)
        return str(found.experiment_id if found is not None else self._client.create_experiment(self.name))


def _files(repository: Any, path: str) -> list[str]:
    """Files under a path, however deep. Some stores go on listing a folder whose last file is gone."""
    found = []
    for entry in repository.list_artifacts(path):
        found += _files(repository, entry.path) if entry.is_dir else [entry.path]
    return found
