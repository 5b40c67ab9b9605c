"""Checkpoints that were put outside the workspace: put in their place whole, and destroyed there.

1. A checkpoint is made in the workspace and recorded in the ledger with its files' digests before
   it is put outside: nothing of it is anywhere that the ledger does not know.
2. It comes to its place by a name beside it that follows from its own (`beside`), whole or not at
   all; what was there before leaves by such a name too. A process that is killed in between leaves
   one of those, which an erasure finds.
3. An erasure removes the files that have the recorded digests, and no other. `RECORD` stays: it
   tells whoever finds the directory what was there.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from s3t_core.canonical import canonical_json
from s3t_core.erasure.state import ExportRecord
from s3t_core.errors import StorageError, UsageError
from s3t_core.files import open_regular, remove_tree, sync_directory, write_atomically

RECORD = "s3t-release.json"
"""The file of a checkpoint that says which release it is of, and what its other files are."""
FORMAT = "s3t-export/1"
_WEIGHTS = ".safetensors"


def beside(place: Path, export: str) -> Path:
    """The name by which a checkpoint comes to its place, and leaves it."""
    return place.with_name(f".{place.name}.{export}")


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256, hex, of each file of a directory, by name. Raises OSError."""
    return {p.name: _digest(p) for p in sorted(folder.iterdir())}


def record_in(folder: Path) -> dict[str, object] | None:
    """What the record in a directory says; None where there is none that can be read."""
    try:
        with open_regular(folder / RECORD) as file:
            told = json.loads(file.read(2**20))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) and told.get("format") == FORMAT else None


def write_record(folder: Path, told: Mapping[str, object]) -> None:
    """Write the record of what else is in a directory."""
    files = digests_of(folder)
    write_atomically(folder / RECORD, canonical_json({"format": FORMAT, **told, "files": files}))


def check_place(place: Path, known: Iterable[ExportRecord]) -> None:
    """That a checkpoint may be put there: nothing is there, or an earlier one alone. Raises
    UsageError."""
    if not place.parent.is_dir():
        raise UsageError(
            "expected DIR in a directory that is there, got one in another; make it first"
        )
    if not os.path.lexists(place):
        return
    if place.is_symlink() or not place.is_dir():
        raise UsageError("expected DIR to be a directory, or nothing yet, got something else")
    there = {p.name for p in place.iterdir()}
    earlier = [set(e.files) for e in known if e.place == str(place)]
    if there and not any(there <= files for files in earlier):
        raise UsageError(
            f"expected DIR to be empty, or an earlier export, got a directory with {len(there)} "
            "other file(s) in it; nothing was changed there: name another one"
        )


def put(made: Path, place: Path, export: str, before: Iterable[ExportRecord]) -> None:
    """Put a checkpoint in its place, and take away the one that was there. Raises StorageError."""
    incoming = beside(place, export)
    try:
        try:
            made.rename(incoming)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copytree(made, incoming)
        for earlier in [e for e in before if e.place == str(place)]:
            if place.is_dir():
                place.rename(beside(place, earlier.export))
            remove_tree(beside(place, earlier.export))
        if place.is_dir():
            place.rmdir()
        incoming.rename(place)
        sync_directory(place.parent)
    except OSError as error:
        raise StorageError(
            f"expected the checkpoint to be put in its place, got "
            f"{error.strerror or type(error).__name__}; make room, or mend the permissions of the "
            "directory that it is in, then run the command again"
        ) from None


class ExportedFiles:
    """Exported checkpoints, where they were put. Fills the port `Exports`."""

    def destroy(self, exports: Iterable[ExportRecord]) -> list[str]:
        """Remove the files of each that have the recorded digests. Of one whose weights are gone
        from a directory that still has its record it is known that they were destroyed; of one
        that was moved, copied, changed or is on another machine nothing is."""
        return [each.export for each in exports if _destroyed(each)]


def _destroyed(export: ExportRecord) -> bool:
    place = Path(export.place)
    try:
        if beside(place, export.export).is_dir():
            remove_tree(beside(place, export.export))
        if record_in(place) is None or _digest(place / RECORD) != export.files.get(RECORD):
            return False
        for name, digest in export.files.items():
            path = place / name
            if name != RECORD and path.is_file() and _digest(path) == digest:
                path.unlink()
        sync_directory(place)
        return not any(p.suffix == _WEIGHTS for p in place.iterdir())
    except (OSError, StorageError):
        return False


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
