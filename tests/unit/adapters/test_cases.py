"""Files as people have them: each is read right, or refused in one sentence that says what it is
(edges F7, F8)."""

import csv
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flows.adapters.sources import MALFORMED, ROW, Source
from flows.adapters.sources.preflight import preflight
from s3t_core.config import Config, DataConfig
from s3t_core.config.task import TaskConfig
from s3t_core.errors import DataError, S3TError, UsageError
from tests.cases.build import HERE, as_csv, as_lines, changed, people, write

GLAD: dict[str, Any] = {
    "text": "remark",
    "label": "mood",
    "subject": "member",
    "held_out_by": "member",
    "labels": ("glad", "sad"),
}
HEADER = "member,remark,mood\n"
NUMBERS = GLAD | {"labels": ("0", "1")}
NESTED = GLAD | {"text": "data.text", "subject": "by.id", "held_out_by": "by.id"}


def _read(path: object, data: dict[str, Any] = GLAD) -> tuple[pd.DataFrame, Source]:
    source = Source(
        [str(p) for p in (path if isinstance(path, list) else [path])], DataConfig(**data)
    )
    return pd.concat(source.chunks(5)), source


def _refused(path: object, data: dict[str, Any] = GLAD) -> str:
    with pytest.raises(S3TError) as caught:
        _read(path, data)
    assert caught.value.exit_code == 2
    return str(caught.value)


def _is_everybody(frame: pd.DataFrame, data: dict[str, Any] = GLAD) -> bool:
    rows = people()
    columns = (data["subject"], data["text"], data["label"], MALFORMED)
    found = list(zip(*(frame[c] for c in columns), strict=True))
    labels = dict(zip(("glad", "sad"), data["labels"], strict=True))
    return found == [(r["member"], r["remark"], labels[r["mood"]], "") for r in rows] and frame[
        ROW
    ].tolist() == [*range(1, len(rows) + 1)]


def test_the_files_are_those_that_the_builder_writes(tmp_path: Path) -> None:
    write(tmp_path)
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        there = HERE / path.relative_to(tmp_path)
        assert there.is_file() and (
            there.read_bytes() == path.read_bytes() or path.suffix in (".parquet", ".arrow")
        )


@pytest.mark.parametrize(
    ("name", "data", "read_as", "note"),
    [
        ("array.json", GLAD, "a JSON array, UTF-8", ""),
        ("array.jsonl", GLAD, "a JSON array, UTF-8", "a JSON array, not an object a line"),
        ("packed.csv.gz", GLAD, "CSV, separated by commas, UTF-8", ""),
        ("packed.csv.zst", GLAD, "CSV, separated by commas, UTF-8", ""),
        (
            "packed.csv",
            GLAD,
            "CSV, separated by commas, UTF-8",
            "packed with gzip, whatever its name says",
        ),
        ("tab.tsv", GLAD, "TSV, separated by tabs, UTF-8", ""),
        (
            "semicolon.csv",
            GLAD,
            "CSV, separated by semicolons, UTF-8",
            "separated by semicolons, as its first line",
        ),
        ("utf16.csv", GLAD, "CSV, separated by commas, UTF-16", "the file is UTF-16, as the mark"),
        ("utf16.jsonl", GLAD, "JSON Lines, UTF-16", "the file is UTF-16, as the mark"),
        ("nested.jsonl", NESTED, "JSON Lines, UTF-8", ""),
        ("parts", GLAD, "2 files: CSV, separated by commas, UTF-8", ""),
        ("parts/*.csv", GLAD, "2 files: CSV, separated by commas, UTF-8", ""),
        ("parts.parquet", GLAD, "3 files: Parquet", ""),
        ("saved", GLAD, "Arrow", "'0' as 'glad' (6), '1' as 'sad' (6)"),
        ("classes-00000-of-00001.parquet", GLAD, "Parquet", "'0' as 'glad' (6), '1' as 'sad' (6)"),
        ("classes-00000-of-00001.parquet", NUMBERS, "Parquet", ""),
        ("decimal_labels.parquet", NUMBERS, "Parquet", ""),
        (
            "labels_float.csv",
            NUMBERS,
            "CSV, separated by commas, UTF-8",
            "'0.0' as '0' (6), '1.0' as '1' (6)",
        ),
    ],
)
def test_a_file_of_another_form_is_read_right_and_said_to_be_one(
    name: str, data: dict[str, Any], read_as: str, note: str
) -> None:
    frame, source = _read(HERE / name, data)
    assert _is_everybody(frame, data)
    assert source.read_as == read_as
    assert note in " ".join(source.notes) and bool(source.notes) == bool(note)


