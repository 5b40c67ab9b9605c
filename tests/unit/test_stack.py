"""The stack on this machine, before anything of it is started."""

import socket
from pathlib import Path

import pytest

from infra.stack import Stack, StackError


def free_ports(count: int) -> int:
    """The first of so many free ports in a row, with those 10000 above them free too."""
    for first in range(20000, 50000, 16):
        try:
            for port in range(first, first + count):
                for each in (port, port + 10000):
                    with socket.socket() as probe:
                        probe.bind(("127.0.0.1", each))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")


@pytest.mark.parametrize("offset", [0, 3, 10001, 4, 5])
def test_a_port_that_somebody_has_is_named_before_anything_starts(tmp_path: Path, offset: int) -> None:
    first = free_ports(6)
    config = tmp_path / "stack.toml"
    config.write_text(f"[ports]\ns3 = {first}\nmlflow = {first + 4}\nprefect = {first + 5}\n"
                      '[workers]\ncount = 1\npool = "p"\n')
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", first + offset))
        stranger.listen()
        with pytest.raises(StackError, match=rf"port {first + offset} to be free"):
            Stack(tmp_path / "stack", config).up()
    assert not (tmp_path / "stack").exists()
