"""Requests, ledger and suppression list in a database (SQLAlchemy). Rows hold keyed digests and
times, and, in entries of the ledger, what somebody typed as a reason or a name, and paths.

1. An entry of the ledger is appended only if its rules allow it (s3t_core.erasure.rules), in the
   transaction that changes what it tells of, with the lease it was written under, and after a
   correction where the clock ran back.
2. It is sealed: HMAC-SHA256, under a key of the workspace, over its place, the seal before it and
   its leaf hash. Whoever can only write to the table can add, change, move and repeat nothing.
3. The book of requests and the suppression list are held against the ledger, when a command begins
   (s3t_core.erasure.closing.check_book), and each request whenever it is read (check_request).

SQLite runs with secure_delete (freed pages are overwritten) and full synchronisation, PostgreSQL
with synchronous_commit: what was acknowledged is on disk. Every change of requests and the ledger
event that tells of it are one transaction; one writer at a time, on PostgreSQL by the lock on a row
(one that anybody may take, an advisory lock, would let an account that only reads stop every
command). The schema is in flows/migrations.
"""

import contextlib
import hmac
import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    RowMapping,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from flows.adapters import connecting
from flows.migrations import HEAD, VERSION_TABLE, revision_of, upgrade
from s3t_core.canonical import sha256_hex
from s3t_core.domain import DeletionRequest
from s3t_core.erasure import events
from s3t_core.erasure.closing import as_told, check_book, check_request
from s3t_core.erasure.events import LedgerEvent, as_json
from s3t_core.erasure.ledger import (
    Inclusion,
    TreeHead,
    corrected,
    fold,
    head_of,
    inclusion_of,
    leaf_of,
)
from s3t_core.erasure.merkle import leaf_hash
from s3t_core.erasure.state import State
from s3t_core.erasure.vocabulary import Event
from s3t_core.errors import LedgerError, StorageError, WorkspaceError
from s3t_core.files import remove_file
from s3t_core.ports import Closing, NewRequest