@pytest.mark.parametrize(
    ("name", "data", "sentences"),
    [
        ("duplicate_header.csv", GLAD, ["expected each column once, got 'remark' more than once"]),
        (
            "header_spaces.csv",
            GLAD,
            ["columns found: 'entry', ' member', ' remark', ' mood'", "' mood' is nearly 'mood'"],
        ),
        (
            "no_header.csv",
            GLAD,
            [
                "its first line, 4 cell(s), seems to be a row, not a header (it holds the label "
                "'glad')"
            ],
        ),
        (
            "no_header.csv",
            GLAD | {"labels": ()},
            ["its first line, 4 cell(s), seems to be a row, not a header"],
        ),
        (
            "unclosed_quote.csv",
            GLAD,
            ["got one on line 5 that nobody closes: 8 more line(s) would be lost"],
        ),
        ("latin1_header.csv", GLAD, ["is it Latin-1", '[data] encoding = "cp1252"']),
        (
            "chat.jsonl",
            GLAD,
            ["column 'remark' (text)", "'messages' holds a list of chat messages"],
        ),
        ("commas.jsonl", GLAD, ["lines that end in commas"]),
        ("indented.json", GLAD, ["indented JSON"]),
        ("images", GLAD, ["a folder of images, which are not supported"]),
        ("images/member-0/a.png", GLAD, ["an image"]),
    ],
)
def test_a_file_that_is_not_read_is_refused_in_a_sentence(
    name: str, data: dict[str, Any], sentences: list[str]
) -> None:
    told = _refused(HERE / name, data)
    assert all(s in told for s in sentences), told
    assert "\n" not in told and "member-" not in told and "lantern" not in told


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        (
            "chat.jsonl",
            GLAD | {"text": "messages"},
            "column 'messages' holds a list of chat messages",
        ),
        (
            "multilabel.jsonl",
            GLAD,
            "column 'mood' holds a list: for several labels a row, set [task] kind",
        ),
    ],
)
def test_a_list_is_told_for_what_it_is(name: str, data: dict[str, Any], reason: str) -> None:
    frame, _ = _read(HERE / name, data)
    assert frame[MALFORMED].str.startswith(reason).all()


