"""Cells: which columns are read, how a value is reached and written, and rows as columns of
text."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any

from s3t_core.canonical import is_encodable
from s3t_core.config import DataConfig
from s3t_core.identity import NotAnId, decimal_text, id_text

RAGGED = "the row has more or fewer cells than the header"
NOT_TEXT = "is not UTF-8"
"""How the reason ends for which a row is refused whose bytes do not decode."""
CHAT = "a list of chat messages; one text a row is read: write there what the person said"

ROW, MALFORMED, GIVEN = "\0row", "\0malformed", "\0given"
GIVEN_RECORD = "\0given record"
"""Columns of a chunk that are the system's own: the number of the row, why it cannot be read, the
subject as the source spells it. No column of a source has such a name: [data] and [tiers] take none
with a NUL."""

Columns = dict[str, Callable[[object], str | None]]
"""The source columns that are read, each once, with how a value in it that is no text is
written."""

Cells = tuple[dict[str, object], str]
"""One row: its cells by column, and why it cannot be read ("" where it can)."""


@dataclass(frozen=True)
class Block:
    """Some rows of a source, by column: text or None; `malformed` says why a row cannot be read, ""
    where it can."""

    cells: dict[str, Any]
    malformed: list[str]


class Unreadable:
    """In the place of a cell whose value is there and cannot be made one of Python's: a time beyond
    its calendar, or in a zone that nobody knows."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class Repeated(dict[str, Any]):
    """A JSON object in which a key stands twice: which of its values is meant, nobody can tell."""


def reach(row: Mapping[str, object], column: str) -> object:
    """The value under a column's name: the key of that very name, else along its dots through
    objects. Raises KeyError where there is none, NotAnId where a key on the way stands twice."""
    if isinstance(row, Repeated):
        raise NotAnId("an object in which a key stands twice")
    if column in row:
        return row[column]
    first, dot, rest = column.partition(".")
    inner = row[first] if dot else None
    if not isinstance(inner, dict):
        raise KeyError(column)
    return reach(inner, rest)


def row_by_row(
    rows: Iterable[Cells],
    columns: Columns,
    chunk_rows: int,
) -> Iterator[Block]:
    """Blocks of rows that are decoded one at a time."""
    rows = iter(rows)
    while part := [
        _decode(cells, malformed, columns) for cells, malformed in islice(rows, chunk_rows)
    ]:
        yield Block(
            {c: [cells[c] for cells, _ in part] for c in columns},
            [malformed for _, malformed in part],
        )


def _decode(
    cells: Mapping[str, object],
    malformed: str,
    columns: Columns,
) -> Cells:
    decoded: dict[str, object] = {}
    for column, write in columns.items():
        value = cells.get(column)
        if isinstance(value, bytes):
            value = value.decode(errors="surrogateescape")
        elif not isinstance(value, str):
            try:
                value = _written(value, write)
            except NotAnId as error:
                malformed = f"column {column!r} holds {error}"
                value = None
        if isinstance(value, str) and not is_encodable(value):
            malformed = f"column {column!r} {NOT_TEXT}"
            value = spelt_out(value)
        decoded[column] = value or None
    return decoded, malformed


def _written(value: object, write: Callable[[object], str | None]) -> str | None:
    if isinstance(value, Unreadable):
        raise NotAnId(f"a value of type {value.kind} that cannot be read")
    return write(value)


def spelt_out(text: str) -> str:
    """A text that is not clean, with what does not decode written as \\xNN or \\uNNNN."""
    raw = (
        text.encode(errors="surrogateescape")
        if all(not "\ud800" <= c <= "\udfff" or "\udc80" <= c <= "\udcff" for c in text)
        else None
    )
    return (
        raw.decode(errors="backslashreplace")
        if raw is not None
        else text.encode(errors="backslashreplace").decode()
    )


def is_chat(value: object) -> bool:
    """Whether a value is a list of messages as chat models take them: role and content, or from and
    value."""
    first = value[0] if isinstance(value, list | tuple) and value else None
    return isinstance(first, dict) and bool({"role", "from", "content"} & first.keys())


def cell_text(value: object) -> str | None:
    """A text or a label that is no text: a number as it is written. Raises NotAnId."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(float(value))
    if is_chat(value):
        raise NotAnId(CHAT)
    return id_text(value)


def one_label_text(value: object) -> str | None:
    """A label that is no text, of a row that has one. Raises NotAnId."""
    if isinstance(value, list | tuple):
        raise NotAnId('a list: for several labels a row, set [task] kind = "multilabel"')
    return cell_text(value)


def columns_of(
    config: DataConfig,
    tier_column: str = "",
    write_label: Callable[[object], str | None] = one_label_text,
) -> Columns:
    """The columns that the config names. What a column of ids holds is written as an id, whatever
    else it is. `write_label`: how a label is written that is no text."""
    texts = [config.text, config.text_pair, tier_column]
    others = dict.fromkeys(texts, cell_text) | {config.label: write_label}
    return with_ids(others, config)


def with_ids(others: Columns, config: DataConfig) -> Columns:
    """These columns, and those of ids."""
    ids = dict.fromkeys([config.subject, config.split_by, config.record], id_text)
    return {name: write for name, write in (others | ids).items() if name}


def chat_text(value: object) -> str | None:
    """A cell of messages that is no text, as JSON. Raises NotAnId."""
    if repeats_a_key(value):
        raise NotAnId("a message in which a key stands twice")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        return json.dumps(
            value,
            ensure_ascii=False,
            default=_listed,
        )
    except (TypeError, ValueError, RecursionError):
        raise NotAnId("something else than messages") from None


def repeats_a_key(messages: object) -> bool:
    """Whether one of a list of messages has a key twice, as `DECODER` reads them."""
    return isinstance(messages, list) and any(isinstance(each, Repeated) for each in messages)


def _listed(value: object) -> object:
    """An array of numpy's or another sequence of a library as a list."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError("expected a list")


def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object as its pairs come, for `object_pairs_hook`."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeated(found)


DECODER = json.JSONDecoder(object_pairs_hook=once)
