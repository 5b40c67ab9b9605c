"""Which B orders of its L slices a shard trains: iterative cyclic rotation (paper section 3.4, method.md).

For B <= L: rotations of one order, so that every slice stands first at most once and takes each position at most
once. Ours: for B < L they are spaced evenly. For B > L: the extra sequences are spread over the L first slices so that
the number per first slice differs by at most one, and within each the tail is rotated by the same rule, and so on:
balanced at every level of prefix, all distinct, up to L! of them.
"""

import math

from s3t_core.domain import Sequence
from s3t_core.errors import UsageError


def cyclic_sequences(slices: int, budget: int) -> list[Sequence]:
    """`budget` distinct orders of slices 0..L-1. Raises UsageError unless 1 <= budget <= L!."""
    if slices < 1:
        raise UsageError(f"expected at least one slice, got {slices}")
    most = math.factorial(slices)
    if not 1 <= budget <= most:
        raise UsageError(f"expected a budget from 1 to {most} ({slices} slices have {most} orders), got {budget}")
    if budget <= slices:
        return _rotations(tuple(range(slices)), budget)
    return _expand(tuple(range(slices)), budget)


def _rotations(order: Sequence, count: int) -> list[Sequence]:
    """`count` <= len(order) rotations of `order`, evenly spaced."""
    starts = [i * len(order) // count for i in range(count)]
    return [order[s:] + order[:s] for s in starts]


def _expand(order: Sequence, count: int) -> list[Sequence]:
    """`count` orders of the members of `order`: whole rotations while they last, then each one's tail rotated."""
    if count <= len(order):
        return _rotations(order, count)
    rotations = _rotations(order, len(order))
    shares = [count // len(order) + (i < count % len(order)) for i in range(len(order))]
    return [
        rotation[:1] + tail
        for rotation, share in zip(rotations, shares, strict=True)
        for tail in _expand(rotation[1:], share)
    ]
