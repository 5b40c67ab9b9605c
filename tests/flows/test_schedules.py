"""What Prefect planned while its clock was ahead keeps nothing from running when it is right."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.schedules import CronSchedule

from flows.adapters.prefect_client import PrefectClient
from flows.prefect_flows.deployments import Deployment, deployments, to_prefect
from flows.supervisor import watching
from flows.supervisor.schedules import (
    _AS_REGISTERED,
    Standing,
    _planned,
    look_after,
    take_out_far_runs,
)
from flows.workspace.workspace import Workspace

ERASE, AUDIT, REPAIR = "erase/erase", "audit/audit", "repair/repair"


@pytest.fixture
def client(make_place: Callable[..., Workspace]) -> Iterator[SyncPrefectClient]:
    place = make_place()
    for each in deployments(place.config, place.root):
        if f"{each.name}/{each.name}" in (ERASE, AUDIT, REPAIR):
            to_prefect(each).apply()
    with get_client(sync_client=True) as client:
        for name in (ERASE, AUDIT, REPAIR):
            for run in _planned(PrefectClient(client), name):
                client.delete_flow_run(run.id)
        yield client


def _plan(client: SyncPrefectClient, name: str, ahead: timedelta) -> None:
    """As Prefect's scheduler does at that time."""
    days = 3 if name == ERASE else 100
    begin = datetime.now(UTC) + ahead
    told = {
        "start_time": begin.isoformat(),
        "end_time": (begin + timedelta(days=days)).isoformat(),
        "min_runs": 3,
        "max_runs": 3,
    }
    deployment = client.read_deployment_by_name(name).id
    client._client.post(f"/deployments/{deployment}/schedule", json=told).raise_for_status()


def _times(client: SyncPrefectClient, name: str) -> list[datetime]:
    planned = _planned(PrefectClient(client), name)
    return [run.expected_start_time for run in planned if run.expected_start_time]


@pytest.mark.long_but_first(every=3)
@pytest.mark.parametrize("ahead", [3, 29, 700])
@pytest.mark.parametrize("name", [ERASE, AUDIT])
def test_runs_that_were_planned_under_a_clock_that_was_ahead_are_taken_out(
    client: SyncPrefectClient, name: str, ahead: int
) -> None:
    far = timedelta(days=ahead if name == ERASE else ahead + 62)
    _plan(client, name, far)
    before = _times(client, name)
    assert len(before) >= 3 and min(before) > datetime.now(UTC) + far - timedelta(days=1)
    assert take_out_far_runs([ERASE, AUDIT]) == [name]
    assert _times(client, name) == []
    _plan(client, name, timedelta())
    near = _times(client, name)
    assert take_out_far_runs([ERASE, AUDIT]) == [] and _times(client, name) == near


@pytest.mark.parametrize("name", [ERASE, AUDIT])
def test_runs_that_are_planned_as_the_schedule_wants_them_stay(
    client: SyncPrefectClient, name: str
) -> None:
    _plan(client, name, timedelta())
    near = _times(client, name)
    assert len(near) >= 3
    assert (
        take_out_far_runs([ERASE, AUDIT, REPAIR, "no/such"]) == [] and _times(client, name) == near
    )
    first = _planned(PrefectClient(client), name)[0]
    client.delete_flow_run(first.id)  # the next one has just begun
    assert take_out_far_runs([ERASE, AUDIT]) == [] and _times(client, name) == near[1:]


def test_a_run_that_is_late_hides_none_that_is_far(client: SyncPrefectClient) -> None:
    _plan(client, ERASE, timedelta(days=-1))
    late = [t for t in _times(client, ERASE) if t < datetime.now(UTC)]
    for run in _planned(PrefectClient(client), ERASE):
        if run.expected_start_time and run.expected_start_time > datetime.now(UTC):
            client.delete_flow_run(run.id)
    _plan(client, ERASE, timedelta(days=700))
    assert late and take_out_far_runs([ERASE]) == [ERASE]
    assert _times(client, ERASE) == late


@pytest.fixture
def wanted(client: SyncPrefectClient) -> list[Deployment]:
    """What the server has of ours."""
    (place,) = {
        client.read_deployment_by_name(name).parameters["workspace"] for name in (ERASE, AUDIT)
    }
    every = deployments(Workspace(Path(place)).config, Path(place))
    return [each for each in every if each.full_name in (ERASE, AUDIT, REPAIR)]


def test_deployments_that_are_as_they_were_registered_stay(
    client: SyncPrefectClient, wanted: list[Deployment]
) -> None:
    ids = [client.read_deployment_by_name(each.full_name).id for each in wanted]
    assert look_after(wanted) == Standing(frozenset(), frozenset())
    assert [client.read_deployment_by_name(each.full_name).id for each in wanted] == ids


