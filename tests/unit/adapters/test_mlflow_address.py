"""Whoever used MLflow in this process finds its own address again."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import pytest

from flows.adapters.mlflow_address import addressed

_BARE = """
import os, sys
from flows.adapters.mlflow_address import addressed
import mlflow
before = mlflow.get_tracking_uri(), mlflow.get_registry_uri(), mlflow.is_tracking_uri_set()
with addressed(sys.argv[1]):
    assert mlflow.get_tracking_uri() == mlflow.get_registry_uri() == sys.argv[1]
after = mlflow.get_tracking_uri(), mlflow.get_registry_uri(), mlflow.is_tracking_uri_set()
assert after == before, (before, after)
assert not any(key in os.environ for key in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"))
"""


def _addresses() -> tuple[str, str]:
    return mlflow.get_tracking_uri(), mlflow.get_registry_uri()


@pytest.mark.parametrize("ends", ["well", "in an error"])
def test_an_address_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    theirs, ours, within = (f"sqlite:///{tmp_path / name}.db" for name in ("a", "b", "c"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "")
    mlflow.set_tracking_uri(theirs)
    mlflow.set_registry_uri(theirs)
    try:
        with addressed(ours):
            assert _addresses() == (ours, ours)
            with addressed(within):
                assert _addresses() == (within, within)
            assert _addresses() == (ours, ours)
            if ends != "well":
                raise ValueError
    except ValueError:
        assert ends != "well"
    assert _addresses() == (theirs, theirs)
    with addressed(ours):
        pass
    assert os.environ["MLFLOW_TRACKING_URI"] == theirs
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    mlflow.set_registry_uri(None)  # type: ignore[arg-type]


def test_only_how_a_server_is_reached_is_asked_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = {
        "MLFLOW_TRACKING_USERNAME": "s3t",
        "MLFLOW_TRACKING_SERVER_CERT_PATH": "/a/certificate",
        "MLFLOW_S3_ENDPOINT_URL": "https://store.example",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "7",
    }
    others = {
        "MLFLOW_RUN_ID": "0123",
        "MLFLOW_EXPERIMENT_NAME": "theirs",
        "MLFLOW_EXPERIMENT_ID": "7",
        "MLFLOW_RUN_CONTEXT": '{"who": "them"}',
        "MLFLOW_ACTIVE_MODEL_ID": "m-0123",
        "MLFLOW_WORKSPACE": "theirs",
        "MLFLOW_UV_AUTO_DETECT": "true",
        "MLFLOW_TRACKING_DIR": "/elsewhere",
        "_MLFLOW_ANYTHING": "1",
    }
    for name, told in (reached | others).items():
        monkeypatch.setenv(name, told)
    with addressed(f"sqlite:///{tmp_path}/x.db"), addressed(f"sqlite:///{tmp_path}/y.db"):
        assert {n: os.environ.get(n) for n in reached} == reached
        assert [n for n in others if n in os.environ] == ["MLFLOW_UV_AUTO_DETECT"]
        assert os.environ["MLFLOW_UV_AUTO_DETECT"] == "false"
    assert {n: os.environ.get(n) for n in reached | others} == reached | others
    monkeypatch.delenv("MLFLOW_UV_AUTO_DETECT")
    with addressed(f"sqlite:///{tmp_path}/x.db"):
        pass
    assert "MLFLOW_UV_AUTO_DETECT" not in os.environ


def test_threads_share_an_address_and_wait_for_another(tmp_path: Path) -> None:
    ours, other = (f"sqlite:///{tmp_path / name}.db" for name in ("a", "b"))
    seen: list[tuple[str, ...]] = []
    inside, leave = threading.Event(), threading.Event()

    def stays() -> None:
        with addressed(ours):
            inside.set()
            leave.wait(10)
            seen.append(("stays", *_addresses()))

    def comes(uri: str) -> None:
        with addressed(uri):
            seen.append(("comes", *_addresses()))

    first = threading.Thread(target=stays)
    first.start()
    assert inside.wait(10)
    comes(ours)
    waits = threading.Thread(target=comes, args=(other,))
    waits.start()
    waits.join(0.2)
    assert waits.is_alive() and seen == [("comes", ours, ours)]
    leave.set()
    first.join(10)
    waits.join(10)
    assert seen[1:] == [("stays", ours, ours), ("comes", other, other)]


def test_where_nobody_gave_one_nobody_has(tmp_path: Path) -> None:
    told = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    command = [sys.executable, "-c", _BARE, f"sqlite:///{tmp_path}/x.db"]
    done = subprocess.run(
        command, env=told, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
