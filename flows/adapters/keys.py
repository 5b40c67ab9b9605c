"""Key files of a workspace: `.s3t/keys/workspace.key` and the signing pair. Refused when others
could read them.

A signing key is changed in this order, so that a kill at any place leaves one that signs and is on
the record: the next one is written to `signing.next`; the ledger tells of it; it takes the place of
the old one, whose public part is kept. Whoever does any of that holds `.s3t/keys.lock`, and asks
the ledger anew once it is held: of two that change the key one after the other, the second begins
with what the first came to, also where that one was killed. `signing.pub` says, before the key
itself, which keys it replaced, and has them: whoever verifies needs no other file to know that.
"""

import contextlib
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from s3t_core.erasure.offline import KeyFile, KeyReplaced, NotValid, key_id, read_key_file
from s3t_core.erasure.state import State
from s3t_core.errors import Busy, WorkspaceError
from s3t_core.files import (
    SHARED_MODE,
    locked,
    read_regular,
    remove_file,
    remove_half_written,
    write_atomically,
)
from s3t_core.keys import KEY_BYTES, WorkspaceKeys

WORKSPACE_KEY = "workspace.key"
SIGNING_KEY = "signing.key"
SIGNING_NEXT = "signing.next"
SIGNING_PUB = "signing.pub"
_RETIRED = "retired-"
KEYS_LOCK = "keys.lock"
"""Under `.s3t`: the keys themselves may lie where nothing is written."""
_WAIT_SECONDS = 60.0
_MOST_KEY_BYTES = 2**20
_WITHOUT = {SIGNING_KEY: "; where there is none, run `s3t rotate-key --lost`"}
"""What else can be done where a key is lost."""


def create_keys(folder: Path, workspace_key: bytes | None = None) -> None:
    """Write the keys that are missing (0600); never touches one that is there."""
    if not (folder / WORKSPACE_KEY).exists():
        key = workspace_key or secrets.token_bytes(KEY_BYTES)
        write_atomically(folder / WORKSPACE_KEY, key.hex().encode() + b"\n", 0o600)
    if not (folder / SIGNING_KEY).exists() and (folder / SIGNING_PUB).exists():
        raise WorkspaceError(
            f"expected .s3t/keys/{SIGNING_KEY} beside its public part, got none; restore it from "
            "its backup, or, when it is lost for good, run `s3t rotate-key --lost`"
        )
    if not (folder / SIGNING_KEY).exists():
        _write_private(folder / SIGNING_KEY, Ed25519PrivateKey.generate())
    if not (folder / SIGNING_PUB).exists():
        write_atomically(
            folder / SIGNING_PUB, _pem(read_signing_key(folder).public_key()), SHARED_MODE
        )
    folder.chmod(0o700)


def read_workspace_key(folder: Path) -> bytes:
    """The workspace key. Raises WorkspaceError when it is missing, readable by others, or not
    one."""
    text = _read_private(folder / WORKSPACE_KEY)
    try:
        return bytes.fromhex(text.decode().strip())
    except ValueError:
        raise WorkspaceError(
            f"expected {KEY_BYTES * 2} hex digits in .s3t/keys/{WORKSPACE_KEY}, got something "
            "else; restore it from its backup"
        ) from None


def read_keys(folder: Path) -> WorkspaceKeys:
    """The derived keys."""
    return WorkspaceKeys.derive(read_workspace_key(folder))


