"""The ways in which text may be written in bytes that are otherwise plain: a chunk is turned into
each, then searched.

Turning the chunk, not the needles, keeps their number small: a search gets slower with every one.

- escapes, at any depth: JSON in JSON, Python's repr; backslashes go, `\\n`, `\\r`, `\\t`, `\\b`,
  `\\f`, `\\v`, `\\a`, `\\e` become what they mean; `\\x`, `\\u` and `\\U` with their digits become
  letters, `\\x` also a byte (Python's ascii() and repr(bytes)), three octal digits a byte
- percent-encoding, with + as a space or as itself; the five entities of HTML; colours of a terminal
  go; doubled quotes (CSV, SQL) are one, line breaks of Windows are line breaks. All of these in one
  another, up to four times (read); of bytes that are mostly numbers, escapes, percent-encoding and
  entities only, once each, and all of it in what stands among them as text
- UTF-16 and UTF-32 without a mark at their beginning: NULs go, which leaves ASCII, escaped ones
  too; where a good part of 64 bytes are NULs, the bytes there are decoded in both orders as well
- base64 of either alphabet, with line breaks or without, indented or quoted, from MIN_RUN
  characters on, and all of the above around it and within it (a signed document of ours is JSON in
  base64 in JSON); hexadecimal likewise, one of length of a digest only from its first digit; base64
  or hexadecimal in another MAX_RUNS deep
"""

import binascii
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

MIN_RUN = 16
Array = NDArray[Any]
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_RUNS = bytes(97 if c in _BASE64 + b"\r\n" else 32 for c in range(256))
_STANDARD = bytes.maketrans(b"-_", b"+/")
_DIGESTS = (32, 40, 64, 96, 128)
_DIGIT = ord("a")
_LONG = b"a" * MIN_RUN
_BETWEEN = 8
_FEW = 1000
_NOT_HEX = bytes(c not in b"0123456789abcdefABCDEF\r\n" for c in range(256))
_PERCENT = re.compile(rb"%[0-9A-Fa-f]{2}")
_ENTITIES = {
    b"&lt;": b"<",
    b"&gt;": b">",
    b"&quot;": b'"',
    b"&#34;": b'"',
    b"&#x27;": b"'",
    b"&#39;": b"'",
    b"&amp;": b"&",
}
_ENTITY = re.compile(b"|".join(_ENTITIES))
_NUMBERED = re.compile(
    rb"\\+(?:u[0-9A-Fa-f]{4}(?:\\+u[0-9A-Fa-f]{4})*|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}|[0-3][0-7]{2}|0)"
)
_BYTE = re.compile(rb"\\x[0-9A-Fa-f]{2}")
_ZERO = re.compile(rb"\\+(?:u0000|U00000000|x00|0(?:00)?(?![0-7]))")
"""A NUL: of UTF-16 that somebody escaped, every other byte is one. It goes as one that nobody
escaped does (plain)."""
_MEANT = dict(
    zip(
        b"nrtbfvae",
        (b"\n", b"\r", b"\t", b"\b", b"\f", b"\v", b"\a", b"\x1b"),
        strict=False,
    )
)
_COLOUR = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[ -/]+[0-~])")
"""What a terminal is told: colours, and where to go. It ends in a letter that belongs to no
word."""
_SPELT_COLOUR = re.compile(rb"(?:\x1b|\\(?:u001[bB]|x1[bB]|033|e)|%1[bB])(?:\[|%5[bB])")
_TWICE = ((b"\r\n", b"\n"), (b'""', b'"'), (b"''", b"'"))
"""A line break of Windows, quotes as CSV and SQL write them."""
_ROUNDS = 4
_NO_CONTROL = bytes(c for c in range(256) if c == 0 or c >= 32 or c in b"\t\n\r\x1b")
_TEXT = re.compile(rb"[\t\n\r\x1b\x20-\xff]{12,}")
_MARK = re.compile(
    rb"\\[\\\"'0-9A-Za-z]|%[0-9A-Fa-f]{2}|&(?:[lg]t|quot|amp|#)|\x1b[\[ -/]|\r\n|''|\"\""
    rb"|\+\w{3}"
)
"""What more than one step may be needed for, or what is not looked for among numbers."""
MAX_RUNS = 2
_PREFIX = re.compile(rb"\n[ \t>#*;|]{1,16}")
"""What may stand before a line of base64: YAML, a quotation, a comment."""
_DIGITS = re.compile(rb"[uUx]([0-9A-Fa-f]+)")
_BLOCK = 64
_NULS = (6, 52)
"""So many of the bytes of a block are NULs where UTF-16 of Latin letters is in it."""


