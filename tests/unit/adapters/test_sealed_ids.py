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
from flows.adapters.sealed_ids import SealedIds, SealingIds, new_unsealing_key
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


def _put(database: Database, host: SealingIds, ids: Mapping[str, list[str]]) -> None:
    host.keep_ids(ids)
    with database.transaction() as connection:
        host.write(connection, ids)


def _taken(database: Database, tmp_path: Path, told: Mapping[str, list[str]]) -> NeedleFiles:
    kept = NeedleFiles(tmp_path / "needles", KEY)
    digests = {r: [kept.digest_of(r, i) for i in ids] for r, ids in told.items()}
    SealedIds(database, tmp_path).take(kept, lambda: digests)
    assert SealedIds(database, tmp_path).take(kept, lambda: digests) == 0, "the rows are gone"
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
