"""What the residue scan looks for: the ids as given, and windows of the erased texts.

1. A window is the start, the middle or the end of a text (all of it when it is short), so that a
   cut-off log line or a text split over database pages is found too. Of a picture they are of what
   it shows, as a file and in base64: what stands before that is the same in many.
2. A needle has few forms, because a search gets slower with every one: as it is, and as JSON
   without its backslashes (s3t_core.erasure.spellings turns the haystack likewise).
3. Needles that cannot be told from chance are counted as unsearchable: short ones, plain words as
   ids ("default"), what the system writes anyway (a text that quotes a label, an id that is a name
   in the ledger), however it is spelt there, and what many people say whose rows are kept (the
   first words of every chat).
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ahocorasick_rs import BytesAhoCorasick, Implementation

from s3t_core.conversations import texts_in
from s3t_core.erasure.folding import Reading, is_folded, readings_under
from s3t_core.erasure.spellings import plain, read, spellings_of
from s3t_core.erasure.words import may_be_a_fraction
from s3t_core.images import file_in

MIN_ID_BYTES = 6
MIN_WORD_BYTES = 12
MIN_TEXT_BYTES = 16
WINDOW_BYTES = 48
_MANY = 3
"""What so many people say besides is nobody's in particular."""
_FURTHER = 64
"""Where a start, or an end, tells nobody, so many windows inwards are tried for one that does."""
_WIDER = 16
"""So many bytes may be one of an id under a rule: a letter of mathematics is a letter (NFKC), and
what nobody sees may stand before each."""
_FEW = 16
"""Up to so many needles are looked for one by one, which is faster."""


