"""Decoders of tables: Parquet, Arrow, SQLite, and safetensors, whose header is one."""

import contextlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from s3t_core.erasure.decoding.carving import Pages, carved
from s3t_core.erasure.decoding.cells import left_in
from s3t_core.erasure.decoding.parts import (
    CHUNK_BYTES,
    IN_THIS_THREAD,
    Cell,
    Kept,
    Mistaken,
    Part,
    Rows,
    Source,
    Undecodable,
    bytes_of,
    cells_of,
)
from s3t_core.erasure.decoding.still import is_sqlite
from s3t_core.erasure.decoding.thrift import Reader, Struct
from s3t_core.files import open_regular

_PAGE_HEADER_BYTES = 2**12
"""More than the header of a page has, but for one with long statistics."""
_DATA_PAGES = (5, 8)
"""Fields of the header of a page with values, of version 1 and 2."""
_BATCH_ROWS = 2048
_ARROW_BEGIN, _ARROW_END = 8, 10
"""Bytes of a file before its stream, and behind its footer."""
_ARROW_BEFORE = 16
"""Bytes that Arrow wants before a footer. It is given the footer alone: it would read a file in
threads of its own."""
_BEGINNING = 256
"""By so many bytes a cell that was deleted is told from those that are there."""
_BATCH_CELLS = 2**20


def decode_safetensors(source: Source) -> Iterator[Part]:
    """The header, which is JSON; what follows is numbers, searched as they are, and as many as the
    header says. What only begins like such a file and has no name of one is none."""
    named = source.path is not None and source.path.suffix == ".safetensors"
    size = int.from_bytes(source.file.read(8), "little")
    header = source.file.read(size)
    try:
        tensors = {
            name: tensor for name, tensor in json.loads(header).items() if name != "__metadata__"
        }
        places = sorted(tuple(tensor["data_offsets"]) for tensor in tensors.values())
        ends = [0, *(end for _, end in places)]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise (Undecodable if named else Mistaken)("safetensors: cut, or no header") from None
    yield header
    if [begin for begin, _ in places] != ends[:-1] or source.file.seek(
        0, os.SEEK_END
    ) != 8 + size + ends[-1]:
        raise Undecodable("safetensors: cut, or bytes behind its tensors")


def decode_parquet(source: Source) -> Iterator[Part]:
    """By row group, whatever its columns; what stands in the footer beside them too."""
    with pq.ParquetFile(Kept(source.file), pre_buffer=False) as file:
        metadata = file.metadata.metadata or {}
        yield cells_of([*metadata, *metadata.values(), *_texts_of_schema(file.schema_arrow)])
        _check_covered(source)
        for batch in file.iter_batches(
            batch_size=_BATCH_ROWS,
            use_threads=False,
        ):
            yield from _batch(batch)


def _check_covered(source: Source) -> None:
    """That the footer accounts for every byte that is not zero: for the pages of each column, one
    after the other and with as many values as the column has, its indexes and its bloom filter. A
    row group that was taken out of the footer would be read by nobody, wherever it stands."""
    size = source.file.seek(0, os.SEEK_END)
    begin = size - 8 - int.from_bytes(_at(source, size - 8, 4), "little")
    footer = Reader(_at(source, begin, size - 8 - begin))
    stated = [
        _stated_places(source, chunk)
        for group in footer.struct().get(4, [])
        for chunk in group.get(1, [])
    ]
    end = 4
    every = [(begin, size - begin), *(p for places in stated for p in places)]
    for place, length in sorted(every):
        _want_zeros(source, end, place)
        end = max(end, place + length)
    _want_zeros(source, begin + footer.at, size - 8)


