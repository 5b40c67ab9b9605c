"""Values that stand one behind the other, with nothing between them: an id is no word there."""

import datetime
import gzip
import io
import os
import pickle
import re
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s3t_core.erasure.decoding.logs import JOURNAL_MAGIC, places_in_journal
from s3t_core.erasure.decoding.parts import Rows
from s3t_core.erasure.needles import make_needles
from s3t_core.erasure.residue import scan
from s3t_core.ports import ScanReport

ID = "customer-4711"
LONG = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
TEXT = "a canary sings of a very particular morning in the harbour of a town"


def scanned(folder: Path, ids: list[str], texts: list[str] = []) -> ScanReport:  # noqa: B006
    return scan(folder, [], [".s3t"], [], make_needles(ids, texts), [])


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The system's own directory, whatever is in it."""
    (tmp_path / ".s3t").mkdir()
    return tmp_path / ".s3t"


def _filled(path: Path, secure: bool = False, rows: int = 1) -> sqlite3.Connection:
    """A table of three columns; the row in the middle has ID in its second."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA secure_delete={'ON' if secure else 'OFF'}")
    connection.execute("CREATE TABLE tags (key TEXT, value TEXT, run TEXT)")
    for n in range(rows):
        named = ID if n == rows // 2 else f"other{n:05}"
        connection.execute("INSERT INTO tags VALUES ('customer', ?, ?)", (named, "cd" * 16))
    connection.commit()
    return connection


def _deleted(path: Path) -> None:
    connection = _filled(path)
    connection.execute("DELETE FROM tags")
    connection.commit()
    connection.close()


def _one_of_many_deleted(path: Path) -> None:
    connection = _filled(path, rows=60)
    connection.execute("DELETE FROM tags WHERE value = ?", (ID,))
    connection.commit()
    connection.close()


def _dropped(path: Path) -> None:
    connection = _filled(path, rows=500)
    connection.execute("DROP TABLE tags")
    connection.execute("CREATE TABLE others (a)")
    connection.commit()
    connection.close()


def _without_rowid(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA secure_delete=OFF")
    connection.execute(
        "CREATE TABLE tags (key TEXT, value TEXT, PRIMARY KEY (value, key)) WITHOUT ROWID"
    )
    connection.execute("INSERT INTO tags VALUES ('customer', ?)", (ID,))
    connection.commit()
    connection.execute("DELETE FROM tags")
    connection.commit()
    connection.close()


_KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("CREATE TABLE runs (id TEXT, name TEXT, parameters TEXT, state TEXT)")
connection.execute("INSERT INTO runs VALUES (?, ?, 'done', 'x')", ("ab12" * 8, sys.argv[2]))
connection.commit()
connection.execute("UPDATE runs SET name = 'bold-fox'")
connection.commit()
os._exit(0)
"""


def _older_frame(path: Path) -> None:
    """As a killed process leaves its log."""
    subprocess.run([sys.executable, "-c", _KILLED, str(path), ID], check=True)


_IN_A_JOURNAL = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA secure_delete=ON")
connection.execute("PRAGMA journal_mode=PERSIST")
connection.execute("CREATE TABLE runs (id TEXT, name TEXT, state TEXT)")
connection.execute("INSERT INTO runs VALUES ('x', 'y', ?)", ("later " * 200,))
connection.execute("INSERT INTO runs VALUES (?, ?, 'x')", ("ab12" * 8, sys.argv[2]))
connection.execute("UPDATE runs SET name = 'bold-fox'")
os._exit(0)
"""


def _in_a_journal(path: Path) -> None:
    subprocess.run([sys.executable, "-c", _IN_A_JOURNAL, str(path), ID], check=True)


UNSEEN: dict[str, Callable[[Path], None]] = {
    "deleted": _deleted,
    "one of many deleted": _one_of_many_deleted,
    "dropped table": _dropped,
    "deleted, without rowid": _without_rowid,
    "older frame of a log": _older_frame,
    "kept in a journal": _in_a_journal,
}


@pytest.mark.parametrize("kind", UNSEEN)
def test_an_id_in_rows_that_no_query_shows_is_found(own: Path, kind: str) -> None:
    """A row that was deleted or changed stays where SQLite had it, its values side by side."""
    UNSEEN[kind](own / "mlflow.db")
    there = any(ID.encode() in path.read_bytes() for path in own.iterdir())
    assert there and scanned(own.parent, [ID]).residue


_FULL_DISK = """
import os, resource, signal, sqlite3, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("CREATE TABLE runs (id TEXT, name TEXT, parameters TEXT, state TEXT)")
connection.commit()
size = os.path.getsize(sys.argv[1] + "-wal") + 24 + 4096 - int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    connection.execute("INSERT INTO runs VALUES ('x', 'y', ?, 'z')", ("later " * 200,))
    connection.execute("INSERT INTO runs VALUES (?, ?, 'done', 'x')", ("ab12" * 8, sys.argv[2]))
    connection.commit()
