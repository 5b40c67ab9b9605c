"""`s3t ingest --check` in a workspace says what an ingest there comes to: beside an erasure, a
rule, what is there."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from flows.use_cases.checking import Standing, check
from flows.use_cases.ingesting import ingest_source
from flows.use_cases.taking import take_requests
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.workspace import Workspace
from s3t_core.erasure.executor import Eraser
from s3t_core.errors import DataError, UsageError
from tests.flows.conftest import people, write_csv
from tests.held import HELD

pytestmark = pytest.mark.slow
Make = Callable[..., Workspace]


def _check(place: Workspace, source: str, **how: bool) -> dict[str, Any]:
    return check(place.config, place.keys, [source], Standing(place, place.ledger.state(), **how))


def _with_a_rule(place: Workspace, *rule: str) -> Workspace:
    """Settings that say another rule for ids than that of the data."""
    config = place.config.model_copy(
        update={"data": place.config.data.model_copy(update={"id_rule": rule})}
    )
    return Workspace(place.root, config)


@pytest.mark.parametrize("record", [None, "r0"])
def test_a_check_leaves_out_whom_the_ingest_leaves_out_as_erased(
    make_place: Make, tmp_path: Path, record: str | None
) -> None:
    place = make_place()
    source = str(
        write_csv(tmp_path / "a.csv", [*people(), people()[5] | {"kind": "ugly"}, people()[9]])
    )
    ingest_source(place, HELD, source, False, 20_000)
    take_requests(place, ["person-000"], **({"record": record} if record else {}))
    place = Workspace(place.root)
    Eraser(erase_ports(place, HELD), erase_policy(place), lambda: "plan-0123456789abcdef").run()
    found = _check(place, source)
    done = asdict(ingest_source(place, HELD, source, False, 20_000))
    assert found["erased"] == done["suppressed"] == (1 if record else 2)
    assert found["admitted"] == done["records"] + done["held_out"]
    assert (found["subjects"], found["refused"]) == (done["subjects"], done["quarantined"])
    assert found["takes"] and found["fits"]


def test_a_check_refuses_the_other_rule_for_ids_that_the_ingest_refuses(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place()
    source = str(write_csv(tmp_path / "a.csv", people()))
    ingest_source(place, HELD, source, False, 20_000)
    other = _with_a_rule(place, "case")
    with pytest.raises(UsageError) as refused:
        ingest_source(other, HELD, source, False, 20_000)
    found = _check(other, source)
    assert found["problems"] == [str(refused.value)] and not found["takes"]
    assert _check(other, source, shrink=True)["takes"]


def test_a_check_refuses_the_snapshot_that_the_ingest_refuses_as_shrunk(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place()
    ingest_source(place, HELD, str(write_csv(tmp_path / "a.csv", people())), False, 20_000)
    source = str(write_csv(tmp_path / "b.csv", people()[:20]))
    with pytest.raises(DataError) as refused:
        ingest_source(place, HELD, source, False, 20_000)
    found = _check(place, source)
    assert found["problems"] == [str(refused.value)] and not found["takes"]
    assert (
        _check(place, source, shrink=True)["takes"] and _check(place, source, append=True)["takes"]
    )
    assert any("--append" in what for what in _check(place, source, append=True)["not_looked_at"])
