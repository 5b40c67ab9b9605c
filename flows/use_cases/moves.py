"""What ledgers tell of a move: whether it is over, and which of two databases is the workspace's.

A backup of files holds what was there when it was made: the note of a move that is over by now, the
database that was moved away. The newest ledger knows better.
"""

from flows.adapters.database import Database, SqlLedger
from s3t_core.erasure.vocabulary import Event
from s3t_core.errors import GuaranteeError, LedgerError


def told_by(database: Database) -> list[Event]:
    """The entries of a database's ledger, none where there is none, or where it is sealed by
    another workspace's key."""
    if not database.exists():
        return []
    try:
        return SqlLedger(database).events()
    except LedgerError:
        if database.is_sealed_here():
            raise
        return []


def is_over(move: str, told: list[Event]) -> bool:
    """Whether a ledger tells that a move was ended or undone, or that another one came behind
    it."""
    has_come = False
    for event in told:
        if event["type"] not in ("moving", "migrated") or not event["move"]:
            continue
        if event["move"] == move and event.get("state") in ("undone", "ended"):
            return True
        if has_come and event["move"] != move:
            return True
        has_come = has_come or (event["type"] == "migrated" and event["move"] == move)
    return False


def has_moved(move: str, old: list[Event], new: list[Event]) -> bool:
    """Whether the ledger has moved: the new database tells of the move, and the old one, where
    there is one, does not go on from what was copied. That is so where a process was killed between
    the two commits, and what came to the old one meanwhile is copied again; an old one that does
    not even have what was copied came back with a restore.

    Raises GuaranteeError where both went on.
    """
    at = next((n for n, e in enumerate(new) if _is_the_move(e, move)), None)
    if at is None or not old:
        return at is not None
    if old[:at] == new[:at]:
        if len(new) == at + 1:
            return False
        if len(old) == at:
            return True
    elif len(old) < at and old == new[: len(old)]:
        return True
    raise GuaranteeError(
        "expected one ledger, at the old place or at the new one, got two that both went on since "
        "the move: a database came back from a backup, and requests were taken in both. Nothing "
        "was changed. Put the newer one of them back at the place that s3t.toml names, take the "
        "other away, and enter the requests of that one anew, then run the command again"
    )


def _is_the_move(event: Event, move: str) -> bool:
    return bool(event["type"] == "migrated" and event["move"] == move)
