"""Whose a place is: the mark that a workspace leaves in its stage store and its DVC remote, a file
or an object there.

Erasures destroy what their ledger does not know, so one place serves one workspace, and no place of
one lies within or around a place of another: places are compared as paths, in both directions.
"""

from collections.abc import Iterator
from pathlib import Path

from flows.adapters.s3 import SCHEME, S3Blobs, is_bucket
from s3t_core.errors import WorkspaceError
from s3t_core.files import OWNER
from s3t_core.learning.store import Blobs, LocalBlobs


def claim_place(setting: str, blobs: Blobs, owner: str, begins: bool, is_workspace: Path) -> None:
    """Mark the place that a setting names, or see that it bears the owner's mark. `begins`: whether
    it may be without one yet; `is_workspace`: what a directory has in it that is a workspace,
    relative to it.

    Raises WorkspaceError for a place of another workspace, for one within or around such a place,
    and for one that has lost its mark: a disk that is not mounted would look as if everything there
    were erased.
    """
    mark = blobs.read(OWNER)
    if mark == owner.encode():
        return
    if mark is not None:
        raise _anothers(setting)
    if not begins:
        raise WorkspaceError(
            f"expected {setting} to be the place that this workspace has marked, got one without "
            f"its mark ({OWNER}); mount its disk or restore it from its backup: what is kept there "
            "cannot be erased while it is away"
        )
    if _is_beside(blobs, is_workspace):
        raise _not_beside(setting)
    # of two that claim it, or one within the other, at the same time, at most one has it
    if not blobs.write_new(OWNER, owner.encode()) or blobs.read(OWNER) != owner.encode():
        raise _anothers(setting)
    if _is_beside(blobs, is_workspace):
        blobs.remove(OWNER)
        raise _not_beside(setting)


def _anothers(setting: str) -> WorkspaceError:
    return WorkspaceError(
        f"expected {setting} to be this workspace's, got a place that belongs to another one, "
        "whose files an erasure here would destroy; name another place"
    )


def _not_beside(setting: str) -> WorkspaceError:
    return WorkspaceError(
        f"expected {setting} to lie beside the places of other workspaces, got one within or "
        "around such a place, whose files an erasure here would destroy, or theirs these; name "
        "another place"
    )


def _is_beside(blobs: Blobs, is_workspace: Path) -> bool:
    """Whether it lies within or around a place that is not its own."""
    return any(True for _ in _marks_beside(blobs)) or _in_workspace(blobs, is_workspace)


def _marks_beside(blobs: Blobs) -> Iterator[str]:
    """Marks below a place, and at every place that it lies in."""
    if isinstance(blobs, LocalBlobs):
        folder = blobs.root.resolve()
        yield from (p.as_posix() for p in folder.rglob(OWNER) if p.parent != folder)
        yield from (p.as_posix() for p in folder.parents if (p / OWNER).is_file())
        return
    yield from (name for name in blobs.names() if name.endswith(f"/{OWNER}"))
    if isinstance(blobs, S3Blobs):
        parts = blobs.prefix.strip("/").split("/") if blobs.prefix else []
        around = (
            S3Blobs(f"{SCHEME}{'/'.join([blobs.bucket, *parts[:n]])}") for n in range(len(parts))
        )
        yield from (each.url for each in around if each.read(OWNER) is not None)


def _in_workspace(blobs: Blobs, is_workspace: Path) -> bool:
    """Whether a directory lies in a workspace: its places there bear no marks."""
    return isinstance(blobs, LocalBlobs) and any(
        (p / is_workspace).exists() for p in [blobs.root.resolve(), *blobs.root.resolve().parents]
    )


def place_of(url: str, root: Path) -> tuple[Blobs, bool]:
    """The place that a setting of the workspace at `root` names, and whether it bears a mark: one
    in the workspace's own directory needs none."""
    if is_bucket(url):
        return S3Blobs(url), True
    folder = root / url
    return LocalBlobs(folder), not folder.resolve().is_relative_to(root.resolve())
