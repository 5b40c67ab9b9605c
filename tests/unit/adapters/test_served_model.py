"""The code in a version, by itself: what it was asked for, and what it answers while the release
changes under it."""

import os
import sys
import tempfile
import threading
import time
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)

from flows.adapters import served_model
from s3t_core.errors import DataError, NoLiveShard, StaleModel
from s3t_core.learning.tasks.generation import TextPrediction
from s3t_core.learning.tasks.task import LabelPrediction

WROTE = TextPrediction("oldb", "stop", 3, 2)


def _loaded(label: str, model: Any = None, writes: bool = False) -> Any:
    def predict(texts: list[str]) -> list[Any]:
        if model is not None:
            model.answered.append(label)
        return [LabelPrediction(label, {label: 1.0}) for _ in texts]

    document = SimpleNamespace(
        serving={"staleness_seconds": 0, "text": "body", "asks": "prompt", "max_new_tokens": 3},
        release_id=label,
        digest=label,
        writes=writes,
    )
    ensemble = SimpleNamespace(
        predict=predict, stream=lambda *_: iter([label, "b", WROTE]), lives=True
    )
    return served_model._Loaded(document, ensemble, "1")


class _Changing(served_model.Champion):  # type: ignore[misc]
    """Is confirmed to be each of these in turn."""

    def __init__(self, *turns: str, writes: bool = False) -> None:
        super().__init__()
        self.answered: list[str] = []
        self.known = {t: _loaded(t, self, writes) for t in turns}
        self.turns = list(turns)

    def _settled(self) -> Any:
        return self.known[self.turns.pop(0)]


def test_an_answer_that_outlives_its_release_is_given_anew_by_the_next_one() -> None:
    model = _Changing("old", "new", "new")
    assert [a["label"] for a in model.predict(None, ["x", "y"])] == ["new", "new"]
    assert model.answered == ["old", "new"]
    with pytest.raises(StaleModel, match="replaced meanwhile"):
        _Changing("a", "b", "c", "d").predict(None, ["x"])


class _Failing(served_model.Champion):  # type: ignore[misc]
    """Cannot be confirmed as long as it is told so."""

    def __init__(self) -> None:
        super().__init__()
        self.fails, self.asked, self.there = True, 0, _loaded("there")
        self.asks, self.goes_on = threading.Event(), threading.Event()

    def _settled(self) -> Any:
        self.asked += 1
        self.asks.set()
        assert self.goes_on.wait(30)
        if self.fails:
            raise served_model._Stale("expected the registry to answer, it did not")
        return self.there


def test_who_waited_for_a_failure_takes_it_as_the_answer_and_who_comes_later_tries_anew() -> None:
    model, told = _Failing(), list[str]()

    def ask() -> None:
        try:
            model.confirm()
        except StaleModel as error:
            told.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    threads[0].start()
    assert model.asks.wait(30)
    for each in threads[1:]:
        each.start()
    time.sleep(0.3)
    model.goes_on.set()
    for each in threads:
        each.join(30)
    assert len(told) == 4 and model.asked == 1
    ask()
    assert len(told) == 5 and model.asked == 2


@pytest.mark.parametrize("ahead", [0, 700 * 86_400], ids=["a right clock", "one that was ahead"])
def test_a_failure_is_over_once_the_registry_answers_whatever_the_clock_said(
    monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    model, wall = _Failing(), time.time
    model.goes_on.set()
    with monkeypatch.context() as wrong:
        wrong.setattr(time, "time", lambda: wall() + ahead)
        with pytest.raises(StaleModel):
            model.confirm()
    model.fails = False
    model.confirm()
    assert model.predict(None, ["x"])[0]["label"] == "there" and model.refusal() == ""


@pytest.mark.parametrize(
    ("error", "is_answered"),
    [
        (ConnectionError(), True),
        (MlflowException("x", TEMPORARILY_UNAVAILABLE), True),
        (MlflowException("no such alias", INVALID_PARAMETER_VALUE), False),
        (MlflowException("no such model", RESOURCE_DOES_NOT_EXIST), False),
    ],
)
def test_offline_use_is_for_a_registry_that_does_not_answer_and_for_no_other(
    monkeypatch: pytest.MonkeyPatch, error: Exception, is_answered: bool
) -> None:
    """One that knows no such alias has taken it away: what it served before was erased."""

    def named(*_: object) -> None:
        raise error

    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", named)
    monkeypatch.setattr(served_model, "open_anew", lambda _: None)
    model = served_model.Champion()
    model._loaded = _loaded("there")
    model._loaded.document.serving["offline_seconds"] = 3600
    model._registry, model._name = served_model._registry(), "m"
    model._confirmed = served_model.Moment.now()
    time.sleep(0.01)
    if is_answered:
        assert model.predict(None, ["x"])[0]["label"] == "there"
    else:
        with pytest.raises(StaleModel, match="the registry to confirm"):
            model.predict(None, ["x"])


def test_a_stream_ends_where_another_release_serves() -> None:
    whole = _Changing("old", "old", "old", "old", writes=True).predict_stream(None, ["x"])
    assert list(whole) == [
        {"text": "old"},
        {"text": "b"},
        {"text": "", "finish": "stop", "tokens": 3, "prompt_tokens": 2},
    ]
    cut = _Changing("old", "old", "new", "new", writes=True).predict_stream(None, ["x"])
    assert next(cut) == {"text": "old"}
    with pytest.raises(StaleModel, match="until all was written"):
        next(cut)
    labels = _Changing("old").predict_stream(None, ["x"])
    with pytest.raises(DataError, match="labels them"):
        next(labels)
    two = _Changing("old", writes=True).predict_stream(None, ["x", "y"])
    with pytest.raises(DataError, match="one question"):
        next(two)


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (served_model._Stale, StaleModel, 503),
        (served_model._NothingLives, NoLiveShard, 503),
        (served_model._Misread, DataError, 400),
    ],
)
def test_mlflows_server_can_put_nothing_that_was_asked_before_the_sentence_of_a_refusal(
    error: Any, kind: type[Exception], status: int
) -> None:
    raised = error("expected this, got that")
    raised.message = f"Failed to predict data 'a secret'. \nError: {raised.message}"
    assert isinstance(raised, kind) and raised.get_http_status_code() == status
    assert (
        str(raised) == raised.message == "expected this, got that"
        and "a secret" not in raised.serialize_as_json()
    )


