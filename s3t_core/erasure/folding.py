"""What bytes say under a rule for ids ([data] id_rule): an id that was asked for in one spelling
may stand in a file in another, and is the same person's.

The bytes are turned, not the id: nobody can name all spellings of one. The id is then looked for as
the rule writes it (s3t_core.identity.spelt_under), and whether it is a word, or has its length
before it, is asked of the bytes that were turned: each reading knows where its own came from.

- "case": letters of ASCII in lower case, byte for byte, whatever they stand among
- "trim": without the control characters of ASCII, likewise
- "case", "unicode": what is UTF-8, case-folded and in NFKC (UAX #15), until nothing changes: a
  letter and its accent become one, letters of full width those that anybody types
- with "trim": the same once more, without what nobody sees

A blank at an end, and the .0 of a whole number ("integer"), stand beside the id as a word: nothing
is turned for them.

What keeps words apart in a text may stand within one id as well: a line break, a tab. An id over
one counts where it is held (by quotes, as a cell, by its length), or where no digit is on both
sides: `47` and `11` in two lines are two numbers.
"""

import contextlib
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate, product

import numpy as np

from s3t_core.erasure.words import goes_on, is_cell, is_held, is_measured, is_word
from s3t_core.identity import seen_of, spelt_under

_WITHIN = ("unicode", "case")
"""The steps of a rule that change an id from within, letter by letter."""
_CONTROLS = bytes([*range(32), 127])
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_JOINED = re.compile(rb"(?<=(.))([\x00-\x1f\x7f]+)(?=(.))", re.DOTALL)
"""Control characters within an id, and what is on both sides."""
_LINES = b"\t\n\v\f\r"
"""The control characters that a text has."""
_SINGLE = frozenset({b"\r\n", *(bytes([c]) for c in _CONTROLS)})
_PARTING = _LINES + b"\0\x1c\x1d\x1e\x1f"
"""Those that keep words apart."""
_NUMBERS = bytes(set(_CONTROLS) - set(_LINES + b"\0\x1b"))
"""Those that a text does not have."""
_CUT = bytes(range(0x80, 0x100))
_SHORT_BYTES = 2**12
"""So few are read as text as a whole, whatever they are."""
_FEW_BYTES = 256
"""So few are one value, or a few."""
_WIDENS = 3
"""So many letters may come from one: U+FB03 is ffi."""
_APART = "|"
"""Between two runs of text: nothing takes it out, or turns it."""
_OF_WORDS = ("L", "M", "Nd", "Pd", "Pc")
"""Categories (UAX #44) of what is a part of a word, also where it is turned. A sign is none: what
stands before a superscript 2, or the sign of a trade mark, ends there."""
_NEAR = 48
"""So many bytes away from an id its length may stand: what is between them, nobody sees."""
_UNSEEN_BEGIN = re.compile("[^\x00-\x1f\x7f]*[\x01-\x1f\x7f]?[^\x00-\x1f\x7f]*")
_UNSEEN_END = re.compile(rf"{_UNSEEN_BEGIN.pattern}\Z")
_STARTS = (
    "\u00c0-\u024f\u0370-\u0482\u048a-\u052f\u0620-\u064a\u1e00-\u1fff\u3041-\u3096\u30a1-\u30fa"
    "\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff5e\U0001d400-\U0001d7ff"
)
"""Letters that no letter before them is composed with (UAX #15)."""
_BESIDE = rf"[\x00-\x1f\x7f]{{0,8}}[^\x00-\x7f{_STARTS}]"
_PIECE = re.compile(
    rf"[\x20-\x7e]+(?!{_BESIDE})|[{_STARTS}]{{1,32}}(?!{_BESIDE})"
    rf"|[\x20-\x7e{_STARTS}]?(?:{_BESIDE}+)+|[\x00-\x1f\x7f]+|[{_STARTS}]"
)
"""Turned by itself it becomes what it becomes among others: a letter has with it what may be
composed with it, and the control characters between them."""


