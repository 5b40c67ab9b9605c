"""A lease in the database: one at a time changes the workspace, across processes and machines.

1. A holder writes its token and beats: every few seconds it raises a number.
2. A holder that stood under the same lock file is dead, because whoever asks holds that lock now:
   the lease is taken over at once. Of any other holder the number is watched; it is dead when it
   stands still for longer than it may. No clock is compared with another.
3. A holder that lost the lease of whoever changes the workspace (it was stopped for longer than it
   may be) writes nothing more in the database: every transaction checks the token first. That of
   who trains refuses nothing: what is written meanwhile follows the ledger's rules. What it wrote
   to files, buckets and the registry before it came to that is put right by itself, under a lease
   of its own, as after a restore; closing documents it writes and removes within a transaction.
4. Whoever takes a lease over that was never given back sees to what was left under it in that same
   transaction: afterwards nobody could tell under which it was.
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select, update

from flows.adapters.database import Database
from flows.adapters.tables import LEASE
from s3t_core.canonical import sha256_hex
from s3t_core.errors import Busy, StorageError

PATIENCE_SECONDS = 45.0
"""A holder on another machine that did not beat for so long is dead."""
BEAT_SECONDS = 10.0
_POLL_SECONDS = 0.5
CHANGE, TRAIN = "change", "train"
"""The leases of whoever changes a workspace, and of whoever ingests or trains."""

Taking = Callable[[Connection, str], None]


class LostLease(Busy):
    """Somebody else changes the workspace by now. What this process wrote since it lost its lease,
    if anything, was made from what it read before: whoever catches this has the workspace put right
    (flows.use_cases.reconciling.healing_a_lost_lease)."""


class Lease:
    """One named lease. `place` says which lock file a holder stands under (`lock_place`)."""

    def __init__(
        self,
        database: Database,
        name: str,
        place: str,
        patience: float = PATIENCE_SECONDS,
        beat: float = BEAT_SECONDS,
        fences: bool = True,
        taking: Taking = lambda _, __: None,
    ) -> None:
        """`fences`: whether writes are refused when it is lost; one lease of a database object can
        do that. `taking`: is called, in the transaction that takes it, with who had it and never
        gave it back ("" for nobody): what they left is seen to before they are forgotten."""
        self._taking = taking
        self._fences = fences
        self._database = database
        self._name = name
        self._place = place
        self._patience = patience
        self._beat = beat
        self._token = uuid.uuid4().hex

    @contextlib.contextmanager
    def held(self, wait_seconds: float = 0) -> Iterator["Lease"]:
        """Hold it. Raises Busy when a living holder elsewhere has it for longer than
        `wait_seconds`."""
        self._take(wait_seconds)
        done = threading.Event()
        beating = threading.Thread(target=self._keep_beating, args=(done,), daemon=True)
        beating.start()
        if self._fences:
            self._database.fence, self._database.lease = self._check, self._token
        try:
            yield self
        except LostLease:
            raise
        except Exception as error:
            with contextlib.suppress(StorageError):
                self._check_after(error)
            raise
        finally:
            if self._fences:
                self._database.fence, self._database.lease = None, ""
            done.set()
            beating.join()
            with contextlib.suppress(StorageError), self._database.transaction() as connection:
                connection.execute(
                    delete(LEASE).where(LEASE.c.name == self._name, LEASE.c.holder == self._token)
                )

    def check(self) -> None:
        """That it is still held. Raises LostLease."""
        with self._database.reading() as connection:
            self._check(connection)

    def _check_after(self, error: Exception) -> None:
        """Whatever fails once another took over (what was needed is destroyed by now) is told as
        that."""
        try:
            self.check()
        except LostLease as lost:
            raise lost from error

    def _check(self, connection: Connection) -> None:
        held = select(LEASE.c.holder).where(LEASE.c.name == self._name)
        if connection.execute(held).scalar_one_or_none() != self._token:
            raise LostLease(
                "this process stood still for so long that another one took over; it goes on from "
                "the ledger, and this one stops"
            )

    def _take(self, wait_seconds: float) -> None:
        """Raises Busy when the holder beats while it is watched, and there is no time left to
        wait."""
        began, seen = time.monotonic(), None
        until = began + wait_seconds
        while True:
            with self._database.transaction() as connection:
                row = connection.execute(select(LEASE).where(LEASE.c.name == self._name)).first()
                still = (
                    row is not None
                    and seen == (row.holder, row.beat)
                    and time.monotonic() - began > self._patience
                )
                if row is None or row.place == self._place or still:
                    self._database.check_permitted()
                    self._taking(connection, "" if row is None else row.holder)
                    connection.execute(delete(LEASE).where(LEASE.c.name == self._name))
                    connection.execute(
                        insert(LEASE).values(
                            name=self._name, holder=self._token, place=self._place, beat=0
                        )
                    )
                    return
            if seen != (row.holder, row.beat):
                if seen is not None and time.monotonic() > until:
                    raise Busy(
                        "another machine is changing this workspace (ingest, train, retrain or "
                        "erase); wait for it to finish, then run the command again"
                    )
                began = time.monotonic()  # watched from now on
            seen = row.holder, row.beat
            time.sleep(_POLL_SECONDS)

    def _keep_beating(self, done: threading.Event) -> None:
        mine = update(LEASE).where(LEASE.c.name == self._name, LEASE.c.holder == self._token)
        while not done.wait(self._beat):
            with (
                contextlib.suppress(StorageError, Busy),
                self._database.transaction() as connection,
            ):
                connection.execute(mine.values(beat=LEASE.c.beat + 1))


def heartbeats(database: Database) -> dict[str, tuple[str, int]]:
    """Holder and beat of every lease: the same twice, more than BEAT_SECONDS apart, when nobody
    alive holds one."""
    with database.reading() as connection:
        return {row.name: (row.holder, row.beat) for row in connection.execute(select(LEASE))}


def lock_place(lock: Path) -> str:
    """What tells this lock file from any other: equal for two processes only when the same kernel
    keeps the lock."""
    found = lock.stat()
    return sha256_hex(f"{_kernel()} {found.st_dev} {found.st_ino}".encode())


def _kernel() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return (
        boot.read_text().strip()
        if boot.is_file()
        else f"{socket.gethostname()} {uuid.getnode()} {os.name}"
    )
