"""Which entries of a ledger a period is of.

A period is a range of places: from one entry on, every one. An entry tells when it was by the clock
of that moment, and a clock that was put right (a `clock` entry) makes these times run back, so that
what was told in between would lie outside of any period by its time. Which of the two clocks was
right, nobody can say. So each entry has the latest time at which it may have been, and a period
begins with the first one that may be of it:

1. an entry that tells of a later time than all that follow, and than now, came before them: by a
   clock that ran ahead. It is as late as the next one
2. from a correction on, an entry that tells of an earlier time than one before it, which is not of
   the first kind, came after that one: the clock may as well have been put behind. It is as late as
   the next entry that tells of no earlier time than that; where there is none, as late as now
3. any other is of the time that it tells, or of the newest one before it that is no such: clocks of
   two machines differ by a little, and who tells may have waited, each by CLOCK_TOLERANCE at most.
   By so much a period begins early
"""

from collections.abc import Sequence
from datetime import datetime

from s3t_core.erasure.vocabulary import Event
from s3t_core.times import CLOCK_TOLERANCE, rfc3339


def first_place(entries: Sequence[Event], since: datetime | None, now: datetime) -> int:
    """The number of the first entry that may be of `since` (None: from the beginning) or later;
    how many there are where none is."""
    if since is None:
        return 0
    start = rfc3339(since - CLOCK_TOLERANCE)
    latest = latest_times(entries, now)
    return next((place for place, time in enumerate(latest) if time >= start), len(entries))


def latest_times(entries: Sequence[Event], now: datetime) -> list[str]:
    """Of each entry the latest time at which it may have been (RFC 3339)."""
    times = [entry["time"] for entry in entries]
    end = rfc3339(now)
    latest = _not_ahead(times, times, end)
    newest = reached = ""
    behind: list[int] = []
    for place, entry in enumerate(entries):
        if entry["type"] == "clock":
            reached = newest
        if latest[place] < reached:
            behind.append(place)
            continue
        newest = max(newest, latest[place])
        reached = ""
        latest[place] = newest
        _as_late_as(newest, behind, latest)
        behind = []
    _as_late_as(end, behind, latest)
    return _not_ahead(times, latest, end)


def _as_late_as(time: str, places: Sequence[int], latest: list[str]) -> None:
    for place in places:
        latest[place] = max(latest[place], time)


def _not_ahead(times: Sequence[str], latest: Sequence[str], now: str) -> list[str]:
    """`latest`, where whatever tells of a later time than all that follow is as late as the
    next."""
    found = list(latest)
    following = newest = now
    for place in reversed(range(len(times))):
        if times[place] > newest:
            found[place] = following
        following = found[place]
        newest = max(newest, following)
    return found
