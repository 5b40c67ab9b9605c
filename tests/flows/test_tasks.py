"""Every task from its source to its certificate: what is learnt, answered, measured, erased, and
what evidence says of it."""

import base64
import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest

from flows.cli.base import render_answer
from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases.checking import check
from flows.use_cases.predicting import champion_of, predict_file
from flows.use_cases.reporting import write_report
from flows.use_cases.status import status_of
from flows.use_cases.taking import take_requests
from flows.workspace.workspace import Workspace
from s3t_core.conversations import turns_of
from s3t_core.images import CUT, NO_IMAGE
from s3t_core.learning.recipe import Recipe
from s3t_core.learning.release import recipe_from_json
from s3t_core.ports import Target
from s3t_core.slicefile import read_rows
from tests.flows.conftest import CANARY, CANARY_TEXT, people
from tests.tiny import build_language_model, build_vision, picture

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Walk:
    """A task on the rows of `people`. `asked`: what rows ask for, in turn; `bad`: what none may ask
    for, with why; `settings`: of the workspace; `members`: of an answer; `metric`: what versions
    are measured by."""

    asked: tuple[object, ...]
    bad: dict[str, str]
    settings: dict[str, dict[str, Any]]
    members: set[str]
    metric: str
    higher_is_better: bool = True


WALKS = {
    "multilabel": Walk(
        (["good"], ["bad", "good"], []),
        {
            '["sideways"]': "a label is not one of the declared ones",
            '["good"': "the labels are no list",
            "": "the label is missing",
        },
        {"task": {"kind": "multilabel", "metric": "macro_f1"}},
        {"labels", "probabilities"},
        "macro_f1",
    ),
    "regression": Walk(
        (1, 2.5, "4.0"),
        {
            "many": "the label is not a finite number",
            "5.5": "the number is outside the declared range",
            "": "the label is missing",
        },
        {"task": {"kind": "regression", "range": [0, 5]}, "data": {"labels": []}},
        {"value"},
        "rmse",
        higher_is_better=False,
    ),
}


def _source(path: Path, walk: Walk) -> Path:
    rows: list[dict[str, object]] = [dict(row) for row in people(canary=True)]
    for i, row in enumerate(rows):
        row["kind"] = walk.asked[i % len(walk.asked)]
    for i, bad in enumerate(walk.bad):
        rows.append({"id": f"b{i}", "who": f"bad-{i}", "what": f"w{i}", "kind": bad})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _recipe(place: Workspace) -> Recipe:
    champion = place.ledger.state().champion
    assert champion is not None
    return recipe_from_json(champion.recipe)


@pytest.mark.long_but_first
@pytest.mark.parametrize("task", WALKS)
def test_a_task_walks_from_its_source_to_its_certificate(
    make_place: Callable[..., Workspace], tmp_path: Path, task: str
) -> None:
    walk = WALKS[task]
    place = make_place(**walk.settings)
    source = _source(tmp_path / "people.jsonl", walk)

    seen = check(place.config, None, [str(source)])
    assert seen["takes"] and seen["reasons"] == dict.fromkeys(walk.bad.values(), 1)
    taken = ingest(str(place.root), str(source))
    assert taken["quarantined"] == len(walk.bad)
    assert taken["reasons"] == dict.fromkeys(walk.bad.values(), 1)
    rows = [r for f in (place.root / "data").rglob("slice=*.parquet") for r in read_rows(f)]
    assert len({r.label for r in rows}) == len(walk.asked)

    done = train(str(place.root))
    assert done["accuracy"] is None and done["score"]["metric"] == walk.metric
    assert done["score"]["low"] <= done["score"]["value"] <= done["score"]["high"]
    assert done["score"]["higher_is_better"] is walk.higher_is_better
    assert status_of(place)["score"] == done["score"]
    with place.registry.addressed():
        version = mlflow.MlflowClient().get_model_version_by_alias("tiny", "champion")
        loaded = mlflow.pyfunc.load_model("models:/tiny@champion")
        served = loaded.predict(["w1 w2", "w3"])
    assert float(version.tags[f"s3t.{walk.metric}"]) == pytest.approx(
        done["score"]["value"], abs=1e-4
    )
    assert " to " in version.tags[f"s3t.{walk.metric}_interval"]
    assert [set(answer) for answer in served] == [walk.members] * 2
    assert {c["name"] for c in loaded.metadata.signature.outputs.to_dict()} == walk.members
    answers = champion_of(place).predict(["w1 w2", "w3"])
    assert answers == served and all(render_answer(answer) for answer in answers)

    for ending in ("csv", "jsonl"):
        out = tmp_path / f"out.{ending}"
        told = predict_file(place, str(source), out)
        assert told["rows"] == len(source.read_text().splitlines()) and not told["unlabelled"]
    first, *_ = csv.DictReader((tmp_path / "out.csv").open())
    member = next(iter(walk.members - {"probabilities"}))
    line = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert set(line) == {"row", *walk.members}
    assert line[member] == first[member] or str(line[member]) in (
        first[member],
        str(json.loads(first[member])),
    )

    take_requests(place, [CANARY])
    found = erase(str(place.root))
    assert len(found["certificates"]) == 1
    payload = _payload(Path(found["certificates"][0]["path"]))
    assert payload["predicate"]["accuracy"] == {"before": None, "after": None}
    around = payload["predicate"]["score"]
    assert around["before"]["metric"] == around["after"]["metric"] == walk.metric
    assert around["before"]["value"] == done["score"]["value"]
    for path in (place.root / "data").rglob("slice=*.parquet"):
        assert not any(CANARY_TEXT in row.text for row in read_rows(path))
    write_report(place, None, tmp_path / "report")
    report = _payload(tmp_path / "report" / "report.json")["predicate"]
    assert {v["score"]["metric"] for v in report["versions"]} == {walk.metric}
    assert report["erasures"][0]["score_after"] == around["after"]
    train(str(place.root))
    assert _recipe(place).task["kind"] == task


