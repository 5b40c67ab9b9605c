"""One spelling for each type of id, the same from every kind of file, or a refusal (edges E1)."""

import datetime
import json
import math
import sys
import unicodedata
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.adapters.sources import MALFORMED, Source, read_chunks
from flows.adapters.sources.cells import cell_text
from flows.adapters.subjects import FLOATS, MISSING, UNITED, Spellings
from flows.use_cases.checking import check
from s3t_core.config import Config, DataConfig
from s3t_core.identity import STEPS, IdStep, NotAnId, folded, id_text, spelt_under

ONE = uuid.UUID("0F8FAD5B-D9CB-469F-A165-70867728950E")
BERLIN = datetime.timezone(datetime.timedelta(hours=2))
NOON = datetime.datetime(2026, 11, 26, 12, 30)


@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_a_whole_number_has_one_spelling_whatever_its_type(number: int) -> None:
    assert {
        id_text(v)
        for v in (number, float(number), Decimal(number), Decimal(f"{number}.00"), str(number))
    } == {str(number)}


@given(
    st.floats()
    | st.decimals(-(10**20), 10**20)
    | st.sampled_from([Decimal(n) for n in ("NaN", "sNaN", "Infinity")])
)
def test_any_other_number_is_refused(number: float | Decimal) -> None:
    try:
        told = id_text(number)
    except NotAnId as error:
        assert str(number) not in str(error)
    else:
        assert told is None or (
            int(told) == number and (isinstance(number, Decimal) or abs(number) < 2**53)
        )


@pytest.mark.parametrize(
    ("column", "spelt"),
    [
        (pa.array([1018], pa.int64()), "1018"),
        (pa.array([1018], pa.uint16()), "1018"),
        (pa.array([1018.0], pa.float64()), "1018"),
        (pa.array([Decimal(1018)], pa.decimal128(38, 0)), "1018"),
        (pa.array([Decimal("1018.00")], pa.decimal128(20, 2)), "1018"),
        (pa.array([Decimal(2**63)], pa.decimal256(60, 0)), str(2**63)),
        (pa.array([ONE.bytes], pa.uuid()), str(ONE)),
        (pa.array([NOON.date()], pa.date32()), "2026-11-26"),
        (pa.array([NOON.date()], pa.date64()), "2026-11-26"),
        (pa.array([NOON], pa.timestamp("us")), "2026-11-26T12:30:00"),
        (pa.array([NOON], pa.timestamp("ns")), "2026-11-26T12:30:00"),
        (
            pa.array([NOON.replace(tzinfo=BERLIN)], pa.timestamp("ms", "Europe/Berlin")),
            "2026-11-26T10:30:00Z",
        ),
        (pa.array(["anna"], pa.dictionary(pa.int8(), pa.string())), "anna"),
        (pa.array(["anna"], pa.string_view()), "anna"),
    ],
)
def test_parquet_ids_are_written_as_anybody_would(
    tmp_path: Path, column: pa.Array, spelt: str
) -> None:
    assert _subjects(tmp_path, column) == [(spelt, "")]


@pytest.mark.parametrize(
    ("column", "what"),
    [
        (pa.array([1018.5]), "a number that is not whole"),
        (pa.array([2.0**53]), "a float of 2^53"),
        (pa.array([float("inf")]), "a number that is not whole"),
        (pa.array([Decimal("0.5")], pa.decimal128(5, 1)), "a number that is not whole"),
        (pa.array([True]), "true or false"),
        (pa.array([["anna"]]), "a list"),
        (pa.array([{"id": "anna"}]), "an object"),
        (pa.array([NOON.time()]), "type time"),
        (pa.array([datetime.timedelta(1)]), "type "),
        (pa.array([b"\xff" * 16], pa.binary(16)), "not UTF-8"),
    ],
)
def test_parquet_ids_that_name_nobody_for_sure_are_refused(
    tmp_path: Path, column: pa.Array, what: str
) -> None:
    ((subject, malformed),) = _subjects(tmp_path, column)
    assert what in malformed and not (subject and "anna" in subject)


