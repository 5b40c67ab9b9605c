"""The tables of the database of requests and ledger (SQLAlchemy), as flows/migrations makes them,
and that what stands in them is what was written. Rows hold keyed digests and times, and, in entries
of the ledger, what somebody typed as a reason or a name, and paths.
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    select,
)

from s3t_core.errors import LedgerError

METADATA = MetaData()
LEDGER = Table(
    "ledger",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("seal", LargeBinary, nullable=False),
)
REQUESTS = Table(
    "requests",
    METADATA,
    Column("seq", Integer, primary_key=True),
    Column("id", String, unique=True, nullable=False),
    Column("subject", String, nullable=False),
    Column("record", String, nullable=False),
    Column("suppression", String, nullable=False, index=True),
    Column("commitment", String, nullable=False),
    Column("salt", String, nullable=False),
    Column("received", String, nullable=False),
    Column("due", String, nullable=False),
    Column("certificate", String, nullable=False, default=""),
)
SUPPRESSION = Table(
    "suppression",
    METADATA,
    Column("digest", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("request", String, nullable=False),
    Column("since", String, nullable=False),
)
LEASE = Table(
    "lease",
    METADATA,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("place", String, nullable=False),
    Column("beat", Integer, nullable=False),
)
WRITER = Table("writer", METADATA, Column("only", Integer, primary_key=True, autoincrement=False))
"""One row: whoever writes holds it, on PostgreSQL, and an account that may only read cannot."""
CALLBACKS = Table(
    "callbacks",
    METADATA,
    Column("target", String, primary_key=True),
    Column("entry", Integer, nullable=False),
)
"""Up to which entry of the ledger each target's messages are in the outbox."""
OUTBOX = Table(
    "outbox",
    METADATA,
    Column("target", String, primary_key=True),
    Column("message", String, primary_key=True),
    Column("entry", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due", String, nullable=False),
    Column("state", String, nullable=False),
    Column("answer", String, nullable=False),
)
SEALED_IDS = Table(
    "sealed_ids",
    METADATA,
    Column("id", String, primary_key=True),
    Column("request", String, nullable=False, index=True),
    Column("host", String, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)
"""Ids as given of requests that a host apart took, sealed to who erases (adapters.sealed_ids)."""
APART = (LEASE, WRITER)
"""Of the database itself, not of the workspace: they do not move with it."""

_TYPES = {
    table.name: tuple(c.type.python_type for c in table.c) for table in METADATA.sorted_tables
}
AnyRow = Row[tuple[object, ...]]
CHUNK = 1000
"""Rows at a time, where there may be many."""


def check_types(row: AnyRow, table: Table) -> None:
    """That a row has the types of our columns: SQLite keeps what it is given, and a table may be
    made anew. Raises LedgerError."""
    if tuple(map(type, row)) != _TYPES[table.name]:
        wrong = [
            c.name
            for c, value in zip(table.c, row, strict=True)
            if type(value) is not c.type.python_type
        ]
        raise LedgerError(
            f"expected table {table.name} as it was written, got another type in "
            f"{', '.join(wrong)}; restore the database from its backup and find out who wrote to it"
        )


def check_written(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]
) -> None:
    """That rows which were just written to a table of requests stand in it, whatever else it may do
    with them: refuse a duplicate in silence, keep other values. Raises LedgerError."""
    key = next(iter(rows[0])) if rows else ""
    found: dict[object, dict[str, object]] = {}
    for begin in range(0, len(rows), CHUNK):
        names = [row[key] for row in rows[begin : begin + CHUNK]]
        for there in connection.execute(select(table).where(table.c[key].in_(names))):
            found[there._mapping[key]] = dict(there._mapping)
    if any(
        found.get(row[key], {}).get(name) != value for row in rows for name, value in row.items()
    ):
        raise LedgerError(
            f"expected table {table.name} to hold the rows that were just written to it, got "
            "others or none: the database does something else with them; nothing was changed. Find "
            "out who made it do so (a trigger, a rule, a constraint), and take that away"
        )
