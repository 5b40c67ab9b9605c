"""Decoders of archives: zip, tar, and what git keeps."""

import bz2
import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from s3t_core.erasure.decoding.parts import (
    CHUNK_BYTES,
    Part,
    Source,
    Undecodable,
    cells_of,
    exactly,
    read_exactly,
    stream_of,
    to_end_of,
)
from s3t_core.erasure.decoding.streams import zlib_pieces

TAR_BLOCK = 512
_TAR_NOTES = (b"x", b"g", b"L", b"K")
"""Types of what is told about the next entry, before it: long names, extended headers."""
_DESCRIPTOR_BYTES = 24
"""What may stand between two entries of a zip: a data descriptor."""
_MARKS = (b"PK\x07\x08", b"PK00")
"""What may stand before the first entry of a zip that was written in one piece where several were
possible."""
_GIT_HEADER_BYTES = 64


def decode_zip(source: Source) -> Iterator[Part]:
    """Every entry, each with its checksum. Bytes that no entry accounts for are not passed over."""
    yield from _zip_entries(source, behind_others=False)


def decode_zip_behind(source: Source) -> Iterator[Part]:
    """The same; what stands before the first entry (a program that unpacks it) is searched as it
    is."""
    yield from _zip_entries(source, behind_others=True)


def _zip_entries(source: Source, behind_others: bool) -> Iterator[Part]:
    with zipfile.ZipFile(source.file) as archive:
        entries = archive.infolist()
        begin = (
            min((e.header_offset for e in entries), default=archive.start_dir)
            if behind_others
            else 0
        )
        source.file.seek(0)
        begin = begin or 4 * (source.file.read(4) in _MARKS)
        _check_covered(
            source.file,
            entries,
            begin,
            archive.start_dir,
        )
        yield archive.comment
        for entry in entries:
            yield cells_of(
                (entry.orig_filename.encode("utf-8", "replace"), entry.comment, entry.extra)
            )
            yield _local_header(source.file, entry)
            stream = stream_of(_entry_pieces(source.file, entry))
            yield stream
            to_end_of(stream)


def _local_header(file: IO[bytes], entry: zipfile.ZipInfo) -> bytes:
    """The name of an entry, a line break, and what else stands before its content. Leaves the file
    at the content."""
    file.seek(entry.header_offset)
    header = read_exactly(file, 30)
    if not header.startswith(b"PK\x03\x04"):
        raise Undecodable("zip: no entry where one should be")
    name, extra = struct.unpack("<HH", header[26:])
    return read_exactly(file, name) + b"\n" + read_exactly(file, extra)