def spellings_of(
    chunk: bytes,
    depth: int = MAX_RUNS,
) -> Iterator[bytes]:
    """The chunk, and each other way to read it that its bytes suggest: `depth` times base64 or
    hexadecimal in another."""
    yield chunk
    stripped = plain(chunk)
    if len(stripped) < len(chunk):
        yield stripped
        if depth == MAX_RUNS:
            yield from _wide(chunk)
    meant = read(chunk)
    if meant != stripped:
        yield meant
    if not _is_text(chunk):
        texts = _texts_within(chunk)
        if texts:
            yield from spellings_of(texts, depth)
    elif depth == MAX_RUNS:
        yield from _other_readings(chunk)
    if depth:
        for decoded in decoded_runs(meant):
            yield from spellings_of(decoded, depth - 1)


def read(
    data: bytes,
    bytewise: bool = False,
    plus: bytes = b"+",
    colour: bytes = b" ",
) -> bytes:
    """What is meant by escapes, percent-encoding, entities, doubled quotes and colours, one in
    another, in any order: a needle is turned likewise, so what it says itself by chance (100%25)
    does no harm. `bytewise`: `\\x` is a byte, not a letter; `plus` and `colour`: what a + of a form
    and what a terminal is told become. A form may have nothing but letters and +."""
    is_text = _is_text(data)
    data = data.replace(b"+", plus)
    for _ in range(_ROUNDS if is_text else 1):
        before = data
        if b"\\" in data:
            if _NUMBERED.search(data):
                data = _NUMBERED.sub(_letters_and_bytes if bytewise else _letters, data)
            data = plain(data)
        elif b"\0" in data:
            data = plain(data)
        if b"%" in data and _PERCENT.search(data):
            data = unquote_to_bytes(data.replace(b"+", plus))
        if b"&" in data and _ENTITY.search(data):
            data = _ENTITY.sub(lambda found: _ENTITIES[found[0]], data)
        if is_text and b"\x1b" in data:
            data = _COLOUR.sub(colour, data)
        for twice, once in _TWICE if is_text else ():
            if twice in data:
                data = data.replace(twice, once)
        if data == before:
            break
    return data


def _is_text(
    data: bytes,
) -> bool:
    """Whether few of its bytes are control characters, NULs apart. Numbers spell little, and most
    of it by chance."""
    return len(data.translate(None, _NO_CONTROL)) * 16 <= len(data)


def _texts_within(
    data: bytes,
) -> bytes:
    """What stands among numbers and may spell something in more than one step, run after run. It is
    text itself."""
    return b"\n".join(found[0] for found in _TEXT.finditer(data) if _MARK.search(found[0]))


def _other_readings(
    chunk: bytes,
) -> Iterator[bytes]:
    """What else it may mean, where it has what can be read in two ways."""
    if _BYTE.search(chunk):
        yield read(chunk, bytewise=True)
    if b"+" in chunk:
        yield read(chunk, plus=b" ")
    if _SPELT_COLOUR.search(chunk):
        yield read(chunk, colour=b"")
    if b"\\" in chunk:
        without, zeros = _ZERO.subn(b"", chunk)
        if zeros:
            yield read(without)


def plain(
    data: bytes,
) -> bytes:
    """Without backslashes and NULs; escaped line breaks, tabs and marks as such. The same at any
    depth of escaping."""
    if b"\\" in data:
        first, *others = data.split(b"\\")
        data = first + b"".join(map(_without_letter, others))
    if data.count(b"\0") < _FEW:
        return data.replace(b"\0", b"")
    return data.translate(None, b"\0")


def _without_letter(
    part: bytes,
) -> bytes:
    """What stands behind a backslash: a letter that means something else, or itself."""
    if part and part[0] in _MEANT:
        return _MEANT[part[0]] + part[1:]
    return part


