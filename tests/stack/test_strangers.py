"""Whoever has the MLflow server's credential, and whoever stood still: they decide neither what
serves nor what is there."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import ViewType

from flows.adapters.datasets import rewriting
from flows.adapters.lease import LostLease
from flows.adapters.s3 import S3Blobs
from flows.prefect_flows.erase import erase
from flows.use_cases.predicting import champion_of
from flows.use_cases.status import registry_problems
from flows.use_cases.taking import take_requests
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from infra.stack import Stack
from s3t_core.errors import GuaranteeError, WorkspaceError
from tests.flows.conftest import CANARY
from tests.flows.prepared import forget_connections
from tests.flows.test_taken_over import _beside, _stands_still_at, _text, trained
from tests.stack.conftest import KEY, ROOT

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def place(stack: Stack, make_config: Callable[..., Any], tmp_path: Path) -> Workspace:
    """On the servers."""
    return trained(create_workspace(tmp_path / "w", make_config(), KEY), tmp_path)


def _unguarded(place: Workspace) -> mlflow.MlflowClient:
    """What a client of a server without the stack's guard could do: that guard refuses places of a
    client's own."""
    backend = place.registry.files.backend
    return mlflow.MlflowClient(backend, backend)


def _predicted(place: Workspace) -> tuple[int, str]:
    """By the command, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "predict",
        "w1",
        "--json",
        "--workspace",
        str(place.root),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.minutes
def test_no_client_of_the_registry_decides_what_answers_or_locks_an_erasure(
    place: Workspace, tmp_path: Path
) -> None:
    """It adds a line to the code of the serving version, through the server; and registers a
    version of its own, made from the files of ours, to which it moves the alias."""
    client, record = place.registry.connection.client, place.ledger.state().champion
    assert record is not None
    before = _predicted(place)
    assert before[0] == 0, before[1]
    theirs = tmp_path / "theirs"
    with place.registry.addressed():
        mlflow.artifacts.download_artifacts(f"models:/{record.model_id}", dst_path=str(theirs))
    ran = tmp_path / "ran"
    code = next(theirs.rglob("champion.py"))
    code.write_text(f"{code.read_text()}\nopen({str(ran)!r}, 'w')\n")
    experiment = client.get_experiment_by_name(place.registry.name)
    with (
        place.registry.addressed(),
        mlflow.start_run(experiment_id=experiment.experiment_id) as run,
    ):
        mlflow.log_artifacts(str(theirs), "model")
    version = client.create_model_version(
        place.registry.name,
        f"runs:/{run.info.run_id}/model",
        run.info.run_id,
        tags=place.registry.tags(record.version),
    )
    client.set_registered_model_alias(place.registry.name, "champion", version.version)
    code_of, told = _predicted(place)
    assert code_of == 1 and "files of version" in told and not ran.exists()
    assert [p.partition(":")[0].partition(",")[0] for p in registry_problems(place)] == [
        "versions in the registry that the ledger does not know",
        "the alias 'champion' names another version than the one that serves",
    ]

    client.set_registered_model_alias(place.registry.name, "champion", record.version)
    blobs = S3Blobs(f"{place.registry.places()[-1]}/models/{record.model_id}")
    name = next(n for n in blobs.names() if n.endswith("champion.py"))
    blobs.write(name, code.read_bytes())
    with pytest.raises(GuaranteeError, match="files of version"):
        champion_of(Workspace(place.root))
    assert any("other files" in p for p in registry_problems(place)) and not ran.exists()
    take_requests(place, [CANARY])
    assert len(erase(str(place.root))["certificates"]) == 1
    forget_connections()
    place = Workspace(place.root)
    assert registry_problems(place) == [] and not ran.exists()
    answered = _predicted(place)
    assert answered[0] == 0 and json.loads(answered[1].splitlines()[0]) and not ran.exists()


@pytest.mark.long
def test_no_client_of_the_registry_renames_deletes_or_logs_anything_past_an_erasure(
    place: Workspace,
) -> None:
    """It renames the experiment, changes its tags, takes the name for an experiment of its own at
    another's place, deletes a logged model, takes the tags from runs, and logs what nobody can
    decode."""
    client, record, name = (
        place.registry.connection.client,
        place.ledger.state().champion,
        place.registry.name,
    )
    assert record is not None
    [told] = place.ledger.state().experiments
    ours, url = client.get_experiment(told.id), place.registry.places()[-1]
    victim, blobs = S3Blobs(f"s3://mlflow/victim-{name}"), S3Blobs(url)
    victim.write("models/m-theirs/weights", b"theirs")
    for run in client.search_runs([told.id]):
        for tag in ("s3t.stage_key", "s3t.kind"):
            if tag in run.data.tags:
                client.delete_tag(run.info.run_id, tag)
    client.delete_logged_model(record.model_id)
    client.set_experiment_tag(told.id, "s3t.ledger", "x")
    client.rename_experiment(told.id, f"{name} elsewhere")
    theirs = _unguarded(place).create_experiment(name, victim.url, ours.tags)
    blobs.write("junk/cut.gz", b"\x1f\x8b\x08\x00cut")
    blobs.write(f"models/{record.model_id}/cut.gz.safetensors", b"\x1f\x8b\x08\x00cut")
    assert registry_problems(place)
    take_requests(place, [CANARY])
    done = erase(str(place.root))
    assert len(done["certificates"]) == 1 and done["problem"] == ""
    forget_connections()
    place = Workspace(place.root)
    state = place.ledger.state()
    kept = [v for v in state.versions if not v.destroyed]
    runs = {r.info.run_id for r in client.search_runs([told.id], run_view_type=ViewType.ALL)}
    assert runs == state.runs_of(state.stages) | {v.run_id for v in kept}
    assert {"/".join(n.split("/")[:2]) for n in blobs.names()} == {
        f"models/{v.model_id}" for v in kept
    }
    assert place.registry.files.deleted_models() == [] and list(victim.names()) == [
        "models/m-theirs/weights"
    ]
    assert (
        client.get_experiment(told.id).tags["s3t.ledger"] == place.owner
        and place.registry.places()[-1] == url
    )
    client.rename_experiment(theirs, f"{name} theirs")
    assert erase(str(place.root))["healed"]["registry"] is True and registry_problems(place) == []
    assert client.get_experiment(told.id).name == name and _predicted(place)[0] == 0


def test_an_experiment_that_a_client_made_for_us_at_another_place_is_not_taken(
    stack: Stack, make_config: Callable[..., Any], tmp_path: Path
) -> None:
    place = create_workspace(tmp_path / "w", make_config(), KEY)
    victim = S3Blobs(f"s3://mlflow/victim-{place.registry.name}")
    victim.write("models/m-theirs/weights", b"theirs")
    _unguarded(place).create_experiment(
        place.registry.name, victim.url, {"s3t.ledger": place.owner}
    )
    with pytest.raises(WorkspaceError, match="another place"):
        trained(place, tmp_path)
    assert list(victim.names()) == ["models/m-theirs/weights"]


@pytest.mark.long
def test_rows_that_an_eraser_had_read_do_not_come_back_to_a_bucket(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _beside(place)
    take_requests(place, [CANARY])
    with monkeypatch.context() as context:
        _stands_still_at(context, rewriting, "write_rows", place, other)
        with pytest.raises(LostLease, match="stood still"):
            erase(str(place.root))
    forget_connections()
    place = Workspace(place.root)
    remote = S3Blobs(place.config.dvc.remote)
    for who in (CANARY, other):
        assert not [n for n in remote.names() if _text(who).encode() in (remote.read(n) or b"")]
        assert not [
            p
            for p in place.root.rglob("*")
            if p.is_file() and _text(who).encode() in p.read_bytes()
        ]
    assert len(list(place.certificates_dir.glob("*.json"))) == 2
    assert not any(erase(str(place.root))["healed"].values())
