"""What a command says comes next, and why: the right one of train, retrain and repair; why nothing
was measured."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows.budget import forecast_document, render_budget
from flows.use_cases.next_steps import after_erasure, thin_data, why_unmeasured
from s3t_core.config import Config
from s3t_core.domain import (
    DatasetVersion,
    Release,
    Replica,
    SliceId,
    SliceVersion,
    StageRecord,
    as_accuracy,
)
from s3t_core.erasure.state import State, VersionRecord
from s3t_core.times import rfc3339

CONFIG = Config.model_validate(
    {
        "data": {"labels": ["a", "b"], "subject": "who", "held_out_by": "who"},
        "system": {"shards": 2, "slices": 2, "budget": 1},
    }
)


def _data(
    rows: dict[tuple[int, int], int] | None = None, held_out: int = 3, mark: str = ""
) -> DatasetVersion:
    given = {(s, i): 5 for s in range(2) for i in range(2)} | (rows or {})
    return DatasetVersion(
        "v1",
        2,
        2,
        {
            SliceId(*at): SliceVersion(f"d{at}{mark if at == (0, 0) else ''}", n, "m")
            for at, n in given.items()
        },
        SliceVersion("held", held_out, "m"),
    )


def _release(*depths: int) -> Release:
    return Release(
        "release-1",
        "v1",
        tuple(
            Replica(
                shard,
                0,
                (0, 1),
                tuple(
                    StageRecord(
                        f"k{shard}{n}",
                        "x",
                        shard,
                        (0, 1)[: n + 1],
                        tuple(f"d{(shard, i)}" for i in range(n + 1)),
                    )
                    for n in range(depth)
                ),
            )
            for shard, depth in enumerate(depths)
        ),
    )


def _state(
    release: Release | None,
    dataset: DatasetVersion | None,
    accuracy: float | None = 0.5,
    **more: Any,
) -> State:
    state = State(datasets=[dataset] if dataset else [], **more)
    if release is not None:
        state.versions.append(VersionRecord.__new__(VersionRecord))
        for name, value in {
            "version": "1",
            "release": release,
            "score": as_accuracy(accuracy),
            "destroyed": False,
        }.items():
            object.__setattr__(state.versions[0], name, value)
    return state


@pytest.mark.parametrize(
    ("state", "retrain", "command", "why"),
    [
        (_state(_release(2, 2), _data()), "no", "", "every stage"),
        (_state(_release(1, 2), _data()), "no", "s3t repair", "1 of the stages"),
        (_state(_release(0, 2), _data()), "no", "s3t repair", "shard 0 no longer answers"),
        (_state(_release(0, 0), _data()), "no", "s3t retrain", "every shard is dead"),
        (_state(_release(0, 2), _data({(0, 0): 0, (0, 1): 0})), "no", "", "every stage"),
        (_state(_release(1, 2), _data({(0, 0): 0})), "no", "", "every stage"),
        (_state(_release(2, 2), _data(mark="anew")), "no", "s3t train", "ingested anew"),
        (_state(None, _data()), "no", "s3t train", "no version serves"),
        (_state(None, None), "no", "s3t ingest SOURCE", "no data yet"),
        (_state(_release(0, 2), _data()), "failed", "s3t retrain", "wanted"),
        (
            _state(_release(0, 2), _data(), retrain={"state": "wanted"}),
            "no",
            "s3t retrain",
            "wanted",
        ),
        (_state(_release(0, 2), _data()), "triggered", "s3t status", "runs elsewhere"),
    ],
)
def test_an_erasure_says_which_of_train_retrain_and_repair_follows_and_why(
    state: State, retrain: str, command: str, why: str
) -> None:
    step = after_erasure(state, CONFIG, retrain)
    assert step.command == command and why in step.why


@pytest.mark.parametrize(
    ("days", "dated"), [(1, False), (6, False), (6.9, False), (7, True), (8, True)]
)
def test_a_rate_of_less_than_a_week_gives_no_date(days: float, dated: bool) -> None:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    events = [{"type": "dataset", "time": rfc3339(now - timedelta(days=days))}] + [
        {"type": "request", "request": f"r{i}", "time": rfc3339(now - timedelta(hours=1))}
        for i in range(6)
    ]
    forecast = forecast_document(CONFIG, _state(_release(2, 2), _data()), events, now)
    told = render_budget(
        {
            "policy": "first_shard_dead",
            "exhausted": False,
            "certain_requests_left": 1,
            "forecast": forecast,
        }
    )
    assert ("until about" in told) == dated and "are expected" in told


def test_why_no_accuracy_is_known_is_told() -> None:
    none = CONFIG.model_copy(update={"data": CONFIG.data.model_copy(update={"held_out": 0.0})})
    assert why_unmeasured(_state(_release(2, 2), _data()), CONFIG) == ""
    assert "too few" in why_unmeasured(_state(_release(2, 2), _data(held_out=0), None), CONFIG)
    assert "held_out is 0" in why_unmeasured(_state(_release(2, 2), _data(held_out=0), None), none)
    assert "no live stage" in why_unmeasured(_state(_release(0, 0), _data(), None), CONFIG)


def test_data_of_two_people_is_told_to_be_thin_and_whether_to_act() -> None:
    told = thin_data(_data({(0, 0): 0, (1, 1): 0}, held_out=0), CONFIG)
    assert "2 of 4 slices are empty" in told[0] and "s3t plan" in told[0]
    assert "no row is held out (too few 'who'" in told[1]
    assert thin_data(_data(), CONFIG) == [] and thin_data(None, CONFIG) == []


@pytest.mark.parametrize(
    ("found", "nobody", "said"),
    [
        (1, 0, "rests on one request"),
        (3, 0, "rests on only 3 requests"),
        (5, 0, ""),
        (0, 4, None),
        (1, 9, "on one request"),
    ],
)
def test_a_forecast_that_rests_on_few_says_so_and_requests_that_found_nobody_are_no_rate(
    found: int, nobody: int, said: str | None
) -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    events = [{"type": "dataset", "time": rfc3339(now - timedelta(days=10))}] + [
        {"type": "request", "request": f"r{i}", "time": rfc3339(now - timedelta(days=1))}
        for i in range(found + nobody)
    ]
    outcomes: Any = {
        f"r{i}": ("erased", 2) if i < found else ("nothing found", 0) for i in range(found + nobody)
    }
    ended = [{**events[1], "request": name} for name in ("rejected", "withdrawn")]
    state = replace(
        _state(_release(2, 2), _data()),
        outcomes=outcomes,
        closed={"rejected": "rejection", "withdrawn": "withdrawal"},
    )
    forecast = forecast_document(CONFIG, state, [*events, *ended], now)
    assert forecast is not None and forecast["counted_requests"] == found
    told = render_budget(
        {
            "policy": "first_shard_dead",
            "exhausted": False,
            "certain_requests_left": 1,
            "forecast": forecast,
        }
    )
    assert (said in told) if said else ("rests on" not in told)
    assert ("until about" in told) == (said is not None)
