"""The residue scan reads every file to its end, or says that it could not."""

import base64
import bz2
import contextlib
import gzip
import html
import io
import json
import lzma
import os
import random
import re
import socket
import sqlite3
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s3t_core.erasure.decoding.kinds import MAX_DEPTH
from s3t_core.erasure.decoding.still import held_still
from s3t_core.erasure.needles import make_needles
from s3t_core.erasure.residue import scan
from s3t_core.errors import ResidueFound
from s3t_core.ports import ScanReport, Target
from s3t_core.records import Row
from s3t_core.slicefile import write_rows
from tests.waiting import fails_after

HER = "a" * 64
TARGET = Target("q", HER, "")
TEXT = 'a long confession about the café on the corner, "never" to be read\nagain by anyone at all'
PERSON = "person-4711"
FILLER = os.urandom(3000).hex()


def told(count: int = 40) -> bytes:
    """Bytes in which the text stands last, after much else."""
    return (FILLER * count).encode() + TEXT.encode()


def scanned(folder: Path, *own: str, **more: object) -> ScanReport:
    return scan(
        folder,
        [],
        list(own) or [p.name for p in folder.iterdir()],
        [],
        make_needles([PERSON], [TEXT]),
        [TARGET],
        **more,
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("to", ["beside", "beside/deep/er", "zz"])
def test_what_a_link_of_the_systems_leads_to_is_its_own_where_it_leads_within(
    tmp_path: Path, to: str, whole: bool
) -> None:
    """A directory of ours may be a link to a disk that is mounted in the workspace: what is there
    is no copy of the user's. A file in it that was cut stops a certificate, too."""
    place = tmp_path / to
    place.mkdir(parents=True)
    data = gzip.compress(told())
    (place / "left.gz").write_bytes(data if whole else data[:-9])
    (tmp_path / "ours").symlink_to(place)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "copy.txt").write_text(TEXT)
    (tmp_path / "log").write_text("nothing")
    found = scanned(tmp_path, "ours", "log")
    stops = found.residue if whole else found.undecodable
    assert [Path(name).name for name in stops] == ["left.gz"]
    assert [Path(name).name for name in found.outside] == ["copy.txt"]


def _arrow(codec: str) -> Callable[[bytes], bytes]:
    def compress(data: bytes) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, codec) as stream:
            stream.write(data)
        return bytes(sink.getvalue())

    return compress


