"""An edited ledger is refused: on every read, by every command that needs the state."""

import sqlite3
from pathlib import Path

import pytest

from flows.adapters import database
from flows.adapters.database import Database, SqlLedger
from s3t_core.erasure.merkle import leaf_hash
from s3t_core.erasure.vocabulary import Event
from s3t_core.errors import LedgerError, StorageError

NOW = "2026-01-01T00:00:00Z"


def _hold(n: int) -> Event:
    """An event that may come at any time."""
    return {
        "type": "hold",
        "state": "set",
        "time": NOW,
        "subject": f"s{n}",
        "id_rule": [],
        "basis": "other",
        "reason": "r",
        "by": "x",
    }


@pytest.fixture
def ledger(tmp_path: Path) -> SqlLedger:
    database = Database("sqlite:///l.db", tmp_path)
    assert not database.exists()
    database.create([{"type": "workspace", "time": NOW}, *(_hold(n) for n in range(4))])
    assert database.exists()
    return SqlLedger(database)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET leaf = CAST(replace(CAST(leaf AS TEXT), '2', '3') AS BLOB) WHERE seq = "
        "2",
        "DELETE FROM ledger WHERE seq = 2",
        "UPDATE ledger SET seq = seq + 10 WHERE seq = 4",
        "UPDATE ledger SET hash = zeroblob(32) WHERE seq = 0",
        "UPDATE ledger SET seal = zeroblob(32) WHERE seq = 3",
        "UPDATE ledger SET seal = (SELECT seal FROM ledger WHERE seq = 2) WHERE seq = 3",
    ],
)
def test_an_entry_changed_removed_or_moved_is_refused(
    ledger: SqlLedger, tmp_path: Path, statement: str
) -> None:
    assert ledger.head().size == 5 and len(ledger.events()) == 5
    ledger.state()  # also by a process that folded it before
    with sqlite3.connect(tmp_path / "l.db") as connection:
        assert connection.execute(statement).rowcount == 1
    with pytest.raises(LedgerError, match="expected ledger entry"):
        ledger.state()


def test_what_was_folded_before_is_folded_on_and_stays_as_it_was_given(
    ledger: SqlLedger, tmp_path: Path
) -> None:
    first = ledger.state()
    ledger.append(_hold(7))
    second = ledger.state()
    second.holds.pop("s7")  # whoever got a state cannot change the next one's
    ledger.append(_hold(8))
    assert (
        "s7" not in first.holds
        and ledger.state().holds["s7"].to_json() == _hold(7)
        and "s8" in ledger.state().holds
    )


def test_who_has_read_more_of_a_ledger_believes_no_older_copy(
    ledger: SqlLedger, tmp_path: Path
) -> None:
    """One was put in its place, and went another way: a command that began before would take what
    it has for what is there."""
    ledger.append(_hold(7), _hold(8))
    assert "s8" in ledger.state().holds
    with sqlite3.connect(tmp_path / "l.db") as connection:
        connection.execute("DELETE FROM ledger WHERE seq > 5")
    with pytest.raises(LedgerError, match="took its place meanwhile"):
        ledger.state()
    other = SqlLedger(Database("sqlite:///l.db", tmp_path))
    other.append(_hold(9))
    for _ in range(2):
        with pytest.raises(LedgerError, match="took its place meanwhile"):
            ledger.append(_hold(10))
    assert other.state().holds.keys() == {"s0", "s1", "s2", "s3", "s7", "s9"}


def test_appending_is_all_or_nothing(ledger: SqlLedger) -> None:
    head = ledger.head()
    with pytest.raises(Exception, match=r"(?i)unsupported|serializ"):
        ledger.append(_hold(7), {"type": object(), "time": NOW})
    with pytest.raises(LedgerError):
        ledger.append(_hold(7), {"type": "workspace", "time": NOW})
    assert ledger.head() == head


def test_two_writers_never_share_a_place_in_the_ledger(ledger: SqlLedger) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: ledger.append(_hold(n)), range(40)))
    assert ledger.head().size == 45 and len(ledger.events()) == 45


