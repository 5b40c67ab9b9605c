"""Rows that SQLite keeps and no query shows, value by value.

A record is a header, which says how long each value is, and the values, one behind the other with
nothing between them (https://www.sqlite.org/fileformat2.html, 2.1). So an id in a row that was
deleted or changed is no word of its own in the bytes of its page: `customercustomer-4711ab12`.

1. A page that lists its cells, as one of the write-ahead log, of a journal or a free one does, is
   cut into values by their headers
2. what lies between the cells of a page, where deleted ones lose the beginning of their headers,
   a page that lists none, a part of a page and what is in none, nobody can cut: there an id is
   looked for within words too
3. the cells that a page of the file lists are what a query gives, but where the page is free, or a
   log or a journal lies beside it
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from s3t_core.erasure.decoding.carving import Pages
from s3t_core.erasure.decoding.parts import Uncut, cells_of

_HEADER = 100
"""Bytes of the database's own header, before that of its first page."""
_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_AT_ONCE = 2**20
_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
"""Bytes of a value by its serial type, 0 to 9."""
_FIRST_TEXT = 12
"""From this serial type on a value is bytes (even) or a text (odd)."""


def left_in(pages: Pages) -> Iterator[Uncut]:
    """What may be left of rows in the pages of a database, some pages at a time."""
    free = pages.free_numbers()
    uncut: list[bytes] = []
    listed: list[_Tree] = []
    size = 0
    for index in range(len(pages)):
        page = pages[index]
        shown = pages.is_shown(index) and pages.number(index) not in free
        begin = _HEADER if pages.number(index) == 1 else 0
        tree = _tree_of(page, begin) if pages.is_whole(index) else None
        if tree is not None:
            uncut += tree.spare()
        if not shown:
            listed += [] if tree is None else [tree]
            uncut += [page] if tree is None else []
        size += len(page)
        if size >= _AT_ONCE:
            yield from _parts(uncut, listed)
            uncut, listed, size = [], [], 0
    yield from _parts(uncut, listed)


def _parts(uncut: list[bytes], listed: "list[_Tree]") -> Iterator[Uncut]:
    pieces = [piece for piece in uncut if piece.strip(b"\0")]
    if pieces:
        yield Uncut(cells_of(pieces))
    if listed:
        yield Uncut(cells_of(tree.page for tree in listed), partial(_values, listed))


def _values(listed: "list[_Tree]") -> bytes:
    return cells_of(value for tree in listed for value in tree.values())


def _tree_of(page: bytes, begin: int) -> "_Tree | None":
    """A page as one of a tree, None where it is none, or its header says what cannot be."""
    tree = _Tree(page, begin)
    return tree if tree.is_one() else None


@dataclass(frozen=True)
class _Tree:
    """A page of a b-tree, whose header begins at `begin` (1.6 of the file format)."""

    page: bytes
    begin: int

    def is_one(self) -> bool:
        """Whether its header says that it is such a page, and where its cells can lie."""
        kinds = (_INTERIOR_INDEX, _INTERIOR_TABLE, _LEAF_INDEX, _LEAF_TABLE)
        return self._kind in kinds and self._end <= self._content <= len(self.page)

    @property
    def _kind(self) -> int:
        return self.page[self.begin]

    @property
    def _count(self) -> int:
        return self._two(self.begin + 3)

    @property
    def _content(self) -> int:
        """Where cells begin."""
        return self._two(self.begin + 5) or 2**16

    @property
    def _first(self) -> int:
        """Where the list of cells begins."""
        return self.begin + (12 if self._kind in (_INTERIOR_INDEX, _INTERIOR_TABLE) else 8)

    @property
    def _end(self) -> int:
        """Where the list of cells ends."""
        return self._first + 2 * self._count

    def _two(self, at: int) -> int:
        return int.from_bytes(self.page[at : at + 2], "big")

    def spare(self) -> list[bytes]:
        """What lies between the list of cells and the first, and in the blocks between cells that
        the page calls free; all of it where it calls free what cannot be."""
        blocks = [self.page[self._end : self._content]]
        at = self._two(self.begin + 1)
        while at:
            size, following = self._two(at + 2), self._two(at)
            if size < 4 or at + size > len(self.page) or 0 < following < at + size:
                return [self.page]
            blocks.append(self.page[at + 4 : at + size])
            at = following
        return blocks

    def values(self) -> Iterator[bytes]:
        """Texts and bytes of the cells that the page lists, as far as they lie in it. A cell that
        cannot be read is given whole."""
        if self._kind == _INTERIOR_TABLE:
            return
        for n in range(self._count):
            at = self._two(self._first + 2 * n)
            try:
                yield from self._record(at)
            except IndexError:
                yield self.page[at:]

    def _record(self, at: int) -> Iterator[bytes]:
        at += 4 if self._kind == _INTERIOR_INDEX else 0
        payload, at = self._number(at)
        if self._kind == _LEAF_TABLE:
            _, at = self._number(at)
        until = min(len(self.page), at + self._local(payload))
        length, place = self._number(at)
        value = header = at + length
        while place < header:
            kind, place = self._number(place)
            size = (kind - _FIRST_TEXT) // 2 if kind >= _FIRST_TEXT else _SIZES[kind]
            if kind >= _FIRST_TEXT:
                yield self.page[value : min(value + size, until)]
            value += size

    def _local(self, payload: int) -> int:
        """How much of a record lies in its page (1.6: X, M and K there)."""
        usable = len(self.page)
        least = (usable - 12) * 32 // 255 - 23
        most = usable - 35 if self._kind == _LEAF_TABLE else (usable - 12) * 64 // 255 - 23
        if payload <= most:
            return payload
        wanted = least + (payload - least) % (usable - 4)
        return wanted if wanted <= most else least

    def _number(self, at: int) -> tuple[int, int]:
        """A number of one to nine bytes, and where it ends. Raises IndexError."""
        found = 0
        for n in range(8):
            byte = self.page[at + n]
            found = found << 7 | byte & 0x7F
            if byte < 0x80:
                return found, at + n + 1
        return found << 8 | self.page[at + 8], at + 9
