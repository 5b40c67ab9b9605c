"""Where the registry cannot be reached a loaded model refuses, unless offline use is declared, on
certificates too."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases.predicting import champion_of
from flows.use_cases.taking import take_requests
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.workspace import Workspace
from s3t_core.erasure.dsse import statement_of
from s3t_core.erasure.executor import Eraser
from s3t_core.errors import StaleModel
from tests.flows.conftest import people, write_csv
from tests.held import HELD

pytestmark = pytest.mark.slow


def _trained(place: Workspace, tmp_path: Path) -> None:
    ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people())))
    train(str(place.root))


def _unreachable(*_: object) -> None:
    raise ConnectionError


@pytest.mark.long
def test_without_the_registry_a_loaded_model_refuses_unless_offline_use_was_declared(
    make_place: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hours, name in ((0, "strict"), (1, "declared")):
        place = make_place(name, erasure={"offline_hours": hours, "deleted_bytes_hours": hours / 2})
        _trained(place, tmp_path)
        model = champion_of(place)
        with monkeypatch.context() as cut_off:
            cut_off.setattr(mlflow.MlflowClient, "get_model_version_by_alias", _unreachable)
            if hours:
                assert len(model.predict(["w1 w2"])) == 1
            else:
                with pytest.raises(StaleModel, match="registry to confirm"):
                    model.predict(["w1 w2"])
        take_requests(place, ["person-001"])
        Eraser(erase_ports(place, HELD), erase_policy(place), lambda: "plan-1").run()
        certificate = next(place.certificates_dir.glob("*.json")).read_bytes()
        times = statement_of(certificate)["predicate"]["times"]
        assert times["offline_use_declared_seconds"] == 3600 * hours
        assert times["deleted_bytes_kept_declared_seconds"] == 1800 * hours
        if place.ledger.state().versions[-1].cause == "erasure":
            with pytest.raises(
                StaleModel, match="moved on"
            ):  # it reaches the registry again: no declaration helps
                model.predict(["w1 w2"])
