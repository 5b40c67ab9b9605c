"""SeaweedFS's own ports: whoever has no key of the server is told nothing by them, and changes
nothing."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import itertools
import json
import os
import re
import secrets
import socket
import ssl
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from infra.seaweed import COMPACTING_SECONDS, client_context, make_security
from infra.stack import Stack, listens

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
PATHS = (
    "/",
    "/status",
    "/healthz",
    "/metrics",
    "/ui/index.html",
    "/debug/pprof/",
    "/favicon.ico",
    "/seaweedfsstatic/",
    "/dir/assign",
    "/dir/lookup?volumeId=1",
    "/dir/status",
    "/vol/status",
    "/vol/grow?count=1",
    "/vol/vacuum?garbageThreshold=0.9",
    "/col/delete?collection=nobodys",
    "/cluster/status",
    "/cluster/healthz",
    "/stats/health",
    "/stats/counter",
    "/stats/disk",
    "/submit",
    "/buckets/?pretty=y",
    "/.tus/",
    "/v1/config",
    "/v1/namespaces",
    "/?Action=ListUsers&Version=2010-05-08",
    "/?Action=CreateAccessKey&UserName=s3t",
)
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"Origin": "http://stranger.example"},
    {"Host": "stranger.example"},
)
REFUSED = (400, 401, 403, 404, 405, 412, 501)
HEALTH = ("/status", "/healthz")
H2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
"""How a client of gRPC begins: the preface and an empty frame of settings; a server answers it with
its own."""


@dataclass(frozen=True)
class Kept:
    """An object in a bucket, and where its bytes are."""

    key: str
    said: bytes
    fid: str


@pytest.fixture
def kept(stack: Stack) -> Kept:
    """One of a few thousand bytes that nothing else has."""
    key, said = f"ports/{secrets.token_hex(8)}", secrets.token_hex(2000).encode()
    stack.client().put_object(Bucket="s3t", Key=key, Body=said)
    told = shell(stack.folder / "s3", stack, f"fs.meta.cat /buckets/s3t/{key}")
    found = re.search(r'"fileId":\s*"(\d+,[0-9a-f]+)"', told)
    assert found, told
    return Kept(key, said, found[1])


def shell(folder: Path, stack: Stack, line: str, seconds: float = 60) -> str:
    """What `weed shell` answers somebody who starts it in a directory; "" where it gets no
    answer."""
    weed, master = Path(sys.executable).with_name("weed"), f"127.0.0.1:{stack.ports['s3'] + 1}"
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(
            [str(weed), "shell", f"-master={master}"],
            input=f"{line}\n",
            text=True,
            cwd=folder,
            env={"HOME": str(folder), "PATH": os.environ["PATH"]},
            capture_output=True,
            timeout=seconds,
            check=False,
        ).stdout
    return ""


def listening(stack: Stack) -> list[int]:
    """Every port that the server listens at."""
    pid = stack.pid("s3")
    assert pid is not None
    found = [
        c.laddr
        for c in psutil.Process(pid).net_connections("tcp")
        if c.status == psutil.CONN_LISTEN
    ]
    assert {address for address, _ in found} == {"127.0.0.1"}
    return sorted(port for _, port in found)


def asked(
    port: int, method: str, path: str, headers: dict[str, str], tls: ssl.SSLContext | None = None
) -> tuple[int, bytes, str]:
    """Status, body and the origin that may read it; 0 where the server hangs up."""
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=tls)
        if tls
        else http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    )
    try:
        connection.request(
            method,
            path,
            b"planted" if method in ("POST", "PUT") else None,
            headers | ({"Access-Control-Request-Method": "PUT"} if method == "OPTIONS" else {}),
        )
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheader("Access-Control-Allow-Origin", "")
    except (OSError, http.client.HTTPException):
        return 0, b"", ""
    finally:
        connection.close()


def stranger(certificate: Path | None = None) -> ssl.SSLContext:
    """A client that takes any server, with no certificate or with one of another authority."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    if certificate:
        context.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")
    return context


def spoken(port: int, tls: ssl.SSLContext | None) -> bytes:
    """What a client of gRPC is answered, b"" where the server hangs up or refuses the handshake."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        line = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        line = opened.enter_context(tls.wrap_socket(line)) if tls else line
        line.sendall(H2)
        return line.recv(64)
    return b""


def is_settings(answer: bytes) -> bool:
    """Whether a server has begun to speak gRPC."""
    return len(answer) >= 9 and answer[3] == 4


def questions(kept: Kept) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Everything a stranger may think of."""
    of_object = (
        f"/s3t/{kept.key}",
        f"/buckets/s3t/{kept.key}",
        f"/s3t?list-type=2&prefix={kept.key}",
        f"/{kept.fid}",
        f"/{kept.fid}?readDeleted=true",
        f"/s3t/{kept.key}?versions",
        "/buckets/s3t/ports/?recursive=true",
    )
    return itertools.product(METHODS, (*PATHS, *of_object), HEADERS)


