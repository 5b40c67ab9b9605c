"""The ways in which text may be written in bytes that are otherwise plain: a chunk is turned into each, then searched.

Turning the chunk, not the needles, keeps their number small: a search gets slower with every one.

- escapes, at any depth: JSON in JSON, Python's repr; backslashes go, `\\n`, `\\r` and `\\t` become what they mean;
  `\\x`, `\\u` and `\\U` with their digits become letters, `\\x` also a byte (Python's ascii() and repr(bytes))
- UTF-16 and UTF-32 without a mark at their beginning: NULs go, which leaves ASCII; where every second byte or so is
  one, the chunk is decoded in both orders as well
- percent-encoding, with + as a space or as itself; the five entities of HTML
- base64 of either alphabet, with line breaks or without, from MIN_RUN characters on, and escapes within it (a signed
  document of ours is JSON in base64 in JSON); hexadecimal likewise, but for runs of the lengths that digests have
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
_ENTITIES = {b"&lt;": b"<", b"&gt;": b">", b"&quot;": b'"', b"&#34;": b'"', b"&#x27;": b"'", b"&#39;": b"'",
             b"&amp;": b"&"}
_ENTITY = re.compile(b"|".join(_ENTITIES))
_NUMBERED = re.compile(rb"\\+(?:u[0-9A-Fa-f]{4}(?:\\+u[0-9A-Fa-f]{4})*|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2})")
_NUMBERS = (b"\\u", b"\\U", b"\\x")
_DIGITS = re.compile(rb"[uUx]([0-9A-Fa-f]+)")
_NUL_SHARE = (0.3, 0.8)


def spellings_of(chunk: bytes) -> Iterator[bytes]:
    """The chunk, and each other way to read it that its bytes suggest."""
    yield chunk
    stripped = plain(chunk)
    if len(stripped) < len(chunk):
        yield stripped
        if _NUL_SHARE[0] <= chunk.count(0) / len(chunk) <= _NUL_SHARE[1]:
            yield from _wide(chunk)
    if any(number in chunk for number in _NUMBERS):
        yield from (plain(_NUMBERED.sub(meaning, chunk)) for meaning in (_letters, _letters_and_bytes))
    if _PERCENT.search(stripped):
        yield unquote_to_bytes(stripped)
        if b"+" in stripped:
            yield unquote_to_bytes(stripped.replace(b"+", b" "))
    if _ENTITY.search(stripped):
        yield _ENTITY.sub(lambda found: _ENTITIES[found[0]], stripped)
    for decoded in decoded_runs(stripped):
        yield decoded
        yield plain(decoded)


def plain(data: bytes) -> bytes:
    """Without backslashes and NULs; escaped line breaks and tabs as such. The same at any depth of escaping."""
    if b"\\" in data:
        for escape, meant in ((b"\\n", b"\n"), (b"\\r", b"\r"), (b"\\t", b"\t"), (b"\\", b"")):
            data = data.replace(escape, meant)
    return data.replace(b"\0", b"") if data.count(b"\0") < _FEW else data.translate(None, b"\0")


def _letters(found: "re.Match[bytes]") -> bytes:
    """What numbered escapes mean, two of `\\u` being one letter where they are a pair."""
    numbers = [int(digits, 16) for digits in _DIGITS.findall(found[0])]
    text = "".join(chr(n) for n in numbers if n <= 0x10ffff)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _letters_and_bytes(found: "re.Match[bytes]") -> bytes:
    """The same, each `\\x` being a byte."""
    return bytes([int(found[0][-2:], 16)]) if found[0][-3:-2] == b"x" else _letters(found)


def _wide(chunk: bytes) -> Iterator[bytes]:
    """UTF-16 of either order, from either first byte."""
    for encoding in ("utf-16-le", "utf-16-be"):
        for begin in (0, 1):
            yield chunk[begin:].decode(encoding, "ignore").encode("utf-8", "ignore")


def decoded_runs(data: bytes) -> list[bytes]:
    """What the long runs of base64 and hexadecimal digits decode to, from each place where a group may begin."""
    mask = data.translate(_RUNS)
    if mask.find(_LONG) < 0:
        return []
    digit = np.frombuffer(mask, np.uint8) == _DIGIT
    begins, ends = _long_runs(digit)
    strange = np.add.reduceat(np.frombuffer(data.translate(_NOT_HEX) + b"\0", np.uint8),
                              np.ravel((begins, ends), "F"), dtype=np.int64)[::2]
    base64 = strange > 0
    hexadecimal = ~base64 & ~np.isin(ends - begins, _DIGESTS)
    found = []
    for chosen, group, decode in ((base64, 4, binascii.a2b_base64), (hexadecimal, 2, binascii.unhexlify)):
        if chosen.any():
            digits = _joined_runs(data, begins[chosen], ends[chosen])
            found += [decode(digits[at:at + (len(digits) - at) // group * group]) for at in range(group)]
    return found


def _long_runs(digit: Array) -> tuple[Array, Array]:
    """(begins, ends) of the runs of MIN_RUN true values and more."""
    edges = np.flatnonzero(np.diff(digit, prepend=False, append=False))
    begins, ends = edges[::2], edges[1::2]
    wanted = ends - begins >= MIN_RUN
    return begins[wanted], ends[wanted]


def _joined_runs(data: bytes, begins: Array, ends: Array) -> bytes:
    """The digits of these runs, without line breaks, each run followed by _BETWEEN that mean nothing."""
    size = len(data)
    taken = _between(begins, np.minimum(ends + _BETWEEN, size), size)
    chars = np.frombuffer(data.translate(_STANDARD), np.uint8)[taken].copy()
    chars[~_between(begins, ends, size)[taken]] = ord("A")
    return chars.tobytes().translate(None, b"\r\n") + b"A" * _BETWEEN


def _between(begins: Array, ends: Array, size: int) -> Array:
    """True from each begin to its end; none begins before the one before it has ended, unless both are taken whole."""
    steps = np.zeros(size + 1, np.int8)
    steps[begins] = 1
    np.add.at(steps, ends, -1)
    return np.cumsum(steps[:-1], dtype=np.int8) > 0
