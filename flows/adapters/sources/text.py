"""Text files as people have them: packed or not, in an encoding that a mark at their begin tells
for certain, that the config names, or in UTF-8. Nothing else is guessed: what fits two encodings is
refused in a sentence."""

import codecs
import contextlib
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from flows.adapters.sources.units import LONE, InStep, width_of
from s3t_core.config.encodings import UTF8
from s3t_core.errors import DataError, S3TError

_HEAD = 256 * 1024
_LOOKED_AT = 16 * 2**20
"""Bytes of a text by which an encoding is proposed."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_PACKED = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (
        b"PK\x03\x04",
        "a zip archive (an .xlsx or .ods is one too): unpack it, or save the sheet as CSV",
    ),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\xd0\xcf\x11\xe0", "an old Office file (.xls): save the sheet as CSV"),
    (b"BZh", "bzip2: unpack it, or pack it with gzip or zstd"),
    (b"\xfd7zXZ", "xz: unpack it, or pack it with gzip or zstd"),
    (b"\x04\x22\x4d\x18", "lz4: unpack it, or pack it with gzip or zstd"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"%PDF", "a PDF: its texts must be taken out first"),
    (b"SQLite format 3", "an SQLite database: export the table as CSV or Parquet"),
    (b"ORC", "an ORC file: write it as Parquet"),
    (b"Obj\x01", "an Avro file: write it as Parquet"),
    (b"\x80\x04\x95", "a Python pickle, which is never read: write it as Parquet"),
    (b"\x80\x05\x95", "a Python pickle, which is never read: write it as Parquet"),
    (
        b"\x89PNG",
        "an image: a row's text is an image in base64, in a table with its label and its person",
    ),
    (
        b"\xff\xd8\xff",
        "an image: a row's text is an image in base64, in a table with its label and its person",
    ),
    (
        b"GIF8",
        "an image: a row's text is an image in base64, in a table with its label and its person",
    ),
    (b"\x89HDF", "an HDF5 file: write it as Parquet"),
)
_MARKUP = (
    (b"<!doctype", "an HTML page (a login or an error page, maybe)"),
    (b"<html", "an HTML page (a login or an error page, maybe)"),
    (b"<?xml", "XML"),
)
_UNDECODED = (
    'is it Latin-1, as Windows programs write it? Then set [data] encoding = "cp1252", or save it '
    "as UTF-8"
)


def packing_of(path: Path) -> str:
    """What a file is packed with, by its first bytes: "gzip", "zstd" or ""."""
    with path.open("rb") as file:
        head = file.read(4)
    return next((name for magic, name in _PACKED if head.startswith(magic)), "")


def open_bytes(path: Path, packing: str) -> IO[bytes]:
    """The bytes of a file, unpacked as they are read."""
    if packing == "gzip":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if packing == "zstd":
        import pyarrow as pa

        return pa.input_stream(str(path), compression="zstd")  # type: ignore[no-any-return]
    return path.open("rb")


def head_of(path: Path, packing: str) -> bytes:
    """The first bytes of a file, unpacked."""
    with readable("a packed file"), open_bytes(path, packing) as file:
        return file.read(_HEAD)


@contextlib.contextmanager
def readable(what: str) -> Iterator[None]:
    """What goes wrong while a source is read, as a DataError that names no value. `what` it was
    expected to be."""
    try:
        yield
    except S3TError:
        raise
    except Exception as error:
        got = _fault_of(error)
        if got is None:
            raise
        raise DataError(f"expected {what}, got one {got}; nothing was changed") from None


def _fault_of(error: Exception) -> str | None:
    """What an error of a reader says of the source; None for one that is no reader's."""
    if isinstance(error, PermissionError):
        return "whose permissions forbid reading it"
    if isinstance(error, UnicodeError):
        return f"with bytes that are not {getattr(error, 'encoding', 'text')}: see [data] encoding"
    if isinstance(error, EOFError) or "runcated" in str(error):
        return "that was cut before its end"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    ours = isinstance(error, OSError | ValueError | LookupError | ArithmeticError)
    if ours or type(error).__module__.partition(".")[0] in ("zlib", "pyarrow", "_csv"):
        return f"that cannot be read ({type(error).__name__})"
    return None


def refuse_other_kinds(head: bytes) -> None:
    """That a text file is no file of another kind under a text file's name. Raises DataError."""
    begin = head[:64].lstrip().lower()
    for magic, what in (*_OTHERS, *((m, w) for m, w in _MARKUP if begin.startswith(m))):
        if head.startswith(magic) or begin.startswith(magic):
            raise DataError(
                f"expected CSV, TSV, JSON, JSON Lines, Arrow or Parquet as the source, got {what}"
            )


