"""The files of versions in a directory of the workspace, beside a database of this machine.

The stage files that answer are second names of the store's files where both lie in one file
system: MLflow would copy every one of them, each time.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flows.adapters.registry.collecting import collect_deleted
from flows.adapters.registry.files import (
    STAGE_FILE,
    files_in,
    is_part,
    place_stages,
    remove_compiled,
    stages_by_model,
)
from s3t_core.domain import Release
from s3t_core.erasure.state import VersionRecord
from s3t_core.errors import StorageError, WorkspaceError
from s3t_core.files import remove_file, remove_tree
from s3t_core.learning.store import StageStore
from s3t_core.ports import Published

if TYPE_CHECKING:
    from mlflow.entities import Experiment


class WorkspacePlace:
    """A directory of this machine. Fills the protocol `ExperimentPlace`."""

    def __init__(self, artifacts: Path) -> None:
        self._artifacts = artifacts

    def new_location(self) -> str:
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


class WorkspaceFiles:
    """Files of versions in the directory `artifacts`, rows in the SQLite database `uri`. Fills the
    protocol `ModelFiles`, whose docstrings hold here."""

    def __init__(
        self,
        uri: str,
        artifacts: Path,
        store: StageStore,
    ) -> None:
        self._uri, self._artifacts, self._store = uri, artifacts, store

    def places(self) -> list[str]:
        """None: they lie in the workspace."""
        return []

    def location(self) -> str:
        """The directory's URL."""
        return self._artifacts.as_uri()

    def of(self, model_id: str) -> dict[str, bytes]:
        """By their place in the logged model."""
        return files_in(self._folder(model_id)) if model_id else {}

    @contextlib.contextmanager
    def fetched(self, model_id: str, loading: Path) -> Iterator[Path]:  # noqa: ARG002  # they are here
        """The very directory that MLflow knows."""
        yield self._folder(model_id)

    def remove_compiled(self, model_id: str) -> None:
        """Under the logged model's directory."""
        remove_compiled(self._folder(model_id))

    def add_before(self, folder: Path, release: Release) -> None:
        """Nothing."""

    def add_after(self, model_id: str, release: Release) -> None:
        """The stage files of the replicas that answer, beside the release document."""
        document = next(self._folder(model_id).glob("**/release.json"), None)
        if document is None:
            raise StorageError(
                "expected the release document among the files of a logged model, got none; "
                "restore .s3t/mlartifacts from its backup, then run the command again"
            )
        place_stages(self._store, document.parent, release)

    def check_reach(self, published: Published) -> None:
        """Here an erasure does."""

    def remove_leftovers(self, keep: Iterable[VersionRecord]) -> bool:
        """MLflow's deletions leave empty folders, and would leave bytes where they failed half-way;
        a restore of files alone brings back what no database names; and whoever reaches the
        registry logs there what he likes."""
        kept = stages_by_model(keep)
        models = self._artifacts / "models"
        doomed = [p for p in self._artifacts.glob("*") if p.name != models.name]
        doomed += [p for p in models.glob("*") if p.name not in kept]
        doomed += [
            p
            for model in kept
            for p in (models / model).rglob(f"*{STAGE_FILE}")
            if not is_part(p.relative_to(self._artifacts).as_posix(), kept)
        ]
        for path in doomed:
            remove_tree(path) if path.is_dir() and not path.is_symlink() else remove_file(path)
        return bool(doomed)

    def collect(self, models: list[str]) -> None:  # noqa: ARG002  # gc finds them
        """`mlflow gc`, then overwrite the database's free pages."""
        collect_deleted(self._uri, self._uri, self.location())
        path = self._uri.removeprefix("sqlite:///")
        connection = sqlite3.connect(
            path,
            timeout=30,
            isolation_level=None,
        )
        try:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("VACUUM")
        finally:
            connection.close()

    def _folder(self, model_id: str) -> Path:
        return self._artifacts / "models" / model_id
