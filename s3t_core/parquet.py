"""Parquet files of the system's own, read in the thread that asks.

Arrow's data sets (`pyarrow.parquet.read_table` among them) read in threads of Arrow's pool, and one
of these may let go of what Python owns when everybody has their answer. Where Python ends just
then, the process is aborted.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from s3t_core.files import read_regular


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """The columns of these names, in this order. Raises OSError and pyarrow.ArrowException, also
    where one of them is not there."""
    with pq.ParquetFile(pa.BufferReader(read_regular(path)), pre_buffer=False) as file:
        table = file.read(columns=list(columns), use_threads=False)
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise pa.ArrowInvalid(f"expected columns {', '.join(columns)}, got some of them")
    return table.select(list(columns))
