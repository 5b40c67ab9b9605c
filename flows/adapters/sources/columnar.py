"""Parquet and Arrow: columns as they are typed, also inside structs, with the names of a
ClassLabel's numbers."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
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
        self.told = "Parquet" if part.kind == "parquet" else "Arrow"
        self.notes: list[str] = []
        with readable(f"a readable {self.told} file"):
            self._schema = _schema(part)

    def lacking(self, columns: Sequence[str]) -> list[str]:
        """See Table."""
        return [c for c in columns if c not in self._part.constants and not _path(self._schema, c)]

    def repeated(self, columns: Sequence[str]) -> list[str]:
        """See Table."""
        counts = Counter(self._schema.names)
        return [c for c in columns if counts[c] > 1]

    def names(self) -> list[str]:
        """See Table."""
        return shown([*_paths(self._schema), *self._part.constants])

    def hint(self) -> str:
        """See Table."""
        return ""

    def classes(self, column: str) -> Sequence[str]:
        """The names that Hugging Face `datasets` lays beside the numbers in a column of
        ClassLabel."""
        try:
            features = json.loads((self._schema.metadata or {})[b"huggingface"])["info"]["features"]
            for name in [column] if column in features else column.split("."):
                features = features[name]
            return [str(n) for n in features["names"]] if features["_type"] == "ClassLabel" else ()
        except (KeyError, TypeError, ValueError):
            return ()

    def sample(self, rows: int) -> list[dict[str, object]]:
        """See Table."""
        with readable(f"a readable {self.told} file"):
            columns = [p for p in _paths(self._schema) if not self.repeated([p])]
            batch = next(iter(_batches(self._part, columns, rows)), None)
            if batch is None:
                return []
            cells = [_values(_column(batch, c).slice(0, rows)) for c in columns]
            return [
                dict(zip(columns, row, strict=True)) | self._part.constants
                for row in zip(*cells, strict=True)
            ]

    def blocks(self, columns: Columns, chunk_rows: int) -> Iterator[Block]:
        """See Table."""
        constants = {c: self._part.constants[c] for c in columns if not _path(self._schema, c)}
        present = {c: write for c, write in columns.items() if c not in constants}
        with readable(f"a readable {self.told} file"):
            for batch in _batches(self._part, list(present), chunk_rows):
                for begin in range(0, batch.num_rows, chunk_rows):
                    for block in _blocks(batch.slice(begin, chunk_rows), present, chunk_rows):
                        yield Block(
                            block.cells
                            | {c: [v] * len(block.malformed) for c, v in constants.items()},
                            block.malformed,
                        )


def _blocks(batch: "pa.RecordBatch", columns: Columns, chunk_rows: int) -> Iterator[Block]:
    """The rows of a record batch, by column where all of it is text, row by row where something
    must be found."""
    import pyarrow as pa

    texts = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
    arrays = [
        c.cast(pa.binary()) if c.type in texts else c for c in (_column(batch, n) for n in columns)
    ]
    if all(a.type == pa.binary() for a in arrays):
        block = _at_once(pa.RecordBatch.from_arrays(arrays, list(columns)), columns)
        if block is not None:
            yield block
            return
    rows = zip(*map(_values, arrays), strict=True)
    yield from row_by_row(
        ((dict(zip(columns, values, strict=True)), "") for values in rows), columns, chunk_rows
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
    narrow = Half if pa.types.is_float16(kind) else Single if pa.types.is_float32(kind) else None
    try:
        values = array.to_pylist()
    except _CELL_ERRORS:
        values = [_value(cell) for cell in array]
    return [narrow(v) if isinstance(v, SupportsFloat) else v for v in values] if narrow else values


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


def _batches(part: Part, columns: Sequence[str], rows: int) -> "Iterator[pa.RecordBatch]":
    """Record batches with at least these columns."""
    import pyarrow.parquet as pq

    if part.kind == "parquet":
        with pq.ParquetFile(part.path) as file:
            schema = file.schema_arrow
            outer = [_path(schema, c)[0] for c in columns]
            yield from file.iter_batches(batch_size=rows, columns=list(dict.fromkeys(outer)))
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
        if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
            return []
        kind = kind.field(kind.get_field_index(name)).type
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

    return list(dict.fromkeys(p for field in islice(schema, 1000) for p in inside(field, "")))


def _column(batch: "pa.RecordBatch", column: str) -> "pa.Array":
    import pyarrow.compute as pc

    first, *inner = _path(batch.schema, column)
    array = batch.column(batch.schema.names.index(first))
    return pc.struct_field(array, inner) if inner else array
