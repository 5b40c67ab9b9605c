"""The ledger, and the database that it shares with the book of requests and the suppression list
(SQLAlchemy; tables in flows.adapters.tables, the book in flows.adapters.book).

1. An entry of the ledger is appended only if its rules allow it (s3t_core.erasure.rules), in the
   transaction that changes what it tells of, with the lease it was written under, and after a
   correction where the clock ran back.
2. It is sealed: HMAC-SHA256, under a key of the workspace, over its place, the seal before it and
   its leaf hash. Whoever can only write to the table can add, change, move and repeat nothing.

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

from sqlalchemy import (
    Connection,
    Engine,
    RowMapping,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from flows.adapters import connecting
from flows.adapters.tables import (
    APART,
    CHUNK,
    LEDGER,
    METADATA,
    REQUESTS,
    WRITER,
    AnyRow,
    check_types,
)
from flows.migrations import HEAD, VERSION_TABLE, revision_of, upgrade
from s3t_core.erasure.event_reader import from_json
from s3t_core.erasure.events import LedgerEvent, as_json
from s3t_core.erasure.growing_tree import Leaves, Tree
from s3t_core.erasure.ledger import (
    Inclusion,
    TreeHead,
    corrected,
    correction_of,
    fold,
    head_of,
    inclusion_of,
    leaf_of,
)
from s3t_core.erasure.merkle import leaf_hash
from s3t_core.erasure.state import State, VersionRecord
from s3t_core.erasure.vocabulary import Event
from s3t_core.errors import LedgerError, StorageError, WorkspaceError
from s3t_core.files import remove_file
from s3t_core.times import CLOCK_TOLERANCE, parse_time

_SQLITE = "sqlite:///"
_BESIDE = ("", "-journal", "-wal", "-shm")
_MAKING = 0x53335400
"""The advisory lock of whoever makes the tables, on PostgreSQL."""


class Database:
    """One engine; transactions that hold the write lock from their start."""

    def __init__(
        self,
        url: str,
        root: Path,
        sealing: bytes = b"",
    ) -> None:
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
        self.now: Callable[[], datetime] | None = None
        """The time as an entry is written, of which it must tell."""
        self.tells = True
        """False: whoever is worked for may not be told who is in the data, whatever account this
        is."""
        self.permits: Callable[[], object] | None = None
        """Asked before the lease is taken and before anything is told to the ledger: whoever is
        worked for may have been refused since they asked. It raises what refuses them."""
        self.suits: Callable[[State], object] | None = None
        """Asked of the ledger as it stands before anything is told to it: whoever began by what it
        said then may not suit it any more. It raises what refuses them."""
        self._known = Folded(0, b"", State())
        self._tree = Tree()
        """Leaf hashes of the entries that `_known` is made of."""

    def files(self) -> list[Path]:
        """Where it lies on this machine, with what SQLite writes beside it; none on a server."""
        if self._path is None:
            return []
        return [self._path.with_name(f"{self._path.name}{end}") for end in _BESIDE]

    def exists(self) -> bool:
        """Whether the database is there with a beginning of its ledger."""
        if self._path is not None and not self._path.is_file():
            return False
        with self.reading() as connection:
            _refuse_diversions(connection)
            begun = inspect(connection).has_table("ledger")
            return begun and connection.execute(select(LEDGER.c.seq)).first() is not None

    def is_sealed_here(self) -> bool:
        """Whether the ledger that it holds was begun with this workspace's key."""
        with self.reading() as connection:
            first = connection.execute(select(LEDGER).where(LEDGER.c.seq == 0)).first()
        return first is not None and hmac.compare_digest(
            seal_of(self.sealing, 0, b"", first.hash), first.seal
        )

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

    def move_to(
        self,
        other: "Database",
        last: LedgerEvent,
    ) -> None:
        """Copy everything to `other`, where what an earlier try copied is replaced, append `last`
        there, then take the tables away here, so that whoever still has this database open is
        refused: nobody writes in between. Raises StorageError, and WorkspaceError where another
        workspace's ledger is there by now."""
        with self.transaction() as here:
            tables = [t for t in METADATA.sorted_tables if t not in APART]
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
                        select(table).order_by(*order), execution_options={"yield_per": CHUNK}
                    )
                    for chunk in rows.mappings().partitions():
                        there.execute(insert(table), [_without_number(table, row) for row in chunk])
                other.append(there, [last])
            _check_copied(here, other, tables)
            for table in tables:
                table.drop(here)

    def append(
        self,
        connection: Connection,
        entries: Iterable[LedgerEvent | Event],
    ) -> None:
        """Append within a transaction that holds the write lock. Raises LedgerError for what the
        ledger's rules do not allow in its present state; then nothing is appended."""
        self.check_permitted()
        before = self.caught_up(connection)
        if self.suits is not None:
            self.suits(before.state)
        stamped = corrected((self._stamped(as_json(e)) for e in entries), before.state.time)
        self._refuse_late(stamped)
        leaves = [leaf_of(e) for e in stamped]
        fold((json.loads(leaf) for leaf in leaves), before.state, before.size, are_new=True)
        rows, seal = [], before.seal
        for number, leaf in enumerate(leaves, before.size):
            hashed = leaf_hash(leaf)
            seal = seal_of(self.sealing, number, seal, hashed)
            rows.append({"seq": number, "leaf": leaf, "hash": hashed, "seal": seal})
        if rows:
            connection.execute(insert(LEDGER), rows)
            there = [(r.seq, r.leaf, r.hash, r.seal) for r in _rows_from(connection, before.size)]
            if there != [(r["seq"], r["leaf"], r["hash"], r["seal"]) for r in rows]:
                raise LedgerError(
                    "expected the ledger's table to hold the entries that were just written to it, "
                    "got others or none: the database does something else with them; nothing was "
                    "changed. Find out who made it do so (a trigger, a rule, a constraint), and "
                    "take that away"
                )

    def check_permitted(self) -> None:
        """That whoever is worked for may still have it done. Raises what refuses them."""
        if self.permits is not None:
            self.permits()

    def _refuse_late(
        self,
        stamped: Sequence[Event],
    ) -> None:
        """An entry tells of now. Whoever took its time stood still since, or waited, where it does
        not: what was in time then may be late by now, and a time behind the newest entry's would
        look like a clock that was put right. Raises StorageError: what is done again has a time of
        its own."""
        if self.now is None or not stamped:
            return
        now = self.now()
        if any(abs(now - parse_time(each["time"])) > CLOCK_TOLERANCE for each in stamped):
            raise StorageError(
                "expected to write to the ledger soon after the time of what it is told was taken, "
                f"got one of more than {CLOCK_TOLERANCE.seconds} s ago, or to come: this process "
                "stood still meanwhile, or waited, or its clock was set. Nothing of it was told "
                "to the ledger; run the command again"
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

    def caught_up_with_leaves(self, connection: Connection) -> tuple["Folded", Leaves]:
        """Returns the same, with the leaf hash of each of its entries."""
        folded = self.caught_up(connection)
        return folded, self._tree.at(folded.size)

    def _continue(
        self,
        known: "Folded",
        rows: list[AnyRow],
        seal: bytes,
    ) -> "Folded":
        folded = _continued(known, rows, seal)
        self._tree = self._tree.grown(known.size, [bytes(row.hash) for row in rows])
        self._known = folded
        return folded

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
                    for file in reversed(self.files()):
                        remove_file(file)
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
            if type(cause).__name__ == "LockNotAvailable" and (sessions := self._sessions()):
                raise StorageError(
                    f"the database refused ({reason}): a transaction of another session stays open "
                    f"on its tables (process {', '.join(map(str, sessions))} of the server). Wait "
                    "for it, or have a superuser end it (SELECT pg_terminate_backend(PROCESS)), "
                    "then run the command again"
                ) from None
            raise StorageError(
                f"the database refused ({type(cause).__name__}: {reason}); see that it is up, has "
                "space and may be written to, then run the command again"
            ) from None

    def _sessions(self) -> list[int]:
        """The server's processes whose sessions have a lock on a table of ours, where it says."""
        with contextlib.suppress(SQLAlchemyError), self.engine.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT DISTINCT l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation "
                "WHERE l.granted AND l.pid <> pg_backend_pid() AND c.relname = ANY(%s) "
                "AND pg_table_is_visible(c.oid) ORDER BY 1",
                ([table.name for table in METADATA.sorted_tables],),
            )
            return [int(pid) for (pid,) in found]
        return []


