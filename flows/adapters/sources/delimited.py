"""CSV, TSV and their like, read with Python's `csv` in its strict mode
(docs/decisions/020-reader.md).

1. the delimiter is the configured one, else that of the ending, unless exactly one other makes more
   of the wanted columns out of the header
2. a quote that spoils its own line spoils that row; one that spoils several lines may have
   swallowed other people's rows, so the file is refused with the lines
3. a line above the header is told, and so is the delimiter that another file of its ending has
4. a byte that does not decode spoils its row; so does a row with more or fewer cells than the
   header
"""

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from typing import IO, Any

from flows.adapters.sources.cells import NOT_TEXT, RAGGED, Block, Columns, spelt_out
from flows.adapters.sources.parts import Part
from flows.adapters.sources.tables import ROLE_WORDS, shown, words_of
from flows.adapters.sources.targets import Nothing, Reading
from flows.adapters.sources.text import (
    encoding_of,
    head_of,
    open_text,
    readable,
    refuse_other_kinds,
    undecoded_cells,
    undecoded_header,
)
from s3t_core.canonical import is_encodable
from s3t_core.errors import DataError
from s3t_core.memory import without_collections

DELIMITERS = {
    ",": "commas",
    ";": "semicolons",
    "\t": "tabs",
    "|": "bars",
}
_OF_ENDING = {
    ".csv": ",",
    ".tsv": "\t",
    ".tab": "\t",
    ".psv": "|",
}
_LONGEST_CELL = 16 * 2**20
"""Characters. A longer cell is a quote that nobody closes, or nothing that could be learnt from."""
_MISQUOTED = 'a quote inside a quoted cell that is not written twice ("")'
_BEGIN, _SAMPLE, _ENOUGH = 256 * 1024, 200, 4
_NEARLY = 0.9
"""Of the first rows so many have as many cells as the header, where a delimiter is the file's."""
_KNOWN = frozenset(
    {
        "id",
        "key",
        "name",
        "date",
        "time",
        *(w for words in ROLE_WORDS.values() for w in words),
    }
)
_LINE_END = re.compile(r"\r\n|\r|\n")


