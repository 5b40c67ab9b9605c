"""A request by HTTP, approved by HTTP, erased by schedule while everything is killed, told to its
receiver once, certified by what an outsider can check: `s3t serve` and nothing else."""

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases.callbacks import retry, send_due, signing_secret
from flows.use_cases.tokens import make_token
from flows.use_cases.verifying import verify_path
from flows.workspace.workspace import Workspace
from tests.flows.conftest import CANARY, people, write_csv
from tests.flows.test_serving import _served, _until
from tests.receiver import check_signed, receiving

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(900)]
REQUESTS = "/api/v1/requests"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_from_a_request_by_http_to_its_callback_under_kill_9(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    with receiving(tmp_path / "receiver") as receiver:
        door = _free_port()
        place = make_place(
            erasure={
                "cron": "* * * * *",
                "at_once_hours": 0,
                "needs_approval": True,
                "staleness_seconds": 4,
            },
            deletion_budget={"policy": "all_shards_dead"},
            api={"port": door},
            callbacks={"targets": [receiver.url]},
        )
        ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people(canary=True))))
        train(str(place.root))
        tokens = {r: make_token(place, r, [r], 1)["token"] for r in ("asks", "decides", "audits")}
        port = _free_port()

        def ask(role: str, how: str, path: str, **body: object) -> httpx.Response:
            headers = {"authorization": f"Bearer {tokens[role]}"}
            url = f"http://127.0.0.1:{door}{path}"
            return httpx.request(how, url, headers=headers, timeout=60, json=body or None)

        def is_open() -> bool:
            try:
                return ask("asks", "GET", "/health/ready").status_code == 200
            except httpx.HTTPError:
                return False

        with _served(place.root, port) as (run, _):
            _until(is_open)
            asked = ask("asks", "POST", REQUESTS, subjects=[CANARY])
            assert asked.status_code == 201
            (request,) = asked.json()["requests"]
            approved = ask("decides", "POST", f"{REQUESTS}/{request['id']}/approve")
            assert approved.json()["state"] == "pending"
            _until(lambda: place.ledger.state().plan is not None)  # the schedule came
            run.kill()
            run.wait()
        assert request["id"] not in place.ledger.state().certified
        with _served(place.root, port):
            _until(lambda: request["id"] in place.ledger.state().certified)
            _until(is_open)
            file = tmp_path / "certificate.json"
            found = ask("audits", "GET", f"{REQUESTS}/{request['id']}/certificate")
            file.write_bytes(found.content)
        place = Workspace(place.root)
        retry(place, [])  # `s3t serve` itself finds no such host
        send_due(place, receiver.sender())
        send_due(place, receiver.sender())
        assert len(receiver.ids) == len(set(receiver.ids))
        secret, kinds = signing_secret(place, receiver.url), []
        for headers, body, _ in receiver.came:
            check_signed(secret, headers, body)
            assert CANARY.encode() not in body
            message = json.loads(body)
            kinds += [message["type"]] if message["data"].get("id") == request["id"] else []
        assert sorted(kinds) == ["request.accepted", "request.approved", "request.closed"]
    assert verify_path(file, place.keys_dir / "signing.pub")["valid"]
    assert CANARY.encode() not in file.read_bytes()
    left = subprocess.run(
        ["grep", "-rlF", CANARY, str(place.root)], capture_output=True, text=True, check=False
    )
    assert left.stdout == ""
