"""The stack on this machine, before anything of it is started."""

import json
import socket
from pathlib import Path

import pytest

from infra.stack import CREDENTIAL, MLFLOW_CREDENTIAL, S3_ROLES, Stack, StackError
from tests.ports import free_ports


@pytest.mark.parametrize("offset", [0, 3, 10001, 4, 5])
def test_a_port_that_somebody_has_is_named_before_anything_starts(
    tmp_path: Path, offset: int
) -> None:
    ports = free_ports()
    config = tmp_path / "stack.toml"
    config.write_text(
        "[ports]\n"
        + "".join(f"{k} = {v}\n" for k, v in ports.items())
        + '[workers]\ncount = 1\npool = "p"\n'
    )
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", ports["s3"] + offset))
        stranger.listen()
        with pytest.raises(StackError, match=rf"port {ports['s3'] + offset} to be free"):
            _try(Stack(tmp_path / "stack", config))
    assert not (tmp_path / "stack").exists()


def _try(stack: Stack) -> None:
    try:
        stack.up()
    finally:
        stack.down()  # what a missing protection lets start


def test_prefects_server_is_asked_with_the_credential_and_never_told_it_on_a_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "stack.toml"
    config.write_text(
        "[ports]\n"
        + "".join(f"{k} = {v}\n" for k, v in free_ports().items())
        + '[workers]\ncount = 1\npool = "p"\n'
    )
    stack = Stack(tmp_path, config)
    stack._make_keys()
    stack._make_credentials()
    monkeypatch.setattr(Stack, "socket", str(tmp_path))
    secret = (tmp_path / CREDENTIAL).read_text().strip()
    assert (tmp_path / CREDENTIAL).stat().st_mode & 0o077 == 0 and stack.env[
        "PREFECT_API_AUTH_STRING"
    ] == secret
    stack._make_credentials()
    assert stack.env["PREFECT_API_AUTH_STRING"] == secret  # the one that is there stays
    services = {s.name: s for s in stack.services()}
    assert services["prefect"].command[1:3] == ("-m", "flows.adapters.prefect_server")
    assert services["prefect"].env["PREFECT_SERVER_API_AUTH_STRING"] == secret
    assert services["worker-1"].env["PREFECT_API_AUTH_STRING"] == secret
    assert not any(
        secret in v for v in services["mlflow"].env.values()
    )  # it has no business with Prefect
    assert "--with-healthcheck" not in services["worker-1"].command  # no port of its own
    assert stack.env["PREFECT_API_URL"].startswith("https://127.0.0.1:")
    trusted = stack.env["PREFECT_API_SSL_CERT_FILE"]
    assert services["worker-1"].env["PREFECT_API_SSL_CERT_FILE"] == trusted
    assert trusted in services["prefect"].command, "whoever takes its port is not its like"
    assert stack._make_certificate() and not stack._make_certificate(), "made once"
    assert {p.stat().st_mode & 0o077 for p in (tmp_path / "prefect").iterdir()} == {0}
    assert not any(secret in word for s in services.values() for word in s.command)


def _stack(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """One of which nothing was started."""
    config = folder / "stack.toml"
    config.write_text(
        "[ports]\n"
        + "".join(f"{k} = {v}\n" for k, v in free_ports().items())
        + '[workers]\ncount = 1\npool = "p"\n'
    )
    monkeypatch.setattr(Stack, "socket", str(folder))
    stack = Stack(folder, config)
    stack._make_keys()
    stack._make_credentials()
    return stack


def test_mlflows_server_is_started_by_us_alone_with_keys_of_its_own_and_the_credential_in_every_env(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "true")
    stack = _stack(tmp_path, monkeypatch)
    user, _, password = (tmp_path / MLFLOW_CREDENTIAL).read_text().strip().partition(":")
    assert (tmp_path / MLFLOW_CREDENTIAL).stat().st_mode & 0o077 == 0 and len(password) > 40
    services = {s.name: s for s in stack.services()}
    mlflow = services["mlflow"]
    assert mlflow.command[1:3] == ("-m", "flows.adapters.mlflow_server")
    for env in (stack.env, stack.env_of("eraser"), mlflow.env, services["worker-1"].env):
        assert (env["MLFLOW_TRACKING_USERNAME"], env["MLFLOW_TRACKING_PASSWORD"]) == (
            user,
            password,
        )
    for account in ("clerk", "auditor"):  # the database alone
        assert password not in stack.env_of(account).values()
    assert not any(password in word for s in services.values() for word in s.command)
    told = {i["name"]: i for i in json.loads((tmp_path / "s3.json").read_text())["identities"]}
    assert all(action.endswith(":mlflow/artifacts/*") for action in told["mlflow"]["actions"])
    keys = {name: set(identity["credentials"][0].values()) for name, identity in told.items()}
    assert keys["mlflow"] <= set(mlflow.env.values()) and not (keys["s3t"] | keys["auditor"]) & set(
        mlflow.env.values()
    )


def test_a_stack_of_an_earlier_build_gets_the_keys_that_it_lacks_and_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = _stack(tmp_path, monkeypatch)
    made = (tmp_path / "s3.json").read_text()
    assert not stack._make_keys() and (tmp_path / "s3.json").read_text() == made
    identities = json.loads(made)["identities"]
    (tmp_path / "s3.json").write_text(json.dumps({"identities": identities[:2]}))
    assert stack._make_keys()
    left = json.loads((tmp_path / "s3.json").read_text())["identities"]
    assert left[:2] == identities[:2] and [i["name"] for i in left] == list(S3_ROLES)
    assert (tmp_path / "s3.json").stat().st_mode & 0o077 == 0
