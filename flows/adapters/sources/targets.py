"""The column that says what a row asks for: how its cells are read for each task, and why one is
refused. What a cell means is decided by itself and by what is declared (hazard 7)."""

import ast
import json
from collections import Counter
from collections.abc import Sequence
from typing import Protocol, assert_never

from flows.adapters.sources.cells import cell_text
from flows.adapters.sources.labels import NOT_DECLARED, Meanings
from s3t_core.config.task import TaskConfig
from s3t_core.errors import DataError
from s3t_core.identity import NotAnId
from s3t_core.targets import label_set_text, number_of, number_text

NO_LIST = "the labels are no list"
ONE_NOT_DECLARED = "a label is not one of the declared ones"
NO_NUMBER = "the label is not a finite number"
OUTSIDE = "the number is outside the declared range"
PROBLEMS = (NOT_DECLARED, NO_LIST, ONE_NOT_DECLARED, NO_NUMBER, OUTSIDE)
"""Why rows are refused for what they ask for."""
_LONGEST = 20_000
"""Characters of a list; a longer one is none."""


class Reading(Protocol):
    """How the cells of the column are read."""

    read_as: Counter[tuple[str, str]]
    """What was written otherwise than declared, and as what it was read, counted."""

    def of(self, values: Sequence[str | None]) -> list[str | None]:
        """Each value in its one spelling (s3t_core.targets); those that mean nothing stay as they
        are."""

    def problem(self, value: str) -> str:
        """Why a row with this value is refused, "" where it is not."""

    def means_one(self, value: str) -> bool:
        """Whether a value is what a row asks for: a line of others with one in its place may be a
        row."""

    def labels_in(self, value: str) -> list[str]:
        """The labels that stand in a value, declared or not; none where it is no label."""


def reading_of(
    task: TaskConfig,
    labels: Sequence[str],
    names: Sequence[str] = (),
) -> Reading:
    """The reading that a task wants. `names`: of the numbers 0, 1, ... where the source declares
    them."""
    if task.kind == "multilabel":
        return LabelSets(labels, task.separator, names)
    if task.kind == "regression":
        return Numbers(*task.range)
    if task.kind == "generation":
        return Nothing()
    if task.kind == "classification":
        return Meanings(labels, names)
    assert_never(task.kind)


class LabelSets:
    """Lists of labels: as JSON, as Python writes a list, with a separator where one is declared, or
    one label alone. Fills `Reading`."""

    def __init__(
        self,
        labels: Sequence[str],
        separator: str = "",
        names: Sequence[str] = (),
    ) -> None:
        """`separator`: what stands between labels, "" for none."""
        self._declared, self._separator = tuple(labels), separator
        self._meanings = Meanings(labels, names)
        self.read_as = self._meanings.read_as

    def of(self, values: Sequence[str | None]) -> list[str | None]:
        """See Reading."""
        return [None if value is None else self._spelt(value) for value in values]

    def problem(self, value: str) -> str:
        """See Reading."""
        found = self._parts(value)
        if found is None:
            return NO_LIST
        return ONE_NOT_DECLARED if set(found) - set(self._declared) else ""

    def means_one(self, value: str) -> bool:
        """See Reading."""
        return bool(value) and not self.problem(self._spelt(value))

    def labels_in(self, value: str) -> list[str]:
        """See Reading."""
        return self._parts(value) or []

    def _spelt(self, value: str) -> str:
        found = self._parts(value)
        meant = [label for label in self._meanings.of(found or []) if label is not None]
        if found is None or len(meant) != len(found):
            return value
        try:
            return label_set_text(meant, self._declared)
        except DataError:
            return value

    def _parts(self, value: str) -> list[str] | None:
        """The labels of a value as they are written; None where it is no list of any."""
        if len(value) > _LONGEST:
            return None
        if value.lstrip().startswith("["):
            return _listed(value)
        if self._separator and self._separator in value:
            parts = [part.strip() for part in value.split(self._separator)]
            return [part for part in parts if part] or None
        return [value.strip() if self._separator else value]


def _listed(value: str) -> list[str] | None:
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value)
            return list(map(_label, found)) if isinstance(found, list) else None
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, NotAnId):
            continue
    return None


def _label(value: object) -> str:
    written = value if isinstance(value, str) else cell_text(value)
    if not written:
        raise NotAnId("a list with an empty label")
    return written


def list_text(value: object) -> str | None:
    """A cell of labels that is no text: a list as JSON. Raises NotAnId."""
    if not isinstance(value, list | tuple):
        return cell_text(value)
    return json.dumps(list(map(_label, value)), ensure_ascii=False)


class Numbers:
    """Numbers from `low` to `high`. Fills `Reading`."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high
        self.read_as: Counter[tuple[str, str]] = Counter()

    def of(self, values: Sequence[str | None]) -> list[str | None]:
        """See Reading."""
        return [None if value is None else self._spelt(value) for value in values]

    def problem(self, value: str) -> str:
        """See Reading."""
        try:
            number = number_of(value)
        except DataError:
            return NO_NUMBER
        return "" if self._low <= number <= self._high else OUTSIDE

    def means_one(self, value: str) -> bool:
        """See Reading."""
        return not self.problem(value.strip())

    def labels_in(self, value: str) -> list[str]:  # noqa: ARG002
        """See Reading."""
        return []

    def _spelt(self, value: str) -> str:
        return value if self.problem(value) else number_text(number_of(value))


class Nothing:
    """No label: a row asks for what it says. Fills `Reading`."""

    def __init__(self) -> None:
        self.read_as: Counter[tuple[str, str]] = Counter()

    def of(self, values: Sequence[str | None]) -> list[str | None]:
        """See Reading."""
        return list(values)

    def problem(self, value: str) -> str:  # noqa: ARG002
        """See Reading."""
        return ""

    def means_one(self, value: str) -> bool:  # noqa: ARG002
        """See Reading: nothing tells such a row by what it asks for."""
        return False

    def labels_in(self, value: str) -> list[str]:  # noqa: ARG002
        """See Reading."""
        return []
