"""A process that stood still while another machine took over, certified and went on: what it writes
when it wakes was made from what it had read before, and is gone before anybody is told."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from flows.adapters.datasets import rewriting
from flows.adapters.lease import Lease, LostLease
from flows.adapters.registry import MlflowRegistry
from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.retrain import retrain
from flows.prefect_flows.train import train
from flows.use_cases.predicting import champion_of
from flows.use_cases.taking import take_requests
from flows.workspace import access
from flows.workspace.workspace import Workspace
from s3t_core.records import subject_digest
from s3t_core.slicefile import read_rows
from tests.flows.conftest import CANARY, write_csv
from tests.flows.prepared import forget_connections
from tests.flows.test_cli import environment

pytestmark = [pytest.mark.slow, pytest.mark.minutes, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
OTHER_MACHINE = """
import contextlib, sys
from functools import partial
from pathlib import Path
from flows.adapters.lease import Lease
from flows.workspace import access
from flows.workspace.workspace import Workspace
access.workspace_lock = lambda *_: contextlib.nullcontext()  # its file system's locks are its own
access.lock_place = lambda _: "another machine"
access.Lease = partial(Lease, patience=0.5, beat=0.1)
from flows.prefect_flows.erase import erase
from flows.use_cases.taking import take_requests
root = Path(sys.argv[1])
erase(str(root))
for who in sys.argv[2:]:
    take_requests(Workspace(root), [who])
    erase(str(root))
"""


def _text(who: str) -> str:
    return f"w1 w2 what {who} said on a very particular morning w3"


@pytest.fixture
def place(make_place: Callable[..., Workspace], tmp_path: Path, prefect_server: None) -> Workspace:
    return trained(make_place(), tmp_path)


def trained(made: Workspace, folder: Path) -> Workspace:
    """On people of whom several share a file with the canary."""
    names = [CANARY, *(f"person-{n:03d}" for n in range(24))]
    rows = [
        {"id": f"r{i}", "who": who, "what": _text(who), "kind": ["good", "bad"][i % 2]}
        for i, who in enumerate(names)
    ]
    ingest(str(made.root), str(write_csv(folder / "people.csv", rows)))
    (folder / "people.csv").unlink()
    train(str(made.root))
    return Workspace(made.root)


def _beside(place: Workspace) -> str:
    """Somebody whose row lies in the file of the canary's."""
    canary = subject_digest(place.keys, CANARY)
    for path in (place.root / "data").rglob("*.parquet"):
        if path.name == "identities.parquet":
            continue
        subjects = {r.subject for r in read_rows(path)}
        if canary in subjects:
            return next(
                w
                for w in (f"person-{n:03d}" for n in range(24))
                if subject_digest(place.keys, w) in subjects
            )
    raise AssertionError


def _stands_still_at(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, place: Workspace, *who: str
) -> None:
    """At its first call: meanwhile the other machine erases what is pending, then these."""
    does, came = getattr(where, name), list[str]()

    def stopped(*given: Any, **named: Any) -> Any:
        if not came:
            came.append(name)
            done = subprocess.run(
                [sys.executable, "-c", OTHER_MACHINE, str(place.root), *who],
                cwd=ROOT,
                check=False,
                env=environment(),
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr[-3000:]
        return does(*given, **named)

    monkeypatch.setattr(where, name, stopped)
    monkeypatch.setattr(access, "Lease", partial(Lease, beat=1000))  # it gives no sign of life


def _left(place: Workspace, who: str) -> list[str]:
    return [
        p.as_posix()
        for p in place.root.rglob("*")
        if p.is_file() and _text(who).encode() in p.read_bytes()
    ]


@pytest.mark.long
def test_rows_that_an_eraser_had_read_do_not_come_back(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _beside(place)
    take_requests(place, [CANARY])
    with monkeypatch.context() as context:
        _stands_still_at(context, rewriting, "write_rows", place, other)
        with pytest.raises(LostLease, match="stood still"):
            erase(str(place.root))
    assert _left(place, CANARY) == [] and _left(place, other) == []
    assert len(list(place.certificates_dir.glob("*.json"))) == 2
    forget_connections()
    place = Workspace(place.root)
    place.datasets.files.check_recorded(place.ledger.state().datasets)
    assert not any(erase(str(place.root))["healed"].values())


@pytest.mark.long_but_first
@pytest.mark.parametrize("flow", [erase, retrain])
def test_a_version_that_was_about_to_serve_does_not(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, flow: Callable[[str], Any]
) -> None:
    other = _beside(place)
    take_requests(place, [CANARY])
    if flow is retrain:
        erase(str(place.root))
    with monkeypatch.context() as context:
        _stands_still_at(context, MlflowRegistry, "publish", place, other)
        with pytest.raises(LostLease):
            flow(str(place.root))
    forget_connections()
    place = Workspace(place.root)
    record = place.ledger.state().champion
    assert (
        record is not None
        and place.registry.serving() == record.version
        and champion_of(place).predict(["w1"])
    )
    known = {s.digest for s in place.ledger.state().stages.values()}
    stages = {
        p.stem
        for p in place.root.rglob("*.safetensors")
        if p.parent.name != "activations" and len(p.stem) == 64
    }
    assert (
        place.store.digests() and set(place.store.digests()) <= known and _left(place, other) == []
    )
    assert {s for s in stages if place.store.holds(s)} <= known
    assert not any(erase(str(place.root))["healed"].values())
