"""The one way in which a Prefect server of ours is started: for commands, `s3t serve`, `make
stack`, containers.

    python -m flows.adapters.prefect_server --host H --port P [--tls-cert F --tls-key F |
    --behind-proxy NAME,...]

1. a credential, or no start: from `credential` in PREFECT_HOME (`--shared`), else
   PREFECT_SERVER_API_AUTH_STRING, which is `USER:PASSWORD`. Never from the command line, which
   every user of the machine can read
2. one server per Prefect home: it holds `server.lock` there as long as it lives, and a second one
   ends at once
3. Prefect's own protection is on as well, whatever the environment says: its credential, CSRF
   tokens, no CORS, and no pages. In front of it stands the guard, which Prefect has no setting for
4. what it writes is its owner's alone
5. `--shared`: it belongs to a workspace (flows.adapters.shared_prefect). It ends by itself when no
   command has used it for so many minutes, and at once when its directory is gone or another one
   stands in its place

Whoever may write Prefect's deployments may run commands as whoever carries them out, so this port
is a shell.
"""

import argparse
import contextlib
import fcntl
import json
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from flows.adapters.credentials import check_secret, read_secret
from flows.adapters.doors import door_of, door_options, serve_or_tell
from s3t_core.errors import Busy, WorkspaceError
from s3t_core.files import write_atomically

CREDENTIAL = "credential"
SERVER_LOCK = "server.lock"
USERS_LOCK = "users.lock"
ADDRESS = "server.json"
OPEN_PATHS = frozenset({"/api/health", "/api/ready"})
_DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
"""A workspace's server has its database beside its lock, whatever the environment says: never two
on one."""
_LOCK_SECONDS = 15.0
"""A server that is just ending still holds the lock."""
_LOOK_SECONDS = 1.0
_ENDING_SECONDS = 15.0
_CLOSED: Mapping[str, str] = {
    "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
    "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": "",
    "PREFECT_SERVER_API_CORS_ALLOWED_METHODS": "",
    "PREFECT_SERVER_API_CORS_ALLOWED_HEADERS": "",
    "PREFECT_SERVER_API_BASE_PATH": "/api",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "PREFECT_SERVER_METRICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
}
"""Prefect's settings, under the names that it looks at first."""


def main() -> None:
    """Serve until a signal, or, for a workspace, until nobody needs it any more."""
    serve_or_tell("prefect", _serve, _arguments())


def _arguments() -> argparse.Namespace:
    options = door_options("prefect_server", 4200)
    options.add_argument(
        "--shared", type=float, default=None, metavar="IDLE_MINUTES", help=argparse.SUPPRESS
    )
    options.add_argument("--socket-fd", type=int, default=None, help=argparse.SUPPRESS)
    options.add_argument("--lock-fd", type=int, default=None, help=argparse.SUPPRESS)
    return options.parse_args()


def _serve(given: argparse.Namespace) -> None:
    home = prefect_home()
    door = door_of(given)
    secret = _credential(home, given.shared is not None)
    lock = _lock(home) if given.lock_fd is None else given.lock_fd
    os.set_inheritable(lock, False)
    bound = door.bind() if given.socket_fd is None else socket.socket(fileno=given.socket_fd)
    bound.set_inheritable(False)
    port = bound.getsockname()[1]
    url = f"{door.origin(port)}/api"
    if given.shared is not None:
        tell_address(home, url, door.tls_cert)
        os.environ[_DATABASE] = f"sqlite+aiosqlite:///{home.resolve() / 'prefect.db'}"
        watch = Watch(home, lock, given.shared * 60)
        threading.Thread(target=watch.run, daemon=True).start()
    _close(url, secret)
    if door.tls_cert:
        os.environ.setdefault("PREFECT_API_SSL_CERT_FILE", str(Path(door.tls_cert).resolve()))
    from prefect.server.api.server import create_app

    refuse_open_settings(secret)
    app = door.guarded(create_app(), port, "basic", secret, OPEN_PATHS)
    door.server(app).run(sockets=[bound])


