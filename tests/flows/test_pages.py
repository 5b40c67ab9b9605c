"""What the pages of MLflow and Prefect show: what a run was given and came to, and nobody; and of a
destroyed stage nothing."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.retrain import retrain
from flows.prefect_flows.train import train
from flows.use_cases.taking import take_requests
from flows.workspace.workspace import Workspace
from tests.flows.conftest import CANARY, people, write_csv

pytestmark = pytest.mark.slow


@pytest.fixture
def place(trained: Callable[..., Workspace]) -> Workspace:
    return trained(canary=True)


def _stages(place: Workspace) -> list[Run]:
    with place.registry.addressed():
        client = mlflow.MlflowClient()
        number = client.get_experiment_by_name("tiny").experiment_id
        return list(client.search_runs([number], "tags.`s3t.kind` = 'stage'"))


def _rows(place: Workspace, question: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(place.state_dir / "mlflow.db")) as connection:
        return connection.execute(question).fetchall()


def test_a_stages_run_shows_what_it_was_given_and_how_it_went(place: Workspace) -> None:
    with place.registry.addressed():
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name("tiny")
        assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
        for run in _stages(place):
            points = client.get_metric_history(run.info.run_id, "loss_of_step")
            assert sorted(p.step for p in points) == list(range(int(run.data.params["steps"])))
            assert len({p.value for p in points}) > 1
            assert run.data.metrics["seconds"] > 0 and run.data.metrics["peak_memory_mib"] > 1
            assert run.data.params.keys() >= {"seed", "adapter", "learning_rate", "slices", "key"}
            names = [each.dataset.name for each in run.inputs.dataset_inputs]
            assert len(names) == len(set(names)) == run.data.params["slices"].count(",") + 1
            assert all(name.startswith("shard=") for name in names)
            digests = {each.dataset.digest for each in run.inputs.dataset_inputs}
            known = {v.digest[:36] for v in place.ledger.state().datasets[-1].files()}
            assert digests <= known and len(digests) == len(names)


def test_the_training_shows_the_depth_of_each_shard_and_the_score(place: Workspace) -> None:
    """The parent of the stages' runs."""
    (parent,) = {run.data.tags["mlflow.parentRunId"] for run in _stages(place)}
    release = place.ledger.state().release
    assert release is not None
    with place.registry.addressed():
        client = mlflow.MlflowClient()
        points = client.get_metric_history(parent, "live_depth")
        told = client.get_run(parent).data.metrics
    assert {p.step: p.value for p in points} == {
        n: release.live_depth(shard) for n, shard in enumerate(release.shards())
    }
    assert told["held_out_accuracy_low"] <= told["held_out_accuracy"]


def test_a_destroyed_stages_curve_and_inputs_go_with_it(place: Workspace) -> None:
    before = {run.info.run_id for run in _stages(place)}
    seen = len(_rows(place, "SELECT dataset_uuid FROM datasets"))
    take_requests(place, [CANARY])
    erase(str(place.root))
    kept = {run.info.run_id for run in _stages(place)}
    assert kept < before
    for table, column in (("metrics", "run_uuid"), ("inputs", "destination_id")):
        of = {row[0] for row in _rows(place, f"SELECT {column} FROM {table}")}  # noqa: S608
        assert of & before == kept & of, table
    left = {row[0] for row in _rows(place, "SELECT dataset_uuid FROM datasets")}
    named = "SELECT source_id FROM inputs WHERE source_type = 'DATASET'"
    assert left == {row[0] for row in _rows(place, named)}
    assert len(left) < seen
    tagged = {row[0] for row in _rows(place, "SELECT input_uuid FROM input_tags")}
    assert tagged <= {row[0] for row in _rows(place, "SELECT input_uuid FROM inputs")}


def test_a_version_has_a_card_that_an_erasure_keeps_current(place: Workspace) -> None:
    def cards() -> tuple[str, str]:
        with place.registry.addressed():
            client = mlflow.MlflowClient()
            model = client.get_registered_model("tiny")
            version = client.get_model_version_by_alias("tiny", "champion")
            return str(model.description), str(version.description)

    first, same = cards()
    assert first == same and "Shard 0 may use slices 0 1" in first
    measured = place.ledger.state().champion
    assert measured is not None and measured.score is not None and measured.score.otherwise
    for score in (measured.score, measured.score.otherwise):
        assert score.in_words() in first and score.low is not None
    assert "mlflow.pyfunc.load_model" in first and "- budget.policy: " in first
    take_requests(place, [CANARY])
    erase(str(place.root))
    second, same = cards()
    assert second == same != first
    champion = place.ledger.state().champion
    assert champion is not None and champion.release.release_id in second
    assert CANARY not in second


def test_prefects_pages_name_what_ran_and_show_what_came_of_it(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    place = make_place()
    rows = [*people(), {"id": "x", "who": "bad", "what": "", "kind": "good"}]
    ingest(str(place.root), str(write_csv(tmp_path / "people.csv", rows)))
    train(str(place.root))
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        names = [run.name for run in client.read_flow_runs()]
        shown = [(a.key, str(a.data)) for a in client.read_artifacts()]
    assert any(name.startswith("ingest 20") for name in names)
    assert any(name.startswith("train 20") for name in names)
    assert any(key == "ingest" and "refused: " in told for key, told in shown)
    assert any(key == "training" and "live depth" in told for key, told in shown)
    before = sum(key == "training" for key, _ in shown)
    take_requests(place, ["good"])
    erase(str(place.root))
    retrain(str(place.root))
    with get_client(sync_client=True) as client:
        names = [run.name for run in client.read_flow_runs()]
        shown = [(a.key, a.created) for a in client.read_artifacts()]
    assert {"erase 20", "full-retrain 20"} <= {name.partition("20")[0] + "20" for name in names}
    assert sum(key == "training" for key, _ in shown) > before


def test_a_page_that_prefect_does_not_take_ends_nothing_in_an_error(
    make_place: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is done by then: who is told that it failed does it again."""

    def refused(**_: object) -> None:
        raise RuntimeError("what she said")

    monkeypatch.setattr("prefect.artifacts.create_table_artifact", refused)
    place = make_place()
    done = ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people())))
    assert done["changed"] and train(str(place.root))["version"] == "1"
