"""Nobody without a credential holds a server of ours up by saying nothing to it."""

import asyncio
import resource
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from flows.adapters import connections
from flows.adapters.doors import Door, serve_until
from tests.receiver import receiving

SECRET = "a-secret-of-this-test-alone"


async def _app(scope, receive, send):  # type: ignore[no-untyped-def]
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})


@contextmanager
def _served(door: Door | None = None) -> Iterator[int]:
    door, stop, began = door or Door(), threading.Event(), threading.Event()
    ports: list[int] = []

    def guarded(port: int):  # type: ignore[no-untyped-def]
        ports.append(port)
        return door.guarded(sys.modules[__name__]._app, port, "bearer", SECRET, frozenset())

    serving = threading.Thread(
        target=serve_until, args=(door, guarded, stop, lambda _: began.set())
    )
    serving.start()
    try:
        assert began.wait(20)
        yield ports[0]
    finally:
        stop.set()
        serving.join(20)
        assert not serving.is_alive()


def _connected(port: int, said: bytes = b"") -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port), timeout=20)
    made.sendall(said)
    return made


def _ask(port: int, made: socket.socket | None = None) -> bytes:
    with made or _connected(port) as asked:
        asked.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
            f"Authorization: Bearer {SECRET}\r\n\r\n".encode()
        )
        told = b""
        while more := asked.recv(4096):
            told += more
        return told


def _is_closed(made: socket.socket, within: float = 10) -> bool:
    made.settimeout(within)
    try:
        return made.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 1.0)
    monkeypatch.setattr(connections, "most_waiting", lambda: 20)


HALVES = {
    "nothing": b"",
    "half a line": b"GET / HT",
    "half a header": b"GET / HTTP/1.1\r\nX:",
    "a header and no end": b"GET / HTTP/1.1\r\nHost: a\r\n",
}


@pytest.mark.parametrize("name", HALVES)
def test_who_sends_no_whole_request_is_hung_up_on(name: str, impatient: None) -> None:
    with _served() as port, _connected(port, HALVES[name]) as made:
        begun = time.monotonic()
        assert _is_closed(made) and 0.5 < time.monotonic() - begun < 8


def test_so_is_who_asked_before_and_drips_the_next_one(impatient: None) -> None:
    with _served() as port, _connected(port) as made:
        made.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Authorization: Bearer {SECRET}\r\n\r\n".encode()
        )
        assert b"200" in made.recv(4096)
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - begun < 15:
                made.sendall(b"X")
                time.sleep(0.2)
        assert time.monotonic() - begun < 8


@pytest.mark.parametrize("said", HALVES.values())
def test_however_many_wait_somebody_who_asks_is_answered(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that has waited longest makes room, and nobody who is being answered."""
    monkeypatch.setattr(connections, "most_waiting", lambda: 20)
    with _served() as port, ExitStack() as stack:
        for _ in range(15):
            stack.enter_context(_connected(port, said))
        crowd = [stack.enter_context(_connected(port, said)) for _ in range(100)]
        assert b"200" in _ask(port)
        assert all(_is_closed(made, 5) for made in crowd[:50])
        assert b"200" in _ask(port)


def test_who_is_being_answered_makes_no_room(impatient: None) -> None:
    with _served() as port, ExitStack() as stack:
        slow = stack.enter_context(_connected(port))
        slow.sendall(
            f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
            f"Authorization: Bearer {SECRET}\r\nContent-Length: 2\r\n\r\na".encode()
        )
        time.sleep(1)
        for _ in range(60):
            stack.enter_context(_connected(port))
        time.sleep(2)
        slow.sendall(b"b")
        assert b"200" in slow.recv(4096)


def test_who_begins_no_tls_is_hung_up_on(tmp_path: Path, impatient: None) -> None:
    with receiving(tmp_path) as files:
        door = Door(tls_cert=str(files.certificate), tls_key=str(tmp_path / "receiver.key"))
        with _served(door) as port, _connected(port) as made:
            assert _is_closed(made)
            trusts = ssl.create_default_context(cafile=str(files.certificate))
            trusts.check_hostname = False
            with trusts.wrap_socket(_connected(port), server_hostname="a") as asked:
                assert b"HTTP/1.1" in _ask(port, asked)


_PIECES, _PIECE = 4000, 1000


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An answer in pieces instead, and which of them were given out so far."""
    given: list[int] = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for n in range(_PIECES):
                piece = {"type": "http.response.body", "body": b"x" * _PIECE}
                await send(piece | {"more_body": n < _PIECES - 1})
                given.append(n)

    monkeypatch.setattr(sys.modules[__name__], "_app", app)
    return given


def _asking(port: int) -> socket.socket:
    """Who asked, and holds next to nothing of what comes."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
    made.settimeout(20)
    made.connect(("127.0.0.1", port))
    made.sendall(
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Authorization: Bearer {SECRET}\r\n\r\n".encode()
    )
    return made


def test_a_piece_is_given_out_once_those_before_it_were_taken(sent: list[int]) -> None:
    """Neither this process nor the operating system takes much of four megabytes ahead."""
    with _served() as port, _asking(port) as slow:
        slow.recv(1)
        time.sleep(1)
        assert len(sent) * _PIECE < 50_000
        told = 1
        while more := slow.recv(2**16):
            told += len(more)
        assert told > _PIECES * _PIECE and len(sent) == _PIECES


def test_who_takes_nothing_of_an_answer_is_hung_up_on_and_who_takes_some_is_not(
    sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "READ_SECONDS", 0.5)
    monkeypatch.setattr(connections, "_LEAST_READ", 2**10)
    for name, size in (("_PIECES", 10), ("_PIECE", 400_000)):  # each is looked at meanwhile
        monkeypatch.setattr(sys.modules[__name__], name, size)
    with _served() as port:
        with _asking(port) as silent:
            time.sleep(3)
            came = 0
            with suppress(ConnectionError):
                while more := silent.recv(2**16):
                    came += len(more)
            assert came < 200_000
        sent.clear()
        with _asking(port) as slow:
            for _ in range(30):
                assert slow.recv(2**15)
                time.sleep(0.1)
            while slow.recv(2**16):
                pass
            assert len(sent) == _PIECES


def test_what_cannot_be_taken_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    loop, others = asyncio.new_event_loop(), []
    loop.default_exception_handler = others.append  # type: ignore[method-assign, assignment]
    handle = connections._quiet()
    for _ in range(1000):
        handle(loop, {"message": "m", "exception": OSError(24, "Too many open files")})
    assert len(caplog.records) == 1 and "too many" in caplog.text
    handle(loop, {"message": "m", "exception": RuntimeError("other")})
    assert len(caplog.records) == len(others) == 1
    loop.close()


def test_half_of_the_files_at_most_are_for_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, most in ((64, 8), (256, 96), (1024, 480), (10**6, 512)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert connections.most_waiting() == most