METADATA = MetaData()
_LEDGER = Table(
    "ledger",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("seal", LargeBinary, nullable=False),
)
_REQUESTS = Table(
    "requests",
    METADATA,
    Column("seq", Integer, primary_key=True),
    Column("id", String, unique=True, nullable=False),
    Column("subject", String, nullable=False),
    Column("record", String, nullable=False),
    Column("suppression", String, nullable=False, index=True),
    Column("commitment", String, nullable=False),
    Column("salt", String, nullable=False),
    Column("received", String, nullable=False),
    Column("due", String, nullable=False),
    Column("certificate", String, nullable=False, default=""),
)
_SUPPRESSION = Table(
    "suppression",
    METADATA,
    Column("digest", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("request", String, nullable=False),
    Column("since", String, nullable=False),
)
LEASE = Table(
    "lease",
    METADATA,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("place", String, nullable=False),
    Column("beat", Integer, nullable=False),
)
_WRITER = Table("writer", METADATA, Column("only", Integer, primary_key=True, autoincrement=False))
"""One row: whoever writes holds it, on PostgreSQL, and an account that may only read cannot."""
_APART = (LEASE, _WRITER)
"""Of the database itself, not of the workspace: they do not move with it."""

_TYPES = {
    table.name: tuple(c.type.python_type for c in table.c) for table in METADATA.sorted_tables
}
_Row = Row[tuple[object, ...]]
_CHUNK = 1000
"""Rows at a time when a database is copied."""
_SQLITE = "sqlite:///"
_MAKING = 0x53335400
"""The advisory lock of whoever makes the tables, on PostgreSQL."""


class Database:
    """One engine; transactions that hold the write lock from their start."""

    def __init__(self, url: str, root: Path, sealing: bytes = b"") -> None:
        """`sealing`: the key of the ledger's seals; with another one, or none, its entries are
        refused."""
        self._path = root / url.removeprefix(_SQLITE) if url.startswith(_SQLITE) else None
        if self._path is None and find_spec("psycopg") is None:
            raise WorkspaceError(
                "expected the package psycopg for a postgresql:// URL, got none; install "
                "s3t[postgresql]"
            )
        self.engine: Engine = create_engine(
            f"{_SQLITE}{self._path}"
            if self._path
            else f"postgresql+psycopg://{url.partition('://')[2]}",
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={} if self._path else connecting.NETWORK,
        )
        event.listen(
            self.engine,
            "connect",
            connecting.configure_sqlite if self._path else connecting.configure_postgresql,
        )
        self.sealing = sealing
        self.fence: Callable[[Connection], None] | None = None
        """Asked at the start of every write: whoever lost the lease (flows.adapters.lease) is
        stopped by it."""
        self.lease = ""
        """The token of the lease that is held: it stands in every entry that is written under
        it."""
        self.tells = True
        """False: whoever is worked for may not be told who is in the data, whatever account this
        is."""
        self._known = Folded(0, b"", State())
        self._leaves: list[bytes] = []
        """Leaf hashes of the entries that `_known` is made of."""

    def exists(self) -> bool:
        """Whether the database is there with a beginning of its ledger."""
        if self._path is not None and not self._path.is_file():
            return False
        with self.reading() as connection:
            _refuse_diversions(connection)
            begun = inspect(connection).has_table("ledger")
            return begun and connection.execute(select(_LEDGER.c.seq)).first() is not None

    def may_erase(self) -> bool:
        """Whether this account, and whoever it works for, may put people on the suppression list:
        on a server not everybody may (infra/roles.sql)."""
        if not self.tells:
            return False
        if self._path is not None:
            return True
        with self.reading() as connection:
            return bool(
                connection.exec_driver_sql(
                    "SELECT has_table_privilege('suppression', 'INSERT')"
                ).scalar()
            )

    def create(self, first: list[LedgerEvent]) -> None:
        """Create the tables and begin the ledger with `first`."""
        self.prepare()
        with self.transaction() as connection:
            self.append(connection, first)

    def prepare(self) -> None:
        """Make the tables, without a beginning, for `move_to`."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self.complete()

    def complete(self) -> None:
        """Bring the tables of an earlier release to this one's. Raises StorageError for those of a
        later one."""
        with self.reading() as connection:
            if revision_of(connection) == HEAD:
                return
        with self.transaction() as connection:
            upgrade(connection)

    def occupied(self) -> bool:
        """Whether there is anything that could be taken for ours: tables of our names, whoever's
        they are."""
        if self._path is not None and not self._path.is_file():
            return False
        with self.reading() as connection:
            return bool(
                {*inspect(connection).get_table_names()} & {*METADATA.tables, VERSION_TABLE}
            )

    def move_to(self, other: "Database", last: LedgerEvent) -> None:
        """Copy everything to `other`, where what an earlier try copied is replaced, append `last`
        there, then take the tables away here, so that whoever still has this database open is
        refused: nobody writes in between. Raises StorageError, and WorkspaceError where another
        workspace's ledger is there by now."""
        with self.transaction() as here:
            tables = [t for t in METADATA.sorted_tables if t not in _APART]
            with other.transaction() as there:
                if _owner_of(there) not in ("", _owner_of(here)):
                    raise WorkspaceError(
                        "expected a database without a ledger to move to, got another workspace's, "
                        "begun meanwhile; nothing was changed there. Run `s3t migrate --undo`, "
                        "then move to another database"
                    )
                for table in tables:
                    there.execute(delete(table))
                    order = [table.c.seq] if "seq" in table.c else []
                    rows = here.execute(
                        select(table).order_by(*order), execution_options={"yield_per": _CHUNK}
                    )
                    for chunk in rows.mappings().partitions():
                        there.execute(insert(table), [_without_number(table, row) for row in chunk])
                other.append(there, [last])
            _check_copied(here, other, tables)
            for table in tables:
                table.drop(here)

    def append(self, connection: Connection, told: Iterable[LedgerEvent | Event]) -> None:
        """Append within a transaction that holds the write lock. Raises LedgerError for what the
        ledger's rules do not allow in its present state; then nothing is appended."""
        before = self.caught_up(connection)
        stamped = corrected((self._stamped(as_json(e)) for e in told), before.state.time)
        leaves = [leaf_of(e) for e in stamped]
        fold((json.loads(leaf) for leaf in leaves), before.state, before.size)
        rows, seal = [], before.seal
        for number, leaf in enumerate(leaves, before.size):
            hashed = leaf_hash(leaf)
            seal = seal_of(self.sealing, number, seal, hashed)
            rows.append({"seq": number, "leaf": leaf, "hash": hashed, "seal": seal})
        if rows:
            connection.execute(insert(_LEDGER), rows)
            there = [(r.seq, r.leaf, r.hash, r.seal) for r in _rows_from(connection, before.size)]
            if there != [(r["seq"], r["leaf"], r["hash"], r["seal"]) for r in rows]:
                raise LedgerError(
                    "expected the ledger's table to hold the entries that were just written to it, "
                    "got others or none: the database does something else with them; nothing was "
                    "changed. Find out who made it do so (a trigger, a rule, a constraint), and "
                    "take that away"
                )

    def folded(self, connection: Connection) -> "Folded":
        """Returns the ledger, read whole: every entry held against its hash and its seal, then
        folded. What this process folded before is not folded again, as long as it is what it was.
        Raises LedgerError."""
        rows = _rows_from(connection, 0)
        seal = _check_rows(self.sealing, rows, 0, b"")
        known = self._known
        if known.size > len(rows) or (known.size and rows[known.size - 1].seal != known.seal):
            raise LedgerError(
                "expected the ledger to continue what this command has read of it, got an older or "
                "another one: a copy of the database took its place meanwhile, and what was "
                "acknowledged since may be lost. Put the newest copy back, then run the command "
                "again"
            )
        return self._continue(known, rows[known.size :], seal)

    def caught_up(self, connection: Connection) -> "Folded":
        """Returns the same, reading only what came since this process last looked."""
        known = self._known
        if known.size == 0:
            return self.folded(connection)
        rows = _rows_from(connection, known.size - 1)
        if not rows or (rows[0].seq, rows[0].seal) != (known.size - 1, known.seal):
            return self.folded(connection)
        seal = _check_rows(self.sealing, rows[1:], known.size, known.seal)
        return self._continue(known, rows[1:], seal)

    def leaf_hashes(self, connection: Connection) -> list[bytes]:
        """Returns the leaf hash of every entry, 32 bytes each, reading as `caught_up` does."""
        self.caught_up(connection)
        return list(self._leaves)

    def _continue(self, known: "Folded", rows: list[_Row], seal: bytes) -> "Folded":
        self._known = _continued(known, rows, seal)
        self._leaves[known.size :] = [row.hash for row in rows]
        return self._known

    def _stamped(self, event: Event) -> Event:
        return {**event, "lease": self.lease} if self.lease else event

    def remove(self, owner: str) -> None:
        """Take the database away, its file or what is ours in it, unless its ledger is another one
        than `owner`'s (the hash of its first entry, hex): that stays as it is. Idempotent."""
        if self._path is not None:
            if not self._path.is_file():
                return
            with self.transaction() as connection:
                if _owner_of(connection) in ("", owner):
                    for suffix in ("-journal", ""):
                        remove_file(self._path.with_name(self._path.name + suffix))
            return
        with self.transaction() as connection:
            if _owner_of(connection) not in ("", owner):
                return
            METADATA.drop_all(connection)
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {VERSION_TABLE}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A write transaction: all of it or nothing. Raises StorageError."""
        with self._guarded(), self.engine.connect() as connection:
            try:
                _begin_writing(connection)
                _refuse_diversions(connection)
                if self.fence is not None:
                    self.fence(connection)
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with. Raises StorageError."""
        with self._guarded(), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection to read several tables with, as they were at one moment. Raises
        StorageError."""
        with self.reading() as connection:
            if self._path is None:
                connection.execution_options(isolation_level="REPEATABLE READ")
            else:
                connection.exec_driver_sql("BEGIN")
            yield connection
            connection.rollback()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            reason = (str(cause).strip() or "no reason given").splitlines()[0]
            raise StorageError(
                f"the database refused ({type(cause).__name__}: {reason}); see that it is up, has "
                "space and may be written to, then run the command again"
            ) from None


def _without_number(table: Table, row: RowMapping) -> dict[str, object]:
    """A row to insert. Requests are numbered by the database: in order, so that the next one finds
    its number free."""
    return {k: v for k, v in row.items() if not (table is _REQUESTS and k == "seq")}


def _check_copied(here: Connection, other: Database, tables: list[Table]) -> None:
    """That every row is there, unchanged. Raises StorageError."""
    with other.reading() as there:
        for table in tables:
            numbered = "seq" in table.c
            mine, theirs = (
                _rows_of(c, table) if numbered else sorted(_rows_of(c, table))
                for c in (here, there)
            )
            new = [b for a, b in zip_longest(mine, theirs) if a != b]
            if len(new) != int(table is _LEDGER):  # the last entry tells of the move
                raise StorageError(
                    f"expected table {table.name} to be whole in the database it was moved to, got "
                    "other rows; nothing was removed: run the command again"
                )


def _rows_of(connection: Connection, table: Table) -> Iterator[tuple[object, ...]]:
    """Rows without the number that the database gave them, by it where there is one."""
    order = [table.c.seq] if "seq" in table.c else []
    columns = [c for c in table.c if c.name != "seq"]
    found = connection.execute(
        select(*columns).order_by(*order), execution_options={"yield_per": _CHUNK}
    )
    return (tuple(row) for row in found)


def _owner_of(connection: Connection) -> str:
    """The name of the ledger that a database holds, the hash of its first entry in hex; "" where
    none is begun."""
    if not inspect(connection).has_table("ledger"):
        return ""
    first = connection.execute(select(_LEDGER.c.hash).where(_LEDGER.c.seq == 0)).scalar()
    return "" if first is None else bytes(first).hex()


def _refuse_diversions(connection: Connection) -> None:
    """That what is written to our tables goes there: no trigger, no rule, no view in place of one.
    None of our revisions makes any. Raises LedgerError."""
    names = ", ".join(f"'{name}'" for name in METADATA.tables)
    found = connection.exec_driver_sql(
        connecting.DIVERTED[connection.dialect.name].format(names=names)
    ).first()
    if found is not None:
        raise LedgerError(
            f"expected table {found[0]} of this workspace's database without a trigger or a rule, "
            "and no view in its place, got one: it could swallow or change what is written; find "
            "out who made it, and take it away"
        )


def _begin_writing(connection: Connection) -> None:
    """Be the one who writes until the transaction ends. Raises StorageError where the row that says
    so is gone."""
    if connection.dialect.name != "postgresql":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif (
        connection.exec_driver_sql("SELECT to_regclass('writer')").scalar() is None
    ):  # the tables are still to be made
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MAKING})")
    elif connection.execute(select(_WRITER).with_for_update()).first() is None:
        raise StorageError(
            "expected the row of table writer, by which commands write one at a time, got none; "
            "have the tables' owner run `INSERT INTO writer VALUES (1)`, and find out who removed "
            "it"
        )


@dataclass(frozen=True)
class Folded:
    """A ledger of `size` entries, the last one's seal, and the state they make."""

    size: int
    seal: bytes
    state: State


def seal_of(key: bytes, number: int, before: bytes, hashed: bytes) -> bytes:
    """Returns the seal of entry `number`, 32 bytes: HMAC-SHA256 over its place, the seal before it
    ("" for the first) and its leaf hash. So an entry cannot be repeated elsewhere, and none before
    it can be changed."""
    return hmac.digest(
        key, b"s3t ledger entry\0" + struct.pack(">Q", number) + before + hashed, "sha256"
    )


def _rows_from(connection: Connection, first: int) -> list[_Row]:
    """Entries of the ledger from `first` on. Raises LedgerError where one is of other types than
    were written."""
    rows = list(
        connection.execute(select(_LEDGER).where(_LEDGER.c.seq >= first).order_by(_LEDGER.c.seq))
    )
    for row in rows:
        _check_types(row, _LEDGER)
    return rows


def _check_types(row: _Row, table: Table) -> None:
    """That a row has the types of our columns: SQLite keeps what it is given, and a table may be
    made anew. Raises LedgerError."""
    if tuple(map(type, row)) != _TYPES[table.name]:
        wrong = [
            c.name
            for c, value in zip(table.c, row, strict=True)
            if type(value) is not c.type.python_type
        ]
        raise LedgerError(
            f"expected table {table.name} as it was written, got another type in "
            f"{', '.join(wrong)}; restore the database from its backup and find out who wrote to it"
        )


def _check_written(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]
) -> None:
    """That rows which were just written to a table of requests stand in it, whatever else it may do
    with them: refuse a duplicate in silence, keep other values. Raises LedgerError."""
    key = next(iter(rows[0])) if rows else ""
    found: dict[object, dict[str, object]] = {}
    for begin in range(0, len(rows), _CHUNK):
        names = [row[key] for row in rows[begin : begin + _CHUNK]]
        for there in connection.execute(select(table).where(table.c[key].in_(names))):
            found[there._mapping[key]] = dict(there._mapping)
    if any(
        found.get(row[key], {}).get(name) != value for row in rows for name, value in row.items()
    ):
        raise LedgerError(
            f"expected table {table.name} to hold the rows that were just written to it, got "
            "others or none: the database does something else with them; nothing was changed. Find "
            "out who made it do so (a trigger, a rule, a constraint), and take that away"
        )