except sqlite3.OperationalError:
    os._exit(0)
os._exit(1)
"""


@pytest.mark.parametrize("cut", [1, 8, 100, 512])
def test_an_id_in_a_frame_that_was_not_written_to_its_end_is_found(own: Path, cut: int) -> None:
    """As the disk ran full."""
    subprocess.run([sys.executable, "-c", _FULL_DISK, str(own / "x.db"), ID, str(cut)], check=True)
    found = [p.name for p in own.iterdir() if ID.encode() in p.read_bytes()]
    assert found == ["x.db-wal"]
    assert scanned(own.parent, [ID]).residue == (".s3t/x.db",)


@pytest.mark.parametrize("cut", [1, 4, 8, 100, 600])
def test_an_id_in_a_record_that_was_not_written_to_its_end_is_found(own: Path, cut: int) -> None:
    _in_a_journal(own / "x.db")
    journal = own / "x.db-journal"
    data = journal.read_bytes()
    at = data.index(ID.encode())
    cut_at = 512 + ((at - 512) // 4104 + 1) * 4104 - cut
    assert cut_at > at + len(ID)
    journal.write_bytes(data[:cut_at])
    assert scanned(own.parent, [ID]).residue == (".s3t/x.db",)


def test_a_packed_cell_in_a_part_of_a_frame_is_unpacked(own: Path) -> None:
    connection = sqlite3.connect(own / "x.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (v BLOB)")
    connection.commit()
    size = (own / "x.db-wal").stat().st_size
    connection.execute("INSERT INTO t VALUES (?)", (gzip.compress(f"It is {ID}.".encode()),))
    connection.commit()
    whole, log = (own / "x.db").read_bytes(), (own / "x.db-wal").read_bytes()
    connection.close()
    (own / "x.db").write_bytes(whole)
    (own / "x.db-wal").write_bytes(log[: size + 24 + 4096 - 1])
    assert scanned(own.parent, [ID]).residue == (".s3t/x.db",)


@settings(max_examples=1000)
@given(places=st.lists(st.integers(0, 3000), max_size=6), size=st.sampled_from([512, 1024]))
@example([994], 512)
@example([994], 1024)
def test_no_byte_of_a_journal_is_in_no_place(places: list[int], size: int) -> None:
    """Whatever a journal says of itself: what is looked at has every text in it whole."""
    data = bytearray(3100)
    for n, at in enumerate(places):
        data[at : at + 8] = JOURNAL_MAGIC if n % 2 else struct.pack(">L", n + 1) + b"abcd"
        data[at + 20 : at + 20 + len(ID)] = ID.encode()
    journal = bytes(data[:3100])
    read = [place.read() for place in places_in_journal(io.BytesIO(journal), size)]
    for found in re.finditer(ID.encode(), journal):
        assert any(ID.encode() in each for each in read), found.start()


_NEW = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=10")
connection.execute("BEGIN")
connection.execute("CREATE TABLE runs (id TEXT, name TEXT, state TEXT)")
for n in range(3000):
    name = sys.argv[2] if n == 100 else "bold-fox"
    connection.execute("INSERT INTO runs VALUES (?, ?, 'x')", ("ab12" * 8, name))
os._exit(0)
"""


@pytest.mark.parametrize("name", ["x.db", "x.sqlite", "x.sqlite3"])
def test_a_database_whose_first_page_was_not_written_stops(own: Path, name: str) -> None:
    """As a process leaves it that is killed while it fills a new one."""
    subprocess.run([sys.executable, "-c", _NEW, str(own / name), ID], check=True)
    assert ID.encode() in (own / name).read_bytes()
    assert f".s3t/{name}" in scanned(own.parent, [ID]).undecodable


@pytest.mark.parametrize("size", [16, 100, 4096])
def test_a_database_without_its_beginning_stops(own: Path, size: int) -> None:
    _filled(own / "x.db").close()
    data = (own / "x.db").read_bytes()
    (own / "x.db").write_bytes(bytes(size) + data[size:])
    assert scanned(own.parent, [ID]).undecodable == (".s3t/x.db",)