def _stated_places(source: Source, chunk: Struct) -> list[tuple[int, int]]:
    """(offset, length) of what a column of a row group says is its own: numbers of fields as in
    parquet.thrift."""
    column = chunk[3]
    begin = min(filter(None, (column[9], column.get(11))), default=4)
    _check_pages(source, begin, column[7], column[5])
    indexes = [at for at in (4, 6) if at in chunk]
    places = [(begin, column[7])]
    places += [(chunk[at], chunk[at + 1]) for at in indexes]
    if 14 in column:
        header = Reader(_at(source, column[14], _PAGE_HEADER_BYTES))
        bits = header.struct()[1]
        places.append((column[14], header.at + bits))
    if 1 in chunk:
        raise Undecodable("Parquet: a column in another file")
    return places


def _check_pages(
    source: Source,
    begin: int,
    size: int,
    values: int,
) -> None:
    """That these bytes are pages with so many values: whoever reads a column stops at its last
    value."""
    at, end, found = begin, begin + size, 0
    while begin <= at < end and (found < values or not values):
        header, page = _page_header(source, at, end - at)
        found += sum(page[kind][1] for kind in _DATA_PAGES if kind in page)
        at += header + page[3]
    if at != end or found != values:
        raise Undecodable("Parquet: pages with other values than its footer says")


def _page_header(
    source: Source,
    at: int,
    left: int,
) -> tuple[int, Struct]:
    """How long the header of a page is, and what it says: statistics in it may be long."""
    for size in (_PAGE_HEADER_BYTES, left):
        reader = Reader(_at(source, at, min(size, left)))
        with contextlib.suppress(Undecodable):
            page = reader.struct()
            return reader.at, page
    raise Undecodable("Parquet: no page where one should be")


def _at(
    source: Source,
    at: int,
    size: int,
) -> bytes:
    source.file.seek(at)
    return source.file.read(size)


def _want_zeros(
    source: Source,
    begin: int,
    end: int,
) -> None:
    """That nothing stands there but padding."""
    source.file.seek(begin)
    while begin < end:
        piece = source.file.read(min(end - begin, CHUNK_BYTES))
        begin += len(piece)
        if not piece or piece.strip(b"\0"):
            raise Undecodable("Parquet: bytes that its footer does not account for")


def decode_arrow_file(source: Source) -> Iterator[Part]:
    """By record batch, as the stream that stands between its first bytes and its footer: a batch
    that was taken out of the footer would be read by nobody."""
    size = source.file.seek(0, os.SEEK_END)
    length = int.from_bytes(_at(source, max(0, size - _ARROW_END), 4), "little")
    footer = size - _ARROW_END - length
    schema_alone = bytes(_ARROW_BEFORE) + _at(source, max(0, footer), size)
    with pa.ipc.open_file(pa.BufferReader(schema_alone), options=IN_THIS_THREAD) as file:
        yield cells_of(_texts_of_schema(file.schema))
        count = file.num_record_batches
    source.file.seek(_ARROW_BEGIN)
    with pa.ipc.open_stream(Kept(source.file), options=IN_THIS_THREAD) as stream:
        for batch, metadata in stream.iter_batches_with_custom_metadata():
            yield cells_of(_pairs(metadata))
            yield from _batch(batch)
            count -= 1
    if count or source.file.tell() != footer:
        raise Undecodable("Arrow: record batches that its footer does not name")


def decode_arrow_stream(source: Source) -> Iterator[Part]:
    """By record batch, to the end of the file."""
    with pa.ipc.open_stream(Kept(source.file), options=IN_THIS_THREAD) as file:
        yield cells_of(_texts_of_schema(file.schema))
        for batch, metadata in file.iter_batches_with_custom_metadata():
            yield cells_of(_pairs(metadata))
            yield from _batch(batch)
    if source.file.read(1):
        raise Undecodable("Arrow: bytes after its end")


def _texts_of_schema(schema: pa.Schema) -> list[bytes]:
    """What a schema says: the names of its columns and of what is in them, and what is noted beside
    them."""
    found, fields = _pairs(schema.metadata), list(schema)
    while fields:
        field = fields.pop()
        found += [field.name.encode("utf-8", "replace"), *_pairs(field.metadata)]
        fields += [field.type.field(i) for i in range(field.type.num_fields)]
    return found


