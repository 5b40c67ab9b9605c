"""git's index in version 4, in which a name says only where it differs from the one before it
(gitformat-index(5))."""

from collections.abc import Iterator

from s3t_core.erasure.decoding.parts import Part, Source, Undecodable, cells_of

INDEX_MAGIC = b"DIRC\0\0\0\x04"
_HEADER_BYTES, _STAT_BYTES = 12, 40
_DIGEST_BYTES = (20, 32)
"""Of SHA-1 and SHA-256: the index does not say which its repository has."""
_EXTENDED, _LENGTH = 0x4000, 0xFFF


def decode_git_index(
    source: Source,
) -> Iterator[Part]:
    """The names of all entries. Raises Undecodable."""
    data = source.file.read()
    count = int.from_bytes(data[8:_HEADER_BYTES], "big")
    for size in _DIGEST_BYTES:
        names = _names(data, count, size)
        if names is not None:
            yield cells_of(names)
            return
    raise Undecodable("git index: entries that cannot be read")


def _names(
    data: bytes,
    count: int,
    digest_bytes: int,
) -> list[bytes] | None:
    """None where its digests have another length."""
    found: list[bytes] = []
    name, at = b"", _HEADER_BYTES
    for _ in range(count):
        at += _STAT_BYTES + digest_bytes
        flags = int.from_bytes(data[at : at + 2], "big")
        at += 4 if flags & _EXTENDED else 2
        removed, at = _number(data, at)
        end = data.find(b"\0", at)
        if end < 0 or removed > len(name):
            return None
        name = name[: len(name) - removed] + data[at:end]
        if len(name) != flags & _LENGTH and len(name) < _LENGTH:
            return None  # of an entry of a split index that stands in the shared one it is none
        found.append(name)
        at = end + 1
    return found if at + digest_bytes <= len(data) else None


def _number(
    data: bytes,
    at: int,
) -> tuple[int, int]:
    """One of variable length, and where it ends (as of an offset in gitformat-pack(5))."""
    value = -1
    more = True
    while more and at < len(data):
        value = (value + 1) << 7 | data[at] & 0x7F
        more = data[at] >= 0x80
        at += 1
    return value, at
