"""Times as this system writes and measures them: RFC 3339 in UTC, and seconds that no suspended machine stretches."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

CLOCK_TOLERANCE = timedelta(seconds=300)
"""So far may one machine's clock be behind another's, and a transaction behind the time that it carries."""
_RUNS_IN_SLEEP = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux: CLOCK_MONOTONIC stands still while the machine is suspended, CLOCK_BOOTTIME does not (clock_gettime(2))."""


def rfc3339(moment: datetime) -> str:
    """Returns a UTC time as RFC 3339 with whole seconds, `2026-11-01T12:00:00Z`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """Returns the time that `rfc3339` wrote, with its zone. Raises ValueError for anything else."""
    return datetime.fromisoformat(text)


@dataclass(frozen=True)
class Moment:
    """A moment of this machine, by two clocks: the one that no setting changes, and the one that a paused virtual
    machine sets right when it goes on. Seconds."""

    running: float
    wall: float

    @classmethod
    def now(cls) -> "Moment":
        """Returns this moment."""
        return cls(time.clock_gettime(_RUNS_IN_SLEEP), time.time())

    def seconds_until(self, later: "Moment") -> float:
        """Returns the seconds from this moment to a later one: the longer of what the two clocks say, so that neither
        sleep nor a clock that was set back makes it look shorter."""
        return max(later.running - self.running, later.wall - self.wall)
