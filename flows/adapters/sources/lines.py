"""JSON as people have it: an object a line, or an array of objects, however it is indented.

A line that is no JSON, or in which a key stands twice, spoils its row; an array that cannot be read
to its end is refused, because nobody can tell where its next row begins.
"""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import IO

from flows.adapters.sources.cells import (
    CHAT,
    DECODER,
    NOT_TEXT,
    Block,
    Cells,
    Columns,
    is_chat,
    reach,
    row_by_row,
)
from flows.adapters.sources.parts import Part
from flows.adapters.sources.tables import shown
from flows.adapters.sources.text import (
    encoding_of,
    head_of,
    open_text,
    readable,
    refuse_other_kinds,
    undecoded_cells,
)
from s3t_core.errors import DataError
from s3t_core.identity import NotAnId

_BEGIN = 256 * 1024
_MOST = 16 * 2**20
"""Characters of one element of an array. A longer one is no row."""
_SAMPLE = 1000
_BLANK = re.compile(r"[ \t\r\n]*")
_EMPTY = re.compile(r"\[\s*\]\s*")
_NOT_JSON, _NO_OBJECT = "the line is not JSON", "the line is not a JSON object"


class JsonTable:
    """A file of JSON, opened as far as its form."""

    def __init__(self, part: Part, encoding: str) -> None:
        """Raises DataError for a form that is not read, with what it is."""
        self._part = part
        self.notes: list[str] = []
        head = head_of(part.path, part.packing)
        refuse_other_kinds(head)
        self._codec, name = encoding_of(head, encoding)
        with readable(f"text in {name}"), self._open() as file:
            begin = file.read(_BEGIN).lstrip()
        if not begin:
            raise DataError("expected rows in the source, got an empty file")
        if _EMPTY.fullmatch(begin):
            raise DataError("expected rows in the source, got an empty JSON array")
        self.encoding = name
        self._array = begin.startswith("[") and not _is_a_line(begin)
        if not self._array:
            _refuse_forms(begin)
        self.read_as = f"{'a JSON array' if self._array else 'JSON Lines'}, {name}"
        if self._array and part.ending != ".json":
            self.notes.append("the file is a JSON array, not an object a line")
        if not encoding and name != "UTF-8":
            self.notes.append(f"the file is {name}, as the mark at its begin says")
        self._cut = False
        self._first: list[dict[str, object]] | None = None

    def _open(self) -> IO[str]:
        return open_text(
            self._part.path,
            self._part.packing,
            self._codec,
        )

    def lacking(self, columns: Sequence[str]) -> list[str]:
        """See Table. Reads on until every column was seen."""
        missing = [c for c in columns if c not in self._part.constants]
        for row, _ in self._objects() if missing else ():
            missing = [c for c in missing if row is None or not _has(row, c)]
            if not missing:
                break
        return missing

    def repeated(self, columns: Sequence[str]) -> list[str]:  # noqa: ARG002
        """See Table. A key that stands twice in an object spoils its row alone."""
        return []

    def names(self) -> list[str]:
        """See Table."""
        found: dict[str, None] = {}
        for row in self.sample(_SAMPLE):
            found.update(dict.fromkeys(row))
        return shown(list(found)) if len(found) <= _SAMPLE else []

    def hint(self) -> str:
        """See Table."""
        first = list(islice(self._objects(), 20))
        if first and not any(row is not None for row, _ in first):
            return (
                "its rows are arrays or values, not objects with named columns"
                if first[0][1] != _NOT_JSON
                else "its first lines are no JSON: is it CSV? Then name it .csv"
            )
        rows = [row for row, _ in first[:2] if row is not None]
        lists = [
            k
            for row in rows[:1]
            for k, v in row.items()
            if isinstance(v, list) and v and isinstance(v[0], dict)
        ]
        if len(rows) == 1 and lists:
            return _inside(shown(lists))
        chats = shown(sorted({k for row, _ in first if row for k, v in _flat(row) if is_chat(v)}))
        return f"{chats[0]!r} holds {CHAT}" if chats else ""

    def classes(self, column: str) -> Sequence[str]:  # noqa: ARG002
        """See Table."""
        return ()

    def sample(self, rows: int) -> list[dict[str, object]]:
        """See Table. Keys of inner objects stand under their dotted path."""
        if self._first is None:
            self._first = [
                dict(_flat(row)) | self._part.constants
                for row, _ in islice(self._objects(), _SAMPLE)
                if row is not None
            ]
        return self._first[:rows]

    def blocks(self, columns: Columns, chunk_rows: int) -> Iterator[Block]:
        """See Table."""
        spoilt = 0
        for block in row_by_row(
            self._cells(columns),
            columns,
            chunk_rows,
        ):
            spoilt += sum(m.endswith(NOT_TEXT) for m in block.malformed)
            yield block
        if spoilt:
            self.notes.append(undecoded_cells(spoilt))
        if self._cut:
            self.notes.append("the last line is no JSON and has no line end: was the file cut?")

    def _cells(self, columns: Columns) -> Iterator[Cells]:
        constants = self._part.constants
        for row, malformed in self._objects():
            if row is None:
                yield {}, malformed
                continue
            if any(c in columns and _has(row, c) for c in constants):
                yield {}, "the row holds a column that its folder's name holds as well"
                continue
            try:
                yield (
                    {c: constants[c] if c in constants else _value(row, c) for c in columns},
                    malformed,
                )
            except NotAnId as error:
                yield {}, f"the row holds {error}"

    def _objects(self) -> Iterator[tuple[dict[str, object] | None, str]]:
        """Every row, None with the reason where it cannot be read."""
        with (
            readable(f"a readable file of JSON ({self.read_as.partition(',')[0]})"),
            self._open() as file,
        ):
            yield from _elements(file) if self._array else self._lines(file)

    def _lines(self, file: IO[str]) -> Iterator[tuple[dict[str, object] | None, str]]:
        self._cut = False
        for line in file:
            text = line.strip()
            if not text:
                continue
            try:
                value = DECODER.decode(text)
            except (ValueError, RecursionError):
                self._cut = not line.endswith(("\n", "\r"))
                yield None, _NOT_JSON
                continue
            yield (value, "") if isinstance(value, dict) else (None, _NO_OBJECT)


