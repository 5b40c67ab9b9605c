"""Signed documents are what their published schemas say: real ones of every kind, and no others."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from s3t_core.canonical import canonical_json
from s3t_core.erasure.evidence_documents import (
    CERTIFICATE_TYPE,
    CHECKPOINT_TYPE,
    CLOSING_TYPE,
    SCHEMAS,
    Part,
)
from tests.golden import GOLDEN

FOLDER = Path(__file__).parents[3] / "docs" / "schemas"
OF_TYPE = {
    CERTIFICATE_TYPE: "erasure-certificate.v1",
    CLOSING_TYPE: "request-closing.v1",
    CHECKPOINT_TYPE: "ledger-checkpoint.v1",
}


def _statements() -> Iterator[dict[str, Any]]:
    """Of every signed document that the golden history has."""
    for line in (*GOLDEN["documents"](), *GOLDEN["ledger"]()):
        document = json.loads(line)
        if isinstance(document, dict) and "payload" in document:
            yield json.loads(base64.b64decode(document["payload"]))


STATEMENTS = list(_statements())


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schema_is_the_documents_own(name: str) -> None:
    """To write them anew, on purpose: `SCHEMAS[name].model_json_schema()`, two spaces a level."""
    published = json.loads((FOLDER / f"{name}.json").read_text())
    assert published == SCHEMAS[name].model_json_schema()
    jsonschema.Draft202012Validator.check_schema(published)


def test_there_is_a_real_document_of_every_kind() -> None:
    assert {OF_TYPE[s["predicateType"]] for s in STATEMENTS} == set(SCHEMAS)


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: OF_TYPE[s["predicateType"]])
def test_a_real_document_is_one_by_its_schema_and_reads_back_to_the_same_bytes(
    statement: dict[str, Any],
) -> None:
    name = OF_TYPE[statement["predicateType"]]
    jsonschema.validate(statement, json.loads((FOLDER / f"{name}.json").read_text()))
    read = SCHEMAS[name].model_validate(statement)
    assert canonical_json(read.model_dump(mode="json", by_alias=True)) == canonical_json(statement)


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda s: OF_TYPE[s["predicateType"]])
def test_what_says_more_or_less_is_none(statement: dict[str, Any]) -> None:
    name = OF_TYPE[statement["predicateType"]]
    schema = json.loads((FOLDER / f"{name}.json").read_text())
    predicate = statement["predicate"]
    for other in (
        predicate | {"person": "somebody"},
        *({k: v for k, v in predicate.items() if k != left} for left in predicate),
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(statement | {"predicate": other}, schema)


def test_every_part_is_told_in_a_sentence() -> None:
    def parts(kind: type[Part]) -> Iterator[type[Part]]:
        for each in kind.__subclasses__():
            yield each
            yield from parts(each)

    assert not [each.__name__ for each in parts(Part) if not (each.__doc__ or "").strip()]
