"""Container files say what their schemas allow and what a careful operator asks for. No engine runs
them here."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import ComposeSpecification

from flows.adapters.doors import Door
from flows.api.app import LIVE, READY
from flows.cli.app import app
from infra.seaweed import CLOSED, COMPACTING, make_security, without_settings

INFRA = Path(__file__).parents[3] / "infra"
MANIFESTS = [
    (p.name, d)
    for p in sorted((INFRA / "kubernetes").glob("*.yaml"))
    for d in yaml.safe_load_all(p.read_text())
]


def _pods() -> list[dict[str, Any]]:
    return [d["spec"]["template"]["spec"] for _, d in MANIFESTS if d["kind"] == "Deployment"]


def test_the_dockerfile_has_nothing_to_be_said_against() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert linter is not None
    done = subprocess.run(
        [linter, str(INFRA / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    assert "USER 10001" in lines and sum(line.startswith("FROM ") for line in lines) == 2
    assert not any(word in line for line in lines for word in ("PASSWORD", "SECRET", "TOKEN"))


@pytest.mark.parametrize(
    ("file", "manifest"), MANIFESTS, ids=lambda v: v if isinstance(v, str) else v["kind"]
)
def test_a_manifest_is_what_kubernetes_knows(file: str, manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_a_misspelt_manifest_would_be_noticed() -> None:
    broken = yaml.safe_load(
        yaml.safe_dump(next(d for _, d in MANIFESTS if d["kind"] == "Deployment"))
    )
    broken["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.37", strict=True)


def test_every_pod_is_locked_down_probed_and_bounded() -> None:
    assert len(_pods()) == 4
    for pod in _pods():
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        assert all({"readinessProbe", "livenessProbe"} <= c.keys() for c in pod["containers"])
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]
            locked = container["securityContext"]
            assert locked["readOnlyRootFilesystem"] and not locked["allowPrivilegeEscalation"]
            assert locked["capabilities"] == {"drop": ["ALL"]}
            assert all("value" not in e or "KEY" not in e["name"] for e in container.get("env", []))
    closed = {d["metadata"]["name"]: d for _, d in MANIFESTS if d["kind"] == "NetworkPolicy"}
    assert len(closed) == 3 and all(
        d["spec"]["policyTypes"] == ["Ingress"] for d in closed.values()
    )
    assert not any(
        d["kind"] in ("Secret", "CronJob") for _, d in MANIFESTS
    )  # schedules stay in Prefect


def test_no_secret_is_on_a_command_line_or_in_git() -> None:
    for pod in _pods():
        for container in pod["containers"]:
            assert not any(
                "$(" in word or "@" in word
                for word in (*container.get("args", []), *container.get("command", []))
            )
    secrets = [
        "infra/compose.env",
        "infra/compose-prefect.env",
        "infra/compose-mlflow.env",
        "infra/compose-postgres-password",
        "infra/compose-s3.json",
        "infra/compose-s3",
    ]
    for name in (".gitignore", ".dockerignore"):
        assert set(secrets) <= set((INFRA.parent / name).read_text().split())


def test_the_compose_file_is_one_and_every_service_comes_up_after_what_it_needs() -> None:
    document = yaml.safe_load((INFRA / "compose.yaml").read_text())
    ComposeSpecification.model_validate(document)
    services = document["services"]
    assert set(services) == {"postgres", "s3", "mlflow", "prefect", "worker", "door"}
    for name, service in services.items():
        for needed in service.get("depends_on", {}):
            assert "healthcheck" in services[needed], (name, needed)
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert not any(
            "PASSWORD" in k and not k.endswith("_FILE") for k in service.get("environment", {})
        )


def test_of_the_s3_server_other_containers_reach_s3_alone_and_that_is_closed() -> None:
    s3 = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]["s3"]
    assert {*CLOSED, *COMPACTING, "-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0"} <= set(s3["command"])
    assert "./compose-s3:/etc/seaweedfs:ro" in s3["volumes"] and "ports" not in s3


def test_what_closes_the_s3_server_names_where_it_will_lie_and_is_its_owners_alone(
    tmp_path: Path,
) -> None:
    make_security(tmp_path / "made", Path("/etc/seaweedfs"))
    before = {p.name: p.read_bytes() for p in (tmp_path / "made").iterdir()}
    assert all(
        p.stat().st_mode & 0o077 == 0 for p in (tmp_path / "made", *(tmp_path / "made").iterdir())
    )
    told = tomllib.loads((tmp_path / "made" / "security.toml").read_text())
    for name in ("master", "volume", "filer"):
        assert told["https"][name] | {"ca": told["grpc"]["ca"]} == told["grpc"][name] | {
            "ca": "/etc/seaweedfs/authority.pem"
        }
    tokens = [told["jwt"][n][k] for n in ("signing", "filer_signing") for k in ("key",)]
    tokens += [told["jwt"][n]["read"]["key"] for n in ("signing", "filer_signing")]
    assert len(set(tokens)) == 4 and min(map(len, tokens)) == 64
    make_security(tmp_path / "made")
    assert {
        p.name: p.read_bytes() for p in (tmp_path / "made").iterdir()
    } == before  # a running server has them


def test_no_setting_of_who_starts_it_goes_before_what_closes_the_s3_server() -> None:
    assert without_settings({"WEED_JWT_SIGNING_KEY": "", "HOME": "h"}) == {"HOME": "h"}


def test_prefects_server_is_started_by_us_alone_and_its_credential_is_a_secret() -> None:
    services = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    containers = {c["name"]: c for pod in _pods() for c in pod["containers"]}
    for command in (services["prefect"]["command"], containers["prefect"]["args"]):
        assert command[:3] == ["python", "-m", "flows.adapters.prefect_server"]
        assert command[command.index("--behind-proxy") + 1] == "prefect"
    for text in (p.read_text() for p in INFRA.rglob("*") if p.suffix in (".py", ".yaml")):
        assert "server start" not in text and '"server", "start"' not in text
    told = {
        name: {e["name"]: e.get("valueFrom") for e in containers[name]["env"]}
        for name in ("prefect", "worker")
    }
    secret = {"secretKeyRef": {"name": "s3t-prefect", "key": "auth-string"}}
    assert (
        told["prefect"]["PREFECT_SERVER_API_AUTH_STRING"]
        == told["worker"]["PREFECT_API_AUTH_STRING"]
        == secret
    )
    assert "./compose-prefect.env" in services["prefect"]["env_file"] and "mlflow" in services
    assert "./compose-prefect.env" not in services["mlflow"]["env_file"]


def test_mlflows_server_is_started_by_us_alone_and_its_keys_are_its_own() -> None:
    services = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    containers = {c["name"]: c for pod in _pods() for c in pod["containers"]}
    for command in (services["mlflow"]["command"], containers["mlflow"]["args"]):
        assert command[:3] == ["python", "-m", "flows.adapters.mlflow_server"]
        assert command[command.index("--behind-proxy") + 1] == "mlflow"
    for text in (p.read_text() for p in INFRA.rglob("*") if p.suffix in (".py", ".yaml")):
        assert '"mlflow", "server"' not in text and "mlflow server" not in text
    assert services["mlflow"]["env_file"] == ["./compose-mlflow.env"]
    assert not any(
        "./compose-mlflow.env" in s.get("env_file", [])
        for name, s in services.items()
        if name != "mlflow"
    )
    taken = {
        name: [e["secretRef"]["name"] for e in c.get("envFrom", [])]
        for name, c in containers.items()
    }
    assert [name for name, secrets in taken.items() if "s3t-mlflow" in secrets] == ["mlflow"]
    assert taken["mlflow"] == ["s3t-mlflow"]


def test_the_door_is_opened_by_a_command_that_takes_these_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The very arguments, given to the command line, make a door that answers its probes' Host."""
    services = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]
    container = next(c for pod in _pods() for c in pod["containers"] if c["name"] == "door")
    opened: list[Door] = []
    monkeypatch.setattr("flows.api.server.serve", lambda _, door, *__: opened.append(door))
    monkeypatch.setattr("flows.cli.door.open_workspace", lambda _: None)
    for command in (services["door"]["command"], container["args"]):
        assert command[0] == "s3t"
        app(command[1:], standalone_mode=False)
    in_compose, in_cluster = opened
    assert {"127.0.0.1:4280", "door:4280"} <= in_compose.hosts(4280)
    assert {"s3t-door", "s3t.example.org"} <= in_cluster.hosts(4280)
    asked = [container[p]["httpGet"] for p in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert {each["path"] for each in asked} == {LIVE, READY}
    assert all(each["httpHeaders"] == [{"name": "Host", "value": "s3t-door"}] for each in asked)
    assert container["ports"][0]["containerPort"] == in_cluster.port == in_compose.port


def test_a_workers_pages_are_its_pods_own() -> None:
    worker = next(c for pod in _pods() for c in pod["containers"] if c["name"] == "worker")
    assert {e["name"]: e.get("value") for e in worker["env"]}[
        "PREFECT_WORKER_WEBSERVER_HOST"
    ] == "127.0.0.1"
    assert "ports" not in worker and all(
        "exec" in worker[p] for p in ("readinessProbe", "livenessProbe")
    )
    assert "PREFECT_WORKER_WEBSERVER_HOST=127.0.0.1" in (INFRA / "Dockerfile").read_text()


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_the_probes_of_a_server_ask_under_its_name(name: str) -> None:
    server = next(c for pod in _pods() for c in pod["containers"] if c["name"] == name)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["httpHeaders"] == [{"name": "Host", "value": name}]