IGNORES = "CREATE TRIGGER quiet BEFORE INSERT ON {} BEGIN SELECT RAISE(IGNORE); END"
DIVERSIONS = {
    "ledger": [IGNORES.format("ledger")],
    "requests": [IGNORES.format("Requests")],
    "update": ["CREATE TRIGGER quiet BEFORE UPDATE ON requests BEGIN SELECT RAISE(IGNORE); END"],
    "suppression": [
        "CREATE TRIGGER quiet AFTER INSERT ON suppression BEGIN DELETE FROM suppression; END"
    ],
    "view": [
        "ALTER TABLE suppression RENAME TO theirs",
        "CREATE VIEW suppression AS SELECT * FROM theirs",
        "CREATE TRIGGER quiet INSTEAD OF INSERT ON suppression BEGIN SELECT 1; END",
    ],
}


@pytest.mark.parametrize("statements", DIVERSIONS.values(), ids=DIVERSIONS)
def test_a_database_that_does_something_else_with_what_is_written_is_refused(
    ledger: SqlLedger, tmp_path: Path, statements: list[str]
) -> None:
    with sqlite3.connect(tmp_path / "l.db") as connection:
        for statement in statements:
            connection.execute(statement)
    with pytest.raises(LedgerError, match="trigger or a rule"):
        ledger.append(_hold(7))
    with pytest.raises(LedgerError, match="trigger or a rule"):
        Database("sqlite:///l.db", tmp_path).exists()  # as every command opens it


TYPES = [
    "UPDATE ledger SET leaf = CAST(leaf AS TEXT)",
    "UPDATE ledger SET leaf = 10000000000 WHERE seq = 0",
    "UPDATE ledger SET seal = 'seal' WHERE seq = 3",
    "UPDATE ledger SET hash = 1.5, seal = 1.5 WHERE seq = 2",
    "UPDATE ledger SET seal = CAST(hex(seal) AS TEXT)",
    "UPDATE ledger SET leaf = x'ff00' WHERE seq = 0",
    "UPDATE ledger SET leaf = CAST('[1]' AS BLOB) WHERE seq = 0",
    "UPDATE ledger SET leaf = CAST(replace(hex(zeroblob(50000)), '0', '[') AS BLOB) WHERE seq = 0",
    "UPDATE ledger SET leaf = CAST(CAST(x'ff' AS TEXT) AS TEXT) WHERE seq = 0",
    "DELETE FROM ledger",
]


@pytest.mark.parametrize("statement", TYPES)
@pytest.mark.parametrize("hashed", [False, True])
def test_what_is_no_entry_of_a_ledger_is_refused_in_words(
    ledger: SqlLedger, tmp_path: Path, statement: str, hashed: bool
) -> None:
    """SQLite keeps a value of any type in any column. `hashed`: whoever wrote it made the hashes
    fit as well."""
    with sqlite3.connect(tmp_path / "l.db") as connection:
        connection.execute(statement)
        if hashed:
            for seq, leaf in connection.execute(
                "SELECT seq, leaf FROM ledger WHERE typeof(leaf) = 'blob'"
            ).fetchall():
                connection.execute(
                    "UPDATE ledger SET hash = ? WHERE seq = ?", (leaf_hash(leaf), seq)
                )
    ledger = SqlLedger(Database("sqlite:///l.db", tmp_path))
    for read in (ledger.state, ledger.events) if statement != TYPES[-1] else ():
        with pytest.raises((LedgerError, StorageError)):
            read()
    if "seq = 0" in statement or statement in (TYPES[0], TYPES[-1]):
        with pytest.raises((LedgerError, StorageError)):
            ledger.beginning()


def test_an_entry_that_did_not_come_to_the_table_is_no_entry(
    ledger: SqlLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it was swallowed: nobody is told that it was recorded."""
    monkeypatch.setattr(database, "_refuse_diversions", lambda _: None)
    with sqlite3.connect(tmp_path / "l.db") as connection:
        connection.execute(IGNORES.format("ledger"))
    with pytest.raises(LedgerError, match="just written"):
        ledger.append(_hold(7))
    assert ledger.head().size == 5
