"""The column that says what a row asks for, for each task: what its cells mean, and why one is
refused."""

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.adapters.sources import read_chunks
from flows.adapters.sources.cells import MALFORMED
from flows.adapters.sources.source import Source
from flows.adapters.sources.targets import (
    NO_LIST,
    NO_NUMBER,
    ONE_NOT_DECLARED,
    OUTSIDE,
    LabelSets,
    Numbers,
)
from flows.adapters.validation import RowValidator
from s3t_core.config import DataConfig
from s3t_core.config.task import TaskConfig
from s3t_core.errors import DataError
from s3t_core.targets import label_set_of, label_set_text, number_of, number_text

LABELS = ("up", "down", "new one")


@pytest.mark.parametrize(
    ("written", "spelt"),
    [
        ('["down","up"]', '["up","down"]'),
        ('["up", "up"]', '["up"]'),
        ("[]", "[]"),
        ("up", '["up"]'),
        ("['up', 'new one']", '["up","new one"]'),
        (' ["up"]', '["up"]'),
    ],
)
def test_a_set_of_labels_has_one_spelling(written: str, spelt: str) -> None:
    reading = LabelSets(LABELS)
    assert reading.of([written, None]) == [spelt, None]
    assert reading.problem(spelt) == ""


@pytest.mark.parametrize(
    ("written", "spelt"),
    [
        ("up;down", '["up","down"]'),
        (" down ; up;", '["up","down"]'),
        ("new one", '["new one"]'),
        ('["up"]', '["up"]'),
    ],
)
def test_labels_may_stand_between_separators(written: str, spelt: str) -> None:
    assert LabelSets(LABELS, ";").of([written]) == [spelt]


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("sideways", ONE_NOT_DECLARED),
        ('["up", "sideways"]', ONE_NOT_DECLARED),
        ("up;down", ONE_NOT_DECLARED),  # no separator was declared
        ('["up"', NO_LIST),
        ('["up", null]', NO_LIST),
        ('["up", ["down"]]', NO_LIST),
        ('["up", ""]', NO_LIST),
        ("[" * 10_000, NO_LIST),
        ("[" + "1," * 10_001 + "1]", NO_LIST),
    ],
    ids=lambda v: v[:12],
)
def test_what_is_no_set_of_declared_labels_is_refused_and_stays_as_it_is(
    written: str, why: str
) -> None:
    reading = LabelSets(LABELS)
    assert reading.of([written]) == [written] and reading.problem(written) == why


@pytest.mark.parametrize("written", [";", " ; "])
def test_separators_alone_are_no_labels(written: str) -> None:
    """A row to which no label applies says so: []."""
    assert LabelSets(LABELS, ";").problem(written) == NO_LIST


def test_labels_of_a_list_may_be_spelt_as_numbers_and_truth_values() -> None:
    reading = LabelSets(("0", "1", "2"))
    assert reading.of(["[1, 2.0]", "[true]"]) == ['["1","2"]', '["1"]']
    assert sum(reading.read_as.values()) == 1


@given(st.lists(st.sampled_from(LABELS)), st.sampled_from([json.dumps, repr]))
def test_a_spelling_is_that_of_the_set_whatever_its_order(labels: list[str], write: object) -> None:
    assert callable(write)
    (spelt,) = LabelSets(LABELS).of([write(labels)])
    assert spelt == label_set_text(labels[::-1], LABELS)
    assert set(label_set_of(str(spelt))) == set(labels)


