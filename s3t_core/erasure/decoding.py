"""What a file says once it is decoded, to its end or not at all.

1. A kind is known by the bytes a file begins with (four of them or more), never by its name alone. Each kind has one
   decoder, which yields parts: streams of bytes, to be looked at again, and rows, which say whose they are.
2. A decoder reaches the end of the file or raises Undecodable: what is cut, damaged, encrypted or followed by bytes
   that no decoder accounts for was not searched, and whoever relied on it must know. Several members one after the
   other (gzip, bzip2, xz, zstd, lz4) are all read.
3. Nothing is read whole but one cell of a table: streams are inflated piece by piece, so a file that inflates to a
   thousand times its size costs time, not memory.
4. Kinds that are known and not decoded here (7z, rar, encrypted Parquet, ...) are Undecodable. So is what is packed
   deeper than MAX_DEPTH.
5. A git pack is unpacked by git itself, from its own bytes alone: an index beside it may be cut, or another pack's.
"""

import bz2
import codecs
import contextlib
import gzip
import io
import json
import lzma
import os
import re
import shutil
import sqlite3
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from s3t_core.errors import StorageError

MAX_DEPTH = 6
"""A zip in a gzip in a tar is 3 deep."""
HEAD_BYTES = 512
CHUNK_BYTES = 4 * 2**20
_IN_MEMORY = 32 * 2**20
_BATCH_ROWS = 2048
_BATCH_CELLS = 2**20
_GIT_HEADER_BYTES = 64
_SURE_BYTES = 6
"""Of a kind without a magic: when so many bytes came out, it is of that kind. The shortest needle has as many."""
_TAR_BLOCK = 512
_TAR_NOTES = (b"x", b"g", b"L", b"K")
"""Types of what is told about the next entry, before it: long names, extended headers."""
_DESCRIPTOR_BYTES = 24
"""What may stand between two entries of a zip: a data descriptor."""


class Undecodable(Exception):
    """A file of a known kind that cannot be decoded to its end. The message names the kind and quotes nothing."""


class Mistaken(Undecodable):
    """A file that begins like one of a kind and is none: nothing came out of it."""


@dataclass(frozen=True)
class Source:
    """A file to decode. `file` is open and can seek; `path` is where it lies, None for what came out of another;
    `temporary`: where a copy may be made, None = where the system makes them. `unpack`: gives every object of a
    git pack, None = nobody can."""

    file: IO[bytes]
    path: Path | None
    temporary: Path | None
    unpack: "Unpack | None" = None


class Rows:
    """Some rows of a table, made into Python values only where somebody asks."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        digests = {n for n in ("subject", "record") if n in batch.schema.names and _are_digests(batch.column(n))}
        self._told = [batch.column(i) for i, field in enumerate(batch.schema) if field.name not in digests]

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def digests(self, name: str) -> list[str]:
        """What each row has in the column `name`, "" without one."""
        if name not in self._batch.schema.names:
            return [""] * len(self)
        return [str(value or "") for value in self._batch.column(name).to_pylist()]

    def joined(self) -> bytes:
        """All rows, a line for each cell, but for the digests that name a row: to be searched at once."""
        return b"\n".join(_joined(column) for column in self._told)

    def content(self, row: int) -> bytes:
        """One row, likewise."""
        return b"\n".join(_cell(column[row].as_py()) for column in self._told)

    def packed(self) -> Iterator[bytes]:
        """Cells that are files themselves."""
        for column in self._told:
            if not pa.types.is_string(column.type) and not pa.types.is_primitive(column.type):
                yield from (v for v in column.to_pylist() if isinstance(v, bytes) and _is_packed(v))


class Readable(Protocol):
    """What gives bytes, "" at its end; fewer than were asked for are no end."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""


Unpack = Callable[[IO[bytes]], Iterator[Readable]]
"""Every object of a git pack, each to be read before the next. Raises any error for a pack that is not whole."""
Part = Readable | Rows | bytes
"""A stream that may be a file itself, rows, or bytes that are none."""
Decoder = Callable[[Source], Iterator[Part]]