def test_health_does_not_wait_for_a_model_that_is_being_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(served_model, "_PATIENCE", 0.01)
    model = _Changing("now", "now")
    with model._lock:
        assert "loaded" in model.refusal()
    assert model.refusal() == ""


@pytest.mark.parametrize(
    ("words", "uri"),
    [
        (
            [
                "python",
                "mlflow",
                "models",
                "serve",
                "--env-manager",
                "local",
                "-m",
                "models:/n@champion",
                "-p",
                "1",
            ],
            "models:/n@champion",
        ),
        (["mlflow", "models", "serve", "--model-uri=models:/n/3"], "models:/n/3"),
        (
            ["mlflow", "models", "serve", "--model-uri", "runs:/r/release", "--workers", "2"],
            "runs:/r/release",
        ),
        (["mlflow", "models", "serve", "-mmodels:/n/3"], "models:/n/3"),
        (["mlflow", "models", "serve"], ""),
    ],
)
def test_what_a_server_was_asked_for_is_read_from_the_command_that_began_it(
    words: list[str], uri: str
) -> None:
    assert served_model._option(words[words.index("serve") :]) == uri


@pytest.mark.parametrize(
    ("uri", "name", "one"),
    [
        ("models:/n@champion", "n", False),
        ("models:/n@prod", "n", True),
        ("models:/n/3", "n", True),
        ("models:/m-0123", "", True),
        ("runs:/r/release", "", True),
        ("s3://b/models/m", "", True),
        ("", "", False),
    ],
)
def test_only_the_alias_champion_is_followed(uri: str, name: str, one: bool) -> None:
    assert (served_model._name_in(uri), served_model._is_one_version(uri)) == (name, one)


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("models:/n/3", "models:/n/3"),
        ("models:/n@champion", "models:/n@champion"),
        ("runs:/r/release", "runs:/r/release"),
        ("mlflow-artifacts:/1/models/m", "mlflow-artifacts:/1/models/m"),
        ("/here/x", ""),
        ("file:///here/x", ""),
        ("x", ""),
    ],
)
def test_what_load_model_was_asked_for_is_found_and_a_path_tells_nothing(
    uri: str, found: str
) -> None:
    module = types.ModuleType("mlflow.pyfunc")
    exec("def load_model(model_uri, ask):\n    return ask()\n", module.__dict__)  # noqa: S102
    assert served_model._SERVER not in sys.modules
    assert module.load_model(uri, served_model.asked_for) == found


@pytest.mark.parametrize(
    ("below", "place", "removed"),
    [
        ("tmpabc/artifacts/release", "mlflow-artifacts:/1/models/m/artifacts", True),
        ("tmpabc/artifacts/release", "s3://bucket/1", True),
        ("tmpabc/w/.s3t/mlartifacts/models/m/artifacts/release", "file:///x", False),
        ("tmpabc/w/.s3t/mlartifacts/models/m/artifacts/release", "/x", False),
        ("tmpabc/release", "", False),
        ("mine/release", "mlflow-artifacts:/1", False),
        ("../elsewhere/release", "mlflow-artifacts:/1", False),
    ],
)
def test_stages_that_mlflow_brought_go_with_their_release_and_nobody_elses_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str, place: str, removed: bool
) -> None:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    folder = tmp_path / "t" / below
    folder.mkdir(parents=True)
    (folder / "x.safetensors").write_bytes(b"a stage")
    (folder / "release.json").write_bytes(b"{}")
    model = served_model.Champion()
    model._brought = served_model._brought(folder, place)
    model._remove_brought()
    assert (folder / "x.safetensors").exists() != removed and (folder / "release.json").exists()


def test_what_a_killed_process_left_where_models_are_brought_to_goes_with_the_next_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name, age in (("s3t-champion-old", 7200), ("s3t-champion-now", 0), ("tmpold", 7200)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.safetensors").write_bytes(b"a stage")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    served_model._remove_forgotten()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s3t-champion-now", "tmpold"]


@pytest.mark.parametrize(
    ("serving", "told"), [({}, "votes"), ({"combine": "merged"}, "merged")], ids=str
)
def test_a_version_says_how_its_shards_answer(serving: dict[str, str], told: str) -> None:
    assert served_model._Document("d", {"serving": serving}).combine == told


def test_a_way_to_answer_that_nobody_knows_is_refused() -> None:
    with pytest.raises(StaleModel, match="release of the software"):
        _ = served_model._Document("d", {"serving": {"combine": "a duel"}}).combine
