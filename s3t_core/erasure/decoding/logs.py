"""What lies in a write-ahead log and in a journal of SQLite's, to the last byte.

Both hold pages, each behind a few bytes that say which it is
(https://www.sqlite.org/fileformat2.html, 3 and 4.1). A process that was killed, or had no more
disk, leaves a part of one at the end, and a journal that is used again keeps records of its former
use behind the new ones, which begin elsewhere. So:

1. what is surely a page is given as one: a frame of a log that says the size of the database's
   pages; a record of a journal with the checksum that its header calls for, or, where a commit
   zeroed that header, the first record
2. what looks like a record is given as a page as well, and as what it is without that
3. whatever bytes are in no sure page are given in pieces of two pages' size, each of which has half
   of the one before, so that nothing is cut in two
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

LOG_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
_LOG_HEADER, FRAME_HEADER = 32, 24
_JOURNAL_HEADER, RECORD_HEADER, _CHECKSUM = 28, 4, 4
_SECTOR = 512
_SUMMED = 200
"""The checksum of a record is of every 200th byte."""


@dataclass(frozen=True)
class Place:
    """`size` bytes from `at` of a file: page `number` where they are `whole`, else a part of it, or
    what is in no page (0)."""

    number: int
    file: IO[bytes]
    at: int
    size: int
    whole: bool = False

    def read(self) -> bytes:
        """The bytes."""
        self.file.seek(self.at)
        return self.file.read(self.size)

    def before(self, at: int, size: int) -> bytes:
        """So many bytes of the file before the one at `at` of these, none where it has fewer."""
        begin = self.at + at - size
        return _at(self.file, begin, size) if begin >= 0 else b""


def places_in_log(log: IO[bytes], size: int) -> Iterator[Place]:
    """Every frame of a write-ahead log, the last one as far as it was written, then the bytes
    between. `size`: of the database's pages."""
    end = log.seek(0, io.SEEK_END)
    header = _at(log, 0, _LOG_HEADER)
    if header[:4] in LOG_MAGIC and int.from_bytes(header[8:12], "big") != size:
        yield from _between(log, [], end, size)
        return
    sure = []
    for at in range(_LOG_HEADER, end, FRAME_HEADER + size):
        number = int.from_bytes(_at(log, at, 4), "big")
        begin, behind = at + FRAME_HEADER, at + FRAME_HEADER + size
        if behind <= end:
            yield Place(number, log, begin, size, whole=True)
            sure.append((at, behind))
        elif begin < end:
            yield Place(number, log, begin, end - begin)
    yield from _between(log, sure, end, size)


def places_in_journal(journal: IO[bytes], size: int) -> Iterator[Place]:
    """What may be a record of a journal, whose headers stand at the beginnings of sectors, then the
    bytes that are in none for sure."""
    end = journal.seek(0, io.SEEK_END)
    sure, at, nonce = list[tuple[int, int]](), 0, None
    is_zeroed = not _at(journal, 0, _SECTOR).strip(b"\0")
    while at < end:
        header = _at(journal, at, _JOURNAL_HEADER)
        number = int.from_bytes(header[:RECORD_HEADER], "big")
        if at == 0 or header.startswith(JOURNAL_MAGIC):
            has_header = header.startswith(JOURNAL_MAGIC)
            nonce = int.from_bytes(header[12:16], "big") if has_header else None
            at += _sector(header) if has_header else _SECTOR
        elif 0 < number < 2**31:
            begin, behind = at + RECORD_HEADER, at + RECORD_HEADER + size + _CHECKSUM
            record = _at(journal, begin, size + _CHECKSUM)
            if begin < end:
                yield Place(
                    number,
                    journal,
                    begin,
                    min(size, end - begin),
                    len(record) >= size,
                )
            if behind <= end:
                stated = _nonce_of(record)
                nonce = stated if is_zeroed and at == _SECTOR else nonce
                sure += [(at, behind)] if stated == nonce else []
            at = behind
        else:
            at = (at // _SECTOR + 1) * _SECTOR
    yield from _between(journal, sure, end, size)


def _sector(header: bytes) -> int:
    size = int.from_bytes(header[20:24], "big")
    return size if _SECTOR <= size <= 2**16 else _SECTOR


def _nonce_of(record: bytes) -> int:
    """The nonce with which a page has the checksum behind it: the checksum is the nonce and every
    200th byte, counted from its end (3 of the file format)."""
    size = len(record) - _CHECKSUM
    summed = sum(record[n] for n in range(size - _SUMMED, 0, -_SUMMED))
    return (int.from_bytes(record[size:], "big") - summed) % 2**32


def _between(
    file: IO[bytes],
    sure: Iterable[tuple[int, int]],
    end: int,
    size: int,
) -> Iterator[Place]:
    """What is in none of these pages and not zero."""
    before = 0
    for begin, behind in [*sure, (end, end)]:
        for at in range(before, begin, size):
            place = Place(0, file, at, min(2 * size, begin - at))
            if place.read().strip(b"\0"):
                yield place
        before = behind


def _at(
    file: IO[bytes],
    at: int,
    size: int,
) -> bytes:
    file.seek(at)
    return file.read(size)
