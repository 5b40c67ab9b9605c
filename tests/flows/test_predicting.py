"""`s3t predict --file`: a label for each row, by the named column, or a sentence and no file."""

import csv
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases import predicting
from flows.use_cases.next_steps import thin_data, why_unmeasured
from flows.use_cases.predicting import champion_of, predict_file
from flows.workspace.workspace import Workspace
from s3t_core.errors import DataError, StaleModel, UsageError
from tests.flows.conftest import people, write_csv
from tests.flows.prepared import Prepared

SECRET = "a text that nobody else may read"


def _left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.slow
def test_each_row_of_a_file_gets_its_label_by_the_column_that_is_named(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = prepared.fresh()
    monkeypatch.setattr(predicting, "BATCH", 4)
    texts = [f"w{i} w{i * 3 % 60}" for i in range(11)]
    source = write_csv(
        tmp_path / "new.csv", [{"id": f"r{i}", "note": "x", "what": t} for i, t in enumerate(texts)]
    )
    right = champion_of(place).predict(texts)
    told = predict_file(place, str(source), tmp_path / "out.csv")
    assert (told["rows"], told["version"]) == (11, "1")
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["label"] for r in rows] == [a["label"] for a in right] and [r["row"] for r in rows][
        :2
    ] == ["1", "2"]
    assert [float(r["probability good"]) for r in rows] == [
        a["probabilities"]["good"] for a in right
    ]
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o600
    lines = [json.dumps({"what": t, "id": 1}) for t in texts]
    (tmp_path / "new.jsonl").write_text("\n".join(lines))
    predict_file(place, str(tmp_path / "new.jsonl"), tmp_path / "out.jsonl")
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert answers == [{"row": i, **a} for i, a in enumerate(right, 1)]
    assert texts[0] not in (tmp_path / "out.csv").read_text() + (tmp_path / "out.jsonl").read_text()


@pytest.mark.slow
def test_a_file_that_cannot_be_labelled_whole_leaves_none(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = prepared.fresh()
    source, out = tmp_path / "new.csv", tmp_path / "out.csv"
    write_csv(source, [{"id": f"r{i}", "what": SECRET} for i in range(3)])

    class Replaced:
        def predict(self, texts: list[str], params: object = None) -> Any:
            raise StaleModel("moved on")

    with monkeypatch.context() as patch:
        patch.setattr(predicting, "_loaded", lambda *_: Replaced())
        with pytest.raises(StaleModel, match="run the command again"):
            predict_file(place, str(source), out)
    assert _left(tmp_path) == ["new.csv"]
    for wrong, said in (
        (place.state_dir / "x.csv", "outside"),
        (tmp_path / "x.txt", "to end in"),
        (source, "the same"),
        (tmp_path / "no" / "x.csv", "a directory that is there"),
    ):
        with pytest.raises(UsageError, match=said):
            predict_file(place, str(source), wrong)
    (tmp_path / "other.csv").write_text("id,text\nr1,x\n")
    with pytest.raises(DataError, match="what"):
        predict_file(place, str(tmp_path / "other.csv"), out)
    assert not out.exists()


@pytest.mark.slow
def test_a_row_without_a_text_has_no_label_and_is_counted(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = prepared.fresh()

    class Good:
        def predict(self, texts: list[str], params: object = None) -> Any:
            return [{"label": "good", "probabilities": {"good": 1.0, "bad": 0.0}} for _ in texts]

    monkeypatch.setattr(predicting, "_loaded", lambda *_: Good())
    source = write_csv(
        tmp_path / "new.csv", [{"id": f"r{i}", "what": t} for i, t in enumerate(["a", "", "b", ""])]
    )
    told = predict_file(place, str(source), tmp_path / "out.csv")
    assert (told["rows"], told["unlabelled"]) == (4, 2)
    with (tmp_path / "out.csv").open() as file:
        assert [(r["row"], r["label"]) for r in csv.DictReader(file)] == [
            ("1", "good"),
            ("2", ""),
            ("3", "good"),
            ("4", ""),
        ]


@pytest.mark.slow
def test_a_file_with_a_row_that_cannot_be_read_is_refused_by_its_place(
    prepared: Prepared, tmp_path: Path
) -> None:
    place = prepared.fresh()
    source = write_csv(tmp_path / "new.csv", [{"id": "r1", "what": SECRET}])
    source.write_bytes(source.read_bytes() + b"r2,\xfc\r\n")
    with pytest.raises(
        DataError, match="the first is row 2: column 'what' is not UTF-8"
    ) as refused:
        predict_file(place, str(source), tmp_path / "out.csv")
    assert SECRET not in str(refused.value) and _left(tmp_path) == ["new.csv"]


@pytest.mark.slow
def test_data_of_two_people_trains_and_it_is_told_why_nothing_is_measured(
    make_place: Any, tmp_path: Path
) -> None:
    place = make_place(system={"shards": 3, "slices": 3, "budget": 1})
    ingest(
        str(place.root),
        str(
            write_csv(
                tmp_path / "people.csv",
                [r | {"who": f"person-{i % 2}"} for i, r in enumerate(people())],
            )
        ),
    )
    told = thin_data(place.ledger.state().dataset, place.config)
    assert "slices are empty: too few people for 3 shards of 3 slices" in told[0]
    done = train(str(place.root))
    state = Workspace(place.root).ledger.state()
    if done["accuracy"] is None:
        assert (
            "no row is held out" in why_unmeasured(state, place.config)
            and "no row is held out" in told[1]
        )
    else:
        assert why_unmeasured(state, place.config) == "" and len(told) == 1
