"""What a report is made of: headings, paragraphs, tables, figures. Rendered by `html` and
`pdf`."""

from dataclasses import dataclass
from typing import Literal

Tone = Literal["plain", "good", "bad", "quiet"]


@dataclass(frozen=True)
class Heading:
    """A section begins."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Points:
    """A list."""

    points: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Table:
    """Rows of as many cells as `head` has columns. `widths`: relative."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    widths: tuple[float, ...]


@dataclass(frozen=True)
class Picture:
    """A figure in both forms, and what it shows in words."""

    svg: str
    png: bytes
    caption: str
    inches: tuple[float, float]


Block = Heading | Text | Points | Table | Picture


@dataclass(frozen=True)
class Document:
    """A title, a line under it, and the blocks."""

    title: str
    subtitle: str
    blocks: tuple[Block, ...]
