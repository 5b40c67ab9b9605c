"""Schedules after a clock that was ahead.

Prefect plans the next runs of a deployment, and no more while there are as many ahead, however
far. Where its server's clock was a year ahead for a minute, nothing would run for a year. Whoever
watches (flows.supervisor.serving, watching) takes such runs out; Prefect plans anew in a minute.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flows.adapters.prefect_client import PLANNED, PrefectClient, prefect_client

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse


def take_out_far_runs(names: Iterable[str]) -> list[str]:
    """Delete the planned runs of those deployments whose first one is later than their schedule
    wants even the second. Returns their names, as Prefect tells them: FLOW/DEPLOYMENT."""
    found = []
    with prefect_client() as prefect:
        for name in names:
            deployment = prefect.deployment(name)
            if deployment is None:
                continue
            wanted, planned = _second_time(deployment), _planned(prefect, name)
            now = datetime.now(UTC)
            ahead = [(run, at) for run in planned if (at := run.expected_start_time or now) > now]
            if wanted is not None and min((at for _, at in ahead), default=now) > wanted:
                prefect.take_out(run for run, _ in ahead)
                found.append(name)
    return found


def _second_time(deployment: "DeploymentResponse") -> datetime | None:
    """When the deployment should run the time after the next; None where no schedule by cron is
    on."""
    from prefect.client.schemas.schedules import CronSchedule as ClientCron
    from prefect.server.schemas.schedules import CronSchedule

    now = datetime.now(UTC)
    planned = [each.schedule for each in deployment.schedules if each.active]
    crons = [s for s in planned if isinstance(s, ClientCron)]
    schedules = [CronSchedule(cron=s.cron, timezone=s.timezone) for s in crons]
    dates = [date for each in schedules for date in asyncio.run(each.get_dates(2, now))]
    return sorted(dates)[1] if dates else None


def _planned(prefect: PrefectClient, name: str) -> "list[FlowRun]":
    """What Prefect planned of a deployment by itself and has not begun, the first ones first."""
    found = prefect.runs(PLANNED, [name], first=True)
    return [run for run in found if run.auto_scheduled]
