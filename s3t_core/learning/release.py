"""A release as a document: what travels in a model version and stands in the ledger.

It names every live stage by key and digest and carries the recipe, so that whoever loads the version knows how to
build the ensemble and can check the backbone. It holds no weights and nothing of any record.
"""

from dataclasses import asdict
from typing import Any

from s3t_core.domain import Release
from s3t_core.errors import GuaranteeError
from s3t_core.learning.recipe import NumericProfile, Recipe
from s3t_core.release_json import release_from_json

FORMAT = "s3t-release/1"


def parse_release_document(document: dict[str, Any]) -> tuple[Release, Recipe]:
    """Release and recipe of a version's release.json. Raises GuaranteeError for another format."""
    if document.get("format") != FORMAT:
        raise GuaranteeError(f"expected a release in the format {FORMAT}, got {document.get('format')!r}")
    return release_from_json(document["release"]), recipe_from_json(document["recipe"])


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON values."""
    return asdict(recipe) | {"labels": list(recipe.labels), "blocks": [list(b) for b in recipe.blocks],
                             "adapter": dict(recipe.adapter), "training": dict(recipe.training)}


def recipe_from_json(value: dict[str, Any]) -> Recipe:
    """The inverse of `recipe_to_json`."""
    return Recipe(**(value | {"labels": tuple(value["labels"]), "blocks": tuple(tuple(b) for b in value["blocks"]),
                              "profile": NumericProfile(**value["profile"])}))
