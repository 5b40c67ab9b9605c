"""What killed processes left half-written goes."""

from pathlib import Path

from flows.adapters.loading import sweep_of_user, sweep_unused
from flows.adapters.permissions import close_files_to_others, close_to_others
from flows.workspace.change import Change
from flows.workspace.parts import Sweepable
from s3t_core.erasure.walk import git_homes
from s3t_core.files import (
    is_half_written,
    is_written,
    open_files,
    remove_file,
    remove_half_written,
    remove_tree,
)

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
    for folder in (
        workspace.root / "data",
        *workspace.datasets.repository.caches,
        *workspace.remote_folder(),
        *workspace.store_folder(),
    ):
        close_to_others(folder)
    close_files_to_others(workspace.root / "data")
    opened = open_files()
    for folder in _written_folders(workspace):
        remove_half_written(folder, lambda path: is_written(path, opened))
    for path in workspace.state_dir.iterdir():
        if is_half_written(path.name) and not path.is_dir() and not is_written(path, opened):
            remove_file(path)


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
