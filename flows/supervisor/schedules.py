"""What Prefect's server keeps of our deployments, beside what s3t.toml says.

Prefect plans the next runs of a deployment, and no more while there are as many ahead, however
far. Where its server's clock was a year ahead for a minute, nothing would run for a year. Whoever
watches (flows.supervisor.serving, watching) takes such runs out; Prefect plans anew in a minute.

Who works at the server can change a deployment, pause it, or delete it. `s3t serve` registers one
anew that is gone, or that runs another flow, with other parameters (also by a schedule of its own),
after other steps, or more or fewer at a time than one. A pause may be meant: it stays, and is told.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flows.adapters.prefect_client import PLANNED, PrefectClient, prefect_client
from flows.prefect_flows.deployments import Deployment, to_prefect

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse


_ZONE = "UTC"
_AS_REGISTERED = (
    "entrypoint",
    "parameters",
    "enforce_parameter_schema",
    "work_pool_name",
    "work_queue_name",
    "job_variables",
)
"""Members of a deployment that Prefect does not change by itself."""


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


@dataclass(frozen=True)
class Standing:
    """How deployments stand at the server, by their names, as Prefect tells them: those that it has
    no more, and those whose schedule does not run as s3t.toml says."""

    gone: frozenset[str]
    paused: frozenset[str]


def look_after(wanted: Iterable[Deployment]) -> Standing:
    """Hold each deployment against what the server has of it. One that runs anything else, or
    anything else before it, is deleted: it is gone, until somebody registers it anew."""
    gone, paused = set[str](), set[str]()
    with prefect_client() as prefect:
        for each in wanted:
            found = prefect.deployment(each.full_name)
            if found is not None and not _does(found, each):
                prefect.take_out_deployment(found)
                found = None
            if found is None:
                gone.add(each.full_name)
            elif each.cron and each.active and not _runs_by(found, each.cron):
                paused.add(each.full_name)
    return Standing(frozenset(gone), frozenset(paused))


def _does(found: "DeploymentResponse", wanted: Deployment) -> bool:
    """Whether it is as it was registered: it runs that flow with those parameters, whichever of its
    schedules begins it, with no steps before, here; and one run at a time, which a limit of none
    would stop, as a schema would that wants other parameters."""
    registered = to_prefect(wanted)
    schema = _said(registered._parameter_openapi_schema.model_dump())
    limit, options = found.global_concurrency_limit, found.concurrency_options
    return (
        all(getattr(found, name) == getattr(registered, name) for name in _AS_REGISTERED)
        and _said(found.parameter_openapi_schema or {}) == schema
        and found.storage_document_id is None
        and not found.pull_steps
        and not any(each.parameters for each in found.schedules)
        and limit is not None
        and (limit.limit, limit.active) == (1, True)
        and options is not None
        and options.collision_strategy == registered.concurrency_options.collision_strategy
    )


def _said(schema: Mapping[str, object]) -> dict[str, object]:
    """A schema without the parts that say nothing."""
    return {part: said for part, said in schema.items() if said}


def _runs_by(found: "DeploymentResponse", cron: str) -> bool:
    """Whether a schedule of this deployment is on and says so, by the time of UTC."""
    for each in found.schedules:
        is_on = each.active and not found.paused
        by = (getattr(each.schedule, "cron", ""), getattr(each.schedule, "timezone", ""))
        if is_on and by == (cron, _ZONE):
            return True
    return False


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