@dataclass(frozen=True)
class Kind:
    """A kind of file. `packed`: its bytes say nothing before they are decoded. `sure`: its magic is long enough that
    no other file has it by chance; a file of an unsure kind of which nothing decodes is taken for another.
    `theirs`: what is in it is the operator's: it must be whole itself, and its parts are searched as far as they can be
    decoded."""

    name: str
    matches: Callable[[bytes], bool]
    decode: Decoder
    packed: bool = True
    sure: bool = True
    theirs: bool = False


def kind_of(head: bytes) -> Kind | None:
    """The kind of a file that begins with `head` (HEAD_BYTES of it, or all), None for one that is searched as it is."""
    return next((kind for kind in _KINDS if kind.matches(head)), None)


def kind_by_end(file: IO[bytes]) -> Kind | None:
    """The kind of a file whose beginning says none: a zip is found by its last bytes, whatever stands before it."""
    file.seek(0)
    return _ZIP_BEHIND if zipfile.is_zipfile(file) else None


def parts_of(kind: Kind, source: Source) -> Iterator[Part]:
    """What the file decodes to. Raises Undecodable."""
    source.file.seek(0)
    with _decoding(kind.name):
        for part in kind.decode(source):
            yield part if isinstance(part, Rows | bytes) else _Guarded(part, kind.name)


@contextlib.contextmanager
def _decoding(kind: str) -> Iterator[None]:
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
        with _decoding(self._kind):
            return self._stream.read(size)


def spooled(head: bytes, stream: Readable, temporary: Path | None) -> IO[bytes]:
    """A stream that began with `head`, as a file that can seek and has no name: in memory while it is small. Raises
    StorageError, and Undecodable where the stream does."""
    folder = str(temporary) if temporary else None
    file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=folder)  # noqa: SIM115  # the caller closes it
    try:
        file.write(head)
        while chunk := stream.read(CHUNK_BYTES):
            file.write(chunk)
        file.seek(0)
    except OSError as error:
        file.close()
        raise StorageError(f"could not unpack a file to search it: {error.strerror}; free space, then run the command "
                           "again") from None
    return cast("IO[bytes]", file)


# --- streams


class _Pieces(io.RawIOBase):
    """A stream of the pieces that an iterator yields."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from the next piece; 0 at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _stream(pieces: Iterator[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", io.BufferedReader(_Pieces(pieces), 2**16))


def _gzip(source: Source) -> Iterator[Part]:
    """Every member with its checksum. Zeros after the last one are padding (RFC 1952 tools write it), all else is not.
    """
    with gzip.GzipFile(fileobj=source.file, mode="rb") as file:
        yield cast("IO[bytes]", file)


def _zlib_pieces(file: IO[bytes]) -> Iterator[bytes]:
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


def _zlib(source: Source) -> Iterator[Part]:
    yield _stream(_zlib_pieces(source.file))


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


def _bzip2(source: Source) -> Iterator[Part]:
    yield _stream(_member_pieces(source.file, bz2.BZ2Decompressor))


def _xz(source: Source) -> Iterator[Part]:
    yield _stream(_member_pieces(source.file, lzma.LZMADecompressor))


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


def _lzma(source: Source) -> Iterator[Part]:
    yield _stream(_lzma_pieces(source.file))


def _after_skippable(source: Source) -> Iterator[Part]:
    """Frames that zstd and lz4 pass over, each as what it may be itself, then what follows them."""
    file = source.file
    while _is_skippable(header := file.read(8)):
        frame = _stream(_exactly(file, int.from_bytes(header[4:], "little")))
        yield frame
        _to_end_of(frame)
    file.seek(-len(header), io.SEEK_CUR)
    yield file


class _Kept:
    """A file that pyarrow may read and not close."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def close(self) -> None:
        """Whoever opened it closes it."""

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True


