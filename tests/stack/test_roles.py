"""One workspace, three PostgreSQL roles (infra/roles.sql): each does its work whole, and none does another's."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from flows.ingest import ingest
from flows.train import train
from flows.wiring import Workspace, create_workspace
from infra.stack import Stack
from tests.flows.conftest import CANARY, people, write_csv
from tests.stack.conftest import KEY, ROOT

pytestmark = pytest.mark.timeout(600)
ROLES = {"clerk": "s3t_requests", "carrier": "s3t_eraser", "officer": "s3t_auditor"}


def s3t(place: Workspace, user: str, *arguments: str) -> tuple[int, Any]:
    """A command as one of them: the exit code and the document it printed."""
    theirs = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    done = subprocess.run([sys.executable, "-m", "flows.cli", *arguments, "--workspace", str(place.root), "--json"],
                          cwd=ROOT, capture_output=True, text=True, check=False, env={**theirs, "PGUSER": user})
    assert done.stdout.strip(), done.stderr[-3000:]
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def place(stack: Stack, make_config: Callable[..., Any], database: str, tmp_path: Path,
          monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Trained by its owner; its URL names nobody, so whoever works says who with PGUSER."""
    monkeypatch.setenv("PGUSER", "postgres")
    name = urlsplit(database).path.strip("/")
    config = make_config(database={"url": stack.database(name, user="").replace("//@/", "///")})
    made = create_workspace(tmp_path / "w", config, KEY)
    ingest(str(made.root), str(write_csv(tmp_path / "people.csv", people(canary=True))))
    train(str(made.root))
    with psycopg.connect(stack.database(name), autocommit=True) as connection:
        connection.execute((ROOT / "infra" / "roles.sql").read_bytes())
        for person, role in ROLES.items():
            connection.execute(f"DROP ROLE IF EXISTS {person}")
            connection.execute(f"CREATE ROLE {person} LOGIN IN ROLE {role}")
    return made


def test_each_role_does_its_work_and_no_other(stack: Stack, place: Workspace, database: str) -> None:
    code, taken = s3t(place, "clerk", "request", CANARY)
    assert code == 0 and [f["found"] for f in taken["found"]] == ["not told"]
    request = (taken if isinstance(taken, list) else taken["requests"])[0]["id"]
    code, other = s3t(place, "clerk", "request", "person-003")
    assert code == 0
    withdrawn = (other if isinstance(other, list) else other["requests"])[0]["id"]
    assert s3t(place, "clerk", "withdraw", withdrawn)[0] == 0
    code, told = s3t(place, "officer", "status")
    assert code == 0 and [p["id"] for p in told["pending"]] == [request]

    for user in ("clerk", "officer"):
        code, refused = s3t(place, user, "erase")
        assert code == 1 and "permission denied" in refused["message"], refused
    assert s3t(place, "officer", "request", "person-005")[0] == 1
    assert s3t(place, "officer", "status")[1]["pending"][0]["id"] == request

    assert s3t(place, "carrier", "request", CANARY)[1]["found"][0]["found"] == "in the data"
    code, done = s3t(place, "carrier", "erase")
    assert code == 0 and [c["request"] for c in done["certificates"]] == [request]
    assert s3t(place, "officer", "verify", str(place.certificates_dir))[0] == 0


def test_a_request_that_only_looks_closed_stops_everything(stack: Stack, place: Workspace, database: str) -> None:
    assert s3t(place, "clerk", "request", CANARY)[0] == 0
    name = urlsplit(database).path.strip("/")
    with psycopg.connect(stack.database(name, user="clerk"), autocommit=True) as connection:
        connection.execute("UPDATE requests SET certificate = 'x'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE requests SET subject = 'somebody else'")
    for user, command in (("officer", "status"), ("carrier", "erase")):
        code, told = s3t(place, user, command)
        assert code == 1 and "request book" in told["message"]
