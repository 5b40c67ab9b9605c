"""One embedded Prefect server for all flow tests, and small workspaces on the tiny backbone."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from tests.tiny import WORDS

CANARY = "the-canary-person-4711"
CANARY_TEXT = "w1 w2 the canary sings of a very particular morning in the harbour w3"


@pytest.fixture(scope="session", autouse=True)
def prefect_server() -> Iterator[None]:
    """Prefect's own harness: a temporary database, started once."""
    from prefect.testing.utilities import prefect_test_harness

    from tests.ready import ready_folder, server_in

    if folder := ready_folder():
        with server_in(folder):
            yield
        return
    with prefect_test_harness(server_startup_timeout=120):
        yield


def people(count: int = 36, canary: bool = False) -> list[dict[str, str]]:
    """Rows of a source: two per person, two labels."""
    rows = [
        {
            "id": f"r{i}",
            "who": f"person-{i % (count // 2):03d}",
            "what": f"{WORDS[i % 60]} {WORDS[i * 7 % 60]} {i}",
            "kind": ["good", "bad"][i % 2],
        }
        for i in range(count)
    ]
    if canary:
        rows += [
            {"id": f"c{i}", "who": CANARY, "what": f"{CANARY_TEXT} {i}", "kind": "good"}
            for i in range(3)
        ]
    return rows


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def tiny_config(model: Path, **changes: dict[str, Any]) -> Config:
    """Columns of `people`, two shards of two slices, the tiny backbone."""
    document: dict[str, dict[str, Any]] = {
        "data": {
            "text": "what",
            "label": "kind",
            "subject": "who",
            "record": "id",
            "labels": ["good", "bad"],
            "held_out_by": "who",
            "held_out": 0.2,
        },
        "system": {"name": "tiny", "shards": 2, "slices": 2, "budget": 2},
        "backbone": {"model": str(model), "max_length": 16},
        "adapter": {"rank": 2, "alpha": 4},
        "training": {"batch_size": 8},
        "erasure": {"staleness_seconds": 0},
        "prefect": {"idle_minutes": 0.2},
    }
    for section, keys in changes.items():
        document.setdefault(section, {}).update(keys)
    return Config.model_validate(document)


@pytest.fixture
def make_place(tmp_path: Path, tiny_backbone: Path) -> Callable[..., Workspace]:
    """A workspace under the test's own directory; keyword arguments change config sections."""

    def make(name: str = "w", key: bytes = b"\x05" * 32, **changes: dict[str, Any]) -> Workspace:
        return create_workspace(tmp_path / name, tiny_config(tiny_backbone, **changes), key)

    return make


@pytest.fixture(scope="session")
def _kept_trained(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, prefect_server: None
) -> Callable[[bool], Any]:
    """Two of them, each made when it is first asked for."""
    from tests.flows.prepared import Kept, make_trained
    from tests.ready import ready_folder, trained_in

    @cache
    def kept(canary: bool) -> Any:
        if folder := ready_folder():
            return Kept(trained_in(folder, canary))
        return Kept(
            tmp_path_factory.mktemp("trained"),
            lambda root: make_trained(root, tiny_backbone, canary),
        )

    return kept


@pytest.fixture
def trained(
    _kept_trained: Callable[[bool], Any], tmp_path: Path, tiny_backbone: Path
) -> Callable[..., Workspace]:
    """A workspace trained on `people`, whose source lies in the test's own directory; keyword
    arguments change sections of its settings that neither data nor training depend on."""

    def fresh(canary: bool = False, **changes: dict[str, Any]) -> Workspace:
        if not changes.keys() <= {"erasure", "deletion_budget", "runner", "serving"}:
            raise ValueError(
                f"expected settings that training does not depend on, got {sorted(changes)}; "
                "make_place and train"
            )
        write_csv(tmp_path / "people.csv", people(canary=canary))
        return _kept_trained(canary).fresh(tiny_config(tiny_backbone, **changes))

    return fresh


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Any:
    """A trained workspace with requests pending; `fresh()` puts it back."""
    from tests.flows.prepared import prepare
    from tests.tiny import build_backbone

    folder = tmp_path_factory.mktemp("prepared")
    return prepare(folder, build_backbone(folder / "backbone", layers=2, seed=1))