def _arrow_codec(codec: str) -> Decoder:
    def decode(source: Source) -> Iterator[Part]:
        with pa.CompressedInputStream(pa.PythonFile(_Kept(source.file), "r"), codec) as stream:
            yield stream
    return decode


def _recoded(encoding: str) -> Decoder:
    """Text in another encoding, as UTF-8: what is no text in it becomes a question mark."""
    def pieces(file: IO[bytes]) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(encoding)("replace")
        while data := file.read(CHUNK_BYTES):
            yield decoder.decode(data).encode("utf-8", "replace")

    def decode(source: Source) -> Iterator[Part]:
        yield _stream(pieces(source.file))
    return decode


# --- archives


def _zip(source: Source) -> Iterator[Part]:
    """Every entry, each with its checksum. Bytes that no entry accounts for are not passed over."""
    yield from _zip_entries(source, behind_others=False)


def _zip_behind(source: Source) -> Iterator[Part]:
    """The same; what stands before the first entry (a program that unpacks it) is searched as it is."""
    yield from _zip_entries(source, behind_others=True)


def _zip_entries(source: Source, behind_others: bool) -> Iterator[Part]:
    with zipfile.ZipFile(source.file) as archive:
        entries = archive.infolist()
        begin = min((e.header_offset for e in entries), default=archive.start_dir) if behind_others else 0
        _check_covered(source.file, entries, begin, archive.start_dir)
        for entry in entries:
            with archive.open(entry) as file:
                yield file


