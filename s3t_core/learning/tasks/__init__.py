"""Tasks: what a row asks for, and what an answer is. One file each.

A task decides the head of a stage, the targets of rows, the loss, what a shard contributes to an
answer and how well one answers. What lies below (backbone, adapters, batches, seeds) is the same
for all. A task stands in a stage's key by what it is made of; classification, which came first, by
its labels alone.
"""

import torch

from s3t_core.errors import GuaranteeError
from s3t_core.learning.recipe import Recipe
from s3t_core.learning.tasks.classification import Classification
from s3t_core.learning.tasks.generation import Generation
from s3t_core.learning.tasks.multilabel import Multilabel
from s3t_core.learning.tasks.regression import Regression
from s3t_core.learning.tasks.task import Task

__all__ = ["Task", "task_of", "writes_text"]


def writes_text(recipe: Recipe) -> bool:
    """Whether the backbone's own words are the answer."""
    return recipe.task.get("kind") == "generation"


def task_of(recipe: Recipe, words: torch.nn.Module | None = None) -> Task:
    """The task that a recipe's stages are trained for. `words`: the head of a language model, for
    generation. Raises GuaranteeError for one that this release of the software does not know."""
    kind = recipe.task.get("kind", "classification")
    if kind == "classification":
        return Classification(recipe.labels)
    if kind == "multilabel":
        return Multilabel(recipe.labels)
    if kind == "regression":
        low, high = recipe.task["range"]
        return Regression(low, high)
    if kind == "generation":
        return Generation(words)
    raise GuaranteeError(
        f"expected a task that this release of the software knows, got {kind!r}; use the release "
        "that trained it"
    )
