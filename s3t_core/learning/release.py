"""A release as a document: what travels in a model version and stands in the ledger.

It names every live stage by key and digest and carries the recipe, so that whoever loads the
version knows how to build the ensemble and can check the backbone. It holds no weights and nothing
of any record.

A release is of one recipe, and so of one numeric profile: every stage's key is the one that the
recipe gives it. That is checked where a release is built from stages (training, replacement,
repair) and where one is loaded. An erasure only takes stages away, and its cut-over is never
refused for this: what serves a mixture must not go on serving what is to be erased.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from s3t_core.domain import Release
from s3t_core.errors import GuaranteeError
from s3t_core.learning.recipe import NumericProfile, Recipe
from s3t_core.release_json import release_from_json

FORMAT = "s3t-release/2"


def parse_release_document(document: dict[str, Any]) -> tuple[Release, Recipe]:
    """Release and recipe of a version's release.json. Raises GuaranteeError for another format, or
    for stages that are not of that recipe."""
    if document.get("format") != FORMAT:
        raise GuaranteeError(
            f"expected a release in the format {FORMAT}, got {document.get('format')!r}; run "
            "`s3t retrain` with this release of the software"
        )
    release, recipe = release_from_json(document["release"]), recipe_from_json(document["recipe"])
    check_one_recipe(release, recipe)
    return release, recipe


def check_one_recipe(release: Release, recipe: Recipe) -> None:
    """Compute every stage's key anew. Raises GuaranteeError when one is not the recipe's: it was
    trained with other settings, on another backbone or under another numeric profile."""
    for replica in release.replicas:
        earlier: tuple[str | None, ...] = (None,) * (
            replica.stages[0].index - 1 if replica.stages else 0
        )  # void
        for stage in replica.stages:
            expected = recipe.stage_key(
                stage.shard,
                stage.prefix,
                stage.slice_digests,
                earlier,
            )
            if stage.key != expected:
                raise GuaranteeError(
                    "expected every stage of a release to be of its one recipe and numeric "
                    f"profile, got one that is not (shard {stage.shard}, stage {stage.index}: key "
                    f"{stage.key[:16]}..., by the recipe {expected[:16]}...); run `s3t retrain`"
                )
            earlier = (*earlier, stage.key)


def kind_of(recipe: Mapping[str, Any]) -> str:
    """The kind of task that a recipe, as JSON values, is for."""
    return str(recipe.get("task", {}).get("kind", "classification"))


def recipe_to_json(recipe: Recipe) -> dict[str, object]:
    """A recipe as JSON values."""
    document = asdict(recipe) | {
        "labels": list(recipe.labels),
        "blocks": [list(b) for b in recipe.blocks],
        "adapter": dict(recipe.adapter),
        "training": dict(recipe.training),
        "task": dict(recipe.task),
    }
    if not recipe.task:
        del document["task"]
    return document


def recipe_from_json(value: dict[str, Any]) -> Recipe:
    """The inverse of `recipe_to_json`."""
    parts = {
        "labels": tuple(value["labels"]),
        "blocks": tuple(tuple(block) for block in value["blocks"]),
        "profile": NumericProfile(**value["profile"]),
    }
    return Recipe(**({"method": ""} | value | parts))
