"""Placement: a subject goes to one shard and one slice by a keyed hash of its id alone (hazards.md,
5).

With tiers, the slice is one of those that the operator gave to the subject's tier: a literal of the
config, and an attribute that the source gives with the subject. The shard stays the same.

No statistics of the records enter, so removing one record never moves another, and a subject who
returns after a retrain is placed as before. A keyed hash (HMAC-SHA256) keeps anyone without the
workspace key from choosing or guessing a slice.
"""

from s3t_core.domain import SliceId
from s3t_core.keys import keyed_digest


def place(
    placement_key: bytes,
    subject: str,
    shards: int,
    span: tuple[int, int],
) -> SliceId:
    """The slice of `subject`, within `span` (first slice index, how many): all slices, or those of
    its tier.

    Shard and slice come from separate 128-bit halves: their modulo bias is below 2^-96.
    """
    first, slices = span
    digest = keyed_digest(placement_key, "slice", subject)
    return SliceId(
        shard=int.from_bytes(digest[:16], "big") % shards,
        index=first + int.from_bytes(digest[16:], "big") % slices,
    )


def is_held_out(
    placement_key: bytes,
    value: str,
    share: float,
) -> bool:
    """Whether rows with this value of the `held_out_by` column are kept for measuring. `share` from
    0 to 1."""
    digest = keyed_digest(placement_key, "held-out", value)
    return int.from_bytes(digest[:8], "big") < int(share * 2**64)
