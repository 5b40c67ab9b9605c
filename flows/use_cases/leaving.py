"""A directory or bucket that a workspace moves away from, or did not move to at last: nothing of
its own stays there.

No erasure and no scan comes to such a place again. So what the ledger knows of is not enough:
objects that a restore brought back, files that a killed process left half-written, and what no
entry tells of go as well. What has no name of the system's own is not the system's to remove: a
move does not begin while such a file is there, and does not end.
"""

import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from flows.adapters.footing import check_place, refuse_link
from flows.adapters.marks import place_of
from flows.adapters.s3 import S3Blobs
from flows.workspace.parts import HasPlaces
from s3t_core.errors import WorkspaceError
from s3t_core.files import OWNER, is_half_written
from s3t_core.learning.store import Blobs, LocalBlobs

_OURS = {
    "store": re.compile(r"[0-9a-f]{64}\.(safetensors|json)"),
    "dvc": re.compile(r"files/md5/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?"),
}
"""How the objects of a section's place are named, below it."""


@dataclass(frozen=True)
class LeftPlace:
    """The place that a section of the settings (`store`, `dvc`) names; `marked`: whether it bears
    the workspace's mark while it is there (workspace/stores.py)."""

    section: str
    blobs: Blobs
    marked: bool
    owner: str

    @classmethod
    def of(cls, place: HasPlaces, section: str, owner: str) -> "LeftPlace":
        """The place as the workspace's settings name it; `owner`: the workspace's mark."""
        url = place.config.store.url if section == "store" else place.config.dvc.remote
        return cls(section, *place_of(url, place.root), owner)

    def check_alone(self) -> None:
        """Raises WorkspaceError where something else than the system's own files is there."""
        others = sum(not self._is_ours(name) for name in self._names())
        if others:
            raise WorkspaceError(
                f"expected nothing but the system's own files at the place of [{self.section}], "
                f"got {others} other(s), which a move would leave where no erasure looks; move "
                "them elsewhere, then run the command again"
            )

    def check_footing(self) -> None:
        """Raises GuaranteeError for a link in the place of a file of the system's, of which the
        link would be removed and what it leads to would stay, and for a pipe, a device or a
        socket."""
        if isinstance(self.blobs, LocalBlobs):
            check_place(self.blobs.root)

    def empty(self) -> None:
        """Remove everything of the system's but the mark. Raises StorageError, and WorkspaceError
        where something else is there, and for a place without the workspace's mark: its disk may be
        away, or it may be another's by now."""
        if self.marked and self.blobs.read(OWNER) != self.owner.encode():
            raise WorkspaceError(
                f"expected the place of [{self.section}] with this workspace's mark ({OWNER}), got "
                "none or another's: it may be away, with rows on it. Mount its disk, then run the "
                "command again. If it is lost for good, an empty place in its stead will do whose "
                f"file {OWNER} holds {self.owner}"
            )
        if isinstance(self.blobs, S3Blobs):
            self.blobs.abort_uploads()
        self.check_footing()
        for name in self._names():
            if self._is_ours(name) and name != OWNER:
                self.blobs.remove(name)
        self.check_alone()

    def clean(self, known: Callable[[str], bool]) -> int:
        """Remove what a restore brought back to a place that was left long ago; how many files. A
        place in the workspace's own directory, or with its mark, has only the system's; where there
        is no mark, what is `known` goes; another's place is another's."""
        if not isinstance(self.blobs, LocalBlobs) or not self.blobs.root.is_dir():
            return 0
        mark = self.blobs.read(OWNER)
        if mark not in (None, self.owner.encode()):
            return 0
        whole = mark is not None or not self.marked
        if whole:
            self.check_footing()  # below a link nothing would be found
        doomed = [
            n for n in self._names() if n != OWNER and (self._is_ours(n) if whole else known(n))
        ]
        for name in doomed:
            refuse_link(self.blobs.root / name, self.blobs.root)
        for name in doomed:
            self.blobs.remove(name)
        if whole:
            self.forget()
        return len(doomed)

    def forget(self) -> None:
        """Take the mark and the empty directories away: the place is nobody's. Idempotent;
        another's stays as it is."""
        mark, ours = self.blobs.read(OWNER), self.owner.encode()
        if self.marked and mark not in (None, ours):
            return
        for name in self._names():
            if is_half_written(name) and ours.startswith(
                self.blobs.read(name) or b""
            ):  # a mark on its way
                self.blobs.remove(name)
        self.blobs.remove(OWNER)
        if isinstance(self.blobs, LocalBlobs):
            for folder in [*sorted(self.blobs.root.rglob("*"), reverse=True), self.blobs.root]:
                with contextlib.suppress(OSError):  # a mount point, or somebody put something there
                    folder.rmdir()

    def _names(self) -> Iterable[str]:
        """Of every file, link and object, in folders too, below the place."""
        if isinstance(self.blobs, LocalBlobs):
            root: Path = self.blobs.root
            return [
                p.relative_to(root).as_posix()
                for p in root.rglob("*")
                if p.is_symlink() or not p.is_dir()
            ]
        return self.blobs.names()

    def _is_ours(self, name: str) -> bool:
        base = name.rstrip("/").rpartition("/")[2]
        return (
            name == OWNER
            or is_half_written(base)
            or _OURS[self.section].fullmatch(name) is not None
            or name.endswith("/")
        )  # a bucket's way to show a folder
