"""Whoever reads a database as a file takes no lock from a connection of the same process."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from s3t_core import unclosed
from s3t_core.erasure.decoding.still import held_still, is_sqlite
from s3t_core.erasure.needles import make_needles
from s3t_core.erasure.residue import scan
from s3t_core.files import is_written, md5_of, open_files, open_regular, read_regular

_WRITES = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0)
try:
    connection.execute("insert into t values ('theirs')")
    connection.commit()
    print("written")
except sqlite3.OperationalError as error:
    print(error)
"""


def _scanned(path: Path, is_open: bool = False) -> None:
    names = [f"a.db{end}" for end in ("", "-wal", "-shm", "-journal")]
    scan(path.parent, [], names, [], make_needles(["person-5"], []), [], is_open=lambda _: is_open)


def _still(path: Path) -> None:
    with held_still(path, None):
        pass


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize(
    "read",
    [
        _scanned,
        lambda path: _scanned(path, is_open=True),
        is_sqlite,
        md5_of,
        read_regular,
        _still,
        lambda path: [read_regular(p) for p in sorted(path.parent.iterdir())],
    ],
    ids=["scan", "scan of what is open", "kind", "md5", "bytes", "copy", "all beside it"],
)
def test_a_lock_of_this_process_stays_when_its_database_is_read(
    tmp_path: Path,
    mode: str,
    read: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("s3t_core.erasure.decoding.still._PATIENCE_SECONDS", 0)
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as ours:
        ours.execute(f"pragma journal_mode = {mode}")
        ours.execute("create table t (x)")
        ours.execute("begin immediate")
        ours.execute("insert into t values ('ours')")
        with contextlib.suppress(Exception):  # a database that is locked may be refused
            read(path)
        told = subprocess.run(
            [sys.executable, "-c", _WRITES, str(path)], check=True, capture_output=True, text=True
        )
        assert told.stdout == "database is locked\n"
        ours.execute("commit")
        assert ours.execute("select * from t").fetchall() == [("ours",)]


def test_a_database_that_is_being_made_keeps_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as ours:
        ours.execute("begin exclusive")
        assert path.stat().st_size == 0
        read_regular(path)
        told = subprocess.run(
            [sys.executable, "-c", _WRITES, str(path)], check=True, capture_output=True, text=True
        )
        assert told.stdout == "database is locked\n"


def test_a_lock_stays_however_many_other_databases_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unclosed, "_MOST", 8)
    path = _database(tmp_path / "a.db")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as ours:
        ours.execute("begin immediate")
        read_regular(path)
        for number in range(30):
            read_regular(_database(tmp_path / f"{number}.db"))
        told = subprocess.run(
            [sys.executable, "-c", _WRITES, str(path)], check=True, capture_output=True, text=True
        )
        assert told.stdout == "database is locked\n"


def _database(path: Path) -> Path:
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.execute("create table t (x)")
        made.commit()
    return path


def test_a_database_is_read_as_any_file_is(tmp_path: Path) -> None:
    path = _database(tmp_path / "a.db")
    whole = path.read_bytes()
    with open_regular(path) as first, open_regular(path) as second:
        assert first.read(16) == whole[:16] and second.read() == whole  # each at its own place
        assert first.seek(-10, os.SEEK_END) == len(whole) - 10 and first.read() == whole[-10:]
        assert (
            first.seek(3) == 3 and first.seek(4, os.SEEK_CUR) == 7 and first.read(9) == whole[7:16]
        )
        with pytest.raises(OSError, match="before the file begins"):
            first.seek(-1)
    assert first.closed and read_regular(path) == whole
    with path.open("ab") as file:
        file.write(b"more")
    assert read_regular(path) == whole + b"more"
    other = _database(tmp_path / "b.db")
    other.write_bytes(whole + b"another")
    other.replace(path)
    assert read_regular(path) == whole + b"another"


def test_what_is_only_kept_from_being_closed_is_not_written_by_anybody(tmp_path: Path) -> None:
    path = _database(tmp_path / "a.db")
    read_regular(path)
    assert not is_written(path, open_files())
    with path.open("ab"):
        assert is_written(path, open_files())


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_no_more_descriptors_stay_than_may_and_none_of_a_file_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unclosed, "_MOST", 8)
    before = _descriptors()
    (tmp_path / "first.db").write_bytes(unclosed.SQLITE_MAGIC + b"the first")
    with open_regular(tmp_path / "first.db") as first:
        for number in range(30):
            read_regular(_database(tmp_path / f"{number}.db"))
        assert first.read().endswith(b"the first")  # not closed under who reads it
    assert len(unclosed.descriptors()) <= 9
    for path in tmp_path.iterdir():
        path.unlink()
    read_regular(_database(tmp_path / "last.db"))
    assert len(unclosed.descriptors()) <= 8
    assert _descriptors() <= before + 2
    for number in range(30):
        (tmp_path / f"{number}.txt").write_bytes(b"no database")
        read_regular(tmp_path / f"{number}.txt")
    assert _descriptors() <= before + 2
