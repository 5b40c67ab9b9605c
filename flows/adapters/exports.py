"""Checkpoints that were put outside the workspace: put in their place whole, and destroyed there.

1. A checkpoint is made in the workspace and recorded in the ledger with its files' digests before
   it is put outside: nothing of it is anywhere that the ledger does not know.
2. It comes to its place by a name beside it that follows from its own (`beside`), whole or not at
   all. A process that is killed in between leaves that, which an erasure finds.
3. What is there gives way only where it is an earlier export of ours, file by file, by digest.
   Nothing else is removed, and no directory goes with what is in it. An erasure follows no link,
   be it the place itself or a directory above it (`_opened`). Files that a backbone has byte for
   byte, its tokenizer's, go only beside the record of their own export.
4. Destroyed is one whose weights lay in its place, each whole and under no second name, and were
   removed there by us: `RECORD` says so, under our seal, before the first of them goes. Of any
   other nobody knows where it is.
"""

import contextlib
import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from s3t_core.canonical import canonical_json, sha256_hex
from s3t_core.erasure.state import ExportRecord
from s3t_core.errors import S3TError, StorageError, UsageError
from s3t_core.files import open_regular, sha256_of, sync_directory, write_atomically
from s3t_core.keys import is_sealed, seal_over

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
            record = json.loads(file.read(2**20))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("format") == FORMAT else None


def write_record(
    folder: Path,
    record: Mapping[str, object],
) -> dict[str, str]:
    """Write the record of what else is in a directory. Returns the digests of all files there."""
    files = digests_of(folder)
    content = canonical_json({"format": FORMAT, **record, "files": files})
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
    record = record_in(place) or {}
    if there <= {RECORD} and (not there or _DESTROYED in record):
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


def make_way(
    place: Path,
    export: str,
) -> None:
    """Make the directory by which a checkpoint will come to its place, empty: what cannot be made
    is told before anything is recorded. Raises StorageError."""
    try:
        beside(place, export).mkdir()
    except OSError as error:
        raise _unplaced(error) from None


def leave_way(
    place: Path,
    export: str,
) -> None:
    """Take that directory away again, where nothing came to it."""
    with contextlib.suppress(OSError):
        beside(place, export).rmdir()


def put(
    made: Path,
    place: Path,
    export: str,
) -> None:
    """Put a checkpoint in its place, where nothing is, by the way that was made. Raises
    StorageError."""
    incoming = beside(place, export)
    try:
        try:
            made.rename(incoming)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copytree(made, incoming, dirs_exist_ok=True)
        incoming.rename(place)
        sync_directory(place.parent)
    except OSError as error:
        raise _unplaced(error) from None


def is_in_place(export: ExportRecord) -> bool:
    """Whether its record lies where it was put, with weights beside it; what they are nobody
    reads."""
    with _opened(Path(export.place)) as place:
        return (
            place is not None
            and (record_in(place) or {}).get("export") == export.export
            and all(_is_file(place / name) for name in _weights(export))
        )


def _unplaced(error: OSError) -> StorageError:
    if error.errno == errno.ENAMETOOLONG:
        return StorageError(
            "expected a name of DIR that leaves room for 26 bytes more, by which a checkpoint "
            "comes to its place, got a longer one; name another one"
        )
    return StorageError(
        f"expected the checkpoint to be put in its place, got "
        f"{error.strerror or type(error).__name__}; make room, or mend the permissions of the "
        "directory that it is in, then run the command again"
    )


class ExportedFiles:
    """Exported checkpoints, where they were put. Fills the port `Exports`."""

    def __init__(self, sealing: bytes) -> None:
        """`sealing`: the key under which a record says that its weights were removed by us:
        whoever has the directory could write the same."""
        self._sealing = sealing

    def destroy(self, exports: Iterable[ExportRecord]) -> list[str]:
        """Remove the files of each that have the recorded digests, and what is left of one on the
        way to its place."""
        doomed = list(exports)
        whole = [
            e for e in doomed if _is_whole(e, self._sealing)
        ]  # before any goes: two may have bytes
        for each in doomed:
            _remove_incoming(each)
            _remove_placed(each)
        return [each.export for each in whole if _has_gone(each)]


@contextlib.contextmanager
def _opened(place: Path) -> Iterator[Path | None]:
    """A directory as it was recorded, held open: None where there is none, or where it is, or lies
    below, a link: what a link leads to was never ours."""
    descriptor = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in place.parts[1:]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(name, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        held = Path(f"/proc/self/fd/{descriptor}")
        found: Path | None = held if held.is_dir() else place  # not every system shows descriptors
    except OSError:
        found = None
    try:
        yield found
    finally:
        os.close(descriptor)


def _is_whole(export: ExportRecord, sealing: bytes) -> bool:
    """Whether its weights are in its place, or were when an erasure came to it, by what its record
    says, which is written here."""
    with _opened(Path(export.place)) as place:
        try:
            if place is None:
                return False
            record = record_in(place) or {}
            if is_sealed(sealing, _DESTROYED, export.export, record.get(_DESTROYED)):
                return True
            seal = seal_over(sealing, _DESTROYED, export.export)
            weights = (_is(place, name, export, alone=True) for name in _weights(export))
            if not _is(place, RECORD, export) or not all(weights):
                return False
            write_atomically(place / RECORD, canonical_json({**record, _DESTROYED: seal}))
        except (OSError, S3TError):
            return False
        return True


def _remove_placed(export: ExportRecord) -> None:
    """The weights that are there, and beside the export's own record the other files too: alone
    they may be a backbone's."""
    with _opened(Path(export.place)) as place:
        if place is None:
            return
        is_its_own = (record_in(place) or {}).get("export") == export.export
        for name in set(export.files) - {RECORD} if is_its_own else _weights(export):
            _remove(place / name, known=_is(place, name, export))


def _has_gone(export: ExportRecord) -> bool:
    with _opened(Path(export.place)) as place:
        return place is not None and not any(
            os.path.lexists(place / name) for name in _weights(export)
        )


def _weights(export: ExportRecord) -> set[str]:
    return {name for name in export.files if name.endswith(_WEIGHTS)}


def _remove_incoming(export: ExportRecord) -> None:
    """What a killed process left on the way: files of the recorded names, half-written perhaps, in
    a directory that bears the export's name."""
    incoming = beside(Path(export.place), export.export)
    with _opened(incoming) as folder:
        if folder is None:
            return
        for name in export.files:
            _remove(folder / name, known=_is_file(folder / name))
    with _opened(incoming.parent) as folder:
        if folder is not None:
            with contextlib.suppress(OSError):  # there is more in it, which is not ours
                (folder / incoming.name).rmdir()


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
