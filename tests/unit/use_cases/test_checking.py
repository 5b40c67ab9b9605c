"""`s3t ingest --check`: what an ingest would do, told without a text or an id, changing nothing
(edges F6)."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from flows.use_cases.checking import check
from s3t_core.config import Config
from s3t_core.keys import WorkspaceKeys
from s3t_core.snapshot import DUPLICATE
from tests.cases.build import HERE, as_csv, as_lines, changed, people

GLAD: dict[str, Any] = {
    "text": "remark",
    "label": "mood",
    "subject": "member",
    "labels": ["glad", "sad"],
}


def _checked(path: object, keys: WorkspaceKeys | None = None, **data: Any) -> dict[str, Any]:
    sources = [str(p) for p in (path if isinstance(path, list) else [path])]
    return check(Config.model_validate({"data": GLAD | data}), keys, sources)


def _texts_and_ids() -> list[str]:
    return [v for r in people() for v in (r["remark"], r["member"], r["entry"])]


def test_a_source_that_fits_is_told_with_its_counts() -> None:
    found = _checked(HERE / "semicolon.csv", WorkspaceKeys.derive(b"\x05" * 32), record="entry")
    assert found["fits"] and found["problems"] == []
    assert (found["delimiter"], found["encoding"], found["columns"]) == (
        ";",
        "UTF-8",
        ["entry", "member", "remark", "mood"],
    )
    assert (found["rows"], found["admitted"], found["refused"], found["subjects"]) == (12, 12, 0, 6)
    assert (
        found["labels"] == {"glad": 6, "sad": 6}
        and sum(found["rows_per_slice"]) + found["held_out"] == 12
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("semicolon.csv", {}),
        ("labels_case_space.csv", {}),
        ("no_header.csv", {}),
        ("header_spaces.csv", {}),
        ("chat.jsonl", {"text": "messages"}),
        ("multilabel.jsonl", {}),
        ("unclosed_quote.csv", {}),
        ("saved", {}),
        ("nested.jsonl", {}),
        ("latin1_header.csv", {}),
        ("array.json", {"label": "member"}),
        ("array.json", {"label": "entry"}),
        ("array.json", {"label": "remark"}),
        ("tab.tsv", {"labels": []}),
        ("parts", {"label": "member", "subject": "entry", "held_out_by": "entry"}),
    ],
)
def test_no_text_and_no_id_is_shown(name: str, changes: dict[str, Any]) -> None:
    told = json.dumps(_checked(HERE / name, **changes))
    assert not any(v in told for v in _texts_and_ids())


def test_refused_rows_are_counted_by_reason_and_undeclared_labels_by_value() -> None:
    found = _checked(HERE / "labels_case_space.csv")
    assert found["reasons"] == {"the label is not one of the declared ones": 9}
    assert found["refused_labels"] == {"Glad": 3, "sad ": 3, " sad": 3}


def test_a_misspelt_label_is_shown_and_a_text_in_its_place_is_not(tmp_path: Path) -> None:
    moods = ["glda", "my secret diary", "anna smith", "glad", "sad"]
    (tmp_path / "a.csv").write_text(as_csv(changed(mood=lambda n: moods[min(n, 4)])))
    found = _checked(tmp_path / "a.csv")
    assert (
        found["refused_labels"] == {"glda": 1}
        and "2 other value(s)" in found["refused_labels_told"]
    )
    assert "secret" not in json.dumps(found) and "anna" not in json.dumps(found)


def test_all_problems_are_told_together() -> None:
    found = _checked(HERE / "parts", text="body", subject="person", held_out_by="person", labels=[])
    assert not found["fits"]
    assert [p.partition(",")[0] for p in found["problems"]] == [
        "expected the labels in s3t.toml",
        "expected column 'body' (text) and column 'person' (subject) in the source",
    ]


@pytest.mark.parametrize(
    "name", ["semicolon.csv", "array.json", "parts.parquet", "saved", "utf16.csv", "packed.csv.gz"]
)
def test_what_is_to_be_pasted_fits(name: str) -> None:
    """A stranger's columns, nothing configured: what comes back is a [data] that an ingest
    takes."""
    usual = check(Config(), None, [str(HERE / name)])
    assert not usual["fits"]
    data = tomllib.loads(usual["data"])["data"]
    assert data == GLAD
    again = check(Config.model_validate({"data": data}), None, [str(HERE / name)])
    assert again["fits"] and again["admitted"] == 12


SEMICOLONS = """Nachricht-Nr;Kunde E-Mail;Nachricht;Kategorie
1;anna@x.org;"Hallo; wie geht es, bitte";Lob
2;bert@x.org;Danke, alles gut;Lob
3;carl@x.org;Gar nicht gut;Kritik
4;anna@x.org;Gar nicht gut, heute;Kritik
"""


def test_a_file_with_another_delimiter_shows_its_columns_before_anything_is_set(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.csv").write_text(SEMICOLONS)
    found = check(Config(), None, [str(tmp_path / "a.csv")])
    assert found["read_as"] == "CSV, separated by semicolons, UTF-8"
    assert found["columns"] == ["Nachricht-Nr", "Kunde E-Mail", "Nachricht", "Kategorie"]
    assert tomllib.loads(found["data"])["data"] == {
        "text": "Nachricht",
        "label": "Kategorie",
        "subject": "Kunde E-Mail",
        "labels": ["Kritik", "Lob"],
    }


def test_a_whole_line_of_names_is_never_proposed_as_a_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(SEMICOLONS.replace(";Lob", "").replace(";Kritik", ";;"))
    found = check(Config(), None, [str(tmp_path / "a.csv")])
    assert not tomllib.loads(found["data"])["data"] and 'delimiter = ";"' in found["problems"][-1]


def _umlauts(bad: int, rows: int = 200) -> str:
    return "member,remark,mood\n" + "".join(
        f"m{n},{'schön' if n < bad else 'fine'} {n},{['glad', 'sad'][n % 2]}\n" for n in range(rows)
    )


def test_a_file_of_which_much_does_not_decode_is_a_problem_with_the_encoding_to_paste(
    tmp_path: Path,
) -> None:
    source = tmp_path / "a.csv"
    source.write_bytes(_umlauts(90).encode("cp1252"))
    found = _checked(source)
    assert not found["fits"] and found["takes"] and (found["admitted"], found["rows"]) == (110, 200)
    assert "got 90 of 200 rows with bytes that are not" in found["problems"][0]
    data = tomllib.loads(found["data"])["data"]
    assert data["encoding"] == "cp1252"
    again = check(Config.model_validate({"data": data}), None, [str(source)])
    assert again["fits"] and again["admitted"] == 200
    source.write_bytes(_umlauts(2).encode("cp1252"))
    assert _checked(source)["fits"]


def test_columns_of_a_header_that_does_not_decode_are_proposed_in_the_likely_encoding(
    tmp_path: Path,
) -> None:
    source = tmp_path / "a.csv"
    source.write_bytes(_umlauts(90).replace("mood", "Gef\u00fchl").encode("cp1252"))
    found = _checked(source)
    assert not found["takes"] and found["columns"] == ["member", "remark", "Gef\u00fchl"]
    assert tomllib.loads(found["data"])["data"]["encoding"] == "cp1252"


def test_no_encoding_is_proposed_for_a_file_in_two(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_bytes(_umlauts(90).encode("cp1252") + "m,sch\u00f6n,glad\n".encode())
    found = _checked(source)
    assert not found["fits"] and "encoding" not in tomllib.loads(found["data"])["data"]


def test_nested_columns_are_found_by_their_paths(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        as_lines(
            [
                {"user": {"id": r["member"]}, "data": {"text": r["remark"]}, "label": r["mood"]}
                for r in people()
            ]
        )
    )
    data = tomllib.loads(check(Config(), None, [str(tmp_path / "a.jsonl")])["data"])["data"]
    assert data == {
        "text": "data.text",
        "label": "label",
        "subject": "user.id",
        "labels": ["glad", "sad"],
    }


def test_ids_that_stand_twice_are_counted_as_an_ingest_counts_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(as_csv([*people(), people()[3], people()[4]]))
    found = _checked(tmp_path / "a.csv", record="entry")
    assert (found["rows"], found["admitted"], found["refused"]) == (14, 10, 4)
    assert found["reasons"] == {DUPLICATE: 4}


def test_too_few_people_are_told_before_anything_is_trained() -> None:
    found = _checked(HERE / "two_people.csv", WorkspaceKeys.derive(b"\x05" * 32), held_out=0.01)
    assert any("no row is held out" in n and "no score will be known" in n for n in found["notes"])
    assert any("of 9 slices are empty" in n for n in found["notes"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "empty file"),
        ("member,remark,mood\n", "got none"),
        ("member,remark,mood\n,r,glad\na,,sad\n", "all refused"),
    ],
)
def test_a_source_of_nothing_does_not_fit(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    found = _checked(tmp_path / "a.csv")
    assert not found["fits"] and problem in found["problems"][-1]


def test_what_is_pasted_keeps_what_is_set_and_takes_what_is_nearly_called_so(
    tmp_path: Path,
) -> None:
    """It takes the place of the section: what it leaves out would be lost in silence."""
    (tmp_path / "a.csv").write_text(as_csv(people()))
    found = _checked(
        tmp_path / "a.csv",
        text="Remark",
        record="Entry ",
        held_out_by="ENTRY",
        id_rule=["trim", "case"],
        max_text_bytes=999,
        held_out=0.3,
    )
    pasted = tomllib.loads(found["data"])["data"]
    assert pasted == GLAD | {
        "record": "entry",
        "held_out_by": "entry",
        "id_rule": ["trim", "case"],
        "held_out": 0.3,
        "max_text_bytes": 999,
    }
    assert found["differs"] and not found["fits"]
    again = _checked(tmp_path / "a.csv", **pasted)
    assert again["fits"] and not again["differs"]


def test_labels_in_other_letters_are_proposed_as_the_file_has_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(as_csv(changed(mood=lambda n: ["GLAD", "SAD"][n % 2])))
    assert tomllib.loads(_checked(tmp_path / "a.csv")["data"])["data"]["labels"] == ["GLAD", "SAD"]
    (tmp_path / "a.csv").write_text(as_csv(changed(mood=lambda n: ["glad", "SAD"][n % 2])))
    assert tomllib.loads(_checked(tmp_path / "a.csv")["data"])["data"]["labels"] == ["glad", "sad"]


def test_a_label_of_many_rows_that_is_not_declared_is_told_as_forgotten(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(as_csv(changed(mood=lambda n: ["glad", "sad", "calm"][n % 3])))
    assert [
        n for n in _checked(tmp_path / "a.csv")["notes"] if "'calm', which [data] labels lacks" in n
    ]
    (tmp_path / "a.csv").write_text(as_csv(changed(mood=lambda n: ["glad", "sad"][n % 2])))
    assert not [n for n in _checked(tmp_path / "a.csv")["notes"] if "lacks" in n]


def test_a_rule_for_ids_is_proposed_where_it_would_unite_some(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        as_csv(changed(member=lambda n: ["anna@x.org", "Anna@X.org", "bob"][n % 3]))
    )
    assert '# id_rule = ["trim", "case"]' in _checked(tmp_path / "a.csv")["data"]
    (tmp_path / "a.csv").write_text(as_csv(people()))
    assert "id_rule" not in _checked(tmp_path / "a.csv")["data"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_proposed_as_what_it_is(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes(as_csv(people()).encode(encoding))
    found = _checked(tmp_path / "a.csv")
    pasted = tomllib.loads(found["data"])["data"]
    assert not found["fits"] and pasted["encoding"] == encoding
    assert _checked(tmp_path / "a.csv", **pasted)["fits"]


def test_a_language_model_is_asked_for_no_label(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    source = tmp_path / "a.jsonl"
    source.write_text(
        "".join(
            json.dumps({"who": f"p{n}", "verdict": "up", "chat": said}) + "\n" for n in range(9)
        )
    )
    config = Config.model_validate(
        {"task": {"kind": "generation"}, "data": {"subject": "who", "messages": "chat"}}
    )
    found = check(config, None, [str(source)])
    assert found["fits"] and not found["differs"] and found["labels"] == {}
    assert found["data"] == '[data]\nsubject = "who"\nmessages = "chat"\n'
