"""What killed processes left half-written goes."""

import re
from pathlib import Path

from flows.adapters.loading import sweep_of_user, sweep_unused
from flows.adapters.permissions import close_files_to_others, close_to_others
from flows.workspace.change import Change
from flows.workspace.parts import Sweepable
from s3t_core.erasure.walk import git_homes
from s3t_core.files import (
    is_half_written,
    is_written,
    is_young,
    open_files,
    remove_file,
    remove_half_written,
    remove_tree,
)

_OBJECT = re.compile(r"(?!d41d8cd98f00b204e9800998ecf8427e)[0-9a-f]{32}(\.dir)?")
"""The md5 of what it holds, unless that is nothing."""
_SWEPT_APART = ("activations", "loading", "next", "placing", "tmp")
"""Directories of `.s3t` that have a sweep of their own."""


def sweep(workspace: Sweepable, held: Change) -> None:
    """Remove what a killed process left half-written: spools, copies, temporary files, wherever
    the system, or a tool under it, writes. What a living process has open stays. Raises
    StorageError."""
    held.require()
    remove_tree(workspace.temporary_dir)
    remove_tree(workspace.next_dir)
    remove_tree(workspace.placing_dir)
    sweep_unused(workspace.state_dir / "loading")
    sweep_of_user()
    with_objects = (*workspace.datasets.repository.caches, *workspace.remote_folder())
    for folder in (workspace.root / "data", *with_objects, *workspace.store_folder()):
        close_to_others(folder)
    close_files_to_others(workspace.root / "data")
    opened = open_files()
    for folder in _written_folders(workspace):
        remove_half_written(folder, lambda path: is_written(path, opened))
    for path in (p for folder in with_objects for p in folder.glob("**/??/*")):
        if _is_begun(path) and not is_written(path, opened):
            remove_file(path)
    for path in workspace.state_dir.iterdir():
        if is_half_written(path.name) and not path.is_dir() and not is_written(path, opened):
            remove_file(path)
    if outside := workspace.config.erasure.log_checkpoints_to:
        # others may write there, from other machines
        remove_half_written(Path(outside), is_young)


def _is_begun(path: Path) -> bool:
    """Whether it is an object of DVC's in which there is nothing, and its name is of something:
    DVC makes the file before it copies what it holds."""
    return (
        _OBJECT.fullmatch(path.parent.name + path.name) is not None
        and not path.is_symlink()
        and path.is_file()
        and not path.stat().st_size
    )


def _written_folders(workspace: Sweepable) -> list[Path]:
    """Where the system, or DVC or git under it, writes to. Other remotes than the configured
    one are not among them: somebody else may be uploading there. Kept activations have a lock
    of their own, under which they are swept (ActivationStore.allow)."""
    state = [p for p in workspace.state_dir.iterdir() if p.is_dir() and p.name not in _SWEPT_APART]
    return [
        *state,
        workspace.root / "data",
        workspace.root / ".dvc",
        *(h / "objects" for h in git_homes(workspace.root / ".git") if (h / "objects").is_dir()),
        *workspace.datasets.repository.caches,
        *workspace.remote_folder(),
        *workspace.store_folder(),
    ]