def _check_rows(key: bytes, rows: list[_Row], first: int, seal: bytes) -> bytes:
    """That the rows are the entries from `first` on, whose predecessor has the given seal; the last
    one's seal. Raises LedgerError."""
    for number, row in enumerate(rows, first):
        if row.seq != number or leaf_hash(row.leaf) != row.hash:
            raise LedgerError(
                f"expected ledger entry {number} unchanged, got one that does not match its hash; "
                "restore the database from its backup and compare with a certificate"
            )
        seal = seal_of(key, number, seal, row.hash)
        if not hmac.compare_digest(seal, row.seal):
            raise LedgerError(
                f"expected ledger entry {number} with the seal of this workspace, got one that "
                "somebody without its key wrote, changed or moved, or that a build before the "
                "first release made; restore the database from its backup and find out who wrote "
                "to it"
            )
    return seal


def _continued(before: Folded, rows: list[_Row], seal: bytes) -> Folded:
    if not rows:
        return before
    state = fold((json.loads(row.leaf) for row in rows), before.state, before.size)
    return Folded(before.size + len(rows), seal, state)


class SqlLedger:
    """The ledger. Fills the port `Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, *told: LedgerEvent | Event) -> None:
        """Append in one transaction, durably. Raises StorageError, and LedgerError for what does
        not follow."""
        with self._database.transaction() as connection:
            self._database.append(connection, told)

    def beginning(self) -> Event:
        """The first event, held against its hash alone: it says which key the others are sealed
        with. Raises LedgerError."""
        with self._database.reading() as connection:
            row = connection.execute(select(_LEDGER).where(_LEDGER.c.seq == 0)).first()
        if row is not None:
            _check_types(row, _LEDGER)
        try:
            begun = (
                json.loads(row.leaf)
                if row is not None and leaf_hash(row.leaf) == row.hash
                else None
            )
        except (ValueError, RecursionError):
            begun = None
        if not isinstance(begun, dict):
            raise LedgerError(
                "expected the beginning of this workspace's ledger, got none or another; restore "
                "the database from its backup and find out who wrote to it"
            )
        return begun

    def events(self) -> list[Event]:
        """Every event, each leaf checked against its hash and seal. Raises LedgerError."""
        with self._database.reading() as connection:
            rows = _rows_from(connection, 0)
        _check_rows(self._database.sealing, rows, 0, b"")
        return [json.loads(row.leaf) for row in rows]

    def state(self) -> State:
        """The fold of all events, each checked against its hash and seal. Raises LedgerError.
        Whoever gets it may change it: it is a copy."""
        with self._database.reading() as connection:
            return fold((), self._database.folded(connection).state)

    def state_so_far(self) -> State:
        """The same, reading only what came since this process last looked: what it read before, and
        checked then, is not read again."""
        with self._database.reading() as connection:
            return fold((), self._database.caught_up(connection).state)

    def entries(self) -> list[bytes]:
        """The canonical bytes of every entry."""
        with self._database.reading() as connection:
            return [row.leaf for row in _rows_from(connection, 0)]

    def leaves(self) -> list[bytes]:
        """The leaf hash of every entry, 32 bytes each."""
        return [leaf_hash(leaf) for leaf in self.entries()]

    def leaves_so_far(self) -> list[bytes]:
        """The same, of what `state_so_far` tells."""
        with self._database.reading() as connection:
            return self._database.leaf_hashes(connection)

    def head(self) -> TreeHead:
        """Size and RFC 6962 root now."""
        hashes = self.leaves()
        return head_of(hashes)

    def prove(self, event: Event) -> Inclusion:
        """That an event is in the ledger as it is now. Raises LedgerError when it is not."""
        return inclusion_of(event, self.leaves())


class SqlRequestBook:
    """Deletion requests and the suppression list. Fills the port `RequestBook`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def accept(self, new: Iterable[NewRequest]) -> list[DeletionRequest]:
        """Make requests durable, in one transaction. The same subject or record while one is
        pending is that one request; so is, for ever, one that was asked with the same idempotency
        key. Both the ledger says. Raises LedgerError where a table says otherwise: what was
        acknowledged by it alone would be nowhere."""
        new = list(new)
        with self._database.transaction() as connection:
            state = self._database.caught_up(connection).state
            waiting = {r.suppression: i for i, r in state.requests.items() if state.is_open(i)}
            taken = [_accepted(connection, each, state, waiting) for each in new]
            _check_written(
                connection,
                _REQUESTS,
                [
                    _row_of(each)
                    for (_, event), each in zip(taken, new, strict=True)
                    if event is each.event
                ],
            )
            self._database.append(connection, [event for _, event in taken if event is not None])
        return [request for request, _ in taken]

    def pending(self) -> list[DeletionRequest]:
        """Acknowledged requests that are open by the ledger, oldest first. Raises LedgerError where
        the table lacks one: it would be carried out by nobody."""
        with self._database.snapshot() as connection:
            state = self._database.folded(connection).state
            found = _held(connection, state, state.is_open)
        lacking = sum(map(state.is_open, state.requests)) - len(found)
        if lacking:
            raise LedgerError(
                f"expected every open request of the ledger in the table of requests, got "
                f"{lacking} less; restore the database from its backup, or find out who wrote to it"
            )
        return found

    def all(self) -> list[DeletionRequest]:
        """Every request there ever was, oldest first. Raises LedgerError where the ledger says
        otherwise."""
        with self._database.snapshot() as connection:
            return _held(connection, self._database.folded(connection).state)

    def check(self) -> None:
        """That requests and suppression list say what the ledger says, as all three were at one
        moment. Raises LedgerError."""
        with self._database.snapshot() as connection:
            state = self._database.folded(connection).state
            rows = list(connection.execute(select(_REQUESTS).order_by(_REQUESTS.c.seq)))
            asked = [_request(row) for row in rows]
            listed = {
                r.digest: (r.kind, r.request) for r in connection.execute(select(_SUPPRESSION))
            }
        ahead = {r.suppression for r in map(state.requests.get, state.planned) if r}
        # the list is written by the step after the one that writes the plan ahead
        missing = {k: v for k, v in state.suppressed.items() if k in ahead and k not in listed}
        salts = {r.id: sha256_hex(r.salt.encode()) for r in rows if r.salt}
        check_book(state, asked, listed | missing, salts)

    def get(self, request_ids: Iterable[str]) -> list[DeletionRequest]:
        """The given requests, in that order. Raises StorageError for one that is not there, and
        LedgerError for one that the ledger knows otherwise."""
        with self._database.snapshot() as connection:
            wanted = list(request_ids)
            state = self._database.folded(connection).state
            found = {r.request_id: r for r in _held(connection, state, set(wanted).__contains__)}
        try:
            return [found[i] for i in wanted]
        except KeyError:
            raise StorageError(
                "expected every planned request in the database, got one that is missing; restore "
                "the database from its backup"
            ) from None

    def suppress(self, requests: Iterable[DeletionRequest], time: str) -> None:
        """Put the requests' subjects or records on the suppression list. Idempotent; the first
        request stays named."""
        with self._database.transaction() as connection:
            known = set(connection.execute(select(_SUPPRESSION.c.digest)).scalars())
            new = {r.suppression: r for r in reversed(list(requests)) if r.suppression not in known}
            rows = [
                {
                    "digest": digest,
                    "kind": "record" if r.record else "subject",
                    "request": r.request_id,
                    "since": time,
                }
                for digest, r in reversed(new.items())
            ]
            if rows:
                connection.execute(insert(_SUPPRESSION), rows)
            _check_written(connection, _SUPPRESSION, rows)

    def close(self, closings: Iterable[Closing]) -> None:
        """Close requests with their documents' digests and append what is told of them, in one
        transaction."""
        closed = list(closings)
        if not closed:
            return
        with self._database.transaction() as connection:
            connection.execute(
                update(_REQUESTS)
                .where(_REQUESTS.c.id == bindparam("which"))
                .values(certificate=bindparam("document")),
                [{"which": c.request_id, "document": c.document} for c in closed],
            )
            _check_written(
                connection,
                _REQUESTS,
                [{"id": c.request_id, "certificate": c.document} for c in closed],
            )
            self._database.append(connection, [c.event for c in closed])

    def defer(self, requests: Iterable[DeletionRequest], told: LedgerEvent) -> None:
        """Take what these requests put on the suppression list off it and append `told`, in one
        transaction."""
        with self._database.transaction() as connection:
            connection.execute(
                delete(_SUPPRESSION).where(
                    _SUPPRESSION.c.request.in_([r.request_id for r in requests])
                )
            )
            self._database.append(connection, [told])

    def lift(self, suppression: str, told: LedgerEvent) -> bool:
        """Take a digest off the suppression list and append `told`, in one transaction; whether it
        was there."""
        with self._database.transaction() as connection:
            gone = connection.execute(
                delete(_SUPPRESSION).where(_SUPPRESSION.c.digest == suppression)
            ).rowcount
            if gone:
                self._database.append(connection, [told])
        return bool(gone)


