"""A lease in the database: one eraser at a time, across processes and machines.

1. A holder writes its token and beats: every few seconds it raises a number.
2. A holder that stood under the same lock file is dead, because whoever asks holds that lock now: the lease is taken
   over at once. Of any other holder the number is watched; it is dead when it stands still for longer than it may. No
   clock is compared with another.
3. A holder that lost its lease (it was stopped for longer than it may be) writes nothing more: every transaction of
   its database checks the token first.
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select, update

from flows.adapters.database import LEASE, Database
from s3t_core.canonical import sha256_hex
from s3t_core.errors import Busy, StorageError

PATIENCE_SECONDS = 45.0
"""A holder on another machine that did not beat for so long is dead."""
BEAT_SECONDS = 10.0
_POLL_SECONDS = 0.5


class Lease:
    """One named lease. `place` says which lock file a holder stands under (`lock_place`)."""

    def __init__(self, database: Database, name: str, place: str, patience: float = PATIENCE_SECONDS,
                 beat: float = BEAT_SECONDS) -> None:
        self._database = database
        self._name = name
        self._place = place
        self._patience = patience
        self._beat = beat
        self._token = uuid.uuid4().hex

    @contextlib.contextmanager
    def held(self) -> Iterator["Lease"]:
        """Hold it. Raises Busy while a living holder elsewhere has it."""
        self._take()
        done = threading.Event()
        beating = threading.Thread(target=self._keep_beating, args=(done,), daemon=True)
        beating.start()
        self._database.fence = self._check
        try:
            yield self
        finally:
            self._database.fence = None
            done.set()
            beating.join()
            with contextlib.suppress(StorageError), self._database.transaction() as connection:
                connection.execute(delete(LEASE).where(LEASE.c.name == self._name, LEASE.c.holder == self._token))

    def check(self) -> None:
        """That it is still held. Raises Busy."""
        with self._database.reading() as connection:
            self._check(connection)

    def _check(self, connection: Connection) -> None:
        held = select(LEASE.c.holder).where(LEASE.c.name == self._name)
        if connection.execute(held).scalar_one_or_none() != self._token:
            raise Busy("this eraser stood still for so long that another one took over; it goes on from the ledger, "
                       "and this one stops")

    def _take(self) -> None:
        """Raises Busy when the holder beats while it is watched."""
        began, seen = time.monotonic(), None
        while True:
            with self._database.transaction() as connection:
                row = connection.execute(select(LEASE).where(LEASE.c.name == self._name)).first()
                still = time.monotonic() - began > self._patience
                if row is None or row.place == self._place or still:
                    connection.execute(delete(LEASE).where(LEASE.c.name == self._name))
                    connection.execute(insert(LEASE).values(name=self._name, holder=self._token, place=self._place,
                                                            beat=0))
                    return
            if seen not in (None, (row.holder, row.beat)):
                raise Busy("another machine is erasing in this workspace's database; wait for it to finish, then run "
                           "the command again")
            seen = row.holder, row.beat
            time.sleep(_POLL_SECONDS)

    def _keep_beating(self, done: threading.Event) -> None:
        mine = update(LEASE).where(LEASE.c.name == self._name, LEASE.c.holder == self._token)
        while not done.wait(self._beat):
            with contextlib.suppress(StorageError, Busy), self._database.transaction() as connection:
                connection.execute(mine.values(beat=LEASE.c.beat + 1))


def lock_place(lock: Path) -> str:
    """What tells this lock file from any other: equal for two processes only when the same kernel keeps the lock."""
    found = lock.stat()
    return sha256_hex(f"{_kernel()} {found.st_dev} {found.st_ino}".encode())


def _kernel() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.is_file() else f"{socket.gethostname()} {uuid.getnode()} {os.name}"
