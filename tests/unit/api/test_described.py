"""The door answers as its description says, whatever comes (Schemathesis over its OpenAPI
document): no failure of its own, no status, member or type that is not described, nothing wrong
accepted.
That all that fits the description is accepted is not asked: what a reason may say, no schema
tells."""

import inspect
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from flows.adapters.doors import Door
from flows.adapters.tokens import ROLES
from flows.api.bodies import Basis, PlanAsked, State
from flows.api.server import serve
from flows.cli.plan import plan
from flows.use_cases.requests import withdraw
from flows.use_cases.taking import take_requests
from flows.use_cases.tokens import make_token
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.erasure.closing import BASES, STATES
from tests.unit.api.test_problems import MAY

_EXAMPLES = int(os.environ.get("S3T_TEST_EXAMPLES", "20"))


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a door with an open and a closed request behind it, and the header of a token
    of every role."""
    root: Path = tmp_path_factory.mktemp("described") / "w"
    create_workspace(
        root, Config.model_validate({"data": {"record": "id"}, "api": {"per_minute": 10_000_000}})
    )
    place = Workspace(root)
    (closed, _) = take_requests(place, ["person 17", "person 18"])
    withdraw(place, closed.request_id)
    token = make_token(place, "privacy desk", ROLES, 1)["token"]
    stop, began, told = threading.Event(), threading.Event(), list[str]()
    thread = threading.Thread(
        target=serve, args=(place, Door(), stop, lambda url: (told.append(url), began.set()))
    )
    thread.start()
    assert began.wait(60)
    yield told[0], {"Authorization": f"Bearer {token}"}
    stop.set()
    thread.join()


@pytest.fixture(scope="module")
def described(door: tuple[str, dict[str, str]]) -> Any:
    """What the door says of itself."""
    url, headers = door
    return schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json", headers=headers)


@pytest.mark.parametrize(("method", "path"), MAY)
def test_it_answers_as_it_is_described(
    described: Any, door: tuple[str, dict[str, str]], method: str, path: str
) -> None:
    address = path if path.startswith("/v1/") else f"/api/v1{path}"

    @given(case=described[address][method].as_strategy())
    @settings(
        max_examples=_EXAMPLES,
        derandomize="S3T_TEST_EXAMPLES" not in os.environ,  # the short form is the same each time
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def answers(case: Any) -> None:
        case.call_and_validate(headers=door[1], excluded_checks=[positive_data_acceptance])

    answers()


def test_what_may_be_named_is_what_the_core_knows() -> None:
    assert get_args(State) == STATES and set(get_args(Basis)) == set(BASES)
    assert PlanAsked.model_fields.keys() == set(inspect.signature(plan).parameters) - {
        "suggest_prior",
        "plot",
        "workspace",
        "as_json",
    }


def test_who_asks_again_is_answered_as_described(door: tuple[str, dict[str, str]]) -> None:
    url, headers = door
    told = httpx.get(f"{url}/api/v1/openapi.json", headers=headers).json()
    for expected in (201, 200):
        body = {"subjects": ["person 19"]}
        answer = httpx.post(f"{url}/api/v1/requests", headers=headers, json=body)
        assert answer.status_code == expected
        assert str(expected) in told["paths"]["/api/v1/requests"]["post"]["responses"]
