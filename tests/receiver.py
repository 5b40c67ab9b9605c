"""A receiver of callbacks for tests: an HTTPS server on this machine under a name of its own, whose
certificate a test's sender trusts."""

import base64
import hmac
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from flows.adapters.webhooks import Sender

HOST = "receiver.example"


@dataclass
class Received:
    """What came, in its order, and what is answered: `status` by how many came before."""

    port: int
    certificate: Path
    status: Callable[[int], int] = lambda _: 204
    headers: dict[str, str] = field(default_factory=dict)
    came: list[tuple[dict[str, str], bytes, str]] = field(default_factory=list)
    waits: threading.Event | None = None

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _, _ in self.came]

    def sender(self, seconds: float = 10, host: str = "127.0.0.1", **given: Any) -> Sender:
        """One that finds the receiver, and may reach it."""
        return sender_to(self.certificate, seconds, host, **given)


def sender_to(certificate: Path, seconds: float, host: str = "127.0.0.1", **given: Any) -> Sender:
    async def resolve(_: str, __: int) -> list[str]:
        return [host]

    trusts = ssl.create_default_context(cafile=str(certificate))
    return Sender(seconds, trusts, **{"resolve": resolve, "may_reach": lambda _: True, **given})


def check_signed(secret: str, headers: dict[str, str], body: bytes) -> None:
    """As a receiver does it by the words of Standard Webhooks."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    seen = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(key, seen, "sha256").digest()).decode()
    assert headers["webhook-signature"].split(" ")[0] == f"v1,{wanted}"


@contextmanager
def receiving(folder: Path, name: str = HOST) -> Iterator[Received]:
    """A receiver, for as long as this lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = certificate_of(name, folder)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {k.lower(): v for k, v in self.headers.items()}
            found.came.append((headers, body, self.path))
            if found.waits is not None:
                found.waits.wait(30)
            self.send_response(found.status(len(found.came) - 1))
            for key, value in found.headers.items():
                self.send_header(key, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    found = Received(server.server_address[1], certificate)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        if found.waits is not None:
            found.waits.set()
        server.shutdown()
        server.server_close()


def certificate_of(name: str, folder: Path) -> tuple[Path, Path]:
    """The file of a certificate for this name, signed by itself, and that of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = (folder / "receiver.pem", folder / "receiver.key")
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths
