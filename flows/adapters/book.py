"""The book of requests and the suppression list, in the database that has the ledger
(flows.adapters.database). Every change of them and the ledger event that tells of it are one
transaction, and every row is held against the ledger when it is read (check_request), all of them
when a command begins (s3t_core.erasure.closing.check_book).
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from flows.adapters.database import Database
from flows.adapters.tables import (
    CHUNK,
    REQUESTS,
    SEALED_IDS,
    SUPPRESSION,
    AnyRow,
    check_types,
    check_written,
)
from s3t_core.canonical import sha256_hex
from s3t_core.domain import DeletionRequest
from s3t_core.erasure import events
from s3t_core.erasure.closing import as_recorded, asked_at, check_book, check_request
from s3t_core.erasure.events import LedgerEvent, RequestSpelt
from s3t_core.erasure.state import State
from s3t_core.errors import LedgerError, StorageError
from s3t_core.ports import Closing, NewRequest


class SqlRequestBook:
    """Deletion requests and the suppression list. Fills the port `RequestBook`."""

    def __init__(
        self,
        database: Database,
        beside: Callable[[Connection, Iterable[str], bool], None] | None = None,
    ) -> None:
        """`beside`: what else is written, in the same transaction, of requests that are accepted,
        or of which other spellings are told (flows.workspace.intake fills it); its last argument
        is True where what was written before is written again."""
        self._database, self._beside = database, beside

    def accept(self, new: Iterable[NewRequest]) -> list[DeletionRequest]:
        """Make requests durable, in one transaction. The same subject or record while one is
        pending is that one request; so is, for ever, one that was asked with the same idempotency
        key. Both the ledger says. Raises LedgerError where a table says otherwise: what was
        acknowledged by it alone would be nowhere."""
        new = list(new)
        with self._database.transaction() as connection:
            state = self._database.caught_up(connection).state
            wanted = {each.request.suppression for each in new}
            waiting = {
                r.suppression: i
                for i, r in state.requests.items()
                if r.suppression in wanted and state.is_open(i)
            }
            taken = [_accepted(connection, each, state, waiting) for each in new]
            check_written(
                connection,
                REQUESTS,
                [
                    _row_of(each)
                    for (_, event), each in zip(taken, new, strict=True)
                    if event is each.event
                ],
            )
            accepted = [r for (r, event), n in zip(taken, new, strict=True) if event is n.event]
            self._put_beside(connection, [r.request_id for r in accepted])
            self._database.append(connection, [event for _, event in taken if event is not None])
        return [request for request, _ in taken]

    def _put_beside(self, connection: Connection, request_ids: Iterable[str]) -> None:
        if self._beside is not None:
            self._beside(connection, request_ids, False)

    def keep_again(self, request_ids: Collection[str]) -> None:
        """Write what is kept beside requests again, of which nothing new is told: one that was lost
        comes back so. Not of those whose erasure has begun."""
        if self._beside is None or not request_ids:
            return
        with self._database.transaction() as connection:
            state = self._database.caught_up(connection).state
            begun = {*state.begun}
            self._beside(
                connection, [r for r in request_ids if state.is_open(r) and r not in begun], True
            )

    def spell(self, entries: Iterable[RequestSpelt]) -> None:
        """Tell of other spellings that open requests were asked with, in one transaction. Raises
        LedgerError for one whose erasure has begun."""
        told = list(entries)
        with self._database.transaction() as connection:
            self._put_beside(connection, [event.request for event in told])
            self._database.append(connection, told)

    def pending(self, at: State) -> list[DeletionRequest]:
        """Acknowledged requests that are open by `at`, oldest first: others may be accepted at any
        time, and whoever decides by a state of the ledger is told of that moment's. Raises
        LedgerError where the table lacks one: it would be carried out by nobody."""
        found = self._asked(at, at.is_open)
        lacking = sum(map(at.is_open, at.requests)) - len(found)
        if lacking:
            raise LedgerError(
                f"expected every open request of the ledger in the table of requests, got "
                f"{lacking} less; restore the database from its backup, or find out who wrote to it"
            )
        return found

    def open_now(self) -> list[str]:
        """The ids of those that are open at this moment, oldest first. Raises LedgerError."""
        with self._database.snapshot() as connection:
            state = self._database.folded(connection).state
        return [r.request_id for r in self.pending(state)]

    def all(self, at: State) -> list[DeletionRequest]:
        """Every request there was by `at`, oldest first. Raises LedgerError where the ledger says
        otherwise."""
        return self._asked(at, lambda _: True)

    def _asked(self, at: State, wanted: Callable[[str], bool]) -> list[DeletionRequest]:
        with self._database.snapshot() as connection:
            now = self._database.folded(connection).state
            rows = _held(connection, now, lambda i: i in at.requests and wanted(i))
        return [asked_at(at, r.request_id) for r in rows]

    def check(self) -> None:
        """That requests and suppression list say what the ledger says, as all three were at one
        moment. Raises LedgerError."""
        with self._database.snapshot() as connection:
            state = self._database.folded(connection).state
            rows = list(connection.execute(select(REQUESTS).order_by(REQUESTS.c.seq)))
            asked = [_request(row) for row in rows]
            listed = {
                r.digest: (r.kind, r.request) for r in connection.execute(select(SUPPRESSION))
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
            known = set(connection.execute(select(SUPPRESSION.c.digest)).scalars())
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
                connection.execute(insert(SUPPRESSION), rows)
            check_written(connection, SUPPRESSION, rows)

    def close(self, closings: Iterable[Closing]) -> None:
        """Close requests with their documents' digests and append what is told of them, in one
        transaction."""
        closed = list(closings)
        if not closed:
            return
        with self._database.transaction() as connection:
            connection.execute(
                update(REQUESTS)
                .where(REQUESTS.c.id == bindparam("which"))
                .values(certificate=bindparam("document")),
                [{"which": c.request_id, "document": c.document} for c in closed],
            )
            check_written(
                connection,
                REQUESTS,
                [{"id": c.request_id, "certificate": c.document} for c in closed],
            )
            self._forget_sealed(connection, [c.request_id for c in closed])
            self._database.append(connection, [c.event for c in closed])

    def _forget_sealed(self, connection: Connection, request_ids: list[str]) -> None:
        """Remove what hosts apart sealed of requests that end."""
        for begin in range(0, len(request_ids), CHUNK):
            some = request_ids[begin : begin + CHUNK]
            connection.execute(delete(SEALED_IDS).where(SEALED_IDS.c.request.in_(some)))

    def defer(self, requests: Iterable[DeletionRequest], event: LedgerEvent) -> None:
        """Take what these requests put on the suppression list off it and append `event`, in one
        transaction."""
        with self._database.transaction() as connection:
            connection.execute(
                delete(SUPPRESSION).where(
                    SUPPRESSION.c.request.in_([r.request_id for r in requests])
                )
            )
            self._database.append(connection, [event])

    def lift(self, suppression: str, event: LedgerEvent) -> bool:
        """Take a digest off the suppression list and append `event`, in one transaction; whether it
        was there."""
        with self._database.transaction() as connection:
            gone = connection.execute(
                delete(SUPPRESSION).where(SUPPRESSION.c.digest == suppression)
            ).rowcount
            if gone:
                self._database.append(connection, [event])
        return bool(gone)


# built once: building a statement costs more than running it
_BY_ID = select(REQUESTS).where(REQUESTS.c.id == bindparam("given"))
_NEW_REQUEST = insert(REQUESTS)


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
    recorded = state.requests.get(request_id)
    if (
        row is None
        or recorded is None
        or not row.suppression == recorded.suppression == asked.suppression
    ):
        raise LedgerError(
            "expected a request that was asked before to stand in the ledger, for the same person, "
            "got a row of a table that says otherwise; nothing was accepted: restore the database "
            "from its backup, or find out who wrote to it"
        )
    found = _request(row)
    check_request(state, found)
    return as_recorded(found, state)


def _request(row: AnyRow) -> DeletionRequest:
    check_types(row, REQUESTS)
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
    connection: Connection, state: State, wanted: Callable[[str], bool]
) -> list[DeletionRequest]:
    """The requests of the table whose ids are wanted, oldest first, each held against the ledger as
    it was at the same moment. Raises LedgerError."""
    rows = connection.execute(select(REQUESTS).order_by(REQUESTS.c.seq))
    found = [_request(row) for row in rows if wanted(row.id)]
    for request in found:
        check_request(state, request)
    return found
