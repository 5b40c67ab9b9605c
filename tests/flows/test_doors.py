"""Every port that a command of ours opens is closed to whoever lacks the credential, and to every
web page.

Real servers, asked in raw HTTP and over raw websockets as a hostile reader would; and the one
Prefect server that the commands of a workspace share: one, found again, ended by itself. The
guard's own questions: tests/unit/adapters/test_guard.py.
"""

import base64
import dataclasses
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.adapters.doors import Door
from flows.adapters.own_tls import make_own_certificate
from flows.adapters.prefect_server import ADDRESS, refuse_open_settings, tell_address
from flows.adapters.shared_prefect import Address, SharedServer, answers, ssl_context
from flows.metrics import TOKEN
from flows.metrics import serve as serve_metrics
from flows.workspace.workspace import Workspace
from s3t_core.errors import Busy, UsageError, WorkspaceError
from tests.flows.taker import Taker
from tests.flows.test_cli import S3T, _json, environment

SECRET = "s3t:a-secret-of-this-test-alone"
BASIC = "Authorization: Basic " + base64.b64encode(SECRET.encode()).decode()
EVERYWHERE = "0.0.0.0"  # noqa: S104  # where nothing of ours may listen by itself
REFUSED = {400, 401, 403, 421}
SERVER = [sys.executable, "-m", "flows.adapters.prefect_server"]


def _until(true: Callable[[], Any], seconds: float = 300, pause: float = 0.1) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(pause)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _raw(
    port: int,
    *lines: str,
    body: str = "",
    context: ssl.SSLContext | None = None,
    name: str = "localhost",
) -> int:
    """The status that a request of exactly these lines is answered with; 400 when it is hung up on
    without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        asked = plain if context is None else context.wrap_socket(plain, server_hostname=name)
        asked.sendall(
            "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode("latin-1")
        )
        answer = b""
        while b"\r\n" not in answer:
            more = asked.recv(4096)
            if not more:
                break
            answer += more
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else 400


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Prefect server as stack, compose and Kubernetes start it."""
    home, port = tmp_path_factory.mktemp("home"), _free_port()
    with _server(home, "--port", str(port), PREFECT_SERVER_API_AUTH_STRING=SECRET) as run:
        _until(lambda: _is_well(port) or run.poll() is not None)
        assert run.poll() is None
        yield port


def _server(home: Path, *arguments: str, **more: str) -> Any:
    from contextlib import contextmanager

    @contextmanager
    def running() -> Iterator[subprocess.Popen[str]]:
        # an operator's environment that would open everything: the start of ours insists
        opened = {
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "*",
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "false",
            "PREFECT_UI_ENABLED": "true",
            "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "false",
        }
        run = subprocess.Popen(
            [*SERVER, *arguments],
            text=True,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**environment(), **opened, "PREFECT_HOME": str(home), **more},
        )
        try:
            yield run
        finally:
            run.terminate()
            run.communicate(timeout=60)

    return running()


def _is_well(port: int) -> bool:
    try:
        return _raw(port, "GET /api/health HTTP/1.1", f"Host: 127.0.0.1:{port}") == 200
    except OSError:
        return False


# --- what is refused, in raw HTTP


PATHS = [
    "/api/deployments/filter",
    "/api/flow_runs/",
    "/api/admin/settings",
    "/api/csrf-token?client=x",
    "/docs",
    "/",
    "/api/docs",
    "/openapi.json",
    "/api/work_pools/filter",
    "/ui-settings",
    "/metrics",
    "/api/metrics",
    "//api/health",
    "/api/health/../deployments/filter",
    "/api/health/",
    "/api/health%2f..%2fdeployments/filter",
    "/api/%2e%2e/api/flows/filter",
    "/api/variables/name/health",
    "/api/health;/deployments",
    "/api/./ready",
]