CHANGES: dict[str, dict[str, Any]] = {
    "another workspace": {"parameters": {"workspace": "/elsewhere", "wait_seconds": 3600}},
    "one parameter less": {"parameters": {}},
    "another flow": {"entrypoint": "flows.prefect_flows.train.train"},
    "steps before": {
        "pull_steps": [{"prefect.deployments.steps.run_shell_script": {"script": "id"}}]
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_deployment_that_does_anything_else_is_gone_until_it_is_registered_anew(
    client: SyncPrefectClient, wanted: list[Deployment], change: str
) -> None:
    there = client.read_deployment_by_name(ERASE)
    same = {"name", "flow_id", *_AS_REGISTERED, "parameter_openapi_schema", "concurrency_options"}
    body = there.model_dump(mode="json", include=same)
    body["concurrency_limit"] = 1
    client._client.post("/deployments/", json=body).raise_for_status()
    assert not look_after(wanted).gone, "the change alone is told"
    client._client.post("/deployments/", json=body | CHANGES[change]).raise_for_status()
    assert look_after(wanted).gone == {ERASE}
    assert look_after(wanted).gone == {ERASE}, "nobody registered it yet"
    to_prefect(next(each for each in wanted if each.full_name == ERASE)).apply()
    assert look_after(wanted) == Standing(frozenset(), frozenset())


@pytest.mark.parametrize(
    "how",
    [
        "other parameters by its schedule",
        "no run",
        "two at once",
        "a schema that none fulfils",
        "variables of a job",
    ],
)
def test_a_deployment_that_begins_other_runs_or_none_is_registered_anew(
    client: SyncPrefectClient, wanted: list[Deployment], how: str
) -> None:
    """Prefect takes a schedule's parameters before the deployment's, and a limit of 0 ends every
    run."""
    there = client.read_deployment_by_name(ERASE)
    if how == "other parameters by its schedule":
        at = f"/deployments/{there.id}/schedules/{there.schedules[0].id}"
        changed = client._client.patch(at, json={"parameters": {"workspace": "/elsewhere"}})
    elif how in ("no run", "two at once"):
        assert there.global_concurrency_limit is not None
        at = f"/v2/concurrency_limits/{there.global_concurrency_limit.id}"
        changed = client._client.patch(at, json={"limit": 0 if how == "no run" else 2})
    else:
        schema = {"type": "object", "properties": {}, "required": ["x"]}
        other: dict[str, Any] = {"parameter_openapi_schema": schema}
        if how == "variables of a job":
            other = {"job_variables": {"env": {"PYTHONPATH": "/elsewhere"}}}
        changed = client._client.patch(f"/deployments/{there.id}", json=other)
    changed.raise_for_status()
    assert look_after(wanted).gone == {ERASE}
    to_prefect(next(each for each in wanted if each.full_name == ERASE)).apply()
    assert look_after(wanted) == Standing(frozenset(), frozenset())


@pytest.mark.parametrize("how", ["paused", "the schedule is off", "another time", "no schedule"])
def test_a_pause_is_told_and_stays(
    client: SyncPrefectClient, wanted: list[Deployment], how: str
) -> None:
    there = client.read_deployment_by_name(ERASE)
    (schedule,) = there.schedules
    if how == "paused":
        client.pause_deployment(there.id)
    elif how == "the schedule is off":
        client.update_deployment_schedule(there.id, schedule.id, active=False)
    else:
        client.delete_deployment_schedule(there.id, schedule.id)
        if how == "another time":
            other = CronSchedule(cron="0 4 1 1 *", timezone="UTC")
            client.create_deployment_schedules(there.id, [(other, True)])
    assert look_after(wanted) == Standing(frozenset(), frozenset({ERASE}))
    assert client.read_deployment_by_name(ERASE).id == there.id


@pytest.mark.long
def test_a_run_that_somebody_asked_for_stays(client: SyncPrefectClient) -> None:
    from prefect.states import Scheduled

    deployment = client.read_deployment_by_name(ERASE).id
    later = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=400))
    asked = client.create_flow_run_from_deployment(deployment, state=later)
    _plan(client, ERASE, timedelta(days=700))
    assert take_out_far_runs([ERASE]) == [ERASE]
    assert client.read_flow_run(asked.id).id == asked.id
    client.delete_flow_run(asked.id)


@pytest.mark.parametrize(
    ("minutes", "lately"), [(-5, True), (-15, False), (1, True), (10**6, False)]
)
def test_a_run_that_ended_in_time_to_come_did_not_end_lately(
    monkeypatch: pytest.MonkeyPatch, minutes: int, lately: bool
) -> None:
    _tell(monkeypatch, minutes)
    assert watching._ended_lately() == lately


@pytest.mark.parametrize(
    ("minutes", "is_open"), [(-5, True), (-1, False), (1, False), (10**6, True)]
)
def test_a_run_that_begins_in_time_to_come_may_be_lost(
    monkeypatch: pytest.MonkeyPatch, minutes: int, is_open: bool
) -> None:
    _tell(monkeypatch, minutes)
    assert bool(watching._open_runs([ERASE], timedelta(minutes=2))) == is_open


def _tell(monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    state = SimpleNamespace(timestamp=datetime.now(UTC) + timedelta(minutes=minutes))

    def runs(names: Any, states: tuple[str, ...]) -> list[Any]:
        return [SimpleNamespace(state=state)]

    monkeypatch.setattr(watching, "_runs", runs)