def _check_covered(file: IO[bytes], entries: list[zipfile.ZipInfo], at: int, directory: int) -> None:
    """That from `at` on entries, directory and its end are all: what was deleted from an archive may lie between."""
    for entry in sorted(entries, key=lambda e: e.header_offset):
        if not 0 <= entry.header_offset - at <= _DESCRIPTOR_BYTES:
            raise Undecodable("zip: bytes between its entries")
        file.seek(entry.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
        at = entry.header_offset + 30 + name + extra + entry.compress_size
    if not 0 <= directory - at <= _DESCRIPTOR_BYTES:
        raise Undecodable("zip: bytes before its directory")
    size = file.seek(0, io.SEEK_END)
    begin = max(size - 2**16 - 22, 0)
    file.seek(begin)
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if begin + end + 22 + int.from_bytes(tail[end + 20:end + 22], "little") != size:
        raise Undecodable("zip: bytes after its end")


def _tar(source: Source) -> Iterator[Part]:
    """What stands behind every header, whatever its type, block after block to the end of the file. The standard
    library ends in silence at the first header that it does not understand, and skips what is no file."""
    file, size = source.file, None
    while any(header := _block(file)):
        stored = _tar_size(header) if size is None or header[156:157] in _TAR_NOTES else size
        if header[156:157] == b"S":
            _skip_sparse_map(file, header)
        entry = _stream(_exactly(file, stored))
        if header[156:157] == b"x":
            records = _read_exactly(entry, min(stored, CHUNK_BYTES))
            yield io.BytesIO(records)
            size = _pax_size(records)
        else:
            yield entry
            size = size if header[156:157] in _TAR_NOTES else None
        _to_end_of(entry)
        if any(_read_exactly(file, -stored % _TAR_BLOCK)):
            raise Undecodable("tar: bytes behind an entry")
    while rest := file.read(CHUNK_BYTES):
        if rest.strip(b"\0"):
            raise Undecodable("tar: bytes after its end")


def _block(file: IO[bytes]) -> bytes:
    return _read_exactly(file, _TAR_BLOCK)


def _read_exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise Undecodable("cut")
    return data


def _exactly(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        piece = _read_exactly(file, min(size, CHUNK_BYTES))
        size -= len(piece)
        yield piece


def _to_end_of(stream: Readable) -> None:
    while stream.read(CHUNK_BYTES):
        pass


def _tar_size(header: bytes) -> int:
    """How many bytes stand behind a header: octal digits, or, with the first bit set, a number in base 256."""
    if not _has_tar_checksum(header):
        raise Undecodable("tar: a header without its checksum")
    field = header[124:136]
    return int.from_bytes(field, "big") & (2**95 - 1) if field[0] & 0x80 else int(field.strip(b" \0") or b"0", 8)


def _has_tar_checksum(header: bytes) -> bool:
    """Whether the bytes of a header, its checksum taken for spaces, add up to what it says."""
    digits = header[148:156].strip(b" \0")
    if len(header) < _TAR_BLOCK or not re.fullmatch(rb"[0-7]{1,8}", digits):
        return False
    others = header[:148] + b" " * 8 + header[156:]
    signed = sum(others) - 256 * sum(c > 127 for c in others)
    return int(digits, 8) in (sum(others), signed)


def _pax_size(records: bytes) -> int | None:
    """The size that an extended header gives the next entry, None when it gives none: "LENGTH KEY=VALUE" lines."""
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
    """More of the map of a sparse file's holes, in blocks of their own: numbers, searched as they are."""
    more = header[482]
    while more:
        more = _block(file)[504]


def _git_pack(source: Source) -> Iterator[Part]:
    """Every object of the pack, its deltas resolved."""
    if source.unpack is None:
        raise Undecodable("git pack: nobody unpacks it")
    yield from source.unpack(source.file)


def _git_loose(source: Source) -> Iterator[Part]:
    """What a loose object holds, without the kind and size that stand before it."""
    stream = _stream(_zlib_pieces(source.file))
    header = b""
    while not header.endswith(b"\0"):
        more = stream.read(1)
        if not more or len(header) > _GIT_HEADER_BYTES:
            raise Undecodable("git object: no header")
        header += more
    yield stream


def _safetensors(source: Source) -> Iterator[Part]:
    """The header, which is JSON; what follows is numbers, searched as they are."""
    yield source.file.read(int.from_bytes(source.file.read(8), "little"))


def _sealed(name: str) -> Decoder:
    def decode(_: Source) -> Iterator[Part]:
        raise Undecodable(f"{name}: not decoded")
        yield
    return decode


# --- tables


def _parquet(source: Source) -> Iterator[Part]:
    """By row group, whatever its columns; what stands in the footer beside them too."""
    with pq.ParquetFile(_Kept(source.file)) as file:
        told = file.metadata.metadata or {}
        yield b"\n".join([*told, *told.values()])
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            yield from _batch(batch)


def _arrow_file(source: Source) -> Iterator[Part]:
    with pa.ipc.open_file(_Kept(source.file)) as file:
        for index in range(file.num_record_batches):
            yield from _batch(file.get_batch(index))


def _arrow_stream(source: Source) -> Iterator[Part]:
    with pa.ipc.open_stream(_Kept(source.file)) as file:
        for batch in file:
            yield from _batch(batch)
    if source.file.read(1):
        raise Undecodable("Arrow: bytes after its end")


def _batch(batch: pa.RecordBatch) -> Iterator[Part]:
    rows = Rows(batch)
    yield rows
    yield from map(io.BytesIO, rows.packed())


def _are_digests(column: pa.Array) -> bool:
    """Keyed digests, 64 characters each: no needle is one, and base64 is looked for in everything else."""
    return pa.types.is_string(column.type) and bool(pc.all(pc.equal(pc.binary_length(column), 64)).as_py())


def _joined(column: pa.Array) -> bytes:
    if not pa.types.is_string(column.type):
        return b"\n".join(map(_cell, column.to_pylist()))
    whole = pa.ListArray.from_arrays(pa.array([0, len(column)], pa.int32()), pc.fill_null(column, ""))
    return bytes(pc.binary_join(whole, "\n")[0].as_buffer())


def _cell(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    if isinstance(value, bytes):
        return value
    if isinstance(value, list | dict | tuple):
        return json.dumps(value, default=_in_json, ensure_ascii=False).encode("utf-8", "replace")
    return b"" if value is None else str(value).encode()


def _in_json(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_packed(value: bytes) -> bool:
    kind = kind_of(value[:HEAD_BYTES])
    return kind is not None and kind.sure


class _Text(bytes):
    """A cell that SQLite says is text: it is not looked at as a file."""


def _sqlite(source: Source) -> Iterator[Part]:
    """Every cell of every table, through SQLite itself, which reads what is in the write-ahead log as well. Where it
    may not (a journal that a dead process left must be rolled back first), it does so on a copy."""
    with tempfile.TemporaryDirectory(dir=source.temporary, prefix="scan-") as folder:
        path = source.path or _copy(source, Path(folder))
        _check_pages(path)
        try:
            yield from _tables(f"file:{quote(str(path))}?mode=ro")
        except sqlite3.OperationalError as error:
            if source.path is None or "locked" in str(error):
                raise
            yield from _tables(f"file:{quote(str(_copy(source, Path(folder))))}")


def _copy(source: Source, folder: Path) -> Path:
    """The database and what lies beside it, in `folder`."""
    path = folder / "copy.db"
    source.file.seek(0)
    with path.open("wb") as file:
        shutil.copyfileobj(source.file, file, CHUNK_BYTES)
    for suffix in ("-journal", "-wal") if source.path else ():
        beside = Path(f"{source.path}{suffix}")
        if beside.is_file():
            shutil.copyfile(beside, folder / f"copy.db{suffix}")
    return path


def _check_pages(path: Path) -> None:
    """That the file is a number of whole pages: SQLite itself reads a part of the last one as if it were all."""
    with path.open("rb") as file:
        header = file.read(18)
        size = os.fstat(file.fileno()).st_size
    page = int.from_bytes(header[16:18], "big")
    page = 2**16 if page == 1 else page
    if page < 512 or size % page:
        raise Undecodable("SQLite: cut")


def _tables(uri: str) -> Iterator[Part]:
    connection = sqlite3.connect(uri, uri=True, timeout=30)
    connection.text_factory = _Text
    try:
        names = [row[0].decode() for row in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0")]
        for name in names:
            rows = connection.execute('SELECT * FROM "' + name.replace('"', '""') + '"')  # noqa: S608
            yield from _cells(rows)
    finally:
        connection.close()


def _cells(rows: Iterator[tuple[Any, ...]]) -> Iterator[Part]:
    waiting: list[bytes] = []
    size = 0
    for row in rows:
        for value in row:
            cell = _cell(value)
            waiting.append(cell)
            size += len(cell)
            if isinstance(value, bytes) and not isinstance(value, _Text) and _is_packed(value):
                yield io.BytesIO(value)
        if size > _BATCH_CELLS:
            yield b"\n".join(waiting)
            waiting, size = [], 0
    yield b"\n".join(waiting)


# --- kinds


def _begins(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magics)


def _is_gzip(head: bytes) -> bool:
    """The last byte of these four has flags, of which three are reserved (RFC 1952)."""
    return head[:3] == b"\x1f\x8b\x08" and len(head) > 3 and head[3] < 0x20


def _is_bzip2(head: bytes) -> bool:
    return head[:3] == b"BZh" and head[3:4].isdigit() and (
        head[4:10] in (b"1AY&SY", b"\x17rE8P\x90") or (len(head) < 10 and b"1AY&SY".startswith(head[4:])))


def _is_lzma(head: bytes) -> bool:
    """As xz tells it: three numbers in a byte, a window of 2^n or 2^n + 2^(n-1), a size that is none or not absurd."""
    if len(head) < 13 or head[0] >= 225 or head[0] % 9 + head[0] // 9 % 5 > 4:
        return False
    window, size = int.from_bytes(head[1:5], "little"), int.from_bytes(head[5:13], "little")
    is_round = window.bit_count() == 1 or (window.bit_count() == 2 and not window & (window >> 2) and
                                           bool(window & (window >> 1)))
    return window >= 2**12 and is_round and (size == 2**64 - 1 or size < 2**38)


def _is_skippable(head: bytes) -> bool:
    return len(head) >= 8 and head[0] & 0xf0 == 0x50 and head[1:4] == b"\x2a\x4d\x18"


def _is_orc(head: bytes) -> bool:
    """Three letters that a text may begin with, so only where no text follows."""
    return head[:3] == b"ORC" and any(c < 32 and c not in b"\t\n\r\f" for c in head)


def _is_zlib(head: bytes) -> bool:
    """The two bytes of RFC 1950: they are a multiple of 31 by chance in one file of many."""
    return head[:1] == b"\x78" and len(head) > 1 and int.from_bytes(head[:2], "big") % 31 == 0


def _is_arrow_stream(head: bytes) -> bool:
    """The continuation mark, then the length of the schema, a multiple of 8."""
    length = int.from_bytes(head[4:8], "little")
    return head[:4] == b"\xff\xff\xff\xff" and len(head) >= 8 and 0 < length < 2**24 and length % 8 == 0


def _is_safetensors(head: bytes) -> bool:
    """The length of a JSON object, then the object."""
    return head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 2**26


def _is_tar(head: bytes) -> bool:
    """By its mark, or, of a tar older than the mark, by the checksum of its first header."""
    return head[257:262] == b"ustar" or _has_tar_checksum(head[:_TAR_BLOCK])


_KINDS = (
    Kind("Parquet", _begins(b"PAR1"), _parquet),
    Kind("gzip", _is_gzip, _gzip),
    Kind("zip", _begins(b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", b"PK00PK\x03\x04"), _zip),
    Kind("zstd", _begins(b"\x28\xb5\x2f\xfd"), _arrow_codec("zstd")),
    Kind("lz4", _begins(b"\x04\x22\x4d\x18"), _arrow_codec("lz4")),
    Kind("skippable frame", _is_skippable, _after_skippable),
    Kind("bzip2", _is_bzip2, _bzip2),
    Kind("xz", _begins(b"\xfd7zXZ\0"), _xz),
    Kind("SQLite", _begins(b"SQLite format 3\0"), _sqlite, packed=False),
    Kind("Arrow file", _begins(b"ARROW1\0\0"), _arrow_file, packed=False),
    Kind("Arrow stream", _is_arrow_stream, _arrow_stream, packed=False),
    Kind("tar", _is_tar, _tar, packed=False),
    Kind("git pack", _begins(b"PACK\0\0\0\x02", b"PACK\0\0\0\x03"), _git_pack, theirs=True),
    Kind("git bundle", _begins(b"# v2 git bundle\n", b"# v3 git bundle\n"), _sealed("git bundle")),
    Kind("encrypted Parquet", _begins(b"PARE"), _sealed("encrypted Parquet")),
    Kind("Feather 1", _begins(b"FEA1"), _sealed("Feather 1")),
    Kind("7z", _begins(b"7z\xbc\xaf\x27\x1c"), _sealed("7z")),
    Kind("rar", _begins(b"Rar!\x1a\x07"), _sealed("rar")),
    Kind("HDF5", _begins(b"\x89HDF\r\n\x1a\n"), _sealed("HDF5")),
    Kind("Avro", _begins(b"Obj\x01"), _sealed("Avro")),
    Kind("ORC", _is_orc, _sealed("ORC")),
    Kind("safetensors", _is_safetensors, _safetensors, sure=False),
    Kind("UTF-32", _begins(b"\xff\xfe\0\0", b"\0\0\xfe\xff"), _recoded("utf-32"), packed=False, sure=False),
    Kind("UTF-16", _begins(b"\xff\xfe", b"\xfe\xff"), _recoded("utf-16"), packed=False, sure=False),
    Kind("lzma", _is_lzma, _lzma, packed=False, sure=False),
    Kind("zlib", _is_zlib, _zlib, packed=False, sure=False),
)
_ZIP_BEHIND = Kind("zip behind other bytes", lambda _: False, _zip_behind, packed=False)
GIT_LOOSE = Kind("git object", lambda _: False, _git_loose, theirs=True)
"""An object that git keeps under its own name: known by that name, not by its bytes."""
