"""The deletion-rate budget of a workspace: its state, and how long it will last at the present
request rate."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from s3t_core.capacity.budget import FLOORS, BudgetPolicy, Spent, budget_state, forecast
from s3t_core.config import Config
from s3t_core.erasure.period import latest_times
from s3t_core.erasure.state import State
from s3t_core.erasure.vocabulary import Event
from s3t_core.times import date_after, parse_time

RATE_DAYS = 30
"""The request rate is counted over so many days, or since the first data when that is less."""

WEEK = 7
"""A rate counted over fewer days is told without dates: what came in the first days says nothing of
the months to come."""

ENOUGH = 5
"""A rate counted from fewer requests is told with how many they are."""


@dataclass(frozen=True)
class Budget:
    """The deletion-rate budget of a workspace, of which the ledger tells how it was spent."""

    config: Config
    events: Callable[[], Iterable[Event]]
    now: Callable[[], datetime]

    def document(self, state: State) -> dict[str, Any] | None:
        """Where it stands, as JSON values; None before there is a release. Goes into
        certificates."""
        return budget_document(self.config, state)

    def is_spent(self, state: State) -> bool:
        """Whether it calls for a full retrain."""
        document = self.document(state)
        return bool(document and document["exhausted"])

    def forecast(self, state: State) -> dict[str, Any] | None:
        """How long it is expected to last, as JSON values; None where nothing can be foreseen."""
        return forecast_document(self.config, state, self.events(), self.now())

    def tags(self, state: State) -> dict[str, str]:
        """Both as tags of the version that serves."""
        return budget_tags(self.config, state, self.events(), self.now())


def policy_of(config: Config) -> BudgetPolicy:
    """The configured policy."""
    budget = config.deletion_budget
    return BudgetPolicy(budget.policy, budget.min_mean_depth, budget.floor, budget.max_requests)


def spent_of(state: State) -> Spent:
    """What the policies look at besides the release."""
    return Spent(state.champion.score if state.champion else None, state.requests_since_training)


def budget_document(config: Config, state: State) -> dict[str, Any] | None:
    """Where the budget stands, as JSON values; None before there is a release. Goes into
    certificates."""
    if state.release is None:
        return None
    filled = (
        {s.shard for s, v in state.dataset.slice_versions.items() if v.rows}
        if state.dataset
        else set()
    )
    empty = frozenset(state.release.shards()) - filled
    budget = budget_state(policy_of(config), state.release, empty, spent_of(state))
    return {
        "policy": budget.policy,
        "exhausted": budget.exhausted,
        "dead_shards": list(budget.dead_shards),
        "live_depths": list(budget.live_depths),
        "certain_requests_left": budget.certain_requests,
    }


def forecast_document(
    config: Config, state: State, events: Iterable[Event], now: datetime
) -> dict[str, Any] | None:
    """Expected requests left with a 5 to 95% interval, and dates at the present rate, with how many
    requests that rate was counted from, over how many days; None where nothing is foreseen.

    `dates` is None while there is no rate to count with: no request came yet, or none that found
    anybody.
    """
    if state.release is None or state.dataset is None:
        return None
    rows = {(s.shard, s.index): v.rows for s, v in state.dataset.slice_versions.items()}
    prior = None if isinstance(config.system.prior, str) else config.system.prior
    shapes = {len(r.sequence) for r in state.release.replicas} | {state.dataset.slices}
    if shapes != {config.system.slices} or len(state.release.shards()) != state.dataset.shards:
        return None  # the settings were changed, and data or version do not stand under them yet
    found = forecast(policy_of(config), state.release, rows, prior, spent_of(state))
    if found is None:
        return None
    numbers = {k: round(v, 1) for k, v in asdict(found).items()}
    counted, days = requests_counted(events, state, now)
    rate = counted / days
    dates = (
        {k: date_after(now, min(v / rate, 365_000)) for k, v in numbers.items()} if rate else None
    )
    return {
        "requests": numbers,
        "requests_per_day": round(rate, 3),
        "counted_requests": counted,
        "counted_days": round(days, 1),
        "dates": dates,
    }


def requests_counted(events: Iterable[Event], state: State, now: datetime) -> tuple[int, float]:
    """How many requests were acknowledged, over how many days: the last 30, or since the first data
    came when that is less, at least one. One whose erasure found nobody spends no budget, nor does
    one that ended without an erasure: they are not counted."""
    times: list[float] = []
    began = 0.0
    told = list(events)
    for event, time in zip(told, latest_times(told, now), strict=True):
        age = (now - parse_time(time)).total_seconds() / 86_400
        if event["type"] == "request":
            outcome = state.outcomes.get(event["request"])
            if outcome is not None and outcome[0] == "nothing found":
                continue
            if event["request"] in state.closed:
                continue
            times.append(age)
        elif event["type"] == "dataset" and not began:
            began = age
    window = min(max(began, 1.0), RATE_DAYS)
    counted = sum(1 for age in times if age <= window)
    return counted, window


def budget_tags(
    config: Config, state: State, events: Iterable[Event], now: datetime
) -> dict[str, str]:
    """The budget as tags of the version that serves."""
    budget, expected = budget_document(config, state), forecast_document(config, state, events, now)
    if budget is None:
        return {}
    tags = {
        "s3t.budget.policy": budget["policy"],
        "s3t.budget.exhausted": str(budget["exhausted"]).lower(),
        "s3t.budget.certain_requests": _known(budget["certain_requests_left"]),
    }
    if expected:
        numbers = expected["requests"]
        tags |= {
            "s3t.budget.expected_requests": f"{numbers['mean']} ({numbers['p5']} to "
            f"{numbers['p95']})",
            "s3t.budget.expected_until": expected["dates"]["mean"]
            if expected["dates"]
            else "no request rate yet",
        }
        tags["s3t.budget.counted_requests"] = str(expected["counted_requests"])
    return tags


def render_budget(budget: dict[str, Any]) -> str:
    """One line for a person."""
    if budget["exhausted"]:
        return "exhausted; `s3t retrain`"
    parts = []
    if budget.get("certain_requests_left") is not None:
        left = budget["certain_requests_left"]
        parts.append(
            f"at least {left} more request(s) are certain to fit, each of one person"
            if left
            else "the next request may spend it"
        )
    expected = budget.get("forecast")
    if expected:
        numbers = expected["requests"]
        parts.append(f"{numbers['mean']:g} are expected ({numbers['p5']:g} to {numbers['p95']:g})")
        if expected["dates"] and expected["counted_days"] >= WEEK:
            parts.append(
                f"until about {expected['dates']['mean']} ({expected['dates']['p5']} to "
                f"{expected['dates']['p95']}) at {expected['requests_per_day']:g} requests a day"
                f"{_render_basis(expected['counted_requests'])}"
            )
    elif budget["policy"] in FLOORS:
        parts.append("how long the score holds cannot be foreseen")
    return ", ".join(parts) or "counted once a version serves"


def _render_basis(counted: int) -> str:
    if counted >= ENOUGH:
        return ""
    few = "one request" if counted == 1 else f"only {counted} requests"
    return f", a rate that rests on {few}: the dates say little yet"


def _known(value: int | None) -> str:
    return "unknown" if value is None else str(value)
