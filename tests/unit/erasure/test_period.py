"""A period leaves out no entry that was of it, however the clock was wrong meanwhile."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_core.erasure.ledger import corrected
from s3t_core.erasure.period import first_place
from s3t_core.times import CLOCK_TOLERANCE, parse_time, rfc3339

BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Told:
    """A ledger whose entries are told by a clock that is wrong by so much, and when each really
    was."""

    def __init__(self) -> None:
        self.entries: list[dict[str, str]] = []
        self.real: list[datetime] = []
        self.newest = ""

    def tell(self, real: datetime, wrong: timedelta = timedelta()) -> None:
        """One more entry, and the correction that comes with it."""
        more = corrected([{"type": "replayed", "time": rfc3339(real + wrong)}], self.newest)
        for each in more:
            if each["type"] == "clock":
                self.newest = ""
            self.newest = max(self.newest, each["time"])
        self.entries += more
        self.real += [real] * len(more)

    def first(self, since: datetime, now: datetime) -> int:
        """Where the period begins."""
        return first_place(self.entries, since, now)


@pytest.mark.parametrize("wrong", [-400, 300, 700], ids="{:+} days".format)
@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_what_was_told_by_a_wrong_clock_is_of_the_period_in_which_it_was(
    wrong: int, before: int, after: int
) -> None:
    told = Told()
    for day in range(before):
        told.tell(BEGAN + day * DAY)
    for hour in range(2):
        told.tell(BEGAN + 10 * DAY + timedelta(hours=hour), wrong * DAY)
    for day in range(after):
        told.tell(BEGAN + (20 + day) * DAY)
    if wrong < 0 and not before:
        return  # nobody can tell: what came first was told by a clock that was behind
    now = BEGAN + 30 * DAY
    assert told.real[told.first(BEGAN + 9 * DAY, now)] == BEGAN + 10 * DAY
    if after or wrong > 0:
        # nor of one that begins much later: the clock of now shows which was right
        began = told.first(BEGAN + 29 * DAY, now)
        assert began == len(told.entries) or (wrong > 0 and not after)


def test_everything_is_of_a_period_from_the_beginning() -> None:
    told = Told()
    told.tell(BEGAN, DAY)
    told.tell(BEGAN)
    assert first_place(told.entries, None, BEGAN) == 0


def test_machines_whose_clocks_differ_a_little_begin_no_period_early() -> None:
    told = Told()
    told.tell(BEGAN)
    told.tell(BEGAN, -CLOCK_TOLERANCE)
    told.tell(BEGAN + 60 * DAY)
    assert told.first(BEGAN + 30 * DAY, BEGAN + 61 * DAY) == 2


STEPS = st.tuples(st.integers(0, 40), st.sampled_from([0, 0, 0, -400, -3, 2, 500]))


@given(st.lists(STEPS, min_size=1, max_size=12), st.integers(0, 200), st.integers(0, 40))
def test_nothing_that_was_of_a_period_is_left_out(
    steps: list[tuple[int, int]], since_days: int, ago: int
) -> None:
    """Unless a clock was behind and nothing shows it: no right entry before it told of a later
    time."""
    told, real, hidden = Told(), BEGAN, set[int]()
    newest = ""  # that a right clock told
    for days, wrong in steps:
        real += days * DAY
        told.tell(real, wrong * DAY)
        last = len(told.entries) - 1
        shown = newest and parse_time(newest) - parse_time(told.entries[last]["time"])
        if wrong < 0 and not (shown and shown > CLOCK_TOLERANCE):
            hidden.add(last)
            if "clock" in {entry["type"] for entry in told.entries[-2:]}:
                hidden.add(last - 1)
        if wrong == 0:
            newest = rfc3339(real)
    for place in reversed(range(len(told.entries) - 1)):  # ahead of time, and put right by such
        if place + 1 in hidden and told.entries[place]["time"] > rfc3339(told.real[place]):
            hidden.add(place)
    now = real + ago * DAY
    since = BEGAN + since_days * DAY
    first = told.first(since, now)
    left_out = {place for place in range(first) if told.real[place] >= since}
    assert left_out <= hidden


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(0, 200))
def test_where_no_clock_was_wrong_it_begins_with_the_first_of_that_time(
    steps: list[int], since_days: int
) -> None:
    told, real = Told(), BEGAN
    for days in steps:
        real += days * DAY
        told.tell(real)
    since = BEGAN + since_days * DAY
    wanted = next((i for i, at in enumerate(told.real) if at >= since), len(told.real))
    assert told.first(since, real) == wanted
