"""Texts in units of two or four bytes, UTF-16 and UTF-32: that they are read in step.

A byte that is lost or added in one person's row puts everything behind it out of step: others' rows
are read as other words, and not as rows, until a second one puts it right (hazard 19). Decoding
notices nothing, for nearly every two bytes are some character. What is out of step shows in what
must stand in a table: line ends, quotation marks and what separates cells, which then begin between
two units; and lines in an encoding of single bytes, which a shell's `>>` leaves, in long runs of
ASCII, or in U+0A0D, which is no character but CR LF read as one.

A text that is in step has these by chance at most (U+22xx, U+09xx, U+0Axx, U+0Dxx, U+2Cxx or U+3Bxx
before a character U+xx00; twenty ideographs in a row of two ASCII bytes each, one of them a line
end's): it is refused too, and can be saved as UTF-8.
"""

import codecs
import io
import re
from typing import IO

from s3t_core.errors import DataError

_CHUNK = 64 * 1024
_LONGEST = 64
"""Bytes that are looked at again with the next chunk: more than any mark of a wrong step has."""
_SINGLE = re.compile(rb"[\t\r\n -~]{40,}")
"""Forty bytes of ASCII text and more: in units of two, twenty ideographs."""
_MARKS = '\n\r",;\t'


def width_of(codec: str) -> int:
    """Bytes of a unit: 2 in UTF-16, 4 in UTF-32, 1 in all others."""
    name = codecs.lookup(codec).name
    return 2 if name.startswith("utf-16") else 4 if name.startswith("utf-32") else 1


def check_in_step(text: bytes, codec: str) -> None:
    """Raises DataError for a whole text that is out of step."""
    if width_of(codec) > 1:
        InStep(io.BytesIO(text), codec).readall()


class InStep(io.RawIOBase):
    """The bytes of `file`, a text in `codec`. Reading raises DataError where they are out of
    step."""

    def __init__(self, file: IO[bytes], codec: str) -> None:
        self._file, self._width = file, width_of(codec)
        self._before, self._read = b"", 0
        self._codec, self._is_little = codecs.lookup(codec).name, True
        self._marks: re.Pattern[bytes] | None = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As of any raw stream."""
        data = self._file.read(min(len(buffer), _CHUNK))
        if data:
            self._check(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Closes the file too."""
        self._file.close()
        super().close()

    def _check(self, data: bytes) -> None:
        if self._marks is None:
            self._marks = self._marks_of(data)
        seen = self._before + data
        begin = self._read - len(self._before)
        for found in self._marks.finditer(seen):
            place = begin + found.start()
            if self._is_off(place % self._width, is_cr_lf=found[1] is not None):
                raise self._refused(place)
        for single in _SINGLE.finditer(seen):
            if b"\n" in single[0] or b"\r" in single[0]:
                raise self._refused(begin + single.start())
        self._read += len(data)
        self._before = seen[-_LONGEST:]

    def _is_off(self, step: int, is_cr_lf: bool) -> bool:
        """Whether what was found cannot begin `step` bytes behind the begin of a unit."""
        if is_cr_lf:
            return self._is_little or step != self._width - 2
        return step != 0

    def _marks_of(self, data: bytes) -> re.Pattern[bytes]:
        """What is looked for, in the order of bytes that the file's mark tells: what stands in
        every file, or, as a group, CR LF in single bytes (U+0A0D; the other way round, U+0D0A, it
        is a letter of Malayalam)."""
        order = self._codec
        if order in ("utf-16", "utf-32"):
            is_big = data.startswith(
                (
                    codecs.BOM_UTF16_BE,
                    codecs.BOM_UTF32_BE,
                )
            )
            order += "-be" if is_big else "-le"
        self._is_little = order.endswith("-le")
        marks = [re.escape(mark.encode(order)) for mark in _MARKS]
        pattern = b"(?=" + b"|".join(marks) + b"|(\r\n))"
        return re.compile(pattern)

    def _refused(self, place: int) -> DataError:
        return DataError(
            f"expected {self._codec.upper()} in units of {self._width} bytes, got a text that is "
            f"out of step about byte {place}: a byte was lost or added there or before, or lines "
            "in another encoding were put behind; what follows would be read as other words, of "
            "other people; save it as UTF-8 where it was made; nothing was changed"
        )


def _lone(error: UnicodeError) -> tuple[str, int]:
    """Half of a surrogate pair becomes a lone surrogate, by which its row is found, as bytes that
    do not decode are in other encodings."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    is_half = "surrogate" in error.reason or error.reason == "illegal encoding"
    if not is_half:
        raise error
    return "\udc80", error.end


LONE = "s3t_lone_surrogates"
"""The name of how errors are handled."""
codecs.register_error(LONE, _lone)