def test_labels_of_which_none_is_declared_are_told_before_anything_starts(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text(as_csv(changed(mood=lambda n: ["Glad", "sad "][n % 2])))
    with pytest.raises(
        DataError, match=r"got none in 12 row\(s\), which hold 'Glad' \(6\), 'sad ' \(6\)"
    ):
        preflight(Config(data=DataConfig(**GLAD)), [str(source)])


def test_latin_1_cells_spoil_their_rows_and_the_remedy_is_told() -> None:
    frame, source = _read(HERE / "latin1_cells.csv")
    assert (frame[MALFORMED] == "column 'remark' is not UTF-8").tolist() == [
        n % 4 == 0 for n in range(12)
    ]
    assert any("3 row(s) hold bytes that are not UTF-8: is it Latin-1" in n for n in source.notes)
    frame, _ = _read(HERE / "latin1_cells.csv", GLAD | {"encoding": "cp1252"})
    assert frame["remark"].tolist()[0] == "schön" and not any(frame[MALFORMED])


def test_all_problems_are_told_together_with_the_columns_that_were_found() -> None:
    told = _refused(
        HERE / "parts", GLAD | {"text": "body", "subject": "Member", "held_out_by": "Member"}
    )
    assert "column 'body' (text) and column 'Member' (subject)" in told
    assert "columns found: 'entry', 'member', 'remark', 'mood'; 'member' is nearly 'Member'" in told
    with pytest.raises(UsageError, match=r"labels.*; expected column 'body'"):
        preflight(
            Config(data=DataConfig(**GLAD | {"text": "body", "labels": ()})), [str(HERE / "parts")]
        )


# --- quotes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            HEADER + "a,b,glad,\nc,d,sad,\n",
            "2 row(s) have more or fewer than the header's 3 cells, most of them 4; their",
        ),
        (HEADER + "a,b, and c,glad\n", "text that holds commas stands in double quotes"),
        (
            "Report of March\n\n" + HEADER + "a,b,glad\n",
            "line 3 has the columns you named: remove lines 1 and 2",
        ),
        (
            "# made by a program\n" + HEADER + "a,b,glad\n",
            "a title, line 2 has the columns you named: remove line 1",
        ),
        (
            "Export;;\n" + HEADER.replace(",", ";") + "a;b;glad\n",
            "a title, line 2 has the columns you named: remove",
        ),
        (
            "Export\n" + HEADER.replace(",", "\t") + "a\tb\tglad\n",
            "a title, line 2 has the columns you named",
        ),
        (json.dumps(people()), "got JSON; name it .jsonl or .json"),
        (as_lines(people()), "got JSON; name it"),
        ("member,\u00a0remark,mo\u200bod\na,b,glad\n", r"'\xa0remark' is nearly 'remark'"),
        ("\ufeff\ufeff" + HEADER + "a,b,glad\n", r"'\ufeffmember' is nearly 'member'"),
    ],
)
def test_what_a_csv_looks_like_is_told(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    try:
        told = " ".join(_read(tmp_path / "a.csv")[1].notes)
    except DataError as error:
        told = str(error)
    assert sentence in told


@pytest.mark.parametrize(
    "rows",
    [
        "anna,so lovely!,fine\n",
        "anna,so lovely!,fine\nben,not at all,bad\n",
        "anna,so lovely!,Pos\nben,not (at all),Neg\ncarl,yes: well,Pos\ndora,no,Neg\nemma,hm; "
        "hm,Neg\n",
        "anna@example.org,so lovely!,fine\n",
        "Anna Smith;so lovely;fine\n",
        "17,so lovely,fine\n",
    ],
)
def test_of_a_file_without_a_header_no_row_is_shown(tmp_path: Path, rows: str) -> None:
    (tmp_path / "a.csv").write_text(rows)
    for data in (GLAD, GLAD | {"labels": ()}):
        told = _refused(tmp_path / "a.csv", data)
        assert (
            "lovely" not in told and "anna" not in told.casefold() and "seems to be a row" in told
        )


@pytest.mark.parametrize(
    "text",
    [
        "[{'role': 'user', 'content': 'x'}]",
        '[{"from": "human", "value": "x"}]',
        '[ {"content": "x", "role": "user"} ]',
    ],
)
def test_a_chat_that_was_written_as_text_is_refused_too(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(as_csv(changed(remark=lambda n: text)))
    pq.write_table(pa.Table.from_pylist(changed(remark=lambda n: text)), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        assert _read(tmp_path / name)[0][MALFORMED].str.contains("a list of chat messages").all()


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('a,"one,glad\nb,two,sad\nc,"three",glad\n', 2),  # the next quote opens another cell
        (
            'a,one,glad\n\n\nb,"two ""so"",sad\nc,three,glad\n',
            5,
        ),  # behind blank lines; to the end of the file
        (
            'a,"on\ne",glad\nb,"two,sad\nc,"x",sad\n',
            4,
        ),  # behind a cell with a line break of its own
        (
            'a,"one,glad\nb,two,sad\nc,three",glad\n',
            2,
        ),  # the next quote closes a cell: two rows became a text
        ('a,"one,glad\nb,two",sad\n', 2),
    ],
)
def test_an_unclosed_quote_is_told_with_its_line_and_nobody_is_lost(
    tmp_path: Path, rows: str, line: int
) -> None:
    path = tmp_path / "a.csv"
    for end in ("\n", "\r\n"):
        path.write_bytes((HEADER + rows).replace("\n", end).encode())
        assert f"on line {line}" in _refused(path)


REGRESSION = TaskConfig(kind="regression", range=[1.0, 5.0])
GENERATION = TaskConfig(kind="generation")
MULTILABEL = TaskConfig(kind="multilabel", separator=";")
OF_TASK: dict[str, tuple[TaskConfig, dict[str, Any], str, str]] = {
    "a number": (REGRESSION, {}, "subject,text,label\n", "{id},{text},4\n"),
    "a number before the text": (REGRESSION, {}, "subject,label,text\n", "{id},3.5,{text}\n"),
    "labels": (MULTILABEL, {"labels": ["x", "y"]}, "subject,text,label\n", "{id},{text},x;y\n"),
    "a response": (
        GENERATION,
        {"prompt": "prompt", "response": "response"},
        "subject,prompt,response\n",
        "{id},{text},well\n",
    ),
    "a prompt in the end": (
        GENERATION,
        {"prompt": "prompt", "response": "response"},
        "subject,response,prompt\n",
        "{id},well,{text}\n",
    ),
}


def _of_task(path: Path, kind: str, rows: list[tuple[str, str]]) -> Source:
    task, data, header, row = OF_TASK[kind]
    path.write_text(header + "".join(row.format(id=i, text=t) for i, t in rows))
    source = Source([str(path)], DataConfig(**data), "", task)
    pd.concat(source.chunks(5))
    return source


@pytest.mark.parametrize("ids", [("u-1", "u-2", "u-3"), ("ann", "bob", "cid"), ("7", "8", "9")])
@pytest.mark.parametrize("kind", OF_TASK)
def test_whatever_rows_ask_for_a_stray_quote_puts_nobody_into_anothers_row(
    tmp_path: Path, kind: str, ids: tuple[str, str, str]
) -> None:
    """Whose quote is closed by another one: no error of any kind, and a whole row of somebody else
    in a cell, which no erasure of theirs would reach."""
    a, b, c = ids
    rows = [(b, "w0"), (a, '"she opens a quote'), (b, "all of it"), (c, 'and says "')]
    with pytest.raises(DataError, match="holds other rows with"):
        _of_task(tmp_path / "a.csv", kind, rows)


@pytest.mark.parametrize("kind", OF_TASK)
def test_whatever_rows_ask_for_text_of_several_lines_is_text(tmp_path: Path, kind: str) -> None:
    text = '"Dear all,\nred, green, blue\n7 of 8\n\nyours, truly"'
    rows = [("u-1", "w0"), ("u-2", text), ("u-3", '"a\nb"'), ("u-4", '"1, 2\nthree"')]
    _of_task(tmp_path / "a.csv", kind, rows)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ('"said ""so"", and left"', 'said "so", and left'),
        ('5" wide', '5" wide'),
        ('"a\r\nb\r\n"', "a\r\nb\r\n"),
        ('"\r\n"', "\r\n"),
        ('"a\rb"', "a\rb"),
        ('"a\nb, glad, sad\nc"', "a\nb, glad, sad\nc"),
        ("x\x00y", "x\x00y"),
        ('"\u2028, \x85"', "\u2028, \x85"),
        ("NA", "NA"),
        ("nan", "nan"),
        ('""', None),
        (" x ", " x "),
    ],
)
@pytest.mark.parametrize("before", [0, 3, 3_000])
def test_a_cell_keeps_its_characters_wherever_it_stands(
    tmp_path: Path, cell: str, text: str | None, before: int
) -> None:
    path = tmp_path / "a.csv"
    for end in ("\n", "\r\n"):
        rows = [f"p,{'w' * 80},glad"] * before + [f"p,{cell},sad", "p,last,glad"]
        path.write_bytes(("member,remark,mood" + end + "".join(r + end for r in rows)).encode())
        frame, _ = _read(path)
        assert (frame["remark"].iloc[-2], frame["remark"].iloc[-1]) == (text, "last") and not any(
            frame[MALFORMED]
        )


