"""What every task promises, and what each answers."""

import json
from dataclasses import replace
from random import Random

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score

from s3t_core.config import Config
from s3t_core.config.task import METRICS
from s3t_core.errors import DataError, GuaranteeError, UsageError
from s3t_core.learning.recipe import NumericProfile, Recipe, make_recipe
from s3t_core.learning.release import kind_of, recipe_from_json, recipe_to_json
from s3t_core.learning.tasks import Task, task_of
from s3t_core.learning.tasks.classification import Classification
from s3t_core.learning.tasks.metrics import scored
from s3t_core.learning.tasks.multilabel import Multilabel
from s3t_core.learning.tasks.regression import Regression
from s3t_core.learning.tasks.task import LabelPrediction
from s3t_core.records import Row

HIDDEN = 4
TASKS: dict[str, tuple[Task, list[Row]]] = {
    "classification": (
        Classification(("a", "b", "c")),
        [Row(f"r{i}", "s", f"text {i}", "abc"[i % 3]) for i in range(6)],
    ),
    "multilabel": (
        Multilabel(("a", "b", "c")),
        [
            Row(f"r{i}", "s", f"text {i}", each)
            for i, each in enumerate(("[]", '["a"]', '["a","c"]'))
        ],
    ),
    "regression": (
        Regression(-10.0, 30.0),
        [Row(f"r{i}", "s", f"text {i}", each) for i, each in enumerate(("-10", "30", "2.5"))],
    ),
}
"""Each with rows that it knows. A new task has its line here."""


@pytest.fixture(params=sorted(TASKS))
def case(request: pytest.FixtureRequest) -> tuple[Task, list[Row]]:
    return TASKS[request.param]


def test_a_fresh_head_is_the_same_whatever_was_drawn_before(case: tuple[Task, list[Row]]) -> None:
    task, _ = case
    heads = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        heads.append(task.head(HIDDEN).state_dict())
    assert heads[0].keys() == heads[1].keys()
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    made = task.head(HIDDEN)(torch.ones(3, HIDDEN))
    assert made.shape == (3, task.outputs)


def test_the_loss_of_a_batch_is_the_mean_of_its_rows_alone(case: tuple[Task, list[Row]]) -> None:
    """Hazard 15: what a row teaches is told by itself, whatever stands beside it."""
    task, rows = case
    torch.manual_seed(0)
    made, targets = torch.randn(len(rows), task.outputs), torch.tensor(task.targets(rows))
    alone = [task.loss(made[i : i + 1], targets[i : i + 1]) for i in range(len(rows))]
    assert torch.allclose(task.loss(made, targets), torch.stack(alone).mean())


def test_hazard_14_what_a_row_asks_for_does_not_depend_on_the_others(
    case: tuple[Task, list[Row]],
) -> None:
    task, rows = case
    assert [task.targets([row])[0] for row in rows] == task.targets(rows)
    assert task.targets([]) == []


def test_a_vote_is_made_row_by_row(case: tuple[Task, list[Row]]) -> None:
    task, rows = case
    made = torch.randn(len(rows), task.outputs, generator=torch.Generator().manual_seed(0))
    votes = task.vote(made)
    assert votes.shape == made.shape
    assert all(torch.allclose(task.vote(made[i : i + 1])[0], votes[i]) for i in range(len(rows)))


@pytest.mark.parametrize(
    ("task", "label", "why"),
    [
        (Classification(("a", "b")), "a secret", "1 other"),
        (Multilabel(("a", "b")), '["a", "a secret"]', "1 other"),
        (Multilabel(("a", "b")), "a secret", "JSON list"),
        (Regression(0, 1), "a secret", "finite number"),
        (Regression(0, 1), "1.25", "within the range"),
        (Regression(0, 1), "nan", "finite number"),
    ],
    ids=str,
)
def test_what_the_task_does_not_know_is_refused_without_a_word_of_it(
    task: Task, label: str, why: str
) -> None:
    with pytest.raises(DataError, match=why) as told:
        task.targets([Row("q", "s", "text", label)])
    assert "secret" not in str(told.value) and "1.25" not in str(told.value)


