"""`s3t serve` and infra/prefect.yaml bring up the same deployments, of flows that exist, with
parameters they take."""

import inspect
from pathlib import Path

import pytest
import yaml

from flows.prefect_flows.deployments import deployments, to_prefect
from flows.prefect_flows.triggering import FULL_RETRAIN
from flows.supervisor.serving import ERASE
from s3t_core.config import Config
from s3t_core.errors import ConfigError

OURS = deployments(Config(), Path("/somewhere"))


def test_every_deployment_names_a_flow_and_its_parameters() -> None:
    for each in OURS:
        flow = each.flow()
        assert set(each.parameters) <= set(inspect.signature(flow.fn).parameters)
        assert "prefect" not in each.description.casefold()  # what it does, for whoever looks
    names = {f"{d.flow().name}/{d.name}" for d in OURS}
    assert {FULL_RETRAIN, ERASE} <= names
    assert {d.name for d in OURS} >= {"ingest", "erase", "full-retrain", "repair", "audit"}


def test_the_work_pool_file_says_the_same() -> None:
    document = yaml.safe_load((Path(__file__).parents[3] / "infra" / "prefect.yaml").read_text())
    *same, watch = document["deployments"]  # `s3t serve` watches by itself
    assert [d["name"] for d in same] == [d.name for d in OURS]
    assert (
        watch["entrypoint"] == "flows.supervisor.watching.watch"
        and watch["schedules"][0]["cron"] == "* * * * *"
    )
    for told, ours in zip(same, OURS, strict=True):
        assert told["entrypoint"] == ours.entrypoint and told["concurrency_limit"]["limit"] == 1
        assert told["parameters"] | {"workspace": "/somewhere"} == ours.parameters
        schedules = [(s["cron"], s.get("active", True)) for s in told.get("schedules", [])]
        assert schedules == ([(ours.cron, ours.active)] if ours.cron else [])


def test_as_prefect_gets_them_one_runs_at_a_time_and_repair_is_off() -> None:
    made = {d.name: to_prefect(d) for d in OURS}
    assert all(m.concurrency_limit == 1 for m in made.values())
    assert [s.active for s in made["erase"].schedules] == [True]
    assert [s.active for s in made["repair"].schedules] == [False]
    assert (
        made["ingest"].schedules == []
        and made["erase"].entrypoint == "flows.prefect_flows.erase.erase"
    )


def test_a_schedule_that_is_none_is_refused() -> None:
    wrong = next(
        d
        for d in deployments(
            Config.model_validate({"erasure": {"cron": "every night"}}), Path("/x")
        )
        if d.name == "erase"
    )
    with pytest.raises(ConfigError, match="cron"):
        to_prefect(wrong)
