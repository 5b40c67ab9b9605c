"""Ingest on real Great Expectations and DVC: bad input gets a clear error, and nothing is lost."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.adapters.locks import workspace_lock
from flows.adapters.quarantine import QUARANTINE
from flows.examples import EXAMPLE_KEY
from flows.settings import workspace_root
from flows.use_cases.ingesting import ingest_source
from flows.workspace.composing import erase_ports
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.errors import Busy, DataError, GuaranteeError, S3TError, WorkspaceError
from s3t_core.ports import Target
from s3t_core.records import subject_digest
from s3t_core.slicefile import read_rows, slice_path
from s3t_core.snapshot import DUPLICATE
from tests.flows.conftest import people, write_csv
from tests.held import HELD

pytestmark = pytest.mark.slow
Make = Callable[..., Workspace]


def _version(place: Workspace) -> str:
    return (place.root / "data.dvc").read_text()


def _files(place: Workspace) -> dict[str, bytes]:
    return {
        p.relative_to(place.root).as_posix(): p.read_bytes()
        for p in (place.root / "data").rglob("*.parquet")
    }


def test_a_rerun_with_the_same_input_changes_nothing_whatever_order_or_chunk_size(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place()
    source = write_csv(tmp_path / "a.csv", people())
    first = ingest_source(place, HELD, str(source), False, 20_000)
    files, version, head = _files(place), _version(place), place.ledger.head()
    assert first.changed and first.records + first.held_out == 36 and first.subjects == 18
    shuffled = write_csv(tmp_path / "b.csv", people()[::-1])
    for path, chunk in ((source, 20_000), (shuffled, 7)):
        again = ingest_source(place, HELD, str(path), False, chunk)
        assert not again.changed
    assert (_files(place), _version(place), place.ledger.head()) == (files, version, head)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_jsonl_and_parquet_say_the_same_as_csv(
    make_place: Make, tmp_path: Path, ending: str
) -> None:
    import pandas as pd

    place = make_place()
    ingest_source(place, HELD, str(write_csv(tmp_path / "a.csv", people())), False, 20_000)
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        pd.DataFrame(people()).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(r) + "\n" for r in people()))
    assert not ingest_source(place, HELD, str(path), False, 20_000).changed


@pytest.mark.parametrize(
    "names",
    [
        {"what": "given", "kind": "malformed", "who": "row", "id": "text_bytes"},
        {"what": "row", "kind": "given", "who": "malformed", "id": "record_bytes"},
        {"what": "malformed", "kind": "row", "who": "given", "id": "self"},
        {"what": "subject_bytes", "kind": "text_bytes", "who": "self", "id": "given"},
    ],
)
def test_a_column_may_have_any_name(
    make_place: Make, tmp_path: Path, names: dict[str, str]
) -> None:
    """Also one that the system gives to a column of its own: nothing of one is taken for the
    other."""
    rows = [*people(), {**people()[0], "id": "odd", "kind": "strange"}]
    renamed = [{names.get(c, c): value for c, value in row.items()} for row in rows]
    place, other = (
        make_place("plain", data={"id_rule": ["trim"]}),
        make_place(
            "other",
            data={
                "text": names["what"],
                "label": names["kind"],
                "subject": names["who"],
                "record": names["id"],
                "held_out_by": names["who"],
                "id_rule": ["trim"],
            },
        ),
    )
    first = ingest_source(place, HELD, str(write_csv(tmp_path / "a.csv", rows)), False, 20_000)
    second = ingest_source(other, HELD, str(write_csv(tmp_path / "b.csv", renamed)), False, 20_000)
    assert second == first and _files(other) == _files(place)
    line, renamed_line = (
        json.loads((p.state_dir / QUARANTINE).read_text()) for p in (place, other)
    )
    assert {names.get(c, c): v for c, v in line["values"].items()} == renamed_line["values"]
    assert names.get(line["label"], line["label"]) == renamed_line["label"]
    named = {"values": {}, "seal": "", "label": ""}
    assert line | named == renamed_line | named


@pytest.mark.parametrize("lost", ["records", "subjects"])
def test_a_snapshot_that_lacks_much_of_what_is_there_is_refused_and_costs_nothing(
    make_place: Make, tmp_path: Path, lost: str
) -> None:
    """A source that was cut, or one that a quote swallows which is never closed (edges F5)."""
    place = make_place()
    rows = [{**row, "id": f"{row['id']}-{n}"} for row in people() for n in range(3)]
    ingest_source(place, HELD, str(write_csv(tmp_path / "a.csv", rows)), False, 20_000)
    before = _files(place), _version(place), place.ledger.head()
    few = {p["who"] for p in rows[::9]}
    rest = [r for r in rows if r["who"] not in few]
    fewer = (
        rows[:70] if lost == "records" else [*rest, *({**r, "id": f"{r['id']}-more"} for r in rest)]
    )
    source = str(write_csv(tmp_path / "b.csv", fewer))
    with pytest.raises(
        DataError, match=rf"{lost} that are there, got .*`s3t ingest --yes` takes it"
    ):
        ingest_source(place, HELD, source, False, 20_000)
    assert (_files(place), _version(place), place.ledger.head()) == before
    assert ingest_source(place, HELD, source, False, 20_000, shrink=True).changed


def test_on_a_schedule_an_unclosed_quote_stops_with_its_line_and_costs_nothing(
    make_place: Make, tmp_path: Path
) -> None:
    """The flow as a deployment runs it, without --yes. The shrink alone would not tell: here
    nothing is missing."""
    from flows.prefect_flows.ingest import ingest

    place = make_place(data={"max_shrink": 1.0})
    ingest(str(place.root), str(write_csv(tmp_path / "a.csv", people())))
    before = _files(place), _version(place), place.ledger.head()
    lines = (tmp_path / "a.csv").read_text().splitlines(keepends=True)
    for rest in (lines[6:], [*lines[6:9], 'r9,person-009,w1 w2",good\n', *lines[10:]]):
        (tmp_path / "b.csv").write_text("".join([*lines[:5], 'r5,person-005,"w1 w2,good\n', *rest]))
        with pytest.raises(DataError, match=r"on line 6\b"):
            ingest(str(place.root), str(tmp_path / "b.csv"))
        assert (_files(place), _version(place), place.ledger.head()) == before


def test_on_a_schedule_a_snapshot_that_lost_much_stops_and_says_so(
    make_place: Make, tmp_path: Path
) -> None:
    from flows.prefect_flows.ingest import ingest

    place = make_place()
    ingest(str(place.root), str(write_csv(tmp_path / "a.csv", people())))
    with pytest.raises(DataError, match="max_shrink"):
        ingest(str(place.root), str(write_csv(tmp_path / "b.csv", people()[:20])))


def test_several_files_are_one_snapshot(make_place: Make, tmp_path: Path) -> None:
    place = make_place()
    ingest_source(place, HELD, str(write_csv(tmp_path / "all.csv", people())), False, 20_000)
    (tmp_path / "parts").mkdir()
    parts = [
        write_csv(tmp_path / "parts" / f"{n}.csv", people()[12 * n : 12 * n + 12]) for n in range(3)
    ]
    for sources in (
        [str(p) for p in parts],
        str(tmp_path / "parts"),
        str(tmp_path / "parts" / "*.csv"),
    ):
        assert not ingest_source(place, HELD, sources, False, 7).changed


def test_a_report_says_what_the_source_was_and_which_labels_were_refused(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place()
    rows = [r | {"kind": "Good"} if n % 6 == 0 else r for n, r in enumerate(people())]
    text = write_csv(tmp_path / "a.csv", rows).read_text().replace(",", ";")
    (tmp_path / "a.csv").write_bytes(text.encode("utf-16"))
    report = ingest_source(place, HELD, str(tmp_path / "a.csv"), False, 20_000)
    assert report.read_as == "CSV, separated by semicolons, UTF-16" and len(report.notes) == 2
    assert report.refused_labels == {"Good": 6}


def test_two_people_are_too_few_and_told_so(make_place: Make, tmp_path: Path) -> None:
    """No accuracy, empty slices: before a training finds out (cases: two_people)."""
    place = make_place()
    rows = [r | {"who": f"person-{n % 2}"} for n, r in enumerate(people())]
    report = ingest_source(place, HELD, str(write_csv(tmp_path / "a.csv", rows)), False, 20_000)
    empty = sum(n == 0 for shard in report.rows_per_slice for n in shard)
    assert empty >= 2 and f"{empty} of 4 slices are empty" in " ".join(report.notes)
    assert any("no row is held out" in n for n in report.notes) == (report.held_out == 0)


def test_a_snapshot_may_lack_a_little_and_always_grow(make_place: Make, tmp_path: Path) -> None:
    place = make_place()
    for rows in (people()[:-6], people(), people()[4:]):
        assert ingest_source(
            place, HELD, str(write_csv(tmp_path / "a.csv", rows)), False, 20_000
        ).changed


def test_a_marked_place_that_lost_its_mark_is_away(make_place: Make, tmp_path: Path) -> None:
    """Its disk is not mounted: what is kept there would count as erased."""
    place = make_place(
        dvc={"remote": str(tmp_path / "remote")}, store={"url": str(tmp_path / "store")}
    )
    source = str(write_csv(tmp_path / "a.csv", people()))
    ingest_source(place, HELD, source, False, 20_000)
    for name in ("remote", "store"):
        (tmp_path / name).rename(tmp_path / "away")
        with pytest.raises(WorkspaceError, match="without its mark"):
            erase_ports(Workspace(place.root), HELD)
        (tmp_path / name).mkdir(exist_ok=True)  # the place where it is mounted
        with pytest.raises(WorkspaceError, match="without its mark"):
            ingest_source(Workspace(place.root), HELD, source, False, 20_000)
        shutil.rmtree(tmp_path / name)
        (tmp_path / "away").rename(tmp_path / name)
    erase_ports(Workspace(place.root), HELD)


@pytest.mark.parametrize("link", [False, True])
def test_files_of_somebody_elses_in_the_data_directory_are_never_removed(
    make_place: Make, tmp_path: Path, link: bool
) -> None:
    place = make_place()
    theirs = tmp_path / "theirs" if link else place.root / "data"
    theirs.mkdir()
    (theirs / "other-project.txt").write_text("precious")
    if link:
        (place.root / "data").symlink_to(theirs)
    with pytest.raises((DataError, GuaranteeError), match=r"^expected .*\bdata\b"):
        ingest_source(place, HELD, str(write_csv(tmp_path / "a.csv", people())), False, 20_000)
    assert (theirs / "other-project.txt").read_text() == "precious"


def test_append_is_the_union(make_place: Make, tmp_path: Path) -> None:
    place = make_place()
    rows = people()
    ingest_source(place, HELD, str(write_csv(tmp_path / "all.csv", rows)), False, 20_000)
    files = _files(place)
    ingest_source(
        place, HELD, str(write_csv(tmp_path / "one.csv", rows[:20])), False, 20_000, shrink=True
    )
    assert _files(place) != files
    ingest_source(place, HELD, str(write_csv(tmp_path / "two.csv", rows[16:])), True, 20_000)
    assert _files(place) == files


def test_bad_rows_go_to_quarantine_each_with_its_reason_and_the_rest_is_taken(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place()
    rows = people()
    bad = {
        "the subject is missing": {"who": ""},
        "the record is missing": {"id": ""},
        "the label is missing": {"kind": ""},
        "the label is not one of the declared ones": {"kind": "ugly"},
        "the text is empty": {"what": "   "},
        "the text is missing": {"what": ""},
        "the text is longer than 65536 bytes": {"what": "é" * 500_000},
        "the subject id is longer than 512 bytes": {"who": "x" * 513},
        "the record id is longer than 512 bytes": {"id": "x" * 513},
        DUPLICATE: {"id": "twice"},
    }
    spoilt = [
        {"id": f"b{i}", "who": "bad-person-99", "what": "w1 w2", "kind": "good"} | change
        for i, change in enumerate([*bad.values(), {"id": "twice"}])
    ]
    source = write_csv(tmp_path / "a.csv", rows + spoilt)
    with source.open("ab") as file:
        file.write(b"u1,bad-person-98,\xff\xfe w1,good\n")
        file.write(b"u2,bad-person-98,w1\n")
    report = ingest_source(place, HELD, str(source), False, 20_000)
    assert report.records + report.held_out == len(rows)
    expected = dict.fromkeys(bad, 1) | {
        DUPLICATE: 2,
        "column 'what' is not UTF-8": 1,
        "the row has more or fewer cells than the header": 1,
    }
    counted = {k: v for k, v in report.reasons.items() if k in expected}
    assert counted == expected
    quarantine = place.state_dir / "quarantine" / "rows.jsonl"
    lines = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert len(lines) == report.quarantined == len(spoilt) + 2
    assert oct(quarantine.stat().st_mode & 0o777) == "0o600"
    known = [line for line in lines if line["subject_digest"]]
    assert subject_digest(place.keys, "bad-person-99") in {line["subject_digest"] for line in known}
    assert all(
        line["values"] == {} for line in lines if not line["subject_digest"]
    )  # nobody could erase them
    assert b"bad-person" not in quarantine.read_bytes()


@pytest.mark.parametrize("changed", ["subject_digest", "values", "seal", "another's seal"])
def test_a_quarantined_row_that_was_relabelled_goes_with_the_next_erasure(
    make_place: Make, tmp_path: Path, changed: str
) -> None:
    """Whose a row is, its line alone says: one that somebody else wrote says it of nobody."""
    place = make_place()
    refused = [
        {"id": f"q{n}", "who": f"person-{n}", "what": f"what {n} said", "kind": "ugly"}
        for n in range(2)
    ]
    ingest_source(
        place, HELD, str(write_csv(tmp_path / "a.csv", [*people(), *refused])), False, 20_000
    )
    path = place.state_dir / QUARANTINE
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    first |= {
        "subject_digest": {"subject_digest": second["subject_digest"]},
        "values": {"values": {"what": "other"}},
        "seal": {"seal": ""},
    }.get(changed, {"seal": second["seal"]})
    path.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in (first, second)))
    stranger = Target("req-1", subject_digest(place.keys, "somebody else"), "")
    assert len(place.datasets.quarantine.rows()) == 1
    assert place.datasets.erase_quarantine([stranger]) == 1
    assert [json.loads(line) for line in path.read_text().splitlines()] == [second]


def test_a_refused_rows_text_is_looked_for_though_another_column_is_the_label_by_now(
    make_place: Make, tmp_path: Path
) -> None:
    """The settings may say so for the next file, while this one's rows are in quarantine."""
    place = make_place()
    said = "what quentin said on a long evening"
    refused = {"id": "q", "who": "quentin", "what": said, "kind": "ugly"}
    source = str(write_csv(tmp_path / "a.csv", [*people(), refused]))
    ingest_source(place, HELD, source, False, 20_000)
    text = (place.root / "s3t.toml").read_text()
    changed = text.replace('label = "kind"', 'label = "what"').replace(
        'text = "what"', 'text = "note"'
    )
    assert changed != text
    (place.root / "s3t.toml").write_text(changed)
    later = Workspace(place.root)
    assert later.config.data.label == "what"
    target = Target("req-1", subject_digest(place.keys, "quentin"), "")
    assert said in later.datasets.contents([target]).texts["req-1"]
    assert "ugly" not in later.datasets.contents([target]).texts["req-1"]


