"""Sources: decoding by column says what decoding row by row says, and every row keeps its place."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.adapters.sources import GIVEN, MALFORMED, ROW, read_chunks
from s3t_core.config import DataConfig, TiersConfig

_ROWS = st.lists(
    st.sampled_from(["fine", "empty", "not utf-8", "short", "long", "accent", "quoted"]),
    min_size=1,
    max_size=12,
)
_LINES = {
    "fine": b"s,some text,a",
    "empty": b"s,,a",
    "not utf-8": b"s,\xff\xfe,a",
    "short": b"s,a",
    "long": b"s,t,a,b",
    "accent": "s,\u00e9t\u00e9,a".encode(),
    "quoted": b's,"one\ntwo",a',
}
_READ = {
    "fine": ("some text", ""),
    "empty": (None, ""),
    "not utf-8": ("\\xff\\xfe", "column 'text' is not UTF-8"),
    "short": (None, "the row has more or fewer cells than the header"),
    "long": (None, "the row has more or fewer cells than the header"),
    "accent": ("\u00e9t\u00e9", ""),
    "quoted": ("one\ntwo", ""),
}


@settings(
    max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(kinds=_ROWS, chunk_rows=st.integers(1, 5))
def test_every_row_keeps_its_place_and_reason_in_chunks_of_any_size(
    tmp_path: Path, kinds: list[str], chunk_rows: int
) -> None:
    source = tmp_path / "source.csv"
    source.write_bytes(b"subject,text,label\n" + b"".join(_LINES[k] + b"\n" for k in kinds))
    frame = pd.concat(list(read_chunks(str(source), DataConfig(labels=("a", "b")), chunk_rows)))
    assert frame[ROW].tolist() == list(range(1, len(kinds) + 1))
    assert list(zip(frame["text"].tolist(), frame[MALFORMED].tolist(), strict=True)) == [
        _READ[k] for k in kinds
    ]


@pytest.mark.parametrize("spoilt", [False, True])
def test_parquet_by_column_says_what_row_by_row_says(tmp_path: Path, spoilt: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array([b"one", b"", None, b"\xff" if spoilt else b"four"], pa.binary())
    table = pa.table({"subject": ["s"] * 4, "text": texts, "label": ["a"] * 4})
    pq.write_table(table, tmp_path / "source.parquet")
    frame = pd.concat(
        list(read_chunks(str(tmp_path / "source.parquet"), DataConfig(labels=("a", "b")), 3))
    )
    assert frame["text"].tolist() == ["one", None, None, "\\xff" if spoilt else "four"]
    assert frame[MALFORMED].tolist() == ["", "", "", "column 'text' is not UTF-8" if spoilt else ""]


@pytest.mark.parametrize("own", [ROW, MALFORMED, GIVEN])
def test_no_column_of_a_source_has_a_name_of_the_system_s_own(own: str) -> None:
    for role in ("text", "label", "subject", "record", "held_out_by"):
        with pytest.raises(ValueError, match="without a NUL"):
            DataConfig(**{role: own})
    with pytest.raises(ValueError, match="without a NUL"):
        TiersConfig(column=own)


@pytest.mark.parametrize("name", ["row", "malformed", "given"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("role", ["text", "label", "subject"])
def test_a_column_with_a_plain_word_for_a_name_is_read_as_it_is(
    tmp_path: Path, name: str, ending: str, role: str
) -> None:
    row = {
        {role: name}.get(c, c): value
        for c, value in (("text", "hello"), ("label", "a"), ("subject", "anna"))
    }
    frame = pd.DataFrame([row])
    path = tmp_path / f"people.{ending}"
    write = {
        "csv": lambda: frame.to_csv(path, index=False),
        "parquet": lambda: frame.to_parquet(path),
        "jsonl": lambda: frame.to_json(path, orient="records", lines=True),
    }
    write[ending]()
    read = pd.concat(list(read_chunks(str(path), DataConfig(labels=("a", "b"), **{role: name}))))
    assert {c: read[c].tolist() for c in row} == {c: [value] for c, value in row.items()}
    assert (read[ROW].tolist(), read[MALFORMED].tolist()) == ([1], [""])