def test_a_quote_that_spoils_its_own_line_spoils_that_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEADER + 'a,"he said "so" once",glad\nb,two,sad\nc,"x"y,sad\nd,four,glad\n')
    frame, _ = _read(path)
    assert [bool(m) for m in frame[MALFORMED]] == [True, False, True, False]
    assert (
        frame[MALFORMED].iloc[0]
        == 'the row has a quote inside a quoted cell that is not written twice ("")'
    )
    assert frame["member"].tolist() == [None, "b", None, "d"]


def test_a_column_of_which_only_the_texts_are_wanted_is_told_as_theirs(tmp_path: Path) -> None:
    """As `s3t predict --file` reads a file: one column is in the place of all."""
    (tmp_path / "a.csv").write_text("mine,other\na,b\n")
    config = DataConfig(text="remark", label="remark", subject="remark", held_out_by="remark")
    source = Source([str(tmp_path / "a.csv")], config)
    assert "expected column 'remark' (text) in the source" in source.problems()[0]


def test_quotes_that_a_backslash_escapes_are_told(tmp_path: Path) -> None:
    """As MySQL and Spark write them: a row with two of them is spoilt, one with one is another
    cell's end."""
    path = tmp_path / "a.csv"
    path.write_text(HEADER + r'a,"he said \"so\" once",glad' + "\nb,two,sad\n")
    frame, source = _read(path)
    assert [bool(m) for m in frame[MALFORMED]] == [True, False]
    assert [
        n for n in source.notes if n.startswith("1 row(s) have a quote") and r"written as \"" in n
    ]
    path.write_text(HEADER + 'a,"he said "so" once",glad\nb,two,sad\n')
    assert not [n for n in _read(path)[1].notes if "escape" in n]