@dataclass(frozen=True)
class NeedleSet:
    """What is searched for. `ids` match only as whole words, unless `words` is False: an id may be
    a part of a longer one. `ids_unsearchable`: the ids as given that are not searched for in every
    form. `passed_over` takes ids that were only met as the fraction of a time may be written:
    nobody can say that they were none. `said_by_many`: windows that are not searched for because
    many people say them whose rows are kept. `rule`: what does not tell two spellings of an id
    apart: each is found, where `ids` has the one that the rule writes."""

    ids: tuple[bytes, ...]
    windows: tuple[bytes, ...]
    unsearchable: int
    ids_unsearchable: frozenset[str] = field(default=frozenset(), repr=False)
    passed_over: set[bytes] = field(default_factory=set, repr=False, compare=False)
    words: bool = True
    said_by_many: frozenset[bytes] = field(default=frozenset(), repr=False, compare=False)
    rule: tuple[str, ...] = ()

    def found_in(
        self,
        data: bytes,
    ) -> bool:
        """Whether any needle is in `data`."""
        return self._found_in(Reading(data)) or any(
            map(self._under._found_in, self._readings(data))
        )

    def _found_in(
        self,
        reading: Reading,
    ) -> bool:
        data = reading.data
        if len(self.ids) + len(self.windows) <= _FEW:
            if any(window in data for window in self.windows):
                return True
            return any(self._has_word(given, reading) for given in self.ids)
        return any(
            which >= len(self.ids) or self._is_id(reading, begin, end)
            for which, begin, end in self._automaton.find_matches_as_indexes(data, overlapping=True)
        )

    def windows_in(
        self,
        data: bytes,
    ) -> set[bytes]:
        """The windows that are in `data`, as they are."""
        found = self._automaton.find_matches_as_indexes(data, overlapping=True)
        return {
            self.windows[which - len(self.ids)] for which, _, _ in found if which >= len(self.ids)
        }

    def _has_word(
        self,
        word: bytes,
        reading: Reading,
    ) -> bool:
        begin = reading.data.find(word)
        while begin >= 0:
            if self._is_id(reading, begin, begin + len(word)):
                return True
            begin = reading.data.find(word, begin + 1)
        return False

    def _is_id(
        self,
        reading: Reading,
        begin: int,
        end: int,
    ) -> bool:
        """Whether [begin:end] is one value and a whole word, and not what may be the fraction of a
        time."""
        if not reading.is_one(begin, end):
            return False
        if self.words and not reading.is_word(begin, end):
            return False
        if not may_be_a_fraction(reading.data, begin, end):
            return True
        self.passed_over.add(reading.data[begin:end])
        return False

    def spelt_in(
        self,
        chunk: bytes,
    ) -> bool:
        """Whether any needle is in `chunk`, however it is written there."""
        return any(self.found_in(spelling) for spelling in spellings_of(chunk))

    def which_spelt(
        self,
        chunk: bytes,
    ) -> set[bytes]:
        """The needles that are in `chunk`, however they are written there."""
        return set().union(*self.which_in([chunk]))

    def which_in(
        self,
        parts: Iterable[bytes],
    ) -> tuple[set[bytes], set[bytes]]:
        """The ids and the windows that are in any of `parts`, however they are written there."""
        ids: set[bytes] = set()
        windows: set[bytes] = set()
        for data in (spelling for part in parts if self.longest for spelling in spellings_of(part)):
            self._collect(Reading(data), ids, windows)
            for reading in self._readings(data):
                self._under._collect(reading, ids, windows)
        return ids, windows

    def _collect(
        self,
        reading: Reading,
        ids: set[bytes],
        windows: set[bytes],
    ) -> None:
        """Add what is in it, as it is."""
        found = self._automaton.find_matches_as_indexes(reading.data, overlapping=True)
        for which, begin, end in found:
            if which >= len(self.ids):
                windows.add(self.windows[which - len(self.ids)])
            elif self._is_id(reading, begin, end):
                ids.add(self.ids[which])

    def _readings(
        self,
        data: bytes,
    ) -> Iterator[Reading]:
        """What `data` says under the rule besides, where anything is looked for in it."""
        return readings_under(self.rule, data, self._least) if self._least else iter(())

    @cached_property
    def _least(
        self,
    ) -> int:
        """Letters of the shortest id that is looked for under the rule, 0 where none is."""
        return min((len(i.decode(errors="replace")) for i in self._under.ids), default=0)

    @cached_property
    def _under(
        self,
    ) -> "NeedleSet":
        """The ids as the rule writes them. A text is looked for as it is."""
        ids = tuple(i for i in self.ids if is_folded(self.rule, i)) if self.rule else ()
        return replace(self, ids=ids, windows=(), rule=())

    @cached_property
    def _automaton(
        self,
    ) -> BytesAhoCorasick:
        """All needles at once (Aho and Corasick): the time of a search does not grow with their
        number."""
        return BytesAhoCorasick(
            [*self.ids, *self.windows], implementation=Implementation.ContiguousNFA
        )

    @cached_property
    def within_words(
        self,
    ) -> "NeedleSet":
        """The same needles, for bytes in which nothing keeps values apart."""
        return replace(self, words=False)

    @cached_property
    def digests(
        self,
    ) -> Mapping[str, bytes]:
        """What looks like the keyed digest of a subject, a record or a form: ids as they are, or in
        hexadecimal digits, and which id each is."""
        spelt = {given.hex().encode(): given for given in self.ids} | {i: i for i in self.ids}
        digits = re.compile(rb"([0-9a-f]{32}){1,2}")
        return {look.decode(): given for look, given in spelt.items() if digits.fullmatch(look)}

    @cached_property
    def longest(
        self,
    ) -> int:
        """Bytes of the longest needle, of an id as a rule may meet it."""
        wider = _WIDER if self._under.ids else 1
        return max(
            (*(len(i) * wider for i in self.ids), *map(len, self.windows)),
            default=0,
        )


def make_needles(
    ids: list[str],
    texts: list[str],
    baseline: bytes | Iterable[bytes] = b"",
    kept: Callable[[], Iterable[tuple[str, str]]] = tuple,
    rule: Collection[str] = (),
) -> NeedleSet:
    """Needles for the ids as given and the texts of the erased rows. `baseline`: what the system
    writes anyway, in parts of which no needle lies in two; `kept` gives the rows of people who
    stay, each with its subject (digest) and its text. Both may be read twice. `rule`: that for
    ids, of which `ids` has each as it writes it beside the one as given."""
    words = [
        {
            f
            for f in _forms(given)
            if len(f) >= (MIN_WORD_BYTES if given.isalpha() else MIN_ID_BYTES)
        }
        for given in ids
    ]
    parts = [baseline] if isinstance(baseline, bytes) else baseline
    every_id = tuple(sorted(set().union(*words)))
    windows = [_windows_of(text.strip()) for text in texts]
    usual_ids, usual, said = _left_out(every_id, windows, parts, kept, tuple(rule))
    moved = {
        n: _further(texts[n].strip()) for n, w in enumerate(windows) if not w.isdisjoint(usual)
    }
    if moved:
        further = [set().union(*each) for each in moved.values()]
        usual |= _left_out(
            (),
            further,
            parts,
            kept,
        )[1]
        for number, rows in moved.items():
            for row in rows:
                own = [w for w in row if w not in usual]
                windows[number].update(own[:1])
    return NeedleSet(
        tuple(sorted(set(every_id) - usual_ids)),
        tuple(sorted(set().union(*windows) - usual)),
        sum(w <= usual_ids for w in words) + sum(w <= usual for w in windows),
        frozenset(
            given
            for given, w in zip(ids, words, strict=True)
            if not w or not w.isdisjoint(usual_ids)
        ),
        said_by_many=frozenset(said),
        rule=tuple(rule),
    )


