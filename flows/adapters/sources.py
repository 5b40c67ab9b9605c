"""Sources: Parquet, CSV, JSONL or a named example set, read in chunks as the columns that the config names.

Cells are read as bytes and decoded here, so that one bad byte spoils one row, not the file. A chunk is a pandas frame
with a column per config column (text or None), `row` (from 1, in source order) and `malformed` ("" or why the row
cannot be read).
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from flows import examples
from s3t_core.config import DataConfig
from s3t_core.errors import DataError, UsageError

CHUNK_ROWS = 20_000
_BLOCK_BYTES = 32 * 2**20


def columns_of(config: DataConfig, tier_column: str = "") -> list[str]:
    """The source columns that are read, each once."""
    names = [config.text, config.label, config.subject, config.held_out_by, config.record, tier_column]
    return list(dict.fromkeys(n for n in names if n))


def read_chunks(source: str, config: DataConfig, chunk_rows: int = CHUNK_ROWS,
                tier_column: str = "") -> Iterator[pd.DataFrame]:
    """Chunks of at most `chunk_rows` rows. Raises DataError for a source that cannot be read or lacks a column."""
    columns = columns_of(config, tier_column)
    if source.startswith("example:"):
        rows = examples.rows(source.removeprefix("example:"))
        return _frames(_example_rows(rows, columns), columns, chunk_rows)
    path = Path(source)
    if not path.is_file():
        raise DataError("expected a readable file or example:NAME as the source, got a path that is no file; "
                        "check its spelling")
    if path.stat().st_size == 0:
        raise DataError("expected rows in the source, got an empty file")
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows, ".parquet": _parquet_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"expected a source ending in {', '.join(readers)}, got {path.suffix or 'no ending'!r}")
    return _frames(reader(path, columns), columns, chunk_rows)


Cells = tuple[dict[str, Any], str]


def _frames(rows: Iterator[Cells], columns: list[str], chunk_rows: int) -> Iterator[pd.DataFrame]:
    buffer: list[dict[str, Any]] = []
    for number, (cells, malformed) in enumerate(rows, start=1):
        buffer.append(_decode(cells, malformed, columns) | {"row": number})
        if len(buffer) == chunk_rows:
            yield _frame(buffer, columns)
            buffer = []
    if buffer:
        yield _frame(buffer, columns)


def _frame(buffer: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({c: pd.Series([b.get(c) for b in buffer], dtype=object)
                         for c in [*columns, "row", "malformed"]})


def _decode(cells: dict[str, Any], malformed: str, columns: list[str]) -> dict[str, Any]:
    decoded: dict[str, Any] = {"malformed": malformed}
    for column in columns:
        value = cells.get(column)
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError:
                decoded["malformed"] = f"column {column!r} is not UTF-8"
                value = value.decode(errors="backslashreplace")
        elif value is not None and not isinstance(value, str):
            value = _as_text(value)
        if isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            decoded["malformed"] = f"column {column!r} is not UTF-8"
            value = value.encode(errors="backslashreplace").decode()
        decoded[column] = value or None
    return decoded


def _as_text(value: Any) -> str | None:
    if isinstance(value, float):
        return None if math.isnan(value) else (str(int(value)) if value.is_integer() else repr(value))
    return str(value) if isinstance(value, int) else json.dumps(value, default=str)


def _example_rows(rows: Iterator[dict[str, str]], columns: list[str]) -> Iterator[Cells]:
    for row in rows:
        missing = [c for c in columns if c not in row]
        if missing:
            raise UsageError(f"expected columns of the example set ({', '.join(row)}) in s3t.toml, got {missing[0]!r}; "
                             "use a workspace made by `s3t init --example`")
        yield row, ""


def _csv_rows(path: Path, columns: list[str]) -> Iterator[Cells]:
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
            convert_options=csv.ConvertOptions(check_utf8=False, include_columns=columns, strings_can_be_null=False,
                                               column_types=dict.fromkeys(columns, pa.binary())))
        place = 0
        for batch in reader:
            for values in zip(*(batch.column(c).to_pylist() for c in columns), strict=True):
                place += 1
                while place in bad:
                    yield {}, "the row has more or fewer cells than the header"
                    place += 1
                yield dict(zip(columns, values, strict=True)), ""
        for _ in (n for n in bad if n > place):
            yield {}, "the row has more or fewer cells than the header"
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"expected a readable CSV file with a header, got one that cannot be parsed "
                        f"({type(error).__name__}); is it UTF-8, comma-separated, with a header line?") from None


def _jsonl_rows(path: Path, columns: list[str]) -> Iterator[Cells]:
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


def _parquet_rows(path: Path, columns: list[str]) -> Iterator[Cells]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    try:
        file = pq.ParquetFile(path)
        _require(columns, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=columns):
            arrays = [c.cast(pa.binary()) if pa.types.is_string(c.type) or pa.types.is_large_string(c.type) else c
                      for c in (batch.column(batch.schema.get_field_index(n)) for n in columns)]
            for values in zip(*(a.to_pylist() for a in arrays), strict=True):
                yield dict(zip(columns, values, strict=True)), ""
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"expected a readable Parquet file, got one that cannot be read ({type(error).__name__})"
                        ) from None


def _require(columns: list[str], present: list[str]) -> None:
    missing = [c for c in columns if c not in present]
    if missing:
        raise DataError(f"expected column {missing[0]!r} in the source, got {len(present)} others; set the column "
                        "names under [data] and [tiers] in s3t.toml, and see that a CSV file begins with its header")
