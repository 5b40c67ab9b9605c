"""What the system stands on fails while it erases: a clear error, what is done stays, the next run
ends it."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from flows.workspace.workspace import Workspace
from s3t_core.erasure.executor import _ACTIONS, Eraser
from s3t_core.errors import LedgerError, WorkspaceError
from tests.crash.driver import _erase
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


@pytest.mark.long_but_first
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


@pytest.mark.long_but_first
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


@pytest.mark.long
def test_a_registry_that_is_gone_is_not_replaced_by_an_empty_one(prepared: Prepared) -> None:
    place = prepared.fresh()
    shutil.move(place.state_dir / "mlflow.db", place.root.parent / "mlflow.db")
    told = prepared.erase()
    assert told["error"] == WorkspaceError.__name__ and "restore" in told["message"]
    shutil.move(place.root.parent / "mlflow.db", place.state_dir / "mlflow.db")
    prepared.finished()


@pytest.mark.long
def test_a_prepared_workspace_ends_the_same_way_every_time(
    prepared: Prepared, tmp_path: Path
) -> None:
    prepared.fresh()
    first = prepared.finished()
    prepared.fresh()
    assert prepared.finished() == first


@pytest.mark.long_but_first
@pytest.mark.parametrize("column", ["subject", "commitment"])
@pytest.mark.parametrize("step", ["plan", "cut over", "rewrite", "destroy", "scan", "certify"])
def test_a_request_that_is_another_ones_for_a_moment_gets_no_certificate(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, step: str, column: str
) -> None:
    """Whoever may write to its table, and to no key, changes a row when the start of the command
    has held it against the ledger, and puts it back when the command has ended."""
    place = prepared.fresh()
    work = _ACTIONS.get(step, Eraser._planned)
    first = "WHERE seq = (SELECT MIN(seq) FROM requests WHERE certificate = '')"
    with closing(sqlite3.connect(place.state_dir / "s3t.db")) as read:
        whole = read.execute(f"SELECT {column} FROM requests {first}").fetchone()[0]  # noqa: S608

    def write(value: str) -> None:
        with closing(sqlite3.connect(place.state_dir / "s3t.db", isolation_level=None)) as database:
            told = f"UPDATE requests SET {column} = ? {first}"  # noqa: S608
            assert database.execute(told, (value,)).rowcount == 1

    def swapped(*given: object) -> object:
        write("0" * len(whole))
        return work(*given)

    with monkeypatch.context() as patched:
        if step == "plan":
            patched.setattr(Eraser, "_planned", swapped)
        else:
            patched.setitem(_ACTIONS, step, swapped)
        with pytest.raises(LedgerError, match="request book"):
            _erase(place.root)
    write(whole)
    assert not Workspace(place.root).ledger.state().certified
    prepared.finished()
    assert prepared.left() == []