def test_probabilities_sum_to_one_and_the_first_of_equals_answers() -> None:
    task = Classification(("a", "b", "c"))
    voted = task.vote(torch.zeros(1, 3))[0]
    found = task.answer(voted)
    assert found.label == "a" and list(found.probabilities) == ["a", "b", "c"]
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert task.answer(torch.tensor([0.2, 0.5, 0.3])).label == "b"


def test_a_score_has_a_metric_and_an_interval_around_it(case: tuple[Task, list[Row]]) -> None:
    task, rows = case
    made = torch.randn(len(rows), task.outputs, generator=torch.Generator().manual_seed(0))
    answers = [task.answer(voted) for voted in task.vote(made)]
    score = task.score(answers, rows)
    assert score.metric and score.low is not None and score.high is not None
    assert score.low <= score.value <= score.high
    assert task.score(answers, rows, score.metric) == score, "one measurement, one interval"
    with pytest.raises(UsageError, match=r"\[task\] metric"):
        task.score(answers, rows, "beauty")


def test_what_the_settings_offer_is_what_each_task_measures(case: tuple[Task, list[Row]]) -> None:
    task, rows = case
    kind = next(name for name, (each, _) in TASKS.items() if each is task)
    answers = [task.answer(voted) for voted in task.vote(torch.zeros(len(rows), task.outputs))]
    assert task.score(answers, rows).metric == METRICS[kind][0]
    assert [task.score(answers, rows, m).metric for m in METRICS[kind]] == list(METRICS[kind])


def test_accuracy_is_the_share_of_rows_that_are_answered_with_their_label() -> None:
    task = Classification(("a", "b"))
    rows = [Row(f"r{i}", "s", "text", label) for i, label in enumerate("aab")]
    answers = [LabelPrediction(label, {}) for label in "aba"]
    score = task.score(answers, rows)
    assert (score.metric, score.value, score.higher_is_better) == ("accuracy", 1 / 3, True)
    assert score.low == pytest.approx(0.0615, abs=1e-3), "Wilson's interval of 1 in 3"
    assert score.high == pytest.approx(0.7923, abs=1e-3)


def test_hazard_14_any_number_of_labels_apply_each_by_itself() -> None:
    task = Multilabel(("a", "b", "c"))
    found = task.answer(task.vote(torch.tensor([[0.0, 3.0, -1.0]]))[0])
    assert found.labels == ("a", "b") and list(found.probabilities) == ["a", "b", "c"]
    assert task.answer(task.vote(torch.full((1, 3), -2.0))[0]).labels == ()
    assert found.document() == {"labels": ["a", "b"], "probabilities": found.probabilities}


def test_a_number_is_told_in_its_own_units_and_stays_in_its_range() -> None:
    task = Regression(-10.0, 30.0)
    assert task.targets([Row("r", "s", "t", "10")]) == [0.5]
    assert task.answer(torch.tensor([0.5])).document() == {"value": 10.0}
    assert [task.answer(v).value for v in task.vote(torch.tensor([[-4.0], [7.0]]))] == [-10, 30]


def test_shards_weigh_the_same_in_a_number() -> None:
    task = Regression(0.0, 10.0)
    votes = torch.stack([task.vote(torch.tensor([[part]])) for part in (0.0, 0.25, 0.5)])
    assert task.answer(votes.mean(0)[0]).value == 2.5


BITS = st.lists(st.tuples(*[st.sampled_from([0.0, 1.0])] * 3), min_size=2, max_size=8)


@settings(deadline=None, max_examples=30)
@given(BITS, st.randoms(use_true_random=False))
@pytest.mark.parametrize("average", ["micro", "macro"])
def test_f1_is_that_of_scikit_learn_over_labels_that_are_seen(
    average: str, rows: list[tuple[float, ...]], random: Random
) -> None:
    asked = numpy.array(rows)
    given_ = numpy.array([[random.choice([0.0, 1.0]) for _ in row] for row in rows])
    seen = (asked + given_).sum(axis=0) > 0
    expected = (
        f1_score(asked, given_, labels=numpy.flatnonzero(seen), average=average, zero_division=0.0)
        if seen.any()
        else 1.0
    )
    assert scored(f"{average}_f1", given_, asked).value == pytest.approx(float(expected))