@pytest.mark.long_but_first
@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["GET", "POST", "OPTIONS", "DELETE", "PATCH", "HEAD", "get", "BREW"]
)
@pytest.mark.parametrize("path", PATHS)
def test_without_the_credential_no_path_answers(server: int, method: str, path: str) -> None:
    host = f"Host: 127.0.0.1:{server}"
    assert (
        _raw(server, f"{method} {path} HTTP/1.1", host, "Content-Type: application/json", body="{}")
        in REFUSED
    )
    assert (
        _raw(server, f"{method} http://127.0.0.1:{server}{path} HTTP/1.1", host) in REFUSED
    )  # the absolute form


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "Authorization: Basic",
        "Authorization: Basic czN0Ondyb25n",
        f"Authorization: Bearer {SECRET}",
        f"Cookie: {BASIC[15:]}",
        f"X-Forwarded-Authorization: {BASIC[15:]}",
        f"Authorization: Basic {SECRET}",
        f"Authorization: {BASIC[15:]}x",
        "Prefect-Csrf-Token: x\r\nPrefect-Csrf-Client: y",
        f"{BASIC}\r\n{BASIC}",
        f"{BASIC}\r\nAuthorization: Basic eDp5",
    ],
)
def test_a_wrong_credential_is_none(server: int, line: str) -> None:
    assert _raw(server, "GET /api/admin/version HTTP/1.1", f"Host: 127.0.0.1:{server}", line) == 401
    assert (
        _raw(
            server,
            f"GET /api/admin/version?auth={SECRET}&api_key={SECRET} HTTP/1.1",
            f"Host: 127.0.0.1:{server}",
            line,
        )
        == 401
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://", "https://localhost"]
)
def test_a_page_from_elsewhere_is_refused_even_with_the_credential(
    server: int, origin: str
) -> None:
    for path in ("/api/deployments/filter", "/api/health"):
        for method in ("GET", "POST", "OPTIONS", "PUT"):
            assert (
                _raw(
                    server,
                    f"{method} {path} HTTP/1.1",
                    f"Host: 127.0.0.1:{server}",
                    BASIC,
                    f"Origin: {origin}",
                    "Access-Control-Request-Method: POST",
                    "Content-Type: text/plain",
                    body="{}",
                )
                == 403
            )
    assert (
        _raw(
            server,
            "POST /api/flows/filter HTTP/1.1",
            f"Host: 127.0.0.1:{server}",
            BASIC,
            "Sec-Fetch-Site: cross-site",
            body="{}",
        )
        == 403
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "host",
    [
        "Host: evil.example",
        "Host: evil.example:{port}",
        "Host: 127.0.0.1",
        "Host:",
        "X: y",
        "Host: x@127.0.0.1:{port}",
        "HOST: localhost.:{port}",
        "Host: 127.0.0.1:{port}.evil",
        "Host: 127.0.0.1:{port}\r\nHost: evil.example",
        "Host: 0.0.0.0:{port}",
        "Host: evil.example\r\nX-Forwarded-Host: 127.0.0.1:{port}",
    ],
)
def test_a_name_that_was_pointed_here_is_refused_even_with_the_credential(
    server: int, host: str
) -> None:
    for path in ("/api/admin/version", "/api/health"):
        for version in ("1.1", "1.0"):
            assert _raw(server, f"GET {path} HTTP/{version}", host.format(port=server), BASIC) in {
                400,
                421,
            }
    assert _raw(
        server,
        f"GET http://127.0.0.1:{server}/api/admin/version HTTP/1.1",
        host.format(port=server),
        BASIC,
    ) in {400, 421}


@pytest.mark.slow
def test_who_has_the_credential_is_answered_and_prefects_own_protection_is_on(server: int) -> None:
    host = f"host: LocalHost:{server}"
    assert _raw(server, "GET /api/admin/version HTTP/1.1", host, BASIC) == 200
    for path in ("/api/health", "/api/ready"):
        assert (
            _raw(server, f"GET {path} HTTP/1.1", host)
            == _raw(server, f"HEAD {path} HTTP/1.1", host)
            == 200
        )
    json_body = "Content-Type: application/json"
    assert (
        _raw(server, "POST /api/flows/filter HTTP/1.1", host, BASIC, json_body, body="{}") == 403
    )  # no CSRF token
    assert _raw(server, "GET /dashboard HTTP/1.1", host, BASIC) == 404  # no pages are served


# --- websockets


def _socket_paths() -> list[str]:
    """Every websocket that this release of Prefect has."""
    from fastapi.routing import APIWebSocketRoute
    from prefect.server.api.server import API_ROUTERS

    return [
        r.path for router in API_ROUTERS for r in router.routes if isinstance(r, APIWebSocketRoute)
    ]