def _without_number(table: Table, row: RowMapping) -> dict[str, object]:
    """A row to insert. Requests are numbered by the database: in order, so that the next one finds
    its number free."""
    return {k: v for k, v in row.items() if not (table is REQUESTS and k == "seq")}


def _check_copied(
    here: Connection,
    other: Database,
    tables: list[Table],
) -> None:
    """That every row is there, unchanged. Raises StorageError."""
    with other.reading() as there:
        for table in tables:
            numbered = "seq" in table.c
            mine, theirs = (
                _rows_of(c, table) if numbered else sorted(_rows_of(c, table))
                for c in (here, there)
            )
            new = [b for a, b in zip_longest(mine, theirs) if a != b]
            if len(new) != int(table is LEDGER):  # the last entry tells of the move
                raise StorageError(
                    f"expected table {table.name} to be whole in the database it was moved to, got "
                    "other rows; nothing was removed: run the command again"
                )


def _rows_of(connection: Connection, table: Table) -> Iterator[tuple[object, ...]]:
    """Rows without the number that the database gave them, by it where there is one."""
    order = [table.c.seq] if "seq" in table.c else []
    columns = [c for c in table.c if c.name != "seq"]
    found = connection.execute(
        select(*columns).order_by(*order), execution_options={"yield_per": CHUNK}
    )
    return (tuple(row) for row in found)


