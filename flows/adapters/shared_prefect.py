"""The one Prefect server that the commands of a workspace share on this machine, as they find,
start and end it.

In the Prefect home of the workspace, 0700: `server.lock`, held by the server as long as it lives;
`users.lock`, held (shared) by every command that uses it, so that a kill -9 lets go too;
`starting.lock`; `server.json`, where it is; `credential`, `server.crt` and `server.key`, others at
every start; `server.log`.

1. a command first takes its part of `users.lock`. The server ends only while it holds all of it, so
   a server that is found from here on stays
2. then, one command at a time: does somebody hold `server.lock`? Then that is the server, or one
   that is just starting or ending, and its address appears or the lock comes free
3. else it makes a credential, takes the lock and listens at a port, and starts a server that
   inherits both: there is no moment at which another command could start a second one, and whoever
   connects waits until the server is ready

The server is in a session of its own and outlives the command. It ends by itself
(flows.adapters.prefect_server).
"""

import contextlib
import fcntl
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

import psutil

from flows.adapters import prefect_server
from flows.adapters.credentials import new_secret, read_secret, write_secret
from flows.adapters.doors import Door
from flows.adapters.own_tls import make_own_certificate
from flows.adapters.permissions import as_owner_only
from flows.adapters.prefect_server import (
    ADDRESS,
    CREDENTIAL,
    SERVER_LOCK,
    USERS_LOCK,
    this_machine,
    try_lock,
)
from s3t_core.errors import Busy, OrchestrationError, WorkspaceError
from s3t_core.files import open_to_lock, read_regular, remove_file, remove_tree

STARTING_LOCK = "starting.lock"
LOG = "server.log"
DATABASE, STORAGE = "prefect.db", "storage"
"""What Prefect keeps of runs."""
_PATIENCE_SECONDS = 60.0
_TELLING_SECONDS = 10.0
"""How long `stop` waits for an address: as long as a server that has just been started may take to
tell it."""
_READY_SECONDS = 180.0
_ANSWER_SECONDS = 10.0
_GRACE_SECONDS = 15.0
_PAUSE_SECONDS = 0.05
_LOOKING_SECONDS = 5.0
_LOG_BYTES = 2_000_000
_SLOT_WAIT = {"PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5"}


@dataclass(frozen=True)
class Address:
    """Where a server is: `url` of its API, its process, the machine (`this_machine`), its
    certificate's file or ""."""

    url: str
    pid: int
    machine: str
    certificate: str


