"""A version's release.json decides which label an output means and how long a loaded model may go
on: one that somebody changed is not loaded, not believed, and put right (edges B9)."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pytest

from flows import adapters
from flows.adapters.registry import MlflowRegistry
from flows.adapters.registry.logged import LoggedModels
from flows.prefect_flows.erase import erase
from flows.prefect_flows.train import train
from flows.use_cases.predicting import champion_of
from flows.use_cases.replaying import replay
from flows.use_cases.reporting import report_of
from flows.use_cases.status import registry_problems
from flows.use_cases.taking import take_requests
from flows.workspace.workspace import Workspace
from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.errors import GuaranteeError, StaleModel, StorageError
from tests.flows.prepared import forget_connections

pytestmark = pytest.mark.slow
CODE = Path(adapters.__file__).with_name("champion.py")
FORGED = "\nChampion.predict = lambda *_: [{'label': 'forged'}]\n"
"""Code at the end of a version's, by which it answers otherwise."""


def _labels_reversed(document: dict[str, Any]) -> None:
    document["recipe"]["labels"].reverse()


def _trusting(document: dict[str, Any]) -> None:
    document["serving"]["staleness_seconds"] = 10**9


@pytest.fixture
def place(trained: Callable[..., Workspace]) -> Workspace:
    return trained()


def _change(place: Workspace, change: Callable[[dict[str, Any]], None], vouched: bool) -> None:
    """In the file of the version that serves; and, by a client of the registry, in the tag that
    vouches for it."""
    champion = place.ledger.state().champion
    assert champion is not None
    path = next(
        (place.state_dir / "mlartifacts" / "models" / champion.model_id).glob("**/release.json")
    )
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(canonical_json(document))
    if vouched:
        place.registry.tag(champion.version, {"s3t.document": sha256_hex(path.read_bytes())})


@pytest.mark.parametrize("change", [_labels_reversed, _trusting])
def test_a_changed_release_document_is_not_loaded_and_an_erase_run_puts_it_right(
    place: Workspace, change: Callable[[dict[str, Any]], None]
) -> None:
    before, champion = champion_of(place).predict(["w1", "w2"]), place.ledger.state().champion
    assert champion is not None and champion.document
    loaded = champion_of(place)
    _change(place, change, vouched=False)
    with place.registry.addressed(), pytest.raises(StaleModel, match="the registry vouches for"):
        mlflow.pyfunc.load_model(f"models:/{place.registry.name}@champion")
    with pytest.raises(GuaranteeError, match="files of version"):
        replay(place, 1)
    _change(place, lambda _: None, vouched=True)  # and the registry is made to vouch for it
    with pytest.raises(StaleModel, match="the registry vouches for"):
        loaded.predict(["w1"])  # at each confirmation
    with pytest.raises(GuaranteeError, match="files of version"):
        champion_of(Workspace(place.root))
    with pytest.raises(GuaranteeError, match="files of version"):
        replay(place, 1)
    assert erase(str(place.root))["healed"]["registry"] is True
    forget_connections()
    place = Workspace(place.root)
    assert champion_of(place).predict(["w1", "w2"]) == before
    assert erase(str(place.root))["healed"]["registry"] is False
    report = report_of(
        Workspace(place.root), None, datetime.now(UTC)
    )  # whatever happened can be told
    assert report.versions[-1].cause == "restored" and any(
        a.kind == "healed after a restore" for a in report.acts
    )


@pytest.mark.parametrize("tag", ["s3t.release", "s3t.document"])
def test_a_changed_tag_of_a_version_is_told_as_that_and_an_erase_run_puts_it_right(
    place: Workspace, tag: str
) -> None:
    champion = place.ledger.state().champion
    assert champion is not None
    place.registry.tag(champion.version, {tag: "release-0000000000000000"})
    (told,) = registry_problems(place)
    assert told.endswith(f"than the ledger recorded: {champion.version}")
    with pytest.raises(GuaranteeError, match=r"somebody|files of version") as refused:
        champion_of(Workspace(place.root))
    assert "moved on" not in str(refused.value)
    assert erase(str(place.root))["healed"]["registry"] is True
    forget_connections()
    place = Workspace(place.root)
    assert champion_of(place).predict(["w1"]) and registry_problems(place) == []


