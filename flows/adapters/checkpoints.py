"""Signed checkpoints of the ledger: the newest in the workspace, every one in a place outside it.

Outside they are named `LEDGER-SIZE.json`, LEDGER being the first 16 hex digits of the ledger's
name, so that many workspaces can share one place. What counts is what they say, not how they are
named:

1. every file there that bears this ledger's name, or says that it is this ledger's, must be a
   checkpoint by a key that signed when the ledger was of that size, under the name that its content
   calls for
2. the ledger must continue every one of them; those that were held against it before are remembered
   under a seal
3. none is ever written over: other content under a name that is to be written is an error
4. once the ledger names the place, one of the size of the workspace's own, or of more, lies there:
   it was written there first. Where none does, this is another place under the same path (a disk
   that is not mounted, an older copy of it), and nothing is written there
"""

import errno
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flows.adapters.memory import SealedMemory
from s3t_core.erasure.checkpoint import (
    Checkpoint,
    check_continues,
    read_signed_checkpoint,
    sign_checkpoint,
)
from s3t_core.erasure.ledger import TreeHead
from s3t_core.erasure.state import State
from s3t_core.errors import CertificateError, LedgerError, UnknownSigner, WorkspaceError
from s3t_core.files import SHARED_MODE, read_regular, write_atomically, write_new

_MOST_BYTES = 2**16
_KIND = "checkpoints"
_NAME = re.compile(r"([0-9a-f]{16})-([0-9]{12,})\.json")


_OLDER_KEYS = (
    "An older .s3t/keys was restored, or somebody wrote it who has another key. Restore the "
    "newest .s3t/keys; where its signing.key is lost for good, put the newest published "
    "signing.pub there, take signing.key away, and run `s3t rotate-key --lost`"
)


