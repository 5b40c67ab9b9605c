"""A host apart that takes requests: another machine, or another user of this one. It has the
database, by an account that may only ask (infra/roles.sql), the keys by which a request names
people, and a key of its own that signs that it took one. It has no data, no model, no key that
closes a request, and cannot open the ids that it sealed.
"""

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy import Connection

from flows.adapters.book import SqlRequestBook
from flows.adapters.checkpoints import CheckpointFiles
from flows.adapters.clock import SystemClock
from flows.adapters.credentials import read_private
from flows.adapters.database import Database, SqlLedger
from flows.adapters.keys import read_signing_key
from flows.adapters.locks import workspace_lock
from flows.adapters.memory import SealedMemory
from flows.adapters.sealed_ids import SealingIds
from flows.settings import CONFIG_NAME, read_settings
from flows.workspace.layout import HANDED, Layout
from s3t_core.config import Config, parse_config
from s3t_core.erasure.checkpoint import Checkpoint
from s3t_core.erasure.ledger import head_of
from s3t_core.erasure.offline import key_id
from s3t_core.erasure.state import State
from s3t_core.errors import StorageError, WorkspaceError
from s3t_core.keys import IntakeKeys, key_check
from s3t_core.times import rfc3339

INTAKE_KEY = "intake.key"
"""In `.s3t/keys` of the host: what it signs with. It never leaves it."""
_SIGNING_SECONDS = 60.0
_ANEW = "have it added anew with `s3t intake add` at the workspace, and `s3t intake install` here"


class Handed(BaseModel):
    """What the workspace hands to the host: the name of its ledger, the id of the host's own key,
    the key that ids are sealed to, and the keys by which a request names people, all hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ledger: str
    host: str
    seals_to: str
    keys: dict[str, str]

    def derived(self) -> IntakeKeys:
        """The keys. Raises WorkspaceError for others, or too few."""
        try:
            return IntakeKeys(**{name: bytes.fromhex(value) for name, value in self.keys.items()})
        except (TypeError, ValueError):
            raise _not_handed() from None


def _not_handed() -> WorkspaceError:
    return WorkspaceError(
        f"expected .s3t/{HANDED} as the workspace handed it out, got another or none; {_ANEW}"
    )


class IntakeHost(Layout):
    """The directory of such a host, with what requests are taken into."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.config: Config = parse_config(read_settings(root / CONFIG_NAME))

    @cached_property
    def handed(self) -> Handed:
        """What the workspace handed to it. Raises WorkspaceError."""
        try:
            return Handed.model_validate_json(read_private(self.state_dir / HANDED))
        except (OSError, ValidationError, StorageError):
            raise _not_handed() from None

    @cached_property
    def keys(self) -> IntakeKeys:
        """Those by which a request names people."""
        return self.handed.derived()

    @cached_property
    def database(self) -> Database:
        """Requests and ledger, by this host's account, which is told nothing of who is there."""
        database = Database(self.config.database.url, self.root, self.keys.sealing)
        database.tells, database.now = False, self.clock.now
        if not database.exists():
            raise WorkspaceError(
                "expected the workspace's database, got none; see [database] url in s3t.toml, and "
                "PGUSER and PGPASSFILE of this host"
            )
        database.complete()
        return database

    @cached_property
    def ledger(self) -> SqlLedger:
        """The ledger, once it is clear that it is the one that this host was added to. Raises
        WorkspaceError."""
        ledger = SqlLedger(self.database)
        known = ledger.beginning().get("key_check") == key_check(self.keys)
        if not known or ledger.leaves()[0].hex() != self.handed.ledger:
            raise WorkspaceError(
                "expected the ledger of the workspace that this host was added to, got another; "
                f"see [database] url in s3t.toml, or {_ANEW}"
            )
        self.check_added(ledger.state_so_far())
        self.heads.check(ledger)
        return ledger

    def check_added(self, state: State) -> None:
        """That the ledger says, as it stands, that this host takes requests. Raises
        WorkspaceError."""
        added = state.intakes.get(self.handed.host)
        if added is None or added.until is not None:
            raise WorkspaceError(
                "expected the ledger to name this host as one that takes requests, got none of its "
                f"key, or that it was removed; {_ANEW}"
            )

    @cached_property
    def heads(self) -> "IntakeHeads":
        """The heads that this host signed, against which the ledger is held."""
        return IntakeHeads(self)

    @cached_property
    def signing(self) -> "IntakeSigning":
        """What signs that a request was taken."""
        return IntakeSigning(self)

    @cached_property
    def needles(self) -> SealingIds:
        """Where ids as given are kept: sealed."""
        public = X25519PublicKey.from_public_bytes(bytes.fromhex(self.handed.seals_to))
        return SealingIds(public, self.handed.host, self.keys.sealing)

    @cached_property
    def requests(self) -> SqlRequestBook:
        """Deletion requests, with their sealed ids."""
        self.ledger  # noqa: B018  # this host may take them
        return SqlRequestBook(self.database, self._write_sealed)

    def _write_sealed(
        self, connection: Connection, request_ids: Iterable[str], again: bool
    ) -> None:
        """With the requests, unless the host was removed by then: nobody could open them."""
        self.check_added(self.database.caught_up(connection).state)
        self.needles.write(connection, request_ids, again)

    @cached_property
    def clock(self) -> SystemClock:
        """Time."""
        return SystemClock()

    def now(self) -> str:
        """Now, RFC 3339."""
        return rfc3339(self.clock.now())


class IntakeHeads:
    """Heads of the ledger that the host signed."""

    def __init__(self, host: IntakeHost) -> None:
        self._host = host
        self.files = CheckpointFiles(
            host.state_dir / "checkpoint.json",
            None,
            lambda: [self._host.signing.private().public_key()],
            SealedMemory(host.state_dir / "verified", host.keys.sealing),
            lambda state: state.intakes.keys(),
        )

    def check(self, ledger: SqlLedger) -> None:
        """Hold a ledger against them. Raises LedgerError where it lost or changed an entry, and
        CertificateError."""
        self.files.check(self._host.handed.ledger, ledger.state, ledger.leaves)


class IntakeSigning:
    """The host's own key."""

    def __init__(self, host: IntakeHost) -> None:
        self._host = host

    def private(self) -> Ed25519PrivateKey:
        """It, as it lies in the host's directory. Raises WorkspaceError for another one than the
        workspace knows the host by."""
        found = read_signing_key(self._host.keys_dir, INTAKE_KEY)
        if key_id(found.public_key()) != self._host.handed.host:
            raise WorkspaceError(
                f"expected the key in .s3t/keys/{INTAKE_KEY} that this host was added with, got "
                f"another; restore it, or {_ANEW}"
            )
        return found

    def signing_key(self) -> Ed25519PrivateKey:
        """The same, once it is clear that the host still takes requests."""
        self._host.check_added(self._host.ledger.state_so_far())
        return self.private()

    def write_checkpoint(self) -> Checkpoint:
        """Sign the ledger as it is now. Raises WorkspaceError once the host was removed."""
        host = self._host
        with workspace_lock(host.state_dir / "checkpoint.lock", _SIGNING_SECONDS):
            private, (_, leaves) = self.signing_key(), host.ledger.so_far()
            checkpoint = Checkpoint(leaves[0].hex(), head_of(leaves), host.now())
            host.heads.files.write(checkpoint, private, leaves, host.ledger.leaves)
        return checkpoint


def handed_bytes(handed: Handed) -> bytes:
    """As it lies in a file."""
    return json.dumps(handed.model_dump(), indent=1).encode() + b"\n"