@pytest.mark.parametrize(
    ("value", "spelt"),
    [(1018, "1018"), (1018.0, "1018"), ("1018", "1018"), (10**20, "100000000000000000000")],
)
def test_json_ids_are_written_as_anybody_would(tmp_path: Path, value: object, spelt: str) -> None:
    assert _told(tmp_path, value) == [(spelt, "")]


@pytest.mark.parametrize(
    "value", [1018.5, 1e30, 9007199254740993.0, -(2.0**53), True, ["anna"], {"id": "anna"}]
)
def test_json_ids_that_name_nobody_for_sure_are_refused(tmp_path: Path, value: object) -> None:
    assert _told(tmp_path, value)[0][1]


@pytest.mark.parametrize("wrap", ["plain", "dictionary", "struct"])
@pytest.mark.parametrize(
    ("kind", "digits"), [(pa.float16(), 11), (pa.float32(), 24), (pa.float64(), 53)]
)
def test_two_whole_numbers_that_a_float_makes_one_are_refused(
    tmp_path: Path, kind: pa.DataType, digits: int, wrap: str
) -> None:
    last, first = 2**digits - 1, 2**digits
    values = np.array([last, -last, first, first + 1, -first, first * 2]).astype(
        kind.to_pandas_dtype()
    )
    column = pa.array(values, kind)
    if wrap == "dictionary":
        column = pa.DictionaryArray.from_arrays(pa.array(range(6), pa.int8()), column)
    texts = [f"hello {n}" for n in range(6)]
    table = pa.table(
        {
            "text": texts,
            "label": ["a"] * 6,
            **(
                {"who": pa.StructArray.from_arrays([column], ["id"])}
                if wrap == "struct"
                else {"subject": column}
            ),
        }
    )
    with pa.ipc.new_file(tmp_path / "people.arrow", table.schema) as file:
        file.write_table(table)
    config = DataConfig(labels=("a", "b"), subject="who.id" if wrap == "struct" else "subject")
    frame = pd.concat(list(read_chunks(str(tmp_path / "people.arrow"), config)))
    assert frame[config.subject].tolist() == [str(last), str(-last), None, None, None, None]
    assert [f"a float of 2^{digits}" in m for m in frame[MALFORMED]] == [False] * 2 + [True] * 4


FAR = pa.array([2**60], pa.int64()).cast(pa.timestamp("us"))
UNREADABLE = [
    FAR,
    pa.array([2**30], pa.int32()).cast(pa.date32()),
    pa.array([2**62], pa.int64()).cast(pa.timestamp("s")),
    pa.array([1], pa.int64()).cast(pa.timestamp("us", "Mars/Base")),
    FAR.dictionary_encode(),
    pa.array([1], pa.int64()).cast(pa.timestamp("ns", "Mars/Base")),
    pa.array([253402300799_000_000], pa.int64()).cast(pa.timestamp("us", "+14:00")),
    pa.array([-62135596800_000_000], pa.int64()).cast(pa.timestamp("us", "-05:00")),
]


@pytest.mark.parametrize("where", ["subject", "text", "label"])
@pytest.mark.parametrize("column", UNREADABLE, ids=[str(c.type) for c in UNREADABLE])
def test_a_cell_that_cannot_be_read_spoils_its_row_alone(
    tmp_path: Path, column: pa.Array, where: str
) -> None:
    """Beyond the calendar, or in a zone that nobody knows: no traceback, in an ingest and in a look
    at the source."""
    path, kind = tmp_path / "people.arrow", column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    both = pa.concat_arrays([column.cast(kind), pa.nulls(1, kind)])
    table = pa.table(
        {"subject": ["anna", "ben"], "text": ["hello", "bye"], "label": ["a", "b"]} | {where: both}
    )
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)
    config = DataConfig(labels=("a", "b"))
    frame = pd.concat(list(read_chunks(str(path), config)))
    assert [bool(m) for m in frame[MALFORMED]] == [True, False] and frame[where].tolist() == [
        None,
        None,
    ]
    assert f"column '{where}' holds a value" in frame[MALFORMED].iloc[0]
    assert len(Source([str(path)], config).sample(5)) == 2
    assert check(Config(data=DataConfig()), None, [str(path)])["columns"] == [
        "subject",
        "text",
        "label",
    ]


