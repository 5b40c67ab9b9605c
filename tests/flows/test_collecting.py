"""What MLflow's own collection of garbage may reach is what this workspace made; and what it was to
remove is gone, whoever wrote to its database meanwhile."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from flows.prefect_flows.erase import erase
from flows.use_cases.taking import take_requests
from flows.workspace.workspace import Workspace
from s3t_core.errors import StorageError
from tests.flows.conftest import CANARY
from tests.flows.prepared import forget_connections

pytestmark = pytest.mark.slow
PLACES = {
    "a run of a release": "UPDATE runs SET artifact_uri = ? WHERE name LIKE 'release %'",
    "runs of stages": "UPDATE runs SET artifact_uri = ? WHERE name <> 'train'",
    "a logged model": "UPDATE logged_models SET artifact_location = ?",
}
"""What names where files lie, of what an erasure destroys."""


@pytest.fixture
def place(trained: Callable[..., Workspace]) -> Workspace:
    return trained(canary=True)


@contextmanager
def _database(place: Workspace) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(place.state_dir / "mlflow.db")) as connection, connection:
        yield connection
    forget_connections()


@pytest.mark.long_but_first(every=3)
@pytest.mark.parametrize("row", PLACES)
@pytest.mark.parametrize("whose", ["a stranger's", "the workspace's keys"])
def test_an_erasure_removes_nothing_that_a_row_of_the_registry_merely_names(
    place: Workspace, tmp_path: Path, row: str, whose: str
) -> None:
    theirs = tmp_path / "thesis" if whose == "a stranger's" else place.keys_dir
    theirs.mkdir(exist_ok=True)
    (theirs / "chapter.txt").write_text("years of work")
    there = {path.name for path in theirs.iterdir()}
    with _database(place) as connection:
        assert connection.execute(PLACES[row], (theirs.as_uri(),)).rowcount
    take_requests(place, [CANARY])
    try:
        erase(str(place.root))
    finally:
        assert {path.name for path in theirs.iterdir()} == there


KEPT = {
    "runs": ["runs"],
    "logged models": ["logged_models"],
    "runs, and all that is told of them": [
        "runs",
        "metrics",
        "latest_metrics",
        "params",
        "tags",
    ],
}
"""Tables whose rows a trigger keeps, one beside the other."""


@pytest.mark.long_but_first
@pytest.mark.parametrize("what", KEPT)
def test_what_stays_in_the_registrys_database_keeps_the_certificate(
    place: Workspace, what: str
) -> None:
    """Each removal is swallowed, without an error; once that ends, the erasure goes on."""
    with _database(place) as connection:
        for table in KEPT[what]:
            connection.execute(
                f"CREATE TRIGGER keeps_{table} BEFORE DELETE ON {table} BEGIN "
                "SELECT RAISE(IGNORE); END"
            )
    take_requests(place, [CANARY])
    with pytest.raises(StorageError, match="gone from the registry's database"):
        erase(str(place.root))
    assert not place.ledger.state().certified
    with _database(place) as connection:
        for table in KEPT[what]:
            connection.execute(f"DROP TRIGGER keeps_{table}")
    assert len(erase(str(place.root))["certificates"]) == 1


def test_a_place_that_cannot_be_put_right_is_not_emptied(place: Workspace, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    with _database(place) as connection:
        connection.execute(PLACES["a run of a release"], ((tmp_path / "thesis").as_uri(),))
        connection.execute(
            "CREATE TRIGGER keeps BEFORE UPDATE OF artifact_uri ON runs BEGIN "
            "SELECT RAISE(IGNORE); END"
        )
    take_requests(place, [CANARY])
    with pytest.raises(StorageError, match="stay as they are"):
        erase(str(place.root))
    assert (tmp_path / "thesis").is_dir() and not place.ledger.state().certified
