"""Sources: Parquet, CSV, JSONL or a named example set, read in chunks as the columns that the config names.

Cells are read as bytes and decoded here, so that one bad byte spoils one row, not the file. A chunk is a pandas frame
with a column per config column (text or None), `row` (from 1, in source order) and `malformed` ("" or why the row
cannot be read).
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from flows import examples
from s3t_core.config import DataConfig
from s3t_core.errors import DataError, UsageError
from s3t_core.identity import NotAnId, id_text

CHUNK_ROWS = 20_000
_BLOCK_BYTES = 32 * 2**20
_NOT_A_ROW: tuple[dict[str, Any], str] = {}, "the row has more or fewer cells than the header"


Columns = dict[str, Callable[[object], str | None]]
"""The source columns that are read, each once, with how a value in it that is no text is written."""


def columns_of(config: DataConfig, tier_column: str = "") -> Columns:
    """The columns that the config names. What a column of ids holds is written as an id, whatever else it is."""
    others = dict.fromkeys([config.text, config.label, tier_column], _told)
    ids = dict.fromkeys([config.subject, config.split_by, config.record], id_text)
    return {name: write for name, write in (others | ids).items() if name}


def read_chunks(source: str, config: DataConfig, chunk_rows: int = CHUNK_ROWS,
                tier_column: str = "") -> Iterator[pd.DataFrame]:
    """Chunks of at most `chunk_rows` rows. Raises DataError for a source that cannot be read or lacks a column."""
    columns = columns_of(config, tier_column)
    if source.startswith("example:"):
        rows = examples.rows(source.removeprefix("example:"))
        return _frames(_row_by_row(_example_rows(rows, columns), columns, chunk_rows), columns)
    path = Path(source)
    if not path.is_file():
        raise DataError("expected a readable file or example:NAME as the source, got a path that is no file; "
                        "check its spelling")
    if path.stat().st_size == 0:
        raise DataError("expected rows in the source, got an empty file")
    readers = {".csv": _csv_blocks, ".jsonl": _jsonl_blocks, ".ndjson": _jsonl_blocks, ".parquet": _parquet_blocks}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"expected a source ending in {', '.join(readers)}, got {path.suffix or 'no ending'!r}")
    return _frames(reader(path, columns, chunk_rows), columns)


Cells = tuple[dict[str, Any], str]
"""One row: its cells by column, and why it cannot be read ("" where it can)."""


@dataclass(frozen=True)
class _Block:
    """Some rows of a source, by column: text or None; `malformed` as in a chunk."""

    cells: dict[str, Any]
    malformed: list[str]


def _frames(blocks: Iterator[_Block], columns: Columns) -> Iterator[pd.DataFrame]:
    number = 1
    for block in blocks:
        rows = len(block.malformed)
        yield pd.DataFrame({**{c: pd.Series(block.cells[c], dtype=object) for c in columns},
                            "row": range(number, number + rows),
                            "malformed": pd.Series(block.malformed, dtype=object)})
        number += rows


def _row_by_row(rows: Iterable[Cells], columns: Columns, chunk_rows: int) -> Iterator[_Block]:
    """Blocks of rows that are decoded one at a time."""
    rows = iter(rows)
    while part := [_decode(cells, malformed, columns) for cells, malformed in islice(rows, chunk_rows)]:
        yield _Block({c: [p[c] for p in part] for c in columns}, [p["malformed"] for p in part])


def _at_once(batch: Any, columns: Columns) -> _Block | None:
    """A record batch of binary columns decoded by column; None when a cell is not UTF-8, so that its row must be
    found."""
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
    return _Block(cells, [""] * batch.num_rows)


def _decode(cells: dict[str, Any], malformed: str, columns: Columns) -> dict[str, Any]:
    decoded: dict[str, Any] = {"malformed": malformed}
    for column in columns:
        value = cells.get(column)
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError:
                decoded["malformed"] = f"column {column!r} is not UTF-8"
                value = value.decode(errors="backslashreplace")
        elif not isinstance(value, str):
            try:
                value = columns[column](value)
            except NotAnId as error:
                decoded["malformed"] = f"column {column!r} holds {error}"
                value = None
        if isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            decoded["malformed"] = f"column {column!r} is not UTF-8"
            value = value.encode(errors="backslashreplace").decode()
        decoded[column] = value or None
    return decoded


def _told(value: object) -> str | None:
    """A text or a label that is no text: a number as it is written."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, float):
        return None if math.isnan(value) else repr(value)
    return f"{value.normalize():f}" if isinstance(value, Decimal) else id_text(value)


