"""What decoders take and give: a source, and the parts that it decodes to."""

import contextlib
import datetime
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import Buffer

from s3t_core.errors import StorageError
from s3t_core.identity import NotAnId, id_text

_DIGESTS = {"record": 64, "subject": 64, "form": 32}
"""Columns of ours, with the hexadecimal digits of their keyed digests."""
_DIGITS = b"0123456789abcdef"
HEAD_BYTES = 512
CHUNK_BYTES = 4 * 2**20
IN_THIS_THREAD = pa.ipc.IpcReadOptions(use_threads=False)
"""A thread of Arrow's may outlive what it was asked for, and let go of what Python owns while that
ends."""
_IN_MEMORY = 32 * 2**20
_OTHERWISE = (datetime.datetime, Decimal)
"""What may be shown in another way than an id is written."""
BETWEEN = b"\n|\n"
"""Between two cells: a line break alone may be within one."""


class Undecodable(Exception):
    """A file of a known kind that cannot be decoded to its end. The message names the kind and
    quotes nothing."""


class Mistaken(Undecodable):
    """A file that begins like one of a kind and is none: nothing came out of it."""


@dataclass(frozen=True)
class Source:
    """A file to decode. `file` is open and can seek; `path` is where it lies, None for what came
    out of another; `temporary`: where a copy may be made, None = where the system makes them.
    `unpack`: gives every object of a git pack, None = nobody can."""

    file: IO[bytes]
    path: Path | None
    temporary: Path | None
    unpack: "Unpack | None" = None


class Rows:
    """Some rows of a table, made into Python values only where somebody asks."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._keyed = {
            n
            for n, digits in _DIGESTS.items()
            if n in batch.schema.names and _are_digests(batch.column(n), digits)
        }
        self._columns = [
            batch.column(i) for i, field in enumerate(batch.schema) if field.name not in self._keyed
        ]

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def say_whose(self) -> bool:
        """Whether each row names its subject by a keyed digest."""
        return "subject" in self._keyed and not self._batch.column("subject").null_count

    def distinguishing(self) -> list[str]:
        """What tells the rows of one subject apart: the record, or in an identity index the form of
        an id."""
        return self.digests("form" if self._batch.schema.names == ["subject", "form"] else "record")

    def digests(self, name: str) -> list[str]:
        """What each row has in the column `name`, "" without one."""
        if name not in self._batch.schema.names:
            return [""] * len(self)
        return [str(value or "") for value in self._batch.column(name).to_pylist()]

    def joined(self) -> bytes:
        """All rows, cell by cell, but for the digests that name a row: to be searched at once."""
        return cells_of(_joined(column) for column in self._columns)

    def content(self, row: int) -> bytes:
        """One row, likewise."""
        return cells_of(bytes_of(column[row].as_py()) for column in self._columns)

    def binaries(self) -> Iterator[bytes]:
        """Cells that may be files themselves."""
        for column in self._columns:
            if not pa.types.is_string(column.type) and not pa.types.is_primitive(column.type):
                for value in column.to_pylist():
                    yield from _binaries_in(value)


def _binaries_in(value: object) -> Iterator[bytes]:
    """Bytes, also within lists, structs and maps."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, list | tuple | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _binaries_in(inner)


def _are_digests(
    column: pa.Array,
    digits: int,
) -> bool:
    """Keyed digests: compared with the needles that look like one; base64 is looked for in
    everything else."""
    if not pa.types.is_string(column.type):
        return False
    given = column.drop_null()
    if pc.any(pc.not_equal(pc.binary_length(given), digits)).as_py():
        return False
    return _joined(given).translate(None, _DIGITS) == BETWEEN * max(len(given) - 1, 0)


def _joined(column: pa.Array) -> bytes:
    if not pa.types.is_string(column.type):
        return cells_of(map(bytes_of, column.to_pylist()))
    whole = pa.ListArray.from_arrays(
        pa.array([0, len(column)], pa.int32()), pc.fill_null(column, "")
    )
    return bytes(pc.binary_join(whole, BETWEEN.decode())[0].as_buffer())


