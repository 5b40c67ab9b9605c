"""Evidence at the door: what is fetched is what the ledger recorded, or nothing."""

import json

import pytest

from flows.use_cases.requests import reject, withdraw
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace.workspace import Workspace
from tests.unit.api.conftest import Client

REQUESTS = "/api/v1/requests"


@pytest.mark.parametrize("change", ["another's", "cut", "gone"])
def test_a_document_other_than_the_ledger_recorded_is_not_handed_out(
    place: Workspace, client: Client, change: str
) -> None:
    first, second = take_requests(place, ["person 17", "person 18"])
    withdraw(place, first.request_id)
    reject(place, second.request_id, "12(6)", "nobody could say who asked", "officer")
    audits = client("audits")
    at = f"{REQUESTS}/{first.request_id}/certificate"
    assert audits.get(at).status_code == 200
    path = place.certificates_dir / f"{first.request_id}.json"
    other = place.certificates_dir / f"{second.request_id}.json"
    content = {"another's": other.read_bytes(), "cut": path.read_bytes()[:-1], "gone": b""}[change]
    path.unlink()
    if content:
        path.write_bytes(content)
    answer = audits.get(at)
    assert answer.status_code == 500 and "restore" in answer.json()["do"]
    assert "payload" not in answer.text


def test_a_bundle_and_a_report_are_what_an_outsider_checks(
    place: Workspace, client: Client
) -> None:
    audits = client("audits")
    assert audits.get("/api/v1/bundle").status_code == 404
    assert audits.get("/api/v1/reports").json() == {"reports": []}
    (request,) = take_requests(place, ["person 17"])
    withdraw(place, request.request_id)
    bundle = audits.get("/api/v1/bundle")
    assert bundle.headers["content-type"] == "application/zip"
    (place.root / "bundle.zip").write_bytes(bundle.content)
    made = audits.post("/api/v1/reports", json={})
    assert made.status_code == 201
    assert made.json()["files"] == ["report.html", "report.json", "report.pdf"]
    assert audits.get("/api/v1/reports").json() == {"reports": [made.json()]}
    day = made.json()["report"]
    report = audits.get(f"/api/v1/reports/{day}/report.json")
    (place.root / "report.json").write_bytes(report.content)
    for name in ("bundle.zip", "report.json"):
        assert verify_path(place.root / name, place.keys_dir / "signing.pub")["valid"]
    page = audits.get(f"/api/v1/reports/{day}/report.html")
    assert "sandbox" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    for wrong in ("2020-01-01/report.json", f"{day}/other.json", "..%2f..%2fs3t.toml/report.json"):
        assert audits.get(f"/api/v1/reports/{wrong}").status_code in (400, 404, 422)
    assert audits.post("/api/v1/reports", json={"since": "tomorrow"}).status_code == 422


def test_a_report_of_today_is_not_written_over_by_the_next(
    place: Workspace, client: Client
) -> None:
    """The first one may be the only one that tells of its entries."""
    audits = client("audits")
    made = []
    for number in range(11):
        take_requests(place, [f"person {number}"])
        made.append(audits.post("/api/v1/reports", json={"since": "1h"}).json())
    day = made[0]["report"]
    assert [m["report"] for m in made] == [day, *(f"{day}-{n}" for n in range(2, 12))]
    assert audits.get("/api/v1/reports").json() == {"reports": made[::-1]}
    read = {audits.get(f"/api/v1/reports/{m['report']}/report.json").content for m in made}
    assert len(read) == 11


def test_how_it_stands_is_told_as_commands_tell_it(place: Workspace, client: Client) -> None:
    take_requests(place, ["person 17"])
    audits = client("audits")
    status = audits.get("/api/v1/status").json()
    assert status["name"] == place.config.system.name and len(status["pending"]) == 1
    assert audits.get("/api/v1/forecast").json() == status["deletion_budget"]
    assert audits.get("/api/v1/versions").json() == {"versions": []}
    asked = {"shards": "2", "slices": "3", "budget": "2", "runs": 50}
    plan = audits.post("/api/v1/plan", json=asked)
    assert plan.status_code == 200 and plan.json()["plans"]
    for wrong in (
        {"shard": 2},
        {"runs": 4001},
        {"runs": "many"},
        {"runs": 1.5},
        {"once": "perhaps"},
        {"seed": -1},
        {"shards": "0"},
        {"policy": "none of them"},
    ):
        assert audits.post("/api/v1/plan", json=wrong).status_code == 422, wrong
    assert json.dumps(status).count("person") == 0
