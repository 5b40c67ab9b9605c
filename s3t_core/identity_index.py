"""The identity index: by what the id of each person in the data may be asked for, as keyed digests.

A row of it says that a person (their keyed subject digest) may be asked for by one form of their
id. Raw ids are nowhere; whoever has the file without the key learns nothing from it, and with key
and file whether somebody is in the data. It is one file of each data version, so it is rewritten
when one of its people is erased, and its earlier contents are destroyed with the data. What forms
there are, `s3t_core.identity.forms_of` says.
"""

import hmac
import io
from collections.abc import Collection, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from s3t_core.domain import SliceVersion
from s3t_core.errors import DataError
from s3t_core.files import md5_of, open_regular, write_atomically
from s3t_core.keys import WorkspaceKeys
from s3t_core.parquet import read_columns

IDENTITY_PATH = "identities.parquet"
SCHEMA = pa.schema([("subject", pa.string()), ("form", pa.string())])
_ROW_GROUP_ROWS = 64 * 1024


def make_index(entries: Iterable[tuple[str, str]]) -> pa.Table:
    """An index of (subject digest, form), each once, in order."""
    columns = list(zip(*entries, strict=True)) or [(), ()]
    return _ordered(
        pa.Table.from_arrays([pa.array(c, pa.string()) for c in columns], schema=SCHEMA)
    )


def united(
    first: pa.Table,
    second: pa.Table,
    subjects: Collection[str],
) -> pa.Table:
    """What both indexes say of these subjects."""
    return _ordered(_of(pa.concat_tables([first, second]), subjects))


def remaining(
    index: pa.Table,
    others: Iterable[pa.Table],
    present: Collection[str],
    earlier: Collection[str],
) -> pa.Table:
    """The index as an erasure leaves it, with nobody but those of whom rows are left: who is in the
    `present` data, as the index says it; who is in stored `earlier` versions alone, as the index
    says it, or any of the `others`, which are those of earlier versions that the erasure destroys.
    Else nobody could find these people by a hash."""
    kept = [_of(index, set(present))]
    alone = set(earlier) - set(present)
    kept += [_of(each, alone) for each in (index, *others)] if alone else []
    return _ordered(pa.concat_tables(kept))


def _of(index: pa.Table, subjects: Collection[str]) -> pa.Table:
    return index.filter(_is_any(index, "subject", subjects))


def _ordered(index: pa.Table) -> pa.Table:
    return (
        index.group_by(SCHEMA.names, use_threads=False)
        .aggregate([])
        .select(SCHEMA.names)
        .sort_by([(name, "ascending") for name in SCHEMA.names])
    )


def write_index(path: Path, index: pa.Table) -> None:
    """Write it: equal indexes give equal bytes (within one pyarrow version). Raises
    StorageError."""
    sink = io.BytesIO()
    pq.write_table(
        index.combine_chunks(),
        sink,
        row_group_size=_ROW_GROUP_ROWS,
        compression="zstd",
    )
    write_atomically(path, sink.getvalue())


def read_index(path: Path) -> pa.Table:
    """The whole index. Raises DataError."""
    return _read(path)


def holds_any(path: Path, subjects: Collection[str]) -> bool:
    """Whether any of these subjects stands in it. Raises DataError."""
    return bool(subjects) and _of(_read(path), subjects).num_rows > 0


def named_in(path: Path) -> set[str]:
    """The subjects (digests) that stand in it. Raises DataError."""
    return set(pc.unique(_read(path).column("subject")).to_pylist())


def matching(
    path: Path,
    subjects: Collection[str],
    forms: Collection[str],
) -> list[tuple[str, str]]:
    """Its rows, (subject, form), about any of these subjects or with any of these forms. Raises
    DataError."""
    index = _read(path)
    found = index.filter(pc.or_(_is_any(index, "subject", subjects), _is_any(index, "form", forms)))
    return list(zip(*(found.column(n).to_pylist() for n in SCHEMA.names), strict=True))


def is_index(path: Path) -> bool:
    """Whether the file is readable and has the columns of an index."""
    try:
        with open_regular(path) as file:
            return bool(pq.read_schema(file).names == SCHEMA.names)
    except (OSError, pa.ArrowException):
        return False


def describe_index(keys: WorkspaceKeys, path: Path) -> SliceVersion:
    """Its keyed content digest, number of rows and md5. Raises DataError."""
    index, mac = read_index(path), hmac.new(keys.content, digestmod="sha256")
    for batch in index.to_batches(max_chunksize=_ROW_GROUP_ROWS):
        columns = [batch.column(name).to_pylist() for name in SCHEMA.names]
        for subject, form in zip(*columns, strict=True):
            mac.update(f"{subject}{form}".encode())
    return SliceVersion(
        mac.hexdigest(),
        index.num_rows,
        md5_of(path),
    )


def _is_any(
    index: pa.Table,
    column: str,
    values: Collection[str],
) -> pa.ChunkedArray:
    return pc.is_in(index.column(column), pa.array(sorted(values), pa.string()))


def _read(path: Path) -> pa.Table:
    try:
        return read_columns(path, SCHEMA.names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"expected the identity index at {path.name}, got {type(error).__name__}; restore the "
            "data with `dvc checkout --force data.dvc` or ingest again"
        ) from None
