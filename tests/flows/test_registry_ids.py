"""What is ours in the registry is what the ledger names: not what bears our name or our tags, which
anybody sets."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import ViewType

from flows.adapters.registry import MlflowRegistry
from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases.predicting import champion_of
from flows.use_cases.status import registry_problems
from flows.use_cases.taking import take_requests
from flows.workspace.workspace import Workspace
from s3t_core.erasure.state import VersionRecord
from s3t_core.errors import GuaranteeError, WorkspaceError
from tests.flows.conftest import CANARY, people, write_csv
from tests.flows.prepared import forget_connections

pytestmark = pytest.mark.slow
PROMPT = "mlflow.prompt.is_prompt"
_STRANGER = """
import sys
import mlflow
client = mlflow.MlflowClient(sys.argv[1], sys.argv[1])
number = client.create_experiment("theirs", sys.argv[2])
print(number, client.create_run(number).info.run_id)
"""


@pytest.fixture
def place(trained: Callable[..., Workspace]) -> Workspace:
    return trained(canary=True)


@pytest.fixture
def fresh(make_place: Callable[..., Workspace], tmp_path: Path) -> Workspace:
    """With data, and nothing trained yet."""
    found = make_place()
    ingest(str(found.root), str(write_csv(tmp_path / "people.csv", people())))
    return found


def _erased(place: Workspace) -> tuple[Workspace, dict[str, Any]]:
    """After an erasure."""
    take_requests(place, [CANARY])
    done = erase(str(place.root))
    assert len(done["certificates"]) == 1 and done["problem"] == ""
    forget_connections()
    return Workspace(place.root), done


def _client(place: Workspace) -> mlflow.MlflowClient:
    """Of its registry, whichever this process asked last."""
    return mlflow.MlflowClient(place.tracking_uri, place.tracking_uri)


def _number(place: Workspace) -> str:
    return place.ledger.state().experiments[-1].id


def _champion(place: Workspace) -> VersionRecord:
    found = place.ledger.state().champion
    assert found is not None
    return found


def _is_right(place: Workspace) -> None:
    """The registry has what the ledger keeps and nothing else, under our name, and serves it."""
    client, state = _client(place), place.ledger.state()
    kept = [v for v in state.versions if not v.destroyed]
    numbers = [e.experiment_id for e in client.search_experiments(ViewType.ALL)]
    runs = {r.info.run_id for r in client.search_runs(numbers, run_view_type=ViewType.ALL)}
    assert runs == state.runs_of(state.stages) | {v.run_id for v in kept}
    folder = place.state_dir / "mlartifacts" / "models"
    assert {p.name for p in folder.iterdir()} == {v.model_id for v in kept}
    assert registry_problems(place) == [] and champion_of(place).predict(["w1"])
    assert not any(erase(str(place.root))["healed"].values())


def test_the_ledger_names_the_experiment_before_anything_is_logged_there(place: Workspace) -> None:
    kinds = [e["type"] for e in place.ledger.events()]
    assert kinds.index("experiment") < kinds.index("training") < kinds.index("stage")
    [told] = place.ledger.state().experiments
    found = _client(place).get_experiment(told.id)
    assert (found.name, found.creation_time) == (place.registry.name, told.created)
    assert (
        told.location == ".s3t/mlartifacts"
        and Path(place.root / told.location).as_uri() == found.artifact_location
    )


def test_an_erasure_reaches_an_experiment_that_somebody_renamed(place: Workspace) -> None:
    client, number = _client(place), _number(place)
    client.rename_experiment(number, "theirs")
    assert any("has another name: 'theirs'" in p for p in registry_problems(place))
    place, _ = _erased(place)
    assert client.get_experiment(number).name == place.registry.name and _number(place) == number
    _is_right(place)


def test_an_erasure_goes_on_by_the_number_where_another_experiment_has_the_name(
    place: Workspace, tmp_path: Path
) -> None:
    """And touches nothing of the other's, though it bears our tag and names a place of others as
    its own."""
    client, number = _client(place), _number(place)
    ours = client.get_experiment(number)
    victim = tmp_path / "victim" / "models" / "m-theirs" / "weights.bin"
    victim.parent.mkdir(parents=True)
    victim.write_bytes(b"theirs")
    client.rename_experiment(number, "elsewhere")
    theirs = client.create_experiment(
        place.registry.name, (tmp_path / "victim").as_uri(), ours.tags
    )
    run = client.create_run(theirs).info.run_id
    place, _ = _erased(place)
    assert [p for p in (tmp_path / "victim").rglob("*") if p.is_file()] == [
        victim
    ] and client.get_run(run)
    state = place.ledger.state()
    runs = {r.info.run_id for r in client.search_runs([number], run_view_type=ViewType.ALL)}
    assert runs == state.runs_of(state.stages) | {
        v.run_id for v in state.versions if not v.destroyed
    }
    client.rename_experiment(theirs, "theirs")
    assert erase(str(place.root))["healed"]["registry"] is True
    assert client.get_experiment(number).name == place.registry.name


@pytest.mark.long_but_first
@pytest.mark.parametrize("what", ["without our tag", "elsewhere", "with a run in it"])
def test_an_experiment_that_was_there_before_the_first_training_is_not_taken(
    fresh: Workspace, tmp_path: Path, what: str
) -> None:
    client, victim = fresh.registry.connection.client, tmp_path / "victim"
    victim.mkdir()
    (victim / "theirs").touch()
    place = victim if what == "elsewhere" else fresh.state_dir / "mlartifacts"
    number = client.create_experiment(
        fresh.registry.name,
        place.as_uri(),
        {} if what == "without our tag" else {"s3t.ledger": fresh.owner},
    )
    runs = [client.create_run(number).info.run_id] if what == "with a run in it" else []
    with pytest.raises(WorkspaceError, match="expected"):
        train(str(fresh.root))
    assert [p.name for p in victim.iterdir()] == ["theirs"]
    assert [r.info.run_id for r in client.search_runs([number])] == runs
    assert not Workspace(fresh.root).ledger.state().experiments


def test_a_registered_model_that_was_there_before_the_first_training_is_not_taken(
    fresh: Workspace,
) -> None:
    client = fresh.registry.connection.client
    client.create_registered_model(fresh.registry.name)
    client.create_model_version(fresh.registry.name, "runs:/0/x")
    with pytest.raises(WorkspaceError, match="a registered model of that name"):
        train(str(fresh.root))
    assert len(client.search_model_versions(f"name = '{fresh.registry.name}'")) == 1


@pytest.mark.long
def test_an_experiment_that_a_killed_training_made_and_could_not_record_is_taken(
    fresh: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        context.setattr("flows.adapters.registry.experiment.ExperimentRecord", None)
        with pytest.raises(TypeError):
            fresh.registry.runs.start_training({})
    assert (
        train(str(fresh.root))["trained"]
        and len(Workspace(fresh.root).ledger.state().experiments) == 1
    )


def test_a_number_that_a_registry_begun_anew_was_given_anew_by_is_not_ours(
    place: Workspace,
) -> None:
    """Its database was lost, and somebody made an experiment before our next command."""
    number, artifacts = _number(place), (place.state_dir / "mlartifacts").as_uri()
    forget_connections()
    for path in place.state_dir.glob("mlflow.db*"):
        path.unlink()
    made = subprocess.run(
        [sys.executable, "-c", _STRANGER, place.tracking_uri, artifacts],
        check=True,
        capture_output=True,
        text=True,
    )  # this process takes the tables for there
    client, (theirs, run) = _client(place), made.stdout.split()
    assert theirs == number
    place, done = _erased(place)
    assert done["healed"]["registry"] is True
    assert (
        client.get_experiment(number).name == "theirs"
        and client.get_run(run).info.lifecycle_stage == "active"
    )
    assert _number(place) != number and champion_of(place).predict(["w1"])


@pytest.mark.long_but_first
@pytest.mark.parametrize("key", ["s3t.stage_key", "s3t.kind", "mlflow.parentRunId"])
def test_runs_of_destroyed_stages_go_whatever_their_tags_say(place: Workspace, key: str) -> None:
    client, number = _client(place), _number(place)
    for run in client.search_runs([number]):
        if key in run.data.tags:
            client.delete_tag(run.info.run_id, key)
    place, _ = _erased(place)
    _is_right(place)


def test_runs_and_logged_models_that_somebody_deleted_go_for_good(place: Workspace) -> None:
    client, number, record = _client(place), _number(place), _champion(place)
    other = client.create_logged_model(number, "theirs").model_id
    for run in client.search_runs([number]):
        client.delete_run(run.info.run_id)
    for model in (record.model_id, other):
        client.delete_logged_model(model)
    place, _ = _erased(place)
    store = mlflow.tracking._tracking_service.utils._get_store()
    assert store._get_deleted_logged_models() == [] and store._get_deleted_runs() == []
    assert registry_problems(place) == [] and champion_of(place).predict(["w1"])


def test_a_registered_model_that_somebody_renamed_leaves_no_row_of_what_is_destroyed(
    place: Workspace,
) -> None:
    client, record = _client(place), _champion(place)
    client.rename_registered_model(place.registry.name, "theirs")
    assert any("gone from the registry" in p for p in registry_problems(place))
    place, _ = _erased(place)
    assert not client.search_model_versions(f"run_id = '{record.run_id}'")
    assert not client.search_model_versions("name = 'theirs'")
    _is_right(place)


@pytest.mark.long_but_first
@pytest.mark.parametrize("change", ["another's", "nobody's"])
def test_an_owner_tag_that_somebody_changed_is_put_back(place: Workspace, change: str) -> None:
    client, number = _client(place), _number(place)
    if change == "another's":
        client.set_experiment_tag(number, "s3t.ledger", "x")
    else:
        client.delete_experiment_tag(number, "s3t.ledger")
    assert any("another's, or nobody's" in p for p in registry_problems(place))
    place, done = _erased(place)
    assert done["healed"]["registry"] is True
    assert client.get_experiment(number).tags["s3t.ledger"] == place.owner
    _is_right(place)


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    "name",
    [
        "junk/cut.gz",
        "models/m-theirs/cut.gz",
        "models/OURS/cut.gz",
        "models/OURS/artifacts/cut.gz.safetensors",
    ],
)
def test_what_somebody_logs_at_our_place_goes_and_locks_no_erasure(
    place: Workspace, name: str
) -> None:
    record = _champion(place)
    path = place.state_dir / "mlartifacts" / name.replace("OURS", record.model_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x1f\x8b\x08\x00cut")
    place, done = _erased(place)
    assert done["healed"]["registry"] is True and not path.exists()
    _is_right(place)


@pytest.mark.parametrize("on", ["version", "model"])
def test_a_version_that_somebody_hides_as_a_prompt_serves_again_under_its_number(
    place: Workspace, on: str
) -> None:
    client, before = _client(place), _champion(place)
    if on == "version":
        client.set_model_version_tag(place.registry.name, before.version, PROMPT, "true")
    else:
        client.set_registered_model_tag(place.registry.name, PROMPT, "true")
    with pytest.raises(GuaranteeError, match="erase"):
        champion_of(place)
    assert (
        "the registry hides this workspace's versions, as if they were prompts"
        in registry_problems(place)
    )
    done = erase(str(place.root))
    assert (
        done["healed"]["registry"] is True
        and done["problem"] == ""
        and done["version"] == before.version
    )
    forget_connections()
    place = Workspace(place.root)
    assert _champion(place) == before
    _is_right(place)


def test_an_erase_run_that_leaves_another_version_serving_says_so(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = _client(place)

    def does_nothing(*_: Any) -> None:
        client.delete_registered_model_alias(place.registry.name, "champion")

    monkeypatch.setattr(MlflowRegistry, "serve", does_nothing)
    does_nothing()
    before = _champion(place)
    assert "does not answer with version" in erase(str(place.root))["problem"]
    assert _champion(Workspace(place.root)) == before


@pytest.mark.long_but_first
@pytest.mark.parametrize("what", ["a requirement", "a date", "a login"])
def test_what_mlflow_writes_into_every_version_is_nobodys_and_names_no_login(
    trained: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Whoever has a row may have written it, or be called so: neither they nor anybody else could
    be erased, because the erasure's own version says it again."""
    login = "anna.berg7"
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, login)
    place = trained(canary=True)
    said = f"transformers=={version('transformers')}" if what == "a requirement" else "w1 w2"
    who = {"a date": place.now()[:10], "a login": login}.get(what, "dev-77")
    row = {"id": "z1", "who": who, "what": said, "kind": "good"}
    ingest(str(place.root), str(write_csv(tmp_path / "more.csv", [row])), append=True)
    take_requests(place, [who, CANARY])
    done = erase(str(place.root))
    assert {c["outcome"] for c in done["certificates"]} >= {"erased"}
    assert len(done["certificates"]) == 2
    client = _client(place)
    made = client.get_run(_champion(Workspace(place.root)).run_id)
    assert (made.info.user_id, made.data.tags["mlflow.source.name"]) == ("s3t", "s3t")


def test_a_version_whose_files_are_not_as_recorded_hides_nobody(place: Workspace) -> None:
    record = _champion(place)
    read = b"".join(place.registry.recorded_files([record]))
    assert b"transformers==" in read and b"release.json" in read
    folder = place.state_dir / "mlartifacts" / "models" / record.model_id
    requirements = next(folder.rglob("requirements.txt"))
    requirements.write_text(f"{requirements.read_text()}# {CANARY}")
    assert list(place.registry.recorded_files([record])) == []