def _pairs(metadata: Mapping[bytes, bytes] | None) -> list[bytes]:
    """Keys and values of what Arrow calls metadata."""
    return [text for pair in (metadata.items() if metadata else ()) for text in pair]


def _batch(batch: pa.RecordBatch) -> Iterator[Part]:
    batch.validate(full=True)  # Arrow reads wherever an offset leads to
    rows = Rows(batch)
    yield rows
    yield from map(Cell, rows.binaries())


class _Text(bytes):
    """A cell that SQLite says is text: it is not looked at as a file."""


def decode_sqlite(source: Source) -> Iterator[Part]:
    """Every cell of every table, through SQLite itself, which reads what is in the write-ahead log
    as well. Where it may not (a journal that a dead process left must be rolled back first), it
    does so on a copy. Then what is packed in pages, frames and records that no query reads."""
    known: set[bytes] = set()
    for part in _queried(source):
        if isinstance(part, Cell):
            known.add(part.value[:_BEGINNING])
        yield part
    with _beside(source, "-wal") as log, _beside(source, "-journal") as journal:
        pages = Pages(source.file, log, journal)
        yield from left_in(pages)
        yield from carved(pages, {cell[: pages.least] for cell in known})


@contextlib.contextmanager
def _beside(source: Source, suffix: str) -> Iterator[IO[bytes] | None]:
    """What lies beside a database under its name, None where nothing does."""
    path = Path(f"{source.path}{suffix}")
    if source.path is None or not path.is_file():
        yield None
        return
    with path.open("rb") as file:
        yield file


def _queried(source: Source) -> Iterator[Part]:
    with tempfile.TemporaryDirectory(
        dir=source.temporary,
        prefix="scan-",
    ) as folder:
        path = source.path or _copy(source, Path(folder))
        _check_whole_pages(path)
        try:
            yield from _tables(f"file:{quote(os.fsencode(path))}?mode=ro")
        except sqlite3.OperationalError as error:
            if source.path is None or "locked" in str(error):
                raise
            yield from _tables(f"file:{quote(os.fsencode(_copy(source, Path(folder))))}")


def decode_beside_sqlite(source: Source) -> Iterator[Part]:
    """A write-ahead log or a journal: its pages are read with the database beside it, or by nobody.
    One whose header was zeroed is of no kind; it is read with its database all the same."""
    if not has_database(str(source.path or "")):
        raise Undecodable("SQLite: a log without its database")
    yield b""


def has_database(log: str) -> bool:
    """Whether the database that a write-ahead log or a journal belongs to by its name is one: else
    nobody reads it."""
    database = re.fullmatch(r"(.*)-(wal|journal)", log)
    return database is not None and is_sqlite(Path(database[1]))


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


def _check_whole_pages(path: Path) -> None:
    """That the file is a number of whole pages: SQLite itself reads a part of the last one as if it
    were all."""
    with open_regular(path) as file:
        header = file.read(100)
        size = os.fstat(file.fileno()).st_size
    page = int.from_bytes(header[16:18], "big")
    page = 2**16 if page == 1 else page
    if page < 512 or size % page:
        raise Undecodable("SQLite: cut")
    beside = any(Path(f"{path}{suffix}").exists() for suffix in ("-journal", "-wal"))
    if (
        not beside
        and header[24:28] == header[92:96]
        and size > int.from_bytes(header[28:32], "big") * page
    ):
        raise Undecodable("SQLite: pages behind its last one")


def _tables(uri: str) -> Iterator[Part]:
    connection = sqlite3.connect(uri, uri=True, timeout=30)
    connection.text_factory = _Text
    try:
        names = [
            row[0].decode()
            for row in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
            )
        ]
        for name in names:
            rows = connection.execute('SELECT * FROM "' + name.replace('"', '""') + '"')  # noqa: S608
            yield from _cells(rows)
    finally:
        connection.close()


def _cells(rows: Iterator[tuple[object, ...]]) -> Iterator[Part]:
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
            yield cells_of(waiting)
            waiting, size = [], 0
    yield cells_of(waiting)