@pytest.mark.parametrize("database", [b"", bytes(4096), b"no database", None])
@pytest.mark.parametrize("zeroed", [0, 32])
def test_a_log_beside_what_is_no_database_stops(
    own: Path, database: bytes | None, zeroed: int
) -> None:
    _older_frame(own / "x.db")
    log = (own / "x.db-wal").read_bytes()
    (own / "x.db-wal").write_bytes(bytes(zeroed) + log[zeroed:])
    (own / "x.db").unlink()
    if database is not None:
        (own / "x.db").write_bytes(database)
    assert ".s3t/x.db-wal" in scanned(own.parent, [ID]).undecodable


@pytest.mark.parametrize("name", ["x.db", "x.db-wal", "x.db-journal"])
def test_nothing_is_in_what_is_empty(own: Path, name: str) -> None:
    """What SQLite makes before it has anything to write, and what it leaves."""
    for data in (b"", bytes(8192)):
        (own / name).write_bytes(data)
        report = scanned(own.parent, [ID])
        assert not report.undecodable and not report.residue


@pytest.mark.parametrize("kind", ["older frame of a log", "kept in a journal", "dropped table"])
def test_a_longer_id_in_rows_that_no_query_shows_is_somebody_elses(own: Path, kind: str) -> None:
    """Where a page lists its cells, their headers tell where a value ends."""
    UNSEEN[kind](own / "mlflow.db")
    assert not scanned(own.parent, [ID.removesuffix("1")]).residue
    assert not scanned(own.parent, [ID.removeprefix("c")]).residue


def test_a_longer_id_in_rows_that_are_there_is_somebody_elses(own: Path) -> None:
    """What a query gives is told apart, and a page's own list says what that is."""
    _filled(own / "mlflow.db", rows=60).close()
    assert scanned(own.parent, [ID]).residue
    assert not scanned(own.parent, [ID.removesuffix("1")]).residue


def test_a_page_that_calls_free_what_cannot_be_is_searched_whole(own: Path) -> None:
    """Queries do not look at that list, so nobody else would notice."""
    path = own / "mlflow.db"
    _one_of_many_deleted(path)
    data = bytearray(path.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    begin = next(
        b for b in range(0, len(data), page) if ID.encode() in data[b : b + page] and data[b] == 13
    )
    free = begin + int.from_bytes(data[begin + 1 : begin + 3], "big")
    data[free + 2 : free + 4] = b"\0\1"
    path.write_bytes(data)
    assert sqlite3.connect(path).execute("SELECT count(*) FROM tags").fetchone() == (59,)
    assert scanned(own.parent, [ID]).residue


def test_what_secure_delete_took_away_is_gone(own: Path) -> None:
    """So that a person waits for nothing."""
    connection = _filled(own / "mlflow.db", secure=True, rows=60)
    connection.execute("DELETE FROM tags WHERE value = ?", (ID,))
    connection.commit()
    connection.close()
    assert not scanned(own.parent, [ID]).residue


def test_vacuum_takes_away_what_was_deleted(own: Path) -> None:
    """What docs/operations.md tells whoever finds one."""
    _one_of_many_deleted(own / "mlflow.db")
    connection = sqlite3.connect(own / "mlflow.db")
    connection.execute("VACUUM")
    connection.close()
    assert not scanned(own.parent, [ID]).residue


@given(st.lists(st.binary(min_size=0, max_size=300), min_size=1, max_size=40), st.randoms())
def test_a_database_that_was_damaged_ends_no_scan(
    tmp_path_factory: pytest.TempPathFactory, values: list[bytes], chance: object
) -> None:
    """Whatever its pages say: found, passed or told as undecodable, and never an error."""
    folder = tmp_path_factory.mktemp("damaged")
    (folder / ".s3t").mkdir()
    path = folder / ".s3t" / "x.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (v BLOB)")
    connection.executemany("INSERT INTO t VALUES (?)", [(v,) for v in values])
    connection.commit()
    connection.close()
    data = bytearray(path.read_bytes())
    for _ in range(20):
        data[chance.randrange(32, len(data))] = chance.randrange(256)  # type: ignore[attr-defined]
    path.write_bytes(data)
    scanned(folder, [ID])


def _pickled(value: str, protocol: int) -> bytes:
    return pickle.dumps({"who": value, "what": ["x"]}, protocol)


def _cbor(value: str) -> bytes:
    size = len(value)
    head = bytes([0x60 | size]) if size < 24 else bytes([0x78, size])
    return b"\xa2cwho" + head + value.encode() + b"dwhatax"


