"""The database's schema: every revision up and down, and never a guess at a later one."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from flows import migrations
from flows.adapters.database import Database, SqlLedger
from flows.adapters.tables import METADATA
from s3t_core.errors import StorageError

FIRST = {"type": "workspace", "time": "2026-01-01T00:00:00Z", "key_check": "k"}


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database("sqlite:///d.db", tmp_path)


def test_the_revisions_make_the_tables_that_the_code_works_with(database: Database) -> None:
    database.create([FIRST])
    with database.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": migrations.VERSION_TABLE}
        )
        assert compare_metadata(context, METADATA) == []
        assert migrations.revision_of(connection) == migrations.HEAD


def test_the_last_script_is_the_head_that_the_code_names() -> None:
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_heads() == [migrations.HEAD]


def test_a_database_of_a_build_without_revisions_is_taken_over_with_all_it_holds(
    database: Database,
) -> None:
    METADATA.create_all(
        database.engine, tables=[t for n, t in METADATA.tables.items() if n != "writer"]
    )
    SqlLedger(database).append(FIRST)
    assert database.exists()
    database.complete()
    database.complete()
    assert SqlLedger(database).events() == [FIRST]
    with database.reading() as connection:
        assert migrations.revision_of(connection) == migrations.HEAD
        assert connection.execute(text("SELECT only FROM writer")).scalars().all() == [1]
        assert not inspect(connection).has_table("idempotency")


def test_down_to_nothing_and_up_again(database: Database) -> None:
    database.create([FIRST])
    with database.transaction() as connection:
        migrations.downgrade(connection, "base")
    with database.reading() as connection:
        assert inspect(connection).get_table_names() == [migrations.VERSION_TABLE]
    assert not database.exists()
    database.create([FIRST])
    assert SqlLedger(database).events() == [FIRST]


def test_a_database_of_a_later_release_is_refused_and_stays_as_it_is(database: Database) -> None:
    database.create([FIRST])
    with database.transaction() as connection:
        connection.execute(text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'"))  # noqa: S608
    with pytest.raises(StorageError, match="made by a later release"):
        database.complete()
    assert SqlLedger(database).events() == [FIRST]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE {} SET version_num = ''",
        "INSERT INTO {} VALUES ('0001')",
        "INSERT INTO {} VALUES ('')",
    ],
)
def test_a_revision_that_is_none_is_told(database: Database, change: str) -> None:
    database.create([FIRST])
    with database.transaction() as connection:
        connection.execute(text(change.format(migrations.VERSION_TABLE)))
    with pytest.raises(StorageError, match="expected one revision"):
        database.complete()


def test_an_upgrade_that_is_cut_leaves_the_schema_as_it_was(database: Database) -> None:
    database.complete()
    with database.transaction() as connection:
        migrations.downgrade(connection, "base")
    with pytest.raises(RuntimeError, match="cut"), database.transaction() as connection:
        migrations.upgrade(connection)
        raise RuntimeError("cut")
    with database.reading() as connection:
        assert migrations.revision_of(connection) == "" and not inspect(connection).has_table(
            "ledger"
        )