TIERED: dict[str, dict[str, object]] = {
    "system": {"slices": 3, "budget": 3},
    "tiers": {"column": "plan", "values": [["trial"], ["paid"]], "slices": [1, 2]},
}


def _with_plans(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{**r, "plan": "trial" if int(r["who"][-3:]) % 3 == 0 else "paid"} for r in rows]


def test_tiers_place_by_the_declared_column_and_refuse_what_has_none(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place(**TIERED)
    rows = _with_plans(people())
    rows[1]["plan"], rows[2]["plan"] = "", "gold"
    rows[3]["plan"] = "paid"  # person-003 is a trial on its other row
    report = ingest_source(place, HELD, str(write_csv(tmp_path / "a.csv", rows)), False, 10)
    assert report.reasons == {
        "the tier is missing": 1,
        "the tier is not one of the declared ones": 1,
        "its subject's rows disagree about the tier": 2,
    }
    assert report.quarantined == 4 and report.records + report.held_out == 32
    found = {r.subject for s in (0, 1) for r in read_rows(place.root / "data" / slice_path(s, 0))}
    trials = {subject_digest(place.keys, r["who"]) for r in rows if r["plan"] == "trial"}
    assert found and found <= trials


@pytest.mark.parametrize(
    ("values", "column", "expected"),
    [
        ([["nobody"], ["*"]], "plan", "valid rows in every tier"),
        ([["trial"], ["*"]], "age", "column 'age'"),
    ],
)
def test_a_tier_rule_that_fits_nobody_or_no_column_is_refused_and_costs_nothing(
    make_place: Make, tmp_path: Path, values: list[list[str]], column: str, expected: str
) -> None:
    place = make_place(
        system={"slices": 3, "budget": 3},
        tiers={"column": column, "values": values, "slices": [1, 2]},
    )
    source = str(write_csv(tmp_path / "a.csv", _with_plans(people())))
    with pytest.raises(DataError, match=expected):
        ingest_source(place, HELD, source, False, 20_000)
    assert not (place.root / "data.dvc").exists() and not place.temporary_dir.exists()


def test_another_subjects_equal_text_or_record_id_refuses_no_row(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place()
    rows = [
        {"id": "same", "who": f"person-{i:03d}", "what": "w1 the same text w2", "kind": "good"}
        for i in range(9)
    ]
    report = ingest_source(place, HELD, str(write_csv(tmp_path / "a.csv", rows)), False, 20_000)
    assert (report.records + report.held_out, report.quarantined) == (9, 0)
    assert report.warnings == {"texts that stand in more than one row": 9}


def test_quarantine_names_the_place_of_each_row_in_the_source(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place()
    (tmp_path / "a.csv").write_text(
        "id,who,what,kind\nr1,p1,w1,good\nr2,p2\nr3,p3,w3,bad\nr4,p4,w4,ugly\nr5,p5,w5,good,x\n"
    )
    assert ingest_source(place, HELD, str(tmp_path / "a.csv"), False, 20_000).quarantined == 3
    lines = (place.state_dir / "quarantine" / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == [2, 4, 5]


def test_empty_ids_are_missing_ids_in_every_format(make_place: Make, tmp_path: Path) -> None:
    place = make_place()
    rows = [
        *people(6),
        {"id": "x", "who": "", "what": "w1", "kind": "good"},
        {"id": "", "who": "p", "what": "w1", "kind": "good"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert ingest_source(place, HELD, str(tmp_path / "a.jsonl"), False, 20_000).reasons == {
        "the subject is missing": 1,
        "the record is missing": 1,
    }


def test_a_file_without_a_header_shows_nothing_of_its_first_row(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place()
    (tmp_path / "a.csv").write_text("1,alice,a secret,good\n2,bob,another,bad\n")
    with pytest.raises(DataError, match="header") as caught:
        ingest_source(place, HELD, str(tmp_path / "a.csv"), False, 20_000)
    assert "alice" not in str(caught.value) and "secret" not in str(caught.value)


def test_append_refuses_data_that_is_not_the_recorded_version(
    make_place: Make, tmp_path: Path
) -> None:
    from s3t_core.slicefile import read_rows, write_rows

    place = make_place()
    source = str(write_csv(tmp_path / "a.csv", people()))
    ingest_source(place, HELD, source, False, 20_000)
    path = next(p for p in (place.root / "data").rglob("slice=*.parquet") if read_rows(p))
    kept = read_rows(path)
    write_rows(path, kept[1:])
    with pytest.raises(GuaranteeError, match="expected slice content"):
        ingest_source(place, HELD, source, True, 20_000)
    path.unlink()
    with pytest.raises(DataError, match="expected a slice file"):
        ingest_source(place, HELD, source, True, 20_000)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "tiny"', 'name = "other"'),
        ('url = ".s3t/stages"', 'url = "stages"'),
        ('remote = ".s3t/remote"', 'remote = "remote"'),
    ],
)
def test_settings_that_files_stand_under_may_change_until_the_first_data_and_not_after(
    make_place: Make, tmp_path: Path, old: str, new: str
) -> None:
    place = make_place()
    path = place.root / "s3t.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    source = str(write_csv(tmp_path / "a.csv", people()))
    ingest_source(Workspace(place.root), HELD, source, False, 20_000)
    assert ("../remote" in (place.root / ".dvc" / "config").read_text()) == ("remote" in new)
    path.write_text(text)
    with pytest.raises(WorkspaceError, match="as when the first data came"):
        _ = Workspace(place.root).requests


def test_a_lost_or_foreign_key_is_noticed_before_anyone_is_called_unknown(
    make_place: Make, tmp_path: Path
) -> None:
    place, other = make_place(), make_place("other", key=b"\x09" * 32)
    key = place.keys_dir / "workspace.key"
    key.write_bytes((other.keys_dir / "workspace.key").read_bytes())
    with pytest.raises(WorkspaceError, match="began with"):
        _ = Workspace(place.root).requests
    key.unlink()
    with pytest.raises(WorkspaceError, match="backup"):
        create_workspace(place.root, place.config)
    assert not key.exists()


def test_a_lost_database_is_never_replaced_by_an_empty_one(make_place: Make) -> None:
    place = make_place()
    (place.state_dir / "s3t.db").unlink()
    with pytest.raises(WorkspaceError, match="restore it"):
        _ = Workspace(place.root).requests
    assert not (place.state_dir / "s3t.db").exists()


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (None, "absent.csv", "no file"),
        (b"", "empty.csv", "empty file"),
        (b"", "empty.jsonl", "empty file"),
        (b"\n\n", "blank.jsonl", "empty file"),
        (b"id,who,what,kind\n", "header.csv", "got none"),
        (b"id,who,kind\n1,a,good\n", "column.csv", "expected column 'what'"),
        (b'{"who": "a", "kind": "good", "id": "1"}\n', "column.jsonl", "expected column 'what'"),
        (b"PAR1 this is no parquet", "broken.parquet", "readable Parquet"),
        (b"id,who,what,kind\n1,a,b,good\n", "odd.xml", "ending in"),
        (b"id,who,what,kind\n1,,w1,good\n2,b,,good\n", "refused.csv", "all refused"),
    ],
)
def test_a_source_that_cannot_be_used_is_an_error_and_costs_nothing(
    make_place: Make, tmp_path: Path, content: bytes | None, name: str, expected: str
) -> None:
    place = make_place()
    ingest_source(place, HELD, str(write_csv(tmp_path / "good.csv", people())), False, 20_000)
    files, version, head = _files(place), _version(place), place.ledger.head()
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        ingest_source(place, HELD, str(path), False, 20_000)
    assert caught.value.exit_code == 2
    assert (_files(place), _version(place), place.ledger.head()) == (files, version, head)
    assert not place.temporary_dir.exists()


def test_a_source_that_may_not_be_read_is_an_error(make_place: Make, tmp_path: Path) -> None:
    place = make_place()
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="no file"):
        ingest_source(place, HELD, str(tmp_path / "folder.csv"), False, 20_000)


def test_the_published_key_is_refused_for_data_of_ones_own(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place(key=EXAMPLE_KEY)
    with pytest.raises(WorkspaceError, match="published example key"):
        ingest_source(place, HELD, str(write_csv(tmp_path / "a.csv", people())), False, 20_000)


def test_keys_that_others_could_read_are_refused(make_place: Make, tmp_path: Path) -> None:
    place = make_place()
    os.chmod(place.keys_dir / "workspace.key", 0o644)
    with pytest.raises(WorkspaceError, match="readable by its owner only"):
        ingest_source(place, HELD, str(write_csv(tmp_path / "a.csv", people())), False, 20_000)


def test_a_directory_that_is_no_workspace_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="s3t init"):
        workspace_root(str(tmp_path))


@pytest.mark.parametrize("flow", ["erase", "train", "full-retrain", "ingest"])
def test_a_second_process_is_told_to_wait(make_place: Make, flow: str) -> None:
    from flows.prefect_flows.erase import erase
    from flows.prefect_flows.ingest import ingest
    from flows.prefect_flows.retrain import retrain
    from flows.prefect_flows.train import train

    place = make_place()
    start = {
        "erase": erase,
        "train": train,
        "full-retrain": retrain,
        "ingest": lambda root: ingest(root, "example:chitchat"),
    }[flow]
    with workspace_lock(place.lock_path), pytest.raises(Busy, match="another s3t process"):
        start(str(place.root))
    with workspace_lock(place.lock_path):
        pass  # free again


def test_the_versions_name_and_the_ledger_hold_no_id(make_place: Make, tmp_path: Path) -> None:
    place = make_place()
    ingest_source(place, HELD, str(write_csv(tmp_path / "a.csv", people())), False, 20_000)
    told = json.dumps(place.ledger.events()) + _version(place)
    assert "person-" not in told and "w1" not in told.split("digest")[0]


def test_every_error_of_the_tree_has_an_exit_code() -> None:
    def all_of(kind: type[S3TError]) -> list[type[S3TError]]:
        return [kind, *(k for sub in kind.__subclasses__() for k in all_of(sub))]

    assert {k.exit_code for k in all_of(S3TError)} == {1, 2}