def test_a_text_whose_lines_have_a_delimiter_by_chance_is_not_told_of(tmp_path: Path) -> None:
    """Only where both ends of the cell look like parts of rows: one of them does in many a text."""
    path = tmp_path / "a.csv"
    path.write_text(HEADER + 'a,"yes, well\nthank you",glad\nb,"well\nyes, thank you",sad\n')
    _, source = _read(path)
    assert not [n for n in source.notes if "closed where" in n]
    path.write_text(HEADER + 'a,"oh, yes\nb, no",glad\nb,two,sad\n')
    _, source = _read(path)
    assert [n for n in source.notes if "closed where" in n]


def test_a_text_with_line_breaks_and_commas_is_read_and_told_where_it_looks_like_rows(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(HEADER + 'a,"first\nred, green, blue\nlast",glad\n')
    frame, source = _read(path)
    assert frame["remark"].tolist() == ["first\nred, green, blue\nlast"]
    assert any("the first from line 2: is its quote closed" in n for n in source.notes)


# --- encodings and packing


@pytest.mark.parametrize(
    ("encoding", "configured"),
    [
        ("utf-8-sig", ""),
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("utf-16", ""),
        ("utf-32", ""),
        ("utf-16", "utf-16"),
        ("cp1252", "cp1252"),
        ("latin-1", "iso-8859-1"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("shift_jis", "shift_jis"),
        ("cp1251", "cp1251"),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "csv.gz"])
def test_an_encoding_that_is_certain_or_named_is_read(
    tmp_path: Path, encoding: str, configured: str, ending: str
) -> None:
    path, word = (
        tmp_path / f"a.{ending}",
        {"shift_jis": "\u30c6\u30b9\u30c8", "cp1251": "\u043c\u0438\u0440"}.get(
            encoding, "sch\u00f6n"
        ),
    )
    rows = [{"member": "a", "remark": word, "mood": "glad"}]
    text = (
        as_csv(rows)
        if "csv" in ending
        else json.dumps(rows if ending == "json" else rows[0], ensure_ascii=False)
    )
    raw = text.encode(encoding)
    path.write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)
    frame, _ = _read(path, GLAD | {"encoding": configured})
    assert frame["remark"].tolist() == [word] and frame[MALFORMED].tolist() == [""]


@pytest.mark.parametrize("configured", ["cp1252", "latin-1", "mac_roman", "koi8_r", "gb18030"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "csv.gz"])
def test_what_is_utf8_is_read_as_nothing_else(tmp_path: Path, configured: str, ending: str) -> None:
    """Every byte is some letter there: a person whose id is not ASCII would be somebody else, of
    whom no request and no erasure knows."""
    path = tmp_path / f"a.{ending}"

    def write(member: str, encoding: str) -> None:
        rows = [{"member": f"m{n}", "remark": "w" * 600, "mood": "glad"} for n in range(500)]
        rows.append({"member": member, "remark": "well", "mood": "glad"})
        if "csv" in ending:
            text = as_csv(rows)
        elif ending == "json":
            text = json.dumps(rows, ensure_ascii=False)
        else:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        raw = text.encode(encoding)
        path.write_bytes(gzip.compress(raw) if ending.endswith("gz") else raw)

    write("Zo\u00eb", "utf-8")  # far behind what is looked at first
    with pytest.raises(DataError, match="are UTF-8 from its begin to its end"):
        _read(path, GLAD | {"encoding": configured})
    write("Zoe", "utf-8")
    assert len(_read(path, GLAD | {"encoding": configured})[0]) == 501
    word = "\u041c\u0438\u0440" if configured in ("koi8_r", "gb18030") else "Zo\u00eb"
    write(word, configured)
    frame, _ = _read(path, GLAD | {"encoding": configured})
    assert frame["member"].tolist()[-1] == word


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (as_csv(people()).encode("utf-16-le"), 'encoding = "utf-16-le"'),
        (as_csv(people()).encode("utf-16-be"), 'encoding = "utf-16-be"'),
        (b"PK\x03\x04 and so on", "zip archive"),
        (b"\xd0\xcf\x11\xe0 and so on", "old Office file"),
        (b"SQLite format 3\x00", "SQLite"),
        (b"%PDF-1.7", "a PDF"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"\x80\x04\x95\x00", "pickle"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\n <?xml version='1.0'?>", "XML"),
        (b"\x89PNG\r\n", "an image"),
        (b"\x1f\x8b\x08\x00junk", "cut before its end"),
        (gzip.compress(as_csv(people(600)).encode())[:300], "cut before its end"),
        (b"\x28\xb5\x2f\xfdjunk", "got one"),
        (b"\n\n  \n", "empty file"),
        (b'"member,remark', "quote is not"),
    ],
)
def test_bytes_of_another_kind_under_a_text_files_name_are_named(
    tmp_path: Path, raw: bytes, sentence: str
) -> None:
    for name in ("a.csv", "a.jsonl") if b'"member' not in raw else ("a.csv",):
        (tmp_path / name).write_bytes(raw)
        assert sentence in _refused(tmp_path / name)