class CheckpointFiles:
    """Writes a checkpoint where it belongs, and holds the ledger against those that were
    written."""

    def __init__(
        self,
        inside: Path,
        outside: Path | None,
        publics: Callable[[], list[Ed25519PublicKey]],
        memory: SealedMemory,
        named: Callable[[State], Collection[str]] = lambda state: state.signed_by,
    ) -> None:
        """`publics` reads the public keys that count here, `named` says by which, of those that the
        ledger names: a workspace's own, the one in use and those before it."""
        self._inside = inside
        self._outside = outside
        self._publics = publics
        self._memory = memory
        self._named = named
        self._held: set[str] = set()  # names outside that this object held the ledger against

    def write(
        self,
        checkpoint: Checkpoint,
        private: Ed25519PrivateKey,
        signed: Sequence[bytes],
        leaves: Callable[[], list[bytes]],
        is_named: bool = False,
    ) -> bytes:
        """Sign and write it, outside first; returns the envelope. It must continue those that are
        there, inside and outside, whichever is the larger: a database that an older copy took the
        place of meanwhile has lost what they tell of. One of a larger ledger, another machine's,
        stays. `signed` are the leaf hashes that it signs, `leaves` reads the ledger's as they are
        now. `is_named`: whether the ledger names the place outside. Raises StorageError,
        WorkspaceError, LedgerError."""
        newest = self.check_again(signed, leaves, is_named)
        envelope = sign_checkpoint(checkpoint, private)
        if self._outside is not None:
            path = self._reachable(self._outside) / _name(checkpoint)
            if not write_new(path, envelope, SHARED_MODE):
                self._check_same(path, checkpoint)
            elif is_named and not _sizes(self._held, checkpoint.ledger) & _sizes(
                self._names_outside(), checkpoint.ledger
            ):  # it went away under us: what was written lies in its stead
                path.unlink(missing_ok=True)
                raise _not_there()
        if newest <= checkpoint.head.size:
            write_atomically(self._inside, envelope)
        return envelope

    def check_again(
        self,
        signed: Sequence[bytes],
        leaves: Callable[[], list[bytes]],
        is_named: bool,
    ) -> int:
        """The size of the ledger with these leaf hashes that the checkpoint in the workspace is of,
        0 without one. Raises LedgerError where this ledger, which was checked, does not continue
        it, or one outside that came since the last look, and by rule 4."""
        ledger = signed[0].hex()
        try:
            inside = [c for c, _ in self._inside_one() if c.ledger == ledger]
        except CertificateError:
            inside = []  # what is no checkpoint by a key of ours counts for nothing: it is replaced
        names = self._names_outside()
        outside = self._come_since(names, ledger)
        for other in (*inside, *outside):
            check_continues(other, leaves() if other.head.size > len(signed) else signed)
        newest = max((c.head.size for c in inside), default=0)
        if is_named and max(_sizes(names, ledger), default=0) < max(newest, 1):
            raise _not_there()
        self._held = names
        return newest

    def is_there(self, ledger: str) -> bool:
        """Whether one of that ledger lies outside that is no older than the workspace's own, by its
        name: also one that is to be looked into."""
        if self._outside is None or not self._outside.is_dir():
            return False
        own = max((c.head.size for c, _ in self._inside_one() if c.ledger == ledger), default=1)
        return max(_sizes(self._names_outside(), ledger), default=0) >= own

    def _come_since(
        self,
        names: set[str],
        ledger: str,
    ) -> list[Checkpoint]:
        """Those outside that this object did not hold the ledger against yet. (What it did, a
        ledger that was rolled back since contradicts in the memory of its database.)"""
        if self._outside is None:
            return []
        place = self._reachable(self._outside)
        read = [
            c for name in sorted(names - self._held) for c, _ in self._read(place / name, ledger)
        ]
        return [c for c in read if c.ledger == ledger]

    def check(
        self,
        ledger: str,
        state: Callable[[], State],
        leaves: Callable[[], list[bytes]],
        whole: bool = False,
    ) -> None:
        """That the ledger of that name continues what was signed, and that what it says is kept
        outside is there. Raises LedgerError, CertificateError, WorkspaceError.

        `state` reads the fold of its events and `leaves` its leaf hashes: after the checkpoints,
        because another process may append to the one and write the other meanwhile. `whole`:
        nothing is taken from memory.
        """
        inside = self._inside_one()  # first: another process writes outside first
        names = self._names_outside()
        outside = self._outside_ones(ledger, whole)
        signed = [*outside, *inside]
        if not signed and self._outside is None:
            return
        recorded, now = state(), leaves()
        if self._outside is not None and recorded.checkpoints_at:
            own = max((c.head.size for c, _ in inside if c.ledger == ledger), default=1)
            if max((c.head.size for c, _ in outside), default=0) < own:
                raise _not_there()
        for checkpoint, signer in signed:
            check_continues(checkpoint, now)
            _check_signer(checkpoint, signer, recorded, self._named(recorded))
        self._held = names
        self._memory.save()

    def _inside_one(self) -> list[tuple[Checkpoint, str]]:
        if not os.path.lexists(self._inside):
            return []
        content, publics = _content(self._inside, "the workspace"), self._publics()
        try:
            return [read_signed_checkpoint(content, *publics)]
        except UnknownSigner as error:
            raise CertificateError(
                f"{error}. This is the workspace's own checkpoint. {_OLDER_KEYS}"
            ) from None

    def _names_outside(self) -> set[str]:
        """What lies outside now, by name: a look that costs little however many there are."""
        if self._outside is None:
            return set()
        with os.scandir(self._reachable(self._outside)) as found:
            return {each.name for each in found if each.name.endswith(".json")}

    def _outside_ones(
        self,
        ledger: str,
        whole: bool,
    ) -> list[tuple[Checkpoint, str]]:
        """Those that were not held against the ledger yet, and the largest. Rule 1."""
        if self._outside is None:
            return []
        found: list[tuple[Checkpoint, str, bool]] = []
        for path in sorted(self._reachable(self._outside).glob("*.json")):
            known = None if whole else self._memory.recall(_KIND, path)
            if not isinstance(known, list):
                found += [(*read, True) for read in self._read(path, ledger)]
            elif known:
                found.append((*_from_memory(known), False))
        ours = [f for f in found if f[0].ledger == ledger]
        largest = max((c.head.size for c, _, _ in ours), default=0)
        return [(c, signer) for c, signer, new in ours if new or c.head.size == largest]

    def _read(
        self,
        path: Path,
        ledger: str,
    ) -> list[tuple[Checkpoint, str]]:
        """One that says it is this ledger's, whatever its name; another workspace's is passed
        over."""
        named = path.name.startswith(f"{ledger[:16]}-")
        if not named and not path.is_file():
            return []  # somebody else's, who shares the place: it says nothing
        content = _content(path, "[erasure] log_checkpoints_to")
        try:
            checkpoint, signer = read_signed_checkpoint(content, *self._publics())
        except CertificateError as error:
            if named and isinstance(error, UnknownSigner):
                raise LedgerError(
                    f"expected the checkpoint of this ledger in {path.name} under [erasure] "
                    "log_checkpoints_to to be signed by a key of this workspace, got one by "
                    f"another. {_OLDER_KEYS}"
                ) from None
            if named:
                raise LedgerError(
                    f"expected a checkpoint of this ledger in {path.name} under [erasure] "
                    "log_checkpoints_to, got other bytes; find out who wrote them, and put the "
                    "true file back"
                ) from None
            return self._pass_over(path)
        if checkpoint.ledger != ledger and not named:
            return self._pass_over(path)
        if checkpoint.ledger != ledger or path.name != _name(checkpoint):
            raise LedgerError(
                f"expected the checkpoint in {path.name} under the name that its content calls "
                f"for, {_name(checkpoint)}, got a copy or a renamed one: it could hide a newer "
                "one; find out who put it there, and take it away"
            )
        self._memory.keep(
            _KIND,
            path,
            [
                checkpoint.ledger,
                checkpoint.head.size,
                checkpoint.head.root,
                checkpoint.time,
                signer,
            ],
        )
        return [(checkpoint, signer)]

    def _pass_over(self, path: Path) -> list[tuple[Checkpoint, str]]:
        self._memory.keep(_KIND, path, [])
        return []

    def _check_same(
        self,
        path: Path,
        checkpoint: Checkpoint,
    ) -> None:
        """Rule 3. The same head may have been signed at another time."""
        there = self._read(path, checkpoint.ledger)
        if [(c.ledger, c.head) for c, _ in there] != [(checkpoint.ledger, checkpoint.head)]:
            raise LedgerError(
                f"expected no other checkpoint under the name {path.name}, got one of another "
                "history; find out who wrote it: either it or this ledger is not the true one"
            )

    @staticmethod
    def _reachable(folder: Path) -> Path:
        if not folder.is_dir():
            raise WorkspaceError(
                "expected the directory that [erasure] log_checkpoints_to names, got none; mount "
                "it, or make it if it never was: without it nobody can tell whether the ledger was "
                "rolled back"
            )
        return folder


