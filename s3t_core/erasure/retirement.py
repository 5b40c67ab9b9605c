"""Retirement: which model versions and stages nobody needs any more.

A clean version, one without a stage that saw an erased record, is kept for some days after the
alias moved on, so that one can go back to it; a stage as long as a version that is kept, or the
present data and settings, call for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from s3t_core.erasure.state import State, VersionRecord
from s3t_core.times import has_passed


@dataclass(frozen=True)
class Retirement:
    """What goes, and what stays. `versions` are destroyed, `kept` those that are not; `stages`:
    keys that nothing needs, `digests` those of them under which no stage that stays is stored."""

    versions: tuple[str, ...]
    kept: tuple[VersionRecord, ...]
    stages: tuple[str, ...]
    digests: frozenset[str]


def versions_to_destroy(
    state: State,
    tainted: set[str],
    now: datetime,
    keep_days: int,
) -> tuple[str, ...]:
    """The versions that hold a stage of `tainted` (keys), and those that were superseded more than
    so many days ago. The one that serves is not superseded."""
    return tuple(
        version.version
        for version in state.versions
        if not version.destroyed
        and (version.release.stage_keys() & tainted or _is_expired(version, now, keep_days))
    )


def plan_retirement(
    state: State,
    wanted: Iterable[str],
    now: datetime,
    keep_days: int,
) -> Retirement:
    """What may go once a training has registered its version: expired versions, and every stage
    that is neither wanted (keys) nor in a version that stays."""
    versions = versions_to_destroy(state, set(), now, keep_days)
    kept = tuple(v for v in state.versions if not v.destroyed and v.version not in versions)
    needed = set(wanted).union(*(v.release.stage_keys() for v in kept))
    unneeded = tuple(k for k in state.stages if k not in needed)
    live = {s.digest for k, s in state.stages.items() if k in needed}
    gone = frozenset(state.stages[k].digest for k in unneeded)
    return Retirement(versions, kept, unneeded, gone - live)


def _is_expired(
    version: VersionRecord,
    now: datetime,
    keep_days: int,
) -> bool:
    return bool(version.superseded) and has_passed(version.superseded, now, days=keep_days)


@dataclass(frozen=True)
class Trusted:
    """Seconds that a loaded model may trust a version which serves no longer, with a registry that
    answers and without; 0 where none served before."""

    staleness: float
    offline: float


def still_trusted(
    versions: Iterable[VersionRecord],
) -> Trusted:
    """What holds of the versions that served before: one of them may have seen whoever is to be
    erased, though nothing of it is left here. How much of it has passed nobody can say: the time
    that one was superseded may be of another machine, whose clock was behind."""
    gone = [v for v in versions if v.superseded]
    return Trusted(
        max((v.staleness for v in gone), default=0.0),
        max((v.offline for v in gone), default=0.0),
    )