class Reading:
    """`data`: what bytes say. This one is as they are."""

    def __init__(
        self,
        data: bytes,
    ) -> None:
        self.data = data

    def is_word(
        self,
        begin: int,
        end: int,
    ) -> bool:
        """Whether data[begin:end] is no part of something longer."""
        return is_word(self.data, begin, end) or is_measured(self.data, begin, end)

    def is_one(
        self,
        begin: int,  # noqa: ARG002
        end: int,  # noqa: ARG002
    ) -> bool:
        """Whether data[begin:end] is one value, and not two that were read as one."""
        return True


class _Lower(Reading):
    """The same letters in lower case: each stands where it stood."""

    def __init__(
        self,
        source: bytes,
    ) -> None:
        super().__init__(source.lower())
        self._source = source

    def is_word(
        self,
        begin: int,
        end: int,
    ) -> bool:
        return is_word(self.data, begin, end) or is_measured(self._source, begin, end)


class _Moved(Reading):
    """What stands elsewhere in its source than in the data."""

    def __init__(
        self,
        data: bytes,
        source: bytes,
    ) -> None:
        super().__init__(data)
        self._source = source

    def _places(
        self,
        place: int,
    ) -> tuple[int, int]:
        """The least and the most bytes of the source that became data[:place]: what was taken out
        there is between them. The least is more than the most within what one letter became."""
        raise NotImplementedError

    def is_word(
        self,
        begin: int,
        end: int,
    ) -> bool:
        first, last = self._places(begin), self._places(end)
        if self._is_measured(first, last):
            return True
        within = self._source[first[1] : last[0]]
        return self._is_parted(
            self.data[max(begin - 1, 0) : begin],
            self._source[first[0] : first[1]],
            _letter_before(self._source, first[1]),
            within,
            first[0] <= first[1],
        ) and self._is_parted(
            self.data[end : end + 1],
            self._source[last[0] : last[1]],
            _letter_at(self._source, last[0]),
            within,
            last[0] <= last[1],
        )

    @staticmethod
    def _is_parted(
        beside: bytes,
        between: bytes,
        letter: str,
        within: bytes,
        is_whole: bool,
    ) -> bool:
        """Whether what is beside the id in the data is no part of it: `between` them something was
        taken out, such as does not stand `within` the id behind every other letter as well, or
        `letter` is a sign that was turned into letters."""
        if not goes_on(beside):
            return True
        if between:
            letters, unseen = _text(within), set(_text(between))
            return sum(map(unseen.__contains__, letters)) * 3 < len(letters)
        return (
            is_whole
            and not letter.isascii()
            and not unicodedata.category(letter).startswith(_OF_WORDS)
        )

    def is_one(
        self,
        begin: int,
        end: int,
    ) -> bool:
        first, last = self._places(begin), self._places(end)
        within = self._source[first[1] : last[0]]
        if not _CONTROL.search(within):
            return True
        return (
            self._is_measured(first, last, surely=True)
            or is_held(self._source, first[1], last[0])
            or is_cell(self._source, first[0], last[1])
            or all(self._is_joined(found, within) for found in _JOINED.finditer(within))
        )

    def _is_joined(
        self,
        found: re.Match[bytes],
        within: bytes,
    ) -> bool:
        """Whether what was taken out between two letters joins them. Between digits a line break
        parts them. Among numbers the length of what follows does; so does any control character
        between digits, and more than one, but in a few bytes."""
        are_digits = found[1].isdigit() and found[3].isdigit()
        if are_digits and set(found[2]) & set(_PARTING):
            return False
        if self._is_text:
            return True
        following = _CONTROL.split(within[found.end() :], maxsplit=1)[0]
        if is_measured(within, found.end(), found.end() + len(following)):
            return False
        return len(self._source) <= _FEW_BYTES or (found[2] in _SINGLE and not are_digits)

    @cached_property
    def _is_text(
        self,
    ) -> bool:
        """Whether few of its bytes are numbers."""
        numbers = len(self._source) - len(self._source.translate(None, _NUMBERS))
        return numbers * 16 <= len(self._source)

    def _is_measured(
        self,
        first: tuple[int, int],
        last: tuple[int, int],
        surely: bool = False,
    ) -> bool:
        """Whether the length of an id stands before it, or before what is not seen of it: on
        either side one control character at most, since among numbers there are many."""
        before = _text(self._source[max(first[0], first[1] - _NEAR) : first[1]])
        behind = _text(self._source[last[0] : last[1]][:_NEAR])
        before, behind = _UNSEEN_END.findall(before)[0], _UNSEEN_BEGIN.findall(behind)[0]
        begins = accumulate((-len(_bytes(c)) for c in reversed(before)), initial=first[1])
        ends = accumulate((len(_bytes(c)) for c in behind), initial=last[0])
        return any(is_measured(self._source, *pair, surely) for pair in product(begins, ends))