def _content(path: Path, place: str) -> bytes:
    """What is in a file, "" for one that is too large to be a checkpoint. Raises WorkspaceError for
    what is no file."""
    try:
        return read_regular(path, _MOST_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            return b""
        raise WorkspaceError(
            f"expected a file that can be read under the name {path.name} in {place}, got none "
            f"({error.strerror or type(error).__name__}): a directory, a pipe, or a link that "
            "leads nowhere; find out who put it there, and take it away"
        ) from None


def _not_there() -> LedgerError:
    return LedgerError(
        "expected a checkpoint of this ledger in the directory that [erasure] log_checkpoints_to "
        "names, as the ledger says, of no fewer entries than the workspace's own, got none: it is "
        "not mounted, or an older copy of it is. Put back what was taken away, or, where it is "
        "lost for good, run `s3t move-checkpoints --lost`"
    )


def _sizes(names: Collection[str], ledger: str) -> set[int]:
    """Of the ledgers that checkpoints outside are of, by their names, which are what their content
    calls for (rule 1)."""
    found = (_NAME.fullmatch(name) for name in names)
    return {int(m[2]) for m in found if m and m[1] == ledger[:16]}


def _name(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.ledger[:16]}-{checkpoint.head.size:012d}.json"


def _from_memory(known: list[object]) -> tuple[Checkpoint, str]:
    ledger, size, root, time, signer = known
    return Checkpoint(str(ledger), TreeHead(int(str(size)), str(root)), str(time)), str(signer)


def _check_signer(
    checkpoint: Checkpoint,
    signer: str,
    state: State,
    named: Collection[str],
) -> None:
    """Raises LedgerError for a checkpoint by a key that did not sign when the ledger was of that
    size: one that was replaced before, or one that it never named, whatever lies beside the keys.
    """
    replaced = {c.old: c for c in state.key_changes}.get(signer)
    if replaced is not None and checkpoint.head.size > replaced.entry:
        raise LedgerError(
            f"expected the checkpoint of {checkpoint.head.size} entries to be signed by the key "
            f"that was in use then, got one by key {signer[:16]}..., which was replaced at "
            f"entry {replaced.entry}: whoever has that key made it; take it away"
        )
    if signer not in named:
        raise LedgerError(
            f"expected the checkpoint of {checkpoint.head.size} entries to be signed by a key that "
            f"the ledger names, got one by key {signer[:16]}..., whose public part lies in "
            ".s3t/keys; find out who put it there, and take both away"
        )
