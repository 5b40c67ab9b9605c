"""How an id is written: one spelling for each type, the same from every kind of file, so that whoever asks for a person
by the id that anybody would write finds them.

| type of the cell | spelling |
|---|---|
| text | as it is |
| integer, and a float or decimal that is one | its digits: 1018 |
| UUID | lower case, with hyphens (RFC 9562, section 4) |
| date | 2026-11-26 (RFC 3339, full-date) |
| date and time | 2026-11-26T09:30:00, and in UTC with Z where the source says which zone |
| anything else | refused: two spellings of it are as good as each other |
"""

import datetime
import math
import re
import unicodedata
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

_EXACT = 2**53
"""From here on a float stands for more than one integer (IEEE 754, binary64)."""


class NotAnId(ValueError):
    """The value names nobody for sure; the message says what it is, never the value."""


def id_text(value: object) -> str | None:
    """The one spelling of a value that stands in a column of ids, None for an empty cell. Raises NotAnId."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    write = next((write for kind, write in _SPELLINGS if isinstance(value, kind)), None)
    if write is None:
        raise NotAnId(f"a value of type {type(value).__name__}")
    return write(value)


def _whole(value: float | Decimal) -> str:
    finite = value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
    if not finite or value % 1:
        raise NotAnId("a number that is not whole")
    if isinstance(value, float) and abs(value) > _EXACT:
        raise NotAnId("a float above 2^53, which stands for several whole numbers")
    return str(int(value))


def _moment(value: datetime.datetime) -> str:
    if value.tzinfo is None:
        return value.isoformat()
    return value.astimezone(datetime.UTC).replace(tzinfo=None).isoformat() + "Z"


def _refused(what: str) -> Callable[[Any], str]:
    def refuse(_: object) -> str:
        raise NotAnId(what)
    return refuse


_SPELLINGS: tuple[tuple[type | tuple[type, ...], Callable[[Any], str]], ...] = (
    (str, str), (bool, _refused("true or false, which names nobody")), (int, str), ((float, Decimal), _whole),
    (uuid.UUID, str), (datetime.datetime, _moment), (datetime.date, datetime.date.isoformat),
    ((list, tuple), _refused("a list")), (dict, _refused("an object")))
"""How a value of each type is written; the first one that fits, so a type before those it is a special case of."""


_MISSING = frozenset({
    "nan", "nat", "none", "null", "nil", "n/a", "na", "#n/a", "<na>", "undefined", "unknown", "-", "?"})
_UNSEEN = re.compile("[\u00ad\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")
"""Characters that nobody sees: zero-width ones, marks of direction, soft hyphens."""
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0*")


def folded(spelt: str) -> str:
    """What is left of an id when everything is taken out in which two spellings of one id differ: blanks at its ends,
    letter case, Unicode form (NFKC, UAX #15), characters that nobody sees, the .0 of a whole number."""
    if not spelt.isascii():
        spelt = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _UNSEEN.sub("", spelt)).casefold())
    spelt = spelt.strip().casefold()
    whole = _WHOLE.fullmatch(spelt)
    return whole[1] if whole else spelt


def looks_missing(spelt: str) -> bool:
    """Whether an id is what programs write where there is none: people who share it are one person to the system."""
    return spelt.strip().casefold() in _MISSING


def looks_like_a_float(spelt: str) -> bool:
    """Whether an id is a whole number that some program wrote as a float: whoever asks will write it without .0."""
    return _WHOLE.fullmatch(spelt.strip()) is not None
