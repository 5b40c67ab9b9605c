"""A workspace that real flows trained, with requests pending: put back, at the same path, for each
test."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases.taking import take_requests
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config, render_config
from tests.crash.driver import _found
from tests.flows.conftest import CANARY, CANARY_TEXT, people, tiny_config, write_csv
from tests.flows.test_cli import environment
from tests.tiny import build_language_model


def keep_writer(folder: Path) -> "Kept":
    """A language model that was trained on chats, with somebody whom an erasure can reach."""
    from tests.flows.test_tasks import _chats

    config = tiny_config(
        build_language_model(folder / "writer", layers=2),
        task={"kind": "generation"},
        data={"labels": [], "messages": "chat"},
        backbone={"max_length": 32},
        adapter={"target_modules": ["q_proj", "v_proj"]},
        serving={"max_new_tokens": 5},
    )

    def make(root: Path) -> None:
        create_workspace(root, config, b"\x05" * 32)
        ingest(str(root), str(_chats(folder / "people.jsonl")))
        train(str(root))

    return Kept(folder, make)


@dataclass(frozen=True)
class Prepared:
    """`root` is where it works, `kept` what it is copied from; `stage_bytes`: windows of every
    stage that must go, `tainted`: digests of the slice versions with the canary in them."""

    root: Path
    kept: Path
    stage_bytes: tuple[bytes, ...]
    tainted: tuple[str, ...]
    stage_keys: tuple[bytes, ...]

    def fresh(self) -> Workspace:
        """The workspace as it was prepared, with its second remote beside it."""
        for path in (self.root, self.second):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.kept / "w", self.root, symlinks=True)
        shutil.copytree(self.kept / "second", self.second)
        forget_connections()
        return Workspace(self.root)

    @property
    def second(self) -> Path:
        """A remote that the operator added, outside the workspace."""
        return self.root.with_name("second")

    def erase(self, *limit: str) -> dict[str, Any]:
        """One eraser in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.crash.once", str(self.root), *limit],
            env=environment(),
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.stdout.strip(), done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1]) | {"stderr": done.stderr}

    def finished(self) -> dict[str, Any]:
        """That the next run ends with everything as it must be."""
        assert self.erase()["error"] == ""
        forget_connections()
        return _found(self.root)

    def left(self) -> list[str]:
        """Files with the canary's id or text, the bytes of a stage that saw her, or activations of
        her slices."""
        needles = [CANARY.encode(), CANARY_TEXT[:40].encode(), *self.stage_bytes]
        places = [
            p for folder in (self.root, self.second) for p in folder.rglob("*") if p.is_file()
        ]
        return [
            p.as_posix()
            for p in places
            if p.parent.name in self.tainted or any(n in p.read_bytes() for n in needles)
        ]


class Kept:
    """A directory that is made once and put back, at the same path, for each test that asks for
    it; or was made by somebody before, where nobody is given to make it."""

    def __init__(self, folder: Path, make: Callable[[Path], object] | None = None) -> None:
        self._root, self._kept = folder / "w", folder / "kept"
        if make is not None:
            make(self._root)
            shutil.copytree(self._root, self._kept, symlinks=True)

    def then(self, make: Callable[[Path], object]) -> "Kept":
        """What `make` makes of it, at the same path: one of the two can be there at a time."""
        later = copy(self)
        later._kept = self._kept.with_name(f"{self._kept.name}-then")
        make(self.put_back())
        shutil.copytree(self._root, later._kept, symlinks=True)
        return later

    def put_back(self) -> Path:
        """As it was made."""
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.copytree(self._kept, self._root, symlinks=True)
        forget_connections()
        return self._root

    def fresh(self, config: Config | None = None) -> Workspace:
        """A workspace as it was made; under other settings, of which none may be what it was made
        with."""
        self.put_back()
        if config is not None:
            (self._root / "s3t.toml").write_text(render_config(config))
        return Workspace(self._root)


def make_trained(root: Path, backbone: Path, canary: bool = False) -> None:
    """A workspace trained on `people` by the flows."""
    place = create_workspace(root, tiny_config(backbone), b"\x05" * 32)
    ingest(str(root), str(write_csv(root.with_name("people.csv"), people(canary=canary))))
    root.with_name("people.csv").unlink()
    train(str(place.root))


def forget_connections() -> None:
    """MLflow keeps connections of this process to a database file that was put back since."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Versions
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Runs

    for engine in [*Versions._engine_map.values(), *Runs._engine_map.values()]:
        engine.dispose()


def prepare(folder: Path, backbone: Path) -> Prepared:
    """Ingest with the canary and a refused row of hers, train, ask; her data is pushed to a second
    remote as well."""
    root = folder / "w"
    place = create_workspace(root, tiny_config(backbone), b"\x05" * 32)
    spoilt = {"id": "c9", "who": CANARY, "what": CANARY_TEXT, "kind": "ugly"}
    ingest(str(root), str(write_csv(folder / "people.csv", [*people(canary=True), spoilt])))
    (folder / "people.csv").unlink()
    train(str(root))
    from dvc.repo import Repo

    subprocess.run(
        [sys.executable, "-m", "dvc", "remote", "add", "second", str(folder / "second")],
        cwd=root,
        check=True,
        capture_output=True,
        env=environment(),
    )
    with Repo(str(root)) as repo:
        repo.push(remote="second")
    take_requests(place, [CANARY, "nobody-at-all"])
    from s3t_core.erasure.planner import plan_erasure, targets_of

    state = place.ledger.state()
    pending = place.requests.pending(place.ledger.state())
    found = place.datasets.find(targets_of(pending, {}), state.datasets, set())
    plan = plan_erasure(pending, found, state, "x", place.clock.now(), 7)
    assert plan.deactivated
    windows = []
    for stage in plan.deactivated:
        data = place.store.get(stage.digest)
        windows += [data[-64:], data[len(data) // 2 :][:64]]
    known = [
        place.store.get(d)
        for d in place.store.digests()
        if d not in {s.digest for s in plan.deactivated}
    ]
    kept = folder / "kept"
    shutil.copytree(root, kept / "w", symlinks=True)
    shutil.copytree(folder / "second", kept / "second")
    return Prepared(
        root,
        kept,
        tuple(w for w in windows if not any(w in k for k in known)),
        tuple(found.tainted),
        tuple(s.key.encode() for s in plan.deactivated),
    )
