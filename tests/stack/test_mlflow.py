"""The MLflow server of the stack: whom it answers, what of it is there at all, and which places it
opens."""

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import requests
from botocore.exceptions import ClientError
from mlflow.exceptions import MlflowException

from infra.stack import Stack
from tests.unit.adapters.test_mlflow_guard import WALK

pytestmark = pytest.mark.timeout(300)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
FOREIGN = (
    "s3://s3t/main/dvc",
    "s3://mlflow/artifacts",
    "file:///etc",
    "/etc",
    "mlflow-artifacts:/../../s3t",
)


@pytest.fixture(scope="module")
def addresses() -> list[str]:
    """One of each of the running application's own routes."""
    done = subprocess.run([sys.executable, "-c", WALK], capture_output=True, text=True, check=True)
    native, flask = json.loads(done.stdout.splitlines()[-1])
    filled = {
        r.replace("<path:", "<").replace("{", "<").replace("}", ">") for r in (*native, *flask)
    }
    parts = [r.replace(">", "<").split("<") for r in filled]
    return sorted("".join(p if n % 2 == 0 else "x" for n, p in enumerate(each)) for each in parts)


def _ask(
    stack: Stack, method: str, path: str, known: bool = True, **more: Any
) -> "requests.Response":
    """An answer of the stack's server, with the credential or without."""
    user, password = stack.env["MLFLOW_TRACKING_USERNAME"], stack.env["MLFLOW_TRACKING_PASSWORD"]
    with requests.Session() as session:
        session.trust_env = False  # no credential of a .netrc's
        return session.request(
            method,
            f"http://127.0.0.1:{stack.ports['mlflow']}{path}",
            timeout=30,
            auth=(user, password) if known else None,
            **more,
        )


def test_without_the_credential_no_route_of_the_running_application_answers_but_health(
    stack: Stack, addresses: list[str]
) -> None:
    assert len(addresses) > 250
    told = {(m, a): _ask(stack, m, a, known=False).status_code for m in METHODS for a in addresses}
    assert {where for where, status in told.items() if status != 401} == {("GET", "/health")}
    wrong = _ask(stack, "GET", "/", known=False, headers={"Authorization": "Basic czN0OnMzdA=="})
    assert wrong.status_code == 401 and "Basic" in wrong.headers["WWW-Authenticate"]


def test_with_the_credential_assistant_jobs_and_gateway_are_not_there(
    stack: Stack, addresses: list[str]
) -> None:
    words = (
        "assistant",
        "jobs",
        "gateway",
        "webhooks",
        "scorer",
        "traces",
        "prompt",
        "invoke",
        "workspaces",
        "demo",
    )
    dangerous = [a for a in addresses if any(word in a for word in words)]
    assert len(dangerous) > 100 and all(any(word in a for a in dangerous) for word in words)
    assert {
        _ask(stack, m, a, json={}).status_code for m in ("GET", "POST", "PUT") for a in dangerous
    } == {404}
    config = {
        "providers": {
            "ollama": {"base_url": "http://127.0.0.1:9", "permissions": {"full_access": True}}
        }
    }
    for path in ("/ajax-api/3.0/mlflow/assistant/config", "/ajax-api/3.0/mlflow/assistant/message"):
        assert _ask(stack, "PUT", path, json=config).status_code == 404


def test_the_pages_and_what_they_ask_for_are_there(stack: Stack) -> None:
    page = _ask(stack, "GET", "/")
    assert page.status_code == 200 and "static-files/" in page.text
    for path in (
        "/version",
        "/ajax-api/3.0/mlflow/server-info",
        "/ajax-api/2.0/mlflow/registered-models/search",
        "/ajax-api/2.0/mlflow/experiments/search?max_results=5",
    ):
        assert _ask(stack, "GET", path).status_code == 200, path


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_another_host_and_another_page_are_refused_with_the_credential_too(
    stack: Stack, headers: dict[str, str]
) -> None:
    wanted = 421 if "Host" in headers else 403
    for path in ("/", "/api/2.0/mlflow/experiments/search?max_results=1", "/health"):
        assert _ask(stack, "GET", path, headers=headers).status_code == wanted
        assert _ask(stack, "POST", path, headers=headers, json={}).status_code == wanted


@pytest.mark.parametrize("place", FOREIGN)
def test_no_version_has_its_files_in_another_place(stack: Stack, place: str) -> None:
    mlflow.set_tracking_uri(f"http://127.0.0.1:{stack.ports['mlflow']}")
    client, name = mlflow.MlflowClient(), f"foreign-{uuid.uuid4().hex}"
    client.create_registered_model(name)
    with pytest.raises(MlflowException, match="expected a source"):
        client.create_model_version(name, place)
    assert client.search_model_versions(f"name = '{name}'") == []


