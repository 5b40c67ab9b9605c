"""Metrics tell counts and days and never who; the alerts ask for metrics that there are."""

import re
import threading
import urllib.request
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from flows.metrics import serve, text_of
from flows.requests import take_requests, withdraw
from flows.wiring import Workspace, create_workspace
from s3t_core.config import Config

INFRA = Path(__file__).parents[2] / "infra"


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    create_workspace(tmp_path / "w", Config.model_validate({"data": {"labels": ["a", "b"]}}))
    return Workspace(tmp_path / "w")


def _values(text: str) -> dict[str, float]:
    return {s.name + "".join(f"{{{v}}}" for v in s.labels.values()): s.value
            for f in text_string_to_metric_families(text) for s in f.samples}


def test_requests_are_counted_by_state_with_the_days_that_are_left(place: Workspace) -> None:
    first, _ = take_requests(place, ["person 17", "person 18"])
    withdraw(place, first.request_id)
    text = text_of(place)
    found = _values(text)
    assert found["s3t_up"] == 1 and found["s3t_requests{pending}"] == 1 and found["s3t_requests{withdrawal}"] == 1
    assert 29 <= found["s3t_request_days_left{pending}"] <= 30
    assert found["s3t_ledger_entries"] == len(place.ledger.events())
    assert "person" not in text and first.request_id not in text and first.subject not in text


def test_a_workspace_that_cannot_be_read_is_down_and_tells_nothing_old(place: Workspace) -> None:
    (place.state_dir / "s3t.db").unlink()
    assert _values(text_of(place)) == {"s3t_up": 0.0}


def test_it_answers_scrapes_until_it_is_stopped(place: Workspace) -> None:
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stop = threading.Event()
    serving = threading.Thread(target=serve, args=(place, "127.0.0.1", port, stop))
    serving.start()
    try:
        for _ in range(50):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    assert b"s3t_up 1.0" in answer.read()
                break
            except OSError:
                threading.Event().wait(0.1)
        else:
            pytest.fail("no scrape was answered")
    finally:
        stop.set()
        serving.join(10)
    assert not serving.is_alive()


def test_every_alert_asks_for_a_metric_that_there_is() -> None:
    told = set(re.findall(r'"(s3t_[a-z_]+)"', (INFRA.parent / "flows" / "metrics.py").read_text()))
    rules = yaml.safe_load((INFRA / "alerts.yaml").read_text())["groups"][0]["rules"]
    asked = {name for rule in rules for name in re.findall(r"s3t_[a-z_]+", rule["expr"])}
    assert len(rules) >= 6 and asked <= told
