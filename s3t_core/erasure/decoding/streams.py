"""Decoders of streams: what is compressed, member after member, or in another encoding of
letters."""

import bz2
import codecs
import contextlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import IO, Any

import pyarrow as pa

from s3t_core.erasure.decoding.parts import (
    CHUNK_BYTES,
    HEAD_BYTES,
    Decoder,
    Kept,
    Mistaken,
    Part,
    Source,
    Undecodable,
    cells_of,
    exactly,
    read_exactly,
    stream_of,
    to_end_of,
)

_GZIP_BYTES, _GZIP_NOTES_BYTES = 2**14, 2**17
_GZIP_HEADER_BYTES = 10
_STEP = 64
DAMAGED = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)
"""What inflaters raise."""
_SURE_BYTES = 6
"""Of a kind without a magic: when so many bytes came out, it is of that kind. The shortest needle
has as many."""


def decode_gzip(source: Source) -> Iterator[Part]:
    """Every member with its checksum, then what their headers say. Zeros behind a member are
    padding (RFC 1952 tools write it), all else is not."""
    notes: list[bytes] = []
    stream = stream_of(_gzip_pieces(source.file, notes))
    yield stream
    to_end_of(stream)
    yield cells_of(notes)


def _gzip_pieces(file: IO[bytes], notes: list[bytes]) -> Iterator[bytes]:
    """The content of each member; what its header says goes to `notes`. Read in small pieces: of
    members of a line each, what follows is copied with every one."""
    data = file.read(_GZIP_BYTES)
    while data:
        if len(data) < _GZIP_NOTES_BYTES and (len(data) < _GZIP_HEADER_BYTES or data[3]):
            data += file.read(_GZIP_NOTES_BYTES)
        notes += _gzip_notes(data)
        inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
        while not inflater.eof:
            if not data:
                raise Undecodable("gzip: cut")
            yield inflater.decompress(data, CHUNK_BYTES)
            data = inflater.unconsumed_tail or (b"" if inflater.eof else file.read(_GZIP_BYTES))
        data = inflater.unused_data.lstrip(b"\0")
        while not data and (more := file.read(_GZIP_BYTES)):
            data = more.lstrip(b"\0")


def _gzip_notes(header: bytes) -> list[bytes]:
    """What the header of a member says: an extra field, a name, a comment. What goes on for longer
    than anybody writes by hand is not passed over."""
    if header[:3] != b"\x1f\x8b\x08" or len(header) < _GZIP_HEADER_BYTES:
        raise Undecodable("gzip: bytes behind its end, or cut")
    flags, at, notes = header[3], _GZIP_HEADER_BYTES, []
    if flags & 4:
        size = int.from_bytes(header[10:12], "little")
        notes, at = [header[12 : 12 + size]], 12 + size
    for flag in (8, 16):
        if flags & flag:
            end = header.find(b"\0", at)
            if end < 0:
                raise Undecodable("gzip: a name or a comment without an end")
            notes.append(header[at:end])
            at = end + 1
    return notes


def zlib_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Streams one after the other. Raises Mistaken where hardly a byte came out: two bytes say that
    it is zlib."""
    size, data = 0, file.read(CHUNK_BYTES)
    begin = data[:HEAD_BYTES]
    while data:
        inflater = zlib.decompressobj()
        while not inflater.eof:
            if not data:
                raise (Undecodable if size >= _SURE_BYTES else Mistaken)("zlib: cut")
            before = inflater.copy()
            try:
                piece = inflater.decompress(data, CHUNK_BYTES)
            except zlib.error:
                yield from inflated_as_far(before, [data])
                sure = size or _inflated(begin, zlib.decompressobj()) >= _SURE_BYTES
                raise (Undecodable if sure else Mistaken)(
                    "zlib: damaged, or followed by other bytes"
                ) from None
            size += len(piece)
            yield piece
            data = inflater.unconsumed_tail or (b"" if inflater.eof else file.read(CHUNK_BYTES))
        data = inflater.unused_data or file.read(CHUNK_BYTES)


def inflated_as_far(inflater: Any, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What comes out of it before the error: of a long piece an inflater gives nothing."""
    with contextlib.suppress(*DAMAGED):
        for data in chunks:
            for at in range(0, len(data), _STEP):
                if inflater.eof:
                    return
                yield inflater.decompress(data[at : at + _STEP])


def _inflated(begin: bytes, inflater: Any) -> int:
    """How many bytes come out before the error."""
    size = 0
    with contextlib.suppress(
        zlib.error,
        lzma.LZMAError,
        EOFError,
    ):
        for at in range(len(begin)):
            if inflater.eof:
                break
            size += len(inflater.decompress(begin[at : at + 1]))
    return size


def decode_zlib(source: Source) -> Iterator[Part]:
    """Every zlib stream in the file."""
    yield stream_of(zlib_pieces(source.file))