def _example_rows(rows: Iterator[dict[str, str]], columns: Columns) -> Iterator[Cells]:
    for row in rows:
        missing = [c for c in columns if c not in row]
        if missing:
            raise UsageError(f"expected columns of the example set ({', '.join(row)}) in s3t.toml, got {missing[0]!r}; "
                             "use a workspace made by `s3t init --example`")
        yield row, ""


def _csv_blocks(path: Path, columns: Columns, chunk_rows: int) -> Iterator[_Block]:
    import pyarrow as pa
    from pyarrow import csv

    bad: set[int] = set()  # places of malformed rows, from 1, the header not counted

    def invalid(row: Any) -> str:
        bad.add(row.number - 1)
        return "skip"

    try:
        with path.open("rb") as file:
            header = csv.open_csv(
                file, read_options=csv.ReadOptions(block_size=_BLOCK_BYTES),
                parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=lambda _: "skip"),
                convert_options=csv.ConvertOptions(check_utf8=False)).schema.names
        _require(columns, header)
        reader = csv.open_csv(
            path, read_options=csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=invalid),
            convert_options=csv.ConvertOptions(
                check_utf8=False, include_columns=list(columns), strings_can_be_null=False,
                column_types=dict.fromkeys(columns, pa.binary())))
        place = 0
        for whole in reader:
            for begin in range(0, whole.num_rows, chunk_rows):
                batch = whole.slice(begin, chunk_rows)
                block = None if bad else _at_once(batch, columns)
                if block is not None:
                    yield block
                    place += batch.num_rows
                    continue
                rows = list(_beside_malformed(batch, columns, bad, place))
                place += len(rows)
                yield from _row_by_row(rows, columns, chunk_rows)
        yield from _row_by_row([_NOT_A_ROW] * len(bad), columns, chunk_rows)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"expected a readable CSV file with a header, got one that cannot be parsed "
                        f"({type(error).__name__}); is it UTF-8, comma-separated, with a header line?") from None


def _beside_malformed(batch: Any, columns: Columns, bad: set[int], place: int) -> Iterator[Cells]:
    """The rows of a batch that begins behind `place` rows, and those between them that are `bad`, which are taken out
    of that set."""
    for values in zip(*(batch.column(c).to_pylist() for c in columns), strict=True):
        place += 1
        while place in bad:
            bad.remove(place)
            yield _NOT_A_ROW
            place += 1
        yield dict(zip(columns, values, strict=True)), ""


def _jsonl_blocks(path: Path, columns: Columns, chunk_rows: int) -> Iterator[_Block]:
    return _row_by_row(_jsonl_rows(path, columns), columns, chunk_rows)


def _jsonl_rows(path: Path, columns: Columns) -> Iterator[Cells]:
    seen: set[str] = set()
    rows = 0
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            rows += 1
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                yield {}, "the line is not JSON"
                continue
            if not isinstance(value, dict):
                yield {}, "the line is not a JSON object"
                continue
            seen |= value.keys()
            yield {c: value.get(c) for c in columns}, ""
    if rows == 0:
        raise DataError("expected rows in the source, got an empty file")
    _require(columns, sorted(seen))


def _parquet_blocks(path: Path, columns: Columns, chunk_rows: int) -> Iterator[_Block]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    texts = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
    try:
        file = pq.ParquetFile(path)
        _require(columns, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=chunk_rows, columns=list(columns)):
            arrays = [c.cast(pa.binary()) if c.type in texts else c
                      for c in (batch.column(batch.schema.get_field_index(n)) for n in columns)]
            raw = pa.RecordBatch.from_arrays(arrays, list(columns))
            block = _at_once(raw, columns) if all(a.type == pa.binary() for a in arrays) else None
            if block is not None:
                yield block
                continue
            rows = zip(*(a.to_pylist() for a in arrays), strict=True)
            yield from _row_by_row(((dict(zip(columns, values, strict=True)), "") for values in rows), columns,
                                   chunk_rows)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"expected a readable Parquet file, got one that cannot be read ({type(error).__name__})"
                        ) from None


def _require(columns: Columns, present: list[str]) -> None:
    missing = [c for c in columns if c not in present]
    if missing:
        raise DataError(f"expected column {missing[0]!r} in the source, got {len(present)} others; set the column "
                        "names under [data] and [tiers] in s3t.toml, and see that a CSV file begins with its header")
