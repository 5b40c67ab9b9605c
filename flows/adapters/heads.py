"""The signed heads of a workspace's ledger, and the ledger held against them."""

from functools import cached_property
from pathlib import Path
from typing import Literal

from flows.adapters.checkpoints import CheckpointFiles
from flows.adapters.database import SqlLedger
from flows.adapters.keys import read_public_keys
from flows.adapters.memory import SealedMemory
from s3t_core.erasure.merkle import leaf_hash
from s3t_core.erasure.state import State
from s3t_core.errors import WorkspaceError
from s3t_core.keys import WorkspaceKeys

Moves = Literal["", "moved", "lost"]


class SignedHeads:
    """Checkpoints in the workspace and outside of it."""

    def __init__(self, root: Path, keys: WorkspaceKeys, outside: str, moves: Moves = "") -> None:
        """`root`: the workspace's directory. `outside`: where checkpoints are kept beside those of
        the workspace by the settings, "" nowhere. `moves`: that this may be another place than
        the ledger names, because they are being moved, or that the one which it names is lost."""
        self._root, self._state, self._keys = root, root / ".s3t", keys
        self.outside, self.moves = outside, moves

    @cached_property
    def memory(self) -> SealedMemory:
        """What earlier commands verified."""
        return SealedMemory(self._state / "verified", self._keys.sealing)

    @cached_property
    def files(self) -> CheckpointFiles:
        """Where they are kept. Raises WorkspaceError for a place inside the workspace."""
        return self._files_at(self.outside)

    def _files_at(self, outside: str) -> CheckpointFiles:
        root = self._root.resolve()
        if outside and Path(outside).resolve().is_relative_to(root):
            raise WorkspaceError(
                "expected [erasure] log_checkpoints_to to name a place outside the workspace, got "
                "one inside it: whoever rolls the ledger back would roll the checkpoints back with "
                "it"
            )
        return CheckpointFiles(
            self._state / "checkpoint.json",
            Path(outside) if outside else None,
            lambda: read_public_keys(self._state / "keys"),
            self.memory,
        )

    def check(self, ledger: SqlLedger, whole: bool = False) -> None:
        """Hold a ledger against every checkpoint, those at the place that it names; `whole`:
        nothing is taken from memory. Raises LedgerError, CertificateError, WorkspaceError."""
        name, state = leaf_hash(ledger.entries()[0]).hex(), ledger.state()
        self.check_place(state)
        recorded = state.checkpoints_at
        at = "" if self.moves == "lost" else recorded or self.outside
        files = self.files if at == self.outside else self._files_at(at)
        files.check(name, ledger.state, ledger.leaves, whole)

    def check_place(self, state: State) -> None:
        """That the ledger names the place that the settings name, as they were when this process
        began: what it writes or signs would be told of where nobody looks any more. Raises
        WorkspaceError."""
        recorded = state.checkpoints_at
        if recorded not in ("", self.outside) and not self.moves:
            raise WorkspaceError(
                f"expected [erasure] log_checkpoints_to = {recorded!r} in s3t.toml, as the ledger "
                f"says, got {self.outside!r}: nobody could tell any more whether the ledger was "
                "rolled back. Where they were moved since this command began, run it again: what "
                "it did before is there. Else change it back, or run `s3t move-checkpoints`, which "
                "puts it on the record"
            )

    def check_again(self, ledger: SqlLedger) -> None:
        """The same of one that was checked by this process, against what came since: for what is
        not to be undone, or signed. Raises LedgerError, WorkspaceError."""
        state, leaves = ledger.so_far()
        self.files.check_again(leaves, ledger.leaves, self.is_named(state))

    def is_named(self, state: State) -> bool:
        """Whether the ledger names the place outside that the settings name. Raises WorkspaceError
        where it names another."""
        self.check_place(state)
        return bool(self.outside) and state.checkpoints_at == self.outside

    def is_there(self, ledger: SqlLedger) -> bool:
        """Whether the place outside that the ledger names is there, by what lies in it: a
        checkpoint of this ledger that is no older than the workspace's own."""
        state, leaves = ledger.so_far()
        return self._files_at(state.checkpoints_at).is_there(leaves[0].hex())