class DelimitedTable:
    """A delimited file, opened as far as its header."""

    def __init__(
        self,
        part: Part,
        wanted: Sequence[str],
        delimiter: str,
        encoding: str,
        label: str,
        labels: Sequence[str],
        reading: Reading,
        subject: str,
    ) -> None:
        """`wanted`: the columns by which the delimiter is found, `label` the column of labels and
        `labels` the declared ones, by which a row in the place of the header is known; what
        `reading` takes for one, and ids in the column `subject`, tell one within a cell. Raises
        DataError."""
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
        self._part, self._labels, self._reading = part, frozenset(labels), reading
        self._has_labels = bool(labels)  # a word that is none by chance, as a number may be
        self._odd, self._wanted = 0, frozenset(wanted)
        self._folded = {*map(_folded, wanted)}
        self._ragged: Counter[tuple[int, bool]] = Counter()
        self.notes: list[str] = []
        head = head_of(part.path, part.packing)
        refuse_other_kinds(head)
        if re.match(rb'(\xef\xbb\xbf)?\s*(\[\s*)?\{\s*"', head):
            raise DataError(
                "expected a header and rows, as the ending says, got JSON; name it .jsonl or .json"
            )
        self._codec, name = encoding_of(head, encoding)
        self.encoding = name
        with readable(f"text in {name}"), open_text(part.path, part.packing, self._codec) as file:
            text = file.read(_BEGIN)
        self._escapes, self._misquoted = '\\"' in text, 0
        self._skip, declared = _declared(text)
        lines = io.StringIO(text, newline="").readlines()[self._skip :]
        usual = _OF_ENDING.get(part.ending, ",")
        self.delimiter = delimiter or declared or _fitting(lines, wanted, usual)
        self.header = _first(lines, self.delimiter)
        self._label = self.header.index(label) if label in self.header else -1
        self._subject = self.header.index(subject) if subject in self.header else -1
        if not all(map(is_encodable, self.header)):
            raise undecoded_header(name)
        if not text.strip():
            raise DataError("expected rows in the source, got an empty file")
        if not self.header:
            raise DataError(
                "expected a header in which every quote is closed, got one where a quote is not: "
                f"see line {self._skip + 1}; nothing was changed"
            )
        kind = {"\t": "TSV", ",": "CSV"}.get(self.delimiter, "CSV")
        self.read_as = f"{kind}, separated by {self._separators()}, {name}"
        self._head_lines = lines
        self._ids: tuple[Set[str], Set[str]] | None = None
        if not delimiter and self.delimiter != usual:
            self.notes.append(
                f"the file is separated by {self._separators()}, as its first line shows"
            )
        if not encoding and name != "UTF-8":
            self.notes.append(f"the file is {name}, as the mark at its begin says")

    def _separators(self) -> str:
        return DELIMITERS.get(self.delimiter, repr(self.delimiter))

    def lacking(self, columns: Sequence[str]) -> list[str]:
        """See Table."""
        return [c for c in columns if c not in self.header and c not in self._part.constants]

    def repeated(self, columns: Sequence[str]) -> list[str]:
        """See Table."""
        counts = Counter([*self.header, *self._part.constants])
        return [c for c in columns if counts[c] > 1]

    def names(self) -> list[str]:
        """See Table."""
        return (
            []
            if self._is_a_row() or self._lines_above() > 1
            else shown([*self.header, *self._part.constants])
        )

    def classes(self, column: str) -> Sequence[str]:  # noqa: ARG002
        """See Table."""
        return ()

    def hint(self) -> str:
        """See Table."""
        if (above := self._lines_above()) > 1:
            which = {2: "line 1", 3: "lines 1 and 2"}.get(above, f"lines 1 to {above - 1}")
            return (
                f"the first line looks like a title, line {above} has the columns you named: "
                f"remove {which}"
            )
        if self._is_a_row():
            found = sorted(set(self.header) & self._labels)
            return (
                f"its first line, {len(self.header)} cell(s), seems to be a row, not a header"
                + (f" (it holds the label {found[0]!r})" if found else "")
                + ": write a line with the names of the columns above it"
            )
        if len(self.header) == 1:
            counts = {d: self.header[0].count(d) for d in DELIMITERS if d != self.delimiter}
            best = max(counts, key=lambda d: counts[d])
            if counts[best]:
                return (
                    f"is it separated by {DELIMITERS[best]}? Then set [data] delimiter = "
                    f'"{_escaped(best)}"'
                )
        return ""

    def _lines_above(self) -> int:
        """The number of the line that has the wanted columns, 0 where no line has."""
        for delimiter in dict.fromkeys([self.delimiter, *DELIMITERS]):
            reader = csv.reader(self._head_lines[: _SAMPLE // 10], delimiter=delimiter)
            if found := next(
                (reader.line_num + self._skip for row in reader if self._wanted <= set(row)), 0
            ):
                return found
        return 0

    def sample(self, rows: int) -> list[dict[str, object]]:
        """See Table."""
        if self._is_a_row():
            return []
        return [
            dict[str, object](zip(self.header, row, strict=True)) | self._part.constants
            for row in self._first_rows(rows)
            if len(row) == len(self.header)
        ]

    def _first_rows(self, rows: int) -> list[list[str]]:
        reader, found = (
            csv.reader(
                self._head_lines,
                delimiter=self.delimiter,
                strict=True,
            ),
            list[list[str]](),
        )
        while len(found) <= rows:
            try:
                found.append(next(reader))
            except csv.Error:
                continue
            except StopIteration:
                break
        return [row for row in found if row][1 : rows + 1]

    def _is_a_row(self) -> bool:
        """Whether the first line looks like a row of data: a declared label in it, a number or an
        address, a cell that stands below it too, or in every cell the same shape as below it; where
        little stands below it, also when no cell of it is what columns are called."""
        cells = [c.strip() for c in self.header]
        if self._labels & {*self.header, *cells} or any(_VALUE.fullmatch(c) for c in cells):
            return True
        columns = list(
            zip(*(row for row in self._first_rows(_SAMPLE) if len(row) == len(cells)), strict=True)
        )
        if (
            columns
            and len(cells) > 1
            and (
                any(cell in column for cell, column in zip(cells, columns, strict=True) if cell)
                or all(
                    _shape(cell) in set(map(_shape, column))
                    for cell, column in zip(cells, columns, strict=True)
                )
            )
        ):
            return True
        few = not columns or len(columns[0]) < _ENOUGH
        return few and not any(words_of(c) & _KNOWN or _folded(c) in self._folded for c in cells)

    def blocks(
        self,
        columns: Columns,
        chunk_rows: int,
    ) -> Iterator[Block]:
        """See Table."""
        places = [(c, self.header.index(c)) for c in columns if c in self.header]
        constants = {c: self._part.constants[c] for c in columns if c not in self.header}
        spoilt = 0
        with (
            readable(f"a readable {self.read_as.partition(',')[0]} file with a header"),
            open_text(
                self._part.path,
                self._part.packing,
                self._codec,
            ) as file,
        ):
            for rows, malformed in _chunks(
                _Rows(self, file, self._skip, len(self.header)), chunk_rows
            ):
                block = _block(rows, malformed, places, constants)
                spoilt += sum(m.endswith(NOT_TEXT) for m in block.malformed)
                yield block
        if spoilt:
            self.notes.append(undecoded_cells(spoilt))
        if self._misquoted and self._escapes:
            self.notes.append(
                f"{self._misquoted} row(s) have a quote in a quoted cell that is not written "
                'twice, and quotes are written as \\" here, as some programs escape them, which is '
                'not read: have quotes doubled ("") by the export, or export JSON Lines or Parquet'
            )
        if self._ragged:
            self.notes.append(self._render_ragged())
        if self._odd:
            self.notes.append(
                f"quoted cells hold lines with as many {self._separators()} as a row, the first "
                f"from line {self._odd}: is its quote closed where it should be?"
            )

    def count_misquoted(self) -> None:
        """One more row with a quote in a quoted cell that is not written twice."""
        self._misquoted += 1

    def count_ragged(self, row: list[str]) -> None:
        """One more row with more or fewer cells than the header."""
        self._ragged[len(row), not row[-1]] += 1

    def _render_ragged(self) -> str:
        (cells, empty), _ = self._ragged.most_common(1)[0]
        what = (
            "their last one empty: do lines end in a delimiter, where the header does not?"
            if empty and cells == len(self.header) + 1
            else f"text that holds {self._separators()} stands in double quotes"
        )
        return (
            f"{self._ragged.total()} row(s) have more or fewer than the header's "
            f"{len(self.header)} cells, most of them {cells}; {what}"
        )

    def check_swallowed(
        self,
        row: list[str],
        line: int,
    ) -> None:
        """That no cell with line breaks holds other rows, which a quote swallowed that another one
        closed. Raises DataError where such a row has in its place what a row asks for (a declared
        label, a number within the range), or, where rows ask for nothing, an id as the first rows
        have them; what only has as many cells is counted."""
        for place, cell in enumerate(row):
            held = self._of_others(cell, place, len(row))
            if held:
                raise DataError(
                    f"expected one row where a quoted cell begins on line {line}, got a cell that "
                    f"holds other rows with {held}: a quote there that is never closed? Nothing "
                    "was changed. Text that really holds such lines can be given as JSON Lines or "
                    "Parquet"
                )
            if held is not None:
                self._odd = self._odd or line

    def _of_others(
        self,
        cell: str,
        place: int,
        width: int,
    ) -> str | None:
        """What a cell has of other rows: "" for as many cells and no more; None for nothing."""
        first, *inner = _LINE_END.split(cell)
        if not inner:
            return None
        last = inner.pop()
        within = {self._held(piece, 0, width) for piece in inner}
        ends = {
            self._held(first, place, width),
            self._held(last, 0, place + 1),
        }
        if None in ends and not self._has_labels:
            ends = {None}
        held = max(filter(None, within | ends), default="")
        odd = within - {None} or None not in ends
        return held or ("" if odd else None)

    def _held(
        self,
        piece: str,
        begin: int,
        end: int,
    ) -> str | None:
        """What a line of a quoted cell has of a row, where it has as many cells as one has from
        `begin` to `end`: "" for no more than that; None where it has not."""
        cells = piece.split(self.delimiter)
        if len(cells) != end - begin or len(cells) == 1:
            return None
        if begin <= self._label < end and self._reading.means_one(cells[self._label - begin]):
            return "their labels"
        if isinstance(self._reading, Nothing) and begin <= self._subject < end:
            return "their ids" if self._is_an_id(cells[self._subject - begin]) else ""
        return ""

    def _is_an_id(self, cell: str) -> bool:
        """Whether a cell is one of the first rows' ids, or has the shape of one that no word has:
        digits, or a mark, in the same places."""
        if self._ids is None:
            rows = [r for r in self._first_rows(_SAMPLE) if len(r) == len(self.header)]
            first = {row[self._subject] for row in rows} - {""}
            shapes = {s for s in map(_shape, first) if set(s) - {"a", " "}}
            self._ids = frozenset(first), frozenset(shapes)
        ids, kinds = self._ids
        return cell in ids or (cell == cell.strip() and _shape(cell) in kinds)


class _Rows:
    """The rows behind the header, each with why it cannot be read."""

    def __init__(
        self,
        table: DelimitedTable,
        file: IO[str],
        skip: int,
        width: int,
    ) -> None:
        self._table, self._width = table, width
        self._before = skip
        self._skip = skip
        self._reader = csv.reader(
            itertools.islice(file, skip, None), delimiter=table.delimiter, strict=True
        )
        while not self._next():
            pass

    def _next(self) -> list[str]:
        self._before = self._reader.line_num
        return next(self._reader)

    def take(self, count: int) -> tuple[list[list[str]], dict[int, str]]:
        """The next rows, at most `count`; of those that cannot be read the place, with the
        reason."""
        rows: list[list[str]] = []
        malformed: dict[int, str] = {}
        reader, width, before = self._reader, self._width, self._reader.line_num
        while len(rows) < count:
            try:
                for row in reader:
                    line = reader.line_num
                    if line - before > 1 and row:
                        self._table.check_swallowed(row, before + 1 + self._skip)
                    before = line
                    if len(row) != width:
                        if not row:
                            continue  # a blank line
                        malformed[len(rows)] = RAGGED
                        self._table.count_ragged(row)
                    rows.append(row)
                    if len(rows) >= count:
                        break
                else:
                    break
            except csv.Error as error:
                self._misquoted(error, before + 1)
                malformed[len(rows)] = f"the row has {_MISQUOTED}"
                self._table.count_misquoted()
                rows.append([])
                before = reader.line_num
        return rows, malformed

    def _misquoted(
        self,
        error: csv.Error,
        first: int,
    ) -> None:
        """Go on where only a line of its own is spoilt. Raises DataError."""
        last = self._reader.line_num
        unclosed = "unexpected end" in str(error) or "field larger" in str(error)
        if not unclosed and last <= first:
            return
        does = (
            "nobody closes" if unclosed else f"swallows what follows up to line {last + self._skip}"
        )
        raise DataError(
            f"expected every quote to be closed, got one on line {first + self._skip} that {does}: "
            f"{max(last - first, 0)} more line(s) would be lost in it; nothing was changed. Close "
            'it, or write it twice ("") if it is part of the text'
        ) from None


def _chunks(rows: _Rows, chunk_rows: int) -> Iterator[tuple[list[list[str]], dict[int, str]]]:
    while True:
        with (
            without_collections()
        ):  # of lists that all live on: looking through them costs more than reading them
            taken = rows.take(chunk_rows)
        if not taken[0]:
            return
        yield taken


def _block(
    rows: list[list[str]],
    malformed: dict[int, str],
    places: list[tuple[str, int]],
    constants: dict[str, str | None],
) -> Block:
    reasons = [""] * len(rows)
    for place, reason in malformed.items():
        rows[place], reasons[place] = [], reason
    cells: dict[str, Any] = {c: [value] * len(rows) for c, value in constants.items()}
    for column, index in places:
        found = (
            [row[index] or None if row else None for row in rows]
            if malformed
            else [row[index] or None for row in rows]
        )
        if not is_encodable("".join(filter(None, found))):
            for i, cell in enumerate(found):
                if cell is not None and not is_encodable(cell):
                    found[i], reasons[i] = spelt_out(cell), f"column {column!r} {NOT_TEXT}"
        cells[column] = found
    return Block(cells, reasons)


def _folded(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def _declared(text: str) -> tuple[int, str]:
    """Lines to pass over before the header and the delimiter that they declare: "sep=;", as
    spreadsheets write it."""
    found = re.match(
        r'"?sep=(.)"?\r?\n',
        text,
        re.IGNORECASE,
    )
    return (1, found[1]) if found else (0, "")


def _first(lines: Sequence[str], delimiter: str) -> list[str]:
    """The cells of the first line that has any; none where its quotes are not closed."""
    try:
        return next(
            (
                row
                for row in csv.reader(
                    lines,
                    delimiter=delimiter,
                    strict=True,
                )
                if row
            ),
            [],
        )
    except csv.Error:
        return []


def _fitting(
    lines: Sequence[str],
    wanted: Sequence[str],
    usual: str,
) -> str:
    """The usual delimiter, unless another one alone makes most of the wanted columns out of the
    first line, or, where none makes any, the usual one makes one cell of it and another one alone
    as many cells of nearly every line."""
    counts = {d: len(set(wanted) & set(_first(lines, d))) for d in DELIMITERS}
    most = [d for d, count in counts.items() if count == max(counts.values())]
    if len(most) == 1:
        return most[0]
    if len(_first(lines, usual)) > 1:
        return usual
    even = [d for d in DELIMITERS if d != usual and _is_even(lines[:_SAMPLE], d)]
    return even[0] if len(even) == 1 else usual


def _is_even(lines: Sequence[str], delimiter: str) -> bool:
    """Whether a delimiter makes as many cells of nearly every row as of the first, and more than
    one."""
    widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
    if len(widths) < 2 or widths[0] < 2:
        return False
    same = widths.count(widths[0])
    return same >= _NEARLY * len(widths)


def _escaped(delimiter: str) -> str:
    return "\\t" if delimiter == "\t" else delimiter


_VALUE = re.compile(r"[+-]?[\d.,:/ -]*\d[\d.,:/ TZ-]*|\S+@\S+\.\S+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}")
"""A number, a date, an address, a UUID: nothing that a column is called."""


def _shape(cell: str) -> str:
    """A cell with its letters and digits taken for one another, and runs of them for one: r017 is
    a0."""
    letters = re.sub(r"[^\W\d_]+", "a", cell.strip())
    return re.sub(
        r"(a )+a",
        "a a",
        re.sub(r"\d+", "0", letters),
    )