def cells_of(
    values: Iterable[bytes],
) -> bytes:
    """Values one behind the other, to be searched at once, each of them for itself."""
    return BETWEEN.join(values)


def bytes_of(value: object) -> bytes:
    """The bytes of a value of a cell, whatever its type: of a list or a struct, JSON, and what
    bytes are in it as they are."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    if isinstance(value, bytes):
        return value
    if isinstance(value, list | dict | tuple):
        whole = json.dumps(value, default=_in_json, ensure_ascii=False)
        texts = whole.encode("utf-8", "replace")
        return cells_of([texts, *_binaries_in(value)])
    return b"" if value is None else _in_json(value).encode()


def _in_json(value: object) -> str:
    """What is no text: as it is shown, and as an id in such a column is written where that may be
    another way."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    shown = str(value)
    if isinstance(value, _OTHERWISE):
        with contextlib.suppress(NotAnId):
            return f"{shown} {id_text(value)}"
    return shown


class Readable(Protocol):
    """What gives bytes, "" at its end; fewer than were asked for are no end."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""


Unpack = Callable[[IO[bytes]], Iterator[Readable]]
"""Every object of a git pack, each to be read before the next. Raises any error for a pack that is
not whole."""


@dataclass(frozen=True)
class Cell:
    """The bytes of one cell, which are a file where they begin like one."""

    value: bytes


@dataclass(frozen=True)
class Uncut:
    """Bytes in which values stand one behind the other with nothing between them: an id need not be
    a word of its own there. `cut` gives the values (cells_of); None where nobody can tell where one
    ends."""

    data: bytes
    cut: "Callable[[], bytes] | None" = None


Part = Readable | Rows | Cell | Uncut | bytes
"""A stream that may be a file itself, rows, a cell, values that are not cut, or bytes that are
none."""
Decoder = Callable[[Source], Iterator[Part]]


def spooled(
    head: bytes,
    stream: Readable,
    temporary: Path | None,
) -> IO[bytes]:
    """A stream that began with `head`, as a file that can seek and has no name: in memory while it
    is small. Raises StorageError, and Undecodable where the stream does."""
    folder = str(temporary) if temporary else None
    file = tempfile.SpooledTemporaryFile(  # noqa: SIM115  # the caller closes it
        max_size=_IN_MEMORY,
        dir=folder,
    )
    try:
        file.write(head)
        while chunk := stream.read(CHUNK_BYTES):
            file.write(chunk)
        file.seek(0)
    except OSError as error:
        file.close()
        raise StorageError(
            f"could not unpack a file to search it: {error.strerror}; free space, then run the "
            "command again"
        ) from None
    return cast("IO[bytes]", file)


class _Pieces(io.RawIOBase):
    """A stream of the pieces that an iterator yields."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Fill the buffer from the next piece; 0 at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        filled = memoryview(buffer).cast("B")
        count = min(len(filled), len(self._rest))
        filled[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def stream_of(pieces: Iterator[bytes]) -> IO[bytes]:
    """A stream of the pieces that an iterator yields."""
    return cast("IO[bytes]", io.BufferedReader(_Pieces(pieces), 2**16))


def read_exactly(file: IO[bytes], size: int) -> bytes:
    """So many bytes. Raises Undecodable where the file ends before."""
    data = file.read(size)
    if len(data) != size:
        raise Undecodable("cut")
    return data


def exactly(file: IO[bytes], size: int) -> Iterator[bytes]:
    """So many bytes, in pieces. Raises Undecodable where the file ends before."""
    while size:
        piece = read_exactly(file, min(size, CHUNK_BYTES))
        size -= len(piece)
        yield piece


def to_end_of(stream: Readable) -> None:
    """Read what is left of a stream."""
    while stream.read(CHUNK_BYTES):
        pass


class Kept:
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
