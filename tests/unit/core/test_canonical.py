"""Canonical JSON is the library's, byte for byte, whichever way it is made."""

import math
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s3t_core.canonical import canonical_json

NUMBERS = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.sampled_from(
        [
            0.0,
            -0.0,
            1e-4,
            9.999e-5,
            1e16,
            1e15 + 0.5,
            5e-324,
            1e21,
            1e20,
            0.1 + 0.2,
            123456789.5,
            2.0**53,
        ]
    )
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=500)
@given(VALUES)
@example({"\U0001f600": 1, "\uffff": 2, 'a\u2028\x7f\x1f"\\/': [(), 1.0]})
def test_it_is_what_the_library_writes(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, 2**53, {1: 2}, object(), "\ud800", {"\ud800": 1}, {b"x": 1}]
)
def test_what_the_library_refuses_is_refused(value: Any) -> None:
    with pytest.raises(Exception) as theirs:
        rfc8785.dumps(value)
    with pytest.raises(type(theirs.value)):
        canonical_json(value)