def _connect(port: int, path: str, headers: dict[str, str] | None = None, **more: Any) -> Any:
    from websockets.sync.client import connect

    return connect(
        f"ws://127.0.0.1:{port}/api{path}",
        additional_headers=headers or {},
        open_timeout=30,
        **more,
    )


EVENT = {
    "occurred": "2026-01-01T00:00:00Z",
    "event": "smuggled.in",
    "resource": {"prefect.resource.id": "x.y"},
    "id": "5b9c5c3e-0000-4000-8000-000000000001",
    "payload": {},
}


@pytest.mark.slow
def test_no_websocket_of_the_server_says_or_hears_anything_without_the_credential(
    server: int,
) -> None:
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    paths = [p.replace("{work_pool_name}", "pool") for p in _socket_paths()]
    assert len(paths) >= 5 and {"/events/in", "/events/out", "/logs/out"} <= set(paths)
    firsts: list[Any] = [
        EVENT,
        {"type": "auth", "token": "wrong"},
        {"type": "auth"},
        {"type": "auth", "token": None},
    ]
    for path in [*paths, "/no/such/socket"]:
        for more in ({}, {"subprotocols": ["prefect"]}, {"subprotocols": ["other"]}):
            for first in firsts:
                with (
                    pytest.raises((ConnectionClosed, InvalidStatus)),
                    _connect(server, path, **more) as talk,
                ):
                    talk.send(json.dumps(first))
                    talk.send(json.dumps(EVENT))
                    talk.recv(timeout=30)
        for headers in (
            {"Authorization": "Basic czN0Ondyb25n"},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Authorization": BASIC[15:], "Origin": "http://evil.example"},
            {"Authorization": BASIC[15:], "Sec-Fetch-Site": "cross-site"},
        ):
            with (
                pytest.raises(InvalidStatus, match="403"),
                _connect(server, path, headers, subprotocols=["prefect"]),
            ):
                pass
        assert (
            _raw(
                server,
                f"GET /api{path} HTTP/1.1",
                "Host: evil.example",
                BASIC,
                "Upgrade: websocket",
                "Connection: Upgrade",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
                "Sec-WebSocket-Protocol: prefect",
            )
            in REFUSED
        )
    with _connect(
        server, "/events/out", subprotocols=["prefect"]
    ) as talk:  # that is how Prefect's client comes in
        talk.send(json.dumps({"type": "auth", "token": SECRET}))
        assert json.loads(talk.recv(timeout=30)) == {"type": "auth_success"}
    assert "smuggled.in" not in _events(server)


def _events(port: int) -> str:
    """Every event that the server knows of, as a program with the credential asks for them."""
    program = (
        "from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as client:\n"
        "    print(client._client.post('/events/filter', json={}).text)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={
            **environment(),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_API_AUTH_STRING": SECRET,
        },
    )
    return done.stdout


# --- starting


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        ([], {}, "expected a credential"),
        ([], {"PREFECT_SERVER_API_AUTH_STRING": "admin"}, "expected a credential"),
        (
            ["--host", EVERYWHERE],
            {"PREFECT_SERVER_API_AUTH_STRING": SECRET},
            "expected the loopback address",
        ),
        (
            ["--host", "192.0.2.1"],
            {"PREFECT_SERVER_API_AUTH_STRING": SECRET},
            "expected the loopback address",
        ),
        (
            ["--host", "::"],
            {"PREFECT_SERVER_API_AUTH_STRING": SECRET},
            "expected the loopback address",
        ),
        (
            ["--behind-proxy", "https://x"],
            {"PREFECT_SERVER_API_AUTH_STRING": SECRET},
            "expected names",
        ),
        (["--behind-proxy", "*"], {"PREFECT_SERVER_API_AUTH_STRING": SECRET}, "expected names"),
        (
            ["--tls-cert", "x.pem"],
            {"PREFECT_SERVER_API_AUTH_STRING": SECRET},
            "--tls-cert and --tls-key together",
        ),
        (["--shared", "1"], {"PREFECT_SERVER_API_AUTH_STRING": SECRET}, "expected a credential in"),
    ],
)
def test_a_server_that_would_be_open_does_not_start(
    tmp_path: Path, arguments: list[str], env: dict[str, str], said: str
) -> None:
    done = subprocess.run(
        [*SERVER, "--port", "0", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**environment(), "PREFECT_HOME": str(tmp_path), **env},
    )
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_a_credential_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "credential").write_text(SECRET)
    (tmp_path / "credential").chmod(0o640)
    done = subprocess.run(
        [*SERVER, "--port", "0", "--shared", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**environment(), "PREFECT_HOME": str(tmp_path)},
    )
    assert done.returncode == 2 and "readable by its owner only" in done.stderr


