"""Decoders of tables: Parquet, Arrow, SQLite, and safetensors, whose header is one."""

import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from s3t_core.erasure.decoding.parts import (
    CHUNK_BYTES,
    Cell,
    Kept,
    Mistaken,
    Part,
    Rows,
    Source,
    Undecodable,
    bytes_of,
)

_PAGE = re.compile(rb"\x15[\0\x04\x06]\x15")
"""How the header of a page of Parquet begins: its type, then a size."""
_BATCH_ROWS = 2048
_BATCH_CELLS = 2**20


def decode_safetensors(source: Source) -> Iterator[Part]:
    """The header, which is JSON; what follows is numbers, searched as they are, and as many as the header says. What
    only begins like such a file and has no name of one is none."""
    named = source.path is not None and source.path.suffix == ".safetensors"
    size = int.from_bytes(source.file.read(8), "little")
    header = source.file.read(size)
    try:
        tensors = {name: told for name, told in json.loads(header).items() if name != "__metadata__"}
        places = sorted(tuple(told["data_offsets"]) for told in tensors.values())
        ends = [0, *(end for _, end in places)]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise (Undecodable if named else Mistaken)("safetensors: cut, or no header") from None
    yield header
    if [begin for begin, _ in places] != ends[:-1] or source.file.seek(0, os.SEEK_END) != 8 + size + ends[-1]:
        raise Undecodable("safetensors: cut, or bytes behind its tensors")


def decode_parquet(source: Source) -> Iterator[Part]:
    """By row group, whatever its columns; what stands in the footer beside them too."""
    with pq.ParquetFile(Kept(source.file)) as file:
        told = file.metadata.metadata or {}
        yield b"\n".join([*told, *told.values(), *_told_by(file.schema_arrow)])
        _check_chunks(source, file.metadata)
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            yield from _batch(batch)


def _check_chunks(source: Source, metadata: Any) -> None:
    """That no page stands where the footer names none: a row group that was taken out of it. What else may stand there
    (indexes, bloom filters, zeros) begins otherwise than the header of a page."""
    chunks = [metadata.row_group(g).column(c) for g in range(metadata.num_row_groups)
              for c in range(metadata.num_columns)]
    places = sorted((min(c.data_page_offset, c.dictionary_page_offset or c.data_page_offset), c.total_compressed_size)
                    for c in chunks)
    end = 4
    for begin, size in [*places, (source.file.seek(0, os.SEEK_END) - 8 - metadata.serialized_size, 0)]:
        if begin > end:
            source.file.seek(end)
            if _PAGE.match(source.file.read(3)):
                raise Undecodable("Parquet: pages that its footer does not name")
        end = max(end, begin + size)


def decode_arrow_file(source: Source) -> Iterator[Part]:
    """By record batch."""
    with pa.ipc.open_file(Kept(source.file)) as file:
        yield b"\n".join(_told_by(file.schema))
        for index in range(file.num_record_batches):
            batch, told = file.get_batch_with_custom_metadata(index)
            yield b"\n".join(_pairs(told))
            yield from _batch(batch)


def decode_arrow_stream(source: Source) -> Iterator[Part]:
    """By record batch, to the end of the file."""
    with pa.ipc.open_stream(Kept(source.file)) as file:
        yield b"\n".join(_told_by(file.schema))
        for batch, told in file.iter_batches_with_custom_metadata():
            yield b"\n".join(_pairs(told))
            yield from _batch(batch)
    if source.file.read(1):
        raise Undecodable("Arrow: bytes after its end")


def _told_by(schema: pa.Schema) -> list[bytes]:
    """What a schema says: the names of its columns and of what is in them, and what is noted beside them."""
    found, fields = _pairs(schema.metadata), list(schema)
    while fields:
        field = fields.pop()
        found += [field.name.encode("utf-8", "replace"), *_pairs(field.metadata)]
        fields += [field.type.field(i) for i in range(field.type.num_fields)]
    return found


def _pairs(told: Any) -> list[bytes]:
    """Keys and values of what Arrow calls metadata."""
    return [text for pair in (told.items() if told else ()) for text in pair]


def _batch(batch: pa.RecordBatch) -> Iterator[Part]:
    rows = Rows(batch)
    yield rows
    yield from map(Cell, rows.binaries())


class _Text(bytes):
    """A cell that SQLite says is text: it is not looked at as a file."""


def decode_sqlite(source: Source) -> Iterator[Part]:
    """Every cell of every table, through SQLite itself, which reads what is in the write-ahead log as well. Where it
    may not (a journal that a dead process left must be rolled back first), it does so on a copy."""
    with tempfile.TemporaryDirectory(dir=source.temporary, prefix="scan-") as folder:
        path = source.path or _copy(source, Path(folder))
        _check_pages(path)
        try:
            yield from _tables(f"file:{quote(str(path))}?mode=ro")
        except sqlite3.OperationalError as error:
            if source.path is None or "locked" in str(error):
                raise
            yield from _tables(f"file:{quote(str(_copy(source, Path(folder))))}")


def decode_beside_sqlite(source: Source) -> Iterator[Part]:
    """A write-ahead log or a journal: its pages are read with the database beside it, or by nobody."""
    database = re.fullmatch(r"(.*)-(wal|journal)", str(source.path or ""))
    if database is None or not Path(database[1]).is_file():
        raise Undecodable("SQLite: a log without its database")
    yield b""


def _copy(source: Source, folder: Path) -> Path:
    """The database and what lies beside it, in `folder`."""
    path = folder / "copy.db"
    source.file.seek(0)
    with path.open("wb") as file:
        shutil.copyfileobj(source.file, file, CHUNK_BYTES)
    for suffix in ("-journal", "-wal") if source.path else ():
        beside = Path(f"{source.path}{suffix}")
        if beside.is_file():
            shutil.copyfile(beside, folder / f"copy.db{suffix}")
    return path


def _check_pages(path: Path) -> None:
    """That the file is a number of whole pages: SQLite itself reads a part of the last one as if it were all."""
    with path.open("rb") as file:
        header = file.read(100)
        size = os.fstat(file.fileno()).st_size
    page = int.from_bytes(header[16:18], "big")
    page = 2**16 if page == 1 else page
    if page < 512 or size % page:
        raise Undecodable("SQLite: cut")
    beside = any(Path(f"{path}{suffix}").exists() for suffix in ("-journal", "-wal"))
    if not beside and header[24:28] == header[92:96] and size > int.from_bytes(header[28:32], "big") * page:
        raise Undecodable("SQLite: pages behind its last one")


def _tables(uri: str) -> Iterator[Part]:
    connection = sqlite3.connect(uri, uri=True, timeout=30)
    connection.text_factory = _Text
    try:
        names = [row[0].decode() for row in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0")]
        for name in names:
            rows = connection.execute('SELECT * FROM "' + name.replace('"', '""') + '"')  # noqa: S608
            yield from _cells(rows)
    finally:
        connection.close()


def _cells(rows: Iterator[tuple[Any, ...]]) -> Iterator[Part]:
    waiting: list[bytes] = []
    size = 0
    for row in rows:
        for value in row:
            cell = bytes_of(value)
            waiting.append(cell)
            size += len(cell)
            if isinstance(value, bytes) and not isinstance(value, _Text):
                yield Cell(value)
        if size > _BATCH_CELLS:
            yield b"\n".join(waiting)
            waiting, size = [], 0
    yield b"\n".join(waiting)
