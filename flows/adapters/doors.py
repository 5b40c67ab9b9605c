"""Where a command listens, and for whom: the loopback address, unless told otherwise.

Beyond it a request could be read and changed on its way, so a server goes there only with TLS, or
behind a proxy that the operator names and that brings it. In front of every application stands the
guard (flows.adapters.guard).
"""

import argparse
import contextlib
import ipaddress
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from flows.adapters.guard import App, Guard, Rules
from s3t_core.errors import S3TError, UsageError
from s3t_core.files import read_regular

if TYPE_CHECKING:
    from uvicorn import Server

_LOOK_SECONDS = 0.5
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")
_ANY = ("0.0.0.0", "::", "")  # noqa: S104  # compared with, not bound to


@dataclass(frozen=True)
class Door:
    """An address to listen at.

    `port` 0: one that is free. `tls_cert`, `tls_key`: PEM files. `proxies`: names under which a
    proxy is asked, or other machines ask, where the operator vouches for the way in between.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls_cert: str = ""
    tls_key: str = ""
    proxies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise UsageError(
                "expected --tls-cert and --tls-key together, got one of them; name both files"
            )
        for file in filter(None, (self.tls_cert, self.tls_key)):
            if not Path(file).is_file():
                raise UsageError(
                    "expected PEM files for --tls-cert and --tls-key, got a path that is no file; "
                    "check its spelling"
                )
        if not all(_NAME.fullmatch(name) for name in self.proxies):
            raise UsageError(
                "expected names such as s3t.example.org or s3t.example.org:8443 for "
                "--behind-proxy, got something else; leave out scheme and path"
            )
        if not (self.is_loopback or self.tls_cert or self.proxies):
            raise UsageError(
                f"expected the loopback address for --host, got {self.host}: beyond this machine "
                "anybody on the way could read the credential. Pass --tls-cert and --tls-key, or "
                "--behind-proxy NAME when a proxy of yours at NAME brings TLS"
            )
        if self.tls_cert and not (self.certified or self.proxies):
            raise UsageError(
                "expected a certificate with names (subjectAltName) for --tls-cert, got one "
                "without; make another, or say the names with --behind-proxy"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def certified(self) -> tuple[str, ...]:
        """The names and addresses that the certificate is for; () without one. Raises UsageError
        for no certificate."""
        if not self.tls_cert:
            return ()
        try:
            certificate = x509.load_pem_x509_certificate(read_regular(Path(self.tls_cert)))
            names = certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value
        except x509.ExtensionNotFound:
            return ()
        except (OSError, ValueError):
            raise UsageError(
                "expected a certificate (PEM) for --tls-cert, got something else; name another file"
            ) from None
        addresses = [str(a) for a in names.get_values_for_type(x509.IPAddress)]
        named = [n for n in names.get_values_for_type(x509.DNSName) if "*" not in n]
        return tuple(named + [f"[{a}]" if ":" in a else a for a in addresses])

    def bind(self) -> socket.socket:
        """A socket that listens there. Raises UsageError for a port that is taken."""
        host = "127.0.0.1" if self.host == "localhost" else self.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, self.port))
            bound.listen(512)
        except OSError as error:
            bound.close()
            raise UsageError(
                f"expected a free port, got {self.port} ({error.strerror}); pass another with "
                "--port"
            ) from None
        return bound

    def origin(self, port: int) -> str:
        """What a command on this machine calls it: scheme, name and port."""
        if self.tls_cert:
            name = (*self.certified, *self.proxies)[0]
            return f"https://{name if name.startswith('[') else name.partition(':')[0]}:{port}"
        if self.host in _ANY:
            return f"http://127.0.0.1:{port}"
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{port}"

    def hosts(self, port: int) -> frozenset[str]:
        """What a Host header may say: this machine's loopback names and the certificate's, with the
        port unless it is the scheme's own; and the names that the operator gave, as given, and with
        this port."""
        own = [*_LOOPBACK, *self.certified]
        if self.host not in _ANY:
            own.append(f"[{self.host}]" if ":" in self.host else self.host)
        names = [f"{name}:{port}" for name in (*own, *self.proxies)]
        names += self.proxies
        if port == (443 if self.tls_cert else 80):
            names += own
        return frozenset(name.lower() for name in names)

    def guarded(
        self,
        app: App,
        port: int,
        scheme: str,
        secret: str,
        open_paths: frozenset[str],
        realm: str = "",
        knows: Callable[[bytes], bool] | None = None,
    ) -> Guard:
        """The application behind the guard, for who asks at this address; a browser is asked for
        the credential where there is a `realm`. `knows` as Rules has it."""
        schemes = ("https",) if self.tls_cert else ("http", "https") if self.proxies else ("http",)
        hosts = self.hosts(port)
        return Guard(app, Rules(hosts, scheme, secret, open_paths, schemes, realm, knows))

    def server(self, app: Guard) -> "Server":
        """A uvicorn server for it. It believes no header about where a request came from, logs
        none, and waits for nobody who says nothing (flows.adapters.connections)."""
        import uvicorn

        from flows.adapters.connections import Patient, patience

        config = uvicorn.Config(
            app,
            http=patience(),
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=5,
            lifespan="auto",
            ssl_certfile=self.tls_cert or None,
            ssl_keyfile=self.tls_key or None,
        )
        return Patient(config)


@contextlib.contextmanager
def listening(door: Door) -> Iterator[socket.socket]:
    """A socket at this door, closed at the end. Raises UsageError for a port that is taken."""
    bound = door.bind()
    try:
        yield bound
    finally:
        bound.close()


def serve_until(
    door: Door,
    guarded: Callable[[int], Guard],
    stop: threading.Event,
    began: Callable[[str], None],
    beside: socket.socket | None = None,
    opened: Callable[[int], None] = lambda _: None,
) -> None:
    """Answer at this door until stopped, and at the socket `beside` it. `guarded` makes the
    application for the port that it is; `began` gets the address, `opened` the port. Raises
    UsageError for a port that is taken."""
    with listening(door) as bound:
        port = bound.getsockname()[1]
        server = door.server(guarded(port))
        sockets = [bound] if beside is None else [bound, beside]
        thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
        thread.start()
        try:
            opened(port)
            began(door.origin(port))
            while thread.is_alive() and not stop.wait(_LOOK_SECONDS):
                continue
        finally:
            server.should_exit = True
            thread.join()


def names_of(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def door_options(prog: str, port: int) -> argparse.ArgumentParser:
    """What every server of ours is told on its command line: where it listens, and what stands
    before it."""
    options = argparse.ArgumentParser(prog=prog, allow_abbrev=False)
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=port)
    options.add_argument("--tls-cert", default="")
    options.add_argument("--tls-key", default="")
    options.add_argument("--behind-proxy", default="", metavar="NAME,...")
    return options


def door_of(given: argparse.Namespace) -> Door:
    """The door that those options name. Raises UsageError."""
    return Door(given.host, given.port, given.tls_cert, given.tls_key, names_of(given.behind_proxy))


def serve_or_tell(
    name: str, serve: Callable[[argparse.Namespace], None], given: argparse.Namespace
) -> None:
    """Serve; what is written is its owner's alone. Exits with the code of an error of ours, which
    it tells."""
    os.umask(0o077)
    try:
        serve(given)
    except S3TError as error:
        print(f"{name} server: {error}", file=sys.stderr)  # noqa: T201  # it has no other voice yet
        sys.exit(error.exit_code)
