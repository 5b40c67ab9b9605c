"""Packed cells that SQLite keeps and no query shows.

A row that was deleted or changed stays in pages that are free, in the free space of others, in
frames of a write-ahead log that are not current, in a journal. As plain bytes it is found by
searching the file. What is packed is looked for by how it begins, wherever that is, and unpacked
from there:

1. within its page, or, since a long cell goes on in other pages that each begin with the number of
   the next (https://www.sqlite.org/fileformat2.html, 1.5 and 1.6), from wherever a number stands
   that may be one; in such a page itself, from its end. Whatever reaches its own end, as checksums
   and lengths tell, is what was there
2. of a page that is there several times (in the file, in frames of the log) the nearest is tried,
   then the one before, the one behind, the one in the file
3. what does not reach an end is searched as far as it comes. It is Undecodable, unless it begins as
   a cell did that a query gave; but of a kind that two bytes tell (zlib), or none that are fixed
   (lzma), many files have by chance what looks like it, and that it breaks off says nothing
"""

import bz2
import io
import lzma
import re
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from s3t_core.erasure.decoding.logs import (
    FRAME_HEADER,
    RECORD_HEADER,
    Place,
    places_in_journal,
    places_in_log,
)
from s3t_core.erasure.decoding.magics import is_lzma, is_zlib
from s3t_core.erasure.decoding.parts import HEAD_BYTES, IN_THIS_THREAD, Part, Undecodable, stream_of
from s3t_core.erasure.decoding.streams import DAMAGED, inflated_as_far, pass_lz4, pass_zstd

_STEP = 64
_LIKE_BYTES = 32
_SURE_BYTES = 6
_NUMBER = re.compile(rb"(?=\0)")
_POLICIES = 4
_FIRST = bytes([0, 0, 0, 1])
_ZLIB = np.zeros(2**16, np.bool_)
"""Which two bytes (the first one times 256) may begin zlib."""
_ZLIB[
    [
        first * 256 + second
        for first in range(0x08, 0x80, 0x10)
        for second in range(256)
        if (first * 256 + second) % 31 == 0 and not second & 0x20
    ]
] = True
_LZMA = re.compile(rb"\0(?!\0{3})[\0-\xff]{2}[\0-\x10](?:\xff{8}|.{4}[\0-\x3f]\0{3})", re.DOTALL)
"""But for its first byte."""
_MARKS = (
    b"\x1f\x8b\x08",
    b"BZh",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"PK\x03\x04",
    b"PAR1",
    b"ARROW1\0\0",
    b"SQLite format 3\0",
    b"7z\xbc\xaf",
    b"Rar!\x1a",
    b"\x89HDF",
    b"Obj\x01",
    b"PACK\0\0\0",
)
"""Looked for first: a search for one string is a hundred times as fast as one for a pattern."""
_SURE = re.compile(
    rb"(?P<gzip>\x1f\x8b\x08[\0-\x1f].{4}[\0\2\4][\0-\x0d\xff])|(?P<bzip2>BZh[1-9](?:1AY&SY|\x17rE8P\x90))|"
    rb"(?P<xz>\xfd7zXZ\0)|(?P<zstd>\x28\xb5\x2f\xfd)|(?P<lz4>\x04\x22\x4d\x18)|(?P<zip>PK\x03\x04)|(?P<parquet>PAR1)|"
    rb"(?P<arrow>ARROW1\0\0)|(?P<sqlite>SQLite format 3\0)|"
    rb"(?P<other>7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|\x89HDF\r\n\x1a\n|Obj\x01|PACK\0\0\0[\2\3])",
    re.DOTALL,
)


@dataclass(frozen=True)
class Found:
    """What was unpacked of one beginning. `ended`: how many bytes it has, None where it breaks off;
    `read`: how many were read until then; `out`: how many came out."""

    ended: int | None
    read: int
    out: int = 0


class Pages:
    """Every page of a database that lies in its file, in its write-ahead log and in its journal, in
    that order, and what lies between pages there (decoding.logs)."""

    def __init__(
        self,
        database: IO[bytes],
        log: IO[bytes] | None,
        journal: IO[bytes] | None,
    ) -> None:
        database.seek(0)
        header = database.read(100)
        size = int.from_bytes(header[16:18], "big")
        self.size = 2**16 if size == 1 else size
        self._usable = self.size - header[20]
        self._first_free = int.from_bytes(header[32:36], "big")
        self.least = (self._usable - 12) * 32 // 255 - 23
        """So many bytes of a long cell stand in its first page (1.6 of the file format)."""
        count = database.seek(0, io.SEEK_END) // self.size
        self._places = [
            Place(
                n + 1,
                database,
                n * self.size,
                self.size,
                whole=True,
            )
            for n in range(count)
        ]
        self._in_file = count
        self._places += places_in_log(log, self.size) if log else ()
        self._places += places_in_journal(journal, self.size) if journal else ()
        self._nexts: dict[int, int] = {}
        self._by_number: dict[int, list[int]] = {}
        for index, place in enumerate(self._places):
            self._by_number.setdefault(place.number, []).append(index)

    def __len__(self) -> int:
        return len(self._places)

    def is_shown(self, index: int) -> bool:
        """Whether a query gives the cells of this page, unless it is free: it lies in the file, and
        no frame of a log and no record of a journal is beside it."""
        return index < self._in_file == len(self._places)

    def free_numbers(self) -> set[int]:
        """Pages that the file calls free (1.5 of the file format), as far as their list can be
        read."""
        found: set[int] = set()
        number = self._first_free
        while 0 < number <= self._in_file and number not in found:
            found.add(number)
            trunk = self[number - 1]
            count = min(int.from_bytes(trunk[4:8], "big"), len(trunk) // 4 - 2)
            found.update(n for (n,) in struct.iter_unpack(">L", trunk[8 : 8 + 4 * count]))
            number = int.from_bytes(trunk[:4], "big")
        return found

    def number(self, index: int) -> int:
        """Which page of the database it is, from 1; 0 of bytes that are in none."""
        return self._places[index].number

    def is_whole(self, index: int) -> bool:
        """Whether it is a page from its beginning to its end."""
        return self._places[index].whole

    def is_first_page(self, index: int, at: int) -> bool:
        """Whether the database's own first page begins there: in a log or a journal also where it
        stands behind the header of a frame or a record, since nobody may have told where one
        begins."""
        place = self._places[index]
        if index < self._in_file or (place.number == 1 and at == 0):
            return place.number == 1 and at == 0
        return any(place.before(at, size)[:4] == _FIRST for size in (RECORD_HEADER, FRAME_HEADER))

    def __getitem__(self, index: int) -> bytes:
        place = self._places[index]
        data = place.read()
        return data[: self._usable] if place.whole else data

    def runs(
        self,
        index: int,
        begin: int,
        most: int,
    ) -> Iterator[list[tuple[int, int, int]]]:
        """Where the cell that goes on at `begin` of a page may lie: (page, begin, end), one after
        the other. Its first page has `most` bytes of it at most."""
        page = self[index]
        end = min(len(page) - 3, begin + most + 1)
        places = [(begin, len(page), int.from_bytes(page[:4], "big"))]
        places += [
            (begin, at, int.from_bytes(page[at : at + 4], "big"))
            for at in (found.start() for found in _NUMBER.finditer(page, begin + 1, end))
        ]
        for first, last, number in places:
            if number not in self._by_number:
                continue
            seen = []
            for policy in range(_POLICIES):
                rest = self._chain(index, number, policy)
                if rest and rest not in seen:
                    seen.append(rest)
                    yield [(index, first, last), *rest]

    def _chain(
        self,
        index: int,
        number: int,
        policy: int,
    ) -> list[tuple[int, int, int]]:
        """The pages that a cell goes on in, from page `number` to the one that names no other; []
        where that fails."""
        found: list[tuple[int, int, int]] = []
        passed = {index}
        while number:
            place = self._nearest(index, number, policy)
            if place is None or place in passed:
                return []
            passed.add(place)
            found.append((place, 4, self._usable))
            number = self._next(place)
        return found

    def _next(self, index: int) -> int:
        if index not in self._nexts:
            self._nexts[index] = int.from_bytes(self._places[index].read()[:4], "big")
        return self._nexts[index]

    def _nearest(
        self,
        index: int,
        number: int,
        policy: int,
    ) -> int | None:
        """Which of the pages of this number belongs to the page at `index`."""
        first = self._in_file
        preferred: tuple[Callable[[int], bool], ...] = (
            lambda i: (i < first) == (index < first),
            lambda i: i < index,
            lambda i: i > index,
            lambda i: i < first,
        )
        return min(
            self._by_number.get(number, ()),
            default=None,
            key=lambda i: (not preferred[policy](i), abs(i - index)),
        )

    def read(self, run: list[tuple[int, int, int]]) -> bytes:
        """The bytes of a run."""
        return b"".join(self[index][begin:end] for index, begin, end in run)


def carved(pages: Pages, known: set[bytes]) -> Iterator[Part]:
    """What the packed cells say. `known`: the first bytes, `pages.least` at most, of cells that a
    query gave. Raises Undecodable at the end."""
    broken: list[tuple[int, int, str]] = []
    taken = _Taken(pages, known)
    for index, at, kind, run, found in _tried(pages, _sure, None):
        if found.ended is None:
            broken.append((index, at, kind))
        else:
            member = pages.read(run)[: found.ended]
            taken.add(run, member)
            yield from _whole(kind, member)
    for _, _, kind, run, found in _tried(pages, _unsure, taken):
        if found.ended is not None:
            yield from _whole(kind, pages.read(run)[: found.ended])
        elif found.out >= _SURE_BYTES:
            yield stream_of(_as_far(kind, pages.read(run)))
    stops = False
    for index, at, kind in broken:
        if not taken.has(index, at):
            yield stream_of(_as_far(kind, pages[index][at:]))
            stops = stops or not taken.is_like(index, at)
    if stops:
        raise Undecodable("SQLite: a packed cell that was deleted and breaks off")


class _Taken:
    """What was read to its end: the bytes of it in each page, and how each cell begins."""

    def __init__(self, pages: Pages, known: set[bytes]) -> None:
        self._pages = pages
        self._known = set(known)
        self._places: dict[int, list[tuple[int, int]]] = {}
        self._by_number: dict[int, dict[tuple[int, int], int]] = {}

    def add(self, run: list[tuple[int, int, int]], member: bytes) -> None:
        """Remember a member that lies in `run`."""
        self._known.add(member[: self._pages.least])
        size = len(member)
        for index, begin, end in run:
            place = (begin, min(end, begin + size))
            self._places.setdefault(index, []).append(place)
            self._by_number.setdefault(self._pages.number(index), {}).setdefault(place, index)
            size -= place[1] - begin

    def has(self, index: int, at: int) -> bool:
        """Whether the byte at this place belongs to one of them."""
        return any(begin <= at < end for begin, end in self._places.get(index, ()))

    def is_like(self, index: int, at: int) -> bool:
        """Whether it begins like one of them, or the same bytes stand there as in the same page at
        another time, of which they were a part of one."""
        rest = self._pages[index][at:]
        if any(
            rest.startswith(cell[: len(rest)])
            for cell in self._known
            if min(len(cell), len(rest)) >= _LIKE_BYTES
        ):
            return True
        return any(
            begin <= at < end and rest[: end - at] == self._pages[other][at:end]
            for (begin, end), other in self._by_number.get(self._pages.number(index), {}).items()
        )


def _tried(
    pages: Pages,
    beginnings: Callable[[bytes], Iterator[tuple[int, str]]],
    taken: _Taken | None,
) -> Iterator[tuple[int, int, str, list[tuple[int, int, int]], Found]]:
    """Every beginning, where it stands, its kind, and the run in which it reaches an end, else
    comes farthest."""
    for index in range(len(pages)):
        page = pages[index]
        for at, kind in beginnings(page):
            if (
                (kind == "sqlite" and pages.is_first_page(index, at))
                or (taken and taken.has(index, at))
                or not _may_be(kind, page[at : at + HEAD_BYTES])
            ):
                continue
            run = [(index, at, len(page))]
            best = _unpacked(kind, page[at:])
            for longer in pages.runs(index, at, best.read) if best.ended is None else ():
                found = _unpacked(kind, pages.read(longer))
                if found.ended is not None or found.out > best.out:
                    run, best = longer, found
                if found.ended is not None:
                    break
            yield index, at, kind, run, best


def _sure(page: bytes) -> Iterator[tuple[int, str]]:
    """Where something of a kind with a long mark begins, and its kind."""
    if any(mark in page for mark in _MARKS):
        yield from ((match.start(), str(match.lastgroup)) for match in _SURE.finditer(page))


def _unsure(page: bytes) -> Iterator[tuple[int, str]]:
    """Where something may begin of which hardly a byte is fixed."""
    values = np.frombuffer(page, np.uint8).astype(np.uint16)
    pairs = values[:-1] * 256 + values[1:]
    yield from ((at, "zlib") for at in np.flatnonzero(_ZLIB[pairs]).tolist())
    yield from ((match.start() - 1, "lzma") for match in _LZMA.finditer(page, 1))


def _may_be(kind: str, head: bytes) -> bool:
    return {"zlib": is_zlib, "lzma": is_lzma}.get(kind, bool)(head)


def _whole(kind: str, member: bytes) -> Iterator[Part]:
    """A member that reaches its end, to be decoded as a file; of a zip, one entry."""
    if kind != "zip":
        yield io.BytesIO(member)
        return
    begin = _entry_begin(member)
    yield member[30:begin]
    yield (
        stream_of(_as_far(kind, member))
        if member[8:10] == b"\x08\0"
        else io.BytesIO(member[begin:])
    )


# --- where a member ends


def _unpacked(kind: str, data: bytes) -> Found:
    if kind in _INFLATERS:
        return _inflated(_INFLATERS[kind](), data)
    if kind == "zip":
        return _entry(data)
    end = _ENDS[kind](data) if kind in _ENDS else None
    return Found(
        end if end is not None and _is_whole(kind, data[:end]) else None, len(data), len(data)
    )


def _is_whole(kind: str, member: bytes) -> bool:
    """Whether a member whose length a footer or frames tell can be read: pages of another cell may
    be in it."""
    with suppress(pa.ArrowException, OSError, sqlite3.Error):
        if kind in ("zstd", "lz4"):
            pa.CompressedInputStream(pa.BufferReader(member), kind).read()
        elif kind == "parquet":
            pq.ParquetFile(pa.BufferReader(member), pre_buffer=False).read(use_threads=False)
        elif kind == "arrow":
            pa.ipc.open_file(pa.BufferReader(member), options=IN_THIS_THREAD).read_all().validate(
                full=True
            )
        else:
            connection = sqlite3.connect(":memory:")
            with closing(connection):
                connection.deserialize(member)
                return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
        return True
    return False


_INFLATERS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(31),
    "zlib": zlib.decompressobj,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE),
}


"""What decompressors raise where a stream is damaged, or is none."""


def _inflated(inflater: Any, data: bytes) -> Found:
    out = at = 0
    with suppress(*DAMAGED):
        for at in range(0, len(data), _STEP):
            out += len(inflater.decompress(data[at : at + _STEP]))
            if inflater.eof:
                return Found(
                    min(at + _STEP, len(data)) - len(inflater.unused_data),
                    at,
                    out,
                )
        return Found(None, len(data), out)
    return Found(None, at + _STEP, out)


def _entry_begin(data: bytes) -> int:
    name, extra = struct.unpack("<HH", data[26:30])
    return 30 + int(name) + int(extra)


def _entry(data: bytes) -> Found:
    """One entry of a zip, from its header on: each stands for itself, whatever became of the
    directory."""
    if len(data) < 30:
        return Found(None, len(data))
    flags, method, crc, stored = struct.unpack("<2xHH4xLL", data[4:22])
    begin = _entry_begin(data)
    if method == 0 and not flags & 9 and len(data) >= begin + stored:
        end = begin + stored if zlib.crc32(data[begin : begin + stored]) == crc else None
        return Found(end, len(data), stored)
    if method != 8 or flags & 1:
        return Found(None, len(data))
    found = _inflated(zlib.decompressobj(-15), data[begin:])
    if found.ended is not None:
        end = begin + found.ended
        whole = zlib.decompressobj(-15).decompress(data[begin:end])
        checksum = struct.pack("<L", zlib.crc32(whole))
        before, behind = struct.pack("<L", crc), data[end : end + 8]
        if checksum not in (before, behind[:4], behind[4:]):
            return Found(None, begin + found.read, found.out)
    return Found(
        None if found.ended is None else begin + found.ended, begin + found.read, found.out
    )


