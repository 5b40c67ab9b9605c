"""What an erase run costs, in short (`make bench-erase`: at full size). Bounds are wide: machines
are noisy."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.erase import WORDS, erase_timed
from flows.use_cases.taking import take_requests
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.creating import create_workspace
from s3t_core.config import Config
from s3t_core.domain import DeletionRequest, RowCounts
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.plan import plan_to_json
from s3t_core.erasure.planner import plan_erasure
from tests.crash.driver import Unmeasured
from tests.flows.prepared import Prepared
from tests.held import HELD
from tests.unit.erasure.test_executor import make_world


def test_planning_100_000_requests_takes_seconds() -> None:
    world = make_world()
    requests = [
        DeletionRequest(
            f"req-{n}",
            f"{n:064x}",
            "",
            f"{n:064x}",
            "c",
            "2026-01-01T00:00:00Z",
            "2026-01-31T00:00:00Z",
        )
        for n in range(100_000)
    ]
    state = world.ledger.state()
    found = world.datasets.find([], state.datasets, set())
    findings = replace(found, rows={r.request_id: RowCounts(training=1) for r in requests})
    begun = time.monotonic()
    plan = plan_erasure(requests, findings, state, "plan-1", world.ports.clock.now(), 7)
    assert len(plan_to_json(plan)["requests"]) == 100_000
    assert time.monotonic() - begun < 5


@pytest.mark.long
@pytest.mark.slow
def test_one_request_is_planned_and_cut_over_within_seconds(prepared: Prepared) -> None:
    place = prepared.fresh()
    ports = replace(erase_ports(place, HELD), evaluator=Unmeasured())
    eraser = Eraser(ports, erase_policy(place), lambda: "plan-1")
    begun = time.monotonic()
    plan = eraser.plan()
    assert plan is not None and plan.deactivated
    eraser.run_step("cut over", plan)
    assert time.monotonic() - begun < 5  # about one, on an idle machine


@pytest.mark.long
@pytest.mark.slow
def test_the_cost_beyond_rewriting_grows_slowly_with_requests(tmp_path: Path) -> None:
    """2,000 among 20,000: a fifth of the real size must take less than a fifth of a generous
    bound."""
    from flows.prefect_flows.ingest import ingest

    place = create_workspace(
        tmp_path / "w",
        Config.model_validate(
            {"data": {"labels": ["a", "b"]}, "erasure": {"staleness_seconds": 0}}
        ),
        b"\x09" * 32,
    )
    source = tmp_path / "source.csv"
    source.write_text(
        "subject,text,label\n"
        + "".join(
            f"subject-{n:06d},{' '.join(WORDS[(n * k) % 5000] for k in range(3, 12))} "
            f"{n},{'ab'[n % 2]}\n"
            for n in range(20_000)
        )
    )
    ingest(str(place.root), str(source))
    source.unlink()
    take_requests(place, [f"subject-{n:06d}" for n in range(0, 20_000, 10)])
    took = erase_timed(place)
    assert len(place.ledger.state().certified) == 2000
    assert sum(took.values()) - took["rewrite"] < 30, took