@pytest.mark.parametrize(
    "digits",
    [
        "123456789012345678901234567890",
        "99999999999999999999999999999999999999",
        "-12345678901234567890123456789012345678",
    ],
)
def test_a_decimal_keeps_all_of_its_digits(tmp_path: Path, digits: str) -> None:
    whole = pa.array([Decimal(digits)], pa.decimal128(38, 0))
    assert _subjects(tmp_path, whole) == [(digits, "")]
    fraction = pa.array([Decimal(f"{digits}.123456789")], pa.decimal256(60, 12))
    assert "not whole" in _subjects(tmp_path, fraction)[0][1]
    path = tmp_path / "people.parquet"
    pq.write_table(pa.table({"subject": ["anna"], "text": fraction, "label": whole}), path)
    frame = pd.concat(list(read_chunks(str(path), DataConfig(labels=("a", "b")))))
    assert (frame["text"].tolist(), frame["label"].tolist()) == ([f"{digits}.123456789"], [digits])


@pytest.mark.parametrize(
    "value",
    [
        Decimal("1E+1000000"),
        Decimal("1E-1000000"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        10**4400,
        math.inf,
        object(),
        datetime.datetime.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-5))),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("write", [id_text, cell_text])
def test_no_value_is_a_traceback(write: Callable[[object], str | None], value: object) -> None:
    if write is cell_text and isinstance(value, float):
        assert cell_text(value) == "inf"  # a text may be
        return
    with pytest.raises(NotAnId):
        write(value)


def _told(folder: Path, value: object) -> list[tuple[Any, str]]:
    path = folder / "people.jsonl"
    path.write_text(json.dumps({"subject": value, "text": "hello", "label": "a"}) + "\n")
    return _read(path)


def _subjects(folder: Path, column: pa.Array) -> list[tuple[Any, str]]:
    path = folder / "people.parquet"
    pq.write_table(pa.table({"subject": column, "text": ["hello"], "label": ["a"]}), path)
    return _read(path)


def _read(path: Path) -> list[tuple[Any, str]]:
    frame = pd.concat(list(read_chunks(str(path), DataConfig(labels=("a", "b")))))
    return list(zip(frame["subject"].tolist(), frame[MALFORMED].tolist(), strict=True))


@pytest.mark.parametrize(
    ("label", "told"),
    [
        (pa.array([Decimal(1)], pa.decimal128(38, 0)), "1"),
        (pa.array([Decimal("0.50")], pa.decimal128(5, 2)), "0.5"),
        (pa.array([1.0]), "1"),
        (pa.array([0.25]), "0.25"),
        (pa.array([3]), "3"),
    ],
)
def test_a_label_that_is_a_number_is_written_as_one(
    tmp_path: Path, label: pa.Array, told: str
) -> None:
    path = tmp_path / "people.parquet"
    pq.write_table(pa.table({"subject": ["anna"], "text": ["hello"], "label": label}), path)
    frame = pd.concat(list(read_chunks(str(path), DataConfig(labels=("a", "b")))))
    assert frame["label"].tolist() == [told] and frame[MALFORMED].tolist() == [""]


@pytest.mark.parametrize("column", ["label", "text"])
def test_a_list_is_no_label_and_no_text(tmp_path: Path, column: str) -> None:
    path = tmp_path / "people.jsonl"
    path.write_text(
        json.dumps({"subject": "anna", "text": "hello", "label": "a"} | {column: ["a", "b"]}) + "\n"
    )
    frame = pd.concat(list(read_chunks(str(path), DataConfig(labels=("a", "b")))))
    assert [m.partition(":")[0] for m in frame[MALFORMED]] == [f"column {column!r} holds a list"]