def _letters(
    found: "re.Match[bytes]",
) -> bytes:
    """What numbered escapes mean, two of `\\u` being one letter where they are a pair. A NUL is a
    space, lest what is beside it be one word."""
    digits = found[0].lstrip(b"\\")
    if digits[:1].isdigit():
        return bytes([int(digits, 8) or 32])
    numbers = [int(digits, 16) or 32 for digits in _DIGITS.findall(found[0])]
    text = "".join(chr(n) for n in numbers if n <= 0x10FFFF)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _letters_and_bytes(
    found: "re.Match[bytes]",
) -> bytes:
    """The same, each `\\x` being a byte."""
    is_byte = found[0][-3:-2] == b"x"
    if not is_byte:
        return _letters(found)
    number = int(found[0][-2:], 16)
    return bytes([number or 32])


def _wide(
    chunk: bytes,
) -> Iterator[bytes]:
    """UTF-16 of either order, from either first byte, where some of the bytes are NULs, and neither
    few nor all."""
    if chunk.count(b"\0") < _NULS[0]:
        return
    filled = chunk + bytes(-len(chunk) % _BLOCK)
    blocks = np.frombuffer(filled, np.uint8).reshape(-1, _BLOCK)
    share = np.count_nonzero(blocks == 0, axis=1)
    chosen = (share >= _NULS[0]) & (share <= _NULS[1])
    if not chosen.any():
        return
    chosen[1:] |= chosen[:-1].copy()
    chosen[:-1] |= chosen[1:].copy()
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False)) * _BLOCK
    runs = zip(edges[::2], edges[1::2], strict=True)
    parts = [chunk[begin:end] for begin, end in runs]
    for encoding in ("utf-16-le", "utf-16-be"):
        for begin in (0, 1):
            yield b"\n".join(
                part[begin:].decode(encoding, "ignore").encode("utf-8", "ignore") for part in parts
            )


def decoded_runs(
    data: bytes,
) -> list[bytes]:
    """What the long runs of base64 and hexadecimal digits decode to, from each place where a group
    may begin."""
    if _PREFIX.search(data):
        data = _PREFIX.sub(b"\n", data)
    mask = data.translate(_RUNS)
    if mask.find(_LONG) < 0:
        return []
    digit = np.frombuffer(mask, np.uint8) == _DIGIT
    begins, ends = _long_runs(digit)
    strange = np.add.reduceat(
        np.frombuffer(data.translate(_NOT_HEX) + b"\0", np.uint8),
        np.ravel((begins, ends), "F"),
        dtype=np.int64,
    )[::2]
    base64 = strange > 0
    digests = ~base64 & np.isin(ends - begins, _DIGESTS)
    found = []
    for chosen, group, starts, decode in (
        (base64, 4, 4, binascii.a2b_base64),
        (digests, 2, 1, binascii.unhexlify),
        (~base64 & ~digests, 2, 2, binascii.unhexlify),
    ):
        if chosen.any():
            digits = _joined_runs(data, begins[chosen], ends[chosen])
            found += [
                decode(digits[at : at + (len(digits) - at) // group * group])
                for at in range(starts)
            ]
    return found


def _long_runs(
    digit: Array,
) -> tuple[Array, Array]:
    """(begins, ends) of the runs of MIN_RUN true values and more."""
    edges = np.flatnonzero(np.diff(digit, prepend=False, append=False))
    begins, ends = edges[::2], edges[1::2]
    wanted = ends - begins >= MIN_RUN
    return begins[wanted], ends[wanted]


def _joined_runs(
    data: bytes,
    begins: Array,
    ends: Array,
) -> bytes:
    """The digits of these runs, without line breaks, each run followed by _BETWEEN that mean
    nothing."""
    size = len(data)
    taken = _between(
        begins,
        np.minimum(ends + _BETWEEN, size),
        size,
    )
    chars = np.frombuffer(data.translate(_STANDARD), np.uint8)[taken].copy()
    chars[~_between(begins, ends, size)[taken]] = ord("A")
    return chars.tobytes().translate(None, b"\r\n") + b"A" * _BETWEEN


def _between(
    begins: Array,
    ends: Array,
    size: int,
) -> Array:
    """True from each begin to its end; none begins before the one before it has ended, unless both
    are taken whole."""
    steps = np.zeros(size + 1, np.int8)
    steps[begins] = 1
    np.add.at(steps, ends, -1)
    return np.cumsum(steps[:-1], dtype=np.int8) > 0