@pytest.mark.parametrize("command", [["serve"], ["metrics"]])
def test_beyond_this_machine_a_command_listens_only_with_tls_or_a_named_proxy(
    tmp_path: Path, command: list[str]
) -> None:
    _json("init", "w", cwd=tmp_path)
    done = subprocess.run(
        [S3T, *command, "--host", EVERYWHERE],
        cwd=tmp_path / "w",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(),
    )
    assert done.returncode == 2 and "--behind-proxy" in done.stderr


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for "localhost", and its key."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName("s3t.example")]),
            False,
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


# --- s3t metrics


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Workspace]:
    """An empty workspace, whose server waits for three seconds; one that a mutant keeps from ending
    is ended here."""
    from flows.workspace.creating import create_workspace
    from s3t_core.config import Config

    create_workspace(
        tmp_path / "w",
        Config.model_validate({"data": {"labels": ["a", "b"]}, "prefect": {"idle_minutes": 0.05}}),
    )
    place = Workspace(tmp_path / "w")
    yield place
    for pid in _servers(place):
        psutil.Process(pid).kill()


def _scraped(place: Workspace, door: Any, use: Callable[[int, str], None]) -> None:
    stop, address = threading.Event(), []
    serving = threading.Thread(target=serve_metrics, args=(place, door, stop, address.append))
    serving.start()
    try:
        _until(lambda: address, 30)
        use(int(address[0].rpartition(":")[2]), (place.state_dir / TOKEN).read_text().strip())
    finally:
        stop.set()
        serving.join(30)
    assert not serving.is_alive()


def test_metrics_answer_the_token_alone(small: Workspace) -> None:
    from flows.adapters.doors import Door

    def use(port: int, token: str) -> None:
        host, bearer = f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {token}"
        assert _raw(port, "GET /metrics HTTP/1.1", host, bearer) == 200
        assert (
            _raw(port, "GET /health HTTP/1.1", host)
            == _raw(port, "HEAD /health HTTP/1.1", host)
            == 200
        )
        assert _raw(port, "GET /anything HTTP/1.1", host, bearer) == 404
        for lines in (
            [host],
            [host, "Authorization: Bearer x"],
            [host, f"Authorization: Basic {token}"],
        ):
            for path in (
                "/metrics",
                "/",
                "/health/",
                f"/metrics?token={token}",
                "//health",
                "/anything",
            ):
                assert _raw(port, f"GET {path} HTTP/1.1", *lines) in REFUSED
        assert (
            _raw(port, "GET /metrics HTTP/1.1", host, bearer, "Origin: http://evil.example") == 403
        )
        assert _raw(port, "OPTIONS /metrics HTTP/1.1", host, "Origin: http://evil.example") == 403
        assert _raw(port, "GET /health HTTP/1.1", host, "Origin: null") == 403
        assert _raw(port, "GET /metrics HTTP/1.1", f"Host: evil.example:{port}", bearer) == 421
        assert _raw(port, "GET /health HTTP/1.1", "Host: evil.example") == 421

    _scraped(small, Door(), use)
    assert (small.state_dir / TOKEN).stat().st_mode & 0o077 == 0


def test_with_a_certificate_metrics_speak_tls_under_its_names_alone(
    small: Workspace, tmp_path: Path
) -> None:
    from flows.adapters.doors import Door

    certificate, key = _certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(certificate))

    def use(port: int, token: str) -> None:
        bearer = f"Authorization: Bearer {token}"
        for name, status in (("localhost", 200), ("s3t.example", 200), ("evil.example", 421)):
            assert (
                _raw(port, "GET /metrics HTTP/1.1", f"Host: {name}:{port}", bearer, context=context)
                == status
            )
        assert (
            _raw(port, "GET /metrics HTTP/1.1", f"Host: localhost:{port}", bearer) == 400
        )  # not in the clear

    _scraped(small, Door(EVERYWHERE, 0, str(certificate), str(key)), use)


