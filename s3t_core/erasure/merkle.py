"""The ledger's tree head (RFC 6962 section 2.1): one hash that any change, removal or reordering of entries alters."""

import hashlib


def leaf_hash(data: bytes) -> bytes:
    """MTH({d}) = SHA-256(0x00 || d)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_head(leaves: list[bytes]) -> bytes:
    """MTH over leaf hashes, 32 bytes; SHA-256 of nothing for an empty tree.

    The largest power of two below n splits the tree; folding neighbours level by level, an odd one carried up, gives
    the same tree.
    """
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = leaves
    while len(level) > 1:
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(level) - len(level) % 2:]
    return level[0]
