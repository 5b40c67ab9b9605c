"""Slice files: Parquet with columns record, subject, text, label, always rewritten whole with a
fixed row-group size.

Equal sets of rows give equal bytes (within one pyarrow version). A file holds keyed digests, never
raw ids.
"""

import io
from collections.abc import Collection, Iterable, Iterator
from itertools import repeat
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from s3t_core.domain import Part, SliceId
from s3t_core.errors import DataError, GuaranteeError
from s3t_core.files import open_regular, write_atomically
from s3t_core.keys import WorkspaceKeys
from s3t_core.parquet import read_columns
from s3t_core.records import Row, slice_digest

ROW_GROUP_ROWS = 1024
_BATCH_ROWS = 10_000
SCHEMA = pa.schema([(name, pa.string()) for name in ("record", "subject", "text", "label")])


def slice_path(
    shard: int,
    index: int,
) -> str:
    """A slice's file, relative to the data directory. Names hold no ids: DVC manifests keep
    them."""
    return f"shard={shard:02d}/slice={index:02d}.parquet"


HELD_OUT_PATH = "held_out.parquet"


def part_path(part: Part) -> str:
    """The file of a slice, or of the held-out rows, relative to the data directory."""
    return slice_path(part.shard, part.index) if isinstance(part, SliceId) else HELD_OUT_PATH


def write_rows(
    path: Path,
    rows: Iterable[Row],
) -> None:
    """Write the set of `rows`, sorted by record digest. Raises StorageError."""
    ordered = sorted(rows)
    columns = [
        pa.array(values, pa.string())
        for values in (zip(*ordered, strict=True) if ordered else repeat((), len(SCHEMA)))
    ]
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays(columns, schema=SCHEMA),
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
    )
    write_atomically(path, sink.getvalue())


def read_rows(
    path: Path,
    subjects: Collection[str] | None = None,
) -> list[Row]:
    """The rows of a slice file: all, or those of some subjects. Raises DataError when it is missing
    or not one."""
    table = _read(path, SCHEMA.names, subjects)
    return [
        Row(*values)
        for values in zip(*(table.column(n).to_pylist() for n in SCHEMA.names), strict=True)
    ]


def read_digests(
    path: Path,
    subjects: Collection[str] | None = None,
) -> list[tuple[str, str]]:
    """(subject, record) digests of the rows (of some subjects), without reading any text. Raises
    DataError."""
    table = _read(path, ["subject", "record"], subjects)
    return list(
        zip(
            table.column("subject").to_pylist(),
            table.column("record").to_pylist(),
            strict=True,
        )
    )


def texts_of(path: Path) -> Iterator[tuple[str, str]]:
    """(subject digest, text) of each row. Raises DataError."""
    for batch in _read(path, ["subject", "text"], None).to_batches(max_chunksize=_BATCH_ROWS):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def count_subjects(paths: Iterable[Path]) -> int:
    """How many subjects have rows in any of the files, without reading any text. Raises
    DataError."""
    return len(_distinct_subjects(paths))


def subjects_of(paths: Iterable[Path]) -> set[str]:
    """The subjects (digests) that have rows in any of the files, without reading any text. Raises
    DataError."""
    return set(_distinct_subjects(paths).to_pylist())


def read_verified(
    path: Path,
    keys: WorkspaceKeys,
    digest: str,
) -> list[Row]:
    """The rows, checked against the content digest that was recorded for them. Raises
    GuaranteeError on a mismatch."""
    rows = read_rows(path)
    got = slice_digest(keys, rows)
    if got != digest:
        raise GuaranteeError(
            f"expected slice content {digest[:16]}... in {path.parent.name}/{path.name}, got "
            f"{got[:16]}...; restore the data with `dvc checkout --force data.dvc` or ingest again"
        )
    return rows


def is_slice_file(path: Path) -> bool:
    """Whether the file is readable and has a slice file's columns: not every Parquet file in a
    repository is ours."""
    try:
        with open_regular(path) as file:
            names: list[str] = pq.read_schema(file).names
    except (OSError, pa.ArrowException):
        return False
    return bool(names == SCHEMA.names)


def _distinct_subjects(paths: Iterable[Path]) -> pa.Array:
    found = [pc.unique(_read(path, ["subject"], None).column("subject")) for path in paths]
    return pc.unique(pa.chunked_array(found, pa.string()))


def _read(
    path: Path,
    columns: list[str],
    subjects: Collection[str] | None,
) -> pa.Table:
    try:
        table = read_columns(path, columns)
        if subjects is None:
            return table
        return table.filter(pc.is_in(table.column("subject"), pa.array(subjects, pa.string())))
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"expected a slice file at {path.parent.name}/{path.name}, got {type(error).__name__}; "
            "restore the data with `dvc checkout --force data.dvc` or ingest again"
        ) from None
