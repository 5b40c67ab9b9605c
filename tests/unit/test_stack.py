"""The stack on this machine, before anything of it is started."""

import socket
from pathlib import Path

import pytest

from infra.stack import Stack, StackError
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
