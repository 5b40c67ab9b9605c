"""Change the key that signs certificates and checkpoints: on a schedule, after it leaked, or when
it is lost; and the place outside the workspace where checkpoints are kept."""

from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flows.adapters.keys import (
    SIGNING_KEY,
    adopt_held,
    changing_keys,
    keep_public_key,
    read_public_keys,
    read_signing_key,
    write_next_key,
)
from flows.use_cases.finding import Findable, may_tell
from flows.use_cases.quoting import check_quotes_nobody
from flows.workspace import access
from flows.workspace.parts import HasSigning, Lockable
from flows.workspace.signing import not_the_key
from flows.workspace.workspace import Workspace, refuse_open_plan
from s3t_core.erasure import events
from s3t_core.erasure.offline import VOUCHED, key_id
from s3t_core.errors import UsageError, WorkspaceError

_WAIT_SECONDS = 60


class Signed(Findable, HasSigning, Lockable, Protocol):
    """What is signed by a key."""


def rotate_signing_key(
    workspace: Signed,
    by: str,
    lost: bool,
) -> dict[str, Any]:
    """{"old", "new"}: key ids (SHA-256 of the raw public key, hex). The ledger records the change;
    the old key signs the new one's id, unless it is `lost`. From that entry on the old key counts
    for nothing; its public part stays, to verify what it signed before.

    Raises UsageError when `lost` is said of a key that is there, where `by` quotes somebody who is
    known, or while an erasure is unfinished: its certificates are signed by one key. (Without the
    key it could not be finished: what it signed, and did not record, is signed anew.)
    """
    check_quotes_nobody(workspace, by, "who decides with --by, a name or role")
    folder = workspace.keys_dir
    with access.changing(workspace, _WAIT_SECONDS):
        with changing_keys(folder):
            state = workspace.ledger.state()
            adopt_held(folder, state)  # of one that was killed since this workspace was opened
            if not lost:
                refuse_open_plan(state)
            if lost and (folder / SIGNING_KEY).exists():
                raise UsageError(
                    f"expected no .s3t/keys/{SIGNING_KEY} with --lost, got one; leave --lost out: "
                    "the old key vouches for the new one"
                )
            old = _named(folder, state.signing)
            signing = None if lost else read_signing_key(folder)
            if signing is not None and key_id(signing.public_key()) != state.signing:
                raise not_the_key(state.signing)
            keep_public_key(folder)
            new = key_id(write_next_key(folder).public_key())
            signed = signing.sign(VOUCHED + bytes.fromhex(new)) if signing is not None else b""
            workspace.ledger.append(
                events.KeyReplaced(
                    time=workspace.now(),
                    old=key_id(old),
                    new=new,
                    by=by,
                    lost=lost,
                    old_public=old.public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
                    vouched=signed.hex(),
                )
            )
            adopt_held(folder, workspace.ledger.state())
        workspace.signing.write_checkpoint()
    return {"old": key_id(old), "new": new}


def _named(folder: Path, signing: str) -> Ed25519PublicKey:
    """The public key that the ledger names, wherever among ours it lies: a restored database may
    name another than the newest. Raises WorkspaceError."""
    found = {key_id(public): public for public in read_public_keys(folder)}
    if signing not in found:
        raise WorkspaceError(
            f"expected the public key that the ledger names, {signing[:16]}..., in .s3t/keys, got "
            "others; put a published signing.pub there that is it, or says that it replaced it"
        )
    return found[signing]


def move_checkpoints(
    root: Path,
    by: str,
    lost: bool,
) -> dict[str, str]:
    """{"old", "new"}: where checkpoints were kept outside the workspace, and where they are from
    now on, by [erasure] log_checkpoints_to, "" being nowhere. The ledger is held against those at
    the old place first, unless that is `lost`, and records the change.

    Raises UsageError where nothing changes, where `lost` is said of a place that is there, or where
    `by` quotes somebody who is known.
    """
    workspace = Workspace(root, checkpoints="lost" if lost else "moved")
    check_quotes_nobody(workspace, by, "who decides with --by, a name or role")
    with access.changing(workspace, _WAIT_SECONDS) as held:
        old, new = (
            workspace.ledger.state().checkpoints_at,
            workspace.config.erasure.log_checkpoints_to,
        )
        if old == new:
            raise UsageError(
                "expected another [erasure] log_checkpoints_to in s3t.toml than before, got the "
                "same; write the new place there, then run the command again"
            )
        if may_tell(workspace):
            check_quotes_nobody(workspace, new, "a [erasure] log_checkpoints_to")
        if lost and old and workspace.heads.is_there(workspace.ledger):
            raise UsageError(
                "expected no checkpoints of this ledger at the old place with --lost, got the "
                "newest; leave --lost out: the ledger is held against them first"
            )
        workspace.signing.note_place(held, by)
    return {"old": old, "new": new}
