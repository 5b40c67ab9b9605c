"""Steps are carried out alike, as they stand and as Prefect's tasks: one contract, both."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from flows.prefect_flows.quiet import flow
from flows.prefect_flows.steps import PrefectSteps
from flows.use_cases.steps import AsTheyStand, Step, Steps
from s3t_core.errors import DataError, TrainingError

pytestmark = pytest.mark.slow

Carry = Callable[[Callable[[Steps], Any]], Any]


@pytest.fixture(params=["as they stand", "tasks of Prefect's"])
def carry(request: pytest.FixtureRequest) -> Carry:
    """Calls something with steps to carry out."""
    if request.param == "as they stand":
        return lambda work: work(AsTheyStand())
    request.getfixturevalue("prefect_server")

    def carried(work: Callable[[Steps], Any]) -> Any:
        return flow(name="steps")(lambda: work(PrefectSteps()))()

    return carried


def _step(key: str, work: Callable[[], None], *after: str) -> Step:
    return Step(key, "a kind", f"step {key}", after, work)


def test_one_step_returns_what_it_returned_and_raises_what_it_raised(carry: Carry) -> None:
    def fails() -> None:
        raise DataError("expected x, got y")

    given = object()
    assert carry(lambda steps: steps.run("a step", lambda: given)) is given
    with pytest.raises(DataError, match="expected x, got y"):
        carry(lambda steps: steps.run("a step", fails))


def test_a_step_begins_when_those_before_it_are_done_and_others_go_on_beside(carry: Carry) -> None:
    ended: list[str] = []
    together = threading.Barrier(2, timeout=20)

    def work(key: str, beside: bool = False) -> Callable[[], None]:
        def do() -> None:
            if beside:
                together.wait()
            ended.append(key)

        return do

    steps = [
        _step("a", work("a", beside=True)),
        _step("b", work("b", beside=True)),
        _step("c", work("c"), "a", "done long ago"),
        _step("d", work("d"), "b", "c"),
    ]
    assert carry(lambda all_of: all_of.run_all(steps)) == 0
    assert sorted(ended) == ["a", "b", "c", "d"] and ended.index("c") > ended.index("a")
    assert ended[-1] == "d"


def test_what_comes_after_a_step_that_failed_is_not_done_and_the_rest_is(carry: Carry) -> None:
    ended: list[str] = []

    def fails() -> None:
        raise TrainingError("expected a stage, got none")

    steps = [
        _step("a", fails),
        _step("b", lambda: ended.append("b"), "a"),
        _step("c", lambda: ended.append("c")),
    ]
    with pytest.raises(TrainingError, match="expected a stage"):
        carry(lambda all_of: all_of.run_all(steps))
    assert ended == ["c"]
