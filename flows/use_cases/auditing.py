"""Audit: the scheduled compliance report, after a replay of some live stages."""

from pathlib import Path
from typing import Protocol

from flows.use_cases.replaying import Replayed, replay
from flows.use_cases.reporting import Reported, parse_since, write_report
from flows.use_cases.status import Watched, registry_problems


class Audited(Replayed, Reported, Watched, Protocol):
    """What is looked over on a schedule."""


def report_and_replay(
    workspace: Audited, since: str, out: str, replay_stages: int
) -> dict[str, object]:
    """Report about the time since `since` into `out` ("": a new directory in `.s3t/reports`), after
    a replay of some stages."""
    if replay_stages and workspace.ledger.state().champion is not None:
        replay(workspace, replay_stages)
    told = write_report(
        workspace,
        parse_since(since, workspace.clock.now()),
        Path(out) if out else None,
        goes_on=None if out else workspace.reports_dir,
    )
    return {
        **told,
        "registry": registry_problems(workspace),
    }