def _member_pieces(file: IO[bytes], begin: Callable[[], Any]) -> Iterator[bytes]:
    """Members of bzip2 or xz, one after the other. The standard library's own file objects take
    what follows the first for rubbish, in silence."""
    data = file.read(CHUNK_BYTES)
    while data:
        inflater = begin()
        while not inflater.eof:
            yield inflater.decompress(data, CHUNK_BYTES)
            data = b""
            if inflater.needs_input and not inflater.eof:
                data = file.read(CHUNK_BYTES)
                if not data:
                    raise Undecodable("cut")
        data = (inflater.unused_data or file.read(CHUNK_BYTES)).lstrip(b"\0")


def decode_bzip2(source: Source) -> Iterator[Part]:
    """Every member of bzip2."""
    yield stream_of(_member_pieces(source.file, bz2.BZ2Decompressor))


def decode_xz(source: Source) -> Iterator[Part]:
    """Every member of xz."""
    yield stream_of(_member_pieces(source.file, lzma.LZMADecompressor))


def _lzma_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """What xz called lzma before it was xz: its header has no magic, so it is sure once bytes come
    out."""
    begin = file.read(HEAD_BYTES)
    file.seek(0)
    try:
        yield from _member_pieces(file, _lzma_inflater)
    except (lzma.LZMAError, Undecodable):
        file.seek(0)
        yield from inflated_as_far(_lzma_inflater(), iter(partial(file.read, CHUNK_BYTES), b""))
        sure = _inflated(begin, _lzma_inflater()) >= _SURE_BYTES
        raise (Undecodable if sure else Mistaken)(
            "lzma: cut, damaged or followed by other bytes"
        ) from None


def _lzma_inflater() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE)


def decode_lzma(source: Source) -> Iterator[Part]:
    """What xz called lzma before it was xz."""
    yield stream_of(_lzma_pieces(source.file))


def decode_after_skippable(source: Source) -> Iterator[Part]:
    """Frames that zstd and lz4 pass over, each as what it may be itself, then what follows them."""
    file = source.file
    while is_skippable(header := file.read(8)):
        frame = stream_of(exactly(file, int.from_bytes(header[4:], "little")))
        yield frame
        to_end_of(frame)
    file.seek(-len(header), io.SEEK_CUR)
    yield file


def decode_by_arrow(codec: str) -> Decoder:
    """A decoder by a codec of pyarrow, which reads every frame to the end of the file: "zstd",
    "lz4"."""

    def decode(source: Source) -> Iterator[Part]:
        with pa.CompressedInputStream(pa.PythonFile(Kept(source.file), "r"), codec) as stream:
            yield stream
            to_end_of(stream)
        source.file.seek(0)
        while magic := source.file.read(4):
            if is_skippable(magic + b"...."):
                frame = stream_of(exactly(source.file, _number(source.file, 4)))
                yield frame
                to_end_of(frame)
            else:
                (pass_zstd if codec == "zstd" else pass_lz4)(source.file)

    return decode


def _number(file: IO[bytes], size: int) -> int:
    return int.from_bytes(read_exactly(file, size), "little")


def pass_zstd(file: IO[bytes]) -> None:
    """To the end of a frame of zstd, whose magic was read (RFC 8878)."""
    flags = _number(file, 1)
    single, sized = bool(flags & 0x20), flags >> 6
    window = int(not single)
    dictionary = (0, 1, 2, 4)[flags & 3]
    content_size = (0, 2, 4, 8)[sized] or int(single)
    read_exactly(file, window + dictionary + content_size)
    last = False
    while not last:
        block = _number(file, 3)
        last = bool(block & 1)
        read_exactly(file, 1 if block >> 1 & 3 == 1 else block >> 3)
    read_exactly(file, 4 if flags & 4 else 0)


def pass_lz4(file: IO[bytes]) -> None:
    """To the end of a frame of lz4, whose magic was read."""
    flags = _number(file, 1)
    content_size = 8 if flags & 8 else 0
    dictionary = 4 if flags & 1 else 0
    read_exactly(file, 2 + content_size + dictionary)
    while size := _number(file, 4):
        read_exactly(file, (size & 0x7FFFFFFF) + (4 if flags & 16 else 0))
    read_exactly(file, 4 if flags & 4 else 0)


def decode_as(encoding: str) -> Decoder:
    """Text in another encoding, as UTF-8: what is no text in it becomes a question mark."""

    def pieces(file: IO[bytes]) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(encoding)("replace")
        while data := file.read(CHUNK_BYTES):
            yield decoder.decode(data).encode("utf-8", "replace")

    def decode(source: Source) -> Iterator[Part]:
        yield stream_of(pieces(source.file))

    return decode


def is_skippable(head: bytes) -> bool:
    """Whether a frame that zstd and lz4 pass over begins here."""
    if len(head) < 8:
        return False
    return head[0] & 0xF0 == 0x50 and head[1:4] == b"\x2a\x4d\x18"
