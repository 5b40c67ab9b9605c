"""Times as this system writes and measures them: RFC 3339 in UTC, and seconds that no suspended
machine stretches."""

import time
from calendar import monthrange
from dataclasses import dataclass
from datetime import MAXYEAR, datetime, timedelta

from s3t_core.errors import GuaranteeError

CLOCK_TOLERANCE = timedelta(seconds=300)
"""So far may one machine's clock be behind another's, and a transaction behind the time that it
carries."""
_RUNS_IN_SLEEP = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux: CLOCK_MONOTONIC stands still while the machine is suspended, CLOCK_BOOTTIME does not
(clock_gettime(2))."""


def rfc3339(moment: datetime) -> str:
    """Returns a UTC time as RFC 3339 with whole seconds, `2026-11-01T12:00:00Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """Returns the time that `rfc3339` wrote, with its zone. Raises ValueError for anything else."""
    return datetime.fromisoformat(text)


def later(moment: datetime, **span: float) -> datetime:
    """Returns the time that is so much later (`days=`, `hours=`, as timedelta takes them). Raises
    GuaranteeError where the calendar ends before: no deadline can be counted by such a clock, or by
    such a setting."""
    try:
        return moment + timedelta(**span)
    except OverflowError:
        raise GuaranteeError(
            f"expected a time before the year 10000, got one that is {_in_words(span)} after "
            f"{rfc3339(moment)}; set this machine's clock, or the setting that says so much, then "
            "run the command again"
        ) from None


def months_later(moment: datetime, months: int) -> datetime:
    """Returns the same day and time so many months on, or that month's last day where it has no
    such day. Raises GuaranteeError where the calendar ends before."""
    years, month = divmod(moment.month - 1 + months, 12)
    if moment.year + years > MAXYEAR:
        raise GuaranteeError(
            f"expected a time before the year 10000, got one that is {months} months after "
            f"{rfc3339(moment)}; set this machine's clock, then run the command again"
        )
    last = monthrange(moment.year + years, month + 1)[1]
    return moment.replace(year=moment.year + years, month=month + 1, day=min(moment.day, last))


_LONGEST_MONTH_DAYS = 31


def due_after(received: datetime, days: int) -> datetime:
    """Returns when a request is due that has `days`. Up to 31 stand for a month, and no request is
    due later than a month after it came, whichever month that is: on the same day of the next one,
    or on its last (GDPR article 12(3); Regulation 1182/71, article 3(2)(c))."""
    due = later(received, days=days)
    return min(due, months_later(received, 1)) if days <= _LONGEST_MONTH_DAYS else due


def _in_words(span: dict[str, float]) -> str:
    return " and ".join(f"{value:g} {unit}" for unit, value in span.items())


def date_after(start: datetime, days: float) -> str:
    """Returns the date so many days on, "later than 9999" where the calendar ends before."""
    try:
        return (start + timedelta(days=days)).date().isoformat()
    except OverflowError:
        return "later than 9999"


def has_passed(begin: str, now: datetime, **span: float) -> bool:
    """Returns whether so much time has passed since `begin`, however much it is."""
    unit, value = next(iter(span.items()))
    return (now - parse_time(begin)) / timedelta(**{unit: 1}) >= value


@dataclass(frozen=True)
class Moment:
    """A moment of this machine, by two clocks: the one that no setting changes, and the one that a
    paused virtual machine sets right when it goes on. Seconds."""

    running: float
    wall: float

    @classmethod
    def now(cls) -> "Moment":
        """Returns this moment."""
        return cls(time.clock_gettime(_RUNS_IN_SLEEP), time.time())

    def seconds_until(self, later: "Moment") -> float:
        """Returns the seconds from this moment to a later one: the longer of what the two clocks
        say, so that neither sleep nor a clock that was set back makes it look shorter."""
        return max(later.running - self.running, later.wall - self.wall)