def read_signing_key(folder: Path, name: str = SIGNING_KEY) -> Ed25519PrivateKey:
    """The key that signs certificates, or the next one (SIGNING_NEXT). Raises WorkspaceError."""
    try:
        key = load_pem_private_key(_read_private(folder / name), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise WorkspaceError(
            f"expected an Ed25519 private key in .s3t/keys/{name}, got something else; "
            "restore it from its backup"
        )
    return key


@contextlib.contextmanager
def changing_keys(folder: Path) -> Iterator[None]:
    """Be the one who changes the signing key's files; a copy of a key that one left who was killed
    at it goes first. Raises Busy where another is for long, StorageError."""
    try:
        with locked(folder.parent / KEYS_LOCK, _WAIT_SECONDS):
            remove_half_written(folder, lambda _: False)
            yield
    except TimeoutError:
        raise Busy(
            "another s3t process changes the signing key; wait for it to finish, then run the "
            "command again"
        ) from None


def write_next_key(folder: Path) -> Ed25519PrivateKey:
    """Make the key that will sign once the ledger tells of it."""
    private = Ed25519PrivateKey.generate()
    _write_private(folder / SIGNING_NEXT, private)
    return private


def adopt_next_key(folder: Path, state_of: Callable[[], State]) -> None:
    """Let the next key sign, if the ledger, asked once nobody else changes keys, says that it does.
    Idempotent; any process may do it."""
    if (folder / SIGNING_NEXT).exists():
        with changing_keys(folder):
            adopt_held(folder, state_of())


def adopt_held(folder: Path, state: State) -> None:
    """The same, for whoever changes keys now; `state`: of the ledger since then."""
    if not (folder / SIGNING_NEXT).exists():
        return
    private = read_signing_key(folder, SIGNING_NEXT)
    if key_id(private.public_key()) != state.signing:
        # the ledger does not tell of it: a run was killed before, and the old key goes on signing
        return
    for change in state.key_changes:
        old = Ed25519PublicKey.from_public_bytes(bytes.fromhex(change.old_public))
        write_atomically(folder / f"{_RETIRED}{change.old[:16]}.pub", _pem(old), SHARED_MODE)
    _write_private(folder / SIGNING_KEY, private)
    history = _with_history(private.public_key(), state)
    write_atomically(folder / SIGNING_PUB, history, SHARED_MODE)
    remove_file(folder / SIGNING_NEXT)


def keep_public_key(folder: Path) -> None:
    """Keep the public key that lies as the one in use among those before it: a ledger that was
    restored to before it may not tell of it, and it is what verifies documents of a lost time."""
    public = read_public_key(folder / SIGNING_PUB)
    path = folder / f"{_RETIRED}{key_id(public)[:16]}.pub"
    if not path.exists():
        write_atomically(path, _pem(public), SHARED_MODE)


def _with_history(public: Ed25519PublicKey, state: State) -> bytes:
    """The file of a public key, which says first which keys it replaced, by the ledger."""
    replaced = [
        KeyReplaced(
            c.old,
            c.new,
            c.time,
            c.vouched,
            c.old_public,
        )
        for c in state.key_changes
    ]
    lines = [f"Signing key {key_id(public)} of an S3T workspace", *(r.line() for r in replaced)]
    return "".join(f"{line}\n" for line in lines).encode() + _pem(public)


def _write_private(path: Path, private: Ed25519PrivateKey) -> None:
    write_atomically(
        path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600
    )


def read_public_keys(folder: Path) -> list[Ed25519PublicKey]:
    """The workspace's own public keys, each once: the one in use and those before it, which
    signing.pub has too: a published one, put back there, is enough to read what they signed.
    Raises WorkspaceError."""
    used = [read_signing_key(folder).public_key()] if (folder / SIGNING_KEY).exists() else []
    files = [
        read_key(p)
        for p in [folder / SIGNING_PUB, *sorted(folder.glob(f"{_RETIRED}*.pub"))]
        if p.exists()
    ]
    try:
        earlier = [r.public() for f in files for r in f.replaced]
    except NotValid as error:
        raise WorkspaceError(f"{error}, or restore .s3t/keys from its backup") from None
    found = [*used, *(f.public for f in files), *(e for e in earlier if e is not None)]
    return list({key_id(k): k for k in found}.values())


def _pem(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_public_key(path: Path) -> Ed25519PublicKey:
    """A public key to verify with. Raises WorkspaceError."""
    return read_key(path).public


def read_key(path: Path) -> KeyFile:
    """A public key and the keys that it replaced. Raises WorkspaceError."""
    try:
        return read_key_file(read_regular(path, _MOST_KEY_BYTES))
    except (OSError, ValueError):
        raise WorkspaceError(
            f"expected an Ed25519 public key (PEM) in {path.name}, got none; "
            "name the controller's public key with --key"
        ) from None


def _read_private(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise WorkspaceError(
                f"expected .s3t/keys/{path.name} to be readable by its owner only, got mode "
                f"{stat.filemode(mode)}; run chmod 600 on it"
            )
        return read_regular(path, _MOST_KEY_BYTES)
    except OSError:
        raise WorkspaceError(
            f"expected the key .s3t/keys/{path.name}, got none; if your workspace is another "
            "directory, go there or pass --workspace; run `s3t init` in a new one; where the key "
            f"was lost, restore it from its backup{_WITHOUT.get(path.name, '')}"
        ) from None