def _entry_pieces(file: IO[bytes], entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of an entry. Every byte that is stored must be a part of it, and it must be as
    long as it says: the standard library passes over the rest."""
    if entry.flag_bits & 0x61 or entry.compress_type not in _INFLATERS:
        raise Undecodable("zip: encrypted, or another compression")
    inflater, left, size, crc = _INFLATERS[entry.compress_type](entry), entry.compress_size, 0, 0
    if entry.compress_type == zipfile.ZIP_LZMA:
        left -= 4
        file.seek(4, io.SEEK_CUR)
        inflater.decompress(read_exactly(file, 5) + _lzma_size(entry))
        left -= 5
    while left or not inflater.eof:
        waits = getattr(
            inflater,
            "needs_input",
            not getattr(inflater, "unconsumed_tail", b""),
        )
        fresh = read_exactly(file, min(left, CHUNK_BYTES)) if waits else b""
        left -= len(fresh)
        if waits and not fresh:
            break
        piece = inflater.decompress(getattr(inflater, "unconsumed_tail", b"") + fresh, CHUNK_BYTES)
        size, crc = size + len(piece), zlib.crc32(piece, crc)
        yield piece
        if inflater.eof:
            break
    whole = inflater.eof and not left and not inflater.unused_data
    if not whole or size != entry.file_size or crc != entry.CRC:
        raise Undecodable("zip: an entry that is not what it says")


class _Stored:
    """What is stored as it is, read like what is not."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        """Whether all of it came."""
        return self._left <= 0

    def decompress(self, data: bytes, _: int = 0) -> bytes:
        """The same bytes."""
        self._left -= len(data)
        return data


def _lzma_size(entry: zipfile.ZipInfo) -> bytes:
    """The size that stands in the header of what xz called lzma: none where the stream has an end
    of its own."""
    return b"\xff" * 8 if entry.flag_bits & 2 else entry.file_size.to_bytes(8, "little")


_INFLATERS: dict[int, Callable[[zipfile.ZipInfo], Any]] = {
    zipfile.ZIP_STORED: lambda entry: _Stored(entry.file_size),
    zipfile.ZIP_DEFLATED: lambda _: zlib.decompressobj(-15),
    zipfile.ZIP_BZIP2: lambda _: bz2.BZ2Decompressor(),
    zipfile.ZIP_LZMA: lambda _: lzma.LZMADecompressor(lzma.FORMAT_ALONE),
}


def _check_covered(
    file: IO[bytes],
    entries: list[zipfile.ZipInfo],
    at: int,
    directory: int,
) -> None:
    """That from `at` on entries, directory and its end are all: what was deleted from an archive
    may lie between."""
    before = None
    for entry in sorted(entries, key=lambda e: e.header_offset):
        _check_gap(file, at, entry.header_offset, before)
        _local_header(file, entry)
        at, before = file.tell() + entry.compress_size, entry
    _check_gap(file, at, directory, before)
    size = file.seek(0, io.SEEK_END)
    begin = max(size - 2**16 - 22, 0)
    file.seek(begin)
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    comment = int.from_bytes(tail[end + 20 : end + 22], "little")
    if begin + end + 22 + comment != size:
        raise Undecodable("zip: bytes after its end")


def _check_gap(
    file: IO[bytes],
    begin: int,
    end: int,
    entry: zipfile.ZipInfo | None,
) -> None:
    """That nothing stands behind an entry but its size and checksum once more, where it says so (a
    data descriptor)."""
    if begin == end:
        return
    file.seek(begin)
    between = file.read(end - begin) if 0 < end - begin <= _DESCRIPTOR_BYTES else b""
    expected = (
        (entry.CRC, entry.compress_size, entry.file_size) if entry and entry.flag_bits & 8 else ()
    )
    if not expected or between.removeprefix(b"PK\x07\x08") not in [
        struct.pack(f, *expected)
        for f in (("<LQQ", "<LLL") if max(expected) < 2**32 else ("<LQQ",))
    ]:
        raise Undecodable("zip: bytes behind an entry")


def decode_tar(source: Source) -> Iterator[Part]:
    """What stands behind every header, whatever its type, block after block to the end of the file.
    The standard library ends in silence at the first header that it does not understand, and skips
    what is no file."""
    file, size = source.file, None
    while any(header := _block(file)):
        stored = _tar_size(header) if size is None or header[156:157] in _TAR_NOTES else size
        if header[156:157] == b"S":
            _skip_sparse_map(file, header)
        entry = stream_of(exactly(file, stored))
        if header[156:157] == b"x":
            records = read_exactly(entry, min(stored, CHUNK_BYTES))
            yield io.BytesIO(records)
            size = _pax_size(records)
        else:
            yield entry
            size = size if header[156:157] in _TAR_NOTES else None
        to_end_of(entry)
        if any(read_exactly(file, -stored % TAR_BLOCK)):
            raise Undecodable("tar: bytes behind an entry")
    while rest := file.read(CHUNK_BYTES):
        if rest.strip(b"\0"):
            raise Undecodable("tar: bytes after its end")


def _block(file: IO[bytes]) -> bytes:
    return read_exactly(file, TAR_BLOCK)


def _tar_size(header: bytes) -> int:
    """How many bytes stand behind a header: octal digits, or, with the first bit set, a number in
    base 256."""
    if not has_tar_checksum(header):
        raise Undecodable("tar: a header without its checksum")
    field = header[124:136]
    return (
        int.from_bytes(field, "big") & (2**95 - 1)
        if field[0] & 0x80
        else int(field.strip(b" \0") or b"0", 8)
    )


def has_tar_checksum(header: bytes) -> bool:
    """Whether the bytes of a header, its checksum taken for spaces, add up to what it says."""
    digits = header[148:156].strip(b" \0")
    if len(header) < TAR_BLOCK or not re.fullmatch(rb"[0-7]{1,8}", digits):
        return False
    others = header[:148] + b" " * 8 + header[156:]
    signed = sum(others) - 256 * sum(c > 127 for c in others)
    return int(digits, 8) in (sum(others), signed)


def _pax_size(records: bytes) -> int | None:
    """The size that an extended header gives the next entry, None when it gives none: "LENGTH
    KEY=VALUE" lines."""
    size = None
    while records:
        length = int(records.partition(b" ")[0])
        key, _, value = records[:length].partition(b" ")[2].partition(b"=")
        if length < 5 or not records[:length].endswith(b"\n"):
            raise Undecodable("tar: an extended header")
        size = int(value.decode().removesuffix("\n")) if key == b"size" else size
        if size is not None and size < 0:
            raise Undecodable("tar: a size below 0")
        records = records[length:]
    return size


def _skip_sparse_map(file: IO[bytes], header: bytes) -> None:
    """More of the map of a sparse file's holes, in blocks of their own: numbers, searched as they
    are."""
    more = header[482]
    while more:
        more = _block(file)[504]


def decode_git_pack(source: Source) -> Iterator[Part]:
    """Every object of the pack, its deltas resolved."""
    if source.unpack is None:
        raise Undecodable("git pack: nobody unpacks it")
    yield from source.unpack(source.file)


def decode_git_loose(source: Source) -> Iterator[Part]:
    """What a loose object holds, without the kind and size that stand before it."""
    stream = stream_of(zlib_pieces(source.file))
    header = b""
    while not header.endswith(b"\0"):
        more = stream.read(1)
        if not more or len(header) > _GIT_HEADER_BYTES:
            raise Undecodable("git object: no header")
        header += more
    yield stream