def test_behind_a_proxy_metrics_answer_to_its_name(small: Workspace) -> None:
    from flows.adapters.doors import Door

    def use(port: int, token: str) -> None:
        bearer = f"Authorization: Bearer {token}"
        assert _raw(port, "GET /metrics HTTP/1.1", "Host: s3t.example.org", bearer) == 200
        assert _raw(port, "GET /metrics HTTP/1.1", "Host: s3t.example.org") == 401
        assert _raw(port, "GET /metrics HTTP/1.1", "Host: s3t.example.org:8443", bearer) == 200
        assert _raw(port, "GET /metrics HTTP/1.1", "Host: s3t.example.org:8444", bearer) == 421
        assert _raw(port, "GET /metrics HTTP/1.1", "Host: other.example.org", bearer) == 421

    _scraped(small, Door(EVERYWHERE, 0, proxies=("s3t.example.org", "s3t.example.org:8443")), use)


# --- the server that commands share


def _pid(place: Workspace) -> int:
    try:
        return int(json.loads((place.state_dir / "prefect" / ADDRESS).read_bytes())["pid"])
    except (OSError, ValueError):
        return 0


def _servers(place: Workspace) -> list[int]:
    """Every process that works in this workspace's Prefect home."""
    home = str((place.state_dir / "prefect").resolve())
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == home and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def _erase(place: Workspace) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [S3T, "erase", "--json"],
        cwd=place.root,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_commands_share_one_server_that_outlives_a_kill_and_ends_by_itself(
    small: Workspace,
) -> None:
    first, second, third = _erase(small), _erase(small), _erase(small)
    _until(lambda: _pid(small))
    third.kill()
    third.communicate()
    assert all(
        run.wait(600) in (0, 1) for run in (first, second)
    )  # one may find the workspace busy
    assert 0 in (first.returncode, second.returncode)
    for run in (first, second):
        told = json.loads(run.communicate()[0])
        assert told.get("certificates") == [] or told["error"] == "Busy"
        assert "Prefect server" not in json.dumps(told), "the second uses the first's"
    server = _pid(small)
    port = psutil.Process(server).net_connections("tcp")[0].laddr.port if server else 0
    assert len(_servers(small)) <= 1
    fourth = _erase(small)
    _until(lambda: _servers(small))
    fourth.kill()
    fourth.communicate()
    assert len(_servers(small)) == 1
    _until(lambda: not _servers(small))  # nobody uses it any more
    assert not port or not _is_well(port)
    _until(
        lambda: not SharedServer(small.state_dir / "prefect", 1).is_running()
    )  # locks go last as a process ends
    assert not (small.state_dir / "prefect" / ADDRESS).exists()


