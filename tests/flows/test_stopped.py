"""What the system stands on fails while it erases: a clear error, what is done stays, the next run
ends it."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.workspace.workspace import Workspace
from s3t_core.errors import WorkspaceError
from tests.flows.prepared import Prepared

pytestmark = pytest.mark.slow


@contextmanager
def _database_refuses(place: Workspace) -> Iterator[None]:
    """Its journal cannot be made."""
    journal = place.state_dir / "s3t.db-journal"
    journal.mkdir()
    yield
    journal.rmdir()


@contextmanager
def _registry_down(place: Workspace) -> Iterator[None]:
    """Somebody holds its database and does not let go."""
    holder = sqlite3.connect(place.state_dir / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    yield
    holder.execute("ROLLBACK")
    holder.close()


@contextmanager
def _remote_down(place: Workspace) -> Iterator[None]:
    """Where it was, there is no directory."""
    place.remote.rename(place.remote.with_name("away"))
    place.remote.write_text("unplugged")
    yield
    place.remote.unlink()
    place.remote.with_name("away").rename(place.remote)


@contextmanager
def _index_locked(place: Workspace) -> Iterator[None]:
    """Another git works in the repository, or died in it."""
    lock = place.root / ".git" / "index.lock"
    lock.touch()
    yield
    lock.unlink()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (_database_refuses, "database refused"),
        (_registry_down, "registry refused"),
        (_remote_down, "remote"),
        (_index_locked, "index.lock"),
    ],
)
def test_what_is_down_stops_the_erasure_and_the_next_run_finishes(
    prepared: Prepared, fault: object, said: str
) -> None:
    place = prepared.fresh()
    with fault(place):  # type: ignore[operator]
        told = prepared.erase()
    assert told["error"] == "StorageError" and said in told["message"], told
    assert "Traceback" not in told["stderr"]
    prepared.finished()
    assert prepared.left() == []


@pytest.mark.parametrize("most_bytes", [0, 4_096, 60_000, 400_000])
def test_a_full_disk_stops_the_erasure_and_the_next_run_finishes(
    prepared: Prepared, most_bytes: int
) -> None:
    prepared.fresh()
    told = prepared.erase(str(most_bytes))
    assert told["error"] in ("StorageError", ""), told  # "": nothing larger was written
    assert told["error"] or most_bytes > 300_000
    prepared.finished()
    assert prepared.left() == []


def test_a_registry_that_is_gone_is_not_replaced_by_an_empty_one(prepared: Prepared) -> None:
    place = prepared.fresh()
    shutil.move(place.state_dir / "mlflow.db", place.root.parent / "mlflow.db")
    told = prepared.erase()
    assert told["error"] == WorkspaceError.__name__ and "restore" in told["message"]
    shutil.move(place.root.parent / "mlflow.db", place.state_dir / "mlflow.db")
    prepared.finished()


def test_a_prepared_workspace_ends_the_same_way_every_time(
    prepared: Prepared, tmp_path: Path
) -> None:
    prepared.fresh()
    first = prepared.finished()
    prepared.fresh()
    assert prepared.finished() == first
