"""The whole door of a small workspace, in this process: guard, limits, application, threads."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from flows.adapters.doors import Door
from flows.api.desk import Desk
from flows.api.server import guarded
from flows.use_cases.tokens import make_token
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config

PORT = 4280
Client = Callable[..., TestClient]


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A workspace without data, whose people also have records."""
    create_workspace(tmp_path / "w", Config.model_validate({"data": {"record": "id"}}))
    return Workspace(tmp_path / "w")


@pytest.fixture
def desk(place: Workspace) -> Iterator[Desk]:
    """Its threads."""
    with closing(Desk(place.root, 30)) as made:
        yield made


@pytest.fixture
def client(place: Workspace, desk: Desk) -> Client:
    """Who asks at the door, with a token of the given roles; without one where none is named."""

    def ask(*roles: str, name: str = "privacy desk", sent: str | None = None) -> TestClient:
        token = make_token(place, name, roles, 1)["token"] if roles else sent
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return TestClient(
            guarded(place, desk, Door(port=PORT), PORT),
            base_url=f"http://127.0.0.1:{PORT}",
            headers=headers,
            raise_server_exceptions=False,
        )

    return ask