def prefect_home() -> Path:
    """PREFECT_HOME. Raises WorkspaceError when it is not set: the server's database must lie where
    one meant it to."""
    if not os.environ.get("PREFECT_HOME"):
        raise WorkspaceError(
            "expected PREFECT_HOME to name the directory of Prefect's database, got nothing; set it"
        )
    home = Path(os.environ["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    return home


def _credential(home: Path, shared: bool) -> str:
    if shared:
        return read_secret(home / CREDENTIAL)
    secret = os.environ.get("PREFECT_SERVER_API_AUTH_STRING", "")
    check_secret(secret, "PREFECT_SERVER_API_AUTH_STRING")
    return secret


def _lock(home: Path) -> int:
    """The lock of this Prefect home, held. Raises Busy while another server holds it."""
    lock = os.open(home / SERVER_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    until = time.monotonic() + _LOCK_SECONDS
    while not try_lock(lock, fcntl.LOCK_EX):
        if time.monotonic() > until:
            raise Busy(
                "expected no other Prefect server on this Prefect home, got one; two on one "
                "database would both schedule: stop that one, or set another PREFECT_HOME"
            )
        time.sleep(0.1)
    return lock


def try_lock(descriptor: int, kind: int) -> bool:
    """Take a lock (flock, `LOCK_EX` or `LOCK_SH`) if nobody is in the way."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def tell_address(home: Path, url: str, certificate: str) -> None:
    """Write where the server of this home is, for the commands of its workspace."""
    write_atomically(
        home / ADDRESS,
        json.dumps(
            {"url": url, "pid": os.getpid(), "machine": this_machine(), "certificate": certificate}
        ).encode(),
        0o600,
    )


def this_machine() -> str:
    """Where the loopback address is the same: a name for this run of the system and, on Linux, its
    network namespace, as a container has one of its own."""
    try:
        run = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{run}-{Path('/proc/self/ns/net').stat().st_ino}"
    except OSError:
        return platform.node()


def _close(url: str, secret: str) -> None:
    """Settings that leave nothing open, before Prefect reads them."""
    os.environ.update(_CLOSED)
    os.environ.update(
        {
            "PREFECT_SERVER_API_AUTH_STRING": secret,
            "PREFECT_API_AUTH_STRING": secret,
            "PREFECT_API_URL": url,
        }
    )


def refuse_open_settings(secret: str) -> None:
    """Raises WorkspaceError when Prefect has read other settings than `_CLOSED`: a later release
    may call them otherwise."""
    from prefect.settings import get_current_settings

    server = get_current_settings().server
    there = server.api.auth_string.get_secret_value() if server.api.auth_string else ""
    closed = (
        there == secret
        and server.api.csrf_protection_enabled
        and not server.api.cors_allowed_origins
        and not server.ui.enabled
        and not server.ephemeral.enabled
    )
    if not closed:
        raise WorkspaceError(
            "expected Prefect to take the settings that close its server, got others; install the "
            "release of Prefect that pyproject.toml names"
        )


class Watch:
    """Ends this process when it is not needed: nobody holds `users.lock`, or its directory is
    gone."""

    def __init__(self, home: Path, lock: int, idle_seconds: float) -> None:
        self._home = home
        self._lock = lock
        self._idle_seconds = idle_seconds
        self._users = os.open(home / USERS_LOCK, os.O_RDWR | os.O_CREAT, 0o600)

    def run(self) -> None:
        """Look every second. Does not come back; where it cannot look, this process ends."""
        try:
            self._look()
        except OSError:
            os.kill(os.getpid(), signal.SIGKILL)

    def _look(self) -> None:
        used = time.monotonic()
        while True:
            time.sleep(min(_LOOK_SECONDS, self._idle_seconds / 10 or _LOOK_SECONDS))
            if not self.is_at_home():
                os.kill(
                    os.getpid(), signal.SIGKILL
                )  # an orderly end would write where nothing of ours is any more
            if not try_lock(self._users, fcntl.LOCK_EX):
                used = time.monotonic()
            elif time.monotonic() - used < self._idle_seconds:
                fcntl.flock(self._users, fcntl.LOCK_UN)
            else:
                self._end()  # the lock stays held: who comes now waits, and then finds no server

    def is_at_home(self) -> bool:
        """Whether the lock that this process holds is still the one that a command would find."""
        with contextlib.suppress(OSError):
            there, held = (self._home / SERVER_LOCK).stat(), os.fstat(self._lock)
            return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
        return False

    def _end(self) -> None:
        (self._home / ADDRESS).unlink(missing_ok=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_ENDING_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
