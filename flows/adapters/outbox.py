"""What is still to be told to other systems (callbacks), in the workspace's database.

1. The ledger is the outbox: an entry of it and the change that it tells of are one transaction, so
   no change is without what is to be told of it. Two tables say how far that came: `callbacks`, up
   to which entry each target's messages were taken from the ledger, and `outbox`, what became of
   each.
2. A message has one id for ever, which follows from the ledger, and the entry and what it says: no
   two messages have one, also where an older database was restored and went on otherwise. Who is
   killed between sending one and writing that it went sends it again, under the same id.
3. Neither table says what is told: that is read from the ledger, whose entries are sealed, each
   time. Whoever can only write to these tables can have something sent again, or not at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from flows.adapters.database import Database
from flows.adapters.tables import CALLBACKS, OUTBOX, AnyRow, check_types
from s3t_core.errors import LedgerError

DeliveryState = Literal["waiting", "delivered", "dead"]
_STATES = get_args(DeliveryState)
_EARLIEST = ""


@dataclass(frozen=True)
class Delivery:
    """A message on its way to a target (a digest of its URL). `entry`: of the ledger that it tells
    of; `due`: when it is sent next (RFC 3339); `answer`: what the last attempt came to."""

    target: str
    message: str
    entry: int
    attempts: int = 0
    due: str = _EARLIEST
    state: DeliveryState = "waiting"
    answer: str = ""


class Outbox:
    """Callbacks that were sent, are to be sent, or were given up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(
        self,
        target: str,
        entry: int,
    ) -> int:
        """The entry from which a target is told next; `entry`, where it is a new one: what was
        before it, it is not told."""
        asked = select(CALLBACKS.c.entry).where(CALLBACKS.c.target == target)
        with self._database.reading() as connection:
            known = connection.execute(asked).scalar()
        if known is not None and known < 0:
            raise LedgerError(
                "expected the number of an entry for each target of callbacks, got another in the "
                "table callbacks; restore the database from its backup and find out who wrote to it"
            )
        if known is None:
            with self._database.transaction() as connection:
                known = connection.execute(asked).scalar()
                if known is None:
                    connection.execute(insert(CALLBACKS), [{"target": target, "entry": entry}])
        return entry if known is None else int(known)

    def take(
        self,
        target: str,
        begin: int,
        end: int,
        new: Sequence[Delivery],
    ) -> None:
        """Put what entries from `begin` to `end` (without) have to tell into the outbox, unless
        another process did: in one transaction."""
        with self._database.transaction() as connection:
            moved = connection.execute(
                update(CALLBACKS)
                .where(CALLBACKS.c.target == target, CALLBACKS.c.entry == begin)
                .values(entry=end)
            ).rowcount
            if moved and new:
                ids = [each.message for each in new]
                there = select(OUTBOX.c.message).where(
                    OUTBOX.c.target == target, OUTBOX.c.message.in_(ids)
                )
                known = {row.message for row in connection.execute(there)}
                rows = [_row_of(each) for each in new if each.message not in known]
                if rows:
                    connection.execute(insert(OUTBOX), rows)

    def due(
        self,
        target: str,
        now: str,
        latest: str,
        most: int,
    ) -> list[Delivery]:
        """What is to be sent by now to a target, what waits longest first. What is due later than
        `latest`, as nothing can be, is due now: the clock was put right since."""
        asked = (
            select(OUTBOX)
            .where(
                OUTBOX.c.state == "waiting",
                or_(OUTBOX.c.due <= now, OUTBOX.c.due > latest),
                OUTBOX.c.target == target,
            )
            .order_by(OUTBOX.c.due, OUTBOX.c.entry, OUTBOX.c.message)
            .limit(most)
        )
        with self._database.reading() as connection:
            return [_delivery(row) for row in connection.execute(asked)]

    def write(self, deliveries: Iterable[Delivery]) -> None:
        """What has become of messages, in one transaction."""
        rows = [
            {f"new_{name}": value for name, value in _row_of(each).items()} for each in deliveries
        ]
        if rows:
            with self._database.transaction() as connection:
                connection.execute(_CHANGE, rows)

    def all(self, states: Iterable[DeliveryState] = _STATES) -> list[Delivery]:
        """Every message in one of these states, as they came."""
        asked = (
            select(OUTBOX)
            .where(OUTBOX.c.state.in_(list(states)))
            .order_by(OUTBOX.c.entry, OUTBOX.c.message, OUTBOX.c.target)
        )
        with self._database.reading() as connection:
            return [_delivery(row) for row in connection.execute(asked)]

    def counts(self) -> Mapping[str, int]:
        """How many messages are in each state."""
        asked = select(OUTBOX.c.state, func.count()).group_by(OUTBOX.c.state)
        with self._database.reading() as connection:
            found = {str(state): int(count) for state, count in connection.execute(asked)}
        return {state: found.get(state, 0) for state in _STATES}

    def forget(self, before: int) -> None:
        """Delivered messages of entries before that one."""
        with self._database.transaction() as connection:
            connection.execute(
                delete(OUTBOX).where(OUTBOX.c.state == "delivered", OUTBOX.c.entry < before)
            )


_CHANGE = (
    update(OUTBOX)
    .where(
        OUTBOX.c.target == bindparam("new_target"),
        OUTBOX.c.message == bindparam("new_message"),
    )
    .values({name: bindparam(f"new_{name}") for name in ("attempts", "due", "state", "answer")})
)


def _row_of(each: Delivery) -> dict[str, object]:
    return {
        "target": each.target,
        "message": each.message,
        "entry": each.entry,
        "attempts": each.attempts,
        "due": each.due,
        "state": each.state,
        "answer": each.answer,
    }


def _delivery(row: AnyRow) -> Delivery:
    check_types(row, OUTBOX)
    if row.state not in _STATES:
        raise LedgerError(
            "expected a callback that waits, was delivered or given up, got another state in the "
            "table outbox; restore the database from its backup and find out who wrote to it"
        )
    return Delivery(
        row.target,
        row.message,
        row.entry,
        row.attempts,
        row.due,
        row.state,
        row.answer,
    )
