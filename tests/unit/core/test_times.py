"""Times at the end of the calendar are a sentence, never a traceback."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from flows.use_cases.reporting import parse_since
from s3t_core.errors import GuaranteeError, UsageError
from s3t_core.times import (
    date_after,
    due_after,
    has_passed,
    later,
    months_later,
    parse_time,
    rfc3339,
)

LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "days"),
    [
        (LAST, 1),
        (LAST, 365),
        (datetime(2026, 1, 1, tzinfo=UTC), 10**7),
        (datetime(2026, 1, 1, tzinfo=UTC), 10**12),
    ],
)
def test_a_deadline_beyond_the_calendar_is_an_error_that_says_so(
    moment: datetime, days: int
) -> None:
    with pytest.raises(GuaranteeError, match=r"before the year 10000.*set this machine's clock"):
        later(moment, days=days)


def test_what_lies_within_the_calendar_is_added() -> None:
    assert later(datetime(2026, 1, 1, tzinfo=UTC), days=30) == datetime(2026, 1, 31, tzinfo=UTC)
    assert later(LAST, seconds=0) == LAST


@pytest.mark.parametrize("days", [0, 7, 10**7, 10**12])
def test_whether_a_time_has_passed_is_told_of_any_number_of_days(days: int) -> None:
    assert has_passed("9999-12-31T23:59:58Z", LAST, days=days) is (days == 0)
    assert has_passed("2026-01-01T00:00:00Z", datetime(2026, 1, 8, tzinfo=UTC), days=days) is (
        days < 10
    )


def test_a_date_beyond_the_calendar_is_later_than_it() -> None:
    assert date_after(LAST, 1) == "later than 9999"


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"])
def test_a_beginning_that_is_in_no_calendar_here_is_bad_usage(text: str) -> None:
    with pytest.raises(UsageError, match="expected --since"):
        parse_since(text, LAST)


@pytest.mark.parametrize("text", ["9" * 20 + "d", "9" * 5000 + "h"])
def test_a_window_longer_than_the_calendar_is_all_there_is(text: str) -> None:
    assert parse_since(text, datetime(2026, 1, 1, tzinfo=UTC)) is None
    assert rfc3339(LAST.astimezone(timezone(timedelta(0)))) == "9999-12-31T23:59:59Z"


@pytest.mark.parametrize(
    ("told", "months", "expected"),
    [
        ("2026-11-29T14:00:01Z", 1, "2026-12-29T14:00:01Z"),
        ("2026-11-29T14:00:01Z", 2, "2027-01-29T14:00:01Z"),
        ("2026-12-31T00:00:00Z", 2, "2027-02-28T00:00:00Z"),
        ("2027-12-31T00:00:00Z", 2, "2028-02-29T00:00:00Z"),
        ("2026-10-31T23:59:59Z", 1, "2026-11-30T23:59:59Z"),
        ("2026-12-01T00:00:00Z", 12, "2027-12-01T00:00:00Z"),
    ],
)
def test_months_are_those_of_the_calendar(told: str, months: int, expected: str) -> None:
    assert rfc3339(months_later(parse_time(told), months)) == expected


def test_no_month_is_beyond_the_calendar() -> None:
    with pytest.raises(GuaranteeError, match="2 months after"):
        months_later(LAST, 2)


@pytest.mark.parametrize(
    ("received", "days", "due"),
    [
        ("2026-01-31T09:00:00Z", 30, "2026-02-28T09:00:00Z"),
        ("2026-02-10T09:00:00Z", 30, "2026-03-10T09:00:00Z"),
        ("2028-02-29T09:00:00Z", 31, "2028-03-29T09:00:00Z"),
        ("2026-03-01T09:00:00Z", 30, "2026-03-31T09:00:00Z"),
        ("2026-03-01T09:00:00Z", 31, "2026-04-01T09:00:00Z"),
        ("2026-02-10T09:00:00Z", 20, "2026-03-02T09:00:00Z"),
        ("2026-02-10T09:00:00Z", 45, "2026-03-27T09:00:00Z"),
    ],
)
def test_up_to_31_days_are_a_month_at_the_latest(received: str, days: int, due: str) -> None:
    assert rfc3339(due_after(parse_time(received), days)) == due


def test_no_request_of_30_days_is_due_later_than_a_month_after_it_came() -> None:
    for day in range(4 * 366):
        received = datetime(2026, 1, 1, 8, tzinfo=UTC) + timedelta(days=day)
        assert due_after(received, 30) <= months_later(received, 1)
        extended = months_later(due_after(received, 30), 2)
        assert extended <= months_later(received, 3), "with two further months, three"
