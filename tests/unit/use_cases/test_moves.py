"""Which of two databases is the workspace's, by what their ledgers tell."""

import pytest

from flows.use_cases.moves import has_moved, is_over
from s3t_core.erasure.vocabulary import Event
from s3t_core.errors import GuaranteeError


def _told(*names: str) -> list[Event]:
    return [
        {"type": "migrated", "move": name} if name.startswith("move") else {"type": name}
        for name in names
    ]


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        ("ab", "", False),
        ("", "ab", False),
        ("ab", "ab", False),
        ("", "ab move", True),
        ("ab", "ab move", False),  # killed between the two commits, or it went on meanwhile
        ("abc", "ab move", False),
        ("ab", "ab move c", True),
        ("a", "ab move c", True),  # an older one that came back with a restore
        ("a", "ab move", True),
    ],
)
def test_the_ledger_has_moved_where_the_old_one_does_not_go_on(
    old: str, new: str, moved: bool
) -> None:
    assert has_moved("move", *map(_events, (old, new))) is moved


@pytest.mark.parametrize(
    ("old", "new"), [("abx", "ab move c"), ("x", "ab move"), ("ax", "abc move")]
)
def test_two_that_both_went_on_are_for_somebody_to_decide(old: str, new: str) -> None:
    with pytest.raises(GuaranteeError, match="both went on"):
        has_moved("move", *map(_events, (old, new)))


def test_another_move_that_came_behind_ends_one() -> None:
    assert not is_over("move", _told("a", "move"))
    assert not is_over("move", _told("a", "move-before", "move"))
    assert is_over("move", _told("a", "move", "move-behind"))


def _events(told: str) -> list[Event]:
    before, move, behind = told.partition(" move")
    return _told(*before, *([move.strip()] if move else []), *behind.strip())
