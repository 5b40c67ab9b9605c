"""A hub id is loaded at its commit, recorded with it, and refused without; from a cache as the hub
itself keeps it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.workspace.workspace import Workspace
from s3t_core.errors import UsageError
from s3t_core.learning.backbone import find_backbone
from s3t_core.learning.hub import split_hub_id

COMMIT, OTHER = "0a1b2c3d4e" * 4, "1a1b2c3d4e" * 4
ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub(tmp_path: Path, tiny_backbone: Path) -> Path:
    """An HF_HOME with one model, `org/tiny`, at one commit, to which its branch `main` and its tag
    `v1` point."""
    folder = tmp_path / "hub-home" / "hub" / "models--org--tiny"
    shutil.copytree(tiny_backbone, folder / "snapshots" / COMMIT)
    (folder / "refs").mkdir()
    for name in ("main", "v1"):
        (folder / "refs" / name).write_text(COMMIT)
    return tmp_path / "hub-home"


SCRIPT = """
import json, sys
from pathlib import Path
from flows.use_cases.training import _check_backbone
from flows.workspace.creating import create_workspace
from s3t_core.errors import S3TError
from s3t_core.learning.jobs import DescribeJob
from tests.flows.conftest import tiny_config
if __name__ == "__main__":
    root, weights = map(Path, sys.argv[1:])
    config = tiny_config("org/tiny", backbone={"model": "org/tiny", "revision": "0a1b2c3d4e" * 4})
    place = create_workspace(root, config, bytes(32))
    def look():
        found = place.runner.describe(DescribeJob(place.backbone, 1))
        _check_backbone(place, place.ledger.state(), found)
        return found
    found = look()
    look()
    events = [e for e in place.ledger.events() if e["type"] == "backbone"]
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    try:
        look()
        refused = ""
    except S3TError as error:
        refused = f"{type(error).__name__}: {error}"
    print(json.dumps({"events": events, "digest": found.digest, "refused": refused}))
"""


@pytest.mark.long
@pytest.mark.slow
def test_the_commit_is_loaded_and_recorded_with_the_digest_and_a_changed_file_under_it_is_refused(
    hub: Path, tmp_path: Path, tiny_backbone: Path
) -> None:
    weights = hub / "hub" / "models--org--tiny" / "snapshots" / COMMIT / "model.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "w"), str(weights)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(hub), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    (event,) = found["events"]
    assert event["model"] == f"org/tiny@{COMMIT}"
    assert event["digest"] == found["digest"] == find_backbone(str(tiny_backbone)).digest
    assert found["refused"].startswith("BackboneChanged: expected the recorded backbone")


@pytest.mark.parametrize(
    "name",
    [
        "org/tiny",
        "org/tiny@main",
        "org/tiny@v1",
        "org/tiny@0a1b2c3",
        f"org/tiny@{OTHER}",
        f"org/tiny@{COMMIT}@{COMMIT}",
    ],
)
def test_what_names_no_commit_that_is_there_is_not_loaded(
    name: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub / "hub"))
    there = hub / "hub" / "models--org--tiny" / "snapshots" / COMMIT
    assert find_backbone(f"org/tiny@{COMMIT}").digest == find_backbone(str(there)).digest
    with pytest.raises(UsageError):
        find_backbone(name)


def test_a_workspace_asks_for_the_commit_of_a_hub_id_and_for_none_elsewhere(
    make_place: Callable[..., Workspace], tiny_backbone: Path
) -> None:
    place = make_place(backbone={"model": "org/tiny", "revision": COMMIT})
    assert place.backbone == f"org/tiny@{COMMIT}" and split_hub_id(place.backbone) == (
        "org/tiny",
        COMMIT,
    )
    wrong = {
        "without": ({"model": "org/tiny"}, "full commit"),
        "in the id": ({"model": f"org/tiny@{COMMIT}"}, "as \\[backbone\\] revision"),
        "twice": (
            {"model": f"org/tiny@{COMMIT}", "revision": COMMIT},
            "as \\[backbone\\] revision",
        ),
        "of a directory": (
            {"model": str(tiny_backbone), "revision": COMMIT},
            "no \\[backbone\\] revision",
        ),
    }
    for name, (settings, expected) in wrong.items():
        with pytest.raises(UsageError, match=expected):
            _ = make_place(name, backbone=settings).backbone
    assert make_place("directory").backbone == str(tiny_backbone)