MEASURED: dict[str, Callable[[str], bytes]] = {
    "pickle 2": lambda v: _pickled(v, 2),
    "pickle 3": lambda v: _pickled(v, 3),
    "pickle 4": lambda v: _pickled(v, 4),
    "pickle 5": lambda v: _pickled(v, 5),
    "MessagePack str8": lambda v: b"\x82\xa3who\xd9" + bytes([len(v)]) + v.encode() + b"\x41\x01",
    "MessagePack str16": lambda v: b"\xda" + struct.pack(">H", len(v)) + v.encode() + b"A",
    "Protocol Buffers": lambda v: b"\x0a" + bytes([len(v)]) + v.encode() + b"J\x01y",
    "CBOR": _cbor,
    "Thrift": lambda v: b"\x0b\0\1" + struct.pack(">I", len(v)) + v.encode() + b"A",
    "little-endian": lambda v: struct.pack("<I", len(v)) + v.encode() + b"A",
}


@pytest.mark.parametrize("kind", MEASURED)
@pytest.mark.parametrize("value", [ID, LONG, "jonas9", "o" * 49 + ".berg@ab"])
def test_an_id_behind_its_own_length_is_found(own: Path, kind: str, value: str) -> None:
    """The byte that says how long it is may be a letter, and what comes behind it too."""
    (own / "x.bin").write_bytes(MEASURED[kind](value))
    assert scanned(own.parent, [value]).residue


@pytest.mark.parametrize(
    "around", ["x%s", "%sx", "-%s", "3%s", "d41d8cf%s98ecf8427e", "customer-%s", "_%s_"]
)
def test_a_part_of_a_longer_word_is_none(own: Path, around: str) -> None:
    """Six digits are somebody's id, and stand in many a digest."""
    (own / "x.txt").write_text("what\n" + around % "123456" + "\nwhere\n")
    assert not scanned(own.parent, ["123456"]).residue


@pytest.mark.parametrize("before", ["\t", "\n", "\r", " ", "é", "anna,"])
def test_a_number_that_goes_on_is_somebody_elses_wherever_it_stands_in_a_text(
    own: Path, before: str
) -> None:
    """Ten bytes stand behind each line break of such a list: a break is 10 as well. A blank is 32,
    the last byte of é is what MessagePack writes before nine."""
    for size in (8, 9, 10, 11, 12, 13, 32):
        asked = f"customer-{'4711' * 8}"[-size:]
        (own / "x.txt").write_text(f"what{before}{asked}1 and{before}{asked}2\n")
        assert not scanned(own.parent, [asked]).residue, size