def encoding_of(head: bytes, configured: str) -> tuple[str, str]:
    """The codec to read a text with, and its name for people: by its mark, as configured, else
    UTF-8. Raises DataError where mark and config disagree, and for what cannot be UTF-8 text."""
    for mark, codec, name in _MARKS:
        if head.startswith(mark):
            if configured and not codecs.lookup(configured).name.startswith(name.lower()):
                raise DataError(
                    f"expected {configured}, as [data] encoding says, got a file that begins with "
                    f"the mark of {name}; leave encoding empty"
                )
            return codec, name
    if configured:
        return configured, configured
    if wide := _unmarked_utf16(head):
        raise DataError(
            "expected text in UTF-8, got bytes of zero in every other place: is it UTF-16? Then "
            f'set [data] encoding = "{wide}", or save it as UTF-8'
        )
    return "utf-8", "UTF-8"


def _unmarked_utf16(head: bytes) -> str:
    """The codec of a text that looks like UTF-16 without its mark, "" for others."""
    even, odd = head[0:4096:2].count(0), head[1:4096:2].count(0)
    if max(even, odd) <= 4 + 8 * min(even, odd):
        return ""
    return f"utf-16-{'le' if odd > even else 'be'}"


def open_text(
    path: Path,
    packing: str,
    codec: str,
) -> IO[str]:
    """The text of a file, line ends as they are. A byte that does not decode becomes a lone
    surrogate, by which its row is found (PEP 383). Reading raises DataError for a text in units of
    several bytes that is out of step (sources.units)."""
    file = open_bytes(path, packing)
    if width_of(codec) == 1:
        if codecs.lookup(codec).name not in UTF8:
            file = io.BufferedReader(_NotUtf8(file, codec))
        return io.TextIOWrapper(file, encoding=codec, errors="surrogateescape", newline="")
    in_step = io.BufferedReader(InStep(file, codec))
    return io.TextIOWrapper(in_step, encoding=codec, errors=LONE, newline="")


class _NotUtf8(io.RawIOBase):
    """The bytes of `file`, a text that somebody says is in `codec`. At its end reading raises
    DataError where all of them are UTF-8, and some no ASCII: what an encoding of single bytes makes
    of that are other ids, and nothing says so."""

    def __init__(self, file: IO[bytes], codec: str) -> None:
        self._file, self._codec = file, codec
        self._decoder: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder("utf-8")()
        self._beyond_ascii = False

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As of any raw stream."""
        data = self._file.read(len(buffer))
        if self._decoder is not None:
            self._beyond_ascii = self._beyond_ascii or not data.isascii()
            try:
                self._decoder.decode(data, final=not data)
            except UnicodeDecodeError:
                self._decoder = None
        if not data and self._decoder is not None and self._beyond_ascii:
            raise DataError(
                f"expected text in {self._codec}, as [data] encoding says, got a file whose bytes "
                f"are UTF-8 from its begin to its end: read as {self._codec}, ids would be other "
                "ones. Leave encoding empty; where the file is what it says, save it as UTF-8 "
                "first. Nothing was changed"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Closes the file too."""
        self._file.close()
        super().close()


def likely_encoding(path: Path) -> str:
    """The encoding to propose for a text whose bytes are not UTF-8: UTF-16, where they look like
    it; cp1252, where they fit it and no line of them is UTF-8 beyond ASCII, as lines of a file in
    two encodings are; else ""."""
    found = ""
    with readable("a packed file"), open_bytes(path, packing_of(path)) as file:
        text = file.read(_LOOKED_AT)
    if not text.startswith(tuple(mark for mark, _, _ in _MARKS)) and (
        wide := _unmarked_utf16(text)
    ):
        return wide
    for line in text.splitlines():
        if line.isascii():
            continue
        if _fits(line, "utf-8") or not _fits(line, "cp1252"):
            return ""
        found = "cp1252"
    return found


def _fits(line: bytes, codec: str) -> bool:
    try:
        line.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def undecoded_header(name: str) -> DataError:
    """The header has bytes that are not of the encoding with this name."""
    return DataError(f"expected a header in {name}, got bytes that are not; {_UNDECODED}")


def undecoded_cells(rows: int) -> str:
    """A sentence about rows whose bytes are not of the encoding."""
    return f"{rows} row(s) hold bytes that are not UTF-8: {_UNDECODED}"
