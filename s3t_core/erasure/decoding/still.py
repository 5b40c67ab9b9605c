"""A database that a process writes, as it was at one time.

Whoever reads the file of such a database, and then its write-ahead log, reads two times of it: a
page may have moved from where it was not read yet to where it was read before, and a page that a
list names may be another one by then. So nobody may write for as long as it takes to copy both, and
the copy is searched.
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from s3t_core.erasure.decoding.parts import CHUNK_BYTES, Undecodable
from s3t_core.files import open_regular
from s3t_core.unclosed import SQLITE_MAGIC

_PATIENCE_SECONDS = 30
_BESIDE = ("-wal", "-journal")


def is_sqlite(path: Path) -> bool:
    """Whether it is a file that begins as a database of SQLite's does."""
    try:
        with open_regular(path) as file:
            return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC
    except OSError:
        return False


@contextlib.contextmanager
def held_still(path: Path, temporary: Path | None) -> Iterator[Path]:
    """A copy of a database, in `temporary`, with the log and the journal beside it, made while
    nobody else could write to them; `path` itself where nobody may keep others from writing to it.
    Raises Undecodable where somebody else keeps everybody from it."""
    with tempfile.TemporaryDirectory(
        dir=temporary,
        prefix="scan-",
    ) as folder:
        copy = Path(folder) / "copy.db"
        try:
            _copy(path, copy)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) in (
                sqlite3.SQLITE_BUSY,
                sqlite3.SQLITE_LOCKED,
            ):
                raise Undecodable("SQLite: locked by the process that writes it") from None
            copy = path
        yield copy


def _copy(path: Path, copy: Path) -> None:
    uri = f"file:{quote(os.fsencode(path))}?mode=rw"
    with (
        open_regular(path) as database,
        contextlib.closing(
            sqlite3.connect(
                uri,
                uri=True,
                timeout=_PATIENCE_SECONDS,
                isolation_level=None,
            )
        ) as connection,
    ):
        connection.execute("BEGIN IMMEDIATE")
        with copy.open("wb") as file:
            shutil.copyfileobj(database, file, CHUNK_BYTES)
        for suffix in _BESIDE:
            beside = Path(f"{path}{suffix}")
            if beside.is_file():
                shutil.copyfile(beside, f"{copy}{suffix}")
        connection.execute("ROLLBACK")
