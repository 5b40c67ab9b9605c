"""Files of ids, as people have them: one id a line, or a table exported as CSV, with whatever such
exports bring."""

import csv
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.adapters.sources.units import check_in_step
from s3t_core.errors import UsageError
from s3t_core.files import read_regular

_DELIMITERS = (",", ";", "\t", "|")
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
"""UTF-16 and UTF-32 with their mark, as spreadsheets export them; everything else is read as UTF-8,
with or without."""
_LONGEST = 131_072
"""Characters of a cell or a line: the limit that `csv` has until somebody in this process raises
it."""
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True)
class IdFile:
    """The ids of a file in its order, each once, with the line where each stands first, from 1.
    `column` they stood in, "" for one a line; how many were there again, and how many lines had
    none."""

    lines: dict[str, int]
    column: str
    repeated: int
    blank: int

    @property
    def ids(self) -> list[str]:
        """The ids alone."""
        return list(self.lines)

    def in_words(self) -> str:
        """Returns what was read, in a sentence without an id."""
        column = f" from column {self.column!r}" if self.column else ""
        rest = [
            f"{n} {what}"
            for n, what in ((self.repeated, "given again"), (self.blank, "blank"))
            if n
        ]
        return f"{len(self.lines)} id(s) read{column}" + (f" ({', '.join(rest)})" if rest else "")


def read_ids(file: str, column: str = "", subject: str = "") -> IdFile:
    """Read a file of ids; "-" is the standard input. Raises UsageError.

    It is a table where `column` is named, or where its first line has the column `subject`, by
    which the data names its people: then ids are that column's cells. Lines that look like a table
    all the same are refused. Otherwise there is one id a line, as it is, blanks at its ends too:
    they may belong to it. Only a line feed (after an optional carriage return) ends a line:
    whatever else Unicode knows as a line's end may be part of an id, a carriage return only in
    double quotes. A line in double quotes is one cell of a CSV file (RFC 4180, section 2)."""
    text = re.sub(r"\Asep=[,;\t|](?=\r?\n)", "", _text(file))
    table = _table_with(text, column or subject)
    if column and table is None:
        raise UsageError(
            f"expected a column {column!r} in the first line of the file of ids, got a line "
            "without it; see how the file spells it"
        )
    found = list(_column_of(text, table) if table else _lines_of(text))
    if table is None:
        _refuse_table(text, subject)
    ids = [(line, each) for line, each in found if each.strip()]
    lines = {each: line for line, each in reversed(ids)}
    distinct = {each: lines[each] for _, each in ids}
    return IdFile(
        distinct, table.column if table else "", len(ids) - len(distinct), len(found) - len(ids)
    )


def _is_wide(raw: bytes, text: str) -> bool:
    """Whether the bytes look like UTF-16 or UTF-32 without a mark, and not like ids that have a
    character of value zero themselves: every other character is one, or more are."""
    zeros = [i for i, character in enumerate(text) if character == "\0"]
    if 4 * len(zeros) <= len(text) or len(raw) % 2 or not text.strip("\0\r\n\t "):
        return False
    return len({i % 2 for i in zeros}) == 1 or (len(raw) % 4 == 0 and 2 * len(zeros) > len(text))


def _text(file: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else _bytes_of(Path(file))
        encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8-sig")
        check_in_step(raw, encoding)
        text = raw.decode(encoding)
        if _is_wide(raw, text):
            raise UsageError(
                "expected a UTF-8 file of ids with --file, or UTF-16 with its mark, got characters "
                "of value zero, as UTF-16 or UTF-32 without a mark has them; save the file as UTF-8"
            )
        return text
    except (OSError, UnicodeDecodeError) as error:
        got = (
            error.strerror
            if isinstance(error, OSError) and error.strerror
            else type(error).__name__
        )
        raise UsageError(
            f"expected a readable UTF-8 file of ids with --file, got {got}; a pipe or a device is "
            "read as the standard input only: `--file - < FILE`"
        ) from None


def _bytes_of(path: Path) -> bytes:
    """The bytes of a file, or of what this process was given open under a name of its own:
    /dev/stdin, and what a shell makes of `<(...)`. Another pipe or device would be waited for,
    maybe for ever. Raises OSError."""
    given = re.fullmatch(r"/dev/(?:stdin|fd/(\d+))|/proc/self/fd/(\d+)", str(path))
    if given is None:
        return read_regular(path)
    with os.fdopen(os.dup(int(given[1] or given[2] or 0)), "rb") as file:
        return file.read()


@dataclass(frozen=True)
class _Table:
    """A table by its header: the delimiter, the column of ids as the header spells it, its place,
    and how many cells every row has."""

    delimiter: str
    column: str
    place: int
    width: int


def _rows(text: str, delimiter: str) -> Any:
    """A reader for which only a line feed ends a line: it refuses a carriage return inside a cell
    without quotes."""
    return csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter, strict=True)


