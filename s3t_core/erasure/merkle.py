"""The ledger's tree (RFC 6962 section 2.1): one hash that any change, removal or reordering of
entries alters, and proofs that an entry is in it and that a later tree continues an earlier one.

Leaves and nodes are 32-byte hashes. Proofs are lists of nodes, those nearest the leaves first.
Verifying follows RFC 9162 sections 2.1.3.2 and 2.1.4.2 (the same tree); nothing is read from a
proof but hashes: it may be anything.
"""

import hashlib
from collections.abc import Iterable, Sequence


def leaf_hash(data: bytes) -> bytes:
    """MTH({d}) = SHA-256(0x00 || d)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(
    left: bytes,
    right: bytes,
) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_head(leaves: list[bytes]) -> bytes:
    """MTH over leaf hashes, 32 bytes; SHA-256 of nothing for an empty tree.

    The largest power of two below n splits the tree; folding neighbours level by level, an odd one
    carried up, gives the same tree.
    """
    return _levels(leaves)[-1][0] if leaves else hashlib.sha256(b"").digest()


def roots_at(
    leaves: Sequence[bytes],
    sizes: Iterable[int],
) -> dict[int, bytes]:
    """The roots that the tree had at these sizes, those from 1 to its own: in one pass, by the
    whole subtrees from which each root is made (RFC 6962 section 2.1)."""
    wanted, found = set(sizes), {}
    whole: list[tuple[int, bytes]] = []
    for size, leaf in enumerate(leaves, 1):
        height, node = 0, leaf
        while whole and whole[-1][0] == height:
            height, node = height + 1, node_hash(whole.pop()[1], node)
        whole.append((height, node))
        if size in wanted:
            root = whole[-1][1]
            for _, left in reversed(whole[:-1]):
                root = node_hash(left, root)
            found[size] = root
    return found


def inclusion_proofs(
    leaves: list[bytes],
    indices: Iterable[int],
) -> list[list[bytes]]:
    """PATH(index, D[n]) for each, RFC 6962 section 2.1.1. Raises IndexError for an entry that is
    not there."""
    *below_the_root, _ = _levels(leaves)
    proofs = []
    for index in indices:
        if not 0 <= index < len(leaves):
            raise IndexError(f"expected an entry from 0 to {len(leaves) - 1}, got {index}")
        proof = []
        for height, level in enumerate(below_the_root):
            sibling = index >> height ^ 1
            if sibling < len(level):
                proof.append(level[sibling])
        proofs.append(proof)
    return proofs


def inclusion_proof(
    leaves: list[bytes],
    index: int,
) -> list[bytes]:
    """One of `inclusion_proofs`."""
    return inclusion_proofs(leaves, [index])[0]


def consistency_proof(
    leaves: list[bytes],
    first: int,
) -> list[bytes]:
    """PROOF(first, D[n]), RFC 6962 section 2.1.2: that the tree continues its first `first`
    entries. Empty for 0 and n. Raises IndexError when there are fewer entries than that."""
    if not 0 <= first <= len(leaves):
        raise IndexError(f"expected an earlier size from 0 to {len(leaves)}, got {first}")
    return _subproof(leaves, first, whole=True) if first else []


def includes(
    root: bytes,
    size: int,
    index: int,
    leaf: bytes,
    proof: list[bytes],
) -> bool:
    """Whether `proof` shows that the tree of that size and root has the leaf at `index` (RFC 9162
    section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and found == root


def continues(
    first_root: bytes,
    first: int,
    root: bytes,
    size: int,
    proof: list[bytes],
) -> bool:
    """Whether `proof` shows that the tree of `size` entries begins with that of `first` (RFC 9162
    section 2.1.4.2)."""
    if not 0 <= first <= size:
        return False
    if first in (0, size):
        return not proof and first_root == (root if first else tree_head([]))
    nodes = [first_root, *proof] if first & (first - 1) == 0 else proof
    if not nodes:
        return False
    node, last = first - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    earlier = later = nodes[0]
    for sibling in nodes[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            earlier, later = node_hash(sibling, earlier), node_hash(sibling, later)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            later = node_hash(later, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and (earlier, later) == (first_root, root)


def _levels(leaves: list[bytes]) -> list[list[bytes]]:
    """The tree, level by level, from the leaves to the root."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        level = levels[-1]
        neighbours = zip(level[::2], level[1::2], strict=False)
        paired = [node_hash(left, right) for left, right in neighbours]
        is_odd = len(level) % 2 == 1
        levels.append([*paired, level[-1]] if is_odd else paired)
    return levels


def _subproof(
    leaves: list[bytes],
    first: int,
    whole: bool,
) -> list[bytes]:
    """SUBPROOF(m, D[n], b), RFC 6962 section 2.1.2."""
    if first == len(leaves):
        return [] if whole else [tree_head(leaves)]
    split = 1 << (len(leaves) - 1).bit_length() - 1  # the largest power of two below n
    left, right = leaves[:split], leaves[split:]
    if first <= split:
        return [*_subproof(left, first, whole), tree_head(right)]
    return [*_subproof(right, first - split, whole=False), tree_head(left)]
