"""A source: the tables of its files as one, checked as a whole before a row is read."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import pandas as pd

from flows import examples
from flows.adapters.sources.cells import (
    CHAT,
    MALFORMED,
    ROW,
    Block,
    Columns,
    columns_of,
    one_label_text,
    row_by_row,
)
from flows.adapters.sources.columnar import ColumnarTable
from flows.adapters.sources.conversations import (
    columns_of_conversations,
    with_conversations,
    with_pairs,
)
from flows.adapters.sources.delimited import DelimitedTable
from flows.adapters.sources.lines import JsonTable
from flows.adapters.sources.parts import Part, notes_of, parts_of
from flows.adapters.sources.tables import Table
from flows.adapters.sources.targets import list_text, reading_of
from s3t_core.config import DataConfig
from s3t_core.config.task import TaskConfig
from s3t_core.errors import DataError, UsageError

CHUNK_ROWS = 20_000
_SHOWN = 40
_CHAT = re.compile(r"""\[\s*\{\s*["'](role|from|content)["']\s*:""")


class Source:
    """Files, opened as far as their headers, or an example set."""

    def __init__(
        self,
        sources: Sequence[str],
        config: DataConfig,
        tier_column: str = "",
        task: TaskConfig | None = None,
        to_learn: bool = True,
    ) -> None:
        """`task`: how the labels are read, as those of a classification without one; `to_learn`:
        whether conversations say what a model learns, or end where it is asked. Raises DataError
        for what cannot be opened as a table."""
        self._to_learn = to_learn
        self._task = task or TaskConfig()
        self._writes = self._task.kind == "generation"
        self.columns: Columns = _columns(
            config,
            tier_column,
            self._task,
            to_learn,
        )
        self._config = config
        roles = {
            config.subject: "subject",
            config.label: "label",
            config.text: "text",
        }
        roles |= {getattr(config, name): name for name in config.of_conversations}
        roles |= dict.fromkeys(config.prompt_columns, "prompt") | {config.text_pair: "text_pair"}
        others = {
            config.split_by: "held_out_by",
            config.record: "record",
            tier_column: "[tiers] column",
        }
        self._roles = others | roles
        self.notes: list[str] = []
        self.tables: list[Table] = []
        if any(s.startswith("example:") for s in sources):
            if len(sources) > 1:
                raise UsageError(
                    "expected one example set, or files, got both; ingest them one after the other "
                    "with --append"
                )
            self.tables.append(ExampleTable(sources[0].removeprefix("example:")))
            return
        parts = parts_of(sources)
        self.notes += notes_of(parts)
        for number, part in enumerate(parts, 1):
            try:
                self.tables.append(self._opened(part))
            except DataError as error:
                raise DataError(f"{error}{_where([number], len(parts))}") from None

    def _opened(self, part: Part) -> Table:
        config = self._config
        if part.kind == "delimited":
            return DelimitedTable(
                part,
                list(self.columns),
                config.delimiter,
                config.encoding,
                config.label,
                config.labels,
                reading_of(self._task, config.labels),
                config.subject,
            )
        return JsonTable(part, config.encoding) if part.kind == "json" else ColumnarTable(part)

    @property
    def read_as(self) -> str:
        """What the files are, in words."""
        kinds = dict.fromkeys(t.read_as for t in self.tables)
        files = f"{len(self.tables)} files: " if len(self.tables) > 1 else ""
        return files + "; ".join(kinds)

    def form(self) -> dict[str, str]:
        """The delimiter and the encoding of text files, as far as all of them agree."""
        found = {}
        for what in ("delimiter", "encoding"):
            values = {value for t in self.tables if (value := getattr(t, what, ""))}
            if len(values) == 1:
                found[what] = str(values.pop())
        return found

    def names(self) -> list[str]:
        """The names of the columns that were found, as far as they may be shown."""
        return list(dict.fromkeys(name for table in self.tables for name in table.names()))[:_SHOWN]

    def problems(self) -> list[str]:
        """Everything that keeps the source from being read as the config describes it, a sentence
        each. None of them shows what a row holds."""
        found: dict[str, list[int]] = {}
        for number, table in enumerate(self.tables, 1):
            if missing := table.lacking(list(self.columns)):
                found.setdefault(self._missing(table, missing), []).append(number)
            if twice := table.repeated(list(self.columns)):
                what = " and ".join(map(repr, twice))
                found.setdefault(
                    f"expected each column once, got {what} more than once: which one is meant? "
                    "Name them apart in the source",
                    [],
                ).append(number)
        return [problem + _where(numbers, len(self.tables)) for problem, numbers in found.items()]

    def _missing(self, table: Table, missing: list[str]) -> str:
        names = table.names()
        alike = [
            f"{near!r} is nearly {column!r} (blanks, letter case or hyphens)"
            for column in missing
            for near in names
            if is_alike(near, column)
        ]
        named = (
            f"columns found: {', '.join(map(repr, names[:_SHOWN]))}"
            if names
            else "it names no columns"
        )
        hint = table.hint()
        rest = "; ".join(r for r in (named, *alike, hint) if r)
        wanted = " and ".join(f"column {c!r} ({self._roles[c]})" for c in missing)
        remedy = "" if hint else ". Name the columns in s3t.toml as the source does"
        return f"expected {wanted} in the source, got {table.read_as}; {rest}{remedy}"

    def check(self) -> None:
        """Raises DataError that tells all problems together."""
        if problems := self.problems():
            raise DataError("; ".join(problems))

    def chunks(self, chunk_rows: int = CHUNK_ROWS) -> Iterator[pd.DataFrame]:
        """Every row, in chunks of at most `chunk_rows`. Raises DataError."""
        self.check()
        return self._chunks(chunk_rows)

    def _chunks(self, chunk_rows: int) -> Iterator[pd.DataFrame]:
        number = 1
        for table, block in self._blocks(chunk_rows):
            rows = len(block.malformed)
            del table
            yield pd.DataFrame(
                {
                    **{c: pd.Series(cells, dtype=object) for c, cells in block.cells.items()},
                    ROW: range(number, number + rows),
                    MALFORMED: pd.Series(block.malformed, dtype=object),
                }
            )
            number += rows

    def _blocks(self, chunk_rows: int) -> Iterator[tuple[Table, Block]]:
        config, counts = self._config, dict[tuple[str, str], int]()
        for number, table in enumerate(self.tables, 1):
            reading = reading_of(
                self._task,
                config.labels,
                table.classes(config.label),
            )
            try:
                for block in table.blocks(self.columns, chunk_rows):
                    if self._writes:
                        yield table, with_conversations(block, config, self._to_learn)
                        continue
                    _refuse_chats(block, config.text)
                    block.cells[config.label] = reading.of(block.cells[config.label])
                    yield table, with_pairs(block, config) if config.text_pair else block
            except DataError as error:
                raise DataError(f"{error}{_where([number], len(self.tables))}") from None
            for pair, count in reading.read_as.items():
                counts[pair] = counts.get(pair, 0) + count
            self.notes += [n + _where([number], len(self.tables)) for n in table.notes]
        if counts:
            self.notes.append(
                "labels read as the declared ones they mean: "
                + ", ".join(
                    f"{value!r} as {label!r} ({n})"
                    for (value, label), n in sorted(counts.items())[:_SHOWN]
                )
            )

    def sample(self, rows: int) -> list[dict[str, object]]:
        """Some first rows that can be read, by column, of the first file."""
        return self.tables[0].sample(rows)


class ExampleTable:
    """An example set that installs as a package."""

    def __init__(self, name: str) -> None:
        """Raises UsageError for an unknown name."""
        self.notes: list[str] = []
        self.read_as = f"the example set {name}"
        self._name = name
        first = next(examples.rows(name))
        self._names = list(first)

    def lacking(self, columns: Sequence[str]) -> list[str]:
        """See Table. Raises UsageError: the columns are those of the example workspace."""
        missing = [c for c in columns if c not in self._names]
        if missing:
            raise UsageError(
                f"expected columns of the example set ({', '.join(self._names)}) in s3t.toml, got "
                f"{missing[0]!r}; use a workspace made by `s3t init --example`"
            )
        return []

    def repeated(self, columns: Sequence[str]) -> list[str]:  # noqa: ARG002
        """See Table."""
        return []

    def names(self) -> list[str]:
        """See Table."""
        return self._names

    def hint(self) -> str:
        """See Table."""
        return ""

    def classes(self, column: str) -> Sequence[str]:  # noqa: ARG002
        """See Table."""
        return ()

    def sample(self, rows: int) -> list[dict[str, object]]:
        """See Table."""
        return [
            dict(row)
            for _, row in zip(
                range(rows),
                examples.rows(self._name),
                strict=False,
            )
        ]

    def blocks(self, columns: Columns, chunk_rows: int) -> Iterator[Block]:
        """See Table."""
        rows: Iterable[tuple[dict[str, Any], str]] = (
            (row, "") for row in examples.rows(self._name)
        )
        return row_by_row(rows, columns, chunk_rows)


def _columns(
    config: DataConfig,
    tier_column: str,
    task: TaskConfig,
    to_learn: bool,
) -> Columns:
    """The columns that a task reads."""
    if task.kind == "generation":
        return columns_of_conversations(
            config,
            tier_column,
            to_learn,
        )
    write_label = list_text if task.kind == "multilabel" else one_label_text
    return columns_of(config, tier_column, write_label)


def _refuse_chats(block: Block, column: str) -> None:
    """A list of chat messages that was written as text is none either."""
    for place, text in enumerate(block.cells[column]):
        if text and text[0] == "[" and _CHAT.match(text):
            block.malformed[place] = block.malformed[place] or f"column {column!r} holds {CHAT}"


def read_chunks(
    source: str | Sequence[str],
    config: DataConfig,
    chunk_rows: int = CHUNK_ROWS,
    tier_column: str = "",
) -> Iterator[pd.DataFrame]:
    """Chunks of at most `chunk_rows` rows. Raises DataError for a source that cannot be read or
    lacks a column."""
    return Source(named(source), config, tier_column).chunks(chunk_rows)


def named(source: str | Sequence[str]) -> list[str]:
    """The sources that were given, one or several, as a list."""
    return [source] if isinstance(source, str) else list(chain(source))


def _where(numbers: Sequence[int], parts: int) -> str:
    """Which files it is, by their place: a name may be a person's."""
    if parts == 1:
        return ""
    lines = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
    return f" (file {lines} of {parts}, in order)"


def is_alike(one: str, other: str) -> bool:
    """Whether two names of columns differ, but only in blanks, letter case or what is no letter or
    digit."""

    def folded(name: str) -> str:
        return "".join(c for c in name.casefold() if c.isalnum())

    return one != other and folded(one) == folded(other)
