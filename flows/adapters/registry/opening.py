"""A registry of a workspace, made of its parts: in the workspace itself, or on a server."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.adapters.registry import MlflowRegistry
from flows.adapters.registry.connection import Connection
from flows.adapters.registry.experiment import ExperimentBook, ExperimentPlace, OwnExperiment
from flows.adapters.registry.files import ModelFiles
from flows.adapters.registry.logged import LoggedModels
from flows.adapters.registry.runs import Runs
from flows.adapters.registry.versions import Versions
from s3t_core.learning.store import StageStore


@dataclass(frozen=True)
class Server:
    """`backend`: the SQLAlchemy URL of an MLflow server's database; `destination`: where it keeps
    artifacts, a bucket's URL or a directory."""

    backend: str
    destination: str


@dataclass(frozen=True)
class RegistrySettings:
    """What a workspace says of its registry. `name`: of experiment and registered model. `owner`:
    the name of the ledger whose versions these are; nobody else's are touched. `artifacts` and
    `temporary`: directories of the workspace. `serving`: what every version says of how it may be
    used (logged.LoggedModels). `server`: None for a database of this machine."""

    tracking_uri: str
    name: str
    owner: str
    artifacts: Path
    temporary: Path
    serving: Mapping[str, float | str]
    server: Server | None


def open_registry(
    settings: RegistrySettings,
    book: ExperimentBook,
    store: StageStore,
) -> MlflowRegistry:
    """The registry. `book`: what the ledger knows of the experiments there. Raises StorageError."""
    connection = Connection(settings.tracking_uri, settings.name)
    versions = Versions(connection)

    def own_at(place: ExperimentPlace) -> OwnExperiment:
        return OwnExperiment(
            client=connection.client,
            name=settings.name,
            owner=settings.owner,
            book=book,
            place=place,
            others=lambda: bool(versions.all()),
        )

    files: ModelFiles
    if settings.server is None:
        from flows.adapters.registry.workspace_files import WorkspaceFiles, WorkspacePlace

        own = own_at(WorkspacePlace(settings.artifacts))
        runs = Runs(connection, own, versions)
        files = WorkspaceFiles(
            uri=settings.tracking_uri,
            artifacts=settings.artifacts,
            store=store,
        )
    else:
        from flows.adapters.registry.server import ServerFiles, ServerPlace

        place = ServerPlace(settings.server.destination, settings.name)
        own = own_at(place)
        runs = Runs(connection, own, versions)
        files = ServerFiles(
            connection=connection,
            own=own,
            place=place,
            runs=runs,
            store=store,
            backend=settings.server.backend,
        )
    logged = LoggedModels(
        connection=connection,
        own=own,
        files=files,
        serving=settings.serving,
        temporary=settings.temporary,
    )
    return MlflowRegistry(
        connection=connection,
        own=own,
        versions=versions,
        runs=runs,
        files=files,
        logged=logged,
    )
