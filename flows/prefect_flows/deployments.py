"""The flows as Prefect deployments: what `s3t serve` brings up. infra/prefect.yaml says the same
for a work pool.

Each runs one at a time; the workspace lock and the lease guard the rest. Parameters are paths and
numbers, never ids or rows: Prefect keeps them.
"""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.adapters.prefect_client import prefect_client
from s3t_core.config import Config
from s3t_core.errors import ConfigError, WorkspaceError

WAIT_SECONDS = 3600
"""How long a scheduled run waits for a command that changes the workspace."""


@dataclass(frozen=True)
class Deployment:
    """One flow, when it runs ("" = when it is asked for), and with what. `active`: whether the
    schedule is on."""

    entrypoint: str
    name: str
    description: str
    cron: str = ""
    active: bool = True
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """As Prefect tells it: FLOW/DEPLOYMENT."""
        return f"{self.flow().name}/{self.name}"

    def flow(self) -> Any:
        """The flow itself."""
        module, function = self.entrypoint.rsplit(".", 1)
        return getattr(importlib.import_module(module), function)


def deployments(config: Config, workspace: Path) -> list[Deployment]:
    """Every deployment of a workspace."""
    place = {"workspace": str(workspace)}
    waiting = {**place, "wait_seconds": WAIT_SECONDS}
    return [
        Deployment(
            "flows.prefect_flows.ingest.ingest",
            "ingest",
            "take a snapshot of the data at `source`",
            parameters=place,
        ),
        Deployment(
            "flows.prefect_flows.train.train",
            "train",
            "train what is missing and serve it",
            parameters=place,
        ),
        Deployment(
            "flows.prefect_flows.erase.erase",
            "erase",
            "carry out every pending request",
            config.erasure.cron,
            parameters=waiting,
        ),
        Deployment(
            "flows.prefect_flows.retrain.retrain",
            "full-retrain",
            "when the deletion-rate budget is spent: erase starts it",
            parameters=waiting,
        ),
        Deployment(
            "flows.prefect_flows.repair.repair",
            "repair",
            "train again what erasures silenced; its schedule is off",
            "0 4 * * *",
            active=False,
            parameters={**waiting, "minutes": 60},
        ),
        Deployment(
            "flows.prefect_flows.audit.audit",
            "audit",
            "the compliance report",
            config.audit.cron,
            parameters={
                **place,
                "since": config.audit.since,
                "replay_stages": config.audit.replay_stages,
            },
        ),
    ]


def refuse_another_workspace(workspace: str) -> dict[str, Any]:
    """A step of `prefect deploy` (infra/prefect.yaml). Raises WorkspaceError when the server's
    deployments are another workspace's: theirs would be replaced, and its schedule would stop
    without a word."""
    with prefect_client() as prefect:
        for each in deployments(Config(), Path(workspace)):
            there = prefect.deployment(f"{each.flow().name}/{each.name}")
            if there and there.parameters.get("workspace") not in (None, workspace):
                raise WorkspaceError(
                    "expected a Prefect server without deployments of another workspace, got one "
                    "with them: they would be replaced. Deploy to a server of this workspace's "
                    "own; if the workspace has moved here, delete the old deployments first "
                    "(`prefect deployment delete NAME`)"
                )
    return {}


def to_prefect(deployment: Deployment) -> Any:
    """As Prefect's runner serves it."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.schedules import Schedule
    from prefect.types.entrypoint import EntrypointType

    schedules = []
    if deployment.cron:
        try:
            CronSchedule(cron=deployment.cron)
        except ValueError:
            raise ConfigError(
                f"expected a cron expression such as '0 3 * * *' for the {deployment.name} "
                f"deployment, got {deployment.cron!r}"
            ) from None
        schedules = [Schedule(cron=deployment.cron, timezone="UTC", active=deployment.active)]
    return deployment.flow().to_deployment(
        name=deployment.name,
        schedules=schedules,
        parameters=deployment.parameters,
        description=deployment.description,
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
        ),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