@settings(deadline=None, max_examples=20)
@given(
    st.lists(
        st.tuples(st.floats(-100, 100, width=16), st.floats(-100, 100, width=16)),
        min_size=3,
        max_size=12,
    )
)
def test_correlations_are_those_of_scipy(pairs: list[tuple[float, float]]) -> None:
    given_, asked = (numpy.array(column) for column in zip(*pairs, strict=True))
    if len(set(given_)) == 1 or len(set(asked)) == 1:
        assert scored("pearson", given_, asked).value == 0
        return
    assert scored("pearson", given_, asked).value == pytest.approx(
        pearsonr(given_, asked).statistic, abs=1e-6
    )
    assert scored("spearman", given_, asked).value == pytest.approx(
        spearmanr(given_, asked).statistic, abs=1e-6
    )


def test_an_error_is_lower_when_it_is_better() -> None:
    score = scored("rmse", numpy.array([1.0, 5.0]), numpy.array([4.0, 5.0]))
    assert score.value == pytest.approx((9 / 2) ** 0.5) and not score.higher_is_better
    assert score.misses(2.0) and not score.misses(2.2)


def test_a_task_that_this_release_does_not_know_is_refused() -> None:
    with pytest.raises(GuaranteeError, match="poetry"):
        task_of(replace(RECIPE, task={"kind": "poetry"}))


RECIPE = Recipe(
    "m",
    "b",
    "t",
    ("yes", "no"),
    8,
    ((0,),),
    {},
    {"seed": 0},
    NumericProfile("2", "5", "0", "avx2", 1),
)


def test_the_task_of_a_recipe_is_made_of_its_literals() -> None:
    assert task_of(RECIPE) == Classification(("yes", "no"))
    assert task_of(replace(RECIPE, task={"kind": "multilabel"})) == Multilabel(("yes", "no"))
    number = replace(RECIPE, labels=(), task={"kind": "regression", "range": [0.0, 5.0]})
    assert task_of(number) == Regression(0.0, 5.0)


def test_a_task_decides_a_stage_key_and_travels_with_a_release() -> None:
    """Stages of two tasks, or of two ranges, have nothing in common; classification's keys and
    documents are those of before there were others."""
    told: dict[str, dict[str, object]] = {kind: {"kind": kind} for kind in TASKS}
    told |= {"classification": {}, "regression": {"kind": "regression", "range": [0.0, 5.0]}}
    recipes = {kind: replace(RECIPE, task=task) for kind, task in told.items()}
    narrow = replace(RECIPE, task={"kind": "regression", "range": [0.0, 4.0]})
    keys = {r.stage_key(0, (0,), ("d",), ()) for r in (*recipes.values(), narrow)}
    assert len(keys) == len(TASKS) + 1
    for kind, recipe in recipes.items():
        assert recipe_from_json(json.loads(json.dumps(recipe_to_json(recipe)))) == recipe
        assert kind_of(recipe_to_json(recipe)) == kind
    assert "task" not in recipe_to_json(RECIPE)


def test_the_recipe_of_a_config_names_the_task_and_its_literals() -> None:
    number = {"task": {"kind": "regression", "range": [0, 5]}}
    several = {"task": {"kind": "multilabel"}, "data": {"labels": ["a", "b"]}}
    plain = {"data": {"labels": ["a", "b"]}}
    pairs = {"data": {"labels": ["a", "b"], "text_pair": "other"}}
    found = [
        make_recipe(Config.model_validate(each), "m", "b", "t", 6, RECIPE.profile).task
        for each in (plain, several, number, pairs)
    ]
    assert found == [
        {},
        {"kind": "multilabel"},
        {"kind": "regression", "range": [0.0, 5.0]},
        {"kind": "classification", "pairs": True},
    ]
    by_f1 = Config.model_validate(several | {"task": {"kind": "multilabel", "metric": "macro_f1"}})
    again = make_recipe(by_f1, "m", "b", "t", 6, RECIPE.profile)
    assert again.task == {"kind": "multilabel"}, "how versions are measured decides no stage"
