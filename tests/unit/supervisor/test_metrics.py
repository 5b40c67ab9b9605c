"""Metrics tell counts and days and never who; the alerts ask for metrics that there are."""

import re
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from flows.adapters.doors import Door
from flows.metrics import TOKEN, serve, text_of
from flows.use_cases.requests import withdraw
from flows.use_cases.taking import take_requests
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.errors import UsageError, WorkspaceError
from s3t_core.files import write_new

INFRA = Path(__file__).parents[3] / "infra"


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    create_workspace(tmp_path / "w", Config.model_validate({"data": {"labels": ["a", "b"]}}))
    return Workspace(tmp_path / "w")


def _values(text: str) -> dict[str, float]:
    return {
        s.name + "".join(f"{{{v}}}" for v in s.labels.values()): s.value
        for f in text_string_to_metric_families(text)
        for s in f.samples
    }


def test_requests_are_counted_by_state_with_the_days_that_are_left(place: Workspace) -> None:
    first, _ = take_requests(place, ["person 17", "person 18"])
    withdraw(place, first.request_id)
    text = text_of(place)
    found = _values(text)
    assert (
        found["s3t_up"] == 1
        and found["s3t_requests{pending}"] == 1
        and found["s3t_requests{withdrawal}"] == 1
    )
    assert 29 <= found["s3t_request_days_left{pending}"] <= 30
    assert found["s3t_ledger_entries"] == len(place.ledger.events())
    assert "person" not in text and first.request_id not in text and first.subject not in text


def test_a_workspace_that_cannot_be_read_is_down_and_tells_nothing_old(place: Workspace) -> None:
    (place.state_dir / "s3t.db").unlink()
    assert _values(text_of(place)) == {"s3t_up": 0.0}


def test_it_answers_scrapes_with_the_token_until_it_is_stopped(place: Workspace) -> None:
    stop, address = threading.Event(), []
    serving = threading.Thread(target=serve, args=(place, Door(), stop, address.append))
    serving.start()
    try:
        for _ in range(100):
            if address:
                break
            threading.Event().wait(0.1)
        token = (place.state_dir / TOKEN).read_text().strip()
        assert b"s3t_up 1.0" in _scrape(address[0], {"Authorization": f"Bearer {token}"})
        with pytest.raises(urllib.error.HTTPError, match="401"):
            _scrape(address[0], {})
        for take_back in (lambda file: file.chmod(0o644), Path.unlink):
            take_back(place.state_dir / TOKEN)
            with pytest.raises(urllib.error.HTTPError, match="401"):
                _scrape(address[0], {"Authorization": f"Bearer {token}"})
        assert not (place.state_dir / TOKEN).exists(), "a question makes nothing"
        write_new(place.state_dir / TOKEN, b"a-token-of-more-than-16-characters\n")
        another = {"Authorization": "Bearer a-token-of-more-than-16-characters"}
        assert b"s3t_up 1.0" in _scrape(address[0], another)
    finally:
        stop.set()
        serving.join(10)
    assert not serving.is_alive()


def _scrape(address: str, headers: dict[str, str]) -> bytes:
    request = urllib.request.Request(f"{address}/metrics", headers=headers)  # noqa: S310  # http, as it told us
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
        return bytes(answer.read())


def test_a_token_that_others_can_read_is_refused(place: Workspace) -> None:
    (place.state_dir / TOKEN).write_text("a-token-of-more-than-16-characters")
    (place.state_dir / TOKEN).chmod(0o644)
    with pytest.raises(WorkspaceError, match="readable by its owner only"):
        serve(place, Door(), threading.Event())


def test_a_port_that_is_taken_is_told(place: Workspace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="pass another with --port"):
            serve(place, Door(port=taken.getsockname()[1]), threading.Event())


def test_every_alert_asks_for_a_metric_that_there_is() -> None:
    told = set(re.findall(r'"(s3t_[a-z_]+)"', (INFRA.parent / "flows" / "metrics.py").read_text()))
    rules = yaml.safe_load((INFRA / "alerts.yaml").read_text())["groups"][0]["rules"]
    asked = {name for rule in rules for name in re.findall(r"s3t_[a-z_]+", rule["expr"])}
    assert len(rules) >= 6 and asked <= told
