"""The data canon: slices are sets, digests are keyed, files hold no ids."""

import random
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.adapters.processes import mapping
from s3t_core.domain import Part, SliceId, Tiers, Topology
from s3t_core.errors import DataError, GuaranteeError, StorageError, WorkspaceError
from s3t_core.identity import spelt_under
from s3t_core.identity_index import IDENTITY_PATH
from s3t_core.keys import WorkspaceKeys, keyed_digest
from s3t_core.records import Row, slice_digest, subject_digest
from s3t_core.slicefile import (
    part_path,
    read_digests,
    read_rows,
    read_verified,
    slice_path,
    write_rows,
)
from s3t_core.snapshot import (
    CONFLICT,
    DUPLICATE,
    STANDS_ELSEWHERE,
    TIERS_DISAGREE,
    Refused,
    SnapshotBuilder,
    SourceRow,
    Suppressed,
    near_digests,
    suppression_digest,
)

KEYS = WorkspaceKeys.derive(b"\x01" * 32)
TOPOLOGY = Topology(2, 3, 1)


def _source(count: int = 60, record: bool = False) -> list[SourceRow]:
    return [
        SourceRow(
            i + 1,
            f"subject-{i % 17}",
            f"rec-{i}" if record else "",
            f"text {i % 23} é",
            "ab"[i % 2],
            f"conversation-{i % 11}",
        )
        for i in range(count)
    ]


def _build(
    folder: Path,
    rows: list[SourceRow],
    suppressed: set[str] | None = None,
    existing: object = None,
    records: set[str] | None = None,
) -> tuple[SnapshotBuilder, list[str]]:
    spool = folder / "spool"
    spool.mkdir(parents=True)
    builder = SnapshotBuilder(
        KEYS,
        TOPOLOGY,
        0.3,
        spool,
        Suppressed(frozenset(suppressed or ()), frozenset(records or ())),
    )
    builder.add(rows)
    refused = [r.reason for r in builder.write(folder / "data", existing or (lambda _: []))]  # type: ignore[arg-type]
    return builder, refused


def _files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in (folder / "data").rglob("*.parquet")
        if p.name != IDENTITY_PATH
    }


@pytest.mark.parametrize("record", [False, True])
def test_source_order_changes_no_slice(tmp_path: Path, record: bool) -> None:
    rows = _source(record=record)
    _build(tmp_path / "a", rows)
    random.Random(3).shuffle(rows)
    _build(tmp_path / "b", rows)
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


def test_slices_settled_in_other_processes_are_the_same(tmp_path: Path) -> None:
    rows = [
        *_source(record=True),
        *_source(),
        SourceRow(500, "subject-1", "rec-1", "again", "a", "c"),
    ]
    here, refused = _build(tmp_path / "a", rows)
    (tmp_path / "b").mkdir()
    there = SnapshotBuilder(KEYS, TOPOLOGY, 0.3, tmp_path / "b")
    there.add(rows)
    with mapping(True) as each:
        assert (
            [r.reason for r in there.write(tmp_path / "b" / "data", each=each)]
            == refused
            == [DUPLICATE] * 2
        )
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    assert here.counts == there.counts


def test_other_slices_rows_change_no_slice_digest(tmp_path: Path) -> None:
    _build(tmp_path / "a", _source())
    _build(tmp_path / "b", [r for r in _source() if r.subject != "subject-3"])
    before, after = _files(tmp_path / "a"), _files(tmp_path / "b")
    changed = {name for name in before if before[name] != after[name]}
    home = {
        p
        for p in before
        if any(d[0] == _subject("subject-3") for d in read_digests(tmp_path / "a" / p))
    }
    assert (
        changed == home and 1 <= len(home) <= 2
    )  # its slice, and the held-out file if it has rows there


def test_all_rows_of_a_subject_share_a_slice(tmp_path: Path) -> None:
    _build(tmp_path, _source())
    homes: dict[str, set[str]] = {}
    for path in (tmp_path / "data").rglob("slice=*.parquet"):
        for subject, _ in read_digests(path):
            homes.setdefault(subject, set()).add(path.as_posix())
    assert homes and all(len(h) == 1 for h in homes.values())


def test_no_raw_id_reaches_a_file_or_the_spool(tmp_path: Path) -> None:
    _build(tmp_path, _source(record=True))
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    cells = [
        v
        for p in map(tmp_path.joinpath, _files(tmp_path))
        for r in read_rows(p)
        for v in (r.subject, r.record)
    ]
    assert (
        b"subject-" not in everything
        and b"rec-" not in everything
        and b"conversation-" not in everything
    )
    assert all(len(v) == 64 for v in cells)


