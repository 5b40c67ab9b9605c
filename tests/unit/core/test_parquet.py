"""Columns are read in the thread that asks: a thread of Arrow's pool that lets go of what Python
owns, while Python ends, has the whole process aborted after it gave its answer."""

import ast
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from s3t_core.identity_index import make_index, write_index
from s3t_core.parquet import read_columns

ROOT = Path(__file__).parents[3]

_BEGIN = """
import os, sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from s3t_core import identity_index as index, slicefile
from s3t_core.erasure.decoding import carving
from s3t_core.erasure.needles import make_needles
from s3t_core.erasure.residue import scan
from s3t_core.records import Row
here = Path(sys.argv[1])
table = pa.table({"a": [f"a person {i}" for i in range(5000)], "b": list(range(5000))})
needles = make_needles(["person-4711"], ["a text of some length that one looks for"], [])
before = len(os.listdir("/proc/self/task"))
"""
_END = """
after = len(os.listdir("/proc/self/task"))
assert after == before, (before, after)
"""


@pytest.mark.parametrize(
    "work",
    [
        "slicefile.write_rows(here / 's', [Row(f'r{i}', 's', 't', 'l') for i in range(3000)]);"
        "slicefile.read_rows(here / 's', ['s']); slicefile.count_subjects([here / 's'] * 2)",
        "index.write_index(here / 'i', index.make_index((f's{i}', 'f') for i in range(99_000)));"
        "index.matching(here / 'i', ['s1'], ['f']); index.holds_any(here / 'i', ['s9'])",
        "pq.write_table(table, here / 'p', row_group_size=999);"
        "scan(here, [], ['.s3t'], [], needles, [])",
        "options = pa.ipc.IpcWriteOptions(compression='zstd', use_threads=False)\n"
        "with pa.ipc.new_file(str(here / 'a'), table.schema, options=options) as file:\n"
        "    file.write_table(table)\n"
        "assert not scan(here, [], ['.s3t'], [], needles, []).undecodable",
        "import io; sink = io.BytesIO(); pq.write_table(table, sink);"
        "assert carving._is_whole('parquet', sink.getvalue())",
    ],
    ids=["slices", "identities", "a scanned table", "a scanned arrow file", "a carved table"],
)
def test_no_thread_is_left_that_may_outlive_the_answer(tmp_path: Path, work: str) -> None:
    subprocess.run([sys.executable, "-c", _BEGIN + work + _END, str(tmp_path)], check=True)


def test_a_column_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    write_index(tmp_path / "i", make_index([("s", "f")]))
    assert read_columns(tmp_path / "i", ["form", "subject"]).column_names == ["form", "subject"]
    with pytest.raises(pa.ArrowInvalid, match="subject, text"):
        read_columns(tmp_path / "i", ["subject", "text"])


def test_nothing_of_ours_reads_through_arrows_data_sets() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for room in ("flows", "s3t_core")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (
            isinstance(node, ast.Attribute)
            and node.attr in ("read_table", "read_parquet", "read_feather", "ParquetDataset")
        )
        or (
            isinstance(node, ast.Import)
            and any(name.name == "pyarrow.dataset" for name in node.names)
        )
    ]
    assert found == []