@pytest.mark.parametrize(
    "name",
    [
        "sheet.xlsx",
        "old.xls",
        "all.zip",
        "a.tar",
        "frame.pkl",
        "notes.txt",
        "nothing",
        "a.csv.bz2",
        "a.gz",
    ],
)
def test_an_ending_that_is_not_read_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"x") if name == "a.gz" else b"whatever it holds")
    assert "ending in .csv, .tsv" in _refused(tmp_path / name)


@pytest.mark.parametrize("cut", [40, 200, 1000])
@pytest.mark.parametrize("ending", ["csv.gz", "csv.zst", "json", "parquet", "arrow"])
def test_a_file_that_was_cut_is_refused_whatever_it_is(
    tmp_path: Path, ending: str, cut: int
) -> None:
    whole, path = tmp_path / f"w.{ending}", tmp_path / f"a.{ending}"
    rows = [r | {"remark": f"{r['remark']} {hash(n)}"} for n, r in enumerate(people(5_000))]
    if ending == "json":
        whole.write_text(json.dumps(rows))
    elif ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), whole)
    elif ending == "arrow":
        with pa.ipc.new_file(str(whole), pa.Table.from_pylist(rows).schema) as file:
            file.write_table(pa.Table.from_pylist(rows))
    else:
        with pa.CompressedOutputStream(
            str(whole), "gzip" if ending.endswith("gz") else "zstd"
        ) as out:
            out.write(as_csv(rows).encode())
    path.write_bytes(whole.read_bytes()[:-cut])
    assert "expected" in _refused(path)


# --- JSON


def test_a_last_line_that_was_cut_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(as_lines(people())[:-20])
    frame, source = _read(tmp_path / "a.jsonl")
    assert frame[MALFORMED].tolist() == [*[""] * 11, "the line is not JSON"]
    assert any("was the file cut?" in n for n in source.notes)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"data": [{"member": "a"}]}', "holds the rows in a list under 'data'"),
        ('{\n "rows": [\n {"member": "a"}\n]}', "holds the rows in a list under 'rows'"),
        (
            '{"member": {"0": "a"}, "remark": {"0": "b"}, "mood": {"0": "glad"}}',
            "holds columns, not rows",
        ),
        (
            '{"member": ["a", "b"], "remark": ["c", "d"], "mood": ["glad", "sad"]}\n',
            "holds columns, not rows",
        ),
        ('[{"member": "a", "remark": "b", "mood": "glad"}] []', "more behind its end"),
        (
            '[{"member": "a", "remark": "b", "mood": "glad"} {"member": "b"}]',
            "neither a comma nor its end",
        ),
        ('[{"member": "a", "remark": "b", "mood": "glad"}, {"mem', "was cut"),
        (" [ ]\n", "an empty JSON array"),
        ('{"member": "a"} {"member": "b"}', "more than one on a line"),
        (HEADER + "a,b,glad\n", "is it CSV?"),
        ('["a", "b"]\n["c", "d"]', "its rows are arrays"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_of_another_form_is_told(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert sentence in _refused(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(["member", "remark", "mood", "x"]), st.text(max_size=8), min_size=4
        ),
        min_size=1,
        max_size=6,
    ),
    indent=st.sampled_from([None, 0, 2]),
)
def test_an_array_says_what_the_same_objects_say_a_line_each(
    tmp_path: Path, rows: list[dict[str, str]], indent: int | None
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=indent), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text(as_lines(rows), encoding="utf-8")
    one, other = (_read(tmp_path / n)[0] for n in ("a.json", "a.jsonl"))
    pd.testing.assert_frame_equal(one, other)


def test_an_array_longer_than_what_is_read_at_once_is_read_whole(tmp_path: Path) -> None:
    rows = [r | {"remark": "w" * (n % 700)} for n, r in enumerate(people(3_000))]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=3))
    frame, _ = _read(tmp_path / "a.json")
    assert frame["remark"].tolist() == [r["remark"] or None for r in rows]


