"""Checkpoints that were put outside the workspace: put in their place whole, and destroyed there.

1. A checkpoint is made in the workspace and recorded in the ledger with its files' digests before
   it is put outside: nothing of it is anywhere that the ledger does not know.
2. It comes to its place by a name beside it that follows from its own (`beside`), whole or not at
   all. A process that is killed in between leaves that, which an erasure finds.
3. What is there gives way only where it is an earlier export of ours, file by file, by digest.
   Nothing else is removed, no link is followed, and no directory goes with what is in it.
4. Destroyed is one whose weights lay in its place, each whole and under no second name, and were
   removed there by us: `RECORD` says so before the first of them goes. Of any other nobody knows
   where it is.
"""

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.erasure.state import ExportRecord
from s3t_core.errors import S3TError, StorageError, UsageError
from s3t_core.files import open_regular, sha256_of, sync_directory, write_atomically

RECORD = "s3t-release.json"
"""The file of a checkpoint that says which release it is of, what its other files are, and whether
they were destroyed."""
FORMAT = "s3t-export/1"
_WEIGHTS = ".safetensors"
_DESTROYED = "destroyed"


def beside(place: Path, export: str) -> Path:
    """The name by which a checkpoint comes to its place."""
    return place.with_name(f".{place.name}.{export}")


def digests_of(folder: Path) -> dict[str, str]:
    """SHA-256, hex, of each file of a directory, by name. Raises OSError."""
    return {p.name: sha256_of(p) for p in sorted(folder.iterdir())}


def record_in(folder: Path) -> dict[str, object] | None:
    """What the record in a directory says; None where there is none that can be read."""
    try:
        with open_regular(folder / RECORD) as file:
            told = json.loads(file.read(2**20))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) and told.get("format") == FORMAT else None


def write_record(
    folder: Path,
    told: Mapping[str, object],
) -> dict[str, str]:
    """Write the record of what else is in a directory. Returns the digests of all files there."""
    files = digests_of(folder)
    content = canonical_json({"format": FORMAT, **told, "files": files})
    write_atomically(folder / RECORD, content)
    return {**files, RECORD: sha256_hex(content)}


def check_place(
    place: Path,
    known: Iterable[ExportRecord],
) -> ExportRecord | None:
    """That a checkpoint may be put there: nothing is there, or what is left of an earlier one, by
    digest, which is returned where its weights are. Raises UsageError."""
    if not place.parent.is_dir():
        raise UsageError(
            "expected DIR in a directory that is there, got one in another; make it first"
        )
    if not os.path.lexists(place):
        return None
    if place.is_symlink() or not place.is_dir():
        raise UsageError("expected DIR to be a directory, or nothing yet, got something else")
    there = {p.name for p in place.iterdir()}
    told = record_in(place) or {}
    if there <= {RECORD} and (not there or _DESTROYED in told):
        return None
    for export in known:
        if export.place == str(place) and all(_is(place, n, export) for n in there):
            return export if there.issuperset(_weights(export)) else None
    raise UsageError(
        f"expected DIR to be empty, or an earlier export as it was written, got a directory with "
        f"{len(there)} other file(s) in it; nothing was changed there: name another one"
    )


def give_way(
    place: Path,
    known: Iterable[ExportRecord],
) -> list[str]:
    """Remove an earlier export from its place; its name, where its weights were there. Raises
    UsageError where something else is there, and StorageError."""
    earlier = check_place(place, known)
    if not os.path.lexists(place):
        return []
    try:
        for path in list(place.iterdir()):  # each is ours, by digest
            path.unlink()
        place.rmdir()
        sync_directory(place.parent)
    except OSError as error:
        raise _unplaced(error) from None
    return [earlier.export] if earlier else []


def put(
    made: Path,
    place: Path,
    export: str,
) -> None:
    """Put a checkpoint in its place, where nothing is. Raises StorageError."""
    incoming = beside(place, export)
    try:
        try:
            made.rename(incoming)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copytree(made, incoming)
        incoming.rename(place)
        sync_directory(place.parent)
    except OSError as error:
        raise _unplaced(error) from None


def _unplaced(error: OSError) -> StorageError:
    return StorageError(
        f"expected the checkpoint to be put in its place, got "
        f"{error.strerror or type(error).__name__}; make room, or mend the permissions of the "
        "directory that it is in, then run the command again"
    )


class ExportedFiles:
    """Exported checkpoints, where they were put. Fills the port `Exports`."""

    def destroy(self, exports: Iterable[ExportRecord]) -> list[str]:
        """Remove the files of each that have the recorded digests, and what is left of one on the
        way to its place."""
        doomed = list(exports)
        whole = [each for each in doomed if _is_whole(each)]  # before any goes: two may have bytes
        for each in doomed:
            _remove_incoming(each)
            for name in each.files:
                path = Path(each.place, name)
                _remove(path, known=name != RECORD and _is(path.parent, name, each))
        return [each.export for each in whole if _has_gone(each)]


def _is_whole(export: ExportRecord) -> bool:
    """Whether its weights are in its place, or were when an erasure came to it, by what its record
    says, which is written here."""
    place = Path(export.place)
    try:
        if place.is_symlink() or not place.is_dir():
            return False
        told = record_in(place) or {}
        if told.get("export") == export.export and _DESTROYED in told:
            return True
        weights = (_is(place, name, export, alone=True) for name in _weights(export))
        if not _is(place, RECORD, export) or not all(weights):
            return False
        write_atomically(place / RECORD, canonical_json({**told, _DESTROYED: True}))
    except (OSError, S3TError):
        return False
    return True


def _has_gone(export: ExportRecord) -> bool:
    return not any(os.path.lexists(Path(export.place, name)) for name in _weights(export))


def _weights(export: ExportRecord) -> set[str]:
    return {name for name in export.files if name.endswith(_WEIGHTS)}


def _remove_incoming(export: ExportRecord) -> None:
    """What a killed process left on the way: files of the recorded names, half-written perhaps, in
    a directory that bears the export's name."""
    folder = beside(Path(export.place), export.export)
    if folder.is_symlink() or not folder.is_dir():
        return
    for name in export.files:
        _remove(folder / name, known=_is_file(folder / name))
    try:
        folder.rmdir()
    except OSError:
        return  # there is more in it, which is not ours


def _remove(path: Path, known: bool) -> None:
    """What cannot be removed is told by what is still there."""
    try:
        if known:
            path.unlink(missing_ok=True)
            sync_directory(path.parent)
    except OSError:
        return


def _is(
    folder: Path,
    name: str,
    export: ExportRecord,
    alone: bool = False,
) -> bool:
    """Whether a file is the export's, by digest, and no link; `alone`: under no other name too."""
    path = folder / name
    try:
        if not _is_file(path) or (alone and path.lstat().st_nlink > 1):
            return False
        return sha256_of(path) == export.files.get(name)
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
