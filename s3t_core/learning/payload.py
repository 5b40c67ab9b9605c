"""What a served model is asked with, as texts: every form that MLflow hands on, each read in one
way or refused.

A text is a cell of the column that `[data] text` names where columns have names, and of the only
column where there is one; never of "the first" of several. What is no text (None, NaN, a number,
half a surrogate pair) is refused by its place, and no message quotes what was asked. Nothing of
pandas or numpy is imported: a frame is what has columns, an array or a Series what turns itself
into a list.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from s3t_core.canonical import is_encodable
from s3t_core.conversations import Conversation, Turn, chat_of, pair_text
from s3t_core.errors import DataError


def texts_of(asked: object, column: str = "") -> list[str]:
    """The texts of a payload, in its order; `column` is what `[data] text` named, "" where nobody
    said. Taken are one text, a list, tuple, Series or array of texts (also n rows of one cell), a
    frame, a dict of columns, and a list of dicts. Raises DataError."""
    return _checked(_cells(asked, column))


def pairs_of(
    asked: object,
    first: str,
    second: str,
) -> list[str]:
    """The pairs of texts of a payload, in its order, as rows hold them (s3t_core.conversations): a
    list of pairs, or what has both columns (a frame, a dict of columns, a list of dicts). Raises
    DataError."""
    table: Any = asked
    if hasattr(asked, "columns") or isinstance(asked, Mapping):
        columns = [texts_of({name: _listed(table[name])}) for name in _both(table, first, second)]
        if len(columns[0]) != len(columns[1]):
            raise DataError("expected as many second texts as first ones, got others")
        return [pair_text(*pair) for pair in zip(*columns, strict=True)]
    rows = _listed(asked)
    if isinstance(rows, str) or not isinstance(rows, Iterable):
        raise DataError(f"expected pairs of texts, got {type(asked).__name__}")
    return [pair_text(*_pair(row, first, second)) for row in rows]


def _both(
    asked: Any,
    first: str,
    second: str,
) -> tuple[str, str]:
    names = list(asked.columns if hasattr(asked, "columns") else asked)
    if names.count(first) != 1 or names.count(second) != 1:
        raise DataError(
            f"expected the columns {first!r} and {second!r} of [data] text and text_pair, got "
            "others; name them so, or send pairs alone"
        )
    return first, second


def _pair(
    row: object,
    first: str,
    second: str,
) -> list[str]:
    cells = _listed(row)
    if isinstance(row, Mapping):
        cells = [row[name] for name in _both(row, first, second)]
    if not isinstance(cells, list | tuple) or len(cells) != 2:
        raise DataError("expected two texts in each row, got another number")
    return _checked(list(cells))


def questions_of(
    asked: object,
    column: str = "",
    form: str = "prompt",
) -> list[Conversation]:
    """What a language model is asked to go on with, in the order of the payload: texts, in every
    form of `texts_of`; chats, each a list of messages with role and content that ends with the
    user, or an object whose `messages` are one. `form`: what a text alone is, "prompt", the
    beginning of a "text", or a "chat" of one message. Raises DataError."""
    if _is_chat(asked):
        return [_chat(asked, "")]
    listed = _listed(asked)
    if isinstance(listed, list | tuple) and any(map(_is_chat, listed)):
        return [_chat(each, f" in row {number}") for number, each in enumerate(listed, 1)]
    role = "user" if form == "chat" else form
    texts = texts_of(asked, column)
    empty = sum(not text.strip() for text in texts)
    if empty:
        raise DataError(f"expected texts that say something, got {empty} that say nothing")
    return [(Turn(role, text),) for text in texts]


def _is_chat(asked: object) -> bool:
    if isinstance(asked, Mapping):
        return "messages" in asked
    first = asked[0] if isinstance(asked, list | tuple) and asked else None
    return isinstance(first, Mapping) and bool({"role", "from"} & first.keys())


def _chat(asked: object, where: str) -> Conversation:
    messages = asked["messages"] if isinstance(asked, Mapping) and _is_chat(asked) else asked
    try:
        return chat_of(_listed(messages), to_learn=False)
    except DataError as error:
        raise DataError(f"{error}{where}; nothing was answered") from None


def _cells(asked: object, column: str) -> list[object]:
    if isinstance(asked, str):
        return [asked]
    if hasattr(asked, "columns"):
        return _cells_of_frame(asked, column)
    if isinstance(asked, Mapping):
        return _cells_of_columns(asked, column)
    listed = _listed(asked)
    if isinstance(listed, str):  # an array without dimensions
        return [listed]
    if not isinstance(listed, Iterable) or isinstance(listed, bytes | bytearray):
        raise DataError(
            f"expected texts: a list, a frame, an array or one text, got {type(asked).__name__}"
        )
    return [_cell(row, column) for row in listed]


def _listed(given: object) -> Any:
    """A Series, an array or a column as a list; anything else as it is."""
    for name in ("tolist", "to_list"):
        if hasattr(given, name):
            return getattr(given, name)()
    return given


def _cells_of_frame(frame: Any, column: str) -> list[object]:
    names = list(frame.columns)
    if not len(frame):
        return []
    if names.count(chosen := _chosen(names, column)) > 1:
        raise DataError(
            "expected one column of texts, got several of its name; name each column once"
        )
    return list(_listed(frame[chosen]))


def _cells_of_columns(columns: Mapping[Any, Any], column: str) -> list[object]:
    """A dict: of columns, or of one row."""
    cells = _listed(columns[_chosen(list(columns), column)])
    if isinstance(cells, list | tuple):
        return [_cell(cell, "") for cell in cells]
    return [cells]


def _cell(row: object, column: str) -> object:
    """The text of one row of a list."""
    if isinstance(row, Mapping):
        row = row[_chosen(list(row), column)]
    cells = _listed(row) if not isinstance(row, str) else row
    if isinstance(cells, list | tuple):
        if len(cells) != 1:
            raise DataError(
                f"expected one text in each row, got a row of {len(cells)} cells without names; "
                "send them as a frame whose columns have names, or send the texts alone"
            )
        return cells[0]
    return cells


def _chosen(names: list[object], column: str) -> object:
    if column and column in names:
        return column
    if len(names) == 1:
        return names[0]
    wanted = f"the column {column!r}, which [data] text names," if column else "one column"
    raise DataError(
        f"expected {wanted} or a single column of texts, got {len(names)} columns without it; name "
        "the column of texts as it is named in s3t.toml, or send it alone"
    )


def _checked(cells: list[object]) -> list[str]:
    wrong = [(number, _kind(cell)) for number, cell in enumerate(cells, 1) if _kind(cell)]
    if wrong:
        number, kind = wrong[0]
        raise DataError(
            f"expected a text in each of {len(cells)} row(s), got {len(wrong)} without one; the "
            f"first is row {number}: {kind}. Nothing was answered: leave those rows out, or write "
            "them as texts"
        )
    return [str(cell) for cell in cells]


def _kind(cell: object) -> str:
    """What a cell is that is no text, "" for a text."""
    if isinstance(cell, str):
        return "" if is_encodable(cell) else "a text with half a surrogate pair"
    if (
        cell is None
        or type(cell).__name__ in ("NAType", "NaTType")
        or (isinstance(cell, float) and math.isnan(cell))
    ):
        return "a missing value (None, NaN)"
    return f"a value of the type {type(cell).__name__}"