def test_a_column_of_the_very_name_wins_over_a_dotted_path(tmp_path: Path) -> None:
    row = {"by": {"id": "inner"}, "data": {"text": "inner"}, "data.text": "outer", "mood": "glad"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("by.id,data.text,mood\ninner,outer,glad\n")
    for name in ("a.jsonl", "a.parquet", "a.csv"):
        frame, _ = _read(tmp_path / name, NESTED)
        assert (frame["data.text"].tolist(), frame["by.id"].tolist()) == (["outer"], ["inner"])


def test_a_key_that_stands_twice_spoils_its_row(tmp_path: Path) -> None:
    twice = '{"member": "a", "member": "b", "remark": "r", "mood": "glad"}\n'
    (tmp_path / "a.jsonl").write_text(twice + as_lines(people()))
    frame, _ = _read(tmp_path / "a.jsonl")
    assert frame[MALFORMED].tolist() == [
        "the row holds an object in which a key stands twice",
        *[""] * 12,
    ]
    assert frame["member"].iloc[0] is None


def test_numbers_true_and_ids_in_json_mean_what_they_mean_in_parquet(tmp_path: Path) -> None:
    rows = [{"member": 1018, "remark": "r", "mood": value} for value in (1, 0, 1, 0)]
    for data, values in (
        (NUMBERS, (1, 0)),
        (NUMBERS, (True, False)),
        (NUMBERS, (1.0, 0.0)),
        (GLAD | {"labels": ("true", "false")}, (True, False)),
    ):
        given_ = [r | {"mood": values[n % 2]} for n, r in enumerate(rows)]
        (tmp_path / "a.jsonl").write_text(as_lines(given_))
        pq.write_table(pa.Table.from_pylist(given_), tmp_path / "a.parquet")
        one, other = (_read(tmp_path / n, data)[0] for n in ("a.jsonl", "a.parquet"))
        assert one["mood"].tolist() == other["mood"].tolist()
        assert set(one["mood"]) == set(data["labels"]) and one["member"].tolist() == ["1018"] * 4


@pytest.mark.parametrize(
    ("labels", "value", "meant"),
    [
        (("0", "1"), "1.0", "1"),
        (("0", "1"), "true", "1"),
        (("0", "1"), "False", "0"),
        (("0.0", "1.0"), "1", "1.0"),
        (("true", "false"), "True", "true"),
        (("true", "false"), "1", "true"),
        (("1", "true"), "1.0", "1.0"),
        (("1", "1.0"), "01", "01"),
        (("glad", "sad"), "1", "1"),
        (("0", "1"), " 1", " 1"),
        (("0", "1"), "1.5", "1.5"),
        (("0", "1"), "yes", "yes"),
        (("0", "1"), "1e0", "1e0"),
        (("-1", "1"), "-1.0", "-1"),
    ],
)
def test_a_label_means_a_declared_one_where_one_and_only_one_fits(
    tmp_path: Path, labels: tuple[str, ...], value: str, meant: str
) -> None:
    (tmp_path / "a.csv").write_text(f"member,remark,mood\na,r,{value}\n")
    assert _read(tmp_path / "a.csv", GLAD | {"labels": labels})[0]["mood"].tolist() == [meant]


def test_no_label_of_a_class_label_is_a_missing_one(tmp_path: Path) -> None:
    table = pq.read_table(HERE / "classes-00000-of-00001.parquet")
    moods = pa.array([-1, 1, 7] + [0] * 9)
    pq.write_table(
        table.set_column(table.schema.names.index("mood"), "mood", moods), tmp_path / "a.parquet"
    )
    assert _read(tmp_path / "a.parquet")[0]["mood"].tolist()[:4] == [None, "sad", "7", "glad"]


# --- folders and several files


def test_several_files_are_the_union_whatever_their_kinds(tmp_path: Path) -> None:
    rows = people()
    (tmp_path / "a.csv").write_text(as_csv(rows[:4], ";"))
    (tmp_path / "b.jsonl").write_text(as_lines(rows[4:8]))
    pq.write_table(pa.Table.from_pylist(rows[8:]), tmp_path / "c.parquet")
    frame, _ = _read([tmp_path / "a.csv", tmp_path / "b.jsonl", tmp_path / "c.parquet"])
    assert _is_everybody(frame)


def test_partitions_in_the_names_of_folders_are_columns(tmp_path: Path) -> None:
    for mood in ("glad", "sad"):
        folder = tmp_path / "all.parquet" / f"mood={mood}"
        folder.mkdir(parents=True)
        rows = [{k: v for k, v in r.items() if k != "mood"} for r in people() if r["mood"] == mood]
        pq.write_table(pa.Table.from_pylist(rows), folder / "part-0.parquet")
    (tmp_path / "all.parquet" / "_SUCCESS").touch()
    (tmp_path / "all.parquet" / ".part-0.parquet.crc").write_bytes(b"x")
    frame, _ = _read(tmp_path / "all.parquet")
    expected = sorted((r["member"], r["mood"]) for r in people())
    assert sorted(zip(frame["member"], frame["mood"], strict=True)) == expected


def _mixed(folder: Path) -> None:
    (folder / "a.csv").write_text(as_csv(people()))
    pq.write_table(pa.Table.from_pylist(people()), folder / "a.parquet")


def _splits(folder: Path) -> None:
    for split in ("train", "test"):
        shutil.copyfile(
            HERE / "parts.parquet" / "part-0.parquet", folder / f"{split}-00000-of-00001.parquet"
        )


def _dictionary(folder: Path) -> None:
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')


def _lost_file(folder: Path) -> None:
    shutil.copytree(HERE / "saved", folder, dirs_exist_ok=True)
    (folder / "data-00000-of-00001.arrow").unlink()


def _bad_part(folder: Path) -> None:
    (folder / "a.csv").write_text(as_csv(people()))
    (folder / "b.csv").write_text(as_csv(people()).replace("mood", "humour", 1))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_mixed, "parts of one kind, got files in .csv, .parquet"),
        (_splits, "got the splits test, train"),
        (_dictionary, "got the splits train, test"),
        (_lost_file, "got none for 1"),
        (_bad_part, "(file 2 of 2, in order)"),
        (lambda folder: (folder / "readme.txt").write_text("x"), "no file of these"),
        (lambda folder: (folder / "a.csv").touch(), "an empty file"),
    ],
)
def test_a_folder_in_which_it_is_not_clear_what_is_meant_is_refused(
    tmp_path: Path, make: Callable[[Path], object], sentence: str
) -> None:
    make(tmp_path)
    assert sentence in _refused(tmp_path)


