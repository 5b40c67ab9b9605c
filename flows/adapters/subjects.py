"""Ids of a source that may not be what they seem: two spellings of one person, or no id at all.
They only warn: the system takes every id as it is."""

from typing import Any

import numpy as np
import pandas as pd

from flows.adapters.sources.cells import GIVEN, GIVEN_RECORD
from s3t_core.config import DataConfig
from s3t_core.identity import folded, looks_like_a_float, looks_missing, spelt_under

UNITED = (
    "ids that differ from another one only in letter case, blanks, Unicode form or .0: two people "
    "to the system; where they are one, say so by [data] id_rule before the first ingest"
)
MISSING = (
    "ids that look like a missing value (nan, None, NULL, N/A, ...): whoever has one is one person "
    "to the system"
)
FLOATS = "ids that are whole numbers with .0: who asks with the number alone is not found"


class Spellings:
    """Looks at the ids of a source, chunk by chunk, and keeps two numbers of 8 bytes for each that
    a chunk brings."""

    def __init__(self) -> None:
        self._seen: list[Any] = []
        self._missing: set[str] = set()
        self._floats: list[Any] = []

    def add(self, subjects: "pd.Series[str]") -> None:
        """The ids of admitted rows."""
        distinct = subjects.unique()
        forms = np.array([folded(s) for s in distinct], dtype=object)
        if not len(distinct):
            return
        self._seen.append(np.stack([pd.util.hash_array(forms), pd.util.hash_array(distinct)]))
        self._missing.update(s for s in distinct if looks_missing(s))
        self._floats.append(
            pd.util.hash_array(
                np.array([s for s in distinct if looks_like_a_float(s)], dtype=object)
            )
        )

    def warned(self) -> dict[str, int]:
        """Counts of distinct ids, by what is odd about them."""
        if not self._seen:
            return {}
        pairs = np.unique(np.concatenate(self._seen, axis=1), axis=1)
        spellings = pairs.shape[1] - len(np.unique(pairs[0]))
        floats = len(np.unique(np.concatenate(self._floats)))
        return {UNITED: int(spellings), MISSING: len(self._missing), FLOATS: floats}


def with_given(chunk: pd.DataFrame, raw: pd.DataFrame, config: DataConfig) -> pd.DataFrame:
    """A chunk with its ids as the source has them beside those under the rule; "" where a record
    has none."""
    records = raw[config.record].fillna("") if config.record else ""
    return chunk.assign(**{GIVEN: raw[config.subject], GIVEN_RECORD: records})


def under_the_rule(chunk: pd.DataFrame, config: DataConfig) -> Any:
    """A chunk with its ids as [data] id_rule writes them; one of which nothing is left is
    missing."""
    columns = (
        dict.fromkeys([config.subject, config.record, config.split_by]) if config.id_rule else {}
    )
    chunk = chunk.copy(deep=False)
    for c in filter(None, columns):
        spelt = {
            each: spelt_under(config.id_rule, each) or None for each in chunk[c].dropna().unique()
        }
        chunk[c] = chunk[c].map(spelt).astype(object).where(chunk[c].notna(), None)
    return chunk
