"""A version's release.json decides which label an output means and how long a loaded model may go on: one that somebody
changed is not loaded, not believed, and put right (edges B9)."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pytest

from flows.erase import erase
from flows.ingest import ingest
from flows.predicting import champion_of
from flows.replaying import replay
from flows.reporting import report_of
from flows.train import train
from flows.wiring import Workspace
from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.errors import GuaranteeError, StaleModel
from tests.flows.conftest import people, write_csv
from tests.flows.prepared import forget_connections

pytestmark = pytest.mark.slow


def _labels_reversed(document: dict[str, Any]) -> None:
    document["recipe"]["labels"].reverse()


def _trusting(document: dict[str, Any]) -> None:
    document["serving"]["staleness_seconds"] = 10**9


@pytest.fixture
def place(make_place: Callable[..., Workspace], tmp_path: Path) -> Workspace:
    made = make_place()
    ingest(str(made.root), str(write_csv(tmp_path / "people.csv", people())))
    train(str(made.root))
    return Workspace(made.root)


def _change(place: Workspace, change: Callable[[dict[str, Any]], None], vouched: bool) -> None:
    """In the file of the version that serves; and, by a client of the registry, in the tag that vouches for it."""
    champion = place.ledger.state().champion
    assert champion is not None
    path = next((place.state_dir / "mlartifacts" / "models" / champion.model_id).glob("**/release.json"))
    document = json.loads(path.read_bytes())
    change(document)
    path.write_bytes(canonical_json(document))
    if vouched:
        place.registry.tag(champion.version, {"s3t.document": sha256_hex(path.read_bytes())})


@pytest.mark.parametrize("change", [_labels_reversed, _trusting])
def test_a_changed_release_document_is_not_loaded_and_an_erase_run_puts_it_right(
        place: Workspace, change: Callable[[dict[str, Any]], None]) -> None:
    before, champion = champion_of(place).predict(["w1", "w2"]), place.ledger.state().champion
    assert champion is not None and champion.document
    loaded = champion_of(place)
    _change(place, change, vouched=False)
    with pytest.raises(StaleModel, match="the registry vouches for"):
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
    report = report_of(Workspace(place.root), None, datetime.now(UTC))  # whatever happened can be told
    assert report.versions[-1].cause == "restored" and any(a.kind == "healed after a restore" for a in report.acts)


def test_changed_code_of_a_version_is_not_run_by_us_and_an_erase_run_puts_it_right(place: Workspace) -> None:
    """The code lies beside the release document, and answers."""
    before, champion = champion_of(place).predict(["w1", "w2"]), place.ledger.state().champion
    assert champion is not None
    folder = place.state_dir / "mlartifacts" / "models" / champion.model_id
    code = next(folder.rglob("champion.py"))
    code.write_text(code.read_text().replace('"label": p.label', '"label": "forged"'))
    with pytest.raises(GuaranteeError, match="files of version"):
        champion_of(Workspace(place.root))
    assert erase(str(place.root))["healed"]["registry"] is True
    forget_connections()
    place = Workspace(place.root)
    assert champion_of(place).predict(["w1", "w2"]) == before
    champion = place.ledger.state().champion
    assert champion is not None
    names = next((place.state_dir / "mlartifacts" / "models" / champion.model_id).rglob("MLmodel"))
    names.write_text(names.read_text() + "\n# other code could be named here\n")
    with pytest.raises(GuaranteeError, match="files of version"):
        champion_of(place)
    train(str(place.root))
    forget_connections()
    assert champion_of(Workspace(place.root)).predict(["w1", "w2"]) == before


def test_a_training_puts_a_changed_release_document_right_too(place: Workspace) -> None:
    before = champion_of(place).predict(["w1", "w2"])
    _change(place, _labels_reversed, vouched=True)
    done = train(str(place.root))
    champion = Workspace(place.root).ledger.state().champion
    assert champion is not None and done["version"] == champion.version and done["trained"] == 0
    forget_connections()
    assert champion_of(Workspace(place.root)).predict(["w1", "w2"]) == before
