"""Proofs over the ledger's tree: those of RFC 6962's example, and none for what is not so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_core.erasure.merkle import (
    consistency_proof,
    continues,
    includes,
    inclusion_proof,
    leaf_hash,
    node_hash,
    tree_head,
)

LEAVES = [leaf_hash(bytes([n])) for n in range(130)]


def test_the_proofs_of_the_rfcs_example_tree() -> None:
    a, b, c, d, e, f, j = LEAVES[:7]
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, seven = node_hash(g, h), LEAVES[:7]
    assert inclusion_proof(seven, 0) == [b, h, node_hash(i, j)]  # section 2.1.3
    assert inclusion_proof(seven, 3) == [c, g, node_hash(i, j)]
    assert inclusion_proof(seven, 4) == [f, j, k]
    assert inclusion_proof(seven, 6) == [i, k]
    assert consistency_proof(seven, 3) == [c, d, g, node_hash(i, j)]
    assert consistency_proof(seven, 4) == [node_hash(i, j)]
    assert consistency_proof(seven, 6) == [i, j, k]


def test_every_entry_of_every_small_tree_is_proved_at_its_place_only() -> None:
    for size in range(1, 34):
        leaves, root = LEAVES[:size], tree_head(LEAVES[:size])
        for index in range(size):
            proof = inclusion_proof(leaves, index)
            assert includes(root, size, index, leaves[index], proof)
            assert not any(
                includes(root, size, other, leaves[index], proof)
                for other in range(size)
                if other != index
            )
            assert not includes(root, size, index, LEAVES[99], proof)


def test_every_small_tree_continues_all_before_it() -> None:
    for size in range(34):
        root = tree_head(LEAVES[:size])
        for first in range(size + 1):
            proof = consistency_proof(LEAVES[:size], first)
            assert continues(tree_head(LEAVES[:first]), first, root, size, proof)
            if first:
                other = [LEAVES[99], *LEAVES[1:first]]  # an earlier tree with another beginning
                assert not continues(tree_head(other), first, root, size, proof)


@given(st.integers(1, 130), st.data())
def test_a_proof_with_any_hash_changed_dropped_or_added_proves_nothing(
    size: int, data: st.DataObject
) -> None:
    leaves, root = LEAVES[:size], tree_head(LEAVES[:size])
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    for proof, holds in (
        (inclusion_proof(leaves, index), lambda p: includes(root, size, index, leaves[index], p)),
        (
            consistency_proof(leaves, first),
            lambda p: continues(tree_head(leaves[:first]), first, root, size, p),
        ),
    ):
        assert holds(proof)
        for at in range(len(proof)):
            assert not holds([*proof[:at], leaf_hash(proof[at]), *proof[at + 1 :]])
            assert not holds(proof[:at] + proof[at + 1 :])
        assert not holds([*proof, leaves[0]])


@given(
    st.lists(st.binary(min_size=32, max_size=32), max_size=9),
    st.integers(-2, 20),
    st.integers(-2, 20),
)
def test_arbitrary_proofs_prove_nothing_and_break_nothing(
    proof: list[bytes], index: int, size: int
) -> None:
    assert not includes(leaf_hash(b"root"), size, index, leaf_hash(b"leaf"), proof)
    assert not continues(leaf_hash(b"a root"), index, leaf_hash(b"root"), size, proof)


def test_what_is_not_there_has_no_proof() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError):
            inclusion_proof(LEAVES[:3], index)
    for first in (-1, 4):
        with pytest.raises(IndexError):
            consistency_proof(LEAVES[:3], first)
