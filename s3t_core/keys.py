"""Keys: one workspace key, and a separate derived key for each purpose (HKDF-SHA256, RFC 5869).

Purposes are kept apart so that what is published for one (a commitment in a certificate) says
nothing about another (which slice a subject is in), and so that a digest of one kind can never be
passed off as another.
"""

import hmac
import json
import struct
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Protocol

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from s3t_core.errors import WorkspaceError

KEY_BYTES = 32
_LENGTH = struct.Struct(">Q").pack


@dataclass(frozen=True, repr=False)
class WorkspaceKeys:
    """The derived keys of one workspace, 32 bytes each. Never logged: `repr` is left out on
    purpose."""

    placement: bytes
    subject: bytes
    content: bytes
    suppression: bytes
    commitment: bytes
    sealing: bytes
    identity: bytes

    @classmethod
    def derive(cls, workspace_key: bytes) -> "WorkspaceKeys":
        """Derive every purpose's key from the workspace key. Raises WorkspaceError unless it has 32
        bytes."""
        if len(workspace_key) != KEY_BYTES:
            raise WorkspaceError(
                f"expected a workspace key of {KEY_BYTES} bytes, got {len(workspace_key)}; "
                "restore .s3t/keys/workspace.key from its backup"
            )
        return cls(
            placement=_expand(workspace_key, "placement"),
            subject=_expand(workspace_key, "subject"),
            content=_expand(workspace_key, "content"),
            suppression=_expand(workspace_key, "suppression"),
            commitment=_expand(workspace_key, "commitment"),
            sealing=_expand(workspace_key, "sealing"),
            identity=_expand(workspace_key, "identity"),
        )


class NamingKeys(Protocol):
    """The keys by which a request names whom it is about, and an entry of the ledger is sealed."""

    @property
    def subject(self) -> bytes:
        """Of digests of subjects and records."""

    @property
    def suppression(self) -> bytes:
        """Of digests on the suppression list."""

    @property
    def commitment(self) -> bytes:
        """Of commitments in certificates."""

    @property
    def sealing(self) -> bytes:
        """Of seals."""

    @property
    def identity(self) -> bytes:
        """Of the forms of an id."""


@dataclass(frozen=True, repr=False)
class IntakeKeys:
    """Those alone, 32 bytes each: all that a host has which takes requests apart from the
    workspace. It has none that places a row, or by which a slice or an artifact is known."""

    subject: bytes
    suppression: bytes
    commitment: bytes
    sealing: bytes
    identity: bytes

    @classmethod
    def of(cls, keys: NamingKeys) -> "IntakeKeys":
        """Those of a workspace."""
        return cls(**{each.name: getattr(keys, each.name) for each in fields(cls)})


def _expand(key: bytes, purpose: str) -> bytes:
    return HKDF(
        SHA256(),
        KEY_BYTES,
        salt=None,
        info=f"s3t/v1/{purpose}".encode(),
    ).derive(key)


def key_check(keys: NamingKeys) -> str:
    """A value that only these keys give: recorded when a workspace begins, so that a lost or
    foreign key is noticed before it certifies a real person as unknown."""
    return hmac.digest(keys.subject, b"s3t key check", "sha256").hex()


def keyed_digest(key: bytes, *fields: str) -> bytes:
    """HMAC-SHA256 over `fields`, each behind its length, so that no two field lists share an
    encoding. 32 bytes."""
    mac = _keyed(key).copy()
    mac.update(encode_fields(*fields))
    return mac.digest()


@lru_cache(maxsize=16)
def _keyed(key: bytes) -> hmac.HMAC:
    """The key taken in once: half the cost of a digest of a short text."""
    return hmac.new(key, digestmod="sha256")


def seal_over(
    key: bytes,
    purpose: str,
    value: object,
) -> str:
    """The seal of a JSON value: keyed, over what it is for and how Python writes it with sorted
    keys. 64 hexadecimal digits. Whoever has not the key can neither change such a value nor pass it
    off as one of another purpose."""
    return keyed_digest(
        key,
        "s3t seal",
        purpose,
        json.dumps(value, sort_keys=True),
    ).hex()


def is_sealed(
    key: bytes,
    purpose: str,
    value: object,
    seal: object,
) -> bool:
    """Whether this is the value's seal."""
    return (
        isinstance(seal, str)
        and seal.isascii()
        and hmac.compare_digest(seal_over(key, purpose, value), seal)
    )


def encode_fields(*fields: str) -> bytes:
    """Each field as an 8-byte big-endian length and its UTF-8 bytes."""
    parts: list[bytes] = []
    for field in fields:
        raw = field.encode()
        parts.append(_LENGTH(len(raw)))
        parts.append(raw)
    return b"".join(parts)