class _Without(_Moved):
    """The bytes without control characters, in lower case where the rule says so."""

    def __init__(
        self,
        source: bytes,
        lower: bool,
    ) -> None:
        data = source.translate(None, _CONTROLS)
        super().__init__(data.lower() if lower else data, source)

    def _places(
        self,
        place: int,
    ) -> tuple[int, int]:
        kept = self._kept
        least = int(kept[place - 1]) + 1 if place else 0
        return least, int(kept[place]) if place < len(kept) else len(self._source)

    @cached_property
    def _kept(
        self,
    ) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
        """Where each byte of the data stands in the source."""
        return np.flatnonzero(_IS_KEPT[np.frombuffer(self._source, np.uint8)])


_IS_KEPT = np.array([c not in _CONTROLS for c in range(256)])


class _Turned(_Moved):
    """Text, or what of the bytes is text, turned as a whole."""

    def __init__(
        self,
        data: str,
        source: bytes,
        runs: Sequence[tuple[int, str]],
        turn: Callable[[str], str],
    ) -> None:
        """`runs`: what of the source is text, each with where it begins (letters). Joined by
        _APART they became `data`, as `turn` turns each piece of them."""
        super().__init__(_bytes(data), source)
        self._runs, self._turn = runs, lru_cache(maxsize=4096)(turn)

    def is_word(
        self,
        begin: int,
        end: int,
    ) -> bool:
        if not self._is_known:
            return True
        at = self._place_within(begin, end)
        if at is None:
            return super().is_word(begin, end)
        return is_word(self.data, begin, end) or is_measured(self._source, at, at + end - begin)

    def is_one(
        self,
        begin: int,
        end: int,
    ) -> bool:
        return (
            not self._is_known
            or self._place_within(begin, end) is not None
            or super().is_one(begin, end)
        )

    @cached_property
    def _is_known(
        self,
    ) -> bool:
        """Whether it is known where each byte came from. If not, whatever is found counts."""
        return self._starts[-1] == len(self.data) + 1

    @cached_property
    def _starts(
        self,
    ) -> list[int]:
        """Where each run begins in the data, and last where another would."""
        return list(accumulate((run.size + 1 for run in self._turned), initial=0))

    @cached_property
    def _turned(
        self,
    ) -> "list[_Run]":
        whole, before, size, runs = _text(self._source), 0, 0, []
        for begin, text in self._runs:
            size += len(_bytes(whole[before:begin]))
            before = begin
            runs.append(_Run(text, size, self._turn))
        return runs

    def _places(
        self,
        place: int,
    ) -> tuple[int, int]:
        which = bisect_right(self._starts, place) - 1
        return self._turned[which].places(place - self._starts[which])

    def _place_within(
        self,
        begin: int,
        end: int,
    ) -> int | None:
        """Where data[begin:end] begins in the source if nothing in it or beside it was turned or
        taken out: of most that is found it is known at once."""
        which = bisect_right(self._starts, begin) - 1
        start = self._starts[which]
        return self._turned[which].place_within(begin - start, end - start)