def _payload(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))
    return told


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_language_model(tmp_path_factory.mktemp("writer"), layers=2)


def _chats(path: Path) -> Path:
    """What `people` say, answered."""
    rows: list[dict[str, object]] = [
        {
            "id": row["id"],
            "who": row["who"],
            "chat": [
                {"role": "user", "content": row["what"]},
                {"role": "assistant", "content": "w3 w4"},
            ],
        }
        for row in people(canary=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_language_model_walks_from_its_chats_to_its_certificate(
    make_place: Callable[..., Workspace], tmp_path: Path, writer: Path
) -> None:
    place = make_place(
        task={"kind": "generation"},
        data={"labels": [], "messages": "chat"},
        backbone={"model": str(writer), "max_length": 32},
        adapter={"target_modules": ["q_proj", "v_proj"]},
        serving={"max_new_tokens": 5},
    )
    source = _chats(tmp_path / "people.jsonl")
    assert check(place.config, None, [str(source)])["takes"]
    taken = ingest(str(place.root), str(source))
    assert taken["quarantined"] == 0
    rows = [r for f in (place.root / "data").rglob("slice=*.parquet") for r in read_rows(f)]
    assert {r.label for r in rows} == {""}
    assert all(turns_of(r.text)[-1].role == "assistant" for r in rows)

    done = train(str(place.root))
    assert done["score"]["metric"] == "perplexity" and done["score"]["value"] > 1
    question = [{"role": "user", "content": "w1 w2"}]
    with place.registry.addressed():
        loaded = mlflow.pyfunc.load_model("models:/tiny@champion")
        served = loaded.predict(["w1 w2"])
        assert loaded.predict([{"messages": question}]) == served == loaded.predict(question)
        short = loaded.predict(["w1 w2"], params={"max_new_tokens": 2})
        hot = loaded.predict(["w1 w2"], params={"temperature": 9.0, "seed": 4})
        pieces = list(loaded.predict_stream(["w1 w2"]))
    assert set(served[0]) == {"text", "finish", "tokens", "prompt_tokens"}
    assert served[0]["tokens"] <= 5 and pieces[-1] == served[0] | {"text": ""}
    assert short[0]["tokens"] <= 2 and hot != served
    assert "".join(piece["text"] for piece in pieces) == served[0]["text"]
    assert champion_of(place).predict(["w1 w2"]) == served and render_answer(served[0])

    told = predict_file(place, str(source), tmp_path / "out.jsonl", {"max_new_tokens": 2})
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert told["rows"] == len(lines) == len(people(canary=True)) and told["unlabelled"] == 0
    assert all(line["tokens"] <= 2 for line in lines)

    take_requests(place, [CANARY])
    plan_texts = _searched(place)
    found = erase(str(place.root))
    assert len(found["certificates"]) == 1
    around = _payload(Path(found["certificates"][0]["path"]))["predicate"]["score"]
    assert around["after"]["metric"] == "perplexity"
    assert not around["after"]["higher_is_better"]
    for path in (place.root / "data").rglob("slice=*.parquet"):
        assert not any(CANARY_TEXT in row.text for row in read_rows(path))
    assert any(text.startswith(CANARY_TEXT) for text in plan_texts), "each turn is looked for"


def _searched(place: Workspace) -> list[str]:
    """The texts that an erasure of the pending would look for."""
    targets = [
        Target(r.request_id, r.subject, r.record)
        for r in place.requests.pending(place.ledger.state())
    ]
    return [t for of in place.datasets.contents(targets).texts.values() for t in of]


def test_of_a_refused_chat_every_turn_is_looked_for(
    make_place: Callable[..., Workspace], tmp_path: Path, writer: Path
) -> None:
    """A chat that was read, and refused for something else, is kept with the reason; of one that is
    no chat only its place is, as of any row that cannot be read."""
    place = make_place(
        task={"kind": "generation"},
        data={"labels": [], "messages": "chat", "record": "", "max_text_bytes": 400},
        backbone={"model": str(writer)},
        adapter={"target_modules": ["q_proj", "v_proj"]},
    )
    source = _chats(tmp_path / "people.jsonl")
    asked = {"role": "user", "content": CANARY_TEXT}
    long = [asked, {"role": "assistant", "content": "w1 " * 200}]
    no_chat = [asked, {"role": "narrator", "content": "so"}]
    with source.open("a") as file:
        for who, chat in (("refused", long), ("unread", no_chat)):
            file.write(json.dumps({"who": who, "chat": chat}) + "\n")
    assert ingest(str(place.root), str(source))["quarantined"] == 2
    take_requests(place, ["refused"])
    assert CANARY_TEXT in _searched(place)
    kept = [row["values"] for row in place.datasets.quarantine.rows()]
    assert [bool(values) for values in kept] == [True, False]


def test_pairs_of_texts_walk_to_their_certificate(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    place = make_place(data={"text_pair": "other"})
    source = tmp_path / "people.jsonl"
    rows = [{**row, "other": f"w9 {row['id']}"} for row in people(canary=True)]
    rows.append({**rows[0], "id": "x", "other": " "})
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    taken = ingest(str(place.root), str(source))
    assert taken["reasons"] == {"column 'other' holds no text": 1}
    assert train(str(place.root))["score"]["metric"] == "accuracy"
    with place.registry.addressed():
        loaded = mlflow.pyfunc.load_model("models:/tiny@champion")
        served = loaded.predict([["w1 w2", "w3"]])
        assert served == loaded.predict({"what": ["w1 w2"], "other": ["w3"]})
    assert champion_of(place).predict([("w1 w2", "w3")]) == served
    good = tmp_path / "good.jsonl"
    good.write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    assert predict_file(place, str(good), tmp_path / "out.csv")["rows"] == len(rows) - 1
    take_requests(place, [CANARY])
    assert {f"w9 c{n}" for n in range(3)} <= set(_searched(place)), "the second text too"
    assert len(erase(str(place.root))["certificates"]) == 1


def test_images_walk_to_their_certificate(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    """As base64 in a table; one that is cut is refused with the reason, and of an erased person no
    image stays, in base64 or as the bytes of a file."""
    place = make_place(
        data={"content": "image"},
        backbone={"model": str(build_vision(tmp_path / "sees", layers=2))},
        adapter={"target_modules": ["q_proj", "v_proj"]},
    )
    rows = [{**row, "what": picture(i)} for i, row in enumerate(people(canary=True))]
    hers = [row["what"] for row in rows if row["who"] == CANARY]
    cut = base64.b64encode(base64.b64decode(hers[0])[:60]).decode()
    rows += [
        {**rows[0], "id": "x", "what": cut},
        {**rows[0], "id": "y", "what": "a face, in words"},
    ]
    source = tmp_path / "people.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    taken = ingest(str(place.root), str(source))
    assert taken["reasons"] == {CUT: 1, NO_IMAGE: 1}

    done = train(str(place.root))
    assert done["score"]["metric"] == "accuracy"
    asked = [picture(100), picture(101)]
    with place.registry.addressed():
        loaded = mlflow.pyfunc.load_model("models:/tiny@champion")
        served = loaded.predict(asked)
    assert [set(answer) for answer in served] == [{"label", "probabilities"}] * 2
    assert champion_of(place).predict(asked) == served
    good = tmp_path / "good.jsonl"
    good.write_text("".join(json.dumps(row) + "\n" for row in rows[:-2]))
    assert predict_file(place, str(good), tmp_path / "out.csv")["rows"] == len(rows) - 2

    take_requests(place, [CANARY])
    assert set(hers) <= set(_searched(place))
    assert len(erase(str(place.root))["certificates"]) == 1
    needles = [needle for image in hers for needle in (image.encode(), base64.b64decode(image))]
    kept = [
        path
        for path in place.root.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]
    assert not kept
    for path in (place.root / "data").rglob("slice=*.parquet"):
        assert not set(hers) & {row.text for row in read_rows(path)}