@pytest.mark.parametrize("place", FOREIGN)
def test_no_experiment_has_its_files_in_another_place(stack: Stack, place: str) -> None:
    name = f"foreign-{uuid.uuid4().hex}"
    for field in ("artifact_location", "artifactLocation"):
        for api in ("api", "ajax-api"):
            told = _ask(
                stack,
                "POST",
                f"/{api}/2.0/mlflow/experiments/create",
                json={"name": name, field: place},
            )
            assert told.status_code == 403 and told.json()["error_code"] == "PERMISSION_DENIED"
    found = _ask(stack, "GET", f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}")
    assert found.status_code == 404


def test_files_go_to_the_servers_own_artifacts_and_come_back(stack: Stack, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(f"http://127.0.0.1:{stack.ports['mlflow']}")
    name = f"own-{uuid.uuid4().hex}"
    experiment = mlflow.create_experiment(name)
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_text('{"source": "s3://s3t/x"}', "model/x.json")
    client = mlflow.MlflowClient()
    client.create_registered_model(name)
    version = client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    there = mlflow.artifacts.download_artifacts(
        f"models:/{name}/{version.version}", dst_path=str(tmp_path)
    )
    assert Path(there, "x.json").read_text() == '{"source": "s3://s3t/x"}'
    shown = _ask(stack, "GET", f"/get-artifact?run_uuid={run.info.run_id}&path=model/x.json")
    assert shown.json() == {"source": "s3://s3t/x"}
    got = _ask(
        stack,
        "GET",
        f"/model-versions/get-artifact?name={name}&version={version.version}&path=x.json",
    )
    assert got.json() == {"source": "s3://s3t/x"}
    mlflow.artifacts.download_artifacts(
        f"runs:/{run.info.run_id}/model", dst_path=str(tmp_path / "by-the-run")
    )
    assert list((tmp_path / "by-the-run").rglob("x.json"))


def test_the_servers_keys_open_its_own_artifacts_alone(stack: Stack) -> None:
    key = f"artifacts/of-a-test/{uuid.uuid4().hex}"
    theirs, ours = stack.client("mlflow"), stack.client()
    ours.put_object(Bucket="s3t", Key=key, Body=b"a row")
    for refused in (
        lambda: theirs.get_object(Bucket="s3t", Key=key),
        lambda: theirs.list_objects_v2(Bucket="s3t"),
        lambda: theirs.put_object(Bucket="s3t", Key=key, Body=b"another"),
        lambda: theirs.delete_object(Bucket="s3t", Key=key),
        lambda: theirs.copy_object(Bucket="mlflow", Key=key, CopySource=f"s3t/{key}"),
        lambda: theirs.create_bucket(Bucket="of-mlflow"),
        lambda: theirs.list_objects_v2(Bucket="mlflow"),
        lambda: theirs.put_bucket_versioning(
            Bucket="mlflow", VersioningConfiguration={"Status": "Enabled"}
        ),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()
    assert ours.get_object(Bucket="s3t", Key=key)["Body"].read() == b"a row"
    theirs.put_object(Bucket="mlflow", Key=key, Body=b"an artifact")
    assert theirs.get_object(Bucket="mlflow", Key=key)["Body"].read() == b"an artifact"
    theirs.delete_object(Bucket="mlflow", Key=key)
    ours.delete_object(Bucket="s3t", Key=key)


def test_the_server_has_these_keys_and_no_others(stack: Stack) -> None:
    pid = stack.pid("mlflow")
    assert pid is not None
    had = psutil.Process(pid).environ().values()
    for role in ("s3t", "auditor"):
        assert not any(key in value for key in stack._keys(role).values() for value in had)
    assert set(stack._keys("mlflow").values()) <= set(had)


def test_the_server_starts_no_other_process(stack: Stack) -> None:
    """The consumers of its jobs would be some."""
    pid = stack.pid("mlflow")
    assert pid is not None and psutil.Process(pid).children(recursive=True) == []
    port = str(stack.ports["mlflow"])
    others = [
        p.info["cmdline"]
        for p in psutil.process_iter(["cmdline", "environ"])
        if any("huey" in word for word in p.info["cmdline"] or ())
        and any(port in value for value in (p.info["environ"] or {}).values())
    ]
    assert others == []
