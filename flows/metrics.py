"""Metrics for Prometheus, read from the ledger and the request book at each scrape: counts, days,
depths; no ids.

`s3t_up` is 0 when the workspace cannot be read, and then nothing else is told: old numbers would
look like good ones.

They are told to who sends the token in `.s3t/metrics-token`, which is made on first use
(flows.adapters.guard). `/health` answers everybody, and says nothing but that it answers.
"""

import hmac
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client.asgi import make_asgi_app
from prometheus_client.core import CollectorRegistry, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from flows.adapters.credentials import read_secret, secret_of
from flows.adapters.doors import Door, serve_until
from flows.adapters.guard import App, Receive, Scope, Send
from flows.use_cases.requests import list_requests
from flows.use_cases.status import status_of
from flows.workspace.workspace import Workspace
from s3t_core.erasure.closing import STATES
from s3t_core.erasure.ledger import correction_of, fold
from s3t_core.errors import S3TError
from s3t_core.times import parse_time

TOKEN = "metrics-token"  # noqa: S105  # the name of its file
"""Under `.s3t`: what a scrape must bring as its bearer token."""
_OPEN = frozenset({"/health"})
_PLAIN = [(b"content-type", b"text/plain; charset=utf-8")]


class WorkspaceCollector(Collector):
    """The metrics of one workspace, opened anew at each scrape: settings and keys may have
    changed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every family."""
        try:
            workspace = Workspace(self._root)
            families = [*_families(workspace), *_callbacks(workspace)]
        except (
            Exception
        ):  # a volume that is not mounted, a database that is gone: whatever it is, it must be told
            yield _one("s3t_up", "whether the workspace can be read", 0)
            return
        yield _one("s3t_up", "whether the workspace can be read", 1)
        yield from families


def registry_of(workspace: Workspace) -> CollectorRegistry:
    """A registry with the workspace's metrics alone."""
    registry = CollectorRegistry()
    registry.register(WorkspaceCollector(workspace.root))
    return registry


def text_of(workspace: Workspace) -> str:
    """The metrics once, in Prometheus's text format."""
    return generate_latest(registry_of(workspace)).decode()


def serve(
    workspace: Workspace,
    door: Door,
    stop: threading.Event,
    began: Callable[[str], None] = lambda _: None,
) -> None:
    """Answer scrapes of /metrics at this door until stopped; `began` gets the address. Raises
    UsageError for a port that is taken, WorkspaceError for a token that others can read."""
    token, pages = workspace.state_dir / TOKEN, _pages(registry_of(workspace))
    secret_of(token)

    def knows(given: bytes) -> bool:
        """By the file as it is now: whoever removes it, or opens it to others, takes it back."""
        with suppress(S3TError, OSError):
            return hmac.compare_digest(given, read_secret(token).encode())
        return False

    serve_until(
        door, lambda port: door.guarded(pages, port, "bearer", "", _OPEN, knows=knows), stop, began
    )


