"""The schema of the workspace's database, by Alembic: which revision a database has, and bringing
it to this one's.

A database of a later release is refused, never guessed at. Each revision runs in the caller's
transaction, so that a killed upgrade leaves the schema as it was (SQLite and PostgreSQL roll back
changes of tables too).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from s3t_core.errors import StorageError

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0005"
"""The revision of this release."""
VERSION_TABLE = "s3t_schema"


def revision_of(connection: Connection) -> str:
    """The database's revision, "" for none: an empty one, or one made before there were
    revisions. Raises StorageError where the table says several, or nothing that can be one."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return ""
    asked = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608
    found = connection.execute(asked).scalars().all()
    if len(found) > 1 or not all(found):
        raise StorageError(
            f"expected one revision in the table {VERSION_TABLE}, got {len(found)}, or an empty "
            "one; restore the database from its backup, or find out who wrote to it"
        )
    return str(found[0]) if found else ""


def upgrade(connection: Connection) -> None:
    """To HEAD, inside the caller's transaction. Raises StorageError for a database of a later
    release."""
    from alembic import command
    from alembic.util import CommandError

    try:
        command.upgrade(_config(connection), "head")
    except CommandError:
        raise StorageError(
            f"expected a database of revision {HEAD} or earlier, got {revision_of(connection)!r}, "
            "made by a later release; install that release"
        ) from None


def downgrade(connection: Connection, revision: str) -> None:
    """To an earlier revision; "base" takes every table out."""
    from alembic import command

    command.downgrade(_config(connection), revision)


def _config(connection: Connection) -> "Config":
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config