class _Run:
    """Text, and what it becomes piece by piece."""

    def __init__(
        self,
        text: str,
        begin: int,
        turn: Callable[[str], str],
    ) -> None:
        self._turn = turn
        self._pieces = _PIECE.findall(text)
        self._begins = list(accumulate(map(_size, self._pieces), initial=begin))
        self._ends = list(accumulate(map(self._size_of, self._pieces)))

    def _size_of(
        self,
        piece: str,
    ) -> int:
        """Bytes of what a piece becomes: of letters of ASCII, so many."""
        return len(piece) if _is_plain(piece) else _size(self._turn(piece))

    @property
    def size(
        self,
    ) -> int:
        """Bytes of what it becomes."""
        return self._ends[-1]

    def places(
        self,
        place: int,
    ) -> tuple[int, int]:
        """The least and the most bytes that became the first `place` ones."""
        least, most = bisect_left(self._ends, place), bisect_right(self._ends, place)
        return (
            self._place_in(least, place, bisect_left),
            self._place_in(most, place, bisect_right)
            if most < len(self._pieces)
            else self._begins[-1],
        )

    def place_within(
        self,
        begin: int,
        end: int,
    ) -> int | None:
        """Where [begin:end] was, if it lies within letters of ASCII that are what they were."""
        which = bisect_right(self._ends, begin)
        if which == len(self._pieces):
            return None
        start = self._ends[which - 1] if which else 0
        if begin == start or end >= self._ends[which] or not _is_plain(self._pieces[which]):
            return None
        return self._begins[which] + begin - start

    def _place_in(
        self,
        which: int,
        place: int,
        bisect: Callable[..., int],
    ) -> int:
        piece, start = self._pieces[which], self._ends[which - 1] if which else 0
        wanted, begin = place - start, self._begins[which]
        if _is_plain(piece):
            return begin + wanted
        letters = bisect(range(len(piece) + 1), wanted, key=lambda n: _size(self._turn(piece[:n])))
        return begin + _size(piece[: letters - (bisect is bisect_right)])


def readings_under(
    rule: Collection[str],
    data: bytes,
    least: int,
) -> Iterator[Reading]:
    """What `data` says under the rule, each way in which that is not what it says anyway. `least`:
    letters of the shortest id, as the rule writes it."""
    lowers, trims = "case" in rule, "trim" in rule
    if lowers and not data.islower() and (lower := _Lower(data)).data != data:
        yield lower
    is_text = _is_utf8(data) or len(data) <= _SHORT_BYTES
    if trims and (data.isascii() or not is_text) and _CONTROL.search(data):
        yield _Without(data, lowers)
    if data.isascii():
        return
    runs = [(0, _text(data))] if is_text else _runs_in(data, least)
    if not runs:
        return
    text = _APART.join(run for _, run in runs)
    folded = _folded(rule, text)
    if folded != text:
        yield _Turned(folded, data, runs, lambda piece: _folded(rule, piece))
    if trims and (seen := _without_unseen(folded)) != folded:
        yield _Turned(
            _folded(rule, seen),
            data,
            runs,
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


def _is_utf8(data: bytes) -> bool:
    """Whether it is text to its ends, where a chunk may cut a letter."""
    with contextlib.suppress(UnicodeDecodeError):
        data.strip(_CUT).decode()
        return True
    return False


def _runs_in(
    data: bytes,
    least: int,
) -> list[tuple[int, str]]:
    """What is text among numbers and more than ASCII, each run with where it begins (letters)."""
    found = _runs_of(max(least // _WIDENS, 2)).finditer(_text(data))
    return [(run.start(), run[0]) for run in found if not run[0].isascii()]


@lru_cache
def _runs_of(
    letters: int,
) -> re.Pattern[str]:
    return re.compile(f"[^\udc80-\udcff]{{{letters},}}+")


def _without_unseen(
    text: str,
) -> str:
    unseen = [c for c in set(text) if not seen_of(c)]
    return text.translate(dict.fromkeys(map(ord, unseen))) if unseen else text


def _letter_before(
    data: bytes,
    place: int,
) -> str:
    return data[max(place - 4, 0) : place].decode(errors="ignore")[-1:]


def _letter_at(
    data: bytes,
    place: int,
) -> str:
    return data[place : place + 4].decode(errors="ignore")[:1]


def _text(
    data: bytes,
) -> str:
    return data.decode(errors="surrogateescape")


def _is_plain(
    piece: str,
) -> bool:
    """Whether each of its letters becomes one: those of ASCII that are seen."""
    return piece.isascii() and piece.isprintable()


def _size(
    text: str,
) -> int:
    """Bytes of a text."""
    return len(text) if text.isascii() else len(_bytes(text))


def _bytes(
    text: str,
) -> bytes:
    return text.encode(errors="surrogateescape")