@pytest.mark.long
def test_changed_code_of_a_version_is_not_run_by_us_and_an_erase_run_puts_it_right(
    place: Workspace,
) -> None:
    """The code lies beside the release document, and answers."""
    before, champion = champion_of(place).predict(["w1", "w2"]), place.ledger.state().champion
    assert champion is not None
    folder = place.state_dir / "mlartifacts" / "models" / champion.model_id
    code = next(folder.rglob("champion.py"))
    code.write_text(code.read_text() + FORGED)
    with pytest.raises(GuaranteeError, match="files of version"):
        champion_of(Workspace(place.root))
    assert registry_problems(place) == [
        f"versions with other files than the ledger recorded: {champion.version}"
    ]
    assert erase(str(place.root))["healed"]["registry"] is True
    forget_connections()
    place = Workspace(place.root)
    assert champion_of(place).predict(["w1", "w2"]) == before and registry_problems(place) == []
    champion = place.ledger.state().champion
    assert champion is not None
    names = next((place.state_dir / "mlartifacts" / "models" / champion.model_id).rglob("MLmodel"))
    names.write_text(names.read_text() + "\n# other code could be named here\n")
    with pytest.raises(GuaranteeError, match="files of version"):
        champion_of(place)
    train(str(place.root))
    forget_connections()
    assert champion_of(Workspace(place.root)).predict(["w1", "w2"]) == before


@pytest.mark.parametrize("named", ["somebody's", "nobody's"])
def test_a_run_that_the_environment_names_gets_nothing_of_a_version(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str
) -> None:
    """`mlflow run` names its own in MLFLOW_RUN_ID, to whatever it starts: by itself, MLflow would
    have the version of an erasure written there, where no erasure looks."""
    client = place.registry.connection.client
    (tmp_path / "uv.lock").write_text("version = 1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'theirs'\nversion = '1'\n")
    monkeypatch.chdir(tmp_path)
    with place.registry.addressed():
        experiment = client.create_experiment("theirs", str(tmp_path / "theirs"))
        run = client.create_run(experiment, run_name="theirs")
    before = client.get_run(run.info.run_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id if named == "somebody's" else "0" * 32)
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", '{"theirs": "theirs"}')
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    take_requests(place, ["person-003"])
    assert erase(str(place.root))["version"] == "2"
    after = client.get_run(run.info.run_id)
    assert before.to_dictionary() == after.to_dictionary() and not (tmp_path / "theirs").exists()
    champion = place.ledger.state().champion
    assert champion is not None
    ours = client.get_run(client.get_model_version(place.registry.name, champion.version).run_id)
    assert ours.info.experiment_id != experiment and "theirs" not in ours.data.tags
    files = place.state_dir / "mlartifacts" / "models" / champion.model_id
    assert not {"uv.lock", "pyproject.toml"} & {p.name for p in files.rglob("*")}
    champion_of(place)


def test_a_training_puts_a_changed_release_document_right_too(place: Workspace) -> None:
    before = champion_of(place).predict(["w1", "w2"])
    _change(place, _labels_reversed, vouched=True)
    done = train(str(place.root))
    champion = Workspace(place.root).ledger.state().champion
    assert champion is not None and done["version"] == champion.version and done["trained"] == 0
    forget_connections()
    assert champion_of(Workspace(place.root)).predict(["w1", "w2"]) == before
    _check_nothing_to_heal(place, champion.model_id)


def _check_nothing_to_heal(place: Workspace, model_id: str) -> None:
    """Whoever put it right told the ledger, and left nothing: the next erase run that changes
    nothing says so."""
    before = len(Workspace(place.root).ledger.entries())
    assert not any(erase(str(place.root))["healed"].values())
    assert len(Workspace(place.root).ledger.entries()) == before
    assert [p.name for p in (place.state_dir / "mlartifacts" / "models").iterdir()] == [model_id]


class Killed(BaseException):
    """Where a test kills a command."""


def _killed_behind(
    monkeypatch: pytest.MonkeyPatch, work: str, command: Callable[[str], Any], root: Path
) -> None:
    """`command`, killed when the registry has done `work` and the ledger has not been told yet."""
    does = getattr(MlflowRegistry, work)

    def killed(*given: Any, **named: Any) -> None:
        does(*given, **named)
        raise Killed

    with monkeypatch.context() as context, pytest.raises(Killed):
        context.setattr(MlflowRegistry, work, killed)
        command(str(root))
    forget_connections()