def test_a_record_id_twice_within_a_subject_refuses_both_and_across_subjects_neither(
    tmp_path: Path,
) -> None:
    twice = [
        SourceRow(1, "s", "r1", "one", "a", "c"),
        SourceRow(2, "s", "r1", "two", "a", "c"),
        SourceRow(3, "t", "r1", "one", "a", "c"),
    ]
    builder, refused = _build(tmp_path, twice)
    assert refused == [DUPLICATE, DUPLICATE]
    assert builder.counts.records + builder.counts.held_out == 1


def test_equal_rows_without_ids_are_all_kept(tmp_path: Path) -> None:
    builder, _ = _build(tmp_path, [SourceRow(i, "s", "", "same", "a", "c") for i in (1, 2, 3)])
    assert builder.counts.records + builder.counts.held_out == 3


def test_append_unites_and_is_idempotent(tmp_path: Path) -> None:
    rows = _source()
    _build(tmp_path / "all", rows)
    _build(tmp_path / "half", rows[:30])

    def existing(part: Part) -> list[Row]:
        return read_rows(tmp_path / "half" / "data" / part_path(part))

    _build(tmp_path / "united", rows, existing=existing)
    assert _files(tmp_path / "united") == _files(tmp_path / "all")


def test_append_refuses_other_content_under_a_known_record_id(tmp_path: Path) -> None:
    old = SourceRow(1, "s", "r1", "old text", "a", "c")
    _build(tmp_path / "a", [old])
    rows = {p: read_rows(tmp_path / "a" / p) for p in _files(tmp_path / "a")}

    def existing(part: Part) -> list[Row]:
        return rows[f"data/{part_path(part)}"]

    _, refused = _build(
        tmp_path / "b", [SourceRow(1, "s", "r1", "new text", "a", "c")], existing=existing
    )
    assert refused == [CONFLICT]
    assert _files(tmp_path / "a") == _files(tmp_path / "b")


def test_suppressed_subjects_and_records_are_left_out(tmp_path: Path) -> None:
    rows = _source(record=True)
    builder, _ = _build(
        tmp_path,
        rows,
        {suppression_digest(KEYS, "subject-3")},
        records={suppression_digest(KEYS, "subject-4", "rec-4")},
    )
    assert builder.counts.suppressed == sum(r.subject == "subject-3" for r in rows) + 1


@given(
    st.lists(
        st.tuples(st.text(max_size=8), st.text(max_size=8)), min_size=1, max_size=6, unique=True
    )
)
def test_the_digest_is_of_the_set_and_of_every_byte_of_it(cells: list[tuple[str, str]]) -> None:
    rows = [Row(f"{i}", "s", text, label) for i, (text, label) in enumerate(cells)]
    digest = slice_digest(KEYS, rows)
    assert slice_digest(KEYS, rows[::-1]) == digest
    assert slice_digest(KEYS, rows[1:]) != digest
    assert slice_digest(WorkspaceKeys.derive(b"\x02" * 32), rows) != digest


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_no_two_field_lists_share_an_encoding(one: list[str], two: list[str]) -> None:
    assert (keyed_digest(b"k", *one) == keyed_digest(b"k", *two)) == (one == two)


def test_keys_of_different_purposes_differ_and_are_never_shown() -> None:
    values = [KEYS.placement, KEYS.subject, KEYS.content, KEYS.suppression, KEYS.commitment]
    assert len(set(values)) == 5
    assert KEYS.content.hex() not in repr(KEYS) and str(KEYS.content) not in repr(KEYS)
    with pytest.raises(WorkspaceError, match="32 bytes"):
        WorkspaceKeys.derive(b"short")


def test_a_slice_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "slice.parquet"
    rows = [Row("r", "s", "text", "a")]
    write_rows(path, rows)
    digest = slice_digest(KEYS, rows)
    assert read_verified(path, KEYS, digest) == rows
    write_rows(path, [Row("r", "s", "other", "a")])
    with pytest.raises(GuaranteeError, match="expected slice content"):
        read_verified(path, KEYS, digest)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="expected a slice file"):
        read_rows(path)


