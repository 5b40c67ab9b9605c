"""Who may change a workspace: locks on this machine, leases in the database, and what is looked at
once they are held."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from flows.adapters.dvc_repository import DEFAULT_CACHE
from flows.adapters.footing import check_apart, check_places_of_dvc
from flows.adapters.footing import check_footing as check_files
from flows.adapters.lease import CHANGE, TRAIN, Lease, lock_place
from flows.adapters.locks import workspace_lock
from flows.workspace.change import Change, change_under
from flows.workspace.parts import Lockable
from flows.workspace.verified import taking_over
from flows.workspace.workspace import UNFINISHED_MOVE
from s3t_core.errors import UsageError, WorkspaceError


@contextlib.contextmanager
def changing(workspace: Lockable, wait_seconds: float = 0) -> Iterator[Change]:
    """Be the one who changes the workspace: hold its lock on this machine, and the lease in the
    database, which keeps other machines out whatever their file system does with locks. What is
    given shows it to whatever writes. Raises Busy, and GuaranteeError where a link, a mount or a
    pipe lies in the place of a file or a directory of the system's."""
    with workspace_lock(workspace.lock_path, wait_seconds):
        workspace.refuse_migration()
        check_footing(workspace)
        _refuse_begun_move(workspace)
        with lease_of(workspace).held(wait_seconds) as lease:
            workspace.heads.check_again(workspace.ledger)
            workspace.refuse_other_rules()
            settled = workspace.ledger.state().settled  # it may have moved since it was opened
            workspace.pinned.follow(settled)
            _check_caches(workspace)
            with change_under(lease) as held:
                yield held


def lease_of(workspace: Lockable) -> Lease:
    """The lease of whoever changes it; what was cut off under the one before is taken back with
    it."""
    return Lease(
        workspace.database,
        CHANGE,
        lock_place(workspace.lock_path),
        taking=taking_over(workspace),
    )


@contextlib.contextmanager
def training(workspace: Lockable, wait_seconds: float = 0) -> Iterator[None]:
    """Be the one who ingests, trains or replays, from beginning to end; erasures go on. Raises
    Busy."""
    with workspace_lock(workspace.training_lock_path, wait_seconds):
        workspace.refuse_migration()
        check_footing(workspace)  # stages and activations are written without the other lock
        _refuse_begun_move(workspace)
        with Lease(
            workspace.database, TRAIN, lock_place(workspace.training_lock_path), fences=False
        ).held(wait_seconds):
            yield


def check_footing(workspace: Lockable) -> None:
    """Look at what the workspace keeps where its settings say; no database is opened. Raises
    GuaranteeError where a link, a mount or a pipe lies in the place of a file or a directory of the
    system's, and where a place that a setting names leads to none of its own (adapters.footing)."""
    root, stores, remotes = workspace.root, workspace.store_folder(), workspace.remote_folder()
    check_apart(root, [*stores, *remotes])
    check_files(root, stores, [root / DEFAULT_CACHE, *remotes])


def _check_caches(workspace: Lockable) -> None:
    """The same for every directory that DVC kept data in, by the ledger."""
    caches = workspace.ledger.state().caches
    check_places_of_dvc(workspace.root, [workspace.root / name for name in caches])


def _refuse_begun_move(workspace: Lockable) -> None:
    """Refuse while a move is unfinished, by the ledger: a restore of older files takes away what a
    move left of itself on disk."""
    if workspace.ledger.state().moving is not None:
        raise WorkspaceError(UNFINISHED_MOVE)


def check_outside(workspace: Lockable, path: Path) -> None:
    """That what a command is to write for its user lies outside of what the system keeps.
    Raises UsageError."""
    kept = [workspace.root / name for name in ("data", ".dvc", ".git")] + [
        *workspace.datasets.repository.caches,
        *workspace.store_folder(),
        *workspace.remote_folder(),
        workspace.state_dir,
    ]
    within = any(path.resolve().is_relative_to(folder.resolve()) for folder in kept)
    if within and not path.resolve().is_relative_to(workspace.reports_dir.resolve()):
        raise UsageError(
            "expected a path outside of what the system keeps (data, .s3t, DVC's and git's "
            "directories, store and remote), got one in it: it would be searched, swept or "
            "replaced there"
        )