def test_one_split_of_a_saved_dictionary_is_read(tmp_path: Path) -> None:
    shutil.copytree(HERE / "saved", tmp_path / "train")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert _is_everybody(_read(tmp_path)[0])


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [
        (["tab.tsv", "tab.tsv"], "each file of the source once"),
        (["parts", "parts/a.csv"], "each file of the source once"),
        (["nothing/*.csv"], "no file that does"),
        (["absent.csv"], "no file"),
        (["s3://bucket/a.csv"], "download it first"),
    ],
)
def test_sources_that_cannot_be_meant_are_refused(sources: list[str], sentence: str) -> None:
    assert sentence in _refused([s if "://" in s else HERE / s for s in sources])


# --- whatever it is


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(raw=b"\r", lead=b"", ending="csv")
@given(
    raw=st.binary(min_size=1, max_size=200),
    lead=st.sampled_from(
        [
            b"",
            b"member,remark,mood\n",
            b"\xff\xfe",
            b"\xef\xbb\xbf",
            b"[",
            b"{",
            b"PAR1",
            b"ARROW1\x00\x00",
            b"\x1f\x8b\x08",
            b"\x28\xb5\x2f\xfd",
            b'"',
            b"sep=;\n",
        ]
    ),
    ending=st.sampled_from(
        ["csv", "tsv", "jsonl", "json", "parquet", "arrow", "csv.gz", "json.zst"]
    ),
)
def test_whatever_bytes_come_there_are_rows_or_a_sentence(
    tmp_path: Path, raw: bytes, lead: bytes, ending: str
) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(lead + raw)
    try:
        _read(path)
    except S3TError as error:
        assert error.exit_code == 2
    except ValueError as error:
        assert "No objects to concatenate" in str(error)  # pandas: there was no row


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=6)] * 3),
        min_size=1,
        max_size=6,
    ),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_csv_writer_wrote_is_what_is_read(
    tmp_path: Path, rows: list[tuple[str, str, str]], delimiter: str, end: str
) -> None:
    written = [dict(zip(("member", "remark", "mood"), row, strict=True)) for row in rows]
    (tmp_path / "a.csv").write_bytes(as_csv(written, delimiter, end, csv.QUOTE_ALL).encode())
    frame, _ = _read(tmp_path / "a.csv", GLAD | {"labels": ()})
    assert [
        tuple(v or "" for v in row)
        for row in zip(frame["member"], frame["remark"], frame["mood"], strict=True)
    ] == rows
