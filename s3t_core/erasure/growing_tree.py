"""The ledger's tree (RFC 6962 section 2.1) while it grows: with every whole subtree kept, an entry
costs a hash or two, and the root at any size as many as the tree is deep."""

import threading
from collections.abc import Sequence
from typing import overload

from s3t_core.erasure.merkle import node_hash, tree_head


class Tree:
    """The whole subtrees of a ledger that this process reads on and on. Threads may share it."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]
        self._growing = threading.Lock()

    def grown(
        self,
        size: int,
        leaves: Sequence[bytes],
    ) -> "Tree":
        """The tree whose first `size` leaf hashes are this one's, and whose others, 32 bytes each,
        are `leaves`: this one, which has them then, or another where it already has others. Raises
        IndexError where it has fewer than `size`."""
        with self._growing:
            there = self._levels[0]
            if not 0 <= size <= len(there):
                raise IndexError(f"expected a size from 0 to {len(there)}, got {size}")
            known = there[size : size + len(leaves)]
            if known == list(leaves[: len(known)]):
                for leaf in leaves[len(known) :]:
                    self._append(leaf)
                return self
            kept = there[:size]
        return Tree().grown(0, [*kept, *leaves])

    def at(
        self,
        size: int,
    ) -> "Leaves":
        """Its first `size` leaf hashes, whatever it grows to."""
        return Leaves(self._levels, size)

    def _append(self, leaf: bytes) -> None:
        """What reads a smaller tree meanwhile finds all of it: nothing is taken away."""
        self._levels[0].append(leaf)
        for height, level in enumerate(self._levels):
            if len(level) % 2:
                return
            if height + 1 == len(self._levels):
                self._levels.append([])
            self._levels[height + 1].append(node_hash(level[-2], level[-1]))


class Leaves(Sequence[bytes]):
    """The leaf hashes of a ledger at one size, 32 bytes each."""

    def __init__(
        self,
        levels: Sequence[Sequence[bytes]],
        size: int,
    ) -> None:
        self._levels = levels
        self._size = size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        """One of them, or some."""
        if isinstance(index, slice):
            return [self._levels[0][i] for i in range(*index.indices(self._size))]
        return self._levels[0][range(self._size)[index]]

    def root(
        self,
        size: int,
    ) -> bytes:
        """The root, 32 bytes, that the tree had when it had so many entries. Raises IndexError for
        more than there are."""
        if not 0 <= size <= self._size:
            raise IndexError(f"expected a size from 0 to {self._size}, got {size}")
        root: bytes | None = None
        for height in range(size.bit_length()):
            if size >> height & 1:
                whole = self._levels[height][(size >> height) - 1]
                root = whole if root is None else node_hash(whole, root)
        return tree_head([]) if root is None else root


def root_at(
    leaves: Sequence[bytes],
    size: int,
) -> bytes:
    """The root over the first `size` leaf hashes; without hashing them all where they are a growing
    tree's."""
    return leaves.root(size) if isinstance(leaves, Leaves) else tree_head(list(leaves[:size]))
