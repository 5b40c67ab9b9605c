"""Metrics for Prometheus, read from the ledger and the request book at each scrape: counts, days, depths; no ids.

`s3t_up` is 0 when the workspace cannot be read, and then nothing else is told: old numbers would look like good ones.
"""

import threading
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CollectorRegistry, GaugeMetricFamily
from prometheus_client.exposition import generate_latest, start_http_server
from prometheus_client.registry import Collector

from flows.requests import list_requests
from flows.status import status_of
from flows.wiring import Workspace
from s3t_core.times import parse_time

STATES = ("pending", "held", "awaiting approval", "erased", "withdrawal", "rejection")


class WorkspaceCollector(Collector):
    """The metrics of one workspace, opened anew at each scrape: settings and keys may have changed."""

    def __init__(self, root: Any) -> None:
        self._root = root

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every family."""
        try:
            families = list(_families(Workspace(self._root)))
        except Exception:  # a volume that is not mounted, a database that is gone: whatever it is, it must be told
            yield _one("s3t_up", "whether the workspace can be read", 0)
            return
        yield _one("s3t_up", "whether the workspace can be read", 1)
        yield from families


def registry_of(place: Workspace) -> CollectorRegistry:
    """A registry with the workspace's metrics alone."""
    registry = CollectorRegistry()
    registry.register(WorkspaceCollector(place.root))
    return registry


def text_of(place: Workspace) -> str:
    """The metrics once, in Prometheus's text format."""
    return generate_latest(registry_of(place)).decode()


def serve(place: Workspace, host: str, port: int, stop: threading.Event) -> None:
    """Answer scrapes at http://HOST:PORT/metrics until stopped. Raises OSError for a port that is taken."""
    server, thread = start_http_server(port, host, registry_of(place))
    try:
        stop.wait()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _families(place: Workspace) -> Iterator[GaugeMetricFamily]:
    status, requests = status_of(place), list_requests(place)
    counts = _labelled("s3t_requests", "deletion requests by state", "state")
    for state in sorted({*STATES, *(r["state"] for r in requests)}):
        counts.add_metric([state], sum(r["state"] == state for r in requests))
    yield counts
    days = _labelled("s3t_request_days_left", "days until the next open request is due, by state; negative when "
                     "overdue", "state")
    for state in sorted({r["state"] for r in requests if r["days_left"] is not None}):
        days.add_metric([state], min(r["days_left"] for r in requests
                                     if r["state"] == state and r["days_left"] is not None))
    yield days
    took = _seconds_to_cut_over(place)
    if took is not None:
        yield _one("s3t_cut_over_seconds", "last erasure: from the oldest request in it to the move of the alias", took)
    depths = _labelled("s3t_live_depth", "live depth of the replica that answers, by shard", "shard")
    for shard in status["shards"]:
        depths.add_metric([str(shard["shard"])], shard["live_depth"])
    yield depths
    if status["accuracy"] is not None:
        yield _one("s3t_held_out_accuracy", "held-out accuracy of the version that serves, 0 to 1", status["accuracy"])
    yield from _budget(status["deletion_budget"])
    retrain = status["full_retrain"]
    yield _one("s3t_full_retrain_wanted", "whether a full retrain is wanted and not finished", retrain is not None)
    yield _one("s3t_full_retrain_failed", "whether the full retrain that is wanted has failed",
               retrain is not None and retrain["state"] == "failed")
    yield _one("s3t_erasure_open", "whether an erasure was begun and is not certified", status["interrupted_erasure"])
    yield _one("s3t_training_records", "training records", status["records"])
    yield _one("s3t_ledger_entries", "entries of the ledger; it only grows", status["ledger"]["size"])


def _budget(budget: dict[str, Any]) -> Iterator[GaugeMetricFamily]:
    yield _one("s3t_deletion_budget_exhausted", "whether the deletion-rate budget is spent", budget["exhausted"])
    left = _labelled("s3t_deletion_budget_requests_left", "requests that the budget still takes: certain, and expected",
                     "estimate")
    if budget.get("certain_requests_left") is not None:
        left.add_metric(["certain"], budget["certain_requests_left"])
    for name, value in ((budget.get("forecast") or {}).get("requests") or {}).items():
        left.add_metric([name], value)
    yield left


def _seconds_to_cut_over(place: Workspace) -> float | None:
    received = {r.request_id: r.received for r in place.requests.all()}
    asked: dict[str, list[str]] = {}
    took = None
    for event in place.ledger.events():
        if event["type"] == "planned":
            asked[event["plan"]["plan_id"]] = event["plan"]["requests"]
        elif event["type"] == "step" and event["step"] == "cut over":
            began = min(parse_time(received[r]) for r in asked[event["plan_id"]])
            took = (parse_time(event["moved"]) - began).total_seconds()
    return took


def _one(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=float(value))


def _labelled(name: str, about: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, labels=[label])
