"""Many who ask at once: each gets the answers to what it asked, whoever else asks; over an erasure
by the version that serves then."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.use_cases import answering
from flows.use_cases.answering import Answered, Answers, Question
from s3t_core.errors import DataError, NoLiveShard, NotNow, S3TError, StaleModel


class Model:
    """Answers each text by itself; refuses a batch with a bad one, and whatever it is told to."""

    def __init__(self, refuses: list[Exception] | None = None) -> None:
        self.batches: list[list[object]] = []
        self.params: list[Mapping[str, object]] = []
        self.refuses = refuses or []

    def predict(self, asked: Any, params: Any = None) -> list[Any]:
        if self.refuses:
            raise self.refuses.pop(0)
        if "bad" in asked:
            raise DataError(f"expected texts, got something else at {asked.index('bad')}; mend it")
        self.batches.append(list(asked))
        self.params.append(params)
        return [{"label": f"of {text}"} for text in asked]


class Place:
    """A workspace in which a version serves, or none."""

    def __init__(self, version: str = "3", run_id: str = "r") -> None:
        self.version, self.run_id = version, run_id

    @property
    def ledger(self) -> Any:
        return self

    def champion_so_far(self) -> Any:
        return self if self.version else None


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[Model]:
    """Those that are loaded, one after the other."""
    loaded: list[Model] = []

    def load(_: object) -> Model:
        loaded.append(Model())
        return loaded[-1]

    monkeypatch.setattr(answering, "champion_of", load)
    return loaded


def _of(*texts: object) -> Answered:
    return Answered(tuple({"label": f"of {text}"} for text in texts), "3")


def _asked(answers: Answers, place: Any, asked: list[Question]) -> list[Answered | S3TError]:
    found = dict(answers.to(place, asked))
    return [found[number] for number in range(len(asked))]


def test_who_asks_at_once_is_answered_at_once_and_apart(models: list[Model]) -> None:
    asked = [Question(("a", "b")), Question(("c",)), Question(()), Question(("d",))]
    assert _asked(Answers(32), Place(), asked) == [_of("a", "b"), _of("c"), _of(), _of("d")]
    assert models[0].batches == [["a", "b", "c", "d"]] and len(models) == 1


@given(
    sizes=st.lists(st.integers(0, 7), max_size=12),
    most=st.integers(1, 20),
    seeds=st.lists(st.sampled_from([{}, {"seed": 1}, {"temperature": 0.5}]), min_size=12),
)
def test_nobody_gets_anothers_answer(
    sizes: list[int], most: int, seeds: list[dict[str, object]]
) -> None:
    asked = [
        Question(tuple(f"{n}/{i}" for i in range(size)), seeds[n]) for n, size in enumerate(sizes)
    ]
    model, answers = Model(), Answers(most)
    answers._model = model, answering._Serving("3", "r")  # type: ignore[assignment]
    told = _asked(answers, Place(), asked)
    assert told == [_of(*each.asked) for each in asked]
    for batch, params in zip(model.batches, model.params, strict=True):
        whose = {str(text).partition("/")[0] for text in batch}
        assert len(batch) <= most or len(whose) == 1
        assert len(whose) <= 1 or not params.get("temperature")


def test_who_was_answered_waits_for_nobody_else(models: list[Model]) -> None:
    """Else an answer would lie here while the model writes others, and an erasure goes by."""
    drawn = {"temperature": 0.5}
    coming = Answers(32).to(Place(), [Question(("a",), drawn), Question(("b",), drawn)])  # type: ignore[arg-type]
    assert next(coming) == (0, _of("a")) and models[0].batches == [["a"]]
    assert next(coming) == (1, _of("b"))


def test_each_is_asked_alone_where_that_is_set(models: list[Model]) -> None:
    _asked(Answers(1), Place(), [Question(("a",)), Question(("b",))])
    assert models[0].batches == [["a"], ["b"]]


def test_what_is_wrong_of_one_keeps_nobody_else_from_an_answer(models: list[Model]) -> None:
    told = _asked(Answers(32), Place(), [Question(("a",)), Question(("bad",)), Question(("c",))])
    assert told[0] == _of("a") and told[2] == _of("c") and isinstance(told[1], DataError)


@pytest.mark.parametrize("refusals", [1, 2])
def test_over_an_erasure_the_version_that_serves_then_answers(
    models: list[Model], monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    answers = Answers(32)
    assert _asked(answers, Place(), [Question(("a",))]) == [_of("a")]
    models[0].refuses = [StaleModel("moved on")]
    if refusals == 2:
        first = answering.champion_of

        def stale(place: Any) -> Model:
            loaded: Any = first(place)
            loaded.refuses = [StaleModel("moved on")]
            return loaded  # type: ignore[no-any-return]

        monkeypatch.setattr(answering, "champion_of", stale)
    told = _asked(answers, Place("3"), [Question(("a",)), Question(("b",))])
    assert (told == [_of("a"), _of("b")]) == (refusals == 1)
    assert all(isinstance(each, StaleModel) for each in told) == (refusals == 2)
    assert _asked(answers, Place("3"), [Question(("a",))])[0] is not None


@pytest.mark.parametrize("now", [Place("4"), Place("3", "another run")])
def test_what_is_in_memory_answers_only_while_the_ledger_says_that_it_serves(
    models: list[Model], now: Place
) -> None:
    """Whatever the registry says: it may be one of before an erasure, and a number that it gives
    may be given anew."""
    answers = Answers(32)
    assert _asked(answers, Place(), [Question(("a",))]) == [_of("a")]
    told = _asked(answers, now, [Question(("b",))])
    assert told == [Answered(({"label": "of b"},), now.version)]
    assert [m.batches for m in models] == [[["a"]], [["b"]]]
    assert isinstance(_asked(answers, Place(""), [Question(("c",))])[0], NotNow)


def test_where_nothing_serves_that_is_told(models: list[Model]) -> None:
    told = _asked(Answers(32), Place(""), [Question(("a",))])
    assert isinstance(told[0], NotNow) and not models


def test_where_every_shard_is_dead_nobody_is_answered(models: list[Model]) -> None:
    answers = Answers(32)
    _asked(answers, Place(), [Question(("a",))])
    models[0].refuses = [NoLiveShard("expected a live shard, got none; retrain")]
    told = _asked(answers, Place(), [Question(("a",)), Question(("b",))])
    assert all(isinstance(each, NoLiveShard) for each in told)


class Writer(Model):
    """Writes three pieces, or is told that another serves before one of them."""

    def __init__(self, moves_before: int = 9) -> None:
        super().__init__()
        self._moves_before = moves_before
        self.serves = True

    def confirm(self) -> None:
        if not self.serves:
            raise StaleModel("load it again")

    def stream(self, asked: Any, params: Any = None) -> Any:
        for n in range(3):
            if n >= self._moves_before:
                raise StaleModel("load it again")
            yield {"text": f"{n}"}


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[Writer]:
    """Those that are still to be loaded."""
    waiting: list[Writer] = []
    monkeypatch.setattr(answering, "champion_of", lambda _: waiting.pop(0))
    return waiting


def _texts(pieces: Any) -> list[str]:
    return [piece["text"] for piece in pieces]


def test_a_stream_begins_with_the_version_that_serves_by_then(writers: list[Writer]) -> None:
    writers += [Writer(moves_before=0), Writer()]
    version, pieces, _ = Answers(1).stream(Place(), Question(("x",)))
    assert version == "3" and _texts(pieces) == ["0", "1", "2"] and not writers
    writers += [Writer(moves_before=0), Writer(moves_before=0)]
    with pytest.raises(StaleModel):
        Answers(1).stream(Place(), Question(("x",)))


def test_after_a_stream_that_was_cut_the_next_is_asked_of_the_version_that_serves(
    writers: list[Writer],
) -> None:
    writers += [Writer(moves_before=2), Writer()]
    answers = Answers(1)
    _, pieces, _ = answers.stream(Place(), Question(("x",)))
    assert [next(pieces)["text"], next(pieces)["text"]] == ["0", "1"]
    with pytest.raises(StaleModel, match="until all was given out"):
        next(pieces)
    _, pieces, _ = answers.stream(Place(), Question(("x",)))
    assert _texts(pieces) == ["0", "1", "2"]


def test_of_what_was_written_somebody_can_ask_whether_its_version_still_serves(
    writers: list[Writer],
) -> None:
    writer = Writer()
    writers += [writer, Writer()]
    answers = Answers(1)
    _, pieces, confirm = answers.stream(Place(), Question(("x",)))
    assert _texts(pieces) == ["0", "1", "2"]
    confirm()
    writer.serves = False
    with pytest.raises(StaleModel, match="until all was given out"):
        confirm()


def test_a_version_that_changes_while_it_is_loaded_is_not_called_by_the_others_name(
    models: list[Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place("3")
    load = answering.champion_of

    def loading(workspace: Any) -> Any:
        place.version = "4"
        return load(workspace)

    monkeypatch.setattr(answering, "champion_of", loading)
    [(_, found)] = Answers(1).to(place, [Question(("a",))])  # type: ignore[arg-type]
    assert isinstance(found, Answered) and found.version == "4" and len(models) == 2
