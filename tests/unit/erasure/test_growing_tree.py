"""A tree that grows has the roots of the tree that is hashed anew, at every size, whoever reads it
meanwhile."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_core.erasure import growing_tree
from s3t_core.erasure.growing_tree import Tree, root_at
from s3t_core.erasure.ledger import head_of
from s3t_core.erasure.merkle import leaf_hash, tree_head

LEAVES = [leaf_hash(n.to_bytes(2)) for n in range(300)]


@given(st.lists(st.integers(0, 300), min_size=1))
def test_its_roots_are_those_of_the_tree_that_is_hashed_anew(sizes: list[int]) -> None:
    grown, ends = Tree(), sorted({0, *sizes})
    for begin, end in pairwise(ends):
        assert grown.grown(begin, LEAVES[begin:end]) is grown
    size = ends[-1]
    leaves = grown.at(size)
    assert list(leaves) == LEAVES[:size] and head_of(leaves) == head_of(LEAVES[:size])
    for each in ends:
        assert leaves.root(each) == root_at(LEAVES, each) == tree_head(LEAVES[:each])
        assert grown.at(each).root(each) == tree_head(LEAVES[:each])


def test_what_was_read_stays_as_it_was_while_it_grows() -> None:
    grown = Tree().grown(0, LEAVES[:5])
    before = grown.at(5)
    grown.grown(5, LEAVES[5:200])
    assert len(before) == 5 and before.root(5) == tree_head(LEAVES[:5])
    assert before[-1] == LEAVES[4] and before[1:99] == LEAVES[1:5] and before[0] == LEAVES[0]
    for beyond in (6, -1):
        with pytest.raises(IndexError):
            before.root(beyond)
    with pytest.raises(IndexError):
        before[5]


@pytest.mark.parametrize("size", [0, 3, 4])
def test_other_entries_make_another_tree_and_leave_what_was_read(size: int) -> None:
    """As where a transaction was rolled back that somebody had read in."""
    first = Tree().grown(0, LEAVES[:7])
    before = first.at(7)
    other = first.grown(size, LEAVES[100:110])
    assert other is not first and before.root(7) == tree_head(LEAVES[:7])
    assert other.at(size + 10).root(size + 10) == tree_head([*LEAVES[:size], *LEAVES[100:110]])


def test_entries_that_are_there_are_not_added_again() -> None:
    grown = Tree().grown(0, LEAVES[:9])
    assert grown.grown(2, LEAVES[2:6]) is grown and grown.grown(9, []) is grown
    assert grown.grown(4, LEAVES[4:20]) is grown
    assert grown.at(20).root(20) == tree_head(LEAVES[:20])
    with pytest.raises(IndexError):
        grown.grown(21, LEAVES[:1])


def test_an_entry_costs_a_hash_or_two_and_a_root_as_many_as_the_tree_is_deep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted: list[bytes] = []

    def count(left: bytes, right: bytes) -> bytes:
        counted.append(left)
        return node(left, right)

    node = growing_tree.node_hash
    monkeypatch.setattr(growing_tree, "node_hash", count)
    grown = Tree().grown(0, LEAVES)
    assert len(counted) < len(LEAVES)
    counted.clear()
    assert grown.at(299).root(299) == tree_head(LEAVES[:299]) and len(counted) <= 9


def test_threads_that_tell_it_the_same_at_once_make_one_tree() -> None:
    grown = Tree()

    def tell(_: int) -> bytes:
        for begin in range(0, 300, 7):
            assert grown.grown(begin, LEAVES[begin : begin + 7]) is grown
        return grown.at(300).root(300)

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(tell, range(8))) == {tree_head(LEAVES)}
