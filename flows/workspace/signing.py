"""What signs for a workspace."""

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flows.adapters.database import SqlLedger
from flows.adapters.heads import SignedHeads
from flows.adapters.keys import changing_keys, read_public_keys, read_signing_key
from flows.adapters.locks import workspace_lock
from flows.workspace.change import Change
from flows.workspace.layout import Layout
from s3t_core.erasure import events
from s3t_core.erasure.checkpoint import Checkpoint
from s3t_core.erasure.growing_tree import Leaves
from s3t_core.erasure.ledger import head_of
from s3t_core.erasure.offline import key_id
from s3t_core.erasure.state import State
from s3t_core.errors import WorkspaceError

_SIGNING_SECONDS = 60.0
"""A checkpoint waits so long for another process that signs one."""


def not_the_key(signing: str) -> WorkspaceError:
    """What to do where another key lies in the place of the one that signs. `signing`: its id."""
    return WorkspaceError(
        f"expected the signing key that the ledger names, {signing[:16]}..., in .s3t/keys, got "
        "another. Where an older database was restored, restore the newest one; where an older key "
        "was, the newest key. What is lost for good: take this key away, leave public keys there "
        "(else put the newest published signing.pub there), and run `s3t rotate-key --lost`"
    )


class Signing:
    """The key that signs by the ledger, and the checkpoints that it signs."""

    def __init__(
        self, layout: Layout, heads: SignedHeads, ledger: SqlLedger, now: Callable[[], str]
    ) -> None:
        self._layout, self._heads, self._ledger, self._now = layout, heads, ledger, now

    def note_place(
        self,
        held: Change,
        by: str = "",
    ) -> None:
        """Tell the ledger where checkpoints are kept outside, once one is there. `by`: who moves
        them."""
        held.require()
        if self._ledger.state().checkpoints_at == self._heads.outside:
            return
        self.write_checkpoint()
        self._ledger.append(
            events.CheckpointsPlaced(
                time=self._now(),
                place=self._heads.outside,
                by=by,
                lost=self._heads.moves == "lost",
            )
        )
        self.write_checkpoint()

    def write_checkpoint(self) -> tuple[Checkpoint, bytes]:
        """Sign the ledger as it is now: at the end of every command that changed it; the checkpoint
        and its bytes."""
        with workspace_lock(
            self._layout.state_dir / "checkpoint.lock", _SIGNING_SECONDS
        ):  # what is read first is signed first
            private, state, leaves = self._key_and_leaves()
            checkpoint = Checkpoint(leaves[0].hex(), head_of(leaves), self._now())
            return checkpoint, self._heads.files.write(
                checkpoint, private, leaves, self._ledger.leaves, self._heads.is_named(state)
            )

    def public_keys(self) -> list[Ed25519PublicKey]:
        """Those of the keys in .s3t/keys that sign, or signed, by the ledger: what else lies there
        counts for nothing."""
        known = self._ledger.state().signed_by
        return [k for k in read_public_keys(self._layout.keys_dir) if key_id(k) in known]

    def signing_key(self) -> Ed25519PrivateKey:
        """The key that signs by the ledger. Raises WorkspaceError where another one lies in its
        place."""
        return self._key_and_leaves()[0]

    def _key_and_leaves(self) -> tuple[Ed25519PrivateKey, State, Leaves]:
        """The key, and the state and leaf hashes of a ledger by which it signs, all of one moment:
        what a key signs that has its own replacement in it counts for nothing, for ever."""
        private, (state, leaves) = self._read_key(), self._ledger.so_far()
        if key_id(private.public_key()) != state.signing:  # it may be changing just now
            with changing_keys(self._layout.keys_dir):
                private, (state, leaves) = self._read_key(), self._ledger.so_far()
        if key_id(private.public_key()) != state.signing:
            raise not_the_key(state.signing)
        return private, state, leaves

    def _read_key(self) -> Ed25519PrivateKey:
        return read_signing_key(self._layout.keys_dir)
