"""What a row asks for, as a text: the canonical spelling under which it stands in a slice file.

| task | `Row.label` holds | for example |
|---|---|---|
| classification | one of the declared labels | `up` |
| multilabel | a JSON list of declared labels, each once, in the order of their declaration | `["up","new"]` |
| regression | a number as `repr` spells a float, whole ones without a point (IEEE 754 binary64) | `3.5` |
| generation | nothing: the row's texts are what is learnt | |

One meaning has one spelling, so that equal rows have equal digests. What a number or a list means is
decided by itself and by what is declared, never by other rows (hazard 7).
"""  # noqa: E501

import json
import math
import re
from collections.abc import Collection, Sequence

from s3t_core.errors import DataError

_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")


def label_set_text(labels: Collection[str], declared: Sequence[str]) -> str:
    """The spelling of a set of labels. Raises DataError for one that is not declared; it names
    none."""
    strange = len(set(labels) - set(declared))
    if strange:
        raise DataError(f"expected declared labels, got {strange} other(s)")
    ordered = [label for label in declared if label in labels]
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def label_set_of(text: str) -> tuple[str, ...]:
    """The labels that a spelling stands for. Raises DataError for what is none."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise DataError("expected a JSON list of labels, got another text")
    return tuple(found)


def number_text(value: float) -> str:
    """The spelling of a finite number. Raises DataError for another."""
    if not math.isfinite(value):
        raise DataError("expected a finite number, got one that is not")
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def number_of(text: str) -> float:
    """The number that a spelling stands for: digits, a point, an exponent. Raises DataError for
    what is none, or too large to be one."""
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise DataError("expected a finite number, got another text")
    return value