def _owner_of(connection: Connection) -> str:
    """The name of the ledger that a database holds, the hash of its first entry in hex; "" where
    none is begun."""
    if not inspect(connection).has_table("ledger"):
        return ""
    first = connection.execute(select(LEDGER.c.hash).where(LEDGER.c.seq == 0)).scalar()
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
    elif connection.execute(select(WRITER).with_for_update()).first() is None:
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


def seal_of(
    key: bytes,
    number: int,
    before: bytes,
    hashed: bytes,
) -> bytes:
    """Returns the seal of entry `number`, 32 bytes: HMAC-SHA256 over its place, the seal before it
    ("" for the first) and its leaf hash. So an entry cannot be repeated elsewhere, and none before
    it can be changed."""
    return hmac.digest(
        key, b"s3t ledger entry\0" + struct.pack(">Q", number) + before + hashed, "sha256"
    )


def _rows_from(connection: Connection, first: int) -> list[AnyRow]:
    """Entries of the ledger from `first` on. Raises LedgerError where one is of other types than
    were written."""
    rows = list(
        connection.execute(select(LEDGER).where(LEDGER.c.seq >= first).order_by(LEDGER.c.seq))
    )
    for row in rows:
        check_types(row, LEDGER)
    return rows


def _check_rows(
    key: bytes,
    rows: list[AnyRow],
    first: int,
    seal: bytes,
) -> bytes:
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


def _continued(
    before: Folded,
    rows: list[AnyRow],
    seal: bytes,
) -> Folded:
    if not rows:
        return before
    state = fold((json.loads(row.leaf) for row in rows), before.state, before.size)
    return Folded(before.size + len(rows), seal, state)