@pytest.mark.parametrize(
    ("written", "spelt"),
    [("3", "3"), ("3.0", "3"), ("3.50", "3.5"), ("1e0", "1"), (" 2 ", "2"), ("-0.0", "0")],
)
def test_a_number_has_one_spelling(written: str, spelt: str) -> None:
    reading = Numbers(-5, 5)
    assert reading.of([written, None]) == [spelt, None] and reading.problem(spelt) == ""


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("nan", NO_NUMBER),
        ("inf", NO_NUMBER),
        ("1e999999999", NO_NUMBER),
        ("3,5", NO_NUMBER),
        ("three", NO_NUMBER),
        ("٣", NO_NUMBER),
        ("1_0", NO_NUMBER),
        ("0x10", NO_NUMBER),
        ("5.0000001", OUTSIDE),
        ("-6", OUTSIDE),
    ],
)
def test_what_is_no_number_within_the_range_is_refused_and_stays_as_it_is(
    written: str, why: str
) -> None:
    reading = Numbers(-5, 5)
    assert reading.of([written]) == [written] and reading.problem(written) == why


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_survives_its_spelling(value: float) -> None:
    assert number_of(number_text(value)) == value
    assert number_text(number_of(number_text(value))) == number_text(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_has_no_spelling(value: float) -> None:
    with pytest.raises(DataError, match="finite"):
        number_text(value)


def test_a_label_that_is_not_declared_has_no_spelling() -> None:
    with pytest.raises(DataError, match="1 other") as told:
        label_set_text(["up", "secret"], LABELS)
    assert "secret" not in str(told.value)


MANY = TaskConfig(kind="multilabel")
STARS = TaskConfig(kind="regression", range=(0.0, 5.0))


def _rows(path: Path, task: TaskConfig, labels: tuple[str, ...] = LABELS) -> pd.DataFrame:
    return pd.concat(list(Source([str(path)], DataConfig(labels=labels), "", task).chunks()))


def _refusals(frame: pd.DataFrame, task: TaskConfig, labels: tuple[str, ...]) -> list[list[str]]:
    found = RowValidator(DataConfig(labels=labels), labels, None, task).check(frame)
    return [found.refused.get(n, []) for n in range(1, len(frame) + 1)]


def test_lists_in_json_and_parquet_are_read_alike(tmp_path: Path) -> None:
    lists = [["down", "up"], [], ["new one"], ["sideways"], None, [["up"]]]
    rows = [{"text": f"t{i}", "subject": f"s{i}", "label": each} for i, each in enumerate(lists)]
    lines = tmp_path / "a.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = tmp_path / "a.parquet"
    pd.DataFrame(rows[:5]).to_parquet(columns)
    found = _rows(lines, MANY)
    assert found["label"].tolist()[:5] == [
        '["up","down"]',
        "[]",
        '["new one"]',
        '["sideways"]',
        None,
    ]
    assert [bool(m) for m in found[MALFORMED]] == [False] * 5 + [True]
    assert _rows(columns, MANY)["label"].tolist() == found["label"].tolist()[:5]
    assert _refusals(found, MANY, LABELS)[:5] == [
        [],
        [],
        [],
        [ONE_NOT_DECLARED],
        ["the label is missing"],
    ]


def test_numbers_are_read_whatever_they_are_written_as(tmp_path: Path) -> None:
    values = [1, 2.5, "3.50", float("nan"), "7", None, "many"]
    rows = [{"text": f"t{i}", "subject": f"s{i}", "label": v} for i, v in enumerate(values)]
    lines = tmp_path / "a.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = _rows(lines, STARS, ())
    assert found["label"].tolist() == ["1", "2.5", "3.5", None, "7", None, "many"]
    missing = ["the label is missing"]
    assert _refusals(found, STARS, ()) == [[], [], [], missing, [OUTSIDE], missing, [NO_NUMBER]]
    floats = tmp_path / "a.parquet"
    pd.DataFrame({"text": "t", "subject": "s", "label": [1.0, 0.1]}).astype(
        {"label": "float32"}
    ).to_parquet(floats)
    assert [number_of(v) for v in _rows(floats, STARS, ())["label"]] == pytest.approx([1, 0.1])


def test_a_list_where_one_label_is_asked_for_says_which_task_takes_it(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_text(json.dumps({"text": "t", "subject": "s", "label": ["up"]}) + "\n")
    (frame,) = read_chunks(str(lines), DataConfig(labels=LABELS))
    assert "multilabel" in frame[MALFORMED].iloc[0]


@settings(max_examples=300, deadline=None)
@given(st.text("[]{}()'\",:ab1.-", max_size=12))
@example("[{[]}]")
@example("[{{}}]")
@example("{[]: 1}")
def test_no_cell_whatever_it_holds_ends_more_than_its_row(written: str) -> None:
    reading = LabelSets(LABELS)
    [spelt] = reading.of([written])
    assert isinstance(reading.problem(str(spelt)), str)