# built once: building a statement costs more than running it
_BY_ID = select(_REQUESTS).where(_REQUESTS.c.id == bindparam("given"))
_NEW_REQUEST = insert(_REQUESTS)


def _accepted(
    connection: Connection, new: NewRequest, state: State, waiting: Mapping[str, str]
) -> tuple[DeletionRequest, LedgerEvent | None]:
    """The request that now stands for what was asked, and what to tell of that. `waiting`: by
    suppression digest, the open requests of the ledger."""
    request, once = new.request, new.event.once
    before = state.once.get(once)
    if before is not None:
        return _known(connection, before, request, state), None
    same = waiting.get(request.suppression)
    if same is not None:
        again = events.RequestRepeated(
            time=new.event.time,
            request=same,
            once=once,
        )
        return _known(connection, same, request, state), again if once else None
    connection.execute(_NEW_REQUEST, _row_of(new))
    return request, new.event


def _row_of(new: NewRequest) -> dict[str, object]:
    request = new.request
    return {
        "id": request.request_id,
        "subject": request.subject,
        "record": request.record,
        "suppression": request.suppression,
        "commitment": request.commitment,
        "salt": new.salt,
        "received": request.received,
        "due": request.due,
        "certificate": "",
    }


def _known(
    connection: Connection, request_id: str, asked: DeletionRequest, state: State
) -> DeletionRequest:
    """The request of this id, which must be for whom it was asked, in its row and in the ledger.
    Raises LedgerError."""
    row = connection.execute(_BY_ID, {"given": request_id}).first()
    told = state.requests.get(request_id)
    if row is None or told is None or not row.suppression == told.suppression == asked.suppression:
        raise LedgerError(
            "expected a request that was asked before to stand in the ledger, for the same person, "
            "got a row of a table that says otherwise; nothing was accepted: restore the database "
            "from its backup, or find out who wrote to it"
        )
    found = _request(row)
    check_request(state, found)
    return as_told(found, state)


def _request(row: _Row) -> DeletionRequest:
    _check_types(row, _REQUESTS)
    return DeletionRequest(
        row.id,
        row.subject,
        row.record,
        row.suppression,
        row.commitment,
        row.received,
        row.due,
        row.certificate,
    )


def _held(
    connection: Connection, state: State, wanted: Callable[[str], bool] = lambda _: True
) -> list[DeletionRequest]:
    """The requests of the table whose ids are wanted, oldest first, each held against the ledger as
    it was at the same moment. Raises LedgerError."""
    rows = connection.execute(select(_REQUESTS).order_by(_REQUESTS.c.seq))
    found = [_request(row) for row in rows if wanted(row.id)]
    for request in found:
        check_request(state, request)
    return found
