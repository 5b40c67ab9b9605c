"""One workspace, three PostgreSQL roles (infra/roles.sql): each does its work whole, and none does
another's."""

import contextlib
import json
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from flows.adapters import connecting
from flows.adapters.database import Database, seal_of
from flows.adapters.tables import METADATA
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases.intakes import add_intake, install_intake, make_intake_key
from flows.use_cases.tokens import make_token
from flows.workspace import access
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from infra.stack import ACCOUNTS, DATABASES, OWNER, Stack
from s3t_core.canonical import canonical_json
from s3t_core.erasure import events
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.ledger import leaf_of
from s3t_core.erasure.merkle import leaf_hash
from s3t_core.erasure.rules import KINDS
from s3t_core.errors import StorageError
from tests.flows.conftest import CANARY, CANARY_TEXT, people, write_csv
from tests.held import HELD
from tests.stack.conftest import KEY, ROOT
from tests.stack.test_postgresql import FIRST

pytestmark = pytest.mark.timeout(600)


def s3t(
    stack: Stack, place: Workspace, user: str, *arguments: str, servers: bool = False
) -> tuple[int, Any]:
    """A command as whoever sourced that account's `env`, and has the other servers' keys too if
    they are told: the exit code and the document it printed."""
    theirs = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("MLFLOW_", "AWS_", "PREFECT_", "PG"))
    }
    theirs |= {**(stack.env if servers else {}), **stack.env_of(user)}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--workspace", str(place.root), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=theirs,
    )
    assert done.stdout.strip(), done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def ingested(
    stack: Stack,
    make_config: Callable[..., Any],
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Workspace:
    """By its owner; its URL names nobody, so whoever works says who with PGUSER."""
    monkeypatch.setenv("PGUSER", "s3t")
    name = urlsplit(database).path.strip("/")
    config = make_config(database={"url": stack.database(name, user="")})
    made = create_workspace(tmp_path / "w", config, KEY)
    ingest(str(made.root), str(write_csv(tmp_path / "people.csv", people(canary=True))))
    stack.make_roles(name)
    return made


@pytest.fixture
def place(stack: Stack, ingested: Workspace, database: str) -> Workspace:
    """The same, trained by its owner."""
    train(str(ingested.root))
    stack.make_roles(urlsplit(database).path.strip("/"))
    return ingested


@pytest.mark.minutes
def test_each_role_does_its_work_and_no_other(
    stack: Stack, place: Workspace, database: str
) -> None:
    code, taken = s3t(stack, place, "clerk", "request", CANARY)
    assert code == 0 and [f["found"] for f in taken["found"]] == ["not told"]
    request = (taken if isinstance(taken, list) else taken["requests"])[0]["id"]
    code, other = s3t(stack, place, "clerk", "request", "person-003")
    assert code == 0
    withdrawn = (other if isinstance(other, list) else other["requests"])[0]["id"]
    assert s3t(stack, place, "clerk", "withdraw", withdrawn)[0] == 0
    code, told = s3t(stack, place, "auditor", "status")
    assert code == 0 and [p["id"] for p in told["pending"]] == [request]

    for user in ("clerk", "auditor"):
        assert s3t(stack, place, user, "erase")[0] == 1
        code, refused = s3t(stack, place, user, "erase", servers=True)
        assert code == 1 and re.search(
            "permission denied|row-level security", refused["message"]
        ), refused
    assert s3t(stack, place, "auditor", "request", "person-005")[0] == 1
    assert s3t(stack, place, "auditor", "status")[1]["pending"][0]["id"] == request

    assert s3t(stack, place, "eraser", "request", CANARY)[1]["found"][0]["found"] == "in the data"
    code, done = s3t(stack, place, "eraser", "erase")
    assert code == 0 and [c["request"] for c in done["certificates"]] == [request]
    assert s3t(stack, place, "auditor", "verify", str(place.certificates_dir))[0] == 0


def test_what_the_ledger_on_a_server_quotes_of_somebody_is_found_there(
    stack: Stack, ingested: Workspace
) -> None:
    """Words that an older release took: no file of the workspace has them."""
    code, asked = s3t(stack, ingested, "eraser", "request", CANARY)
    assert code == 0
    opened = Workspace(ingested.root)
    with access.changing(opened):
        opened.ledger.append(
            {
                "type": "approved",
                "time": opened.now(),
                "by": f"on behalf of {CANARY}",
                "request": asked["requests"][0]["id"],
            }
        )
    code, told = s3t(stack, ingested, "eraser", "erase")
    assert code == 1 and not told["certificates"]
    assert Workspace(ingested.root).ledger.state().set_aside == [asked["requests"][0]["id"]]


def test_a_request_that_only_looks_closed_stops_everything(
    stack: Stack, ingested: Workspace, database: str
) -> None:
    assert s3t(stack, ingested, "clerk", "request", CANARY)[0] == 0
    name = urlsplit(database).path.strip("/")
    with psycopg.connect(stack.database(name, user="clerk"), autocommit=True) as connection:
        connection.execute("UPDATE requests SET certificate = 'x'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE requests SET subject = 'somebody else'")
    for user, command in (("auditor", "status"), ("eraser", "erase")):
        code, told = s3t(stack, ingested, user, command)
        assert code == 1 and "request book" in told["message"]


OWN = {
    "intake": {"request", "repeated", "spelt", "clock"},
    "clerk": {
        "request",
        "repeated",
        "spelt",
        "approved",
        "extended",
        "hold",
        "closed",
        "clock",
    },
    "eraser": KINDS,
    "auditor": set(),
}
"""The kinds of entries that each account may write."""


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_writes_its_own_kinds_of_entries_alone(
    stack: Stack, database: str, tmp_path: Path, account: str
) -> None:
    """Whatever keys whoever has it also has."""
    name = urlsplit(database).path.strip("/")
    Database(database, tmp_path).create([FIRST])
    stack.make_roles(name)
    taken = set()
    for kind in sorted(KINDS):
        with psycopg.connect(stack.database(name, user=account)) as connection:
            try:
                connection.execute(
                    "INSERT INTO ledger VALUES (1, %s, 'h', 's')", [canonical_json({"type": kind})]
                )
                taken.add(kind)
            except psycopg.errors.InsufficientPrivilege:
                pass
            connection.rollback()
    assert taken == OWN[account]
    for leaf in (b"\xff", b"{}", b"[]", b'{"type": null}', b'{"type": "request", "type": "step"}'):
        with (
            psycopg.connect(stack.database(name, user="clerk")) as connection,
            pytest.raises(psycopg.Error),
        ):
            connection.execute("INSERT INTO ledger VALUES (1, %s, 'h', 's')", [leaf])


NOBODY = 65534
APART = """
import contextlib, importlib, os, pkgutil, sys, threading
from pathlib import Path
for name in ("encodings", "email", "anyio", "h11", "uvicorn", "starlette", "fastapi", "psycopg",
             "psycopg_binary", "sqlalchemy.dialects.postgresql", "alembic.command",
             "alembic.runtime", "alembic.script", "alembic.ddl", "flows.api", "flows.workspace"):
    package = importlib.import_module(name)  # this user may not read them any more soon
    for each in pkgutil.walk_packages(getattr(package, "__path__", ()), name + ".", str):
        with contextlib.suppress(BaseException):
            "__main__" in each.name or importlib.import_module(each.name)
from flows.adapters.doors import Door
from flows.api.server import serve
from flows.workspace.intake import IntakeHost
if os.getuid() == 0:
    os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
serve(IntakeHost(Path(sys.argv[1])), Door(), threading.Event(), lambda url: print(url, flush=True))
"""


class _Way(socketserver.BaseRequestHandler):
    """From a port to PostgreSQL's socket, which lies where another user does not come."""

    there: str

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(self.there)
            back = threading.Thread(target=self._carry, args=(there, self.request), daemon=True)
            back.start()
            self._carry(self.request, there)

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(2**16):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


@pytest.fixture
def way(stack: Stack) -> Iterator[int]:
    """The port of one."""
    [path] = (stack.folder / "postgres").glob(".s.PGSQL.*[0-9]")
    handler = type("Way", (_Way,), {"there": str(path)})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.fixture
def apart(stack: Stack, place: Workspace, database: str, way: int) -> Iterator[tuple[Path, str]]:
    """The door of a host apart, of another operating-system user where this one may choose, under
    its own account: its directory and its address."""
    with tempfile.TemporaryDirectory(prefix="s3t-apart-") as name:
        folder = Path(name)
        public = make_intake_key(folder)
        url = f"postgresql://127.0.0.1:{way}{urlsplit(database).path}"
        _, content = add_intake(Workspace(place.root), "web site", public, "officer", url)
        (folder / "hand.json").write_bytes(content)
        host = install_intake(folder, folder / "hand.json")
        (folder / "hand.json").unlink()
        token = make_token(host, "web site", ["asks"], 1)["token"]
        shutil.copy(stack.passwords("intake"), folder / "passwords")
        (folder / "passwords").chmod(0o600)
        if os.getuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MLFLOW_", "PG"))}
        env |= {
            "PGUSER": "intake",
            "PGPASSFILE": str(folder / "passwords"),
            "PYTHONPATH": str(ROOT),
        }
        with subprocess.Popen(
            [sys.executable, "-c", APART, name, str(NOBODY)],
            env=env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=(folder / "log").open("w"),
            text=True,
        ) as door:
            assert door.stdout is not None
            url = door.stdout.readline().strip()
            assert url, (folder / "log").read_text()[-3000:]
            yield folder, f"{url} {token}"
            door.kill()


def test_a_host_apart_takes_requests_and_can_neither_read_nor_decide(
    stack: Stack, place: Workspace, database: str, apart: tuple[Path, str]
) -> None:
    folder, (url, token) = apart[0], apart[1].split()
    headers = {"authorization": f"Bearer {token}"}
    asked = httpx.post(
        f"{url}/api/v1/requests", headers=headers, json={"subjects": [CANARY]}, timeout=60
    )
    assert asked.status_code == 201, asked.text
    [request] = asked.json()["requests"]
    held = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
    opens = [p.read_bytes().strip() for p in place.keys_dir.glob("unseal-*")]
    assert len(opens) == 1 and opens[0] not in held and CANARY.encode() not in held
    if os.getuid() == 0:
        looks = f"import os; os.setuid({NOBODY}); open({str(place.keys_dir / 'signing.key')!r})"
        done = subprocess.run(
            [sys.executable, "-c", looks], capture_output=True, text=True, check=False
        )
        assert "PermissionError" in done.stderr

    name = urlsplit(database).path.strip("/")
    known = Workspace(place.root).database
    with known.reading() as connection:
        folded = known.folded(connection)
    seals = json.loads((folder / ".s3t/intake.json").read_text())["keys"]["sealing"]
    with psycopg.connect(stack.database(name, user="intake"), autocommit=True) as theirs:
        sealed = theirs.execute("SELECT sealed FROM sealed_ids").fetchall()
        assert len(sealed) == 1 and CANARY.encode() not in bytes(sealed[0][0])
        for event in (
            {
                "type": "closed",
                "request": request["id"],
                "kind": "withdrawal",
                "certificate": "0" * 64,
            },
            {"type": "approved", "request": request["id"], "by": "officer"},
            {"type": "planned", "plan": {}},
            {"type": "certified", "request": request["id"], "certificate": "0" * 64},
            {"type": "intake", "state": "removed", "key": "0" * 64, "by": "officer"},
        ):
            leaf = leaf_of({**event, "time": place.now()})
            seal = seal_of(bytes.fromhex(seals), folded.size, folded.seal, leaf_hash(leaf))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                theirs.execute(
                    "INSERT INTO ledger VALUES (%s, %s, %s, %s)",
                    [folded.size, leaf, leaf_hash(leaf), seal],
                )
        for statement in (
            "UPDATE requests SET certificate = 'x'",
            "UPDATE sealed_ids SET sealed = 'x'",
            "DELETE FROM sealed_ids",
            "DELETE FROM requests",
            "INSERT INTO suppression VALUES ('a', 'b', 'c', 'd')",
            "INSERT INTO lease VALUES ('change', repeat('a', 32), repeat('b', 64), 1)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                theirs.execute(statement)
    with (
        psycopg.connect(stack.database(name, user="auditor")) as looking,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        looking.execute("SELECT * FROM sealed_ids")
    for path in ("approve", "withdraw", "reject"):
        refused = httpx.post(f"{url}/api/v1/requests/{request['id']}/{path}", headers=headers)
        assert refused.status_code == 404
    code, done = s3t(stack, place, "eraser", "erase")
    assert code == 0 and [c["request"] for c in done["certificates"]] == [request["id"]]
    later = httpx.get(f"{url}/api/v1/requests/{request['id']}", headers=headers, timeout=60)
    assert later.json()["state"] == "closed"


@pytest.mark.long
def test_who_takes_requests_cannot_say_that_an_erasure_did_a_step(
    stack: Stack, place: Workspace, database: str
) -> None:
    """Copies of an older erasure's entries, of the new plan, under genuine seals, while the eraser
    waits."""
    assert s3t(stack, place, "clerk", "request", "person-003")[0] == 0
    assert s3t(stack, place, "eraser", "erase")[0] == 0
    older = [e for e in Workspace(place.root).ledger.events() if e["type"] == "step"]
    assert s3t(stack, place, "clerk", "request", CANARY)[0] == 0
    open_place = Workspace(place.root)
    with access.changing(open_place):
        eraser = Eraser(
            erase_ports(open_place, HELD), erase_policy(open_place), lambda: "plan-" + "a" * 16
        )
        plan = eraser.plan()
        assert plan is not None
        eraser.run_step("cut over", plan)
    with open_place.database.reading() as connection:
        known = open_place.database.folded(connection)
    with psycopg.connect(
        stack.database(urlsplit(database).path.strip("/"), user="clerk"), autocommit=True
    ) as theirs:
        for event in older:
            leaf = leaf_of({**event, "plan_id": plan.plan_id, "time": place.now()})
            sealed = seal_of(place.keys.sealing, known.size, known.seal, leaf_hash(leaf))
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                theirs.execute(
                    "INSERT INTO ledger VALUES (%s, %s, %s, %s)",
                    [known.size, leaf, leaf_hash(leaf), sealed],
                )
    code, done = s3t(stack, place, "eraser", "erase")
    assert code == 0 and len(done["certificates"]) == 1
    files = [p.read_bytes() for p in place.root.rglob("*.parquet")]
    assert files and not any(CANARY_TEXT[:40].encode() in data for data in files)


@pytest.mark.long
def test_an_account_that_looks_holds_up_nobody(
    stack: Stack, ingested: Workspace, database: str
) -> None:
    """Neither by a lock that it can take, nor by a transaction that it leaves open."""
    name = urlsplit(database).path.strip("/")
    with contextlib.ExitStack() as held:
        free: list[psycopg.Connection] = []

        def statement(text: str) -> None:
            connection = (
                free.pop()
                if free
                else held.enter_context(psycopg.connect(stack.database(name, user="auditor")))
            )
            try:
                connection.execute(text)  # stays open
            except psycopg.errors.InsufficientPrivilege:
                connection.rollback()
                free.append(connection)

        for number in (0x53335400, 1):
            statement(f"SELECT pg_advisory_lock({number})")
        for table in [*METADATA.tables, "s3t_schema"]:
            statement(f"SELECT * FROM {table}")  # noqa: S608
            statement(f"SELECT * FROM {table} FOR KEY SHARE")  # noqa: S608
            for mode in (
                "ACCESS SHARE",
                "ROW SHARE",
                "ROW EXCLUSIVE",
                "SHARE",
                "EXCLUSIVE",
                "ACCESS EXCLUSIVE",
            ):
                statement(f"LOCK TABLE {table} IN {mode} MODE")
        assert s3t(stack, ingested, "clerk", "request", CANARY)[0] == 0
        code, done = s3t(stack, ingested, "eraser", "erase")
        assert code == 0 and len(done["certificates"]) == 1


@pytest.mark.parametrize("account", ACCOUNTS)
def test_an_account_keeps_nothing_beside_the_tables_and_sees_no_other_database(
    stack: Stack, database: str, tmp_path: Path, account: str
) -> None:
    name = urlsplit(database).path.strip("/")
    Database(database, tmp_path).create([FIRST])
    stack.make_roles(name)
    with psycopg.connect(stack.database(name, user=account), autocommit=True) as connection:
        for statement in (
            "SELECT lo_create(0)",
            "SELECT lo_creat(-1)",
            "SELECT lo_from_bytea(0, 'x')",
            "CREATE TABLE x ()",
            "CREATE TEMPORARY TABLE x ()",
            "CREATE SCHEMA x",
            "COPY ledger TO PROGRAM 'cat'",
            "SELECT pg_read_file('PG_VERSION')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
        with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.InsufficientPrivilege)):
            connection.execute(
                "INSERT INTO lease VALUES ('change', %s, 'x', 1)", [f"{CANARY} was here"]
            )
    log = "".join(
        p.read_text(errors="replace") for p in [stack.folder / "postgres" / "log"] if p.is_file()
    )
    assert log and CANARY not in log
    for other in (*DATABASES, "postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(stack.database(other, user=account))


def _sleeps(url: str) -> None:
    """A session that reads the ledger, and is busy for long."""
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url) as busy:
        busy.execute("SELECT * FROM ledger")
        busy.execute("SELECT pg_sleep(300)")


def test_a_move_names_the_session_that_it_waits_for(
    stack: Stack,
    ingested: Workspace,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody who only looks keeps the tables that it would take away."""
    monkeypatch.setattr(connecting, "POSTGRESQL", (*connecting.POSTGRESQL, "lock_timeout = '1s'"))
    name = urlsplit(database).path.strip("/")
    there = Database("sqlite:///there.db", tmp_path, ingested.keys.sealing)
    there.prepare()
    moved = events.Migrated(time=ingested.now(), move="m", settings={}, versions={})
    with psycopg.connect(stack.database(name, user="auditor")) as looking:
        looking.execute("SELECT * FROM ledger")
        with pytest.raises(StorageError, match=rf"\b{looking.info.backend_pid}\b.*terminate"):
            ingested.database.move_to(there, moved)
    assert ingested.database.exists()
    ingested.database.move_to(there, moved)
    assert there.exists() and not ingested.database.exists()


@pytest.mark.long
def test_an_account_that_looks_takes_no_connections_from_who_erases_and_holds_up_no_upgrade(
    stack: Stack, ingested: Workspace, database: str
) -> None:
    name = urlsplit(database).path.strip("/")
    with contextlib.ExitStack() as held:

        def connected() -> psycopg.Connection:
            return held.enter_context(psycopg.connect(stack.database(name, user="auditor")))

        kept = connected()
        kept.execute("SELECT * FROM ledger")
        with pytest.raises(psycopg.OperationalError, match="too many connections"):
            for _ in range(200):
                connected()
        stack.make_roles(name)  # as after an upgrade: nothing changes, so it waits for nobody
        kept.execute("SELECT 1")
        with psycopg.connect(stack.database(name, user="postgres"), autocommit=True) as owner:
            owner.execute("COMMENT ON POLICY ask ON ledger IS 'earlier'")
        busy = threading.Thread(target=_sleeps, args=(stack.database(name, user="auditor"),))
        kept.close()
        busy.start()
        time.sleep(1)
        stack.make_roles(name)  # and where something does, it waits for nobody who only looks
        busy.join(20)
        assert not busy.is_alive()
        assert s3t(stack, ingested, "clerk", "request", CANARY)[0] == 0
        assert s3t(stack, ingested, "eraser", "erase")[0] == 0


def test_nobody_is_who_they_say_without_a_password(
    stack: Stack, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = urlsplit(database).path.strip("/")
    Database(database, tmp_path).create([FIRST])
    stack.make_roles(name)
    monkeypatch.setenv("PGPASSFILE", os.devnull)
    for user in (OWNER, *DATABASES, *ACCOUNTS):
        for password in (None, "", "postgres", user):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(stack.database(name, user=user), password=password)
    kept = list((stack.folder / "passwords").iterdir())
    assert kept and not any(p.stat().st_mode & 0o077 for p in (stack.folder / "passwords", *kept))
