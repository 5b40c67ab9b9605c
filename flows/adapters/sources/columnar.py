"""Parquet and Arrow: columns as they are typed, also inside structs, with the names of a
ClassLabel's numbers."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, SupportsFloat

from flows.adapters.sources.cells import Block, Columns, Unreadable, row_by_row
from flows.adapters.sources.parts import Part
from flows.adapters.sources.tables import shown
from flows.adapters.sources.text import readable
from s3t_core.identity import Half, Single

if TYPE_CHECKING:
    import pyarrow as pa


class ColumnarTable:
    """A Parquet or Arrow file, opened as far as its schema."""

    def __init__(self, part: Part) -> None:
        """Raises DataError."""
        self._part = part
        self.read_as = "Parquet" if part.kind == "parquet" else "Arrow"
        self.notes: list[str] = []
        with readable(f"a readable {self.read_as} file"):
            self._schema = _schema(part)

    def lacking(self, columns: Sequence[str]) -> list[str]:
        """See Table."""
        asked = [c for c in columns if c not in self._part.constants]
        return [column for column in asked if not _path(self._schema, column)]

    def repeated(self, columns: Sequence[str]) -> list[str]:
        """See Table."""
        counts = Counter(self._schema.names)
        paths = {c: _path(self._schema, c) for c in columns}
        twice = [c for c, path in paths.items() if path and counts[path[0]] > 1]
        return twice + [c for c, path in paths.items() if path and c in self._part.constants]

    def names(self) -> list[str]:
        """See Table."""
        return shown([*_paths(self._schema), *self._part.constants])

    def hint(self) -> str:
        """See Table."""
        return ""

    def classes(self, column: str) -> Sequence[str]:
        """The names that Hugging Face `datasets` lays beside the numbers in a column of
        ClassLabel."""
        metadata = self._schema.metadata or {}
        try:
            feature = json.loads(metadata[b"huggingface"])["info"]["features"]
            path = [column] if column in feature else column.split(".")
            for name in path:
                feature = feature[name]
            if feature["_type"] != "ClassLabel":
                return ()
            return [str(name) for name in feature["names"]]
        except (KeyError, TypeError, ValueError):
            return ()

    def sample(self, rows: int) -> list[dict[str, object]]:
        """See Table."""
        with readable(f"a readable {self.read_as} file"):
            columns = [p for p in _paths(self._schema) if not self.repeated([p])]
            batches = iter(_batches(self._part, columns, rows))
            batch = next(batches, None)
            if batch is None:
                return []
            arrays = [_column(batch, column) for column in columns]
            cells = [_values(array.slice(0, rows)) for array in arrays]
            sampled = zip(*cells, strict=True)
            return [dict(zip(columns, row, strict=True)) | self._part.constants for row in sampled]

    def blocks(self, columns: Columns, chunk_rows: int) -> Iterator[Block]:
        """See Table."""
        absent = [column for column in columns if not _path(self._schema, column)]
        constants = {column: self._part.constants[column] for column in absent}
        present = {c: write for c, write in columns.items() if c not in constants}
        with readable(f"a readable {self.read_as} file"):
            for batch in _batches(self._part, list(present), chunk_rows):
                for chunk in _chunks(batch, chunk_rows):
                    for block in _blocks(chunk, present, chunk_rows):
                        yield _with_constants(block, constants)


def _chunks(batch: "pa.RecordBatch", rows: int) -> "Iterator[pa.RecordBatch]":
    for begin in range(0, batch.num_rows, rows):
        yield batch.slice(begin, rows)


def _with_constants(block: Block, constants: Mapping[str, object]) -> Block:
    """A block with columns that hold the same in every row."""
    rows = len(block.malformed)
    more = {column: [value] * rows for column, value in constants.items()}
    return Block(block.cells | more, block.malformed)


def _blocks(
    batch: "pa.RecordBatch",
    columns: Columns,
    chunk_rows: int,
) -> Iterator[Block]:
    """The rows of a record batch, by column where all of it is text, row by row where something
    must be found."""
    import pyarrow as pa

    texts = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
    given = [_column(batch, name) for name in columns]
    arrays = [array.cast(pa.binary()) if array.type in texts else array for array in given]
    if all(array.type == pa.binary() for array in arrays):
        as_bytes = pa.RecordBatch.from_arrays(arrays, list(columns))
        block = _at_once(as_bytes, columns)
        if block is not None:
            yield block
            return
    cells = [_values(array) for array in arrays]
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True))
    yield from row_by_row(
        ((row, "") for row in rows),
        columns,
        chunk_rows,
    )


def _at_once(batch: "pa.RecordBatch", columns: Columns) -> Block | None:
    """A record batch of binary columns decoded by column; None when a cell is not UTF-8, so that
    its row must be found."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = {}
    try:
        for column in columns:
            texts = batch.column(column).cast(pa.string())
            empty = pc.equal(pc.binary_length(texts), 0)
            cells[column] = pc.if_else(empty, None, texts).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return None
    return Block(cells, [""] * batch.num_rows)


