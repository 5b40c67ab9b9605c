"""What was verified before, so that a command need not verify all of history again: a small file
under a seal.

It says of files what stat(2) said when they were verified, and what was found. Where the seal does
not fit, where the memory is lost, or where a file is another than it was, nothing is remembered and
the file is verified again. `erase`, `audit` and `verify` ask for nothing to be remembered.
"""

import hmac
import json
import stat
from pathlib import Path

from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.files import read_regular, write_atomically

_PURPOSE = b"s3t memory of verified files\0"
Stat = list[int]


class SealedMemory:
    """What was found in files, by kind and name. `key` is the workspace's; without the same key it
    is empty."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self._key = key
        self._found: dict[str, dict[str, tuple[Stat, object]]] = self._read()
        self._changed = False

    def recall(self, kind: str, path: Path) -> object:
        """Returns what was found in the file, None when it is not remembered or is another now."""
        then, found = self._found.get(kind, {}).get(path.name, (None, None))
        return found if then is not None and then == _stat(path) else None

    def keep(self, kind: str, path: Path, found: object) -> None:
        """Remember what was found in the file as it is now."""
        now = _stat(path)
        if now is not None:
            self._found.setdefault(kind, {})[path.name] = (now, found)
            self._changed = True

    def digest_of(self, kind: str, path: Path, whole: bool) -> str | None:
        """Returns the SHA-256 of a file, None without one, "" for what cannot be read or is no
        file; read anew when `whole`, or when it is not remembered."""
        known = None if whole else self.recall(kind, path)
        if known is not None:
            return str(known)
        try:
            digest = sha256_hex(read_regular(path))
        except FileNotFoundError:
            return None
        except OSError:
            return ""
        self.keep(kind, path, digest)
        return digest

    def save(self) -> None:
        """Write down what is new. Raises StorageError."""
        if self._changed:
            body = canonical_json(self._found)
            write_atomically(self._path, self._seal(body).hex().encode() + b"\n" + body, 0o600)
            self._changed = False

    def _read(self) -> dict[str, dict[str, tuple[Stat, object]]]:
        try:
            seal, _, body = read_regular(self._path).partition(b"\n")
        except OSError:
            return {}
        if not hmac.compare_digest(seal, self._seal(body).hex().encode()):
            return {}
        kinds: dict[str, dict[str, tuple[Stat, object]]] = json.loads(body)
        return {
            kind: {name: (then, found) for name, (then, found) in files.items()}
            for kind, files in kinds.items()
        }

    def _seal(self, body: bytes) -> bytes:
        return hmac.digest(self._key, _PURPOSE + body, "sha256")


def _stat(path: Path) -> Stat | None:
    """What changes when a file does: its time of change (ctime) cannot be set by hand. None without
    a file."""
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return [
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns // 1000,
        found.st_ctime_ns // 1000,
    ]