def _pages(registry: CollectorRegistry) -> App:
    """/metrics and /health, and nothing else."""
    answer = make_asgi_app(registry)

    async def pages(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/metrics":
            await answer(scope, receive, send)
            return
        status, body = (200, b"ok") if scope["path"] in _OPEN else (404, b"not found")
        await send({"type": "http.response.start", "status": status, "headers": _PLAIN})
        await send({"type": "http.response.body", "body": body})

    return pages


def _callbacks(workspace: Workspace) -> Iterator[GaugeMetricFamily]:
    if not workspace.config.callbacks.targets:
        return
    family = _labelled("s3t_callbacks", "callbacks by state; dead ones were given up", "state")
    for state, count in workspace.outbox.counts().items():
        family.add_metric([state], count)
    yield family


def _families(workspace: Workspace) -> Iterator[GaugeMetricFamily]:
    status, requests = status_of(workspace), list_requests(workspace)
    counts = _labelled("s3t_requests", "deletion requests by state", "state")
    for state in sorted({*STATES, *(r["state"] for r in requests)}):
        counts.add_metric([state], sum(r["state"] == state for r in requests))
    yield counts
    days = _labelled(
        "s3t_request_days_left",
        "days until the next open request is due, by state; negative when overdue",
        "state",
    )
    for state in sorted({r["state"] for r in requests if r["days_left"] is not None}):
        days.add_metric(
            [state],
            min(
                r["days_left"]
                for r in requests
                if r["state"] == state and r["days_left"] is not None
            ),
        )
    yield days
    took = _seconds_to_cut_over(workspace)
    if took is not None:
        yield _one(
            "s3t_cut_over_seconds",
            "last erasure: from the oldest request in it to the move of the alias",
            took,
        )
    depths = _labelled(
        "s3t_live_depth", "live depth of the replica that answers, by shard", "shard"
    )
    for shard in status["shards"]:
        depths.add_metric([str(shard["shard"])], shard["live_depth"])
    yield depths
    if status["accuracy"] is not None:
        yield _one(
            "s3t_held_out_accuracy",
            "held-out accuracy of the version that serves, 0 to 1",
            status["accuracy"],
        )
    score = status["score"]
    if score is not None:
        held_out = _labelled(
            "s3t_held_out_score", "held-out score of the version that serves, by metric", "metric"
        )
        held_out.add_metric([score["metric"]], score["value"])
        yield held_out
    yield from _budget(status["deletion_budget"])
    retrain = status["full_retrain"]
    yield _one(
        "s3t_full_retrain_wanted",
        "whether a full retrain is wanted and not finished",
        retrain is not None,
    )
    yield _one(
        "s3t_full_retrain_failed",
        "whether the full retrain that is wanted has failed",
        retrain is not None and retrain["state"] == "failed",
    )
    yield _one(
        "s3t_erasure_open",
        "whether an erasure was begun and is not certified",
        status["interrupted_erasure"],
    )
    yield _one("s3t_training_records", "training records", status["records"])
    yield _one(
        "s3t_ledger_entries", "entries of the ledger; it only grows", status["ledger"]["size"]
    )


def _budget(budget: dict[str, Any]) -> Iterator[GaugeMetricFamily]:
    yield _one(
        "s3t_deletion_budget_exhausted",
        "whether the deletion-rate budget is spent",
        budget["exhausted"],
    )
    left = _labelled(
        "s3t_deletion_budget_requests_left",
        "requests that the budget still takes: certain, and expected",
        "estimate",
    )
    if budget.get("certain_requests_left") is not None:
        left.add_metric(["certain"], budget["certain_requests_left"])
    for name, value in ((budget.get("forecast") or {}).get("requests") or {}).items():
        left.add_metric([name], value)
    yield left


def _seconds_to_cut_over(workspace: Workspace) -> float | None:
    """None too where the clock was put right in between, or since: nobody can say how long it
    took."""
    received: dict[str, str] = {}
    asked: dict[str, list[str]] = {}
    before = took = None
    moved = ""
    told = workspace.ledger.events()
    for event in (*told, *correction_of(fold(told), workspace.now())):
        if event["type"] == "request":
            received[event["request"]] = event["time"]
        elif event["type"] == "clock":
            received, before, took = {}, None, None
        elif event["type"] == "planned":
            asked[event["plan"]["plan_id"]] = event["plan"]["requests"]
        elif event["type"] == "step" and event["step"] == "cut over":
            before, moved = took, event["moved"]
            took = _longest(received, asked[event["plan_id"]], moved)
        elif event["type"] == "deferred":
            rest = [r for r in asked[event["plan_id"]] if r not in event["requests"]]
            asked[event["plan_id"]] = rest
            took = _longest(received, rest, moved) if rest else before
    return took


def _longest(received: Mapping[str, str], requests: list[str], moved: str) -> float | None:
    """Seconds from when the first of some requests was received until the alias moved, None where
    nobody can say."""
    known = [received.get(r) for r in requests]
    if None in known:
        return None
    first = min(parse_time(r) for r in known if r)
    return max(0.0, (parse_time(moved) - first).total_seconds())


def _one(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=float(value))


def _labelled(name: str, about: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, labels=[label])
