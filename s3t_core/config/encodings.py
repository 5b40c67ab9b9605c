"""Which encodings a file of people's rows may have: one in which each line stands for itself.

In some, a mark changes how everything behind it is read until another mark comes (ISO 2022's shifts
in `iso2022_jp`, for one). What one person's row leaves open then decides what others said, and
erasing that row does not put it right. Whether an encoding is such a one is tried, not listed:
whatever a line ends in, the next one has to be read as it is read alone.
"""

import codecs
from collections.abc import Iterator
from functools import cache

UTF8 = ("utf-8", "utf-8-sig")
"""By Python's names."""
_LINES = ("w0 ~ w1 \\ {+- &\n", "w0 w1\n")
_ESCAPE = 0x1B
_INTERMEDIATE, _FINAL = range(0x20, 0x30), range(0x30, 0x7F)
"""Of what an escape sequence is made (ECMA-35, section 13)."""


def is_text_encoding(name: str) -> bool:
    """Whether Python can read texts in an encoding of this name."""
    try:
        return bool(codecs.lookup(name)._is_text_encoding)
    except (LookupError, ValueError):
        return False


@cache
def keeps_to_its_line(name: str) -> bool:
    """Whether a line is read the same whatever stands in those before it, as far as they can be
    read at all."""
    for line in _LINES:
        encoder = codecs.getincrementalencoder(name)()
        try:
            encoder.encode("\n")  # behind it, no mark of a beginning
            newline = encoder.encode("\n")
            alone = encoder.encode(line)
        except UnicodeError:
            continue
        if len(newline) > 1:  # UTF-16 and UTF-32: out of step is refused where it is read
            return b"\0" in newline
        if codecs.getincrementaldecoder(name)().decode(alone) == line:
            state = _state_behind(name, newline)
            open_lines = [opened + newline for opened in _what_may_be_left_open()]
            return all(
                _state_behind(name, opened) in (None, state) and _reads(name, opened + alone, line)
                for opened in open_lines
            )
    return False


def _state_behind(name: str, lines: bytes) -> int | None:
    """How what reads these lines reads on; None where it cannot read them: such a file is refused.
    (What is cut off at their end is no state: it is read with what follows.)"""
    decoder = codecs.getincrementaldecoder(name)()
    try:
        decoder.decode(lines)
    except UnicodeError:
        return None
    return decoder.getstate()[1]


def _reads(
    name: str,
    lines: bytes,
    last: str,
) -> bool:
    """Whether the last of these lines is read as it is alone, where they can be read."""
    try:
        return lines.decode(name).endswith("\n" + last)
    except UnicodeError:
        return True


def _what_may_be_left_open() -> Iterator[bytes]:
    """Every byte, alone and behind the marks that encodings begin something with."""
    for last in range(256):
        for begin in (b"", b"~", b"+", b"&", b"\\", b"-", b"\x0e", b"\x0f", b"\x8e", b"\x8f"):
            yield begin + bytes([last])
    for final in _FINAL:
        yield bytes([_ESCAPE, final])
        for first in _INTERMEDIATE:
            yield bytes([_ESCAPE, first, final])
        for second in b"()*+,-./":
            yield bytes([_ESCAPE, 0x24, second, final])
