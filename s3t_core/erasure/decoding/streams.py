"""Decoders of streams: what is compressed, member after member, or in another encoding of letters."""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

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
    exactly,
    stream_of,
    to_end_of,
)

_SURE_BYTES = 6
"""Of a kind without a magic: when so many bytes came out, it is of that kind. The shortest needle has as many."""


def decode_gzip(source: Source) -> Iterator[Part]:
    """Every member with its checksum. Zeros after the last one are padding (RFC 1952 tools write it), all else is not.
    """
    with gzip.GzipFile(fileobj=source.file, mode="rb") as file:
        yield cast("IO[bytes]", file)


def zlib_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Streams one after the other. Raises Mistaken where hardly a byte came out: two bytes say that it is zlib."""
    size, data = 0, file.read(CHUNK_BYTES)
    begin = data[:HEAD_BYTES]
    while data:
        inflater = zlib.decompressobj()
        while not inflater.eof:
            if not data:
                raise (Undecodable if size >= _SURE_BYTES else Mistaken)("zlib: cut")
            try:
                piece = inflater.decompress(data, CHUNK_BYTES)
            except zlib.error:
                sure = size or _inflated(begin, zlib.decompressobj()) >= _SURE_BYTES
                raise (Undecodable if sure else Mistaken)("zlib: damaged, or followed by other bytes") from None
            size += len(piece)
            yield piece
            data = inflater.unconsumed_tail or (b"" if inflater.eof else file.read(CHUNK_BYTES))
        data = inflater.unused_data or file.read(CHUNK_BYTES)


def _inflated(begin: bytes, inflater: Any) -> int:
    """How many bytes come out before the error."""
    size = 0
    with contextlib.suppress(zlib.error, lzma.LZMAError, EOFError):
        for at in range(len(begin)):
            if inflater.eof:
                break
            size += len(inflater.decompress(begin[at:at + 1]))
    return size


def decode_zlib(source: Source) -> Iterator[Part]:
    """Every zlib stream in the file."""
    yield stream_of(zlib_pieces(source.file))


def _member_pieces(file: IO[bytes], begin: Callable[[], Any]) -> Iterator[bytes]:
    """Members of bzip2 or xz, one after the other. The standard library's own file objects take what follows the
    first for rubbish, in silence."""
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
    """What xz called lzma before it was xz: its header has no magic, so it is sure once bytes come out."""
    begin = file.read(HEAD_BYTES)
    file.seek(0)
    try:
        yield from _member_pieces(file, _lzma_inflater)
    except (lzma.LZMAError, Undecodable):
        sure = _inflated(begin, _lzma_inflater()) >= _SURE_BYTES
        raise (Undecodable if sure else Mistaken)("lzma: cut, damaged or followed by other bytes") from None


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
    """A decoder by a codec of pyarrow, which reads every frame to the end of the file: "zstd", "lz4"."""
    def decode(source: Source) -> Iterator[Part]:
        with pa.CompressedInputStream(pa.PythonFile(Kept(source.file), "r"), codec) as stream:
            yield stream
    return decode


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
    return len(head) >= 8 and head[0] & 0xf0 == 0x50 and head[1:4] == b"\x2a\x4d\x18"