@pytest.mark.slow
def test_the_server_of_a_command_is_closed_and_ends_with_its_directory(
    small: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL"):
        monkeypatch.setenv(
            name, f"sqlite+aiosqlite:///{tmp_path / 'shared.db'}"
        )  # another workspace's, say
    server = SharedServer(small.state_dir / "prefect", 10)
    address = server.attach()
    server.wait(address)
    port = int(address.url.rpartition(":")[2].partition("/")[0])
    host = f"Host: 127.0.0.1:{port}"
    right = "Authorization: Basic " + base64.b64encode(server.credential().encode()).decode()
    asked = partial(_raw, port, context=ssl_context(address.certificate), name="127.0.0.1")
    assert address.url == f"https://127.0.0.1:{port}/api"
    assert asked("GET /api/admin/version HTTP/1.1", host, right) == 200
    assert asked("GET /api/admin/version HTTP/1.1", host, BASIC) == 401
    foreign = "Origin: http://evil.example"
    assert asked("POST /api/deployments/ HTTP/1.1", host, right, foreign, body="{}") == 403
    assert asked("GET /api/health HTTP/1.1", "Host: evil.example") == 421
    assert _raw(port, "GET /api/admin/version HTTP/1.1", host, right) == 400, "without TLS"
    listens = [
        c.laddr.ip
        for c in psutil.Process(address.pid).net_connections()
        if c.status == psutil.CONN_LISTEN
    ]
    assert listens == ["127.0.0.1"]
    assert {p.stat().st_mode & 0o077 for p in (small.state_dir / "prefect").iterdir()} == {0}
    assert not any(
        server.credential() in " ".join(word) for word in (psutil.Process(address.pid).cmdline(),)
    )
    assert (small.state_dir / "prefect" / "prefect.db").exists() and not (
        tmp_path / "shared.db"
    ).exists()
    away = small.root.with_name("away")
    small.root.rename(away)
    shutil.copytree(away, small.root)  # another directory in its place, with the same files
    _until(
        lambda: (
            not psutil.pid_exists(address.pid)
            or psutil.Process(address.pid).status() == psutil.STATUS_ZOMBIE
        ),
        60,
    )
    server.detach()


@pytest.mark.long_but_first
@pytest.mark.slow
@pytest.mark.parametrize("with_tls", [False, True])
def test_whoever_takes_the_port_of_a_killed_server_is_told_nothing_and_believed_nothing(
    small: Workspace, tmp_path: Path, with_tls: bool
) -> None:
    server = SharedServer(small.state_dir / "prefect", 10)
    address = server.attach()
    server.wait(address)
    os.kill(address.pid, signal.SIGKILL)
    forged = make_own_certificate(tmp_path, "127.0.0.1") if with_tls else None
    taker = Taker(int(address.url.rpartition(":")[2].partition("/")[0]), forged)
    try:
        assert not answers(address)
        program = (
            "import os; from pathlib import Path; from flows.settings import prepare_environment, "
            "use_server; from flows.adapters.shared_prefect import Address, SharedServer; "
            "prepare_environment(Path.cwd()); import json; home = Path('.s3t/prefect'); "
            "use_server(Address(**json.loads(Path('address').read_text())), "
            "SharedServer(home, 1).credential()); from flows.adapters.prefect_client import "
            "prefect_client\nwith prefect_client() as prefect: prefect.deployment('erase/erase')"
        )
        (small.root / "address").write_text(json.dumps(dataclasses.asdict(address)))
        done = subprocess.run(
            [sys.executable, "-c", program],
            check=False,
            cwd=small.root,
            env={
                **environment(),
                "PREFECT_CLIENT_MAX_RETRIES": "0",
                "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "true",  # an operator's, for another server
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode != 0 and "SSL" in done.stderr, done.stderr[-800:]
        assert b"uthorization" not in taker.heard and b"HTTP" not in taker.heard
    finally:
        taker.close()
        server.detach()


@pytest.mark.long_but_first
@pytest.mark.slow
@pytest.mark.parametrize("host", ["localhost", "::1", "0:0:0:0:0:0:0:1", "127.0.0.2"])
def test_a_server_at_any_loopback_name_is_known_by_its_certificate(
    small: Workspace, host: str
) -> None:
    server = SharedServer(small.state_dir / "prefect", 10, Door(host))
    try:
        address = server.attach()
    except UsageError:
        pytest.skip("this machine has no such address")
    server.wait(address, 60)
    assert answers(address) and "localhost" not in address.url
    server.detach()


@pytest.mark.slow
def test_stop_ends_the_server_unless_somebody_uses_it(small: Workspace) -> None:
    assert _json("stop", cwd=small.root) == {"stopped": False}
    server = SharedServer(small.state_dir / "prefect", 10)
    address = server.attach()
    with pytest.raises(Busy, match="a command or `s3t serve`"):
        SharedServer(small.state_dir / "prefect", 10).stop()
    assert server.is_running()
    server.detach()
    settings = small.root / "s3t.toml"
    right = settings.read_bytes()
    settings.write_bytes(right + b"\n[no such table]\n")
    assert _json("stop", cwd=small.root) == {"stopped": True}
    settings.write_bytes(right)
    assert not server.is_running() and not _servers(small)
    assert SharedServer(small.state_dir / "prefect", 10).stop() is False
    for kept in ("prefect.db", "prefect.db-wal", "storage/result"):
        (small.state_dir / "prefect" / kept).parent.mkdir(exist_ok=True)
        (small.state_dir / "prefect" / kept).write_text("of an earlier release")
    assert _json("stop", "--forget", cwd=small.root) == {"stopped": False}
    assert not {p.name for p in (small.state_dir / "prefect").iterdir()} & {
        "prefect.db",
        "prefect.db-wal",
        "storage",
    }
    assert address.pid not in [
        p.pid for p in psutil.process_iter() if p.status() != psutil.STATUS_ZOMBIE
    ]


@pytest.mark.long
@pytest.mark.slow
def test_serve_moves_the_server_where_it_was_told_to_unless_a_command_uses_it(
    small: Workspace,
) -> None:
    from flows.adapters.doors import Door
    from flows.supervisor.serving import Serving

    server, port = SharedServer(small.state_dir / "prefect", 10), _free_port()
    there = server.attach()
    with pytest.raises(Busy, match=f"got one at {there.url} that a command uses"):
        Serving(small.root, Door(port=port), lambda _: None, threading.Event(), insists=True).run()
    server.detach()
    run = subprocess.Popen(
        [S3T, "serve", "--port", str(port), "--json"],
        cwd=small.root,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout is not None and run.stderr is not None
    try:
        assert json.loads(run.stdout.readline())["url"] == f"https://127.0.0.1:{port}/api"
        assert "Serving at" in run.stderr.readline()
        assert _servers(small) and _pid(small) != there.pid
        family = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
        listens = {
            c.laddr for p in family for c in p.net_connections() if c.status == psutil.CONN_LISTEN
        }
        assert port in {at.port for at in listens} and {at.ip for at in listens} == {"127.0.0.1"}
        for at in (
            listens
        ):  # Prefect's runner has one too, to its flow runs: it hangs up on everybody else
            for path in ("/", "/api/deployments/filter", "/docs"):
                assert (
                    _raw(at.port, f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{at.port}") in REFUSED
                )
    finally:
        run.terminate()
        run.communicate(timeout=60)
    assert not _servers(small) and not server.is_running()


def test_a_server_on_another_machine_is_not_taken_for_ours(small: Workspace) -> None:
    import fcntl

    home = small.state_dir / "prefect"
    home.mkdir(exist_ok=True)
    with (home / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (home / ADDRESS).write_text(
            json.dumps(
                {
                    "url": "http://127.0.0.1:4200/api",
                    "pid": 1,
                    "machine": "elsewhere",
                    "certificate": "",
                }
            )
        )
        server = SharedServer(home, 10)
        with pytest.raises(Busy, match="runs on another"):
            server.attach()
        with pytest.raises(Busy, match="runs on another"):
            server.stop()


def test_a_server_that_is_about_to_end_is_waited_for_and_not_used(
    small: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    home, fresh = small.state_dir / "prefect", Address("http://127.0.0.1:1/api", 1, "here", "")
    home.mkdir(exist_ok=True)
    monkeypatch.setattr(SharedServer, "_start", lambda _: fresh)
    got: list[Address] = []
    with (home / "server.lock").open("w") as alive, (home / "users.lock").open("w") as ending:
        fcntl.flock(alive, fcntl.LOCK_EX)
        fcntl.flock(ending, fcntl.LOCK_EX)  # it has decided: nobody used it
        tell_address(home, "http://127.0.0.1:2/api", "")
        server = SharedServer(home, 10)
        asking = threading.Thread(target=lambda: got.append(server.attach()))
        asking.start()
        time.sleep(0.5)
        assert got == []
        (home / ADDRESS).unlink()
    asking.join(30)
    assert got == [fresh]
    server.detach()


def test_settings_of_prefect_that_leave_something_open_are_refused() -> None:
    with pytest.raises(WorkspaceError, match="settings that close its server"):
        refuse_open_settings(
            SECRET
        )  # those of the tests' own server, which is Prefect's embedded one


@pytest.mark.slow
def test_prefect_starts_no_server_of_its_own(small: Workspace) -> None:
    program = (
        "import sys; from pathlib import Path; from flows.workspace.workspace import enter; "
        "enter(Path.cwd())\nfrom prefect import flow\n@flow\ndef f(): return 1\nf()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=small.root,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        timeout=120,
    )
    assert done.returncode != 0 and "PREFECT_API_URL" in done.stderr
    assert not (small.state_dir / "prefect" / "prefect.db").exists()


def test_an_operators_server_is_used_and_none_is_started(small: Workspace) -> None:
    done = subprocess.run(
        [S3T, "serve"],
        cwd=small.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**environment(), "PREFECT_API_URL": "http://127.0.0.1:9/api"},
    )
    assert done.returncode == 2 and "PREFECT_API_URL" in done.stderr
    assert not (small.state_dir / "prefect" / ADDRESS).exists()
