"""Audit as a Prefect flow: the scheduled compliance report (flows/use_cases/auditing.py)."""

from pathlib import Path
from typing import Any

from flows.prefect_flows.quiet import flow
from flows.use_cases.auditing import report_and_replay
from flows.workspace.workspace import enter


@flow(name="audit")
def audit(
    workspace: str, since: str = "31d", out: str = "", replay_stages: int = 0
) -> dict[str, Any]:
    """Report about the time since `since` into `out` (default: `.s3t/reports/DAY`), after a replay
    of some stages."""
    return report_and_replay(enter(Path(workspace)), since, out, replay_stages)