def _left_out(
    ids: tuple[bytes, ...],
    windows: Iterable[set[bytes]],
    parts: Iterable[bytes],
    kept: Callable[[], Iterable[tuple[str, str]]],
    rule: tuple[str, ...] = (),
) -> tuple[set[bytes], set[bytes], set[bytes]]:
    """The ids, and the windows, that tell nobody: the system writes them, or many say them. These
    last ones again."""
    every = NeedleSet(ids, tuple(sorted(set().union(*windows))), 0, rule=rule)
    usual_ids, usual_windows = every.which_in(parts)
    said = _said_by_many(every, kept)
    return usual_ids, usual_windows | said, said


def is_among(
    given: str,
    found: Collection[bytes],
) -> bool:
    """Whether an id as given is among needles that were found, in any of its forms."""
    return any(form in found for form in _forms(given))


def is_text_among(
    text: str,
    found: Collection[bytes],
) -> bool:
    """Whether a window of a text is among needles that were found."""
    own = text.strip()
    return bool(found) and not set().union(_windows_of(own), *_further(own)).isdisjoint(found)


def _said_by_many(
    needles: NeedleSet,
    kept: Callable[[], Iterable[tuple[str, str]]],
) -> set[bytes]:
    """The windows that texts of many people have."""
    if not needles.windows:
        return set()
    people: Mapping[bytes, set[str]] = defaultdict(set)
    for subject, text in kept():
        parts = texts_in(text)
        picture, _ = file_in(text)
        as_they_are = (
            *map(str.encode, parts),
            picture,
        )
        if not any(map(needles.windows_in, as_they_are)):
            continue
        forms = {picture}.union(*map(_forms, parts))
        for window in set().union(*map(needles.windows_in, forms)):
            people[window].add(subject)
    return {window for window, of in people.items() if len(of) >= _MANY}


def _windows_of(text: str) -> set[bytes]:
    """Of a text, in every form; none of one that is too short."""
    return {w for data, begin in _spelt(text) for w in _windows(data, begin)}


def _further(text: str) -> list[list[bytes]]:
    """The windows that may stand for those at the start and at the end of a text, in every form:
    one behind the other inwards, the nearest first."""
    found = []
    for data, begin in _spelt(text):
        last = max(len(data) - WINDOW_BYTES, 0)
        first = min(begin, last)
        inwards = range(first, last, WINDOW_BYTES)
        outwards = range(last, first, -WINDOW_BYTES)
        for row in (inwards, outwards):
            found.append([data[at : at + WINDOW_BYTES] for at in row[:_FURTHER]])
    return found


def _spelt(text: str) -> Iterator[tuple[bytes, int]]:
    """The forms of a text that are long enough, and from where on each is its own: of a picture,
    behind what stands before that which it shows."""
    picture, begin = file_in(text)
    within = -(-begin // 3) * 4  # in base64
    yield from ((form, within) for form in _forms(text) if len(form) >= MIN_TEXT_BYTES)
    if picture:
        yield picture, begin


def _forms(text: str) -> set[bytes]:
    raw = text.encode()
    escaped = (json.dumps(text), json.dumps(text, ensure_ascii=False))
    inside = [form[1:-1].encode() for form in escaped]
    return {raw, plain(raw), read(raw), *map(plain, inside)}


def _windows(
    data: bytes,
    begin: int = 0,
) -> list[bytes]:
    """Start (at `begin`), middle and end of a text: short enough to lie within one database page or
    log line."""
    last = max(len(data) - WINDOW_BYTES, 0)
    first = min(begin, last)
    return [data[at : at + WINDOW_BYTES] for at in (first, (first + last) // 2, last)]
