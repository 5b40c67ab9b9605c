"""How an id is written: one spelling for each type, the same from every kind of file, so that
whoever asks for a person by the id that anybody would write finds them.

| type of the cell | spelling |
|---|---|
| text | as it is |
| integer, and a float or decimal that is one | its digits: 1018 |
| UUID | lower case, with hyphens (RFC 9562, section 4) |
| date | 2026-11-26 (RFC 3339, full-date) |
| date and time | 2026-11-26T09:30:00, and in UTC with Z where the source says which zone |
| anything else | refused: two spellings of it are as good as each other |

Beside that a workspace may have a rule for ids ([data] id_rule): what does not tell two people
apart.
"""

import datetime
import hashlib
import math
import re
import unicodedata
import uuid
from collections.abc import Callable, Collection
from decimal import Decimal
from itertools import combinations
from typing import Any, Literal, get_args

from s3t_core.errors import UsageError
from s3t_core.keys import NamingKeys, keyed_digest


class Single(float):
    """A float as a column of IEEE 754 binary32 holds it."""


class Half(float):
    """A float as a column of IEEE 754 binary16 holds it."""


_EXACT: dict[type, int] = {Half: 2**11, Single: 2**24}
"""From here on a float of this type stands for more than one integer: 16777216 is also what
16777217 became."""
_EXACT_DOUBLE, _MOST_DIGITS = 2**53, 1000


class NotAnId(ValueError):
    """The value names nobody for sure; the message says what it is, never the value."""


def id_text(
    value: object,
) -> str | None:
    """The one spelling of a value that stands in a column of ids, None for an empty cell. Raises
    NotAnId."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    write = next((write for kind, write in _SPELLINGS if isinstance(value, kind)), None)
    if write is None:
        raise NotAnId(f"a value of type {type(value).__name__}")
    try:
        return write(value)
    except NotAnId:
        raise
    except (
        ArithmeticError,
        ValueError,
        LookupError,
    ):  # beyond the calendar, more digits than are written
        raise NotAnId(f"a value of type {type(value).__name__} that cannot be written") from None


def decimal_text(
    value: Decimal,
) -> str:
    """The digits of a finite decimal, all of them, without zeros at the end of a fraction and
    without an exponent. Raises NotAnId. Arithmetic would round to 28 digits."""
    if not value.is_finite() or abs(value.adjusted()) > _MOST_DIGITS:
        raise NotAnId("a decimal that is not finite, or too long to be written")
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _whole(
    value: float | Decimal,
) -> str:
    text = decimal_text(value) if isinstance(value, Decimal) and value.is_finite() else ""
    if isinstance(value, float) and value.is_integer():
        if abs(value) >= (most := _EXACT.get(type(value), _EXACT_DOUBLE)):
            raise NotAnId(
                f"a float of 2^{most.bit_length() - 1} or more, which stands for several whole "
                "numbers"
            )
        text = str(int(value))
    if not text or "." in text:
        raise NotAnId("a number that is not whole")
    return text


def _moment(
    value: datetime.datetime,
) -> str:
    if value.tzinfo is None:
        return value.isoformat()
    return value.astimezone(datetime.UTC).replace(tzinfo=None).isoformat() + "Z"


def _refused(
    what: str,
) -> Callable[[object], str]:
    def refuse(
        _: object,
    ) -> str:
        raise NotAnId(what)

    return refuse


_SPELLINGS: tuple[tuple[type | tuple[type, ...], Callable[[Any], str]], ...] = (
    (str, str),
    (bool, _refused("true or false, which names nobody")),
    (int, str),
    ((float, Decimal), _whole),
    (uuid.UUID, str),
    (datetime.datetime, _moment),
    (datetime.date, datetime.date.isoformat),
    ((list, tuple), _refused("a list")),
    (dict, _refused("an object")),
)
"""How a value of each type is written; the first one that fits, so a type before those it is a
special case of."""


HASHES: dict[str, tuple[int, Callable[[bytes], str]]] = {
    "sha256": (64, lambda raw: hashlib.sha256(raw).hexdigest()),
    "sha1": (40, lambda raw: hashlib.sha1(raw, usedforsecurity=False).hexdigest()),
    "md5": (32, lambda raw: hashlib.md5(raw, usedforsecurity=False).hexdigest()),
}
"""Hashes by which people are asked for, with how many hexadecimal digits they have."""
_FORM_BYTES = 16


_MISSING = frozenset(
    {
        "nan",
        "nat",
        "none",
        "null",
        "nil",
        "n/a",
        "na",
        "#n/a",
        "<na>",
        "undefined",
        "unknown",
        "-",
        "?",
    }
)
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""What is drawn as nothing: Default_Ignorable_Code_Point (Unicode 14.0 and 15.0,
DerivedCoreProperties.txt)."""
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})
"""Categories (UAX #44, General_Category) of what nobody sees inside a line: controls, formats, ends
of lines and paragraphs."""
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0*")


