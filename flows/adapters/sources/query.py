"""What a query of a PostgreSQL database answers, brought as a Parquet file of typed columns.

The cells come as values, and are spelt here, as those of any columnar file: an id is the same
person's whatever TimeZone, DateStyle or other setting of the database, its role or this process's
environment (PGTZ, PGOPTIONS) writes a value by. What has no type of ours comes as PostgreSQL writes
it, under settings that are pinned for the session.

What the query itself means is also settled: every setting that an account may make, and that says
how clients are served, has the value that PostgreSQL is built with, whatever role, database or
environment (PGOPTIONS) say. Tables outside the schema `public` are named with theirs.

The query is that of a cursor, which is one SELECT or VALUES, in a transaction that may only read.
"""

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from s3t_core.errors import DataError, StorageError, WorkspaceError

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

_PINNED = {
    "DateStyle": "ISO, YMD",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "standard_conforming_strings": "on",
    "xmlbinary": "base64",
}
"""Settings by which PostgreSQL writes values, and reads the text of a query."""
_AS_BUILT = """
    SELECT set_config(name, boot_val, false) FROM pg_settings
    WHERE context = 'user' AND setting IS DISTINCT FROM boot_val
        AND (category LIKE 'Client Connection Defaults%' OR category LIKE 'Version and Platform%')
        AND name NOT IN ('client_encoding', 'TimeZone')
        AND name !~ '^(default_)?transaction_|timeout'
"""
"""How a query is understood, as PostgreSQL is built to: other settings of these kinds are how long
things may take, and what is pinned below."""
_ROWS = 10_000
_DIGITS = 76
"""Of a decimal256 (Arrow)."""
_FRACTION = 38
"""Of a numeric column without a scale, so many digits may be behind the point."""
UNCHANGED = "; nothing was changed"


@dataclass(frozen=True)
class _Column:
    """A column: its name, and its type in the file."""

    name: str
    kind: "pa.DataType"


def write_answer(source: str, query: str, path: Path) -> None:
    """Write what `query` answers at the database `source` (a URL, as libpq reads it), as it is at
    one moment. Raises StorageError where the database does not answer, DataError for a query that
    is not one statement that reads, and for values that no file can hold."""
    try:
        import psycopg
    except ImportError:
        raise WorkspaceError(
            "expected the package psycopg for a postgresql:// source, got none; install "
            "s3t[postgresql]"
        ) from None
    try:
        with _connected(source) as connection, connection.cursor("answer") as cursor:
            cursor.execute(query.encode())
            columns = _columns(cursor.description or ())
            _write(path, columns, lambda: cursor.fetchmany(_ROWS))
    except psycopg.OperationalError as error:
        raise StorageError(
            f"expected the database of the source to answer, got {type(error).__name__}; see that "
            "it can be reached, and PGPASSFILE or PGPASSWORD" + UNCHANGED
        ) from None
    except psycopg.Error as error:
        raise DataError(
            "expected [data] query to be one statement that reads, and values that a file can "
            f"hold, got {type(error).__name__}; try it at the database, and cast to text what is "
            "infinite or beyond the year 9999" + UNCHANGED
        ) from None


def _connected(source: str) -> "psycopg.Connection[tuple[object, ...]]":
    """A connection under the pinned settings, whose transactions may only read."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.types.string import TextLoader

    elsewhere = {} if "hostaddr" in conninfo_to_dict(source) else {"hostaddr": ""}  # PGHOSTADDR
    connection = psycopg.connect(
        source, connect_timeout=30, client_encoding="utf8", options="", **elsewhere
    )
    try:
        connection.execute(_AS_BUILT)
        for name, value in _PINNED.items():  # after what environment, role and database say
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        connection.commit()
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        known = _types()
        for each in connection.adapters.types:
            for oid in {each.oid, each.array_oid} - {0, *known}:
                connection.adapters.register_loader(oid, TextLoader)
    except BaseException:
        connection.close()
        raise
    return connection


def _write(
    path: Path, columns: list[_Column], more: Callable[[], list[tuple[object, ...]]]
) -> None:
    """`more`: the next rows, none behind the last."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field(c.name, c.kind) for c in columns])
    with pq.ParquetWriter(path, schema) as file:
        while rows := more():
            cells = zip(*rows, strict=True)
            arrays = [_array(c, given) for c, given in zip(columns, cells, strict=True)]
            file.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def _array(column: _Column, cells: Iterable[object]) -> "pa.Array":
    """Raises DataError for a value that the type of its column cannot hold."""
    import pyarrow as pa

    try:
        return pa.array([_cell(value, column.kind) for value in cells], column.kind)
    except (pa.ArrowException, ArithmeticError, ValueError, TypeError):
        raise DataError(
            f"expected values of the type {column.kind} in column {column.name!r} of [data] "
            "query, got one that it cannot hold; cast the column to text in the query" + UNCHANGED
        ) from None


def _columns(description: Sequence["psycopg.Column"]) -> list[_Column]:
    import pyarrow as pa

    found, known = [], _types()
    for each in description:
        kind = known.get(each.type_code, pa.string())
        if each.type_code == _NUMERIC and each.precision is not None and each.scale is not None:
            kind = _decimal(each.precision, max(each.scale, 0))
        found.append(_Column(each.name, kind))
    return found


def _decimal(precision: int, scale: int) -> "pa.DataType":
    """Raises DataError for more digits than a file can hold."""
    import pyarrow as pa

    if precision > _DIGITS or scale > precision:
        raise DataError(
            f"expected numbers of at most {_DIGITS} digits in [data] query, got a column of "
            f"numeric({precision}, {scale}); cast it to text in the query" + UNCHANGED
        )
    return pa.decimal256(precision, scale)


_NUMERIC = 1700


def _types() -> "dict[int, pa.DataType]":
    """By PostgreSQL's number of a type (pg_type.dat), which are for ever: its type in a file."""
    import pyarrow as pa

    whole, text = pa.int64(), pa.string()
    return {
        16: pa.bool_(),  # bool
        17: pa.binary(),  # bytea
        20: whole,  # int8
        21: whole,  # int2
        23: whole,  # int4
        26: whole,  # oid
        700: pa.float32(),  # float4
        701: pa.float64(),  # float8
        _NUMERIC: pa.decimal256(_DIGITS, _FRACTION),
        1005: pa.list_(whole),  # int2[]
        1007: pa.list_(whole),  # int4[]
        1009: pa.list_(text),  # text[]
        1015: pa.list_(text),  # varchar[]
        1016: pa.list_(whole),  # int8[]
        1082: pa.date32(),  # date
        1083: pa.time64("us"),  # time
        1114: pa.timestamp("us"),  # timestamp
        1184: pa.timestamp("us", tz="UTC"),  # timestamptz
        2950: text,  # uuid
    }


def _cell(value: object, kind: "pa.DataType") -> object:
    """A value as its column takes it."""
    import pyarrow as pa

    if value is None:
        return None
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.UTC)
    return str(value) if kind == pa.string() else value
