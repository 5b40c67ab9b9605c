"""What every kind of file looks like from outside: a table with named columns, read in blocks."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Protocol

from flows.adapters.sources.cells import Block, Columns


class Table(Protocol):
    """One file, opened as far as its header."""

    read_as: str
    """What it is, in words: "CSV, separated by semicolons, UTF-8"."""

    notes: list[str]
    """Sentences about it, more of them while it is read. They name no value."""

    def lacking(self, columns: Sequence[str]) -> list[str]:
        """Those of the columns that it does not have."""

    def repeated(self, columns: Sequence[str]) -> list[str]:
        """Those of the columns that it has more than once."""

    def names(self) -> list[str]:
        """The names of its columns, as far as they may be shown: those that look like names."""

    def hint(self) -> str:
        """What its columns look like when they are not those that are wanted, "" when nothing can
        be said."""

    def classes(self, column: str) -> Sequence[str]:
        """The names that it declares for the numbers in a column (ClassLabel), none for most."""

    def sample(self, rows: int) -> list[dict[str, object]]:
        """Some first rows that can be read, by column."""

    def blocks(self, columns: Columns, chunk_rows: int) -> Iterator[Block]:
        """Its rows. Raises DataError."""


ROLE_WORDS = {
    "text": (
        "text",
        "body",
        "comment",
        "review",
        "content",
        "message",
        "sentence",
        "description",
        "feedback",
        "question",
        "utterance",
        "tweet",
        "post",
        "note",
    ),
    "label": (
        "label",
        "class",
        "category",
        "target",
        "verdict",
        "sentiment",
        "rating",
        "score",
        "stars",
        "intent",
        "topic",
        "kind",
        "tag",
    ),
    "subject": (
        "subject",
        "user",
        "who",
        "person",
        "customer",
        "email",
        "author",
        "client",
        "member",
        "account",
        "patient",
        "sender",
        "owner",
        "employee",
        "student",
        "username",
        "mail",
    ),
}
"""Words in the names of columns, by what such a column usually holds."""


def words_of(name: str) -> set[str]:
    """The words in the name of a column: user_id, userId and "User ID" have the same."""
    return set(re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))


def shown(names: Sequence[str]) -> list[str]:
    """Of the names in a header those that may be shown: they look like names, not like somebody's
    data."""
    return [n for n in names if _looks_like_a_name(n)]


def _looks_like_a_name(name: str) -> bool:
    words = name.split()
    seen = "".join(c for c in name if unicodedata.category(c) not in ("Cf", "Zs"))
    return (
        0 < len(name) <= 60
        and len(words) <= 4
        and seen.isprintable()
        and "@" not in name
        and any(c.isalpha() for c in name)
        and sum(c.isdigit() for c in name) <= 4
    )
