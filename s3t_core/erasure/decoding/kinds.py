"""Every kind of file that is known, and what one decodes to."""

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, cast

from s3t_core.erasure.decoding.archives import (
    TAR_BLOCK,
    decode_git_loose,
    decode_git_pack,
    decode_tar,
    decode_zip,
    decode_zip_behind,
    has_tar_checksum,
)
from s3t_core.erasure.decoding.git_index import INDEX_MAGIC, decode_git_index
from s3t_core.erasure.decoding.logs import JOURNAL_MAGIC, LOG_MAGIC
from s3t_core.erasure.decoding.magics import is_bzip2, is_gzip, is_lzma, is_zlib
from s3t_core.erasure.decoding.parts import (
    CHUNK_BYTES,
    HEAD_BYTES,
    Cell,
    Decoder,
    Part,
    Readable,
    Rows,
    Source,
    Uncut,
    Undecodable,
)
from s3t_core.erasure.decoding.streams import (
    decode_after_skippable,
    decode_as,
    decode_by_arrow,
    decode_bzip2,
    decode_gzip,
    decode_lzma,
    decode_xz,
    decode_zlib,
    is_skippable,
)
from s3t_core.erasure.decoding.tables import (
    decode_arrow_file,
    decode_arrow_stream,
    decode_beside_sqlite,
    decode_parquet,
    decode_safetensors,
    decode_sqlite,
)
from s3t_core.unclosed import SQLITE_MAGIC

MAX_DEPTH = 6
"""A zip in a gzip in a tar is 3 deep."""