class SqlLedger:
    """The ledger. Fills the port `Ledger`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, *entries: LedgerEvent | Event) -> None:
        """Append in one transaction, durably. Raises StorageError, and LedgerError for what does
        not follow."""
        with self._database.transaction() as connection:
            self._database.append(connection, entries)

    def put_clock_right(self, now: str) -> None:
        """Append the correction that an entry of `now` (RFC 3339) would bring, where it brings one:
        before what is told, or signed, by times that it changes. Raises StorageError."""
        if correction_of(self.state_so_far(), now):
            with self._database.transaction() as connection:
                state = self._database.caught_up(connection).state
                self._database.append(connection, correction_of(state, now))

    def beginning(self) -> Event:
        """The first event, held against its hash alone: it says which key the others are sealed
        with. Raises LedgerError."""
        with self._database.reading() as connection:
            row = connection.execute(select(LEDGER).where(LEDGER.c.seq == 0)).first()
        if row is not None:
            check_types(row, LEDGER)
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

    def champion_so_far(self) -> VersionRecord | None:
        """The version that serves, read likewise."""
        with self._database.reading() as connection:
            return self._database.caught_up(connection).state.champion

    def entries(self) -> list[bytes]:
        """The canonical bytes of every entry."""
        with self._database.reading() as connection:
            return [row.leaf for row in _rows_from(connection, 0)]

    def leaves(self) -> list[bytes]:
        """The leaf hash of every entry, 32 bytes each."""
        return [leaf_hash(leaf) for leaf in self.entries()]

    def size(self) -> int:
        """How many entries there are, by their numbers alone."""
        with self._database.reading() as connection:
            return int(connection.execute(select(func.max(LEDGER.c.seq))).scalar() or 0) + 1

    def entries_since(
        self,
        first: int,
        most: int,
    ) -> list[tuple[LedgerEvent, bytes]]:
        """What the entries from `first` on tell, so many at most, each with its leaf hash. Raises
        LedgerError."""
        return list(self._read(first, None, most).values())

    def events_at(self, numbers: Iterable[int]) -> dict[int, LedgerEvent]:
        """What some entries tell, by their numbers; of those that are there. Raises LedgerError for
        one that is not as it was written."""
        wanted, found = sorted({n for n in numbers if n >= 0}), dict[int, LedgerEvent]()
        for begin in range(0, len(wanted), CHUNK):
            some = set(wanted[begin : begin + CHUNK])  # a statement takes so many values at most
            read = self._read(min(some), some, 2 * len(some))
            found |= {number: event for number, (event, _) in read.items()}
        return found

    def _read(
        self, first: int, wanted: set[int] | None, most: int
    ) -> dict[int, tuple[LedgerEvent, bytes]]:
        """Entries from `first` on, or some of them, each held against its hash and its seal, with
        its leaf hash."""
        asked = select(LEDGER).where(LEDGER.c.seq >= first - 1).order_by(LEDGER.c.seq)
        asked = asked.limit(most + (first > 0))
        if wanted is not None:
            asked = asked.where(LEDGER.c.seq.in_({*wanted, *(n - 1 for n in wanted)}))
        with self._database.reading() as connection:
            rows = {row.seq: row for row in connection.execute(asked)}
        found: dict[int, tuple[LedgerEvent, bytes]] = {}
        for number, row in rows.items():
            if number >= first and (wanted is None or number in wanted):
                check_types(row, LEDGER)
                before = rows.get(number - 1)
                seal = bytes(before.seal) if before is not None else b""
                _check_rows(self._database.sealing, [row], number, seal)
                found[number] = from_json(json.loads(row.leaf)), leaf_hash(row.leaf)
        return found

    @contextlib.contextmanager
    def held_still(self) -> Iterator[State]:
        """What `state_so_far` tells, not to be changed, while nobody writes to the ledger or takes
        a lease over: for what must not happen beside it. Raises LostLease where somebody did
        before, StorageError."""
        with self._database.transaction() as connection:
            yield self._database.caught_up(connection).state

    def so_far(self) -> tuple[State, Leaves]:
        """What `state_so_far` tells, and the leaf hashes of that same moment."""
        with self._database.reading() as connection:
            known, leaves = self._database.caught_up_with_leaves(connection)
            return fold((), known.state), leaves

    def head(self) -> TreeHead:
        """Size and RFC 6962 root now."""
        hashes = self.leaves()
        return head_of(hashes)

    def prove(self, event: Event) -> Inclusion:
        """That an event is in the ledger as it is now. Raises LedgerError when it is not."""
        return inclusion_of(event, self.leaves())