def _by_frames(passing: Callable[[IO[bytes]], None]) -> Callable[[bytes], int | None]:
    def end(data: bytes) -> int | None:
        file = io.BytesIO(data)
        file.seek(4)
        with suppress(Undecodable):
            passing(file)
            return file.tell()
        return None

    return end


def _by_footer(magic: bytes) -> Callable[[bytes], int | None]:
    """Of a file that ends in the length of its footer and a mark."""

    def end(data: bytes) -> int | None:
        for found in re.finditer(re.escape(magic), data[8:]):
            at = found.start() + 8
            if 0 < int.from_bytes(data[at - 4 : at], "little") <= at - 8:
                return at + len(magic)
        return None

    return end


def _by_pages(data: bytes) -> int | None:
    """Of a database in a database."""
    size = int.from_bytes(data[16:18], "big")
    end = int.from_bytes(data[28:32], "big") * (2**16 if size == 1 else size)
    return end if 0 < end <= len(data) else None


_ENDS: dict[str, Callable[[bytes], int | None]] = {
    "zstd": _by_frames(pass_zstd),
    "lz4": _by_frames(pass_lz4),
    "parquet": _by_footer(b"PAR1"),
    "arrow": _by_footer(b"ARROW1"),
    "sqlite": _by_pages,
}


def _as_far(kind: str, data: bytes) -> Iterator[bytes]:
    """What it inflates to, as far as it does; of what is not inflated nothing: its bytes are
    searched as they are."""
    if kind == "zip" and data[8:10] == b"\x08\0" and len(data) >= 30:
        inflater, data = zlib.decompressobj(-15), data[_entry_begin(data) :]
    elif kind in _INFLATERS:
        inflater = _INFLATERS[kind]()
    else:
        return
    yield from inflated_as_far(inflater, [data])
