"""MLflow's database in the workspace is made whole, or not at all: MLflow makes its tables step by
step, and goes on with none that a kill cut in the middle."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.adapters.mlflow_file import file_of
from flows.adapters.registry.connection import Connection
from s3t_core.errors import StorageError
from s3t_core.files import is_half_written

ROOT = Path(__file__).parents[2]
_MAKES = """
import sys
from flows.adapters.registry.connection import Connection
Connection(f"sqlite:///{sys.argv[1]}/mlflow.db", "some model")
"""


@pytest.mark.slow
def test_one_whose_making_was_killed_is_made_by_the_next(tmp_path: Path) -> None:
    making = subprocess.Popen(
        [sys.executable, "-c", _MAKES, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 120
        while not any(p.stat().st_size > 100_000 for p in tmp_path.glob("*.db")):
            assert making.poll() is None and time.monotonic() < until
            time.sleep(0.005)
    finally:
        making.send_signal(signal.SIGKILL)
        making.wait()
    left = [p.name for p in tmp_path.iterdir()]
    assert left and all(map(is_half_written, left)), "what a sweep removes"
    made = Connection(f"sqlite:///{tmp_path}/mlflow.db", "some model")
    assert made.client.search_registered_models() == []


def test_one_that_another_process_made_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.db import utils

    path = tmp_path / "mlflow.db"
    Connection(f"sqlite:///{path}", "some model").client.create_registered_model("kept")
    kept = path.read_bytes()
    path.rename(tmp_path / "aside")
    makes = utils._initialize_tables

    def meanwhile(engine: object) -> None:
        makes(engine)
        if "mlflow.db" not in str(engine):
            path.write_bytes(kept)

    monkeypatch.setattr(utils, "_initialize_tables", meanwhile)
    other = Connection(f"sqlite:///{path}", "some model")
    assert [m.name for m in other.client.search_registered_models()] == ["kept"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["aside", "mlflow.db"]


def test_whoever_goes_on_with_a_registry_goes_on_with_the_one_that_lies_there(
    tmp_path: Path,
) -> None:
    """What lay there before has no name any more, and knows of nothing that is done since."""
    path = tmp_path / "mlflow.db"
    ours = Connection(f"sqlite:///{path}", "some model")
    ours.client.create_registered_model("of before")
    other = path.with_name("other.db")
    Connection(f"sqlite:///{other}", "some model").client.create_registered_model("of now")
    path.rename(path.with_name("aside.db"))
    with pytest.raises(StorageError, match="FileNotFoundError"), ours.guarded():
        ours.client.search_registered_models()
    assert not path.exists()
    other.rename(path)
    with ours.guarded():
        assert [m.name for m in ours.client.search_registered_models()] == ["of now"]


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:////a/b.db", "/a/b.db"),
        ("sqlite:///b.db", str(Path.cwd() / "b.db")),
        ("sqlite+pysqlite:////a/b.db", "/a/b.db"),
        ("sqlite:///file:/a/b.db?uri=true", "/a/b.db"),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("https://registry.example", None),
        ("postgresql://u:p@h/d", None),
    ],
)
def test_what_is_a_file_is_told_by_its_address(uri: str, file: str | None) -> None:
    assert file_of(uri) == (Path(file) if file else None)
