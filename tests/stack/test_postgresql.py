"""The workspace's database on a real PostgreSQL: what holds on SQLite holds here, also between
processes and kills."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from flows import migrations
from flows.adapters.database import Database, SqlLedger
from flows.adapters.lease import Lease
from flows.adapters.tables import METADATA
from flows.use_cases.requests import list_requests
from flows.use_cases.taking import take_requests
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from infra.stack import Stack
from s3t_core.config import Config
from s3t_core.errors import Busy, StorageError
from tests.stack.conftest import ROOT, up

FIRST = {"type": "workspace", "time": "2026-01-01T00:00:00Z", "key_check": "k"}
HOLD = {
    "type": "hold",
    "state": "set",
    "time": "2026-01-01T00:00:00Z",
    "subject": "s",
    "id_rule": [],
}
APPENDER = """
import sys
from pathlib import Path
from urllib.parse import urlsplit
from flows.adapters.database import Database, SqlLedger
ledger = SqlLedger(Database(sys.argv[1], Path(".")))
for n in range(int(sys.argv[3])):
    ledger.append({"type": "hold", "state": "set", "time": "2026-01-01T00:00:00Z", "id_rule": [],
                   "subject": f"{sys.argv[2]}-{n}"})
"""


def test_the_schema_is_what_the_code_works_with_and_goes_up_and_down(
    database: str, tmp_path: Path
) -> None:
    made = Database(database, tmp_path)
    assert not made.exists()
    made.create([FIRST])
    with made.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": migrations.VERSION_TABLE}
        )
        assert compare_metadata(context, METADATA) == []
    with made.transaction() as connection:
        migrations.downgrade(connection, "base")
    assert not made.exists()
    made.create([FIRST])
    assert SqlLedger(made).events() == [FIRST]


def test_processes_that_append_at_once_make_one_ledger_without_gaps(
    database: str, tmp_path: Path
) -> None:
    Database(database, tmp_path).create([FIRST])
    running = [
        subprocess.Popen([sys.executable, "-c", APPENDER, database, str(i), "25"], cwd=ROOT)
        for i in range(4)
    ]
    assert [p.wait(120) for p in running] == [0] * 4
    events = SqlLedger(
        Database(database, tmp_path)
    ).events()  # every number is there and matches its hash
    assert len(events) == 101
    for i in range(4):
        assert [e["subject"] for e in events[1:] if e["subject"].startswith(f"{i}-")] == [
            f"{i}-{n}" for n in range(25)
        ]


def test_a_write_that_fails_leaves_nothing(database: str, tmp_path: Path) -> None:
    made = Database(database, tmp_path)
    made.create([FIRST])
    with pytest.raises(RuntimeError), made.transaction() as connection:
        connection.execute(text("INSERT INTO suppression VALUES ('d', 'subject', 'r', 't')"))
        raise RuntimeError
    with made.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM suppression")).scalar_one() == 0


def test_one_eraser_across_machines(database: str, tmp_path: Path) -> None:
    made = Database(database, tmp_path)
    made.create([FIRST])
    with Lease(made, "erase", "a machine", 1.5, 0.1).held():
        other = Database(database, tmp_path)
        with (
            pytest.raises(Busy, match="another machine"),
            Lease(other, "erase", "another", 1.5, 0.1).held(),
        ):
            pass
        with (
            Lease(other, "erase", "a machine", 1.5, 0.1).held(),
            pytest.raises(Busy, match="stood still"),
        ):
            SqlLedger(made).append(HOLD)  # it lost the lease to the other
    assert len(SqlLedger(made).events()) == 1


def test_what_was_acknowledged_survives_the_kill_of_the_server_and_what_cannot_be_is_an_error(
    stack: Stack, database: str, tmp_path: Path
) -> None:
    config = Config.model_validate({"database": {"url": database}})
    create_workspace(tmp_path / "w", config)
    place = Workspace(tmp_path / "w")
    asked = [take_requests(place, [f"person {i}"])[0].request_id for i in range(3)]
    stack.kill("postgres")
    with pytest.raises(StorageError, match="see that it is up") as caught:
        take_requests(place, ["person 9"])
    assert "person" not in str(caught.value)
    up(stack)
    assert [r["id"] for r in list_requests(Workspace(tmp_path / "w"))] == asked
    assert len(take_requests(Workspace(tmp_path / "w"), ["person 9"])) == 1


def test_a_database_without_its_keys_is_never_taken_over(database: str, tmp_path: Path) -> None:
    config = Config.model_validate({"database": {"url": database}})
    create_workspace(tmp_path / "w", config)
    with pytest.raises(Exception, match="expected the keys of this workspace"):
        create_workspace(tmp_path / "other", config)


def test_whoever_may_only_ask_can_neither_erase_nor_change_the_ledger(
    stack: Stack, database: str, tmp_path: Path
) -> None:
    name = urlsplit(database).path.strip("/")
    Database(database, tmp_path).create([FIRST])
    stack.make_roles(name)
    clerk, auditor = (
        Database(stack.database(name, user=u), tmp_path) for u in ("clerk", "auditor")
    )
    SqlLedger(clerk).append(HOLD)
    assert len(SqlLedger(auditor).events()) == 2
    for who, statement in (
        (clerk, "DELETE FROM ledger"),
        (clerk, "UPDATE ledger SET leaf = ''"),
        (clerk, "DELETE FROM suppression"),
        (clerk, "DELETE FROM writer"),
        (auditor, "INSERT INTO requests (id) VALUES ('a')"),
    ):
        with (
            pytest.raises(StorageError, match="permission denied"),
            who.transaction() as connection,
        ):
            connection.execute(text(statement))