def _header(rows: Iterable[list[str]]) -> list[str]:
    return _bounded(next((row for row in rows if any(cell.strip() for cell in row)), []))


def _bounded(row: list[str]) -> list[str]:
    if any(len(cell) > _LONGEST for cell in row):
        raise csv.Error(f"a cell is longer than {_LONGEST:,} characters")
    return row


def _table_with(text: str, column: str) -> _Table | None:
    """The table that has a column of this name, None when the first line is no header with it. The
    very name goes before one that differs in blanks around it, and that before one in another
    letter case. Raises UsageError where two columns are as good as each other: which of them is
    meant, nobody can tell."""
    headers = {}
    for delimiter in _DELIMITERS if column.strip() else ():
        with suppress(
            csv.Error
        ):  # then it is no table; as lines it is read, or refused with a sentence
            headers[delimiter] = _header(_rows(text, delimiter))
    for spelt in (str, str.strip, lambda name: name.strip().casefold()):
        found = [
            _Table(d, cell, place, len(header))
            for d, header in headers.items()
            for place, cell in enumerate(header)
            if spelt(cell) == spelt(column)
        ]
        if len({(t.place, t.width) for t in found}) > 1:
            raise UsageError(
                f"expected one column {column!r} in the first line of the file of ids, got more "
                "than one, or one by each of two delimiters; leave one there; nothing was accepted"
            )
        if found:
            return found[0]
    return None


def _column_of(text: str, table: _Table) -> Iterator[tuple[int, str]]:
    """The cells of the column, each with the line on which its row begins. Raises UsageError for a
    row that has more or fewer cells than the header: a delimiter in a cell without quotes has
    shifted it, so that another person may stand in the column, or a part of an id."""
    rows = _rows(text, table.delimiter)
    try:
        _header(rows)
        begins = rows.line_num + 1
        for row in map(_bounded, rows):
            first, begins = begins, rows.line_num + 1
            if not any(cell.strip() for cell in row):
                yield first, ""
            elif len(row) != table.width:
                raise UsageError(
                    f"expected {table.width} cell(s), as the header has, on line {rows.line_num} "
                    f"of the file of ids, got {len(row)}; write a cell with {table.delimiter!r} in "
                    "it in double quotes; nothing was accepted"
                )
            else:
                yield first, row[table.place]
    except csv.Error as error:
        raise UsageError(
            f"expected a CSV file of ids, got a line {rows.line_num} that is none ({error}); "
            "nothing was accepted"
        ) from None


def _refuse_table(text: str, subject: str) -> None:
    """Raises UsageError where lines look like the rows of a table: several, with equally many cells
    by one delimiter, and not every one in quotes as a whole. Each row would be taken for the id of
    somebody whom nobody knows."""
    lines = [line for line in (each.strip() for each in text.split("\n")) if line]
    if len(lines) < 2 or all(map(_QUOTED.fullmatch, lines)):
        return
    for delimiter in _DELIMITERS:
        cells = {line.count(delimiter) + 1 for line in lines}
        if len(cells) == 1 and cells != {1}:
            raise UsageError(
                f"expected one id a line, or a table with the column {subject!r}, by which the "
                f"data names its people, got {len(lines)} lines of {cells.pop()} cells each by "
                f"{delimiter!r}; name the column of ids with --column NAME, or, where that belongs "
                "to the ids, write each in double quotes; nothing was accepted"
            )


def _lines_of(text: str) -> Iterator[tuple[int, str]]:
    """One id a line, each with its number. Raises UsageError for a line that only a file with other
    line ends has."""
    for number, whole in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        line = whole.removesuffix("\r")
        quoted = _QUOTED.fullmatch(line)
        if len(line) > _LONGEST or ("\r" in line and not quoted):
            raise UsageError(
                f"expected one id a line, got a line {number} with a carriage return in it or "
                f"longer than {_LONGEST:,} characters; see that a line feed ends every line; "
                "nothing was accepted"
            )
        yield number, quoted[1].replace('""', '"') if quoted else line