IdStep = Literal["trim", "unicode", "case", "integer"]
"""What a rule for ids takes out: blanks at the ends and characters that nobody sees; Unicode form;
letter case; the .0 of a whole number."""
STEPS: tuple[IdStep, ...] = get_args(IdStep)
EXACT = "exact"
"""The rule that every spelling is another person, also beside an erased one."""

_UNDER: dict[str, Callable[[str], str]] = {
    "trim": lambda spelt: seen_of(spelt).strip(),
    "unicode": lambda spelt: spelt if spelt.isascii() else unicodedata.normalize("NFKC", spelt),
    "case": str.casefold,
    "integer": lambda spelt: whole[1] if (whole := _WHOLE.fullmatch(spelt)) else spelt,
}


def seen_of(
    spelt: str,
) -> str:
    """An id without the characters that nobody sees, by their Unicode properties."""
    if spelt.isascii():
        return _CONTROL.sub("", spelt)
    return "".join(c for c in _IGNORABLE.sub("", spelt) if unicodedata.category(c) not in _UNSEEN)


def spelt_under(
    rule: Collection[str],
    spelt: str,
) -> str:
    """The id as the rule writes it. Idempotent: one step may make work for another (NFKC, UAX #15,
    turns a no-break space into a blank), so all are repeated until nothing changes."""
    steps = [step for name, step in _UNDER.items() if name in rule]
    before = None
    while before != spelt:
        before = spelt
        for step in steps:
            spelt = step(spelt)
    return spelt


def folded(
    spelt: str,
) -> str:
    """What is left of an id when everything is taken out in which two spellings of one id
    differ."""
    return spelt_under(STEPS, spelt)


def near_spellings(
    given: str,
) -> list[str]:
    """Spellings that somebody who wrote `given` may have meant, likelier ones first: with less of
    what a rule takes out, in other letter case, and as a float."""
    rules = [c for n in range(1, len(STEPS) + 1) for c in combinations(STEPS, n)]
    plain = [given, *(spelt_under(rule, given) for rule in rules)]
    cased = [
        *plain,
        *(write(p) for p in plain for write in (str.lower, str.upper, str.title, str.capitalize)),
    ]
    return [
        s
        for s in dict.fromkeys([*cased, *(f"{p}.0" for p in plain if p.isdecimal())])
        if s != given
    ]


def looks_missing(
    spelt: str,
) -> bool:
    """Whether an id is what programs write where there is none: people who share it are one person
    to the system."""
    return spelt.strip().casefold() in _MISSING


def looks_like_a_float(
    spelt: str,
) -> bool:
    """Whether an id is a whole number that some program wrote as a float: whoever asks will write
    it without .0."""
    return _WHOLE.fullmatch(spelt.strip()) is not None


def form_of(
    keys: NamingKeys,
    kind: str,
    value: str,
) -> str:
    """The keyed digest of one form of an id, 32 hexadecimal digits: half an HMAC-SHA256."""
    return keyed_digest(keys.identity, kind, value)[:_FORM_BYTES].hex()


def forms_of(
    keys: NamingKeys,
    given: str,
    spelt: str,
    rule: Collection[str] = (),
) -> set[str]:
    """Every form of an id that was `given` and is `spelt` so under the workspace's rule.

    | form | of |
    |---|---|
    | given | the id as it stands in the source |
    | folded | the id without all in which two spellings of one differ (`folded`) |
    | sha256, sha1, md5 | the hexadecimal hash of the id as given, and under the rule, in UTF-8 |
    | sha256 near, ... | of the id without blanks at its ends, and that in lower case, as ad platforms hash it |
    """  # noqa: E501
    trimmed = spelt_under(("trim",), given)
    own = {given, spelt}
    near = set() if EXACT in rule else {trimmed, trimmed.lower()}
    hashed = {
        form
        for values, which in ((own, 0), (near - own, 1))
        for each in values
        for name, (_, hash_of) in HASHES.items()
        for form in [hashed_forms(keys, name, hash_of(each.encode()))[which]]
    }
    return hashed | {form_of(keys, "given", given), form_of(keys, "folded", folded(spelt))}


def hashed_forms(
    keys: NamingKeys,
    algorithm: str,
    digits: str,
) -> tuple[str, str]:
    """The forms by which a hash is looked up: of the id itself, and of what others make of it
    before they hash."""
    return form_of(keys, algorithm, digits), form_of(keys, f"{algorithm} near", digits)


def parse_hashed(
    text: str,
) -> tuple[str, str]:
    """`sha256:HEX` as (name, digits in lower case). Raises UsageError, without the digits."""
    name, _, digits = text.strip().casefold().partition(":")
    size = HASHES[name][0] if name in HASHES else 0
    if not size or len(digits) != size or not all(c in "0123456789abcdef" for c in digits):
        raise UsageError(
            "expected a hashed id as "
            + ", ".join(f"{n}: and {s} hexadecimal digits" for n, (s, _) in HASHES.items())
            + ", got something else"
        )
    return name, digits