class _Window:
    """The part of a text that is in memory, from the place where the reader stands."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._text, self._at = file, "", 0

    def peek(self) -> str:
        """The next character that is no blank, "" at the end."""
        while True:
            self._at = _BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self) -> None:
        """Go past one character."""
        self._at += 1

    def value(self) -> object:
        """The JSON value that begins here. Raises ValueError when there is none, or one that has no
        end."""
        while True:
            try:
                value, self._at = DECODER.raw_decode(self._text, self._at)
            except ValueError:
                if len(self._text) - self._at > _MOST or not self._more():
                    raise
            else:
                return value

    def _more(self) -> bool:
        rest = self._text[self._at :]
        read = self._file.read(max(_BEGIN, len(rest)))
        self._text, self._at = rest + read, 0
        return bool(read)


def _elements(file: IO[str]) -> Iterator[tuple[dict[str, object] | None, str]]:
    """The objects of one array, of which no more than a few are in memory."""
    window, number = _Window(file), 0
    window.peek()
    window.take()  # the bracket by which it was known
    mark = "," if window.peek() != "]" else "]"
    while mark == ",":
        try:
            window.peek()
            value = window.value()
        except ValueError:
            raise _not_an_array(number, "something that is no JSON, or was cut,") from None
        yield (value, "") if isinstance(value, dict) else (None, "the element is not a JSON object")
        number += 1
        mark = window.peek()
        if mark == ",":
            window.take()
    if mark != "]":
        raise _not_an_array(number, "neither a comma nor its end")
    window.take()
    if window.peek():
        raise _not_an_array(number, "more behind its end")


def _not_an_array(number: int, what: str) -> DataError:
    return DataError(
        f"expected a JSON array of objects to its end, got {what} behind element {number}; nothing "
        "was changed"
    )


def _is_a_line(begin: str) -> bool:
    """Whether an array is only the first of several lines."""
    line, _, rest = begin.partition("\n")
    return bool(rest.strip()) and _is_json(line)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_forms(begin: str) -> None:
    """Raises DataError for JSON that is neither an array nor an object a line, with what it is."""
    line, _, rest = begin.partition("\n")
    line = line.strip()
    if not begin.startswith("{"):
        return
    if _is_json(line):
        if not rest.strip() and _holds_columns(json.loads(line)):
            raise DataError(
                "expected an object a line, got one object that holds columns, not rows; write it "
                'with orient="records", lines=True (pandas)'
            )
        return
    if line.endswith(",") and _is_json(line[:-1]):
        raise DataError(
            "expected an object a line, got lines that end in commas; take the commas away, or put "
            "[ and ] around all of them"
        )
    try:
        value, end = DECODER.raw_decode(begin)
        if end < len(line):
            raise DataError(
                "expected an object a line, got more than one on a line; write each on its own, as "
                "`jq -c .` does"
            )
    except (ValueError, RecursionError):
        if len(begin) < _BEGIN or line != "{":
            return  # a line that is spoilt
        value = {}
    lists = shown([k for k, v in value.items() if isinstance(v, list)])
    raise DataError(
        "expected an object a line, got indented JSON, an object on several lines; "
        + (_inside(lists) if lists else "write an object a line, as `jq -c .` does, or one array")
    )


def _holds_columns(value: dict[str, object]) -> bool:
    """Whether an object is a table by column, as pandas writes it unless it is told otherwise."""
    forms = {
        tuple(v) if isinstance(v, dict) else len(v) if isinstance(v, list) else None
        for v in value.values()
    }
    return len(value) > 1 and len(forms) == 1 and forms != {None}


def _inside(lists: Sequence[str]) -> str:
    where = repr(lists[0]) if lists else "a key of it"
    return f"it is one object that holds the rows in a list under {where}: write that list alone"


def _has(row: dict[str, object], column: str) -> bool:
    try:
        reach(row, column)
    except (KeyError, NotAnId):
        return False
    return True


def _value(row: dict[str, object], column: str) -> object:
    try:
        return reach(row, column)
    except KeyError:
        return None


def _flat(
    row: dict[str, object],
    above: str = "",
    depth: int = 3,
) -> Iterator[tuple[str, object]]:
    for key, value in row.items():
        if isinstance(value, dict) and value and depth > 1:
            if not any(
                c.isdigit() for c in key
            ):  # what is told apart by numbers is data, not a name
                yield from _flat(value, f"{above}{key}.", depth - 1)
        else:
            yield above + key, value
