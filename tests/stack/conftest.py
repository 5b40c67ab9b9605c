"""One stack for all tests here, on free ports, and small workspaces on it. `make test-stack`."""

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.ports import free_ports

RUNNING = os.environ.get("S3T_TEST_STACK")
"""The directory of a stack that runs already (`infra.stack up --dir DIR --config DIR/stack.toml`),
to test on it."""
PORTS = tomllib.loads(Path(RUNNING, "stack.toml").read_text())["ports"] if RUNNING else free_ports()
os.environ["PREFECT_API_URL"] = (
    f"https://127.0.0.1:{PORTS['prefect']}/api"  # Prefect reads it once, when imported
)
_TLS = Path(RUNNING, "prefect") if RUNNING else Path(tempfile.mkdtemp(prefix="s3t-tls-"))
os.environ["PREFECT_API_SSL_CERT_FILE"] = str(_TLS / "server.crt")
os.environ["PREFECT_API_AUTH_STRING"] = (
    Path(RUNNING, "prefect-credential").read_text().strip()
    if RUNNING
    else "s3t:a-credential-of-these-tests"
)

from flows.adapters.credentials import write_secret  # noqa: E402
from flows.adapters.own_tls import make_own_certificate  # noqa: E402
from flows.workspace.creating import create_workspace  # noqa: E402
from flows.workspace.workspace import Workspace  # noqa: E402
from infra.stack import ACCOUNTS, CREDENTIAL, DATABASES, OWNER, Stack  # noqa: E402
from tests.flows.conftest import tiny_config  # noqa: E402
from tests.tiny import build_backbone  # noqa: E402

ROOT = Path(__file__).parents[2]
EVERY = os.environ.get("S3T_TEST_FAULTS") == "all"
"""`make test-stack-faults`: every server during every flow, and what takes minutes."""
KEY = b"\x05" * 32


def up(stack: Stack) -> None:
    """Start what is not running, in a process of its own, as a user does."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "infra.stack",
            "up",
            "--dir",
            str(stack.folder),
            "--config",
            str(stack.folder / "stack.toml"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        logs = "".join(
            f"\n--- {p.name}\n{p.read_text()[-1500:]}"
            for p in (stack.folder / "logs").glob("*.log")
        )
        raise AssertionError(done.stderr + logs)


def _work_with(stack: Stack) -> None:
    """As whoever sourced its `env`, and knows every account's password besides: tests make
    databases of their own."""
    os.environ.update(stack.env)
    del os.environ["PGUSER"]
    os.environ["PGPASSFILE"] = str(stack.passwords(OWNER, *DATABASES, *ACCOUNTS))


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A running stack; this process's environment is that of whoever sourced its `env`."""
    if RUNNING:
        there = Stack(Path(RUNNING), Path(RUNNING, "stack.toml"))
        _work_with(there)
        yield there
        return
    with tempfile.TemporaryDirectory(prefix="s3t-stack-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user where this one is root
        config = Path(folder, "stack.toml")
        config.write_text(
            "[ports]\n"
            + "".join(f"{k} = {v}\n" for k, v in PORTS.items())
            + '[workers]\ncount = 2\npool = "s3t"\n'
        )
        write_secret(Path(folder, CREDENTIAL), os.environ["PREFECT_API_AUTH_STRING"])
        make_own_certificate(_TLS, "127.0.0.1")
        _TLS.rename(Path(folder, "prefect"))
        _TLS.symlink_to(Path(folder, "prefect"))  # Prefect in this process has read where it is
        made = Stack(Path(folder), config)
        try:
            up(made)
            _work_with(made)
            yield made
        finally:
            made.down()
            _TLS.unlink()


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder, two layers."""
    return build_backbone(tmp_path_factory.mktemp("backbone"), layers=2)


_COUNT = iter(range(1000))


@pytest.fixture
def database(stack: Stack) -> str:
    """The URL of an empty database."""
    name = f"t{next(_COUNT)}_{os.getpid()}"
    stack.make_database(name)
    return stack.database(name)


@pytest.fixture
def make_config(stack: Stack, backbone: Path, database: str) -> Callable[..., Any]:
    """A config with everything on the stack, under names of its own."""

    def make(**changes: dict[str, Any]) -> Any:
        prefix = urlsplit(database).path.strip("/")
        servers: dict[str, Any] = {
            "system": {"name": prefix},
            "database": {"url": database},
            "store": {"url": f"s3://s3t/{prefix}/stages"},
            "dvc": {"remote": f"s3://s3t/{prefix}/dvc"},
            "registry": {
                "tracking_uri": f"http://127.0.0.1:{stack.ports['mlflow']}",
                "backend": stack.database("mlflow"),
                "artifacts": "s3://mlflow/artifacts",
            },
        }
        for section, keys in changes.items():
            servers.setdefault(section, {}).update(keys)
        return tiny_config(backbone, **servers)

    return make


@pytest.fixture
def make_place(tmp_path: Path, backbone: Path) -> Callable[..., Workspace]:
    """A workspace of this machine alone; keyword arguments change config sections."""

    def make(name: str = "local", **changes: dict[str, Any]) -> Workspace:
        return create_workspace(tmp_path / name, tiny_config(backbone, **changes), KEY)

    return make