class SharedServer:
    """The server of one Prefect home. `door`: where one listens that is started from here, unless
    it is changed."""

    def __init__(self, home: Path, idle_minutes: float, door: Door | None = None) -> None:
        self.home = home
        self._idle_minutes = idle_minutes
        self.door = door or Door()
        self._users: int | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def url_at(self, port: int) -> str:
        """What commands would call one that is started from here at this port."""
        if not _brings_its_own(self.door):
            return f"{self.door.origin(port)}/api"
        origin = replace(self.door, host=_address_of(self.door.host)).origin(port)
        return f"{origin.replace('http:', 'https:', 1)}/api"

    # --- using it

    def attach(self) -> Address:
        """Use the server from now on, until `detach` or the end of this process; start it when
        there is none.

        It may still be starting: `wait` for it before the first request. Raises Busy, and
        UsageError for a port that is taken.
        """
        as_owner_only(self.home)
        self.detach()
        self._users = self._hold(
            USERS_LOCK, fcntl.LOCK_SH, "the Prefect server of this workspace is just ending"
        )
        try:
            with self._alone():
                return self._found() or self._start()
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Use it no more. Idempotent."""
        if self._users is not None:
            os.close(self._users)
            self._users = None

    def credential(self) -> str:
        """What the server asks for. Raises WorkspaceError when it cannot be read, or others could
        read it."""
        try:
            return read_secret(self.home / CREDENTIAL)
        except WorkspaceError as error:
            raise WorkspaceError(f"{error}; here: `s3t stop`, then the command again") from None

    def wait(self, address: Address, seconds: float = _READY_SECONDS) -> None:
        """Until it answers. Raises OrchestrationError when it ends before, or does not in so
        long."""
        until = time.monotonic() + seconds
        while not answers(address):
            if not self.is_running() or time.monotonic() > until:
                raise OrchestrationError(
                    "expected the Prefect server of this workspace to start, it did not; "
                    f".s3t/prefect/{LOG} says why. Where its database is damaged, `s3t stop "
                    "--forget` removes it: what it keeps of runs goes, and nothing else"
                )
            time.sleep(_PAUSE_SECONDS)

    def is_running(self) -> bool:
        """Whether a server lives on this home."""
        if self._child is not None:
            self._child.poll()  # one that we started and that has died is no zombie for long
        with contextlib.suppress(FileNotFoundError), self._open(SERVER_LOCK, os.O_RDWR) as lock:
            return not try_lock(lock, fcntl.LOCK_SH)
        return False

    # --- ending it

    def stop(self, forget: bool = False) -> bool:
        """End the server and wait until it is gone; False when there was none. `forget`: remove
        what it kept of runs, too. Raises Busy while a command uses it."""
        if not (self.home / SERVER_LOCK).is_file():
            return False
        self.detach()
        with self._alone(), self._open(USERS_LOCK) as users:
            address = self._address_within(_TELLING_SECONDS)
            running = self.is_running()
            if running and not try_lock(users, fcntl.LOCK_EX):
                raise Busy(
                    "expected nobody to use the Prefect server of this workspace, but a command or "
                    "`s3t serve` does; wait for it, or stop it, then run this again"
                )
            if running:
                self._end(
                    address.pid
                    if address and self._holds_lock(address.pid)
                    else self._holder(address)
                )
                remove_file(self.home / ADDRESS)
            if forget:
                for kept in self.home.glob(f"{DATABASE}*"):
                    remove_file(kept)
                remove_tree(self.home / STORAGE)
            return running

    def _end(self, pid: int) -> None:
        """End the process, politely, then by force. Raises OrchestrationError when it stays, and
        for one that does not hold the server's lock: its number is another process's, as seen from
        another container."""
        if not self._holds_lock(pid):
            if not self.is_running():
                return
            raise OrchestrationError(
                f"expected process {pid} to be the Prefect server of this workspace, got another; "
                f"end the process that holds .s3t/prefect/{SERVER_LOCK} where it runs"
            )
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            if self._is_gone(_GRACE_SECONDS):
                return
        raise OrchestrationError(
            "expected the Prefect server of this workspace to end, it did not; end the process "
            f"that holds .s3t/prefect/{SERVER_LOCK}"
        )

    def _holder(self, address: Address | None) -> int:
        """The server's process, where its address is damaged or is not its own: who has its lock
        open, while nobody uses it. Raises OrchestrationError where none can be seen, or it is no
        server of ours."""
        found: list[int] = [
            pid for pid in psutil.pids() if pid != os.getpid() and self._holds_lock(pid)
        ]
        if len(found) == 1 and _is_server(found[0]):
            return found[0]
        if not found and address is not None:
            return address.pid
        numbers = ", ".join(map(str, found)) or "none that this process may see"
        raise OrchestrationError(
            f"expected one Prefect server to hold .s3t/prefect/{SERVER_LOCK}, got no address in "
            f"{ADDRESS} and these processes: {numbers}; end the one that holds it where it runs"
        )

    def _holds_lock(self, pid: int) -> bool:
        with contextlib.suppress(psutil.Error, ValueError, OverflowError):
            lock = (self.home / SERVER_LOCK).resolve()
            return any(Path(file.path) == lock for file in psutil.Process(pid).open_files())
        return False

    def _is_gone(self, seconds: float) -> bool:
        """Whether the server ends within so long."""
        until = time.monotonic() + seconds
        while self.is_running():
            if time.monotonic() > until:
                return False
            time.sleep(_PAUSE_SECONDS)
        return True

    # --- finding or starting it

    def _found(self) -> Address | None:
        """The server that runs, None when there is none. Raises Busy when it runs on another
        machine, or does not tell where."""
        address = self._address_within(_PATIENCE_SECONDS)
        if address is None and self.is_running():
            raise Busy(
                "expected the Prefect server of this workspace to tell its address, it does not; "
                "run `s3t stop`, then the command again"
            )
        return address

    def _address_within(self, seconds: float) -> Address | None:
        """What the server that runs tells within so long. Raises Busy when it runs on another
        machine."""
        until = time.monotonic() + seconds
        while self.is_running():
            address = self._address()
            if address is not None and address.machine != this_machine():
                raise Busy(
                    "expected this workspace's Prefect server on this machine, got one that runs "
                    "on another, or in a container; work there, or name a server of your own with "
                    "PREFECT_API_URL"
                )
            if address is not None:
                return address
            if time.monotonic() > until:
                return None
            time.sleep(_PAUSE_SECONDS)
        return None

    def _start(self) -> Address:
        remove_file(self.home / ADDRESS)
        write_secret(self.home / CREDENTIAL, new_secret_for_prefect())
        with self._open(SERVER_LOCK) as lock, self.door.bind() as bound:
            self._take(lock)
            door = self._with_tls(bound.getsockname()[0])
            self._child = self._spawn(door, lock, bound.fileno())
            url = self.url_at(bound.getsockname()[1])
        return Address(url, self._child.pid, this_machine(), door.tls_cert)

    def _with_tls(self, address: str) -> Door:
        """The door, with a certificate of the server's own where it has none."""
        if not _brings_its_own(self.door):
            return self.door
        certificate, key = make_own_certificate(self.home, address)
        return replace(self.door, tls_cert=str(certificate), tls_key=str(key))

    def _take(self, lock: int) -> None:
        """The server's lock, for the server to inherit. Whoever looks whether it is held holds it
        for that moment."""
        until = time.monotonic() + _LOOKING_SECONDS
        while not try_lock(lock, fcntl.LOCK_EX):
            if time.monotonic() > until:
                raise Busy(
                    "another process starts a Prefect server for this workspace; run the command "
                    "again"
                )
            time.sleep(_PAUSE_SECONDS / 10)

    def _spawn(self, door: Door, lock: int, listener: int) -> "subprocess.Popen[bytes]":
        command = [
            sys.executable,
            "-m",
            "flows.adapters.prefect_server",
            "--shared",
            str(self._idle_minutes),
            "--lock-fd",
            str(lock),
            "--socket-fd",
            str(listener),
            "--host",
            door.host,
        ]
        if door.tls_cert:
            command += ["--tls-cert", str(Path(door.tls_cert).resolve())]
            command += ["--tls-key", str(Path(door.tls_key).resolve())]
        if door.proxies:
            command += ["--behind-proxy", ",".join(door.proxies)]
        environment = {**os.environ, **_SLOT_WAIT, "PREFECT_HOME": str(self.home)}
        with self._log() as log:
            return subprocess.Popen(
                command,
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock, listener),
            )

    @contextlib.contextmanager
    def _log(self) -> Iterator[int]:
        """The server's log, 0600, to append to; begun anew when it is long."""
        path = self.home / LOG
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.unlink()
        with self._open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as log:
            yield log

    def _address(self) -> Address | None:
        """What the server has told, None for a file that is no address."""
        try:
            address = Address(**json.loads(read_regular(self.home / ADDRESS)))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        texts = (address.url, address.machine, address.certificate)
        return (
            address
            if type(address.pid) is int and all(isinstance(text, str) for text in texts)
            else None
        )

    # --- locks

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One command at a time looks for the server."""
        lock = self._hold(
            STARTING_LOCK,
            fcntl.LOCK_EX,
            "another command is starting this workspace's Prefect server",
        )
        try:
            yield
        finally:
            os.close(lock)

    def _hold(self, name: str, kind: int, busy: str) -> int:
        """A lock, held. Raises Busy when that takes too long."""
        descriptor = open_to_lock(self.home / name)
        until = time.monotonic() + _PATIENCE_SECONDS
        while not try_lock(descriptor, kind):
            if time.monotonic() > until:
                os.close(descriptor)
                raise Busy(f"{busy}; run the command again, or end it with `s3t stop`")
            time.sleep(_PAUSE_SECONDS)
        return descriptor

    @contextlib.contextmanager
    def _open(self, name: str, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[int]:
        descriptor = open_to_lock(self.home / name, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _is_server(pid: int) -> bool:
    """Whether a process is one that `_spawn` starts."""
    with contextlib.suppress(psutil.Error):
        return prefect_server.__name__ in psutil.Process(pid).cmdline()
    return False


def new_secret_for_prefect() -> str:
    """A credential in the form that Prefect wants, `USER:PASSWORD`."""
    return f"s3t:{new_secret()}"


def _brings_its_own(door: Door) -> bool:
    """Whether a server at this door makes its own certificate: where only this machine's commands
    ask. A proxy that the operator named speaks as he told it to."""
    return door.is_loopback and not (door.tls_cert or door.proxies)


def _address_of(host: str) -> str:
    """The address that a certificate of the server's own is for: as it is bound, and spelt."""
    return "127.0.0.1" if host == "localhost" else str(ip_address(host))


def answers(address: Address) -> bool:
    """Whether the server at this address says that it is well."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if address.url.startswith("https:"):
        handlers.append(urllib.request.HTTPSHandler(context=ssl_context(address.certificate)))
    try:
        with urllib.request.build_opener(*handlers).open(
            f"{address.url}/health", timeout=_ANSWER_SECONDS
        ) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def ssl_context(certificate: str) -> ssl.SSLContext:
    """Whom to believe: what PREFECT_API_SSL_CERT_FILE names, else the system's authorities; and
    whoever has the key of the server's own certificate."""
    context = ssl.create_default_context(cafile=os.environ.get("PREFECT_API_SSL_CERT_FILE") or None)
    if certificate and Path(certificate).is_file():
        context.load_verify_locations(cafile=certificate)
    return context
