"""What bytes say under a rule for ids ([data] id_rule): an id that was asked for in one spelling
may stand in a file in another, and is the same person's.

The bytes are turned, not the id: nobody can name all spellings of one. The id is then looked for as
the rule writes it (s3t_core.identity.spelt_under).

- "case": letters of ASCII in lower case, byte for byte, whatever they stand among
- "case", "unicode": what is UTF-8, case-folded and in NFKC (UAX #15), until nothing changes: a
  letter and its accent become one, letters of full width those that anybody types
- "trim": the same once more, without characters that nobody sees, but for line breaks, tabs, NULs,
  and controls among numbers

A blank at an end, and the .0 of a whole number ("integer"), stand beside the id as a word: nothing
is turned for them.
"""

import contextlib
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from functools import cached_property, lru_cache

from s3t_core.identity import seen_of, spelt_under

_WITHIN = ("unicode", "case")
"""The steps of a rule that change an id from within, letter by letter."""
_RUN = "[^\x00-\x08\x0e-\x1f\x7f\udc80-\udcff]{%d,}+"
"""What is text among numbers: no control character, and no byte that is not UTF-8."""
_CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1f\x7f]")
_CUT = bytes(range(0x80, 0x100))
_SHORT_BYTES = 2**12
"""So few are a value by themselves: control characters among them may be taken out of it."""
_WIDENS = 3
"""So many letters may come from one: U+FB03 is ffi."""
_KEPT = "\t\n\v\f\r"
"""Nobody sees these either, but they keep words apart."""
_APART = "\0"
"""Between two runs: no length of a value."""
_PIECE = re.compile(r"[\x00-\x7f]+(?=[\x00-\x7f])|[\x00-\x7f]?[^\x00-\x7f]*")
"""Turned by itself it becomes what it becomes among others: nothing is composed with a letter of
ASCII behind it."""


class Reading:
    """`data`: what bytes say under a rule."""

    def __init__(
        self,
        data: bytes,
    ) -> None:
        self.data = data

    def origin(
        self,
        begin: int,
        end: int,
    ) -> tuple[bytes, int, int]:
        """The bytes that were turned, and what of them became data[begin:end]."""
        return self.data, begin, end


class _Lower(Reading):
    """The same letters in lower case: each stands where it stood."""

    def __init__(
        self,
        source: bytes,
    ) -> None:
        super().__init__(source.lower())
        self._source = source

    def origin(
        self,
        begin: int,
        end: int,
    ) -> tuple[bytes, int, int]:
        return self._source, begin, end


class _Turned(Reading):
    """Text among other bytes, turned as a whole."""

    def __init__(
        self,
        data: str,
        text: str,
        turn: Callable[[str], str],
    ) -> None:
        """`text` became `data`, as `turn` turns each piece of it."""
        super().__init__(_bytes(data))
        self._text, self._turn = text, turn

    def origin(
        self,
        begin: int,
        end: int,
    ) -> tuple[bytes, int, int]:
        """Computed where something was found, and not as a word: by pieces, then within one."""
        return self._source, self._before(begin), self._before(end)

    def _before(
        self,
        place: int,
    ) -> int:
        """How many bytes of the text became data[:place]."""
        ends, begins, pieces = self._pieces
        which = bisect_right(ends, place)
        if which == len(pieces):
            return begins[-1]
        start = ends[which - 1] if which else 0
        piece, wanted = pieces[which], place - start
        if piece.isascii() and len(piece) == ends[which] - start:
            return begins[which] + wanted  # each letter became one
        within = bisect_right(
            range(len(piece)), wanted, key=lambda n: len(_bytes(self._turn(piece[:n])))
        )
        return begins[which] + len(_bytes(piece[: max(within - 1, 0)]))

    @cached_property
    def _source(
        self,
    ) -> bytes:
        return _bytes(self._text)

    @cached_property
    def _pieces(
        self,
    ) -> tuple[list[int], list[int], list[str]]:
        """Where each piece ends in the data, where it begins in the text, and itself; last, where
        the text ends."""
        pieces = _PIECE.findall(self._text)
        ends, begins, end, begin = list[int](), [0], 0, 0
        for piece in pieces:
            end += len(_bytes(self._turn(piece)))
            begin += len(_bytes(piece))
            ends.append(end)
            begins.append(begin)
        return ends, begins, pieces


def readings_under(
    rule: Collection[str],
    data: bytes,
    least: int,
) -> Iterator[Reading]:
    """What `data` says under the rule, each way in which that is not what it says anyway. `least`:
    letters of the shortest id, as the rule writes it."""
    if "case" in rule and not data.islower() and (lower := _Lower(data)).data != data:
        yield lower
    text = _text_in(data, least, "trim" in rule)
    if not text:
        return
    folded = _folded(rule, text)
    if folded != text:
        yield _Turned(folded, text, lambda piece: _folded(rule, piece))
    if "trim" in rule and (seen := _without_unseen(folded)) != folded:
        yield _Turned(
            _folded(rule, seen),
            text,
            lambda piece: _folded(rule, _without_unseen(_folded(rule, piece))),
        )


def is_folded(
    rule: Collection[str],
    needle: bytes,
) -> bool:
    """Whether a needle is written as the rule writes it, so that readings may have it."""
    text = needle.decode(errors="surrogateescape")
    return _folded(rule, text) == text


def _folded(
    rule: Collection[str],
    text: str,
) -> str:
    return spelt_under([step for step in _WITHIN if step in rule], text)


def _text_in(
    data: bytes,
    least: int,
    trims: bool,
) -> str:
    """That in which a rule may turn more than the case of letters of ASCII: all of it, or, of what
    is mostly numbers, the runs of text among them."""
    if data.isascii() and not (trims and _CONTROL.search(data)):
        return ""
    if len(data) <= _SHORT_BYTES or _is_utf8(data):
        return data.decode(errors="surrogateescape")
    runs = _runs_of(max(least // _WIDENS, 2)).finditer(data.decode(errors="surrogateescape"))
    return _APART.join(run[0] for run in runs if not run[0].isascii())


def _is_utf8(data: bytes) -> bool:
    """Whether it is text to its ends, where a chunk may cut a letter."""
    with contextlib.suppress(UnicodeDecodeError):
        data.strip(_CUT).decode()
        return True
    return False


@lru_cache
def _runs_of(
    letters: int,
) -> re.Pattern[str]:
    return re.compile(_RUN % letters)


def _without_unseen(
    text: str,
) -> str:
    unseen = [c for c in set(text) - {*_KEPT, _APART} if not seen_of(c)]
    return text.translate(dict.fromkeys(map(ord, unseen))) if unseen else text


def _bytes(
    text: str,
) -> bytes:
    return text.encode(errors="surrogateescape")
