"""One eraser at a time: the lease is lost by the dead and by those who stood still, and by nobody
else."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.adapters.database import Database, SqlLedger
from flows.adapters.lease import CHANGE, Lease, lock_place
from flows.workspace import access
from s3t_core.errors import Busy

pytestmark = pytest.mark.timeout(60)
NOW = "2026-01-01T00:00:00Z"

HOLDER = """
import sys
from pathlib import Path
from flows.adapters.database import Database
from flows.adapters.lease import CHANGE, Lease
with Lease(Database("sqlite:///s3t.db", Path(sys.argv[1])), CHANGE, "another machine", 1.0, 0.1).held():
    print("held", flush=True)
    sys.stdin.read()
"""  # noqa: E501


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database("sqlite:///s3t.db", tmp_path)
    made.create([{"type": "workspace", "time": NOW}])
    return made


@pytest.fixture
def elsewhere(tmp_path: Path, database: Database) -> Callable[[], subprocess.Popen[str]]:
    def begin() -> subprocess.Popen[str]:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        return holder

    return begin


def _mine(database: Database, patience: float = 1.5) -> Lease:
    return Lease(database, CHANGE, "this machine", patience, 0.1)


def test_while_another_machine_erases_a_second_eraser_leaves(
    database: Database, elsewhere: Callable[[], subprocess.Popen[str]]
) -> None:
    holder = elsewhere()
    with pytest.raises(Busy, match="another machine is changing"), _mine(database).held():
        pass
    holder.communicate("")
    with _mine(database).held():  # it ended and left nothing
        pass


def test_whoever_may_wait_gets_the_lease_when_the_other_ends(
    database: Database, elsewhere: Callable[[], subprocess.Popen[str]]
) -> None:
    holder = elsewhere()
    ending = threading.Timer(2, holder.communicate, [""])
    ending.start()
    with _mine(database, 0.8).held(wait_seconds=30):  # beyond the patience: it was seen to live
        ending.join()
    assert holder.returncode == 0


def test_a_killed_holder_loses_the_lease(
    database: Database, elsewhere: Callable[[], subprocess.Popen[str]]
) -> None:
    holder = elsewhere()
    holder.kill()
    holder.wait()
    with _mine(database).held():
        pass


def test_a_holder_that_stood_still_writes_nothing_more(database: Database) -> None:
    ledger, before = SqlLedger(database), SqlLedger(database).head()
    other = Database("sqlite:///s3t.db", database._path.parent)
    still = Lease(database, CHANGE, "another machine", 1.0, beat=1000)
    with still.held() as held, _mine(other, 0.6).held():
        with pytest.raises(Busy, match="another one took over"):
            ledger.append({"type": "settled", "time": NOW, "settings": {}})
        with pytest.raises(Busy, match="another one took over"):
            held.check()
        SqlLedger(other).append({"type": "settled", "time": NOW, "settings": {}})
        assert (
            ledger.events()[-1]["lease"] == other.lease != database.lease
        )  # who wrote it is on the record
    assert ledger.head().size == before.size + 1  # only the new holder's


def test_under_the_same_lock_a_dead_holder_is_known_at_once(database: Database) -> None:
    with Lease(
        database, CHANGE, "this machine", 1000, 1000
    ).held():  # as one killed with its lock let go
        done = threading.Event()

        def take() -> None:
            with _mine(Database("sqlite:///s3t.db", database._path.parent), 1000).held():
                done.set()

        taking = threading.Thread(target=take)
        taking.start()
        assert done.wait(10)
        taking.join()


def test_two_lock_files_are_two_places(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    two.touch()
    (tmp_path / "three").hardlink_to(one)
    assert lock_place(one) == lock_place(tmp_path / "three") != lock_place(two)


def test_every_command_that_changes_waits_for_a_lease_held_elsewhere(tmp_path: Path) -> None:
    """Whatever the file system does with locks."""
    from flows.use_cases.requests import withdraw
    from flows.use_cases.taking import take_requests
    from flows.workspace.creating import create_workspace
    from flows.workspace.workspace import Workspace
    from s3t_core.config import Config

    create_workspace(
        tmp_path,
        Config.model_validate(
            {"data": {"labels": ["a", "b"]}, "database": {"url": "sqlite:///s3t.db"}}
        ),
    )
    place = Workspace(tmp_path)
    request = take_requests(place, ["person 1"])[0]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(Busy, match="another machine"), access.changing(place):
        pass
    ending = threading.Timer(1, holder.communicate, [""])
    ending.start()
    withdraw(place, request.request_id)  # it may wait, and does
    ending.join()
    assert holder.returncode == 0 and place.requests.open_now() == []
