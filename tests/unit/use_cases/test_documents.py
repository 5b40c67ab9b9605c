"""What commands say has the members of what it is made of."""

from dataclasses import fields
from typing import get_type_hints

import pytest

from flows.use_cases.documents import IngestDocument, TrainingDocument
from flows.use_cases.ingesting import IngestReport
from flows.use_cases.training import TrainReport


@pytest.mark.parametrize(
    ("document", "report"), [(IngestDocument, IngestReport), (TrainingDocument, TrainReport)]
)
def test_a_document_says_what_its_report_does(document: type, report: type) -> None:
    """Member by member, with their types; others may come beside them, where not every command has
    them."""
    told, made = get_type_hints(document), get_type_hints(report)
    required = document.__required_keys__  # type: ignore[attr-defined]
    assert required == {f.name for f in fields(report)}
    assert {name: told[name] for name in required} == made