MOMENT = datetime.datetime(2026, 11, 26, 9, 30, 1, 250000, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("column", "asked"),
    [
        (pa.array([MOMENT], pa.timestamp("us", tz="UTC")), "2026-11-26T09:30:01.250000Z"),
        (pa.array([MOMENT], pa.timestamp("us", tz="Asia/Tokyo")), "2026-11-26T09:30:01.250000Z"),
        (pa.array([MOMENT.replace(tzinfo=None)], pa.timestamp("ms")), "2026-11-26T09:30:01.250000"),
        (pa.array([MOMENT.replace(microsecond=0)], pa.timestamp("s")), "2026-11-26T09:30:01"),
        (
            pa.array([[MOMENT]], pa.list_(pa.timestamp("us", tz="UTC"))),
            "2026-11-26T09:30:01.250000Z",
        ),
        (pa.array([MOMENT.date()], pa.date32()), "2026-11-26"),
        (pa.array([Decimal("4711000")], pa.decimal128(9, 0)), "4711000"),
        (pa.array([4711000.0], pa.float64()), "4711000"),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_cell_that_is_no_text_is_found_by_the_id_that_it_is(
    own: Path, kind: str, column: pa.Array, asked: str
) -> None:
    """An id is written in one way, whatever its column was (s3t_core.identity)."""
    table = pa.table({"who": column})
    if kind == "parquet":
        pq.write_table(table, own / "x.parquet")
    else:
        with pa.ipc.new_file(own / "x.arrow", table.schema) as writer:
            writer.write_table(table)
    assert scanned(own.parent, [asked]).residue


def _arrow(batches: list[list[str]]) -> bytes:
    schema = pa.schema([("what", pa.string())])
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        for values in batches:
            writer.write_batch(pa.record_batch([pa.array(values)], schema=schema))
    return sink.getvalue()


def _with_fewer(data: bytes) -> bytes:
    """The same Arrow file, whose footer says that it has one record batch."""
    size = int.from_bytes(data[-10:-6], "little")
    for at in range(len(data) - 10 - size, len(data) - 28, 4):
        if data[at : at + 4] == struct.pack("<I", 2):
            changed = data[:at] + struct.pack("<I", 1) + data[at + 4 :]
            try:
                if pa.ipc.open_file(pa.BufferReader(changed)).num_record_batches == 1:
                    return changed
            except pa.ArrowInvalid:
                continue
    raise AssertionError("no such place")


def test_a_record_batch_that_its_footer_does_not_name_stops(own: Path) -> None:
    """An Arrow file is a stream with a footer behind it, and whoever skips that reads all."""
    whole = _arrow([[f"harmless {n}" for n in range(50)], [f"{TEXT} {n}" for n in range(50)]])
    (own / "x.arrow").write_bytes(_with_fewer(whole))
    report = scanned(own.parent, [], [TEXT + " 7"])
    assert report.undecodable and report.residue


def test_bytes_between_stream_and_footer_of_an_arrow_file_stop(own: Path) -> None:
    """Nothing reads them."""
    whole = _arrow([["harmless"]])
    size = int.from_bytes(whole[-10:-6], "little")
    begin = len(whole) - 10 - size
    (own / "x.arrow").write_bytes(whole[:begin] + os.urandom(64) + whole[begin:])
    assert scanned(own.parent, [ID]).undecodable


def _one_wrong_offset(data: bytes) -> bytes:
    """An Arrow stream or file whose 200th text is said to end where nothing is."""
    ends = [sum(len(f"some text number {j}") for j in range(n)) for n in range(8)]
    at = data.index(struct.pack("<8i", *ends)) + 4 * 200
    return data[:at] + struct.pack("<i", 2**31 - 1) + data[at + 4 :]


def _a_hole(data: bytes) -> bytes:
    ends = [sum(len(f"some text number {j}") for j in range(n)) for n in range(8)]
    at = data.index(struct.pack("<8i", *ends)) + 400
    return data[:at] + bytes(200) + data[at + 200 :]


@pytest.mark.parametrize("damaged", [_one_wrong_offset, _a_hole])
@pytest.mark.parametrize("make", [pa.ipc.new_stream, pa.ipc.new_file])
def test_a_damaged_arrow_file_stops_by_name(
    own: Path, damaged: Callable[[bytes], bytes], make: Callable[..., Any]
) -> None:
    """Arrow itself reads wherever an offset leads to: the process dies."""
    table = pa.table({"text": [f"some text number {n}" for n in range(200)]})
    sink = pa.BufferOutputStream()
    with make(sink, table.schema) as writer:
        writer.write_table(table)
    (own / "stored").write_bytes(damaged(sink.getvalue().to_pybytes()))
    scanned_apart = (
        "import sys; from pathlib import Path; "
        "from tests.unit.erasure.test_values import scanned, ID; "
        "sys.exit(scanned(Path(sys.argv[1]), [ID]).undecodable != ('.s3t/stored',))"
    )
    subprocess.run([sys.executable, "-c", scanned_apart, str(own.parent)], check=True)


@pytest.mark.parametrize("quotes", [False, True])
def test_a_damaged_text_in_a_parquet_file_stops_by_name(own: Path, quotes: bool) -> None:
    texts = [f"some text number {n}" for n in range(50)] + [f"asked by {ID}" if quotes else "x"]
    pq.write_table(
        pa.table({"text": texts}), own / "kept", compression="none", use_dictionary=False
    )
    data = (own / "kept").read_bytes()
    (own / "kept").write_bytes(data.replace(b"number 17", b"\xffumber 17", 1))
    assert scanned(own.parent, [ID]).undecodable == (".s3t/kept",)


def test_rows_that_cannot_be_read_stop_by_name(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": [ID]}), own / "kept")

    def broken(_: Rows) -> bytes:
        raise SystemError("Negative size passed to PyUnicode_New")

    monkeypatch.setattr(Rows, "joined", broken)
    assert scanned(own.parent, [ID]).undecodable == (".s3t/kept",)


@pytest.mark.parametrize("order", [(".db", ".dat"), (".dat", ".db")])
def test_equal_files_are_each_what_they_are_called(own: Path, order: tuple[str, str]) -> None:
    """Whichever is looked at first."""
    for n, ending in enumerate(order):
        (own / f"{n}{ending}").write_bytes(b"no database " * 10_000)
    assert [Path(p).suffix for p in scanned(own.parent, [ID]).undecodable] == [".db"]


def test_a_whole_arrow_file_is_searched(own: Path) -> None:
    """All of its batches, none, and those with dictionaries."""
    table = pa.table({"what": pa.array([TEXT, "x", TEXT]).dictionary_encode()})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    (own / "dictionary.arrow").write_bytes(sink.getvalue())
    (own / "none.arrow").write_bytes(_arrow([]))
    report = scanned(own.parent, [], [TEXT])
    assert report.residue and not report.undecodable
