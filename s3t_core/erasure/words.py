"""Whether an id that was found stands for itself, or is a part of something longer.

Three things part it from what is beside it: bytes that are no letter, digit, _ or - of ASCII; its
own length before it, as binary formats write one, which may look like a letter; and quotes on both
sides, or the borders of a cell.
"""

import contextlib
import re
from functools import lru_cache

_HEXADECIMAL = re.compile(rb"[0-9a-fA-F]+")
_QUOTES = (b'"', b"'", b"`")
_BLANKS = b"\t\n\v\f\r "
_BEYOND_ASCII = 0x80
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1b\x7f]")
_CUT = bytes(range(_BEYOND_ASCII, 0x100))
_AROUND = 32
_CELL = (b"", b"|")
"""What is beside a cell: what decoding.parts puts between two, or nothing."""
_BEFORE_FRACTION = re.compile(
    rb"((?<![\w:.-])|(?<=\d[T ]))[0-2]\d:[0-5]\d:[0-6]\d\.\Z"
    rb"|(?<![\w:.-])(1[5-9]|2[01])\d{8}\.\Z"
)
"""What stands before a fraction of a second: the time of day, by itself or after a date, or seconds
since 1970 from 2017 to 2039. Databases are full of them, and every six digits are some
customer's."""
_BEFORE_BYTES = 12
_FRACTION_DIGITS = 9


def goes_on(
    beside: bytes,
) -> bool:
    """Whether the byte beside an id may be a part of it; none is not."""
    return beside.isalnum() or (bool(beside) and beside in b"_-")


def is_word(
    data: bytes,
    begin: int,
    end: int,
) -> bool:
    """Whether no letter, digit, _ or - of ASCII is beside data[begin:end]."""
    return not goes_on(data[max(begin - 1, 0) : begin]) and not goes_on(data[end : end + 1])


def is_measured(
    data: bytes,
    begin: int,
    end: int,
    surely: bool = False,
) -> bool:
    """Whether the length of data[begin:end] stands before it, as pickle, MessagePack, CBOR,
    Protocol Buffers and others write a value: such a byte may be a letter, and so may what follows
    the value. One hexadecimal digit within a number of them is no length, nor in a text a line
    break, a blank or a letter beyond ASCII where a number goes on (10 bytes stand behind the break
    of each line `person-4711`); `surely`: nor wherever else it is in a text."""
    marks = _lengths(end - begin)
    if not data[max(begin - 9, 0) : begin].endswith(marks):
        return False
    if _HEXADECIMAL.fullmatch(data[max(begin - 2, 0) : end + 1]):
        return False
    goes_on = data[end - 1 : end].isdigit() and data[end : end + 1].isdigit()
    is_mark_of_text = data[begin - 1 : begin] in _BLANKS or data[begin - 1] >= _BEYOND_ASCII
    return not ((surely or goes_on) and is_mark_of_text and _is_in_text(data, begin, end))


def _is_in_text(
    data: bytes,
    begin: int,
    end: int,
) -> bool:
    """Whether what is around data[begin:end] is UTF-8 with no control characters but of lines."""
    around = data[max(begin - _AROUND, 0) : end + _AROUND]
    if _NO_TEXT.search(around):
        return False
    with contextlib.suppress(UnicodeDecodeError):
        around.strip(_CUT).decode()
        return True
    return False


@lru_cache(maxsize=4096)
def _lengths(size: int) -> tuple[bytes, ...]:
    """How a length is written before a value: as one byte, as two, four or eight in either order,
    seven bits a byte (LEB128), or within the first byte (RFC 8949, 3; MessagePack's fixstr)."""
    fixed = [
        size.to_bytes(width, order)
        for width in (1, 2, 4, 8)
        for order in ("little", "big")
        if size < 256**width
    ]
    variable = bytes((size >> shift & 0x7F) | 0x80 for shift in range(0, size.bit_length(), 7))
    fixed.append(variable[:-1] + bytes([variable[-1] & 0x7F]))
    if size < 24:
        fixed += [bytes([0x60 | size]), bytes([0x40 | size])]
    if size < 32:
        fixed.append(bytes([0xA0 | size]))
    return tuple(fixed)


def is_held(
    data: bytes,
    begin: int,
    end: int,
) -> bool:
    """Whether data[begin:end] stands in quotes."""
    return data[max(begin - 1, 0) : begin] == data[end : end + 1] in _QUOTES


def is_cell(
    data: bytes,
    begin: int,
    end: int,
) -> bool:
    """Whether data[begin:end] is all there is, or a cell of its own among others."""
    return data[max(begin - 1, 0) : begin] in _CELL and data[end : end + 1] in _CELL


def may_be_a_fraction(
    data: bytes,
    begin: int,
    end: int,
) -> bool:
    """Whether data[begin:end] is what a time of day, or seconds since 1970, have behind the
    point."""
    behind_a_point = data[max(begin - 1, 0) : begin] == b"."
    is_short = end - begin <= _FRACTION_DIGITS
    if not behind_a_point or not is_short or not data[begin:end].isdigit():
        return False
    return (
        _BEFORE_FRACTION.search(
            data,
            max(begin - _BEFORE_BYTES, 0),
            begin,
        )
        is not None
    )
