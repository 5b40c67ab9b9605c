"""Files of ids, as people have them: one id a line, or a table exported as CSV, with whatever such exports bring."""

import csv
import io
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from s3t_core.errors import UsageError
from s3t_core.files import read_regular

_DELIMITERS = (",", ";", "\t", "|")
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
"""UTF-16 with its mark, as spreadsheets export it; everything else is read as UTF-8, with or without a mark."""


@dataclass(frozen=True)
class IdFile:
    """The ids of a file in its order, each once. `column` they stood in, "" for one a line; how many were there
    again, and how many lines had none."""

    ids: list[str]
    column: str
    repeated: int
    blank: int

    def told(self) -> str:
        """Returns what was read, in a sentence without an id."""
        column = f" from column {self.column!r}" if self.column else ""
        rest = [f"{n} {what}" for n, what in ((self.repeated, "given again"), (self.blank, "blank")) if n]
        return f"{len(self.ids)} id(s) read{column}" + (f" ({', '.join(rest)})" if rest else "")


def read_ids(file: str, column: str = "", subject: str = "") -> IdFile:
    """Read a file of ids; "-" is the standard input. Raises UsageError.

    It is a table where `column` is named, or where its first line has the column `subject`, by which the data names its
    people: then ids are that column's cells. Otherwise there is one id a line, as it is, blanks at its ends too: they
    may belong to it. Only a line feed (after an optional carriage return) ends a line: whatever else Unicode knows as a
    line's end may be part of an id. A line in double quotes is one cell of a CSV file (RFC 4180, section 2)."""
    text = _text(file)
    first = next((line for line in text.split("\n") if line.strip()), "")
    table = _header_with(first.removesuffix("\r"), column or subject)
    if column and table is None:
        raise UsageError(f"expected a column {column!r} in the first line of the file of ids, got a line without it; "
                         "see how the file spells it")
    lines = text.removesuffix("\n").split("\n") if text else []
    found = list(_column_of(text, *table) if table else map(_line, lines))
    ids = [each for each in found if each.strip()]
    distinct = list(dict.fromkeys(ids))
    return IdFile(distinct, table[1] if table else "", len(ids) - len(distinct), len(found) - len(ids))


def _text(file: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else _bytes_of(Path(file))
        encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8-sig")
        return raw.decode(encoding)
    except (OSError, UnicodeDecodeError) as error:
        got = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise UsageError(f"expected a readable UTF-8 file of ids with --file, got {got}; a pipe or a device is read as "
                         "the standard input only: `--file - < FILE`") from None


def _bytes_of(path: Path) -> bytes:
    """The bytes of a file, or of what this process was given open under a name of its own: /dev/stdin, and what a
    shell makes of `<(...)`. Another pipe or device would be waited for, maybe for ever. Raises OSError."""
    given = re.fullmatch(r"/dev/(?:stdin|fd/(\d+))|/proc/self/fd/(\d+)", str(path))
    if given is None:
        return read_regular(path)
    with os.fdopen(os.dup(int(given[1] or given[2] or 0)), "rb") as file:
        return file.read()


def _header_with(line: str, column: str) -> tuple[str, str] | None:
    """The delimiter and the name of a column as the first line of a table spells it, None when it has no such column.
    Letter case and blanks around it do not matter."""
    wanted = column.strip().casefold()
    for delimiter in _DELIMITERS if wanted else ():
        for cell in next(csv.reader([line], delimiter=delimiter), []):
            if cell.strip().casefold() == wanted:
                return delimiter, cell
    return None


def _column_of(text: str, delimiter: str, column: str) -> Iterator[str]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        place = next(row for row in rows if any(cell.strip() for cell in row)).index(column)
        for row in rows:
            if len(row) > 1 and len(row) <= place:
                raise UsageError(f"expected a cell in column {column!r} on line {rows.line_num} of the file of ids, "
                                 f"got {len(row)} cell(s); nothing was accepted")
            yield row[place] if place < len(row) else ""
    except csv.Error as error:
        raise UsageError(f"expected a CSV file of ids, got a line {rows.line_num} that is none ({error}); nothing was "
                         "accepted") from None


def _line(line: str) -> str:
    line = line.removesuffix("\r")
    quoted = len(line) > 1 and line.startswith('"') and line.endswith('"')
    return line[1:-1].replace('""', '"') if quoted else line
