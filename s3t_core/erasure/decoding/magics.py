"""How kinds begin that are told by more than a few fixed bytes."""

import codecs


def is_gzip(head: bytes) -> bool:
    """The last byte of these four has flags, of which three are reserved (RFC 1952)."""
    return head[:3] == b"\x1f\x8b\x08" and len(head) > 3 and head[3] < 0x20


def is_bzip2(head: bytes) -> bool:
    """The level, then the mark of a block, or of the end where there is none."""
    return (
        head[:3] == b"BZh"
        and head[3:4].isdigit()
        and (
            head[4:10] in (b"1AY&SY", b"\x17rE8P\x90")
            or (len(head) < 10 and b"1AY&SY".startswith(head[4:]))
        )
    )


def is_lzma(head: bytes) -> bool:
    """As xz tells it: three numbers in a byte, a window of 2^n or 2^n + 2^(n-1), a size that is
    none or not absurd."""
    if len(head) < 13 or head[0] >= 225:
        return False
    literal_bits, position_bits = head[0] % 9, head[0] // 9 % 5
    if literal_bits + position_bits > 4:
        return False
    window = int.from_bytes(head[1:5], "little")
    size = int.from_bytes(head[5:13], "little")
    is_round = window.bit_count() == 1 or (
        window.bit_count() == 2 and not window & (window >> 2) and bool(window & (window >> 1))
    )
    is_likely = size == 2**64 - 1 or size < 2**38
    return window >= 2**12 and is_round and is_likely


def is_zlib(head: bytes) -> bool:
    """The two bytes of RFC 1950: they are a multiple of 31 by chance in one file of many. Those of
    smaller windows are letters and brackets, so only where no text follows. One with a dictionary
    is not decoded: nobody has that."""
    if (
        len(head) < 2
        or head[0] & 0x8F != 8
        or int.from_bytes(head[:2], "big") % 31
        or head[1] & 0x20
    ):
        return False
    return head[0] == 0x78 or not _begins_text(head[2:64])


def _begins_text(head: bytes) -> bool:
    """Whether it is UTF-8 without control characters; the last letter may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return not any(c < 32 and c not in b"\t\n\r\f\x1b" for c in head)
