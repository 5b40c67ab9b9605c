"""Ledger tree, envelopes, certificates, residue scan, stage store."""

import gzip
import json
import sqlite3
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from s3t_core.canonical import sha256_hex
from s3t_core.erasure.dsse import pre_authentication, sign, verify
from s3t_core.erasure.ledger import fold, leaf_of
from s3t_core.erasure.merkle import leaf_hash, node_hash, tree_head
from s3t_core.erasure.needles import make_needles
from s3t_core.erasure.residue import scan
from s3t_core.errors import ArtifactError, CertificateError, LedgerError
from s3t_core.learning.store import LocalStageStore
from s3t_core.ports import Target
from s3t_core.records import Row
from s3t_core.slicefile import write_rows

KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)


def _rfc6962(leaves: list[bytes]) -> bytes:
    """The definition, recursively."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(_rfc6962(leaves[:split]), _rfc6962(leaves[split:]))


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=40))
def test_the_tree_head_is_that_of_rfc_6962(entries: list[bytes]) -> None:
    leaves = [leaf_hash(e) for e in entries]
    assert tree_head(leaves) == _rfc6962(leaves)


def test_the_tree_head_of_nothing_and_of_the_rfcs_first_leaf() -> None:
    assert tree_head([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert (
        tree_head([leaf_hash(b"")]).hex()
        == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )


@given(st.lists(st.integers(0, 3), min_size=2, max_size=9), st.data())
def test_any_change_removal_or_reordering_of_entries_changes_the_head(
    kinds: list[int], data: st.DataObject
) -> None:
    leaves = [leaf_of({"type": "workspace", "n": i, "k": k}) for i, k in enumerate(kinds)]
    i = data.draw(st.integers(0, len(leaves) - 1))
    j = data.draw(st.integers(0, len(leaves) - 1).filter(lambda j: j != i))
    swapped = list(leaves)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    for other in (
        leaves[:i] + leaves[i + 1 :],
        swapped,
        [*leaves[:i], leaves[i] + b" ", *leaves[i + 1 :]],
    ):
        assert tree_head([leaf_hash(x) for x in other]) != tree_head([leaf_hash(x) for x in leaves])


def test_an_unknown_event_is_refused_not_skipped() -> None:
    with pytest.raises(LedgerError, match="known event"):
        fold([{"type": "from the future"}])
    with pytest.raises(LedgerError, match="whole stage event"):
        fold(
            [
                {"type": "workspace", "time": "2026-01-01T00:00:00Z"},
                {"type": "stage", "time": "2026-01-01T00:00:00Z"},
            ]
        )


def test_the_pre_authentication_encoding_is_that_of_the_specification() -> None:
    assert pre_authentication("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_any_changed_byte_of_an_envelope_is_detected() -> None:
    envelope = sign({"a": "specimen", "b": [1, 2]}, KEY)
    assert verify(envelope, KEY.public_key()) == {"a": "specimen", "b": [1, 2]}
    for i in range(len(envelope)):
        for change in (1, 32, 128):
            forged = envelope[:i] + bytes([envelope[i] ^ change]) + envelope[i + 1 :]
            with pytest.raises(CertificateError):
                verify(forged, KEY.public_key())
    spaced = json.dumps(json.loads(envelope)).encode()
    for forged in (envelope + b"\n", b" " + envelope, spaced, b"", b"{}", b"[" * 9999):
        with pytest.raises(CertificateError):
            verify(forged, KEY.public_key())


def test_another_key_does_not_verify() -> None:
    with pytest.raises(CertificateError, match="another key"):
        verify(sign({"a": 1}, KEY), Ed25519PrivateKey.generate().public_key())


HER = "a" * 64
TARGET = Target("q", HER, "")
TEXT = "a long confession about the café on the corner, never to be read again by anyone at all"


def test_the_scan_finds_a_text_wherever_it_hides(tmp_path: Path) -> None:
    raw = TEXT.encode()
    (tmp_path / "log.txt").write_bytes(b"x" * 100 + raw[:60])
    (tmp_path / "escaped.json").write_text(json.dumps({"t": TEXT}))
    (tmp_path / "zipped.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "object").write_bytes(zlib.compress(b"blob 12\0" + raw))
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (?)", ("y" * 5000 + TEXT,))
    write_rows(tmp_path / "slice.parquet", [Row("r", HER, TEXT, "a")])
    report = scan(
        tmp_path, [], [p.name for p in tmp_path.iterdir()], [], make_needles([], [TEXT]), [TARGET]
    )
    assert set(report.residue) == {
        "log.txt",
        "escaped.json",
        "zipped.gz",
        "object",
        "a.db",
        "slice.parquet",
    }


def test_a_match_in_another_subjects_row_is_shared_and_elsewhere_is_outside(tmp_path: Path) -> None:
    write_rows(tmp_path / "data" / "slice.parquet", [Row("r", "b" * 64, TEXT, "a")])
    (tmp_path / "source.csv").write_text(f"person-77,{TEXT}\n")
    report = scan(tmp_path, [], ["data"], [], make_needles(["person-77"], [TEXT]), [TARGET])
    assert (report.residue, report.outside, report.shared) == ((), ("source.csv",), 1)


def test_ids_match_as_whole_words_and_short_needles_are_counted_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("person-771 came, xperson-77 left")
    report = scan(tmp_path, [], ["log"], [], make_needles(["person-77", "7"], ["hi"]), [])
    assert (report.residue, report.unsearchable) == ((), 2)
    (tmp_path / "log").write_text("request by person-77.")
    assert scan(tmp_path, [], ["log"], [], make_needles(["person-77"], []), []).residue == ("log",)


def test_a_row_of_an_erased_subject_is_found_by_its_digest_whatever_its_text(
    tmp_path: Path,
) -> None:
    write_rows(tmp_path / "slice.parquet", [Row("r", HER, "hi", "a")])
    report = scan(tmp_path, [], ["slice.parquet"], [], make_needles([], ["hi"]), [TARGET])
    assert report.residue == ("slice.parquet",)


def test_an_erased_record_is_found_by_its_digest_and_her_other_records_are_not_residue(
    tmp_path: Path,
) -> None:
    write_rows(
        tmp_path / "slice.parquet", [Row("gone", HER, "hi", "a"), Row("stays", HER, "ho", "a")]
    )
    none = make_needles([], [])
    for record, residue in (("gone", ("slice.parquet",)), ("another", ())):
        found = scan(tmp_path, [], ["slice.parquet"], [], none, [Target("q", HER, record)])
        assert found.residue == residue


def test_rows_that_name_no_subject_and_stores_anywhere_count_as_the_systems_own(
    tmp_path: Path,
) -> None:
    (tmp_path / "x.jsonl").write_text(
        json.dumps({"subject_digest": "", "t": TEXT}) + "\n" + json.dumps([TEXT])
    )
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "left").write_text(TEXT)
    report = scan(tmp_path, [tmp_path / "stages"], ["x.jsonl"], [], make_needles([], [TEXT]), [])
    assert report.residue == ("stages/left", "x.jsonl")


@given(
    st.lists(st.text("ab -_é", min_size=12, max_size=20), max_size=30), st.text("ab -_é"), st.data()
)
def test_many_needles_are_found_where_few_are(
    ids: list[str], around: str, data: st.DataObject
) -> None:
    windows = [f"{word} and what was told of it" for word in ids[::2]]
    few = make_needles(ids[:3], windows[:3])
    many = make_needles([*ids[:3], *(f"nobody-{n}-of-that-name" for n in range(40))], windows[:3])
    told = data.draw(st.sampled_from([*ids[:3], *windows[:3], "none"]))
    haystack = (around + told + data.draw(st.text("ab -_é"))).encode()
    assert many.found_in(haystack) == few.found_in(haystack)


def test_what_the_system_writes_anyway_is_no_needle(tmp_path: Path) -> None:
    label = "What superpower do you wish you had, and why?"
    text = f"{label} Flying of course, over the whole of my own town and back."
    written_anyway = f"labels = [{label!r}] s3t-champion-1".encode()
    needles = make_needles(["default", "s3t-champion-1"], [label, text], written_anyway)
    assert needles.unsearchable == 3 and not needles.found_in(label.encode())
    assert needles.found_in(b"... course, over the whole of my own town and back.")


def test_the_store_verifies_every_load(tmp_path: Path) -> None:
    store = LocalStageStore(tmp_path, b"key")
    digest = store.put("key", b"weights")
    assert digest == sha256_hex(b"weights") and store.get(digest) == b"weights"
    assert store.bindings() == {"key": digest}
    artifact = tmp_path / f"{digest}.safetensors"
    for damaged in (b"weight", b"weightz", b""):
        artifact.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="expected stage artifact"):
            store.get(digest)
        assert store.bindings() == {}
    artifact.unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        store.get(digest)
    store.delete(digest)
    assert list(store.digests()) == [] and list(tmp_path.iterdir()) == []
