"""Labels: what a value that is not spelt as a declared label means, where it can mean one of them
only."""

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from flows.adapters.sources.cells import MALFORMED
from s3t_core.config import DataConfig

if TYPE_CHECKING:
    import pandas as pd

NOT_DECLARED = "the label is not one of the declared ones"
"""Why a row is refused."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{0,30})?")
_TRUTH = {"true": Decimal(1), "false": Decimal(0)}


def _number(value: str) -> Decimal | None:
    """The number that a value is, true being 1 and false 0; None for anything else. Blanks are not
    taken away."""
    if _NUMBER.fullmatch(value):
        return Decimal(value)
    return _TRUTH.get(value.lower())


class Meanings:
    """The declared label that a value means: itself; the name that a data set gives to its number
    (ClassLabel); or the one declared label that is the same number or the same truth value ("1.0",
    1, true). Where two declared labels would fit it means neither, and stays as it is."""

    def __init__(self, labels: Sequence[str], names: Sequence[str] = ()) -> None:
        """`names` of the numbers 0, 1, ... where the source declares them: used if one of them is a
        declared label."""
        self.read_as: Counter[tuple[str, str]] = Counter()
        self._declared = frozenset(labels)
        self._names = (
            {str(i): name for i, name in enumerate(names)} if self._declared & set(names) else {}
        )
        self._numbers: dict[Decimal, list[str]] = {}
        for label in labels:
            if (number := _number(label)) is not None:
                self._numbers.setdefault(number, []).append(label)

    def of(self, values: Sequence[str | None]) -> list[str | None]:
        """The labels that the values mean, each None or text; those that mean none stay as they
        are."""
        meant = {value: self._one(value) for value in set(values) if value is not None}
        changed = {value: label for value, label in meant.items() if label != value}
        if changed:
            for value in values:
                if value in changed:
                    self.read_as[value, changed[value] or "none"] += 1
        return (
            [meant.get(value) if value is not None else None for value in values]
            if changed
            else list(values)
        )

    def problem(self, value: str) -> str:
        """See Reading."""
        return "" if value in self._declared else NOT_DECLARED

    def labels_in(self, value: str) -> list[str]:
        """See Reading."""
        return [value]

    def means_one(self, value: str) -> bool:
        """See Reading: a declared label."""
        return self._one(value) in self._declared

    def _one(self, value: str) -> str | None:
        if self._names:
            return (
                None if value == "-1" else self._names.get(value, value)
            )  # -1: no label (Hugging Face datasets)
        if value in self._declared:
            return value
        number = _number(value)
        fitting = self._numbers.get(number, []) if number is not None else []
        return fitting[0] if len(fitting) == 1 else value


class Undeclared:
    """Values in the column of labels that are no declared label, counted, and which of them may be
    shown: those that two people's rows have, or that are nearly a declared label. Whatever else
    stands in a row, a text or an id in the wrong column, is not shown."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._declared = labels
        self._counts: Counter[str] = Counter()
        self._only: dict[str, str | None] = {}
        self.beside_declared = False
        """Whether some row has a declared label: without one, the column may be another than that
        of the labels."""

    def add(
        self,
        labels: Sequence[str | None],
        subjects: Sequence[str | None],
        texts: Sequence[str | None],
    ) -> None:
        """The cells of some refused rows."""
        for label, subject, text in zip(labels, subjects, texts, strict=True):
            if not label or (label not in self._counts and len(self._counts) >= _MOST):
                continue
            self._counts[label] += 1
            private = label in (subject, text) or not subject
            if private or self._only.setdefault(label, subject) == subject:
                continue
            self._only[label] = None

    def add_refused(
        self,
        refused: "pd.DataFrame",
        data: DataConfig,
        labels_in: Callable[[str], list[str]],
    ) -> None:
        """Refused rows of a chunk: of those that could be read, the labels that are not declared.
        `labels_in`: those of a cell."""
        read = refused[(refused[MALFORMED] == "") & refused[data.label].notna()]
        cells = (read[c].tolist() for c in (data.label, data.subject, data.text))
        strange = [
            (label, subject, text)
            for cell, subject, text in zip(*cells, strict=True)
            for label in labels_in(cell)
            if label not in self._declared
        ]
        if strange:
            self.add(*(list(column) for column in zip(*strange, strict=True)))

    def shown(self) -> dict[str, int]:
        """The values that may be shown with their counts, most frequent first."""
        if len(self._counts) >= _MOST:
            return {}  # a column of something else
        return dict(
            [(v, n) for v, n in self._counts.most_common() if self._may_be_shown(v)][:_SHOWN]
        )

    def _may_be_shown(self, value: str) -> bool:
        if not looks_like_a_label(value):
            return False
        folded = value.strip().casefold()
        if difflib.get_close_matches(
            folded,
            [v.casefold() for v in self._declared],
            cutoff=0.75,
        ):
            return True
        likely = (
            self.beside_declared
            or len(self._counts) <= len(self._declared) + 1
            or _SHORT.fullmatch(value)
        )
        return bool(likely) and self._only.get(value, "") is None

    def in_words(self) -> str:
        """What was found, in words: the values that may be shown, or how many there are."""
        shown = self.shown()
        hidden = len(self._counts) - len(shown)
        values = [f"{v!r} ({n})" for v, n in shown.items()]
        if hidden:
            values.append(
                f"{hidden}{' or more' if len(self._counts) >= _MOST else ''} other value(s)"
            )
        return ", ".join(values)

    def __bool__(self) -> bool:
        return bool(self._counts)


_MOST, _SHOWN = 50, 10
_SHORT = re.compile(r"-?[0-9]{1,2}(\.[0-9]{1,2})?")
"""Grades, stars, numbers of classes."""


def looks_like_a_label(value: str) -> bool:
    """Whether a value has the form of a label: short, on one line, and nobody's address."""
    return (
        len(value) <= 60 and "@" not in value and len(value.split()) <= 12 and value.isprintable()
    )