def test_no_port_tells_or_changes_anything_without_a_credential(stack: Stack, kept: Kept) -> None:
    """Every method at every path of every port: a refusal, or a hang-up. Of health, that it is
    there; to a browser that asks what it may do, nothing that it may."""
    ports = listening(stack)
    assert ports == sorted(listens(stack.ports)["s3"])
    before = stack.client().list_objects_v2(Bucket="s3t", Prefix="ports/")["Contents"]
    wrong = []
    for port, (method, path, headers) in itertools.product(ports, questions(kept)):
        status, body, origin = asked(port, method, path, headers)
        empty = (
            port == stack.ports["s3"]
            and not body
            and (
                (method == "OPTIONS" and not origin)
                or (method in ("GET", "HEAD") and path in HEALTH)
            )
        )
        if (
            (status not in (*REFUSED, 0) and not empty)
            or kept.said in body
            or origin not in ("", "*")
        ):
            wrong.append(
                (port - stack.ports["s3"], method, path, headers, status, body[:80], origin)
            )
    assert wrong == []
    assert stack.client().list_objects_v2(Bucket="s3t", Prefix="ports/")["Contents"] == before
    assert stack.client().get_object(Bucket="s3t", Key=kept.key)["Body"].read() == kept.said


def test_a_port_behind_s3_talks_to_nobody_without_the_servers_certificate(
    stack: Stack, tmp_path: Path
) -> None:
    """HTTP and gRPC, in the clear, by TLS without a certificate, by TLS with one of another
    authority."""
    make_security(tmp_path / "others")
    behind = [p for p in listening(stack) if p != stack.ports["s3"]]
    mine, others = stranger(stack.folder / "s3"), stranger(tmp_path / "others")
    for port in behind:
        assert [is_settings(spoken(port, tls)) for tls in (None, stranger(), others)] == [
            False
        ] * 3, port
        assert asked(port, "GET", "/cluster/status", {}, stranger())[0] == 0
        assert asked(port, "GET", "/cluster/status", {}, others)[0] == 0
    grpc = [p for p in behind if p >= 10000 + stack.ports["s3"]]
    assert len(grpc) == 4 and all(
        is_settings(spoken(p, mine)) for p in grpc
    )  # it is gRPC that was refused


def test_a_strangers_shell_gets_no_answer(stack: Stack, tmp_path: Path) -> None:
    assert "volume servers" in shell(stack.folder / "s3", stack, "cluster.ps")
    assert "volume servers" not in shell(tmp_path, stack, "cluster.ps", 8)


def token(stack: Stack, fid: str) -> str:
    """What the master gives whoever may read a file of a volume server."""
    key = tomllib.loads((stack.folder / "s3" / "security.toml").read_text())["jwt"]["signing"][
        "read"
    ]["key"]
    parts = [
        json.dumps(part).encode()
        for part in ({"alg": "HS256", "typ": "JWT"}, {"fid": fid, "exp": int(time.time()) + 60})
    ]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signed = hmac.digest(key.encode(), text, hashlib.sha256)
    return (text + b"." + base64.urlsafe_b64encode(signed).rstrip(b"=")).decode()


def read(stack: Stack, kept: Kept, asking: str = "", known: bool = True) -> tuple[int, bytes]:
    """What the volume server itself answers who has the certificate, and, where `known`, the
    token."""
    headers = {"Authorization": f"Bearer {token(stack, kept.fid)}"} if known else {}
    tls = client_context(stack.folder / "s3")
    return asked(stack.ports["s3"] + 2, "GET", f"/{kept.fid}{asking}", headers, tls)[:2]


def test_the_certificate_alone_reads_and_writes_nothing(stack: Stack, kept: Kept) -> None:
    """The ports behind S3 ask twice: whoever came through TLS needs a token of the server's too."""
    tls, volume, filer = (
        client_context(stack.folder / "s3"),
        stack.ports["s3"] + 2,
        stack.ports["s3"] + 3,
    )
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert asked(volume, method, f"/{kept.fid}", {}, tls)[0] == 401
        assert asked(filer, method, f"/buckets/s3t/{kept.key}", {}, tls)[0] in (403, 404)
    assert stack.client().get_object(Bucket="s3t", Key=kept.key)["Body"].read() == kept.said


@pytest.mark.long
def test_what_is_deleted_is_given_to_nobody_and_its_bytes_go_by_themselves(
    stack: Stack, kept: Kept
) -> None:
    """Until the server compacts, one with its certificate and its key of tokens may have it; that
    is its operator."""
    deleted = "?readDeleted=true"
    assert read(stack, kept) == (200, kept.said) and read(stack, kept, known=False)[0] == 401
    stack.client().delete_object(Bucket="s3t", Key=kept.key)
    assert read(stack, kept, deleted, known=False)[0] == 401
    assert read(stack, kept, deleted) == (200, kept.said)  # why it has to go
    until = time.monotonic() + 3 * COMPACTING_SECONDS
    while read(stack, kept, deleted)[0] == 200 and time.monotonic() < until:
        time.sleep(3)
    assert read(stack, kept, deleted)[0] == 404
    assert not any(
        kept.said in p.read_bytes() for p in (stack.folder / "s3").rglob("*") if p.is_file()
    )


def test_its_sockets_and_keys_are_its_users_alone(stack: Stack) -> None:
    """SeaweedFS puts sockets into /tmp, under names that it does not let anybody choose."""
    pid = stack.pid("s3")
    assert pid is not None
    named = {str(c.laddr) for c in psutil.Process(pid).net_connections("unix") if c.laddr}
    paths = [Path(stack.folder / "s3", name) for name in named]
    assert {"s3.sock", "filer.sock"} <= {p.name for p in paths}
    kept = [p for p in (stack.folder / "s3").iterdir() if p.suffix in (".pem", ".toml")]
    assert len(kept) == 4
    assert [
        p.name for p in (*paths, *kept) if p.exists() and stat.S_IMODE(p.stat().st_mode) & 0o077
    ] == []
