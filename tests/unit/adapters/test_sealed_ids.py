"""Ids as given on their way from a host apart: each opens for its own request alone, and only to
what the ledger was told of."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.adapters import sealed_ids
from flows.adapters.database import Database
from flows.adapters.needle_files import NeedleFiles
from flows.adapters.sealed_ids import SealedIds, SealingIds, Told, new_unsealing_key
from s3t_core.errors import WorkspaceError

KEY, HOST = b"\x07" * 32, "a" * 64


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database("sqlite:///ids.db", tmp_path, KEY)
    made.prepare()
    yield made
    made.engine.dispose()


@pytest.fixture
def host(tmp_path: Path) -> SealingIds:
    return SealingIds(new_unsealing_key(tmp_path, HOST), HOST, KEY)


def _put(
    database: Database, host: SealingIds, ids: Mapping[str, list[str]], again: bool = False
) -> None:
    host.keep_ids(ids)
    with database.transaction() as connection:
        host.write(connection, ids, again)


def _taken(database: Database, tmp_path: Path, told: Mapping[str, list[str]]) -> NeedleFiles:
    kept = NeedleFiles(tmp_path / "needles", KEY)
    digests = {r: [kept.digest_of(r, i) for i in ids] for r, ids in told.items()}
    told_of = Told(digests, {HOST})
    SealedIds(database, tmp_path).take(kept, lambda: told_of)
    assert SealedIds(database, tmp_path).take(kept, lambda: told_of) == 0, "the rows are gone"
    return kept


def test_what_was_told_of_comes_out_and_nothing_else(
    database: Database, host: SealingIds, tmp_path: Path
) -> None:
    """Whoever has the public key can seal anything to it."""
    _put(
        database,
        host,
        {"req-1": ["ann", "Ann "], "req-2": ["bob", "somebody else"], "req-3": ["x"]},
    )
    kept = _taken(database, tmp_path, {"req-1": ["ann", "Ann "], "req-2": ["bob"]})
    found = {r: kept.ids_of(r) for r in ("req-1", "req-2", "req-3")}
    assert found == {"req-1": ["ann", "Ann "], "req-2": ["bob"], "req-3": []}


def test_a_row_opens_for_its_own_request_alone(tmp_path: Path) -> None:
    new_unsealing_key(tmp_path, HOST)
    private = sealed_ids._unsealing_key(tmp_path, HOST)
    sealed = sealed_ids._seal(private.public_key(), "req-1", ["ann"])
    assert sealed_ids._opened(private, "req-1", sealed) == ["ann"]
    assert sealed_ids._opened(private, "req-2", sealed) == []
    assert sealed_ids._opened(private, "req-1", sealed[:-1]) == []
    new_unsealing_key(tmp_path, "b" * 64)
    other = sealed_ids._unsealing_key(tmp_path, "b" * 64)
    assert sealed_ids._opened(other, "req-1", sealed) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_any_ids_come_back_as_they_were_given(ids: list[str]) -> None:
    private = sealed_ids.X25519PrivateKey.generate()
    sealed = sealed_ids._seal(private.public_key(), "req-1", ids)
    assert sealed_ids._opened(private, "req-1", sealed) == ids
    assert sealed_ids._seal(private.public_key(), "req-1", ids) != sealed, "a key of its own"


@pytest.mark.parametrize("how", ["gone", "others can read it", "another text"])
def test_without_the_key_nothing_is_removed(
    database: Database, host: SealingIds, tmp_path: Path, how: str
) -> None:
    _put(database, host, {"req-1": ["ann"]})
    [key] = tmp_path.glob("unseal-*")
    kept = key.read_bytes()
    if how == "gone":
        key.unlink()
    elif how == "others can read it":
        key.chmod(0o644)
    else:
        key.write_text("not a key")
    with pytest.raises(WorkspaceError, match="opens the ids"):
        _taken(database, tmp_path, {"req-1": ["ann"]})
    key.write_bytes(kept)
    key.chmod(0o600)
    assert _taken(database, tmp_path, {"req-1": ["ann"]}).ids_of("req-1") == ["ann"]


def test_what_was_not_accepted_is_written_nowhere(database: Database, host: SealingIds) -> None:
    host.keep_ids({"req-1": ["ann"]})
    host.destroy("", ["req-1"])
    with host.accepting():
        host.keep_ids({"req-2": ["bob"]})
    with database.transaction() as connection:
        host.write(connection, ["req-1", "req-2"])
    assert SealedIds(database, Path())._rows() == []


def _rows_of_a_hostile_host(private: sealed_ids.X25519PrivateKey) -> dict[str, dict[str, object]]:
    public = private.public_key()
    odd = sealed_ids._SUITE.encrypt(b'["\\ud800abc"]', public, info=b"s3t ids as given of req-1")
    no_list = sealed_ids._SUITE.encrypt(b'{"a": 1}', public, info=b"s3t ids as given of req-1")
    return {
        "of nobody": {"host": "b" * 64, "sealed": b"x"},
        "of a path": {"host": "../" * 20 + "abcd", "sealed": b"x"},
        "of a name with a zero": {"host": "a\0b", "sealed": b"x"},
        "half a character": {"host": HOST, "sealed": odd},
        "no list": {"host": HOST, "sealed": no_list},
        "empty": {"host": HOST, "sealed": b""},
        "large": {"host": HOST, "sealed": bytes(2**20 + 1)},
    }


def test_no_row_that_a_host_may_write_stops_an_erasure_or_another_request(
    database: Database, host: SealingIds, tmp_path: Path
) -> None:
    private = sealed_ids._unsealing_key(tmp_path, HOST)
    with database.transaction() as connection:
        for name, row in _rows_of_a_hostile_host(private).items():
            connection.execute(
                sealed_ids.SEALED_IDS.insert().values(id=name, request="req-1", **row)
            )
    _put(database, host, {"req-2": ["ann"], "../../evil": ["eve"]})
    kept = _taken(database, tmp_path, {"req-1": ["bob"], "req-2": ["ann"], "../../evil": ["eve"]})
    assert kept.ids_of("req-2") == ["ann"] and kept.ids_of("req-1") == []
    written = {p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob("*.json")}
    assert written == {"needles"}, "and in no other place"
    with database.reading() as connection:
        assert connection.execute(sealed_ids.SEALED_IDS.select()).first() is None


def test_who_asks_again_and_again_fills_no_table(database: Database, host: SealingIds) -> None:
    for _ in range(20):
        _put(database, host, {"req-1": ["ann"]}, again=True)
    assert len(SealedIds(database, Path())._rows()) == 8