def _forge(place: Workspace, recorded: bool) -> set[str]:
    """Other code into every logged model that the ledger records, or into those that it does not;
    their ids."""
    known, folder = (
        {v.model_id for v in place.ledger.state().versions},
        place.state_dir / "mlartifacts" / "models",
    )
    forged = {
        p.name
        for p in folder.iterdir()
        if (p.name in known) == recorded and any(p.rglob("champion.py"))
    }
    for file in (f for name in forged for f in (folder / name).rglob("champion.py")):
        file.write_text(file.read_text() + FORGED)
    return forged


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    ("work", "command"), [("_register", erase), ("_register", train), ("adopt", erase)]
)
def test_a_version_that_a_killed_command_registered_is_not_believed(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, work: str, command: Callable[[str], Any]
) -> None:
    """Its files lay there, and no ledger knew their digest: whatever was made of them meanwhile is
    not what serves."""
    if (work, command) == ("_register", erase):
        take_requests(place, ["person-003"])
    else:
        _forge(place, recorded=True)  # so that it is registered again
    _killed_behind(monkeypatch, work, command, place.root)
    orphans = _forge(place, recorded=False)
    assert orphans
    command(str(place.root))
    forget_connections()
    after = Workspace(place.root)
    assert {p["label"] for p in champion_of(after).predict(["w1", "w2"])} <= {"bad", "good"}
    erase(str(place.root))
    code = {
        f.parents[1].name: f.read_bytes()
        for f in (after.state_dir / "mlartifacts").rglob("champion.py")
    }
    assert code and set(code.values()) == {CODE.read_bytes()} and not code.keys() & orphans


def _experiment(place: Workspace, client: mlflow.MlflowClient) -> None:
    client.delete_experiment(client.get_experiment_by_name(place.registry.name).experiment_id)


def _runs(place: Workspace, client: mlflow.MlflowClient) -> None:
    experiment = client.get_experiment_by_name(place.registry.name).experiment_id
    for run in client.search_runs([experiment]):
        client.delete_run(run.info.run_id)


def _model(place: Workspace, client: mlflow.MlflowClient) -> None:
    client.delete_registered_model(place.registry.name)


def _alias(place: Workspace, client: mlflow.MlflowClient) -> None:
    client.delete_registered_model_alias(place.registry.name, "champion")


def _version(place: Workspace, client: mlflow.MlflowClient) -> None:
    client.delete_model_version(place.registry.name, place.registry.serving())


def _logged(place: Workspace, client: mlflow.MlflowClient) -> None:
    record = place.ledger.state().champion
    assert record is not None
    client.delete_logged_model(record.model_id)


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    ("delete", "is_open"),
    [
        (_experiment, False),
        (_experiment, True),
        (_runs, True),
        (_model, False),
        (_alias, True),
        (_version, False),
        (_logged, True),
    ],
)
def test_whatever_somebody_deletes_in_the_registry_locks_no_erasure(
    place: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    delete: Callable[[Workspace, mlflow.MlflowClient], None],
    is_open: bool,
) -> None:
    """With MLflow's own page: before an erasure, or while one is open that has not cut over yet."""
    take_requests(place, ["person-003"])
    if is_open:
        _killed_behind(monkeypatch, "publish", erase, place.root)
    delete(place, mlflow.MlflowClient(place.tracking_uri, place.tracking_uri))
    forget_connections()
    assert len(erase(str(place.root))["certificates"]) == 1
    forget_connections()
    after = Workspace(place.root)
    assert {p["label"] for p in champion_of(after).predict(["w1", "w2"])} <= {"bad", "good"}
    erase(str(place.root))  # a superseded version that is lost is told as such
    assert not any(erase(str(place.root))["healed"].values())
    train(str(place.root))
    assert champion_of(Workspace(place.root)).predict(["w1"])


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    "source", ["models:", "runs:/0/x", "s3://bucket/elsewhere", "file:///etc", "x"]
)
def test_whatever_another_client_registers_is_told_not_served_and_locks_no_erasure(
    place: Workspace, source: str
) -> None:
    """A version under our name, of no logged model of ours, with our tags, and the alias on it."""
    take_requests(place, ["person-003"])
    client = mlflow.MlflowClient(place.tracking_uri, place.tracking_uri)
    record = place.ledger.state().champion
    assert record is not None
    if source == "models:":
        source = client.create_logged_model(client.create_experiment("theirs"), "theirs").model_uri
    with place.registry.addressed():
        theirs = client.create_model_version(
            place.registry.name, source, tags=place.registry.tags(record.version)
        )
    client.set_registered_model_alias(place.registry.name, "champion", theirs.version)
    with pytest.raises(GuaranteeError, match="files of version"):
        champion_of(place)
    told = registry_problems(place)
    assert [p.partition(":")[0].split(",")[0] for p in told] == [
        "versions in the registry that the ledger does not know",
        "the alias 'champion' names another version than the one that serves",
    ]
    assert len(erase(str(place.root))["certificates"]) == 1
    forget_connections()
    assert registry_problems(Workspace(place.root)) == [] and champion_of(
        Workspace(place.root)
    ).predict(["w1"])


