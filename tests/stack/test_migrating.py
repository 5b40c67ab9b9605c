"""An embedded workspace moves to the stack and back: ledger, certificates, version numbers and
answers stay."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from flows.adapters.registry.runs import KIND_TAG, STAGE_TAG
from flows.adapters.s3 import S3Blobs
from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.retrain import retrain
from flows.prefect_flows.train import train
from flows.use_cases.migrating import migrate
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace.workspace import Workspace
from infra.stack import Stack
from s3t_core.config import Config, parse_config, render_config
from tests.flows.conftest import CANARY, CANARY_TEXT, people, write_csv
from tests.flows.prepared import forget_connections
from tests.flows.test_migrating import Cut, facts
from tests.flows.test_release_document import CODE
from tests.stack.conftest import EVERY, ROOT
from tests.stack.test_walk import answers

pytestmark = pytest.mark.timeout(900)


def places(config: Config) -> str:
    """The sections of a config that a move is about, as TOML."""
    wanted = Config().model_copy(
        update={n: getattr(config, n) for n in ("database", "store", "dvc", "registry")}
    )
    text = render_config(wanted)
    return "\n".join(
        f"[{part}"
        for part in text.split("\n[")[1:]
        if part.startswith(("database]", "store]", "dvc]", "registry]"))
    )


@pytest.fixture
def place(make_place: Callable[..., Workspace], database: str, tmp_path: Path) -> Workspace:
    """Embedded: trained, one erasure certified (versions 1 and 2 or later), one request pending."""
    made = make_place(
        system={"name": urlsplit(database).path.strip("/")}, erasure={"keep_clean_versions_days": 7}
    )
    ingest(str(made.root), str(write_csv(tmp_path / "people.csv", people(canary=True))))
    train(str(made.root))
    take_requests(made, ["person-003"])
    erase(str(made.root))
    retrain(str(made.root))
    take_requests(made, [CANARY])
    return Workspace(made.root)


def served(place: Workspace) -> tuple[str, list[dict[str, Any]]]:
    champion = place.ledger.state().champion
    assert champion is not None
    return champion.version, answers(place, ["w1 w2", "w3"])


def moved_to(root: Path, settings: str, folder: Path) -> dict[str, Any]:
    """As a user does it, in a process of its own."""
    (folder / "places.toml").write_text(settings)
    theirs = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("MLFLOW_")
        or k in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "flows.cli",
            "migrate",
            "--settings",
            str(folder / "places.toml"),
            "--workspace",
            str(root),
            "--json",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=theirs,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run_facts(place: Workspace) -> list[tuple[object, ...]]:
    """Of every training's and stage's run, in order: name, kind, stage, end, parameters,
    measurements."""
    client = place.registry.connection.client
    experiment = client.get_experiment_by_name(place.registry.name)
    assert experiment is not None
    return sorted(
        (
            run.info.run_name,
            run.data.tags[KIND_TAG],
            run.data.tags.get(STAGE_TAG, ""),
            run.info.status,
            tuple(sorted(run.data.params.items())),
            tuple(sorted(run.data.metrics.items())),
        )
        for run in client.search_runs([experiment.experiment_id], max_results=1000)
        if run.data.tags.get(KIND_TAG) in ("training", "stage")
    )


@pytest.mark.minutes
def test_to_the_stack_and_back(
    stack: Stack, place: Workspace, make_config: Callable[..., Any], tmp_path: Path
) -> None:
    before, serving = facts(place.root), served(place)
    embedded, servers = places(place.config), places(make_config())
    kept = [v.version for v in place.ledger.state().versions if not v.destroyed]
    runs = run_facts(place)

    moved = moved_to(place.root, servers, tmp_path)
    assert moved["moved"] == ["database", "dvc", "registry", "store"]
    assert moved["versions"] == sorted(set(kept), key=int)
    there = Workspace(place.root)
    assert facts(place.root) == before and served(there) == serving
    assert run_facts(there) == runs
    embedded_files = [
        p
        for n in ("s3t.db", "stages", "remote", "mlflow.db", "mlartifacts")
        for p in (place.root / ".s3t").glob(f"{n}*")
    ]
    assert embedded_files == []
    assert not [p for p in place.root.rglob("*.safetensors") if "activations" not in p.parts]
    for certificate in there.certificates_dir.iterdir():
        assert verify_path(certificate, there.keys_dir / "signing.pub")["valid"]

    erase(str(place.root))
    assert there.requests.open_now() == []
    take_requests(there, ["person-005"])
    after, serving = facts(place.root), served(Workspace(place.root))
    artifacts = there.registry.places()[-1]
    moved_to(place.root, embedded, tmp_path)
    forget_connections()
    back = Workspace(place.root)
    assert facts(place.root) == after and served(back) == serving
    urls = [artifacts, there.config.store.url, there.config.dvc.remote]
    left = [f"{url}/{n}" for url in urls for n in S3Blobs(url).names() if not n.endswith("/")]
    assert left == []
    erase(str(place.root))
    assert back.requests.open_now() == []
    for certificate in back.certificates_dir.iterdir():
        assert verify_path(certificate, back.keys_dir / "signing.pub")["valid"]
    files = [p for p in place.root.rglob("*") if p.is_file()]
    assert not [p for p in files if CANARY_TEXT[:40].encode() in p.read_bytes()]


@pytest.mark.skipif(
    not EVERY, reason="in the short form the move between directories is cut (tests/flows)"
)
def test_a_move_to_the_stack_that_is_cut_anywhere_is_finished(
    stack: Stack, place: Workspace, make_config: Callable[..., Any]
) -> None:
    before, serving = facts(place.root), served(place)
    servers = places(make_config())
    for steps in range(0, 200, 3):
        left = [steps]

        def told(_: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Cut

        try:
            migrate(place.root, servers if steps == 0 else "", "servers.toml", told)
            break
        except Cut:
            continue
    there = Workspace(place.root)
    assert steps > 6 and facts(place.root) == before and served(there) == serving
    assert len(there.registry.released()) == len(
        {v.version for v in there.ledger.state().versions if not v.destroyed}
    )


@pytest.mark.long
def test_a_version_of_a_move_that_was_cut_off_is_not_believed(
    stack: Stack, place: Workspace, make_config: Callable[..., Any]
) -> None:
    """Its files lay in the new registry, and no ledger knew their digest."""
    before, serving = facts(place.root), served(place)

    def told(at: str) -> None:
        if at == "the database":
            raise Cut

    with pytest.raises(Cut):
        migrate(place.root, places(make_config()), "servers.toml", told)
    forget_connections()
    journal = json.loads(place.migration_path.read_bytes())
    new = Workspace(place.root, parse_config(journal["new"]), ledger_from=place)
    url = new.registry.places()[-1]
    blobs = S3Blobs(url)
    codes = [n for n in blobs.names() if n.endswith("champion.py")]
    for name in codes:
        blobs.write(name, (blobs.read(name) or b"") + b"\nChampion.predict = None\n")
    assert codes
    migrate(place.root, "", "", lambda _: None)
    forget_connections()
    there = Workspace(place.root)
    assert facts(place.root) == before and served(there) == serving
    assert all(
        blobs.read(n) == CODE.read_bytes() for n in blobs.names() if n.endswith("champion.py")
    )
