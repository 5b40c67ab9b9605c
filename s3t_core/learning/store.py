"""The stage store: immutable `DIGEST.safetensors` objects, each with a `DIGEST.json` sidecar that
binds key to digest.

An object is whole or absent: a reader sees nothing in between. Every load is verified by digest,
and a binding by its seal (HMAC-SHA256 under a key of the workspace): nobody without the key can
pass one valid stage off as another. Safetensors only, never pickle. Imports no torch: artifacts are
bytes here.

Where the objects are is a port, `Blobs`: a directory (`LocalBlobs`), or a bucket
(flows.adapters.s3).
"""

import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.errors import ArtifactError, StorageError
from s3t_core.files import read_regular, remove_file, write_atomically, write_new
from s3t_core.keys import keyed_digest

_ARTIFACT, _SIDECAR = ".safetensors", ".json"
_NAME = re.compile(r"[^/]+\.(safetensors|json)")


class Blobs(Protocol):
    """Named bytes in one flat place. Each method raises StorageError when the place cannot be
    reached."""

    def read(self, name: str) -> bytes | None:
        """The bytes, None when there are none of that name."""

    def write(self, name: str, data: bytes) -> None:
        """Durable when this returns; whoever reads sees all of it or what was there before."""

    def write_new(self, name: str, data: bytes) -> bool:
        """The same where there is nothing of that name, whoever else writes at this moment; False,
        and nothing written, where there is."""

    def remove(self, name: str) -> None:
        """Gone when this returns, every version of it. Idempotent."""

    def names(self) -> Iterable[str]:
        """Every name, in order."""


@dataclass(frozen=True)
class LocalBlobs:
    """A directory. Written to a temporary name, synced, renamed."""

    root: Path

    def read(self, name: str) -> bytes | None:
        """The file's bytes; None also where the name is a directory's or a pipe's: it is no
        object."""
        path = self.root / name
        try:
            return read_regular(path) if path.is_file() else None
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StorageError(
                f"expected {path.name} to be readable, got {reason}; fix the permissions of its "
                "directory, then run the command again"
            ) from None

    def write(self, name: str, data: bytes) -> None:
        """Write the file."""
        write_atomically(self.root / name, data)

    def write_new(self, name: str, data: bytes) -> bool:
        """Write the file, unless there is one."""
        return write_new(self.root / name, data)

    def remove(self, name: str) -> None:
        """Remove the file, or what else has its name."""
        remove_file(self.root / name)

    def names(self) -> Iterable[str]:
        """Names in the directory."""
        return sorted(p.name for p in self.root.glob("*"))


class StageStore:
    """A stage store. Fills the port `StageArtifacts`. Without the sealing key it only reads."""

    def __init__(self, blobs: Blobs, sealing_key: bytes | None = None) -> None:
        self.blobs = blobs
        self._key = sealing_key

    def put(self, key: str, artifact: bytes) -> str:
        """Keep an artifact under its digest and bind `key` to it; returns the digest. Raises
        StorageError."""
        digest = sha256_hex(artifact)
        self.blobs.write(f"{digest}{_ARTIFACT}", artifact)
        self.blobs.write(
            f"{digest}{_SIDECAR}",
            canonical_json(
                {
                    "digest": digest,
                    "key": key,
                    "seal": self._seal(key, digest),
                }
            ),
        )
        return digest

    def get(self, digest: str) -> bytes:
        """The artifact, verified. Raises ArtifactError when it is missing or its bytes are not
        those of `digest`."""
        data = self.blobs.read(f"{digest}{_ARTIFACT}")
        if data is None:
            raise ArtifactError(
                f"expected stage artifact {digest[:16]}..., got no such file; "
                "run `s3t train` to train it again"
            )
        got = sha256_hex(data)
        if got != digest:
            raise ArtifactError(
                f"expected stage artifact {digest[:16]}..., got bytes of {got[:16]}...; "
                "delete the file and run `s3t train` to train it again"
            )
        return data

    def bindings(self) -> dict[str, str]:
        """Key to digest, of every sidecar whose seal and artifact verify: what was stored complete,
        recorded or not."""
        found = {
            n.removesuffix(_SIDECAR): _parsed(self.blobs.read(n))
            for n in self._names()
            if n.endswith(_SIDECAR)
        }
        return {
            b["key"]: digest
            for digest, b in found.items()
            if b
            and b["digest"] == digest
            and hmac.compare_digest(
                b.get("seal", "").encode(), self._seal(b["key"], digest).encode()
            )
            and self.holds(digest)
        }

    def _seal(self, key: str, digest: str) -> str:
        if self._key is None:
            raise ArtifactError(
                "expected the workspace's key for the stage store, got none; open it as its "
                "workspace does"
            )
        return keyed_digest(self._key, "stage binding", key, digest).hex()

    def holds(self, digest: str) -> bool:
        """Whether the artifact is there and verifies."""
        try:
            self.get(digest)
        except ArtifactError:
            return False
        return True

    def delete(self, digest: str) -> None:
        """Destroy the artifact and its sidecar; no error when they are gone already."""
        self.blobs.remove(f"{digest}{_ARTIFACT}")
        self.blobs.remove(f"{digest}{_SIDECAR}")

    def place(self, digest: str, folder: Path) -> None:
        """Give the artifact a second name in `folder`, which costs no bytes; in another file
        system, a copy. What is there and whole stays. Raises ArtifactError unless the artifact's
        bytes are those of `digest`, StorageError."""
        data, there = self.get(digest), LocalStageStore(folder)
        if not there.holds(digest):
            path = folder / f"{digest}{_ARTIFACT}"
            path.unlink(missing_ok=True)
            try:
                if not isinstance(self.blobs, LocalBlobs):
                    raise OSError("a bucket has no second names")
                path.hardlink_to(self.blobs.root / path.name)
            except OSError:
                write_atomically(path, data)

    def digests(self) -> Iterable[str]:
        """Digests of every artifact or sidecar that is there."""
        return sorted({n.rpartition(".")[0] for n in self._names()})

    def _names(self) -> list[str]:
        """Names of artifacts and sidecars, at the store's own level: what lies deeper is somebody
        else's."""
        return [n for n in self.blobs.names() if _NAME.fullmatch(n)]


class LocalStageStore(StageStore):
    """A stage store in a directory."""

    def __init__(self, root: Path, sealing_key: bytes | None = None) -> None:
        super().__init__(LocalBlobs(root), sealing_key)
        self.root = root


def _parsed(sidecar: bytes | None) -> dict[str, str] | None:
    try:
        value = json.loads(sidecar or b"")
    except (ValueError, RecursionError):
        return None
    whole = isinstance(value, dict) and {"key", "digest"} <= value.keys()
    return value if whole and all(isinstance(v, str) for v in value.values()) else None