def test_the_code_that_lies_in_a_version_is_not_run_by_us(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the ledger vouches for it: whoever wrote to the registry while it was recorded is
    not believed."""
    folder, log = place.state_dir / "mlartifacts" / "models", LoggedModels._log

    def logged(self: LoggedModels, release: Path, kind: str) -> Any:
        info = log(self, release, kind)
        code = next((folder / str(info.model_id)).rglob("champion.py"))
        code.write_text(code.read_text() + "\nraise SystemExit('run')\n")
        return info

    take_requests(place, ["person-003"])
    with monkeypatch.context() as context:
        context.setattr(LoggedModels, "_log", logged)
        with pytest.raises(StorageError, match="as they were sent"):
            erase(str(place.root))
        context.setattr(LoggedModels, "_check_logged", lambda *_: None)
        erase(str(place.root))
    forget_connections()
    after = Workspace(place.root)
    record = after.ledger.state().champion
    assert record is not None
    assert "raise SystemExit" in next((folder / record.model_id).rglob("champion.py")).read_text()
    assert champion_of(after).predict(["w1"])


def _evil(place: Workspace, folder: Path) -> Path:
    """A copy of the serving version's files in `folder`, whose code answers as it likes."""
    champion = place.ledger.state().champion
    assert champion is not None
    files = folder / champion.model_id / "artifacts"
    shutil.copytree(
        place.state_dir / "mlartifacts" / "models" / champion.model_id / "artifacts", files
    )
    code = next(files.rglob("champion.py"))
    code.write_text(code.read_text() + FORGED)
    return files


def _another_version(connection: sqlite3.Connection, evil: str) -> None:
    """Another row for the same release, which the alias names."""
    names = [r[1] for r in connection.execute("PRAGMA table_info(model_versions)")]
    row = dict(
        zip(names, connection.execute("SELECT * FROM model_versions").fetchone(), strict=True)
    )
    row |= {"version": 99, "storage_location": evil}
    connection.execute(
        f"INSERT INTO model_versions VALUES ({', '.join('?' * len(names))})",  # noqa: S608
        [row[n] for n in names],
    )
    connection.execute(
        "INSERT INTO model_version_tags (key, value, name, version) SELECT key, value, name, 99 "
        "FROM model_version_tags"
    )
    connection.execute("UPDATE registered_model_aliases SET version = 99")


def _storage(connection: sqlite3.Connection, evil: str) -> None:
    connection.execute("UPDATE model_versions SET storage_location = ?", [evil])


def _source(connection: sqlite3.Connection, evil: str) -> None:
    connection.execute("UPDATE model_versions SET source = ?, storage_location = NULL", [evil])


def _logged_model(connection: sqlite3.Connection, evil: str) -> None:
    connection.execute("UPDATE logged_models SET artifact_location = ?", [evil])


@pytest.mark.long_but_first
@pytest.mark.parametrize(
    ("change", "reconcile"),
    [
        (_storage, erase),
        (_source, train),
        (_logged_model, erase),
        (_another_version, erase),
        (_storage, train),
    ],
)
def test_the_files_that_are_loaded_are_those_that_were_checked_wherever_the_registry_points(
    place: Workspace,
    tmp_path: Path,
    change: Callable[[sqlite3.Connection, str], None],
    reconcile: Callable[[str], Any],
) -> None:
    before = champion_of(place).predict(["w1", "w2"])
    with sqlite3.connect(place.state_dir / "mlflow.db") as connection:
        change(connection, _evil(place, tmp_path / "evil").as_uri())
    forget_connections()
    for asked in (champion_of, partial(replay, count=1)):
        with pytest.raises(GuaranteeError, match="files of version"):
            asked(Workspace(place.root))
    reconcile(str(place.root))
    forget_connections()
    place = Workspace(place.root)
    assert champion_of(place).predict(["w1", "w2"]) == before
    with place.registry.addressed():
        loaded = mlflow.pyfunc.load_model(f"models:/{place.registry.name}@champion")  # by anybody
        assert loaded.predict(["w1", "w2"]) == before
    champion = place.ledger.state().champion
    assert champion is not None
    _check_nothing_to_heal(place, champion.model_id)


def test_files_at_the_place_that_a_moved_workspace_had_are_not_loaded(place: Workspace) -> None:
    root = place.root
    moved = root.rename(root.with_name("moved"))
    evil = _evil(Workspace(moved), root / ".s3t" / "mlartifacts" / "models")
    assert evil.is_dir()
    forget_connections()
    with pytest.raises(GuaranteeError, match="moved or copied"):
        champion_of(Workspace(moved))
