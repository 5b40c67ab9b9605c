"""Nothing leaves the machine, nothing is written to a home directory."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3t_core.learning.pins import pin
from tests.without_servers import leave_out

leave_out()
_HOME = tempfile.mkdtemp(prefix="s3t-tests-")
_ROOT = str(Path(__file__).parents[1])
_PATH = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "TOKENIZERS_PARALLELISM": "false",
        "PREFECT_HOME": _HOME,
        # children of ours do not look where they stand (flows/hardening.py): theirs are here
        "PYTHONPATH": os.pathsep.join([_ROOT, *(p for p in _PATH if p != _ROOT)]),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
)
if "S3T_TEST_DEVICE" in os.environ:  # `make test-gpu`: as every process of ours that trains does
    pin(os.environ)


@pytest.fixture(scope="session", autouse=True)
def _tables_of_mlflow() -> Iterator[None]:
    """See tests/mlflow_tables.py. MLflow is imported only where a test has a registry."""
    from flows.adapters.registry.connection import Connection
    from tests.mlflow_tables import make_them_once

    begin = Connection.__init__

    def connect(self: Connection, uri: str, name: str) -> None:
        make_them_once()
        begin(self, uri, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "__init__", connect)
        yield


def pytest_configure(config: pytest.Config) -> None:
    """See tests/ordering.py."""
    from tests.ordering import LongestFirst

    config.pluginmanager.register(LongestFirst(), "longest-first")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All variants of a test that is `long_but_first`, save its first one, are `long`; with
    `every=N`, all save every N-th."""
    seen: Counter[str] = Counter()
    for item in items:
        marker = item.get_closest_marker("long_but_first")
        if marker is None:
            continue
        test = item.nodeid.partition("[")[0]
        every = marker.kwargs.get("every")
        if seen[test] % every if every else seen[test]:
            item.add_marker(pytest.mark.long)
        seen[test] += 1


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of three layers with its tokenizer."""
    from tests.ready import backbone_in, ready_folder
    from tests.tiny import build_backbone

    if folder := ready_folder():
        return backbone_in(folder)
    return build_backbone(tmp_path_factory.mktemp("backbone"), layers=3)


@pytest.fixture(scope="session")
def twelve_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of twelve layers: `layer.1` is also a substring of `layer.10` and
    `layer.11`."""
    from tests.tiny import build_backbone

    return build_backbone(tmp_path_factory.mktemp("backbone12"), layers=12)
