"""What signs for a workspace, and the signed heads of its ledger."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flows.adapters.checkpoints import CheckpointFiles
from flows.adapters.database import SqlLedger
from flows.adapters.keys import read_public_keys, read_signing_key
from flows.adapters.local import workspace_lock
from flows.adapters.memory import SealedMemory
from flows.workspace.change import Change
from flows.workspace.layout import Layout
from s3t_core.erasure import events
from s3t_core.erasure.checkpoint import Checkpoint
from s3t_core.erasure.ledger import head_of
from s3t_core.erasure.merkle import leaf_hash
from s3t_core.erasure.offline import key_id
from s3t_core.errors import WorkspaceError
from s3t_core.keys import WorkspaceKeys

_SIGNING_SECONDS = 60.0
"""A checkpoint waits so long for another process that signs one."""


Moves = Literal["", "moved", "lost"]


class Signing:
    """The key that signs by the ledger, and the checkpoints that it signed."""

    def __init__(
        self,
        layout: Layout,
        keys: WorkspaceKeys,
        outside: str,
        ledger: Callable[[], SqlLedger],
        now: Callable[[], str],
        moves: Moves = "",
    ) -> None:
        """`outside`: where checkpoints are kept beside those of the workspace by the settings, ""
        nowhere. `moves`: that this may be another place than the ledger names, because they are
        being moved, or that the one which it names is lost."""
        self._layout, self._keys, self._outside = layout, keys, outside
        self._ledger, self._now, self._moves = ledger, now, moves

    @cached_property
    def memory(self) -> SealedMemory:
        """What earlier commands verified."""
        return SealedMemory(self._layout.state_dir / "verified", self._keys.sealing)

    @cached_property
    def checkpoints(self) -> CheckpointFiles:
        """Signed heads of the ledger. Raises WorkspaceError for a place inside the workspace."""
        return self._files(self._outside)

    def _files(self, outside: str) -> CheckpointFiles:
        root = self._layout.root.resolve()
        if outside and Path(outside).resolve().is_relative_to(root):
            raise WorkspaceError(
                "expected [erasure] log_checkpoints_to to name a place outside the workspace, got "
                "one inside it: whoever rolls the ledger back would roll the checkpoints back with "
                "it"
            )
        return CheckpointFiles(
            self._layout.state_dir / "checkpoint.json",
            Path(outside) if outside else None,
            lambda: read_public_keys(self._layout.keys_dir),
            self.memory,
        )

    def check(self, ledger: SqlLedger, whole: bool = False) -> None:
        """Hold a ledger against every checkpoint, those at the place that it names; `whole`:
        nothing is taken from memory. Raises LedgerError, CertificateError, WorkspaceError."""
        name, recorded = leaf_hash(ledger.entries()[0]).hex(), ledger.state().checkpoints_at
        if recorded not in ("", self._outside) and not self._moves:
            raise WorkspaceError(
                f"expected [erasure] log_checkpoints_to = {recorded!r} in s3t.toml, as the ledger "
                f"says, got {self._outside!r}: nobody could tell any more whether the ledger was "
                "rolled back. Change it back, or run `s3t move-checkpoints`, which puts it on the "
                "record"
            )
        at = "" if self._moves == "lost" else recorded or self._outside
        files = self.checkpoints if at == self._outside else self._files(at)
        files.check(name, ledger.state, ledger.leaves, whole)

    def note_place(self, held: Change, by: str = "") -> None:
        """Tell the ledger where checkpoints are kept outside, once one is there. `by`: who moves
        them."""
        held.require()
        ledger = self._ledger()
        if ledger.state().checkpoints_at == self._outside:
            return
        self.write_checkpoint()
        lost = self._moves == "lost"
        told = events.CheckpointsPlaced(time=self._now(), place=self._outside, by=by, lost=lost)
        ledger.append(told)
        self.write_checkpoint()

    def write_checkpoint(self) -> tuple[Checkpoint, bytes]:
        """Sign the ledger as it is now: at the end of every command that changed it; the checkpoint
        and its bytes."""
        with workspace_lock(
            self._layout.state_dir / "checkpoint.lock", _SIGNING_SECONDS
        ):  # what is read first is signed first
            private, leaves = self.signing_key(), self._ledger().leaves()
            checkpoint = Checkpoint(leaves[0].hex(), head_of(leaves), self._now())
            return checkpoint, self.checkpoints.write(
                checkpoint, private, leaves, self._ledger().leaves
            )

    def public_keys(self) -> list[Ed25519PublicKey]:
        """Those of the keys in .s3t/keys that sign, or signed, by the ledger: what else lies there
        counts for nothing."""
        known = self._ledger().state().signed_by
        return [k for k in read_public_keys(self._layout.keys_dir) if key_id(k) in known]

    def signing_key(self) -> Ed25519PrivateKey:
        """The key that signs by the ledger. Raises WorkspaceError where another one lies in its
        place."""
        private, signs = read_signing_key(self._layout.keys_dir), self._ledger().state().signing
        if key_id(private.public_key()) != signs:
            raise WorkspaceError(
                f"expected the signing key that the ledger names, {signs[:16]}..., in .s3t/keys, "
                "got another; restore it from its backup, or, when it is lost for good, take this "
                "one away and run `s3t rotate-key --lost`"
            )
        return private
