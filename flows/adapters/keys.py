"""Key files of a workspace: `.s3t/keys/workspace.key` and the signing pair. Refused when others could read them."""

import secrets
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from s3t_core.erasure.dsse import key_id
from s3t_core.errors import WorkspaceError
from s3t_core.files import SHARED_MODE, write_atomically
from s3t_core.keys import KEY_BYTES, WorkspaceKeys

WORKSPACE_KEY = "workspace.key"
SIGNING_KEY = "signing.key"
SIGNING_PUB = "signing.pub"
_RETIRED = "retired-"


def create_keys(folder: Path, workspace_key: bytes | None = None) -> None:
    """Write the keys that are missing (0600); never touches one that is there."""
    if not (folder / WORKSPACE_KEY).exists():
        key = workspace_key or secrets.token_bytes(KEY_BYTES)
        write_atomically(folder / WORKSPACE_KEY, key.hex().encode() + b"\n", 0o600)
    if not (folder / SIGNING_KEY).exists() and (folder / SIGNING_PUB).exists():
        raise WorkspaceError(f"expected .s3t/keys/{SIGNING_KEY} beside its public part, got none; restore it from its "
                             "backup, or, when it is lost for good, run `s3t rotate-key --lost`")
    if not (folder / SIGNING_KEY).exists():
        private = Ed25519PrivateKey.generate()
        write_atomically(folder / SIGNING_KEY, private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    write_atomically(folder / SIGNING_PUB, _pem(read_signing_key(folder).public_key()), SHARED_MODE)
    folder.chmod(0o700)


def read_workspace_key(folder: Path) -> bytes:
    """The workspace key. Raises WorkspaceError when it is missing, readable by others, or not one."""
    text = _read_private(folder / WORKSPACE_KEY)
    try:
        return bytes.fromhex(text.decode().strip())
    except ValueError:
        raise WorkspaceError(f"expected {KEY_BYTES * 2} hex digits in .s3t/keys/{WORKSPACE_KEY}, got something else; "
                             "restore it from its backup") from None


def read_keys(folder: Path) -> WorkspaceKeys:
    """The derived keys."""
    return WorkspaceKeys.derive(read_workspace_key(folder))


def read_signing_key(folder: Path) -> Ed25519PrivateKey:
    """The key that signs certificates. Raises WorkspaceError."""
    try:
        key = load_pem_private_key(_read_private(folder / SIGNING_KEY), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise WorkspaceError(f"expected an Ed25519 private key in .s3t/keys/{SIGNING_KEY}, got something else; "
                             "restore it from its backup")
    return key


def change_signing_key(folder: Path, private: Ed25519PrivateKey) -> None:
    """Sign with another key from now on. The old public key is kept, to verify what it signed."""
    old = read_public_key(folder / SIGNING_PUB)
    write_atomically(folder / f"{_RETIRED}{key_id(old)[:16]}.pub", _pem(old), SHARED_MODE)
    write_atomically(folder / SIGNING_KEY, private.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    write_atomically(folder / SIGNING_PUB, _pem(private.public_key()), SHARED_MODE)


def read_public_keys(folder: Path) -> list[Ed25519PublicKey]:
    """The workspace's own public keys: the one in use and those before it."""
    used = [read_signing_key(folder).public_key()] if (folder / SIGNING_KEY).exists() else []
    return [*used, *(read_public_key(p) for p in [folder / SIGNING_PUB, *sorted(folder.glob(f"{_RETIRED}*.pub"))]
                     if p.exists())]


def _pem(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def read_public_key(path: Path) -> Ed25519PublicKey:
    """A public key to verify with. Raises WorkspaceError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise WorkspaceError(f"expected an Ed25519 public key (PEM) in {path.name}, got none; "
                             "name the controller's public key with --key")
    return key


def _read_private(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise WorkspaceError(f"expected .s3t/keys/{path.name} to be readable by its owner only, got mode "
                                 f"{stat.filemode(mode)}; run chmod 600 on it")
        return path.read_bytes()
    except OSError:
        raise WorkspaceError(f"expected the key .s3t/keys/{path.name}, got none; run `s3t init` in a new workspace, "
                             "or restore the key from its backup") from None
