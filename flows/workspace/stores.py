"""Where a workspace keeps data and stages: that the places are its own, are there, and stay."""

from pathlib import Path
from typing import Protocol

from flows.adapters.footing import WORKSPACE_SIGN
from flows.adapters.marks import claim_place, place_of
from flows.adapters.permissions import as_owner_only, close_to_others
from flows.workspace.change import Change
from flows.workspace.parts import HasLedger, HasPlaces, HasSigning
from s3t_core.erasure import events
from s3t_core.errors import WorkspaceError
from s3t_core.learning.store import LocalBlobs


class Placed(HasPlaces, HasLedger, HasSigning, Protocol):
    """What has places, and tells the ledger of them."""


def claim(workspace: Placed, held: Change, begins: bool | None = None) -> None:
    """Mark store and remote as this workspace's: erasures destroy what its ledger does not know
    there. A directory in the workspace needs no mark. `begins`: whether they may be without a
    mark yet; by default, before the first data. Raises WorkspaceError for a place that is, or
    lies within or around, another workspace's, and for one that has lost its mark
    (adapters.marks)."""
    held.require()
    begins = workspace.ledger.state().settled is None if begins is None else begins
    if not begins:
        _check_cache(workspace)
    for setting, url in (
        ("[store] url", workspace.config.store.url),
        ("[dvc] remote", workspace.config.dvc.remote),
    ):
        blobs, marked = place_of(url, workspace.root)
        if marked:
            claim_place(setting, blobs, workspace.owner, begins, WORKSPACE_SIGN)
        if isinstance(blobs, LocalBlobs):
            close_to_others(blobs.root)


def _check_cache(workspace: Placed) -> None:
    """A cache on another disk must hold the recorded data version: where that is not mounted,
    an empty directory would look as if everything in it were erased, and be filled anew. One
    that DVC used before must be there. Raises WorkspaceError."""
    dataset, root = workspace.ledger.state().dataset, workspace.root.resolve()
    if dataset is None:
        return
    now, *before = workspace.datasets.repository.caches
    outside = not now.resolve().is_relative_to(root)
    if outside and not (now / dataset.version[:2] / dataset.version[2:]).is_file():
        raise WorkspaceError(
            "expected DVC's cache outside this workspace to hold the recorded data version, "
            "got one without it; mount its disk, or, where the cache is lost for good, run "
            "`dvc fetch data.dvc`, then the command again"
        )
    away = [p for p in before if not p.resolve().is_relative_to(root) and not p.is_dir()]
    if away:
        raise WorkspaceError(
            "expected every directory that DVC ever kept this workspace's data in, got "
            f"{len(away)} that is not there ({away[0].parents[1]}): rows may be in it. Mount "
            "its disk, then run the command again; if it was destroyed or moved, make an empty "
            "directory files/md5 in its stead"
        )


def note_cache(workspace: Placed, held: Change) -> None:
    """Tell the ledger where DVC keeps data now, before anything is written there: erasures look
    there from then on, whoever runs them."""
    held.require()
    workspace.datasets.files.check_footing()
    found, cache = workspace.datasets.repository.new_cache(), workspace.datasets.repository.cache
    if found is not None:
        if workspace.ledger.state().dataset is None and not cache.exists():
            as_owner_only(cache)  # later an empty place may be that of a disk that is away
        workspace.ledger.append(
            events.CacheNamed(
                time=workspace.now(),
                dir=found[0],
                shared=found[1],
            )
        )


def present_remotes(workspace: Placed) -> list[Path]:
    """The directories among this repository's remotes. Raises WorkspaceError for one that is
    not there: its copies are somewhere. The directory that a disk is mounted at is there
    without it, and has nothing of DVC's."""
    from flows.adapters.dvc_repository import is_remote

    remotes = workspace.datasets.repository.local_remotes()
    away = [p for p in remotes if not is_remote(p) and p.resolve() != workspace.remote.resolve()]
    if away:
        raise WorkspaceError(
            f"expected every DVC remote of this workspace to be there, got {len(away)} "
            "directory or directories that are not, or have nothing of DVC's in them "
            "(files/md5); mount their disks; where nothing was pushed to one yet, make that "
            "directory in it; take a remote that is gone for good out of .dvc/config, when its "
            "copies are destroyed"
        )
    return remotes


def pin_settings(workspace: Placed, held: Change) -> None:
    """Record the settings that must stay from the first data on, because versions and files
    stand under them."""
    from flows.adapters.dvc_repository import write_remote

    ledger = workspace.ledger
    for bucket in workspace.buckets:
        bucket.check()
    claim(workspace, held)
    if not workspace.pinned.is_settled:
        write_remote(workspace.root, workspace.config.dvc.remote)
        settings = workspace.pinned.wanted()
        ledger.append(events.SettingsSettled(time=workspace.now(), settings=settings))
        workspace.pinned.follow(settings)
    note_cache(workspace, held)
    workspace.signing.note_place(held)