@dataclass(frozen=True)
class Kind:
    """A kind of file. `packed`: its bytes say nothing before they are decoded. `sure`: its magic is
    long enough that no other file has it by chance; a file of an unsure kind of which nothing
    decodes is taken for another. `theirs`: what is in it is the operator's: it must be whole
    itself, and its parts are searched as far as they can be decoded. `beside`: what lies beside the
    file, under its name, belongs to it."""

    name: str
    matches: Callable[[bytes], bool]
    decode: Decoder
    packed: bool = True
    sure: bool = True
    theirs: bool = False
    beside: bool = False


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file that begins with `head` (HEAD_BYTES of it, or all), None for one that is
    searched as it is."""
    kinds = _BY_FIRST.get(head[:1], ())
    return next((kind for kind in kinds if kind.matches(head)), None)


def kind_by_end(file: IO[bytes]) -> Kind | None:
    """The kind of a file whose beginning says none: a zip is found by its last bytes, whatever
    stands before it."""
    file.seek(0)
    return _ZIP_BEHIND if zipfile.is_zipfile(file) else None


def parts_of(kind: Kind, source: Source) -> Iterator[Readable | Rows | Uncut | bytes]:
    """What the file decodes to. Raises Undecodable."""
    source.file.seek(0)
    with decoding(kind.name):
        for part in kind.decode(source):
            if isinstance(part, Rows | Uncut | bytes):
                yield part
            elif not isinstance(part, Cell):
                yield _Guarded(part, kind.name)
            else:
                yield from _cell(part.value, source)


def _cell(value: bytes, source: Source) -> Iterator[Readable]:
    """A cell that is a file. Of an unsure kind it is read as far as it decodes: of many cells some
    begin like one."""
    kind = kind_of(value[:HEAD_BYTES])
    if kind is not None and kind.sure:
        yield io.BytesIO(value)
    elif kind is not None:
        with contextlib.suppress(Undecodable):
            for part in parts_of(kind, Source(io.BytesIO(value), None, source.temporary)):
                yield (
                    io.BytesIO(part)
                    if isinstance(part, bytes)
                    else _Lenient(cast("_Guarded", part))
                )


@contextlib.contextmanager
def decoding(kind: str) -> Iterator[None]:
    """Whatever a decoder raises, it did not reach the end."""
    try:
        yield
    except Undecodable:
        raise
    except Exception as error:
        raise Undecodable(f"{kind}: {type(error).__name__}") from None


class _Guarded:
    """A stream that a decoder yields: reading it decodes."""

    def __init__(self, stream: Readable, kind: str) -> None:
        self._stream = stream
        self._kind = kind

    def read(self, size: int = -1, /) -> bytes:
        """Read from it. Raises Undecodable."""
        with decoding(self._kind):
            return self._stream.read(size)

    def read1(
        self,
        size: int,
        /,
    ) -> bytes:
        """The next piece, so that nothing of those before is lost where it cannot be decoded.
        Raises Undecodable."""
        read = getattr(
            self._stream,
            "read1",
            self._stream.read,
        )
        with decoding(self._kind):
            return bytes(read(size))


class _Lenient:
    """A stream that ends where it cannot be decoded."""

    def __init__(self, stream: "_Guarded") -> None:
        self._stream = stream
        self._ended = False

    def read(self, size: int = -1, /) -> bytes:
        """Read from it; what came before that where it is damaged."""
        pieces: list[bytes] = []
        wanted = size
        while wanted and not self._ended:
            piece = self._next(wanted)
            pieces.append(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def _next(
        self,
        wanted: int,
    ) -> bytes:
        """A piece, of so many bytes at most; "" at the end."""
        piece = b""
        with contextlib.suppress(Undecodable):
            piece = self._stream.read1(wanted if wanted > 0 else CHUNK_BYTES)
        self._ended = not piece
        return piece


def _sealed(name: str) -> Decoder:
    def decode(_: Source) -> Iterator[Part]:
        raise Undecodable(f"{name}: not decoded")
        yield

    return decode


class _Begins:
    """Whether a file begins with one of some bytes."""

    def __init__(self, *magics: bytes) -> None:
        self._magics = magics
        self.firsts = frozenset(magic[0] for magic in magics)

    def __call__(
        self,
        head: bytes,
    ) -> bool:
        return head.startswith(self._magics)


def _is_orc(head: bytes) -> bool:
    """Three letters that a text may begin with, so only where no text follows."""
    return head[:3] == b"ORC" and any(c < 32 and c not in b"\t\n\r\f" for c in head)


def _is_arrow_stream(head: bytes) -> bool:
    """The continuation mark, then the length of the schema, a multiple of 8."""
    length = int.from_bytes(head[4:8], "little")
    return (
        head[:4] == b"\xff\xff\xff\xff"
        and len(head) >= 8
        and 0 < length < 2**24
        and length % 8 == 0
    )


def _is_safetensors(head: bytes) -> bool:
    """The length of a JSON object, then the object."""
    length = int.from_bytes(head[:8], "little")
    return head[8:10] in (b'{"', b"{}") and length < 2**26


def _is_tar(head: bytes) -> bool:
    """By its mark, or, of a tar older than the mark, by the checksum of its first header."""
    return head[257:262] == b"ustar" or has_tar_checksum(head[:TAR_BLOCK])


_KINDS = (
    Kind("Parquet", _Begins(b"PAR1"), decode_parquet),
    Kind("gzip", is_gzip, decode_gzip),
    Kind(
        "zip",
        _Begins(
            b"PK\x03\x04",
            b"PK\x05\x06",
            b"PK\x07\x08",
            b"PK00PK\x03\x04",
        ),
        decode_zip,
    ),
    Kind(
        "zstd",
        _Begins(b"\x28\xb5\x2f\xfd"),
        decode_by_arrow("zstd"),
    ),
    Kind(
        "lz4",
        _Begins(b"\x04\x22\x4d\x18"),
        decode_by_arrow("lz4"),
    ),
    Kind(
        "skippable frame",
        is_skippable,
        decode_after_skippable,
    ),
    Kind("bzip2", is_bzip2, decode_bzip2),
    Kind("xz", _Begins(b"\xfd7zXZ\0"), decode_xz),
    Kind(
        "SQLite",
        _Begins(SQLITE_MAGIC),
        decode_sqlite,
        packed=False,
        beside=True,
    ),
    Kind(
        "SQLite log",
        _Begins(*LOG_MAGIC, JOURNAL_MAGIC),
        decode_beside_sqlite,
        packed=False,
        beside=True,
    ),
    Kind(
        "Arrow file",
        _Begins(b"ARROW1\0\0"),
        decode_arrow_file,
        packed=False,
    ),
    Kind(
        "Arrow stream",
        _is_arrow_stream,
        decode_arrow_stream,
        packed=False,
    ),
    Kind("tar", _is_tar, decode_tar, packed=False),
    Kind(
        "git pack",
        _Begins(b"PACK\0\0\0\x02", b"PACK\0\0\0\x03"),
        decode_git_pack,
        theirs=True,
    ),
    Kind("git index", _Begins(INDEX_MAGIC), decode_git_index, packed=False),
    Kind(
        "git reftable",
        _Begins(b"REFT\1", b"REFT\2"),
        _sealed("git reftable"),
    ),
    Kind(
        "git bundle",
        _Begins(b"# v2 git bundle\n", b"# v3 git bundle\n"),
        _sealed("git bundle"),
    ),
    Kind(
        "encrypted Parquet",
        _Begins(b"PARE"),
        _sealed("encrypted Parquet"),
    ),
    Kind(
        "Feather 1",
        _Begins(b"FEA1"),
        _sealed("Feather 1"),
    ),
    Kind(
        "7z",
        _Begins(b"7z\xbc\xaf\x27\x1c"),
        _sealed("7z"),
    ),
    Kind("rar", _Begins(b"Rar!\x1a\x07"), _sealed("rar")),
    Kind(
        "HDF5",
        _Begins(b"\x89HDF\r\n\x1a\n"),
        _sealed("HDF5"),
    ),
    Kind("Avro", _Begins(b"Obj\x01"), _sealed("Avro")),
    Kind("ORC", _is_orc, _sealed("ORC")),
    Kind(
        "safetensors",
        _is_safetensors,
        decode_safetensors,
        sure=False,
    ),
    Kind(
        "UTF-32",
        _Begins(b"\xff\xfe\0\0", b"\0\0\xfe\xff"),
        decode_as("utf-32"),
        packed=False,
        sure=False,
    ),
    Kind(
        "UTF-16", _Begins(b"\xff\xfe", b"\xfe\xff"), decode_as("utf-16"), packed=False, sure=False
    ),
    Kind(
        "lzma",
        is_lzma,
        decode_lzma,
        packed=False,
        sure=False,
    ),
    Kind(
        "zlib",
        is_zlib,
        decode_zlib,
        packed=False,
        sure=False,
    ),
)
_BY_FIRST = {
    bytes([first]): tuple(
        kind
        for kind in _KINDS
        if not isinstance(kind.matches, _Begins) or first in kind.matches.firsts
    )
    for first in range(256)
}
"""Those that a file may be by its first byte: cells are asked by the hundred thousand."""
_ZIP_BEHIND = Kind(
    "zip behind other bytes",
    lambda _: False,
    decode_zip_behind,
    packed=False,
)
GIT_LOOSE = Kind(
    "git object",
    lambda _: False,
    decode_git_loose,
    theirs=True,
)
"""An object that git keeps under its own name: known by that name, not by its bytes."""