@pytest.mark.parametrize(
    "pair",
    [
        ("Anna@X.org", "anna@x.org"),
        ("anna ", "anna"),
        ("\tanna", "anna"),
        ("an\u200bna", "anna"),
        ("anna\ufeff", "anna"),
        ("Jos\u00e9", "Jose\u0301"),
        ("1001.0", "1001"),
        ("1001.00", "1001"),
        ("stra\u00dfe", "STRASSE"),
        ("\uff41nna", "anna"),
        ("anna\u00a0", "anna"),
    ],
)
def test_two_spellings_of_one_person_fold_to_one(pair: tuple[str, str]) -> None:
    assert folded(pair[0]) == folded(pair[1])


@pytest.mark.parametrize(
    "pair",
    [
        ("anna", "ann"),
        ("1001", "10010"),
        ("1001.5", "1001"),
        ("01", "1"),
        ("a b", "ab"),
        ("1.0.0", "1"),
    ],
)
def test_two_people_do_not_fold_to_one(pair: tuple[str, str]) -> None:
    assert folded(pair[0]) != folded(pair[1])


IGNORABLE = [
    0xAD,
    0x34F,
    0x61C,
    0x115F,
    0x1160,
    0x17B4,
    0x17B5,
    0x3164,
    0xFEFF,
    0xFFA0,
    *(
        c
        for begin, end in [
            (0x180B, 0x180F),
            (0x200B, 0x200F),
            (0x202A, 0x202E),
            (0x2060, 0x206F),
            (0xFE00, 0xFE0F),
            (0xFFF0, 0xFFF8),
            (0x1BCA0, 0x1BCA3),
            (0x1D173, 0x1D17A),
            (0xE0000, 0xE0FFF),
        ]
        for c in range(begin, end + 1)
    ),
]
"""Default_Ignorable_Code_Point (Unicode 14.0, DerivedCoreProperties.txt)."""


def test_no_character_that_nobody_sees_makes_another_person() -> None:
    """Controls, formats, line ends, and what Unicode says is drawn as nothing: around an id and
    inside it."""
    unseen = {chr(c) for c in IGNORABLE} | {
        c
        for c in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")
    }
    for base in ("ann@x.org", "\u00e4nn@x.org", "\uac00"):
        assert [
            ascii(c)
            for c in unseen
            if spelt_under(("trim",), f"{c}{base[:1]}{c}{base[1:]}{c}") != base
        ] == []
        assert [ascii(c) for c in unseen if folded(f" {c} {base}{c}\t") != folded(base)] == []


@given(st.text(), st.sets(st.sampled_from(STEPS)))
def test_an_id_under_a_rule_stays_as_it_is(text: str, rule: set[IdStep]) -> None:
    assert spelt_under(rule, spelt_under(rule, text)) == spelt_under(rule, text)


@pytest.mark.parametrize(
    "seen", ["a b", "a\u00a0b", "a\u3000b", "\u0301a", "\u200aa\u1680b", "\u2800a", "\u0660"]
)
def test_what_is_seen_inside_an_id_stays(seen: str) -> None:
    assert spelt_under(("trim",), seen) == seen.strip()


@given(st.text())
def test_what_is_folded_stays_as_it_is(text: str) -> None:
    assert folded(folded(text)) == folded(text)


def test_ids_that_are_not_what_they_seem_are_counted_whichever_chunk_brings_them() -> None:
    spellings = Spellings()
    for chunk in (
        ["anna", "anna", "ben", "nan"],
        ["Anna", "ben", "1001"],
        ["anna ", "1001.0", "NULL", "nan"],
        [],
    ):
        spellings.add(pd.Series(chunk, dtype=object))
    assert spellings.warned() == {UNITED: 3, MISSING: 2, FLOATS: 1}  # Anna, "anna ", 1001.0
    assert Spellings().warned() == {}
