"""Tests that take minutes begin first, whatever the number of processes."""

from dataclasses import dataclass
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from tests.ordering import dealt


@dataclass(frozen=True)
class Item:
    nodeid: str
    minutes: bool

    def get_closest_marker(self, name: str) -> object:
        return self.minutes if name == "minutes" else None


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=40), st.integers(1, 5))
def test_every_test_is_run_once_and_those_of_minutes_begin_first(
    told: list[tuple[str, bool]], parts: int
) -> None:
    items = [Item(f"{module}.py::{n}", minutes) for n, (module, minutes) in enumerate(told)]
    ordered = dealt(cast(list[Any], items), parts)
    assert sorted(i.nodeid for i in ordered) == sorted(i.nodeid for i in items)
    modules = list(dict.fromkeys(i.nodeid[0] for i in items if i.minutes))
    size = -(-len(items) // parts)
    heavy = [n for n, i in enumerate(ordered) if cast(Any, i).minutes]
    if (
        len(heavy) <= size
        and len(modules) <= parts
        and all(sum(i.minutes for i in items if i.nodeid[0] == m) <= size for m in modules)
    ):
        begins = {n // size for n in heavy if n % size == 0} if size else set()
        assert len(begins) == len(modules)