def test_row_groups_have_a_fixed_size(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_rows(tmp_path / "x.parquet", [Row(f"{i:06d}", "s", "t", "a") for i in range(2500)])
    metadata = pq.ParquetFile(tmp_path / "x.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [
        1024,
        1024,
        452,
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]


def _subject(subject: str) -> str:
    from s3t_core.records import subject_digest

    return subject_digest(KEYS, subject)


TIERS = Tiers("plan", (("trial",), ("*",)), (1, 2))


def _tiered(
    tmp_path: Path, rows: list[tuple[str, int]], existing: list[Row] | None = None
) -> tuple[SnapshotBuilder, list[Refused]]:
    """Rows given as (subject, tier); `existing` stand in slice 1 of shard 0."""
    spool = tmp_path / "spool"
    spool.mkdir(parents=True)
    builder = SnapshotBuilder(KEYS, Topology(1, 3, 1), 0.0, spool, tiers=TIERS)
    builder.add(
        SourceRow(number, subject, f"r{number}", f"text {number}", "a", subject, tier)
        for number, (subject, tier) in enumerate(rows, 1)
    )
    refused = list(
        builder.write(tmp_path / "data", lambda s: (existing or []) if s == SliceId(0, 1) else [])
    )
    return builder, refused


def test_tiers_have_slices_of_their_own(tmp_path: Path) -> None:
    rows = [(f"p{i}", i % 2) for i in range(40)]
    builder, refused = _tiered(tmp_path, rows)
    assert not refused and builder.counts.rows_per_slice[SliceId(0, 0)] == 20
    likely = {r.subject for r in read_rows(tmp_path / "data" / slice_path(0, 0))}
    assert likely == {subject_digest(KEYS, s) for s, tier in rows if tier == 0}
    assert min(builder.counts.rows_per_slice.values()) > 3


def test_a_subject_whose_rows_disagree_about_its_tier_goes_to_quarantine_whole(
    tmp_path: Path,
) -> None:
    builder, refused = _tiered(tmp_path, [("ann", 0), ("bob", 1), ("ann", 1), ("cid", 0)])
    assert [(r.number, r.reason) for r in sorted(refused, key=lambda r: r.number)] == [
        (1, TIERS_DISAGREE),
        (3, TIERS_DISAGREE),
    ]
    assert {r.subject_digest for r in refused} == {subject_digest(KEYS, "ann")}
    assert builder.counts.records == 2  # bob and cid do not suffer for it


def test_append_never_lets_a_subject_stand_in_two_slices(tmp_path: Path) -> None:
    old = Row("0" * 64, subject_digest(KEYS, "ann"), "before", "a")
    builder, refused = _tiered(tmp_path, [("ann", 0), ("bob", 0)], [old])
    assert [(r.number, r.reason) for r in refused] == [(1, STANDS_ELSEWHERE)]
    assert builder.counts.records == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_spool_is_an_error_even_for_its_last_rows(tmp_path: Path) -> None:
    for name in ("0-0", "0-1"):
        (tmp_path / f"{name}.jsonl").symlink_to("/dev/full")
    builder = SnapshotBuilder(KEYS, Topology(1, 2, 1), 0.0, tmp_path)
    builder.add(_source(20))
    with pytest.raises(StorageError, match="could not spool the source: No space left"):
        # before anything is read back: what reads first is the writing of slices, which begins so
        builder.close()
    builder.close()  # once more, as whoever cleans up does


RULES: tuple[tuple[str, ...], ...] = (
    (),
    ("exact",),
    ("case",),
    ("trim",),
    ("unicode",),
    ("integer",),
    ("trim", "unicode", "case", "integer"),
)


@pytest.mark.parametrize(("before", "after"), product(RULES, repeat=2))
@pytest.mark.parametrize("record", ["", " R0-0", "17.0"])
def test_what_was_erased_under_one_rule_stays_out_of_the_same_file_under_any_other(
    tmp_path: Path, before: tuple[str, ...], after: tuple[str, ...], record: str
) -> None:
    """A person, or one record; with a readable id, or as a row of which nobody can say which record
    it is."""
    subject = "Bob@Example.org "
    spelt, spelt_record = spelt_under(before, subject), spelt_under(before, record)
    listed = suppression_digest(KEYS, spelt, spelt_record)
    near = frozenset(near_digests(KEYS, subject, spelt, spelt_record, before))
    partly = frozenset({subject_digest(KEYS, spelt)} if record else ())
    suppressed = Suppressed(
        frozenset() if record else frozenset({listed}),
        frozenset({listed}) if record else frozenset(),
        partly,
        near,
    )
    builder = SnapshotBuilder(KEYS, TOPOLOGY, 0.3, tmp_path, suppressed, id_rule=after)
    now, now_record = spelt_under(after, subject), spelt_under(after, record)
    row = SourceRow(1, now, now_record, "text", "a", "c", None, subject, record)
    other = row._replace(number=2, subject="ann", given="ann")
    builder.add([row, other])
    assert builder.counts.suppressed == 1
    assert builder.is_suppressed(now, now_record, subject, record)
    assert builder.is_suppressed(now, "", subject), "any of its records, for all anybody can say"
    assert not builder.is_suppressed("ann", now_record, "ann", record)


def test_a_row_that_is_left_out_says_nothing_of_tiers(tmp_path: Path) -> None:
    gone = suppression_digest(KEYS, "s1")
    tiers = Tiers("plan", (("a",), ("b",)), (1, 2))
    builder = SnapshotBuilder(KEYS, TOPOLOGY, 0.3, tmp_path, Suppressed(frozenset({gone})), tiers)
    builder.add(
        [SourceRow(1, "s1", "", "t", "a", "c", 1), SourceRow(2, "s2", "", "t", "a", "c", 0)]
    )
    assert builder.tiers_seen == {0}
