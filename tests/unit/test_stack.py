"""The stack on this machine, before anything of it is started."""

import socket
from pathlib import Path

import pytest

from infra.stack import CREDENTIAL, Stack, StackError
from tests.ports import free_ports


@pytest.mark.parametrize("offset", [0, 3, 10001, 4, 5])
def test_a_port_that_somebody_has_is_named_before_anything_starts(tmp_path: Path, offset: int) -> None:
    ports = free_ports()
    config = tmp_path / "stack.toml"
    config.write_text("[ports]\n" + "".join(f"{k} = {v}\n" for k, v in ports.items())
                      + '[workers]\ncount = 1\npool = "p"\n')
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", ports['s3'] + offset))
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
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "stack.toml"
    config.write_text("[ports]\n" + "".join(f"{k} = {v}\n" for k, v in free_ports().items())
                      + '[workers]\ncount = 1\npool = "p"\n')
    stack = Stack(tmp_path, config)
    stack._make_keys()
    stack._make_credentials()
    monkeypatch.setattr(Stack, "socket", str(tmp_path))
    secret = (tmp_path / CREDENTIAL).read_text().strip()
    assert (tmp_path / CREDENTIAL).stat().st_mode & 0o077 == 0 and stack.env["PREFECT_API_AUTH_STRING"] == secret
    stack._make_credentials()
    assert stack.env["PREFECT_API_AUTH_STRING"] == secret  # the one that is there stays
    services = {s.name: s for s in stack.services()}
    assert services["prefect"].command[1:3] == ("-m", "flows.adapters.prefect_server")
    assert services["prefect"].env["PREFECT_SERVER_API_AUTH_STRING"] == secret
    assert services["worker-1"].env["PREFECT_API_AUTH_STRING"] == secret
    assert not any(secret in v for v in services["mlflow"].env.values())  # it has no business with Prefect
    assert "--with-healthcheck" not in services["worker-1"].command  # no port of its own
    assert not any(secret in word for s in services.values() for word in s.command)
