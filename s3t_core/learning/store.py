"""The stage store: immutable `DIGEST.safetensors` files, each with a `DIGEST.json` sidecar that binds key to digest.

Written to a temporary name, synced, renamed: a reader sees a whole file or none. Every load is verified by digest, and
a binding by its seal (HMAC-SHA256 under a key of the workspace): nobody without the key can pass one valid stage off
as another. Safetensors only, never pickle. Imports no torch: artifacts are bytes here.
"""

import hmac
import json
from collections.abc import Iterable
from pathlib import Path

from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.errors import ArtifactError
from s3t_core.files import remove_file, write_atomically
from s3t_core.keys import keyed_digest


class LocalStageStore:
    """A stage store in a directory. Fills the port `StageArtifacts`. Without the sealing key it only reads."""

    def __init__(self, root: Path, sealing_key: bytes | None = None) -> None:
        self.root = root
        self._key = sealing_key

    def put(self, key: str, artifact: bytes) -> str:
        """Keep an artifact under its digest and bind `key` to it; returns the digest. Raises StorageError."""
        digest = sha256_hex(artifact)
        write_atomically(self._artifact(digest), artifact)
        write_atomically(self._sidecar(digest), canonical_json({
            "digest": digest, "key": key, "seal": self._seal(key, digest)}))
        return digest

    def get(self, digest: str) -> bytes:
        """The artifact, verified. Raises ArtifactError when it is missing or its bytes are not those of `digest`."""
        try:
            data = self._artifact(digest).read_bytes()
        except FileNotFoundError:
            raise ArtifactError(f"expected stage artifact {digest[:16]}..., got no such file; "
                                "run `s3t train` to train it again") from None
        got = sha256_hex(data)
        if got != digest:
            raise ArtifactError(f"expected stage artifact {digest[:16]}..., got bytes of {got[:16]}...; "
                                "delete the file and run `s3t train` to train it again")
        return data

    def bindings(self) -> dict[str, str]:
        """Key to digest, of every sidecar whose seal and artifact verify: what was stored complete, recorded or not."""
        bound = {p.stem: _read_sidecar(p) for p in sorted(self.root.glob("*.json"))}
        return {b["key"]: digest for digest, b in bound.items()
                if b and b["digest"] == digest and hmac.compare_digest(
                    b.get("seal", "").encode(), self._seal(b["key"], digest).encode()) and self.holds(digest)}

    def _seal(self, key: str, digest: str) -> str:
        if self._key is None:
            raise ArtifactError("expected the workspace's key for the stage store, got none; open it as its workspace "
                                "does")
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
        remove_file(self._artifact(digest))
        remove_file(self._sidecar(digest))

    def place(self, digest: str, folder: Path) -> None:
        """Give the artifact a second name in `folder`, which costs no bytes; in another file system, a copy. What is
        there and whole stays. Raises ArtifactError unless the artifact's bytes are those of `digest`, StorageError."""
        data, there = self.get(digest), LocalStageStore(folder)
        if not there.holds(digest):
            path = there._artifact(digest)
            path.unlink(missing_ok=True)
            try:
                path.hardlink_to(self._artifact(digest))
            except OSError:
                write_atomically(path, data)

    def digests(self) -> Iterable[str]:
        """Digests of every artifact or sidecar on disk."""
        return sorted({p.stem for p in self.root.glob("*") if p.suffix in (".safetensors", ".json")})

    def _artifact(self, digest: str) -> Path:
        return self.root / f"{digest}.safetensors"

    def _sidecar(self, digest: str) -> Path:
        return self.root / f"{digest}.json"


def _read_sidecar(path: Path) -> dict[str, str] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(value, dict) and {"key", "digest"} <= value.keys()
    return value if whole and all(isinstance(v, str) for v in value.values()) else None