def _zip(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b", data)
        archive.writestr("c", b"x")
    return file.getvalue()


def _tar_gz(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        entry = tarfile.TarInfo("a/b")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def _tar(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("first", "second"):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def _table(data: bytes) -> pa.Table:
    return pa.table(
        {
            "words": [f"{i} {FILLER[:200]}" for i in range(3000)]
            + [data[-200:].decode("utf-8", "ignore")]
        }
    )


def _parquet(data: bytes) -> bytes:
    file = io.BytesIO()
    pq.write_table(_table(data), file, compression="zstd", row_group_size=500)
    return file.getvalue()


def _arrow_file(data: bytes) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_file(
        file, _table(data).schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_table(_table(data), 500)
    return file.getvalue()


def _arrow_stream(data: bytes) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_stream(
        file, _table(data).schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_table(_table(data), 500)
    return file.getvalue()


def _sqlite(data: bytes) -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (x BLOB)")
    connection.executemany(
        "INSERT INTO t VALUES (?)", [(gzip.compress(data + bytes([i])),) for i in range(3)]
    )
    connection.commit()
    return connection.serialize()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "zlib": zlib.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "xz": lzma.compress,
    "zstd": _arrow("zstd"),
    "lz4": _arrow("lz4"),
    "zip": _zip,
    "tar": _tar,
    "tar.gz": _tar_gz,
    "parquet": _parquet,
    "arrow": _arrow_file,
    "arrows": _arrow_stream,
    "sqlite": _sqlite,
}


@pytest.mark.parametrize("kind", PACKED)
def test_what_is_whole_is_searched_to_its_end(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(PACKED[kind](told()))
    report = scanned(tmp_path)
    assert (report.residue, report.undecodable) == (("file",), ())
    (tmp_path / "file").write_bytes(PACKED[kind](told()[: -len(TEXT)]))
    report = scanned(tmp_path)
    assert (report.residue, report.undecodable) == ((), ())


@pytest.mark.parametrize("kind", PACKED)
def test_what_was_cut_is_never_taken_for_searched(tmp_path: Path, kind: str) -> None:
    """Wherever a file was cut, behind its magic: it stops the certificate unless its text was
    found."""
    whole = PACKED[kind](told(4))
    lengths = {
        *range(16, 64),
        *range(64, len(whole), max(len(whole) // 60, 1)),
        *range(len(whole) - 12, len(whole)),
    }
    passed = []
    for length in sorted(lengths):
        (tmp_path / "file").write_bytes(whole[:length])
        report = scanned(tmp_path)
        is_known = length >= {"tar": 262, "zlib": 110, "lzma": 40}.get(
            kind, 0
        )  # before that nothing is in them
        passed += [length] if is_known and not report.undecodable and not report.residue else []
    # an Arrow stream is whole after any of its batches: what is behind one was never in the file
    assert all(kind == "arrows" and length > 100 for length in passed) and len(passed) <= 8


@pytest.mark.parametrize("kind", sorted(PACKED.keys() - {"sqlite", "tar.gz"}))
def test_bytes_behind_the_end_are_searched_or_stop(tmp_path: Path, kind: str) -> None:
    clean = PACKED[kind](b"nothing of hers " * 20)
    hidden = gzip.compress(told(1))
    (tmp_path / "file").write_bytes(clean + hidden)
    report = scanned(tmp_path)
    assert report.undecodable or report.residue


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd", "lz4", "zlib", "lzma"])
def test_every_member_is_read(tmp_path: Path, kind: str) -> None:
    pack = PACKED[kind]
    (tmp_path / "file").write_bytes(pack(b"first ") + pack(told(1)))
    assert scanned(tmp_path).residue == ("file",)
    (tmp_path / "file").write_bytes(pack(b"first ") + pack(told(1))[:-9])
    assert scanned(tmp_path).undecodable == ("file",)


def test_a_deleted_entry_of_an_archive_is_not_passed_over(tmp_path: Path) -> None:
    whole = _zip(told(1))
    directory = whole.index(b"PK\x01\x02")
    second = whole.index(b"PK\x01\x02", directory + 4)
    end = whole.rindex(b"PK\x05\x06")
    kept = whole[second:end]  # the directory names "c" alone
    tail = (
        whole[end : end + 8]
        + (1).to_bytes(2, "little") * 2
        + len(kept).to_bytes(4, "little")
        + directory.to_bytes(4, "little")
        + b"\0\0"
    )
    (tmp_path / "file").write_bytes(whole[:directory] + kept + tail)
    assert zipfile.ZipFile(tmp_path / "file").namelist() == ["c"]
    assert scanned(tmp_path).undecodable == ("file",)


def _with_checksum(header: bytes) -> bytes:
    total = sum(header[:148] + b" " * 8 + header[156:])
    return header[:148] + b"%06o\0 " % total + header[156:]


def test_a_tar_is_read_to_its_end_or_stops(tmp_path: Path) -> None:
    packed = gzip.compress(told(1))
    whole = _tar(b"nothing ")
    hers = _tar(packed)
    second = hers.index(b"second")
    flipped = hers[: second + 200] + b"\1" + hers[second + 201 :]
    zeroed = whole[:1024] + bytes(512) + hers[second + 512 :]
    behind = (
        whole[: 1024 - 60] + gzip.compress(TEXT.encode()[:20])[:60].ljust(60, b"\0") + whole[1024:]
    )
    for content in (whole + hers, flipped, zeroed, behind, whole[:1024]):
        (tmp_path / "file").write_bytes(content)
        assert scanned(tmp_path).undecodable == ("file",)


@pytest.mark.parametrize("kind", [b"0", b"2", b"5", b"Z", b"7", b"v7", b"x"])
def test_every_entry_of_a_tar_is_read_whatever_its_type(tmp_path: Path, kind: bytes) -> None:
    data = gzip.compress(told(1))
    header = bytearray(512)
    header[:4], header[124:136] = b"name", b"%011o\0" % len(data)
    if kind != b"v7":
        header[156:157], header[257:265] = kind, b"ustar\x0000"
    (tmp_path / "file").write_bytes(
        _with_checksum(bytes(header)) + data + bytes(-len(data) % 512 + 1024)
    )
    assert scanned(tmp_path).residue == ("file",)


@pytest.mark.parametrize("style", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_tars_as_others_write_them_are_whole(tmp_path: Path, style: int) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=style) as archive:
        entries = [
            ("d", tarfile.DIRTYPE),
            ("l", tarfile.SYMTYPE),
            ("a/" * 60 + "long", tarfile.REGTYPE),
        ]
        for name, kind in [
            *entries,
            *([("ö" * 120, tarfile.REGTYPE)] if style != tarfile.USTAR_FORMAT else []),
        ]:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, 900 * (kind == tarfile.REGTYPE), "a"
            archive.addfile(entry, io.BytesIO(b"x" * 900))
        packed = tarfile.TarInfo("hers")
        packed.size = len(gzip.compress(told(1)))
        packed.pax_headers = {"size": str(packed.size), "comment": "several\nlines"}
        archive.addfile(packed, io.BytesIO(gzip.compress(told(1))))
    (tmp_path / "file").write_bytes(file.getvalue())
    report = scanned(tmp_path)
    assert (report.residue, report.undecodable) == (("file",), ())


def test_archives_within_archives_are_opened_to_a_depth_and_no_deeper(tmp_path: Path) -> None:
    data = told(1)
    for depth in range(MAX_DEPTH + 1):
        data = [gzip.compress, _zip, _arrow("zstd"), bz2.compress][depth % 4](data)
        (tmp_path / "file").write_bytes(data)
        report = scanned(tmp_path)
        assert (report.residue, report.undecodable) == (
            (("file",), ()) if depth < MAX_DEPTH else ((), ("file",))
        ), depth


def test_a_file_that_inflates_a_thousandfold_costs_no_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(gzip.compress(b"\0" * 150_000_000 + TEXT.encode()))
    tracemalloc.start()
    report = scanned(tmp_path)
    assert report.residue == ("file",) and tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "magic",
    [
        b"7z\xbc\xaf\x27\x1c",
        b"Rar!\x1a\x07\0",
        b"PARE",
        b"# v2 git bundle\n",
        b"REFT\1",
        b"PACK\0\0\0\x02",
    ],
)
def test_kinds_that_are_known_and_not_decoded_stop_too(tmp_path: Path, magic: bytes) -> None:
    (tmp_path / "ours").write_bytes(magic + b"\1" * 100)
    (tmp_path / "theirs").write_bytes(magic + b"\1" * 100)
    assert scanned(tmp_path, "ours").undecodable == ("ours",)


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_a_frame_that_is_passed_over_hides_nothing_and_nothing_behind_it(
    tmp_path: Path, kind: str
) -> None:
    def frame(content: bytes) -> bytes:
        return b"\x53\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content

    pack = PACKED[kind]
    for content in (
        frame(b"note") + pack(told(1)),
        frame(b"") * 2 + pack(told(1)),
        frame(gzip.compress(told(1))),
    ):
        (tmp_path / "file").write_bytes(content)
        assert scanned(tmp_path).residue == ("file",)
    for content in (frame(b"note") + pack(told(1))[:-9], frame(b"note" * 9)[:-1]):
        (tmp_path / "file").write_bytes(content)
        assert scanned(tmp_path).undecodable == ("file",)


@pytest.mark.parametrize("before", [b"#!/bin/sh\nunzip $0\n" * 9, b"PK\x07\x08", b"PK00"])
def test_a_zip_behind_other_bytes_is_opened(tmp_path: Path, before: bytes) -> None:
    (tmp_path / "file").write_bytes(before + _zip(told(1)))
    assert scanned(tmp_path).residue == ("file",)
    (tmp_path / "file").write_bytes(before + TEXT.encode() + _zip(b"nothing"))
    report = scanned(tmp_path)
    assert report.residue or report.undecodable


def test_orc_stops_and_a_text_that_begins_like_it_does_not(tmp_path: Path) -> None:
    from pyarrow import orc

    orc.write_table(pa.table({"t": [TEXT] * 3}), str(tmp_path / "file"), compression="zlib")
    assert scanned(tmp_path).undecodable == ("file",)
    (tmp_path / "file").write_bytes("ORCID of nobody, née\n".encode())
    assert scanned(tmp_path).undecodable == ()


def test_what_only_begins_like_a_compressed_file_stops_nothing(tmp_path: Path) -> None:
    for content in (
        b"x\x9c",
        b"x\x9c\xff\xff\xff of something",
        b"]\0\0\x80\0" + b"\xff" * 40,
        bytes(600),
        zlib.compress(told(1))[:30],
    ):
        (tmp_path / "file").write_bytes(content)
        assert scanned(tmp_path).undecodable == ()


@pytest.mark.parametrize("kind", ["zlib", "lzma"])
def test_what_began_to_decode_stops_where_it_is_damaged(tmp_path: Path, kind: str) -> None:
    whole = PACKED[kind](told(1))
    for content in (whole[:150] + b"\xff" * 40 + whole[150:], whole + b"and more", whole[:-1]):
        (tmp_path / "file").write_bytes(content)
        report = scanned(tmp_path)
        assert report.residue or report.undecodable == ("file",)


def test_an_archive_within_a_kind_that_is_not_sure_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(zlib.compress(gzip.compress(told(1))[:-9]))
    assert scanned(tmp_path).undecodable == ("file",)


def test_an_operators_broken_archive_stops_nothing_and_is_searched_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "theirs.gz").write_bytes(gzip.compress(told(1))[:-8] + TEXT.encode())
    report = scanned(tmp_path, "data")
    assert (report.undecodable, report.outside) == ((), ("theirs.gz",))


def test_an_object_whose_content_is_not_what_its_name_says_stops(tmp_path: Path) -> None:
    """A power cut leaves zeros under the right name."""
    content = b"something of a listing"
    name = md5(content, usedforsecurity=False).hexdigest()
    path = tmp_path / "remote" / "files" / "md5" / name[:2] / name[2:]
    path.parent.mkdir(parents=True)
    for ending in ("", ".dir"):
        at = path.with_name(path.name + ending)
        at.write_bytes(content)
        assert scanned(tmp_path).undecodable == ()
        at.write_bytes(bytes(len(content)))
        assert scanned(tmp_path).undecodable == (at.relative_to(tmp_path).as_posix(),)
        at.unlink()


def test_a_data_file_that_is_none_stops(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "slice.parquet").write_bytes(bytes(1000))
    assert scanned(tmp_path).undecodable == ("data/slice.parquet",)


@pytest.mark.parametrize("name", [".AbCdEfGhIjKlMnOpQrStUv.tmp", ".tmp-abc", "tmp_obj_ab12"])
def test_a_temporary_copy_that_says_nothing_stops(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(5000) + b"\x07rows")
    assert scanned(tmp_path).undecodable == (name,)
    (tmp_path / name).write_text('[{"md5": "ab"}]')
    assert scanned(tmp_path).undecodable == ()


def test_git_objects_that_do_not_inflate_stop(tmp_path: Path) -> None:
    path = tmp_path / ".git" / "objects" / "ab" / ("0" * 38)
    path.parent.mkdir(parents=True)
    whole = zlib.compress(b"blob 12\0" + told(1))
    path.write_bytes(whole)
    assert scanned(tmp_path).residue == (path.relative_to(tmp_path).as_posix(),)
    for length in (0, 1, 2, 30, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert scanned(tmp_path).undecodable == (path.relative_to(tmp_path).as_posix(),)


SPELT: dict[str, Callable[[str], bytes]] = {
    "UTF-16": lambda t: t.encode("utf-16"),
    "UTF-16, no mark": lambda t: b"log: " + t.encode("utf-16-le"),
    "UTF-16, other order": lambda t: b"log: " + t.encode("utf-16-be"),
    "UTF-32": lambda t: t.encode("utf-32"),
    "base64": lambda t: base64.b64encode(b"xy" + t.encode()),
    "base64url": lambda t: base64.urlsafe_b64encode(t.encode()),
    "base64 in lines": lambda t: base64.encodebytes(t.encode()),
    "base64 of JSON in JSON": lambda t: json.dumps(
        {"payload": base64.b64encode(json.dumps(t).encode()).decode()}
    ).encode(),
    "base64, no padding": lambda t: b"token=" + base64.b64encode(t.encode()).rstrip(b"="),
    "percent": lambda t: quote(t, safe="").encode(),
    "form": lambda t: quote_plus(t).encode(),
    "hexadecimal": lambda t: t.encode().hex().encode(),
    "JSON": lambda t: json.dumps(t).encode(),
    "JSON in JSON": lambda t: json.dumps(json.dumps({"t": json.dumps(t)})).encode(),
    "repr": lambda t: repr(t).encode(),
    "ascii": lambda t: ascii(t).encode(),
    "repr of bytes": lambda t: repr(t.encode()).encode(),
    "JSON in capitals": lambda t: re.sub(
        r"u[0-9a-f]{4}", lambda m: "u" + m[0][1:].upper(), json.dumps(t)
    ).encode(),
    "ascii in JSON": lambda t: json.dumps(ascii(t)).encode(),
    "entities": lambda t: t.replace('"', "&quot;").encode(),
}


@pytest.mark.parametrize("way", SPELT)
@pytest.mark.parametrize(
    "about",
    [TEXT, "Привет, это очень личное признание, которое никто не должен читать", f"\n{PERSON}\n"],
)
def test_however_it_is_spelt_it_is_found(tmp_path: Path, way: str, about: str) -> None:
    if about[1] == "р" and way in ("UTF-16, no mark", "UTF-16, other order"):
        pytest.skip("given up: docs/decisions/016-residue.md")
    needles = make_needles([PERSON], [TEXT, about])
    (tmp_path / "log").write_bytes(
        b"before it " + SPELT[way](about)
        if way not in ("UTF-16", "UTF-32")
        else SPELT[way]("before it " + about)
    )
    assert scan(tmp_path, [], ["log"], [], needles, []).residue == ("log",)


@pytest.mark.parametrize(
    "form",
    [
        "who=anna+canary+4711&n=1",
        "anna+canary+4711",
        "/?who=anna+canary+4711",
        "anna\\u0020canary+4711",
        "\x01\x02\x03 anna+canary+4711 \x04\x05\x06",
        "got anna\\u0000 canary\\x00 4711\\0",
    ],
)
def test_a_form_without_a_percent_sign_is_one(tmp_path: Path, form: str) -> None:
    """A blank is a + there, and a NUL nothing, also one that somebody escaped."""
    (tmp_path / "log").write_text(form)
    needles = make_needles(["anna canary 4711"], [])
    assert scan(tmp_path, [], ["log"], [], needles, []).residue == ("log",)


def test_spellings_are_found_across_the_chunks_of_a_large_file(tmp_path: Path) -> None:
    for at in range(4 * 2**20 - 130, 4 * 2**20, 7):
        (tmp_path / "log").write_bytes(b" " * at + base64.b64encode(TEXT.encode()))
        assert scanned(tmp_path).residue == ("log",)


def test_an_ordinary_log_is_no_match(tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": FILLER[i : i + 64], "m": f'run {i} of person-47110 & others 100%\n"ok"'})
        for i in range(500)
    ]
    (tmp_path / "log").write_text("\n".join(lines))
    assert scanned(tmp_path).residue == ()


_WRITER = """
import gzip, os, signal, sqlite3, sys
path, mode, told = sys.argv[1:]
c = sqlite3.connect(path, isolation_level=None)
c.execute("pragma journal_mode=" + mode)
c.execute("create table t (x blob)")
c.executemany("insert into t values (?)", [(gzip.compress(told.encode()),)] * 50)
c.execute("pragma cache_size=1")
c.execute("begin")
if mode == "delete":
    c.execute("update t set x = zeroblob(20000)")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_that_a_killed_process_left_is_read_with_its_journal(
    tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "a.db"
    subprocess.run([sys.executable, "-c", _WRITER, str(path), mode, told(1).decode()], check=False)
    assert Path(f"{path}-{'journal' if mode == 'delete' else 'wal'}").exists()
    before = path.read_bytes()
    report = scanned(tmp_path)
    assert "a.db" in report.residue and report.undecodable == () and path.read_bytes() == before


_SERVER = """
import os, random, sqlite3, sys, time
path, mode, parent = sys.argv[1], sys.argv[2], os.getppid()
def opened():
    c = sqlite3.connect(path, timeout=60)
    c.execute("pragma journal_mode=" + mode)
    c.execute("pragma synchronous=off")
    return c
c, r = opened(), random.Random(1)
c.execute("create table t (id integer primary key, a text, b text)")
c.execute("create index i on t (a)")
while os.getppid() == parent and not os.path.exists(path + ".stop"):
    for _ in range(r.randint(1, 5)):
        row = os.urandom(16).hex(), "z" * r.randint(0, 3000)
        c.execute("insert into t (a, b) values (?, ?)", row)
    c.execute("delete from t where id < (select max(id) - ? from t)", (r.randint(100, 800),))
    c.commit()
    if r.random() < 0.01:
        c.close()
        c = opened()
    if r.random() < 0.1:
        time.sleep(r.random() / 50)
print(c.execute("pragma integrity_check").fetchone()[0])
"""


@pytest.mark.long_but_first
@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_a_database_that_a_process_writes_all_the_time_is_searched_as_of_one_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Pages that had moved between two looks counted as broken; one could be missed."""
    monkeypatch.setattr("s3t_core.erasure.residue._LOOKS", 0)
    path = tmp_path / "W" / "a.db"
    path.parent.mkdir()
    command = [sys.executable, "-c", _SERVER, str(path), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        until = time.monotonic() + 60
        while not (path.is_file() and path.stat().st_size > 2**18):
            assert time.monotonic() < until
            time.sleep(0.05)
        own = [f"a.db{suffix}" for suffix in ("", "-wal", "-shm", "-journal")]
        reports = [
            scan(path.parent, [], own, [], make_needles(["person-5"], []), [], is_open=bool)
            for _ in range(10)
        ]
        path.with_name("a.db.stop").touch()
        assert server.communicate(timeout=60)[0] == "ok\n"
    assert [(r.undecodable, r.residue) for r in reports] == [((), ())] * len(reports)


def test_of_a_database_that_is_written_the_copy_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.execute("create table t (x)")
        made.commit()

    @contextlib.contextmanager
    def then_written(path: Path, temporary: Path | None) -> Iterator[Path]:
        with held_still(path, temporary) as copy:
            path.write_bytes(path.read_bytes()[:-7])
            yield copy

    monkeypatch.setattr("s3t_core.erasure.residue.held_still", then_written)
    nothing = make_needles(["person-5"], [])
    assert scan(tmp_path, [], ["a.db"], [], nothing, [], is_open=bool).undecodable == ()


@pytest.mark.parametrize("shift", [0, 1, 2, 3, 4, 17, 500, 4200, 5000])
@pytest.mark.parametrize("beginning", [b"", b"\0\0\0\7"])
def test_a_first_page_in_a_journal_is_no_database_that_was_deleted(
    tmp_path: Path, shift: int, beginning: bytes
) -> None:
    """A journal that is used again keeps older records, which begin anywhere."""
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.execute("create table t (x)")
        made.execute("create table u (x)")
        made.commit()
    first = path.read_bytes()[:4096]
    record = (1).to_bytes(4, "big") + first + b"\5\5\5\5"
    older = beginning + b"\7" * shift + record
    Path(f"{path}-journal").write_bytes(b"\0" * 512 + older)
    assert scanned(tmp_path).undecodable == ()
    Path(f"{path}-journal").write_bytes(b"\0" * 512 + older.replace(b"\0\0\0\1SQL", b"\5\5\5\5SQL"))
    assert scanned(tmp_path).undecodable == ("a.db",)


def test_a_database_that_somebody_keeps_locked_is_not_searched_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3t_core.erasure.decoding.still._PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("s3t_core.erasure.residue._PAUSE_SECONDS", 0.0)
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
        other.execute("create table t (x)")
        other.execute("begin immediate")
        report = scanned(tmp_path, is_open=bool)
    assert report.undecodable == report.written == ("a.db",)


def test_a_broken_file_that_a_process_writes_is_told_as_such(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        (tmp_path / name).write_bytes(gzip.compress(told(1))[:-8])
    report = scanned(tmp_path, is_open=lambda p: p.name == "b.gz")
    assert report.undecodable == ("a.gz", "b.gz") and report.written == ("b.gz",)


def test_equal_files_are_searched_once_and_each_is_told(tmp_path: Path) -> None:
    whole = gzip.compress(os.urandom(100_000) + told(1))
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "c").write_bytes(whole[:-4])
    report = scanned(tmp_path)
    assert report.residue == ("a", "b") and report.undecodable == ("c",)


TIMES = [
    "2026-11-27 13:43:04.597350",
    "2026-11-27T13:43:04.597350Z",
    "13:43:04.597350+00:00",
    "1795786989.597350",
]
LEAKS = [
    "597350",
    "id=597350",
    "100.597350",
    "13:43:04,597350",
    "43:04.597350",
    "/597350/",
    "597350.13:43:04",
    "11795786989.597350",
    '"597350"',
    "aa:13:43:04.597350",
    "x13:43:04.597350",
    "2212345678.597350",
    "account 12012345678.597350",
    "93:43:04.597350",
    "12.597350",
]


@pytest.mark.parametrize("others", [0, 40], ids=["alone", "among many"])
@pytest.mark.parametrize(
    ("said", "leaks"), [*((t, False) for t in TIMES), *((t, True) for t in LEAKS)]
)
def test_a_fraction_of_a_second_is_nobodys_id(
    tmp_path: Path, said: str, leaks: bool, others: int
) -> None:
    """Databases keep times to the microsecond: every six digits stand there sooner or later."""
    (tmp_path / "log.txt").write_text(f"began {said} ended")
    needles = make_needles(["597350", *(f"somebody-{n}" for n in range(others))], [])
    report = scan(tmp_path, [], ["log.txt"], [], needles, [])
    assert (report.residue == ("log.txt",)) == leaks
    assert report.needles_found == ({b"597350"} if leaks else set())


def test_no_fraction_of_a_second_has_more_than_nine_digits(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("began 10:00:00.49301234567890 ended")
    needles = make_needles(["49301234567890"], [])
    assert scan(tmp_path, [], ["log.txt"], [], needles, []).residue == ("log.txt",)


def test_a_scan_says_what_it_found_and_where_it_is_somebodys_does_not(tmp_path: Path) -> None:
    """What stands in rows of others, and in the operator's own files, is no residue."""
    (tmp_path / "own").mkdir()
    encoded = base64.b64encode(b"a letter to person-5 came").decode()
    (tmp_path / "own" / "log of person-3").write_text(
        f"person-1 here; person-4 there, and {encoded} too"
    )
    row = {"subject_digest": "a" * 64, "said": "ask person-2"}
    (tmp_path / "own" / "rows.jsonl").write_text(f'{json.dumps(row)}\n{{"said": "ask person-7"}}\n')
    (tmp_path / "notes").write_text("call person-6")
    needles = make_needles([f"person-{n}" for n in range(1, 8)], [])
    report = scan(tmp_path, [], ["own"], [], needles, [])
    assert report.needles_found == {f"person-{n}".encode() for n in (1, 3, 4, 5, 7)}
    assert (report.shared, report.outside, len(report.residue)) == (1, ("notes",), 2)
    assert "person-1" not in repr(report) and not report.rows_found
    target = Target("q", "a" * 64, "")
    assert scan(tmp_path, [], ["own"], [], needles, [target]).rows_found
    assert not scan(tmp_path, [], [], [], needles, [target]).rows_found  # a copy of the operator's


def test_a_scan_knows_again_what_an_earlier_one_found_wherever_it_lies_now(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("a letter to person-5 came")
    (tmp_path / "other.log").write_text("nothing")
    first = scan(tmp_path, [], ["a.log"], [], make_needles(["person-5"], []), [])
    assert len(first.residue_digests) == 1 and first.found_again == ()

    def again(*own: str) -> tuple[str, ...]:
        nothing = make_needles([], [])
        return scan(
            tmp_path, [], list(own), [], nothing, [], known_residue=first.residue_digests
        ).found_again

    assert again("a.log", "other.log") == ("a.log",)
    (tmp_path / "a.log").rename(tmp_path / "b.log")
    assert again("b.log") == ("b.log",) and not again("other.log")
    (tmp_path / "b.log").write_text("a letter came")
    assert not again("b.log")


def test_an_empty_file_that_a_person_named_is_known_by_its_name_too(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "person-5").write_text("")
    first = scan(tmp_path, [], ["own"], [], make_needles(["person-5"], []), [])
    (tmp_path / "own" / "empty").write_text("")
    nothing = make_needles([], [])
    again = scan(tmp_path, [], ["own"], [], nothing, [], known_residue=first.residue_digests)
    assert again.found_again == ("own/person-5",)
    (tmp_path / "own" / "person-5").unlink()
    assert not scan(
        tmp_path, [], ["own"], [], nothing, [], known_residue=first.residue_digests
    ).found_again


@pytest.mark.parametrize("writer", ["goes on", "has died"])
def test_what_a_process_is_just_writing_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    """Prefect's own database is written while an erasure that it carries out is searching."""
    whole = gzip.compress(b"a letter came")
    (tmp_path / "a.gz").write_bytes(whole[:-4])
    paused: list[float] = []

    def goes_on(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 2:
            (tmp_path / "a.gz").write_bytes(whole)

    monkeypatch.setattr("s3t_core.erasure.residue.time.sleep", goes_on)
    is_written = writer == "goes on"
    needles = make_needles(["person-5"], [])
    report = scan(tmp_path, [], ["a.gz"], [], needles, [], is_open=lambda _: is_written)
    assert (report.undecodable == ()) == is_written and len(paused) == (2 if is_written else 0)


@pytest.mark.parametrize(
    ("column", "cell", "given"),
    [
        ("form", "ab" * 16, "ab" * 16),
        ("record", "cd" * 32, "cd" * 32),
        ("form", b"person-4711-abcd".hex(), "person-4711-abcd"),
        ("record", b"person-4711-abcdperson-4711-abcd".hex(), "person-4711-abcd" * 2),
    ],
)
def test_an_id_that_looks_like_one_is_found_in_a_column_of_digests(
    tmp_path: Path, column: str, cell: str, given: str
) -> None:
    """They are not searched as texts."""
    others = ["ef" * (len(cell) // 2)] * 3000
    table = pa.table({"subject": ["b" * 64] * 3001, column: [*others, cell]})
    pq.write_table(table, tmp_path / "a.parquet")
    found = scan(tmp_path, [], ["a.parquet"], [], make_needles([given], []), [])
    assert found.residue == ("a.parquet",) and found.needles_found == {given.encode()}
    nobody = scan(tmp_path, [], ["a.parquet"], [], make_needles(["0" * len(given)], []), [])
    assert nobody.residue == ()


def test_a_row_in_an_archive_is_as_much_its_subjects_as_one_beside_it(tmp_path: Path) -> None:
    write_rows(tmp_path / "slice.parquet", [Row("r", "b" * 64, TEXT, "a")])
    (tmp_path / "x.zip").write_bytes(_zip((tmp_path / "slice.parquet").read_bytes()))
    report = scanned(tmp_path)
    assert (report.residue, report.shared) == ((), 2)


def test_a_row_of_nobody_whose_rows_are_kept_is_no_other_persons(tmp_path: Path) -> None:
    """It may be the erased one's own, under a digest of another time."""
    write_rows(
        tmp_path / "slice.parquet", [Row("r", "b" * 64, TEXT, "a"), Row("s", "c" * 64, TEXT, "a")]
    )
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"subject_digest": "b" * 64, "values": {"t": TEXT}}) + "\n"
    )
    report = scanned(tmp_path, is_known=lambda subject: subject == "b" * 64)
    assert (report.residue, report.shared) == (("slice.parquet",), 2)
    report = scanned(tmp_path, is_known=lambda subject: subject == "c" * 64)
    assert set(report.residue) == {"slice.parquet", "rows.jsonl"}


@pytest.mark.parametrize(
    "spelt",
    [
        lambda t: base64.b64encode(t.encode()).decode(),
        lambda t: json.dumps(t)[1:-1],
        lambda t: t.encode("utf-16-le").decode("latin-1"),
        quote,
    ],
)
def test_a_text_is_found_however_it_is_written_in_rows_of_nobody_known(
    tmp_path: Path, spelt: Callable[[str], str]
) -> None:
    write_rows(
        tmp_path / "slice.parquet", [Row(f"r{i}", "b" * 64, spelt(TEXT), "a") for i in range(3)]
    )
    assert scanned(tmp_path, is_known=lambda _: False).residue == ("slice.parquet",)


def test_files_and_directories_that_cannot_be_read_are_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "ours" / "shut").mkdir(parents=True)
    (tmp_path / "ours" / "shut" / "a").write_text(TEXT)
    (tmp_path / "ours" / "file").write_text(TEXT)
    (tmp_path / "ours" / "shut").chmod(0)
    (tmp_path / "ours" / "file").chmod(0)
    try:
        if os.access(tmp_path / "ours" / "file", os.R_OK):
            pytest.skip("this user may read anything")
        assert set(scanned(tmp_path).undecodable) == {"ours/shut", "ours/file"}
    finally:
        (tmp_path / "ours" / "shut").chmod(0o700)


def test_lines_and_rows_of_hers_whose_record_nobody_knows_count_as_the_erased_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"subject_digest": HER, "record_digest": "", "values": {"t": "hi"}})
    )
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"subject_digest": HER, "record_digest": "other", "values": {}})
    )
    report = scan(
        tmp_path, [], ["a.jsonl", "b.jsonl"], [], make_needles([], []), [Target("q", HER, "gone")]
    )
    assert report.residue == ("a.jsonl",)


ROWS = {"subject": ["b" * 64] * 2, "record": ["c" * 64] * 2, "text": ["nothing", "at all"]}


def _noted(where: str, note: str) -> tuple[pa.Schema, dict[str, list[str]], dict[bytes, bytes]]:
    """A schema, rows, and what is noted beside a batch, with `note` in one of them."""
    field = pa.field(
        "text" if where != "column name" else note,
        pa.string(),
        metadata={"about": note} if where == "field metadata" else None,
    )
    if where == "name within":
        field = pa.field("text", pa.struct([pa.field(note, pa.string())]))
    schema = pa.schema(
        [("subject", pa.string()), ("record", pa.string()), field],
        metadata={"about": note} if where == "schema metadata" else None,
    )
    texts: list[object] = (
        [{note: t} for t in ROWS["text"]] if where == "name within" else list(ROWS["text"])
    )
    return (
        schema,
        {**{k: ROWS[k] for k in ("subject", "record")}, field.name: texts},  # type: ignore[dict-item]
        {b"about": note.encode()} if where == "batch metadata" else {},
    )


@pytest.mark.parametrize("kind", ["arrows", "arrow", "parquet"])
@pytest.mark.parametrize(
    "where", ["column name", "name within", "field metadata", "schema metadata", "batch metadata"]
)
def test_what_a_table_of_others_rows_says_beside_them_is_searched(
    tmp_path: Path, kind: str, where: str
) -> None:
    schema, rows, beside = _noted(where, json.dumps(TEXT) if where != "column name" else PERSON)
    file = io.BytesIO()
    batch = pa.record_batch(rows, schema=schema)
    if kind == "parquet":
        pq.write_table(
            pa.Table.from_batches([batch]),
            file,
            store_schema=where.endswith("a metadata") or where == "field metadata",
        )
    else:
        with (pa.ipc.new_stream if kind == "arrows" else pa.ipc.new_file)(file, schema) as writer:
            writer.write_batch(batch, custom_metadata=beside)
    (tmp_path / "file").write_bytes(file.getvalue())
    assert (scanned(tmp_path).residue == ("file",)) == (
        where != "batch metadata" or kind != "parquet"
    )


def test_an_empty_batch_hides_nothing(tmp_path: Path) -> None:
    """No row says whose they are, so what is in it is read as anything else: here in base64."""
    schema = pa.schema([("subject", pa.string()), ("note", pa.dictionary(pa.int32(), pa.string()))])
    batch = pa.record_batch(
        [
            pa.array([], pa.string()),
            pa.DictionaryArray.from_arrays(
                pa.array([], pa.int32()),
                [base64.b64encode(f"of {PERSON}, and of nobody".encode()).decode()],
            ),
        ],
        schema,
    )
    with pa.ipc.new_stream(str(tmp_path / "file"), schema) as writer:
        writer.write_batch(batch)
    assert scanned(tmp_path).residue == ("file",)


@pytest.mark.parametrize(
    "way",
    {
        "colour": f"job\x1b[36m{PERSON}\x1b[0m done".encode(),
        "charset": f"x\x1b(B{PERSON}".encode(),
        "colour in JSON": json.dumps(f"job\x1b[36m{PERSON}\x1b[0m").encode(),
        "colour, octal": rf"job\033[36m{PERSON}\033[0m".encode(),
        "colour within": TEXT.replace("confession", "\x1b[1mconfession\x1b[m").encode(),
        **{rf"\{c}": rf'"\{c}{PERSON}"'.encode() for c in "bfva0ntr"},
        "JSON in percent": quote(json.dumps(TEXT)).encode(),
        "percent twice": quote(quote(TEXT)).encode(),
        "percent in base64": base64.b64encode(quote(TEXT).encode()),
        "base64 in percent": quote(
            base64.b64encode(("?>" * 9 + TEXT).encode()).decode(), safe=""
        ).encode(),
        "HTML twice": html.escape(html.escape(TEXT)).encode(),
        "base64 twice": base64.b64encode(base64.b64encode(TEXT.encode())),
        "indented base64": base64.encodebytes(TEXT.encode()).replace(b"\n", b"\n    "),
        "quoted base64": base64.encodebytes(TEXT.encode() * 2).replace(b"\n", b"\n> "),
        "base64 in a comment": base64.encodebytes(TEXT.encode() * 2).replace(b"\n", b"\n# "),
        "CSV": TEXT.replace('"', '""').encode(),
        "SQL": b"It''s hers, and it''s nobody else''s",
        "Windows": TEXT.replace("\n", "\r\n").encode(),
        "git": b'"caf\\303\\251 on the corner, of her own"',
        "hexadecimal, 16": (PERSON + ":more").encode().hex().encode(),
        "hexadecimal, 32": (" " * 20 + PERSON + " ").encode().hex().upper().encode(),
        "UTF-16 in much else": FILLER.encode() * 40
        + "caf\u00e9 on the corner, of her own".encode("utf-16-le")
        + FILLER.encode() * 40,
    }.items(),
    ids=lambda way: way[0],
)
def test_one_spelling_in_another_hides_nothing(tmp_path: Path, way: tuple[str, bytes]) -> None:
    (tmp_path / "log").write_bytes(b"before it " + way[1])
    needles = make_needles(
        [PERSON], [TEXT, "caf\u00e9 on the corner, of her own", "It's hers, and it's nobody else's"]
    )
    assert scan(tmp_path, [], ["log"], [], needles, []).residue == ("log",)


@pytest.mark.parametrize("prefix", [b"    ", b"\t", b"> ", b"# ", b" * ", b"; ", b"| ", b"> > "])
def test_what_stands_before_lines_of_base64_hides_no_id_at_their_border(
    tmp_path: Path, prefix: bytes
) -> None:
    """The id lies on both sides of a line's end, and in nothing else: a line alone has a part of
    it."""
    for before in range(45, 58):
        lines = base64.encodebytes(
            b"." * (before - len(PERSON) // 2) + PERSON.encode() + b"." * 90
        ).splitlines()
        (tmp_path / "log").write_bytes(
            b"begin\n" + b"".join(prefix + line + b"\n" for line in lines)
        )
        assert scan(tmp_path, [], ["log"], [], make_needles([PERSON], []), []).residue == (
            "log",
        ), before


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        (
            '""never"" ""again"" ""to"" ""me""'.replace('""', '"'),
            '""never"" ""again"" ""to"" ""me""',
        ),
        ("it's 'hers' 'and' 'no' one's", "it''s ''hers'' ''and'' ''no'' one''s"),
    ],
    ids=["CSV", "SQL"],
)
def test_doubled_quotes_hide_no_short_text_of_which_every_word_is_in_them(
    tmp_path: Path,
    text: str,
    spelt: str,
) -> None:
    (tmp_path / "log").write_text(f"a,b,{spelt},c")
    assert scan(tmp_path, [], ["log"], [], make_needles([], [text]), []).residue == ("log",)


AMONG = {
    "colour": f"job\x1b[36m{PERSON}\x1b[0m done".encode(),
    "colour in JSON": json.dumps(f"job\x1b[36m{PERSON}\x1b[0m").encode(),
    "JSON in percent": quote(json.dumps(TEXT)).encode(),
    "percent twice": quote(quote(f"<{PERSON}>")).encode(),
    "HTML twice": html.escape(html.escape(TEXT)).encode(),
    "CSV": TEXT.replace('"', '""').encode(),
    "SQL": b"It''s hers, and it''s nobody else''s",
    "Windows": TEXT.replace("\n", "\r\n").encode(),
    "percent in base64": base64.b64encode(quote(quote(TEXT)).encode()),
}


@pytest.mark.parametrize(
    "around", [b"\1\2\3\4", bytes(range(256)), os.urandom(64)], ids=["control", "all", "random"]
)
@pytest.mark.parametrize("way", AMONG)
def test_among_numbers_a_text_is_read_as_any_other(tmp_path: Path, way: str, around: bytes) -> None:
    """A database, a log with a dump in it: most bytes are control characters, and words stand
    between."""
    spelt = AMONG[way]
    (tmp_path / "file").write_bytes(around * 9000 + b"\1" + spelt + b"\1" + around * 9000)
    needles = make_needles([PERSON], [TEXT, "It's hers, and it's nobody else's"])
    assert scan(tmp_path, [], ["file"], [], needles, []).residue == ("file",)


@pytest.mark.parametrize(
    "text",
    [
        "100%2525 sure of &amp;amp; it",
        r"C:\new\x41\users\her\own\folder",
        "said \"\"yes\"\" to ''it''",
    ],
    ids=["percent", "path", "quotes"],
)
def test_a_text_that_looks_like_escapes_is_found_as_it_is_and_as_it_is_spelt(
    tmp_path: Path, text: str
) -> None:
    for spelt in (text, json.dumps(text), quote(text), html.escape(text), json.dumps(quote(text))):
        (tmp_path / "log").write_text(f"x {spelt} y")
        assert scan(tmp_path, [], ["log"], [], make_needles([], [text]), []).residue == ("log",)


def test_a_line_break_within_a_text_hides_nothing_in_lines_of_json(tmp_path: Path) -> None:
    theirs = json.dumps(
        {
            "subject_digest": "b" * 64,
            "record_digest": "c" * 64,
            "values": {"t": "her own\nshort text"},
        }
    )
    needles = make_needles([], ["her own\nshort text"])
    (tmp_path / "a.jsonl").write_text(f"{theirs}\nher own\nshort text\n")
    assert scan(tmp_path, [], ["a.jsonl"], [], needles, []).residue == ("a.jsonl",)
    (tmp_path / "a.jsonl").write_text(f"{theirs}\n{theirs}\n")
    report = scan(tmp_path, [], ["a.jsonl"], [], needles, [])
    assert (report.residue, report.shared) == ((), 2)


def _window_zlib(bits: int, level: int = 6) -> Callable[[bytes], bytes]:
    def compress(data: bytes) -> bytes:
        deflater = zlib.compressobj(level, zlib.DEFLATED, bits)
        return deflater.compress(data) + deflater.flush()

    return compress


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("bits", range(9, 16))
def test_zlib_of_every_window_is_opened_and_a_text_that_begins_like_it_is_none(
    tmp_path: Path, bits: int, level: int
) -> None:
    whole = _window_zlib(bits, level)(told(1))
    (tmp_path / "file").write_bytes(whole)
    assert scanned(tmp_path).residue == ("file",)
    (tmp_path / "file").write_bytes(whole[: len(whole) // 2])
    assert scanned(tmp_path).undecodable == ("file",)
    for second in range(0x40, 0x60):
        (tmp_path / "file").write_bytes(
            bytes([whole[0], second]) + b"C of a text, with a comma\n" * 3 + "né".encode()
        )
        assert level or bits == 15 or scanned(tmp_path).undecodable == ()


@pytest.mark.parametrize(
    "text",
    [
        b"HKshkvaitvwfwkrssd",
        b"XGcneajnyndbttybmw",
        b"hCskriqhbjacdtrbgn",
        b"8Ojtiewbkklemmoqmu",
        b"(Szihkfvnuwddtkkv ",
    ],
)
def test_a_text_of_which_a_good_part_inflates_by_chance_is_a_text(
    tmp_path: Path, text: bytes
) -> None:
    """Its first two letters are the header of a zlib stream, and a dozen bytes come out of what
    follows."""
    assert len(_inflated(text)) >= 12
    (tmp_path / "file").write_bytes(text + b" and so on, to its end\n")
    assert scanned(tmp_path).undecodable == ()


def _inflated(data: bytes) -> bytes:
    inflater, out = zlib.decompressobj(), b""
    with contextlib.suppress(zlib.error):
        for at in range(len(data)):
            out += inflater.decompress(data[at : at + 1])
    return out


CELLS = {
    "zlib": zlib.compress,
    "zlib, small window": _window_zlib(10),
    "gzip": gzip.compress,
    "lzma": PACKED["lzma"],
}


@pytest.mark.parametrize("where", ["blob", "binary", "list", "struct", "map"])
@pytest.mark.parametrize("way", CELLS)
def test_a_cell_that_is_packed_is_opened_wherever_it_is(
    tmp_path: Path, way: str, where: str
) -> None:
    for hers in (True, False):
        cells = [CELLS[way](told(1) if hers else FILLER.encode())]
        cells += (
            []
            if hers
            else [
                b"x\x9c" + os.urandom(40),
                b"h\xde" + cells[0][2:99],
                b"]\0\0\x80\0" + b"\xff" * 40,
            ]
        )
        (tmp_path / "file").unlink(missing_ok=True)
        if where == "blob":
            connection = sqlite3.connect(tmp_path / "file")
            connection.execute("CREATE TABLE t (x BLOB)")
            connection.executemany("INSERT INTO t VALUES (?)", [(c,) for c in cells])
            connection.commit()
            connection.close()
        else:
            kinds = {
                "binary": pa.binary(),
                "list": pa.list_(pa.binary()),
                "map": pa.map_(pa.string(), pa.binary()),
                "struct": pa.struct([("b", pa.list_(pa.binary()))]),
            }
            wrap = {
                "binary": lambda c: c,
                "list": lambda c: [c],
                "map": lambda c: [("k", c)],
                "struct": lambda c: {"b": [c]},
            }
            pq.write_table(
                pa.table({"x": pa.array([wrap[where](c) for c in cells], kinds[where])}),
                tmp_path / "file",
            )
        report = scanned(tmp_path)
        assert (report.residue, report.undecodable) == ((("file",) if hers else ()), ())


def test_equal_databases_with_other_logs_are_each_read_with_their_own(tmp_path: Path) -> None:
    for name in ("a.db", "b.db"):
        writer = sqlite3.connect(tmp_path / name, isolation_level=None)
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t (x BLOB)")
        writer.execute("INSERT INTO t VALUES (zeroblob(100000))")
        writer.close()
    (tmp_path / "b.db").write_bytes((tmp_path / "a.db").read_bytes())
    reader = sqlite3.connect(tmp_path / "b.db", isolation_level=None)
    reader.execute("INSERT INTO t VALUES (?)", (gzip.compress(told(1)),))
    report = scanned(tmp_path)
    assert (tmp_path / "a.db").read_bytes() == (tmp_path / "b.db").read_bytes()
    assert report.residue == ("b.db",) and report.undecodable == ()
    whole = (tmp_path / "b.db-wal").read_bytes()
    reader.close()
    (tmp_path / "b.db").unlink()
    (tmp_path / "b.db-wal").write_bytes(whole)
    assert scanned(tmp_path).undecodable == ("b.db-wal",)


@pytest.mark.parametrize("column", ["subject", "record"])
def test_an_id_that_looks_like_a_digest_is_found_among_digests(tmp_path: Path, column: str) -> None:
    given = md5(b"her", usedforsecurity=False).hexdigest() * 2
    columns = {
        "subject": ["b" * 64] * 60,
        "record": ["c" * 64] * 60,
        "text": ["", "x"] * 30,
        column: [os.urandom(32).hex() for _ in range(30)]
        + [given]
        + [os.urandom(32).hex() for _ in range(29)],
    }
    pq.write_table(pa.table(columns), tmp_path / "a", compression="zstd", write_statistics=False)
    assert given.encode() not in (tmp_path / "a").read_bytes(), (
        "it is packed: its bytes say nothing"
    )
    (tmp_path / "b.jsonl").write_text(
        json.dumps({f"{k}_digest": v[30] for k, v in columns.items()})
    )
    report = scan(tmp_path, [], ["a", "b.jsonl"], [], make_needles([given], []), [])
    assert report.residue == ("a", "b.jsonl")


def test_a_column_of_texts_as_long_as_digests_is_searched(tmp_path: Path) -> None:
    text = "of her and of nobody else, sixty-four letters of it, as it is so".ljust(64, ".")[:64]
    pq.write_table(pa.table({"subject": ["b" * 64], "record": [text]}), tmp_path / "a")
    assert scan(tmp_path, [], ["a"], [], make_needles([], [text]), []).shared == 1


METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflate": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}


def _entries(method: int, *contents: bytes, seekable: bool = True) -> bytes:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return seekable

        def tell(self) -> int:
            return super().tell() if seekable else _raise()

    def _raise() -> int:
        raise OSError

    file = Pipe()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.mkdir("d")
        for index, content in enumerate(contents):
            with archive.open(f"d/{index}", "w", force_zip64=index == 1) as entry:
                entry.write(content)
    return file.getvalue()


@pytest.mark.parametrize("seekable", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_zips_as_others_write_them_are_whole(tmp_path: Path, method: str, seekable: bool) -> None:
    for last, expected in ((gzip.compress(told(1)), ("file",)), (b"nothing" * 99, ())):
        (tmp_path / "file").write_bytes(
            _entries(METHODS[method], b"", FILLER.encode() * 9, last, seekable=seekable)
        )
        report = scanned(tmp_path)
        assert (report.residue, report.undecodable) == (expected, ())


@pytest.mark.parametrize("method", METHODS)
def test_bytes_in_an_entry_of_a_zip_that_nobody_reads_stop(tmp_path: Path, method: str) -> None:
    """A second stream behind the first, or a size and a checksum of less than there is."""
    short, hidden = b"short", gzip.compress(told(1))
    only = _entries(METHODS[method], short)
    at = (
        only.index(b"d/0")
        + 3
        + int.from_bytes(only[only.index(b"d/0") - 2 : only.index(b"d/0")], "little")
    )
    directory = only.index(b"PK\x01\x02")
    second = only.index(b"PK\x01\x02", directory + 4)
    content = only[at:directory]
    grown = bytearray(only[:directory] + hidden + only[directory:])
    moved = len(hidden)
    grown[second + moved + 20 : second + moved + 24] = (len(content) + moved).to_bytes(4, "little")
    end = grown.rindex(b"PK\x05\x06")
    grown[end + 16 : end + 20] = (directory + moved).to_bytes(4, "little")
    assert zipfile.ZipFile(io.BytesIO(grown)).read("d/0") == short
    (tmp_path / "file").write_bytes(grown)
    assert scanned(tmp_path).undecodable == ("file",)
    whole = bytearray(_entries(METHODS[method], short + gzip.compress(TEXT.encode())))
    second = whole.index(b"PK\x01\x02", whole.index(b"PK\x01\x02") + 4)
    whole[second + 16 : second + 20] = zlib.crc32(short).to_bytes(4, "little")
    whole[second + 24 : second + 28] = len(short).to_bytes(4, "little")
    (tmp_path / "file").write_bytes(whole)
    assert scanned(tmp_path).undecodable == ("file",)
    for at, size in ((16, 4), (24, 4)):  # of the checksum and of the size, each alone
        one = bytearray(_entries(METHODS[method], short))
        second = one.index(b"PK\x01\x02", one.index(b"PK\x01\x02") + 4)
        one[second + at : second + at + size] = (
            int.from_bytes(one[second + at : second + at + size], "little") ^ 1
        ).to_bytes(size, "little")
        (tmp_path / "file").write_bytes(one)
        assert scanned(tmp_path).undecodable == ("file",), at


def test_what_stands_between_the_entries_of_a_zip_is_their_size_or_stops(tmp_path: Path) -> None:
    whole = _entries(zipfile.ZIP_DEFLATED, b"one", b"two", seekable=False)
    at = whole.index(b"PK\x07\x08")
    (tmp_path / "file").write_bytes(whole[:at] + b"her number: 4711"[:16] + whole[at + 16 :])
    assert scanned(tmp_path).undecodable == ("file",)


@pytest.mark.parametrize("where", ["name", "comment", "comment of all", "extra"])
def test_what_a_zip_says_beside_its_entries_is_searched_however_it_is_spelt(
    tmp_path: Path, where: str
) -> None:
    spelt = base64.b64encode(TEXT.encode())
    info = zipfile.ZipInfo(spelt.decode() if where == "name" else "a")
    info.comment = spelt if where == "comment" else b""
    info.extra = b"\xfe\xca" + len(spelt).to_bytes(2, "little") + spelt if where == "extra" else b""
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr(info, b"x")
        archive.comment = spelt if where == "comment of all" else b""
    assert scanned(tmp_path).residue == ("file",)


def test_weights_as_torch_saves_them_are_whole(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(1000), "b": torch.arange(7)}, tmp_path / "file")
    assert scanned(tmp_path).undecodable == ()


def test_names_are_searched_and_not_quoted(tmp_path: Path) -> None:
    folder = tmp_path / ".s3t"
    (folder / f"of {PERSON}" / "empty").mkdir(parents=True)
    (folder / f"of {PERSON}" / "a.txt").write_text("nothing")
    (folder / "plain").mkdir()
    (folder / "plain" / f"{PERSON}.txt").write_text("nothing")
    (folder / "plain" / f"{quote('<' + PERSON + '>')}").mkdir()
    (folder / "plain" / "link").symlink_to(tmp_path / f"of-{PERSON.upper()}" / PERSON)
    (folder / "plain" / "b.txt").write_text("nothing")
    (tmp_path / f"of-{PERSON.upper()}").mkdir()
    (tmp_path / f"of-{PERSON.upper()}" / PERSON).write_text("nothing")
    report = scanned(tmp_path, ".s3t")
    assert len(report.residue) == 5 and report.undecodable == ()
    assert not any("4711" in name for name in report.residue)
    assert (
        all(name.startswith(".s3t/") for name in report.residue)
        and ".s3t/plain/link" in report.residue
    )


def test_the_name_of_an_object_in_a_bucket_is_searched(tmp_path: Path) -> None:
    (tmp_path / "object").write_text("nothing")
    report = scanned(tmp_path, "x", objects=[(f"s3://b/{PERSON}/1", tmp_path / "object")])
    assert report.residue == ("s3://b/(name 1)/1",)


@pytest.mark.parametrize(
    "by", ["directories", "a link", "an object in a bucket", "another spelling"]
)
def test_an_id_that_is_several_names_is_found_in_them(tmp_path: Path, by: str) -> None:
    """A branch of git's is a directory for each slash; so is an id of a tenant's."""
    person, folder = f"acme/{PERSON}", tmp_path / ".s3t"
    said = person.replace("a", "%61", 1) if by == "another spelling" else person
    place = folder / "a" if by in ("a link", "an object in a bucket") else folder / said
    place.mkdir(parents=True)
    (place / "x.txt").write_text("nothing")
    if by == "a link":
        (tmp_path / said).mkdir(parents=True)
        (place / "link").symlink_to(Path("..", "..", said))
    objects = [(f"s3://b/{said}/1", place / "x.txt")] if by == "an object in a bucket" else []
    report = scan(
        tmp_path, [], [".s3t"], [], make_needles([person], [TEXT]), [TARGET], objects=objects
    )
    assert len(report.residue) == 1 and "4711" not in report.residue[0]
    assert report.undecodable == ()


@pytest.mark.parametrize(
    "way", ["link", "link to a link", "directory, then link", "two links", "circle", "link of ours"]
)
def test_where_links_beyond_the_workspace_lead_is_searched_once(tmp_path: Path, way: str) -> None:
    """Another remote, a cache, a store elsewhere: what lies there may be links as well."""
    root, extra, far = tmp_path / "w", tmp_path / "extra", tmp_path / "far"
    for folder in (root / ".s3t", extra, far / "deep"):
        folder.mkdir(parents=True)
    (far / "deep" / "notes.txt").write_text(f"{PERSON} said: {TEXT}")
    (tmp_path / "between").symlink_to(far / "deep" / "notes.txt")
    leads = {"link to a link": tmp_path / "between", "directory, then link": tmp_path / "beside"}
    (extra / "notes").symlink_to(leads.get(way, far / "deep" / "notes.txt"))
    if way == "directory, then link":
        (tmp_path / "beside").mkdir()
        (tmp_path / "beside" / "notes").symlink_to(far / "deep" / "notes.txt")
    if way in ("two links", "link of ours"):
        (extra / "again").symlink_to(far / "deep" / "notes.txt")
    if way == "link of ours":
        (root / ".s3t" / "notes").symlink_to(far / "deep" / "notes.txt")
    if way == "circle":
        (far / "deep" / "up").symlink_to(extra)
        (extra / "deep").symlink_to(far / "deep")
    report = scan(root, [extra], [".s3t"], [], make_needles([PERSON], [TEXT]), [TARGET])
    assert [name.rpartition("/")[2] for name in report.residue] == ["notes.txt"]
    assert report.files == 1 and report.undecodable == ()


def test_a_link_or_an_alternate_that_leads_nowhere_stops(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "ours" / "circle").symlink_to(tmp_path / "ours" / "circle")
    (tmp_path / "theirs").symlink_to(tmp_path / "gone")
    notes = tmp_path / "ours" / "objects" / "info" / "alternates"
    notes.parent.mkdir(parents=True)
    notes.write_text(f"{tmp_path / 'gone'}\n")
    report = scanned(tmp_path, "ours")
    assert report.undecodable == ("ours/circle", "ours/link", "ours/objects/info/alternates")
    (tmp_path / "gone").mkdir()
    assert scanned(tmp_path, "ours").undecodable == ("ours/circle",)


def _made(path: Path, kind: str) -> None:
    """What is neither a file nor a directory, or a link to one."""
    beside = path.with_name("beside")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):
            made.bind(path.name)
    elif kind.startswith("link to a "):
        _made(beside, kind.removeprefix("link to a "))
        path.symlink_to(beside.name)
    else:
        path.symlink_to(kind)


def _within(seconds: int, work: Callable[[], Any]) -> Any:
    """What `work` returns, which must not wait."""
    with fails_after(seconds):
        return work()


@pytest.mark.parametrize(
    "kind", ["pipe", "socket", "link to a pipe", "link to a socket", "/dev/zero", "/dev/tty"]
)
@pytest.mark.parametrize(
    "place",
    [
        ".s3t/x",
        ".s3t/stages/x.safetensors",
        ".dvc/cache/files/md5/aa/" + "b" * 30,
        ".git",
        ".git/objects/info/alternates",
        "data/shard=00/slice=0.parquet",
    ],
)
def test_what_is_neither_file_nor_directory_is_told_and_never_waited_for(
    tmp_path: Path, place: str, kind: str
) -> None:
    path = tmp_path / "w" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    _made(path, kind)
    report = _within(10, lambda: scanned(tmp_path / "w", ".s3t", ".dvc", ".git", "data"))
    if kind != "socket" or place == ".git" or not place.startswith(".git"):
        assert place in report.undecodable
    assert (
        _within(10, lambda: scanned(tmp_path / "w", "ours")).undecodable == ()
    )  # the operator's own stop nothing


def test_the_socket_of_gits_own_watcher_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    _made(tmp_path / ".git" / "fsmonitor--daemon.ipc", "socket")
    assert scanned(tmp_path, ".git").undecodable == ()


@pytest.mark.parametrize("line", [b"with a \0 in it", b'"cut \\x"', b'"\\u20ac"', b"\xff"])
def test_an_alternate_that_is_no_path_stops_in_words(tmp_path: Path, line: bytes) -> None:
    notes = tmp_path / "ours" / "objects" / "info" / "alternates"
    notes.parent.mkdir(parents=True)
    notes.write_bytes(line + b"\n")
    assert scanned(tmp_path, "ours").undecodable == ("ours/objects/info/alternates",)


def test_a_line_nested_deeper_than_python_goes_is_searched(tmp_path: Path) -> None:
    deep = b"[" * 100_000 + PERSON.encode() + b"]" * 100_000
    (tmp_path / "a.jsonl").write_bytes(deep + b"\n" + HER.encode() + b"\n")
    assert scanned(tmp_path).residue == ("a.jsonl",)


NAMES = {
    "not UTF-8": b"n\xff.gz",
    "Latin-1": "caf\u00e9.gz".encode("latin-1"),
    "a line break": b"a\nb.gz",
    "an escape": b"\x1b[31mred.gz",
    "right to left": "a\u202eb.gz".encode(),
    "a surrogate": b"\xed\xb3\xbf.gz",
}


@pytest.mark.parametrize("raw", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("where", ["file", "directory", "link", "outside"])
def test_a_name_of_any_bytes_is_told_as_text_that_goes_anywhere(
    tmp_path: Path, raw: bytes, where: str
) -> None:
    named = Path(os.fsdecode(os.fsencode(tmp_path) + b"/.s3t/" + raw))
    (tmp_path / ".s3t").mkdir()
    if where == "link":
        named.symlink_to("gone")
    elif where == "outside":
        named.write_text(TEXT)
    else:
        path = named / "x.gz" if where == "directory" else named
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(told())[:-20])
    report = scanned(tmp_path, "ours" if where == "outside" else ".s3t")
    [name] = report.outside if where == "outside" else report.undecodable
    name.encode()
    assert name.isprintable() and name.startswith(".s3t/")
    message = str(ResidueFound(f"expected every file, got {named.name}"))
    message.encode()
    assert "\x1b" not in message and "\u202e" not in message


def test_an_id_in_a_name_that_is_not_utf8_is_found_and_not_told(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/ours\xff")).mkdir()
    Path(
        os.fsdecode(os.fsencode(tmp_path) + b"/ours\xff/\xff" + PERSON.encode() + b"\n")
    ).write_text("nothing")
    report = scanned(tmp_path)
    assert len(report.residue) == 1 and PERSON not in report.residue[0]


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_frames_that_are_passed_over_are_searched_wherever_they_stand(
    tmp_path: Path, kind: str
) -> None:
    pack, hers = PACKED[kind], gzip.compress(told(1))
    frame = b"\x53\x2a\x4d\x18" + len(hers).to_bytes(4, "little") + hers
    for content in (
        pack(b"one") + frame,
        pack(FILLER.encode() * 99) + frame + pack(bytes(10**6)),
        pack(b"") + frame,
    ):
        (tmp_path / "file").write_bytes(content)
        assert scanned(tmp_path).residue == ("file",)


@pytest.mark.parametrize("flags", [4, 8, 16, 28])
def test_what_a_gzip_says_before_its_content_is_searched(tmp_path: Path, flags: int) -> None:
    spelt, plain = base64.b64encode(TEXT.encode()), gzip.compress(b"nothing")
    notes = (
        (len(spelt).to_bytes(2, "little") if flags & 4 else b"")
        + spelt
        + (b"\0" if flags != 4 else b"")
    )
    notes += {28: b"x\0"}.get(flags, b"")
    (tmp_path / "file").write_bytes(plain[:3] + bytes([flags]) + plain[4:10] + notes + plain[10:])
    report = scanned(tmp_path)
    assert (report.residue, report.undecodable) == (("file",), ())
    first = gzip.compress(FILLER.encode() * 40)
    (tmp_path / "file").write_bytes(first + bytes(7) + (tmp_path / "file").read_bytes() + first)
    report = scanned(tmp_path)
    assert (report.residue, report.undecodable) == (("file",), ()), "of every member"


def test_weights_are_as_long_as_they_say(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save

    whole = save(
        {"a": np.ones((30, 7)), "b": np.zeros(4, "int8"), "c": np.zeros(0)}, {"made": "by us"}
    )
    path = tmp_path / "a.safetensors"
    for content in (whole, save({}), save({}, {"a": "b"})):
        path.write_bytes(content)
        assert scanned(tmp_path).undecodable == ()
    for content in (whole[:-1], whole + gzip.compress(told(1)), whole[:20], whole[:9], b"", b"\1"):
        path.write_bytes(content)
        assert scanned(tmp_path).undecodable == ("a.safetensors",)


def _footer(whole: bytes) -> int:
    return len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")


@pytest.mark.parametrize(
    ("index", "where"),
    [(True, "before the index"), (True, "last"), (False, "last"), (False, "in a column")],
)
def test_row_groups_that_the_footer_does_not_name_stop(
    tmp_path: Path, index: bool, where: str
) -> None:
    """Wherever they stand: nobody reads them, and they are packed."""
    options: dict[str, Any] = {
        "compression": "zstd",
        "row_group_size": 500,
        "write_page_index": index,
    }
    file, other = io.BytesIO(), io.BytesIO()
    pq.write_table(_table(b"nothing"), file, **options)
    pq.write_table(_table(told(1)), other, **options)
    whole, hers = file.getvalue(), other.getvalue()
    last = pq.ParquetFile(io.BytesIO(whole)).metadata
    column = last.row_group(last.num_row_groups - 1).column(0)
    begin = min(column.dictionary_page_offset or column.data_page_offset, column.data_page_offset)
    at = {"last": _footer(whole), "before the index": begin + column.total_compressed_size}.get(
        where, begin
    )
    pages = hers[4 : _footer(hers)]
    if where == "in a column":
        sizes = (
            _compact(column.total_compressed_size),
            _compact(column.total_compressed_size + len(pages)),
        )
        end = begin + column.total_compressed_size
        footer = whole[_footer(whole) : -8]
        assert footer.count(sizes[0]) >= 1
        footer = footer[::-1].replace(sizes[0][::-1], sizes[1][::-1], 2)[
            ::-1
        ]  # of the row group, of the column
        (tmp_path / "file").write_bytes(
            whole[:end] + pages + footer + len(footer).to_bytes(4, "little") + b"PAR1"
        )
        told_now = pq.ParquetFile(tmp_path / "file").metadata
        assert told_now.row_group(last.num_row_groups - 1).column(
            0
        ).total_compressed_size == end - begin + len(pages)
    else:
        (tmp_path / "file").write_bytes(whole[:at] + pages + whole[at:])
    assert pq.read_table(tmp_path / "file").num_rows == 3001, (
        "whoever reads the table sees nothing of it"
    )
    assert scanned(tmp_path).undecodable == ("file",)


def _compact(number: int) -> bytes:
    """A positive number as Thrift writes it."""
    number, found = number << 1, b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"write_page_index": True},
        {"data_page_version": "2.0", "compression": "gzip"},
        {"use_dictionary": False, "compression": "none"},
        {"data_page_size": 100, "write_page_checksum": True},
        {"version": "1.0", "compression": "brotli", "write_statistics": False},
    ],
    ids=str,
)
def test_tables_as_others_write_them_are_whole(tmp_path: Path, options: dict[str, Any]) -> None:
    rows = [
        {"a": i, "b": ["x" * i, None], "c": {"d": str(i), "e": i / 7}, "f": None}
        for i in range(300)
    ]
    for table in (
        pa.Table.from_pylist(rows),
        pa.Table.from_pylist(rows[:1]).slice(1),
        _table(b"long " * 3000),
    ):
        pq.write_table(table, tmp_path / "file", row_group_size=70, **options)
        assert scanned(tmp_path).undecodable == ()


def test_pages_behind_the_last_of_a_database_stop(tmp_path: Path) -> None:
    whole = _sqlite(told(1)[:3000].replace(TEXT.encode(), b""))
    (tmp_path / "file").write_bytes(whole)
    assert scanned(tmp_path).undecodable == ()
    (tmp_path / "file").write_bytes(whole + gzip.compress(told(1)).ljust(8192, b"\0")[:8192])
    assert scanned(tmp_path).undecodable == ("file",)


DELETED = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "zlib, small window": _window_zlib(10),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": PACKED["lzma"],
    "zstd": _arrow("zstd"),
    "lz4": _arrow("lz4"),
    "zip": _zip,
    "parquet": _parquet,
    "arrow": _arrow_file,
    "sqlite": _sqlite,
    "gzip in zip": lambda data: _zip(gzip.compress(data)),
}
LONG = os.urandom(9000).hex().encode()
"""It stays longer than two pages however it is packed."""


