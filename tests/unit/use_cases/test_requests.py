"""What `s3t request` says of an idempotency key whose request is closed."""

from typing import Any

import pytest

from flows.use_cases.taking import render_ended


def _document(state: str, found: str) -> Any:
    return {
        "requests": [{"id": "req-1", "state": state}, {"id": "req-2", "state": "pending"}],
        "found": [
            {"request": "req-1", "found": found},
            {"request": "req-2", "found": "in the data"},
        ],
    }


@pytest.mark.parametrize("state", ["withdrawal", "rejection"])
@pytest.mark.parametrize("found", ["in the data", "nobody", "not told"])
def test_what_was_taken_back_is_not_pending(state: str, found: str) -> None:
    assert "withdrawn or rejected" in render_ended(_document(state, found), "")


@pytest.mark.parametrize("state", ["erased", "nothing found"])
def test_who_was_erased_and_is_in_the_data_again_is_not_asked_for(state: str) -> None:
    assert "in the data again" in render_ended(_document(state, "in the data"), "")


@pytest.mark.parametrize("record", ["", "row 4"])
def test_what_was_erased_and_let_in_again_is_not_asked_for(record: str) -> None:
    """One record as well as a whole person."""
    document = _document("erased", "in the data")
    document["requests"][0]["lifted"] = True
    assert "may come in again" in render_ended(document, record)
    document["requests"][0]["lifted"] = False
    assert "may come in again" not in render_ended(document, record)


@pytest.mark.parametrize(
    ("state", "found", "record"),
    [
        ("erased", "nobody", ""),
        ("erased", "nearly", ""),
        ("erased", "not told", ""),
        ("erased", "in the data", "row 4"),  # their other rows are
        ("pending", "in the data", ""),
        ("erasing", "in the data", ""),
    ],
)
def test_what_is_pending_or_done_is_well(state: str, found: str, record: str) -> None:
    assert render_ended(_document(state, found), record) == ""
