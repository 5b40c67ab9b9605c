"""What every task promises, and what classification answers."""

import pytest
import torch

from s3t_core.domain import Score
from s3t_core.errors import DataError
from s3t_core.learning.recipe import NumericProfile, Recipe
from s3t_core.learning.tasks import Task, task_of
from s3t_core.learning.tasks.classification import Classification
from s3t_core.learning.tasks.task import Prediction
from s3t_core.records import Row

HIDDEN = 4
TASKS: dict[str, tuple[Task, list[Row]]] = {
    "classification": (
        Classification(("a", "b", "c")),
        [Row(f"r{i}", "s", f"text {i}", "abc"[i % 3]) for i in range(6)],
    )
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
    """Hazard 10: what a row teaches is told by itself, whatever stands beside it."""
    task, rows = case
    torch.manual_seed(0)
    made, targets = torch.randn(len(rows), task.outputs), torch.tensor(task.targets(rows))
    alone = [task.loss(made[i : i + 1], targets[i : i + 1]) for i in range(len(rows))]
    assert torch.allclose(task.loss(made, targets), torch.stack(alone).mean())


def test_what_a_row_asks_for_does_not_depend_on_the_others(case: tuple[Task, list[Row]]) -> None:
    task, rows = case
    assert [task.targets([row])[0] for row in rows] == task.targets(rows)
    assert task.targets([]) == []


def test_a_vote_is_made_row_by_row(case: tuple[Task, list[Row]]) -> None:
    task, rows = case
    made = torch.randn(len(rows), task.outputs, generator=torch.Generator().manual_seed(0))
    votes = task.vote(made)
    assert votes.shape == made.shape
    assert all(torch.allclose(task.vote(made[i : i + 1])[0], votes[i]) for i in range(len(rows)))


def test_a_label_that_is_not_declared_is_refused_without_a_word_of_it() -> None:
    task = Classification(("a", "b"))
    with pytest.raises(DataError, match="1 other") as told:
        task.targets([Row("r", "s", "text", "a"), Row("q", "s", "text", "a secret")])
    assert "secret" not in str(told.value)


def test_probabilities_sum_to_one_and_the_first_of_equals_answers() -> None:
    task = Classification(("a", "b", "c"))
    voted = task.vote(torch.zeros(1, 3))[0]
    found = task.answer(voted)
    assert found.label == "a" and list(found.probabilities) == ["a", "b", "c"]
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert task.answer(torch.tensor([0.2, 0.5, 0.3])).label == "b"


def test_a_score_has_a_metric_and_counts_what_right_counts(case: tuple[Task, list[Row]]) -> None:
    task, rows = case
    made = torch.randn(len(rows), task.outputs, generator=torch.Generator().manual_seed(0))
    answers = [task.answer(voted) for voted in task.vote(made)]
    score = task.score(answers, rows)
    assert score.metric
    if score.metric == "accuracy":
        assert score.value == task.right(made, torch.tensor(task.targets(rows))) / len(rows)


def test_accuracy_is_the_share_of_rows_that_are_answered_with_their_label() -> None:
    task = Classification(("a", "b"))
    rows = [Row(f"r{i}", "s", "text", label) for i, label in enumerate("aab")]
    answers = [Prediction(label, {}) for label in "aba"]
    assert task.score(answers, rows) == Score("accuracy", 1 / 3)


def test_right_are_the_rows_whose_likeliest_label_is_their_own() -> None:
    task = Classification(("a", "b"))
    made = torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    assert task.right(made, torch.tensor([0, 1, 1])) == 2


def test_the_task_of_a_recipe_is_made_of_its_labels() -> None:
    profile = NumericProfile("2", "5", "0", "avx2", 1)
    recipe = Recipe("m", "b", "t", ("yes", "no"), 8, ((0,),), {}, {"seed": 0}, profile)
    assert task_of(recipe) == Classification(("yes", "no"))
