"""What a served model is asked with: the texts of the named column, or a sentence; never "the
first" column."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from s3t_core.errors import DataError
from s3t_core.learning.payload import texts_of

TWO = ["kara kale", "tura tule"]
SECRET = "a very secret text"


@pytest.mark.parametrize(
    "asked",
    [
        TWO,
        tuple(TWO),
        pd.Series(TWO),
        pd.Series(TWO, index=[7, 7]),
        pd.Series(TWO, dtype="string"),
        np.array(TWO),
        np.array(TWO, dtype=object),
        np.array([[t] for t in TWO]),
        [[t] for t in TWO],
        iter(TWO),
        pd.DataFrame({"rid": ["r1", "r2"], "body": TWO}),
        pd.DataFrame({"body": TWO, "rid": [1, None]}),
        pd.DataFrame({"else": TWO}),
        pd.DataFrame(TWO),
        pd.DataFrame({"rid": [1, 2], "body": TWO}).set_index("rid"),
        {"body": TWO, "rid": ["r1"]},
        {"body": np.array(TWO)},
        {"else": TWO},
        {"body": [[t] for t in TWO]},
        [{"rid": "r1", "body": TWO[0]}, {"body": TWO[1], "rid": "r2"}],
        [{"else": t} for t in TWO],
        np.array([{"rid": 1, "body": t} for t in TWO]),
        [{"rid": np.array(1), "body": np.array(t)} for t in TWO],
    ],
)
def test_the_texts_are_those_of_the_named_column_or_of_the_only_one(asked: Any) -> None:
    assert texts_of(asked, "body") == TWO


@pytest.mark.parametrize(
    "asked",
    [
        TWO[0],
        np.array(TWO[0]),
        {"body": TWO[0]},
        {"body": TWO[0], "rid": "r1"},
        {"body": np.array(TWO[0])},
        np.str_(TWO[0]),
    ],
)
def test_one_text_is_one_row(asked: Any) -> None:
    assert texts_of(asked, "body") == TWO[:1]


@pytest.mark.parametrize(
    "asked",
    [
        [],
        (),
        pd.DataFrame(),
        pd.DataFrame({"body": []}),
        pd.Series([], dtype=object),
        pd.DataFrame({"rid": [], "other": []}),
        np.array([]),
        {"body": []},
    ],
)
def test_nothing_is_no_row(asked: Any) -> None:
    assert texts_of(asked, "body") == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (pd.DataFrame({"rid": ["r1"], "other": [SECRET]}), "got 2 columns without it"),
        (pd.DataFrame([["r1", SECRET]]), "got 2 columns without it"),
        (pd.DataFrame([[SECRET, SECRET]], columns=["body", "body"]), "several of its name"),
        ({"rid": ["r1"], "Body": [SECRET]}, "got 2 columns without it"),
        ([{"rid": "r1", "other": SECRET}], "got 2 columns without it"),
        ({}, "got 0 columns"),
        (np.array([["r1", SECRET]]), "a row of 2 cells"),
        ([["r1", SECRET]], "a row of 2 cells"),
        ([[]], "a row of 0 cells"),
        ([SECRET, None], "row 2: a missing value"),
        ([SECRET, float("nan")], "row 2: a missing value"),
        (pd.Series([SECRET, pd.NA], dtype="string"), "row 2: a missing value"),
        ([SECRET, pd.NaT], "row 2: a missing value"),
        (pd.DataFrame({"body": [SECRET, None]}), "row 2: a missing value"),
        ([SECRET, 7], "row 2: a value of the type int"),
        ([SECRET, True], "type bool"),
        ([SECRET, SECRET.encode()], "type bytes"),
        ([SECRET, [["x"]]], "type list"),
        ([SECRET, "\ud83d"], "half a surrogate"),
        (None, "got NoneType"),
        (SECRET.encode(), "got bytes"),
        (7, "got int"),
        ({"body": {"0": SECRET}}, "type dict"),
        ({"body": None}, "a missing value"),
        (pd.DataFrame(index=[1, 2]), "got 0 columns"),
    ],
)
def test_what_is_no_text_is_refused_in_a_sentence_that_does_not_quote_it(
    asked: Any, said: str
) -> None:
    with pytest.raises(DataError, match=said) as refused:
        texts_of(asked, "body")
    assert SECRET not in str(refused.value) and "r1" not in str(refused.value)


def test_without_a_name_only_a_single_column_is_taken() -> None:
    assert texts_of(pd.DataFrame({"x": TWO})) == TWO
    with pytest.raises(DataError, match="expected one column"):
        texts_of(pd.DataFrame({"text": TWO, "rid": TWO}))
