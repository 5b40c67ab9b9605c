"""Signed checkpoints of the ledger: the newest in the workspace, every one in a place outside it."""

from collections.abc import Callable, Iterator
from pathlib import Path

from flows.adapters.keys import read_public_keys, read_signing_key
from s3t_core.erasure.checkpoint import Checkpoint, check_continues, read_checkpoint, sign_checkpoint
from s3t_core.errors import WorkspaceError
from s3t_core.files import SHARED_MODE, write_atomically

_MOST_BYTES = 2**16


class CheckpointFiles:
    """Writes a checkpoint where it belongs, and holds the ledger against those that were written.

    Outside they are named `LEDGER-SIZE.json`, LEDGER being the first 16 hex digits of the ledger's name, so that many
    workspaces can share one place. None is ever written over.
    """

    def __init__(self, inside: Path, outside: Path | None, keys: Path) -> None:
        self._inside = inside
        self._outside = outside
        self._keys = keys

    def write(self, checkpoint: Checkpoint) -> bytes:
        """Sign and write it, outside first; returns the envelope. Raises StorageError, WorkspaceError."""
        envelope = sign_checkpoint(checkpoint, read_signing_key(self._keys))
        if self._outside is not None:
            path = self._reachable(self._outside) / f"{checkpoint.ledger[:16]}-{checkpoint.head.size:012d}.json"
            if not path.exists():
                write_atomically(path, envelope, SHARED_MODE)
        write_atomically(self._inside, envelope)
        return envelope

    def check(self, ledger: str, leaves: Callable[[], list[bytes]]) -> None:
        """That the ledger of that name continues what was signed. Raises LedgerError, CertificateError, WorkspaceError.

        `leaves` reads its leaf hashes: after the checkpoints, because another process may append to the one and write
        the other meanwhile.
        """
        public = read_public_keys(self._keys)
        signed = [read_checkpoint(p.read_bytes()[:_MOST_BYTES], *public) for p in self._newest(ledger)]
        now = leaves() if signed else []
        for checkpoint in signed:
            check_continues(checkpoint, now)

    def _newest(self, ledger: str) -> Iterator[Path]:
        if self._outside is not None:
            found = sorted(self._reachable(self._outside).glob(f"{ledger[:16]}-*.json"))
            yield from found[-1:]
        if self._inside.exists():
            yield self._inside

    @staticmethod
    def _reachable(folder: Path) -> Path:
        if not folder.is_dir():
            raise WorkspaceError("expected the directory that [erasure] log_checkpoints_to names, got none; mount it, "
                                 "or make it if it never was: without it nobody can tell whether the ledger was "
                                 "rolled back")
        return folder
