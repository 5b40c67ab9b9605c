"""`s3t plan`: the document, the search for a target, the plot, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from flows.use_cases import planning
from flows.use_cases.planning import question_of
from s3t_core.capacity.deletion_rate import RequestStream
from s3t_core.capacity.plan import (
    candidates,
    plan_layout,
    same_rate_layouts,
    sustained_requests_per_day,
    work_of,
)
from s3t_core.capacity.sequences import cyclic_sequences
from s3t_core.config import Config
from s3t_core.domain import Topology
from s3t_core.errors import UsageError

NOTHING: dict[str, Any] = {
    "shards": "",
    "slices": "",
    "budget": "",
    "sequences": "",
    "prior": "",
    "subjects": 0,
    "once": False,
    "zipf": 0.0,
    "burst": 1,
    "skew": "",
    "tiers": "",
    "records": 0,
    "policy": "",
    "floor": 0.0,
    "requests_per_day": 0.0,
    "target": "",
    "rows_per_second": 0.0,
    "runs": 2000,
    "seed": 0,
}


def _plan(config: Config | None = None, **given: Any) -> dict[str, Any]:
    config = config or Config()
    document = planning.plan(question_of(config, 0, {**NOTHING, **given}), config)
    return json.loads(json.dumps(document))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("shards", "slices", "budget", "lemma"),
    [(5, 4, 1, 45.67), (5, 4, 2, 58.58), (5, 4, 4, 71.95), (5, 6, 6, 119.85)],
)
def test_the_document_holds_the_lemma_and_a_simulation_that_agrees(
    shards: int, slices: int, budget: int, lemma: float
) -> None:
    found = _plan(shards=str(shards), slices=str(slices), budget=str(budget))
    assert found["deletion_rate"] == lemma
    simulated = found["requests_to_all_dead"]
    assert abs(simulated["mean"] - lemma) < 3 * simulated["standard_error"]
    assert simulated["p5"] < simulated["mean"] < simulated["p95"]
    assert len(found["sequences"]) == budget and found["plans"][0]["deletion_rate"] == lemma


@pytest.mark.parametrize(("slices", "budget"), [(3, 3), (4, 4), (6, 6), (6, 1)])
def test_a_replica_costs_what_the_formula_says(slices: int, budget: int) -> None:
    work = work_of(
        Topology(2, slices, budget), cyclic_sequences(slices, budget), (1 / slices,) * slices
    )
    assert work.cost == pytest.approx(budget * (slices + 1) * (2 * slices + 1) / (6 * slices))
    assert work.slice_visits == 2 * budget * slices * (slices + 1) // 2
    assert work.stages == 2 * budget * slices


def test_shared_prefixes_are_counted_once() -> None:
    sequences = cyclic_sequences(3, 6)  # six orders begin with three slices
    assert work_of(Topology(1, 3, 6), sequences, (1 / 3,) * 3).stages == 3 + 6 + 6
    assert _plan(shards="1", slices="3", budget="6")["stage_trainings"] == 15


def test_repair_reads_what_one_request_silences() -> None:
    """Count by hand: cyclic L=3 B=3, a request silences stages p..L of each sequence, position p
    equally often."""
    work = work_of(Topology(1, 3, 3), cyclic_sequences(3, 3), (1 / 3,) * 3)
    assert work.repair_visits == pytest.approx((1 + 2 + 3) + (2 + 3) + 3)
    assert sustained_requests_per_day(work, 100, 2, 280) == pytest.approx(
        86_400 / (14 * 100 * 2 / 280)
    )
    assert _plan(shards="1", slices="3", budget="3", records=300, rows_per_second=280.0)[
        "sustained_requests_per_day"
    ] == pytest.approx(8640)


def test_the_trade_between_shards_and_slices_is_shown() -> None:
    assert [(t.shards, t.slices, t.budget) for t in same_rate_layouts(Topology(3, 2, 2), 6)] == [
        (1, 6, 6),
        (2, 3, 3),
        (3, 2, 2),
        (6, 1, 1),
    ]
    rows = _plan(shards="3", slices="2", budget="2")["same_rate"]
    assert [r["share_of_records_seen_by_a_model"] for r in rows] == [1.0, 0.5, 0.333, 0.167]
    costs = [r["training_cost"] for r in rows]
    assert costs == sorted(costs, reverse=True) and costs[-1] == 1.0


def test_the_target_finds_the_cheapest_layout_that_lasts() -> None:
    given: dict[str, Any] = {"target": "30 days", "requests_per_day": 0.3, "runs": 1000}
    found = _plan(**given)
    assert found["requests_to_first_dead_shard"]["p5"] >= 9
    cost = found["training_cost"]
    for other in candidates((1, 2, 3, 4, 5, 6, 8, 10), range(1, 7), None):
        plan = plan_layout(other, "cyclic", RequestStream(), 400)
        if plan.work.cost < cost - 1e-9:
            assert plan.lasts("first_shard_dead").p5 < 10  # 400 runs: one request of slack


def test_a_target_that_nothing_meets_names_the_best_there_is() -> None:
    with pytest.raises(
        UsageError, match=r"got none: the longest is [\d.]+ days with shards=\d slices=3 budget=3"
    ):
        _plan(target="1 year", requests_per_day=5.0, shards="1,2", slices="2,3", runs=200)
    with pytest.raises(
        UsageError, match=r"the longest is .* budget=6"
    ):  # more sequences than slices may be asked for
        _plan(target="1 year", requests_per_day=5.0, shards="1", slices="3", budget="6", runs=200)
    few = _plan(
        target="1 day",
        requests_per_day=0.1,
        shards="4,1",
        slices="6,1",
        budget="1",
        subjects=20,
        once=True,
        runs=200,
    )
    assert (
        few["shards"] * few["slices"] < 24
    )  # a layout with too many slices for 20 subjects is passed over
    assert (
        _plan(target="1 day", requests_per_day=1.0, floor=4.0, policy="mean_depth", runs=200)[
            "slices"
        ]
        >= 4
    )
    with pytest.raises(UsageError, match="--requests-per-day"):
        _plan(target="90 days")


def test_requests_become_dates() -> None:
    dates = _plan(shards="5", slices="4", budget="4", requests_per_day=2.0)["dates"][
        "first_dead_shard"
    ]
    assert dates["p5"]["days"] < dates["mean"]["days"] == pytest.approx(9.6, abs=0.4)
    assert len(dates["mean"]["date"]) == 10
    assert planning.date_after(planning.datetime(2026, 1, 1), math.inf) == "later than 9999"


def test_tiers_of_a_skew_make_the_prior_of_the_sequences() -> None:
    found = _plan(
        shards="5", slices="4", budget="4", skew="0.2:0.8", tiers="1,3", sequences="bms", runs=1000
    )
    assert found["requests_to_all_dead"]["mean"] == pytest.approx(250, abs=12)
    assert [s[0] for s in found["sequences"]] != [0, 1, 2, 3]


def test_collateral_and_floor_are_in_the_document() -> None:
    found = _plan(shards="2", slices="2", budget="2", records=400, floor=1.5, policy="mean_depth")
    assert found["collateral_records"][0] == {"requests": 1, "records": 99}
    assert found["requests_to_mean_depth_floor"]["mean"] < found["requests_to_all_dead"]["mean"]


def test_storage_counts_two_factors_per_module_and_a_head_per_stage() -> None:
    config = Config()
    found = _plan(config, shards="3", slices="3", budget="3")
    layers = 2 * 2 * (2 * 384 * 8)  # two layers a block, two modules
    assert found["storage"] == {"stages": 27, "bytes": 27 * 4 * (layers + 385 * 2)}
    assert "6 layers" in _plan(config, shards="1", slices="8", budget="2")["storage"]["problem"]


def test_several_layouts_stand_side_by_side(tmp_path: Path) -> None:
    found = _plan(shards="2,3", slices="2", budget="1,2", runs=200)
    assert [(p["shards"], p["budget"]) for p in found["plans"]] == [(2, 1), (2, 2), (3, 1), (3, 2)]
    assert "deletion_rate" not in found
    text = "\n".join(planning.render_plan(found, 120))
    assert "lemma 1" in text and "first dead shard" in text
    for ending, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".html", b"<!doctype html")):
        planning.write_plot(tmp_path / f"plot{ending}", found["plans"])
        assert (tmp_path / f"plot{ending}").read_bytes().startswith(magic)
    with pytest.raises(UsageError, match="expected --plot to end in"):
        planning.write_plot(tmp_path / "plot.pdf", found["plans"])


def test_a_suggested_prior_counts_each_slice_once_more_than_it_was_silenced() -> None:
    assert planning.suggest_prior([], 3) == (0.3333, 0.3333, 0.3334)
    assert planning.suggest_prior([0, 0, 2], 3) == (0.5, 0.1667, 0.3333)
    with pytest.raises(UsageError, match="expected a workspace"):
        planning.suggested(None, "", "")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"shards": "x"}, "--shards as a number"),
        ({"budget": "0"}, "budget from 1 to"),
        ({"budget": "7"}, "from 1 to 6"),
        ({"slices": "0"}, "at least one shard and one slice"),
        ({"budget": "4", "sequences": "bms"}, "Latin square"),
        ({"sequences": "best"}, "cyclic, bms, optimised"),
        ({"prior": "0.5,0.4,0.3"}, "sums to 1"),
        ({"prior": "0.5,0.5"}, "3 of them, got 2"),
        ({"prior": "0.5,0.5,0"}, "above 0"),
        ({"prior": "a,b,c"}, "--prior as numbers"),
        ({"skew": "0.2"}, "--skew as two numbers"),
        ({"tiers": "1,3"}, "with a skew"),
        ({"skew": "0.2:0.8", "tiers": "1.5,1.5"}, "two slice counts"),
        ({"skew": "0.2:0.8", "tiers": "1,3", "slices": "3"}, "sum to 3"),
        ({"floor": 9.0, "policy": "mean_depth"}, "at most 3"),
        ({"policy": "mean_depth"}, "--floor"),
        ({"subjects": 20}, "enough subjects for every one of the 9 slices"),
        ({"policy": "never"}, "--policy"),
        ({"once": True}, "--subjects"),
        ({"target": "soon"}, "a time such as"),
        ({"requests_per_day": -1.0}, "at least 0"),
        ({"requests_per_day": math.nan}, "at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        _plan(**given)
