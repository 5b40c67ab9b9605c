"""Where frozen activations are kept (learning.activations): by slice, bounded, destroyed with the
slice.

1. A file holds one slice's states at one layer, `SLICE DIGEST/KEY.safetensors`; the key names
   everything that decides the bits. Its seal (HMAC-SHA256 under a key of the workspace) is of the
   very bytes that are used: a file is copied to one without a name, hashed as it is copied, and
   used from there; what is sealed is held against what was computed.
2. Only slices on the list of live ones (`live.json`) are kept. An erasure writes the list anew and
   destroys the rest, under a lock that every writer takes: a stage that began before it cannot
   bring a slice back.
3. The directory has a bound; what was not used for longest goes first.

Imports no torch: whoever erases need not.
"""

import contextlib
import hmac
import json
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from filelock import FileLock

from s3t_core.canonical import canonical_json
from s3t_core.errors import StorageError
from s3t_core.files import (
    TEMPORARY_PREFIX,
    copy_hashed,
    open_regular,
    own_file,
    read_regular,
    remove_tree,
    write_atomically,
)

_LIVE = "live.json"
_LOCK = "lock"
_PATIENCE_SECONDS = 600
_MOST_SEAL_BYTES = 1024


@dataclass(frozen=True)
class ActivationStore:
    """A directory of kept states. `key` seals them; `limit` bounds them, in bytes; 0 = keep
    nothing. Fills the port `Activations`."""

    root: Path
    key: bytes = field(repr=False)
    limit: int

    def copy(self, slice_digest: str, key: str, into: IO[bytes]) -> bool:
        """Copy states that were kept into a file of the caller's own; False without any, or when
        what was copied is not what was sealed. Raises OSError where there is no room for it."""
        path = self._path(slice_digest, key)
        try:
            kept = read_regular(path.with_suffix(".seal"), _MOST_SEAL_BYTES)
            file = open_regular(path)
        except OSError:
            return False
        with file:
            digest = copy_hashed(file, into)
        if not hmac.compare_digest(self._seal(key, digest), kept):
            return False
        with contextlib.suppress(OSError):
            os.utime(path)
        return True

    def keeps(self, slice_digest: str) -> bool:
        """Whether states of this slice may be kept now."""
        return self.limit > 0 and slice_digest in self._live()

    def put(
        self,
        slice_digest: str,
        key: str,
        size: int,
        write: Callable[[Path], None],
        is_right: Callable[[Path], bool],
    ) -> Callable[[], None] | None:
        """Keep what `write` writes, about `size` bytes, if the slice is live and it fits, and if
        what is sealed `is_right`: somebody may have written to the file meanwhile. What is returned
        seals it: before that it counts for nothing. Raises StorageError."""
        if not self.keeps(slice_digest) or size > self.limit:
            return None
        path = self._path(slice_digest, key)
        with self._locked():
            if self.keeps(slice_digest):
                self._make_room(size)
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_name(TEMPORARY_PREFIX + path.name)
                write(temporary)
                with own_file(self.root) as (own, place), open_regular(temporary) as made:
                    digest = copy_hashed(made, own)
                    if not is_right(place):
                        temporary.unlink()
                        return None
                path.with_suffix(".seal").unlink(missing_ok=True)
                temporary.replace(path)
                return partial(self._put_seal, slice_digest, key, digest)
        return None

    def _put_seal(
        self,
        slice_digest: str,
        key: str,
        digest: bytes,
    ) -> None:
        """Nothing, where the file is gone by now."""
        path = self._path(slice_digest, key)
        with self._locked():
            if path.is_file():
                write_atomically(
                    path.with_suffix(".seal"),
                    self._seal(key, digest),
                    0o600,
                )

    def allow(
        self,
        digests: Collection[str],
        superseded: Collection[str] = (),
    ) -> int:
        """From now on only states of these slices are kept; those of others, and what a killed
        process left, are destroyed. Returns how many were, those of `superseded` slices apart,
        which an ingest leaves. Raises StorageError."""
        if not self.root.is_dir() and not (digests and self.limit):
            return 0
        with self._locked():
            write_atomically(self.root / _LIVE, canonical_json(sorted(set(digests))))
            kept = set(digests) if self.limit else set()
            doomed = [p for p in self.root.iterdir() if p.name not in {_LIVE, _LOCK, *kept}]
            strange = [p for p in doomed if p.name not in superseded]
            count = sum(len(list(p.glob("*.safetensors"))) for p in strange)
            for path in [*doomed, *self.root.glob(f"*/{TEMPORARY_PREFIX}*")]:
                remove_tree(path)
            return count

    def _live(self) -> set[str]:
        try:
            return set(json.loads(read_regular(self.root / _LIVE)))
        except (OSError, ValueError, TypeError, RecursionError):
            return set()

    def _make_room(self, size: int) -> None:
        kept = sorted(
            (p.stat().st_mtime, p.stat().st_size, p) for p in self.root.glob("*/*.safetensors")
        )
        total = sum(n for _, n, _ in kept)
        for _, n, path in kept:
            if total + size <= self.limit:
                break
            path.unlink()
            path.with_suffix(".seal").unlink(missing_ok=True)
            total -= n

    def _seal(self, key: str, digest: bytes) -> bytes:
        return hmac.digest(
            self.key,
            b"activations\0" + key.encode() + b"\0" + digest,
            "sha256",
        )

    def _path(self, slice_digest: str, key: str) -> Path:
        return self.root / slice_digest / f"{key}.safetensors"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(
                self.root / _LOCK,
                timeout=_PATIENCE_SECONDS,
                is_singleton=False,
            ):
                yield
        except OSError as error:
            raise StorageError(
                "kept activations could not be changed "
                f"({error.strerror or type(error).__name__}); free space or fix the permissions of "
                ".s3t/activations, then run it again"
            ) from None