def _values(array: "pa.Array") -> list[object]:
    """The cells of a column as Python's values. A float of fewer bits stays known as one, because
    it stands for several whole numbers sooner; a cell that cannot be made a value is `Unreadable`,
    and spoils its row alone."""
    import pyarrow as pa

    kind = array.type
    while inner := getattr(kind, "storage_type", None) or getattr(kind, "value_type", None):
        kind = inner
    try:
        values = array.to_pylist()
    except _CELL_ERRORS:
        values = [_value(cell) for cell in array]
    if pa.types.is_float16(kind):
        narrow: type[Half] | type[Single] = Half
    elif pa.types.is_float32(kind):
        narrow = Single
    else:
        return list(values)
    return [narrow(value) if isinstance(value, SupportsFloat) else value for value in values]


def _value(cell: "pa.Scalar") -> object:
    try:
        return cell.as_py()
    except _CELL_ERRORS:
        return Unreadable(str(cell.type))


_CELL_ERRORS = (ArithmeticError, ValueError, LookupError, TypeError, NotImplementedError, OSError)
"""Of pyarrow, and of what it asks for time zones: OverflowError, ArrowInvalid,
UnknownTimeZoneError, ZoneInfoNotFoundError, ..."""


def _schema(part: Part) -> "pa.Schema":
    import pyarrow.parquet as pq

    if part.kind == "parquet":
        with pq.ParquetFile(part.path) as file:
            return file.schema_arrow
    with _opened(part) as reader:
        return reader.schema


def _opened(part: Part) -> "pa.RecordBatchFileReader | pa.RecordBatchStreamReader":
    """An Arrow file, as a stream (as `datasets` writes it) or with a footer."""
    import pyarrow as pa

    source = pa.memory_map(str(part.path))
    with part.path.open("rb") as file:
        footer = file.read(6) == b"ARROW1"
    return pa.ipc.open_file(source) if footer else pa.ipc.open_stream(source)


def _batches(
    part: Part,
    columns: Sequence[str],
    rows: int,
) -> "Iterator[pa.RecordBatch]":
    """Record batches with at least these columns."""
    import pyarrow.parquet as pq

    if part.kind == "parquet":
        with pq.ParquetFile(part.path) as file:
            paths = [_path(file.schema_arrow, column) for column in columns]
            outer = dict.fromkeys(path[0] for path in paths)
            yield from file.iter_batches(
                batch_size=rows,
                columns=list(outer),
            )
        return
    with _opened(part) as reader:
        if hasattr(reader, "num_record_batches"):
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            yield from reader


def _path(schema: "pa.Schema", column: str) -> list[str]:
    """The names that lead to a column, its own if there is one of that very name, else along its
    dots through structs; none where it is not there."""
    import pyarrow as pa

    if column in schema.names:
        return [column]
    first, *inner = column.split(".")
    if not inner or first not in schema.names:
        return []
    kind = schema.field(schema.names.index(first)).type
    for name in inner:
        if not pa.types.is_struct(kind):
            return []
        index = kind.get_field_index(name)
        if index < 0:
            return []
        kind = kind.field(index).type
    return [first, *inner]


def _paths(schema: "pa.Schema") -> list[str]:
    """Every column, those inside structs by their dotted path."""
    import pyarrow as pa

    def inside(field: "pa.Field", above: str) -> Iterator[str]:
        if pa.types.is_struct(field.type) and field.type.num_fields:
            for i in range(field.type.num_fields):
                yield from inside(field.type.field(i), f"{above}{field.name}.")
        else:
            yield above + field.name

    paths: dict[str, None] = {}
    for field in islice(schema, 1000):
        paths |= dict.fromkeys(inside(field, ""))
    return list(paths)


def _column(batch: "pa.RecordBatch", column: str) -> "pa.Array":
    import pyarrow.compute as pc

    first, *inner = _path(batch.schema, column)
    array = batch.column(batch.schema.names.index(first))
    return pc.struct_field(array, inner) if inner else array