def _deleted(path: Path, cell: bytes, how: str) -> sqlite3.Connection:
    """A database in which the cell is in no row any more, and nothing was overwritten."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA secure_delete=OFF")
    mode = "WAL" if "frame" in how else "PERSIST" if "journal" in how else "MEMORY"
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, x BLOB)")
    connection.executemany(
        "INSERT INTO t VALUES (?, ?)", [(n, b"row %d" % n * 9) for n in range(40)]
    )
    connection.execute("INSERT INTO t VALUES (17000, ?)", (cell,))
    connection.executemany(
        "INSERT INTO t VALUES (?, ?)", [(n, b"row %d" % n * 9) for n in range(20000, 20040)]
    )
    if how == "journal":
        connection.execute("UPDATE t SET x = 'other' WHERE n = 17000")
    elif how == "frames":
        connection.execute("UPDATE t SET x = 'other' WHERE n = 17000")
        connection.execute("CREATE TABLE u AS SELECT * FROM t")
    elif how == "frames before a restart":
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
        connection.execute("DELETE FROM t WHERE n = 17000")
    elif how == "dropped":
        connection.execute("DROP TABLE t")
    else:
        connection.execute("DELETE FROM t WHERE n = 17000")
    return connection


@pytest.mark.long
@pytest.mark.parametrize("how", ["row", "dropped", "journal", "frames", "frames before a restart"])
@pytest.mark.parametrize(
    ("way", "size"), [(way, "long") for way in DELETED] + [("gzip", "short"), ("zlib", "short")]
)
def test_a_packed_cell_that_no_query_shows_is_read_or_stops(
    tmp_path: Path, way: str, how: str, size: str
) -> None:
    """Deleted, changed, dropped: it lies in free pages, in free space of others, in frames and
    records of before."""
    cell = DELETED[way](TEXT.encode() if size == "short" else LONG + TEXT.encode())
    connection = _deleted(tmp_path / "a.db", cell, how)
    report = scanned(tmp_path)
    is_all_there = how in ("journal", "frames") or size == "short"
    assert (
        "a.db" in report.residue
        or (report.undecodable and not is_all_there)
        or way[:4] in ("zlib", "lzma")
    )
    connection.close()
    for path in tmp_path.iterdir():
        path.unlink()
    connection = _deleted(tmp_path / "a.db", DELETED[way](LONG[:900]), how)
    report = scanned(tmp_path)
    assert report.residue == () and (size == "long" or report.undecodable == ()), (
        "what is whole stops nothing"
    )
    connection.close()


def _broken(packed: bytes) -> bytes:
    """From half of it on."""
    return packed[: len(packed) // 2] + b"\xff" * (len(packed) - len(packed) // 2)


BEHIND = {
    "zlib and a line's end": lambda data: zlib.compress(data) + b"\n",
    "zlib and zeros": lambda data: zlib.compress(data) + bytes(8),
    "lzma and more": lambda data: lzma.compress(data, lzma.FORMAT_ALONE) + b"junkjunk",
    "zlib that breaks": lambda data: zlib.compress(data * 3)[:-6] + b"\xff" * 6,
    "lzma that breaks": lambda data: _broken(
        lzma.compress(data + random.Random(1).randbytes(9000), lzma.FORMAT_ALONE)
    ),
    "UTF-16 in a list": lambda data: [data.decode().encode("utf-16-le")],
    "UTF-16 in a struct": lambda data: {"a": [{"b": data.decode().encode("utf-16-be")}]},
}


@pytest.mark.parametrize("write", ["Parquet", "Arrow"])
@pytest.mark.parametrize("cell", BEHIND)
def test_a_cell_is_read_as_far_as_it_says_something(tmp_path: Path, cell: str, write: str) -> None:
    """Of an unsure kind it may be broken, or be followed by other bytes; within a list or a struct
    bytes are bytes."""
    text = "the café on her corner, so she said" if "UTF" in cell else TEXT
    value = BEHIND[cell](text.encode())
    table = pa.table({"a": pa.array([None, value, None])})
    if write == "Parquet":
        pq.write_table(table, tmp_path / "file.parquet", compression="zstd")
    else:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(tmp_path / "file.arrow", table.schema, options=options) as writer:
            writer.write_table(table)
    found = scan(
        tmp_path, [], [p.name for p in tmp_path.iterdir()], [], make_needles([], [text]), []
    )
    assert len(found.residue) == 1


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "write",
    [
        repr,
        lambda data: json.dumps(data.decode("latin-1")),
        lambda data: json.dumps(json.dumps(data.decode("latin-1"), ensure_ascii=False)),
        lambda data: "".join(f"\\{b:03o}" if b < 32 else chr(b) for b in data),
    ],
    ids=["repr", "JSON", "JSON in JSON", "octal"],
)
def test_utf_16_that_somebody_escaped_is_found(
    tmp_path: Path, order: str, write: Callable[[bytes], str]
) -> None:
    (tmp_path / "log").write_text(f"got {write(TEXT.encode(order))} of somebody")
    assert scanned(tmp_path).residue == ("log",)
