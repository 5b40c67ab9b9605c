"""After a restore: what the ledger says is destroyed goes again, and the version it says serves,
serves again.

A backup of files that is older than the ledger brings back stages, versions and data objects of
people who were erased since. Every erase run looks before it does anything else, whether something
is pending, or an erasure is open, or not: the registry against the recorded versions, `data/`
against the recorded data version, the stage store against the recorded stages, kept activations
against the present slices, cache and remotes against the objects that were destroyed, the
quarantine against the erased, and directories that earlier moves left, where nothing is to be. A
ledger that is older than a checkpoint is refused before it comes to this
(flows.adapters.checkpoints).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from flows.adapters.dvc_repository import object_name
from flows.adapters.lease import LostLease
from flows.adapters.marks import place_of
from flows.adapters.s3 import is_bucket
from flows.use_cases.leaving import LeftPlace
from flows.workspace import access, stores
from flows.workspace.change import Change
from flows.workspace.parts import (
    HasActivations,
    HasBudget,
    HasRegistry,
    HasRequests,
    HasStages,
)
from flows.workspace.stores import Placed
from flows.workspace.sweeping import sweep
from flows.workspace.workspace import Workspace
from s3t_core.domain import DeletionRequest
from s3t_core.erasure import events
from s3t_core.erasure.dataset_json import dataset_from_json
from s3t_core.erasure.planner import subjects_in, targets_of
from s3t_core.erasure.state import State, VersionRecord
from s3t_core.erasure.versions import release_tags, score_tags
from s3t_core.errors import ArtifactError, S3TError
from s3t_core.files import remove_file, remove_tree

_TAKEN_OVER_SECONDS = 3600.0
"""Whoever took over may work so long until what the one who lost its lease wrote is put right."""


@contextmanager
def healing_a_lost_lease(root: Path) -> Iterator[None]:
    """Where the block raises LostLease: what it wrote meanwhile was made from data, stages or a
    release that may be destroyed since, and goes, before anybody is told. A process that is killed
    before that leaves it to the next erase run, whose own look comes before any certificate."""
    try:
        yield
    except LostLease as error:
        again = Workspace(root)
        try:
            with access.changing(again, _TAKEN_OVER_SECONDS) as held:
                sweep(again, held)
                reconcile(again, held)
                again.signing.write_checkpoint()
        except S3TError as problem:
            raise LostLease(
                f"{error}; what it wrote meanwhile could not be put right ({problem}): run `s3t "
                "erase`"
            ) from None
        raise


class Reconcilable(
    Placed, HasRequests, HasStages, HasActivations, HasRegistry, HasBudget, Protocol
):
    """What is held against the ledger."""


@dataclass(frozen=True)
class Healed:
    """How many of each came back and were destroyed again (kept activations count with the stages);
    whether registry and data directory were made to agree with the ledger; what could not be put
    right."""

    stages: int = 0
    objects: int = 0
    quarantined: int = 0
    registry: bool = False
    data: bool = False
    problem: str = ""

    @property
    def nothing(self) -> bool:
        """Whether all was as it should be."""
        return self == Healed()


def reconcile(workspace: Reconcilable, held: Change) -> Healed:
    """Hold everything against the ledger, and put right what differs. Of an open erasure that goes
    for the steps which are done; what the next ones will do anyway is left to them. Before the
    first data there is nothing, and nothing is done. Raises StorageError, WorkspaceError."""
    held.require()
    state = workspace.ledger.state()
    if state.settled is None:
        return Healed()
    for bucket in workspace.buckets:
        bucket.check()
    stores.claim(workspace, held)  # what is another's must not be looked at as what came back
    stores.note_cache(workspace, held)
    workspace.signing.note_place(held)
    workspace.datasets.repository.put_remote_right()
    registry, problem = False, ""
    if state.plan is None or "cut over" in state.steps:  # else the cut-over makes them agree
        registry, problem = _heal_registry(
            workspace, state
        )  # first: what answers must not be what is gone
    done = _erased(workspace, state)
    erased = targets_of(done, subjects_in(state))
    nobody = {
        f
        for r in done
        if not state.requests[r.request_id].subjects
        for f in state.requests[r.request_id].forms
    }
    data = state.dataset is not None and bool(
        workspace.datasets.restoring.put_back(state.datasets, erased, state.destroyed_objects)
    )
    left_stages, left_objects = _clean_left(workspace, state)
    found = Healed(
        _destroy_stages(workspace, state) + _destroy_activations(workspace, state) + left_stages,
        _destroy_objects(workspace, state) + left_objects,
        workspace.datasets.erase_quarantine(erased, nobody),
        registry,
        data,
        problem,
    )
    if not found.nothing:
        workspace.ledger.append(
            events.Healed(
                time=workspace.now(),
                stages=found.stages,
                objects=found.objects,
                quarantined=found.quarantined,
                registry=found.registry,
                data=found.data,
            )
        )
    return found


def _heal_registry(workspace: Reconcilable, state: State) -> tuple[bool, str]:
    """Versions that the ledger does not know go, with all that came back; superseded ones that are
    lost are told as such; the one that serves is registered again where it is lost."""
    if not state.versions:
        return False, ""
    registry = workspace.begin_registry()  # what a lost one must hold is in the ledger
    put_back = registry.claim()
    champion = state.champion
    kept = {v.version: v for v in state.versions if not v.destroyed}
    there = {(release, *vars(made).values()) for release, made in registry.released()}
    whole = {
        n: v
        for n, v in kept.items()
        if (v.release.release_id, v.version, v.run_id, v.model_id, v.document) in there
    }
    serving = champion.version if champion and champion.version in kept else ""
    if whole == kept and registry.count() == len(kept) and registry.serving() == serving:
        return registry.remove_leftovers(kept.values()) or put_back, ""
    registry.destroy(list(whole.values()), state.runs_of(state.stages))
    lost = sorted(kept.keys() - whole.keys() - {serving})
    if lost:
        workspace.ledger.append(
            events.Retired(
                time=workspace.now(),
                versions=tuple(lost),
                stages=(),
            )
        )
    if champion is None or not serving:
        return True, ""
    if serving not in whole:
        try:
            champion = _registered_again(workspace, champion)
        except ArtifactError as error:
            return True, f"the version that serves is not whole and serves no more: {error}"
    registry.serve(champion.version)
    registry.tag(champion.version, workspace.budget.tags(workspace.ledger.state()))
    return True, ""


def unserved(workspace: Reconcilable) -> str:
    """Says that the registry does not serve the version that it is to serve, "" where it does."""
    champion = workspace.ledger.state().champion
    if champion is None or champion.destroyed or workspace.registry.serving() == champion.version:
        return ""
    return (
        f"the registry does not answer with version {champion.version} to whoever asks for the one "
        "that serves; see who else writes to it, then run `s3t erase` again"
    )


def _registered_again(workspace: Reconcilable, champion: VersionRecord) -> VersionRecord:
    """Under its number, or, where the registry has passed that, a new one."""
    made = workspace.registry.adopt(
        champion,
        {
            **release_tags(champion.release, workspace.ledger.head()),
            **score_tags(champion.score),
        },
    )
    now = replace(
        champion,
        version=made.version,
        run_id=made.run_id,
        model_id=made.model_id,
        document=made.document,
    )
    if made.version == champion.version:
        workspace.ledger.append(
            events.Migrated(
                time=workspace.now(),
                move="",
                settings=workspace.pinned.wanted(),
                versions={made.version: [made.run_id, made.model_id, made.document]},
            )
        )
        return now
    workspace.ledger.append(
        events.ReleaseServes(
            time=workspace.now(),
            cause="restored",
            release=champion.release,
            recipe=champion.recipe,
            version=made.version,
            run_id=made.run_id,
            model_id=made.model_id,
            document=made.document,
            staleness=champion.staleness,
            offline=champion.offline,
            combine=champion.combine,
        ),
        events.Retired(
            time=workspace.now(),
            versions=(champion.version,),
            stages=(),
        ),
        events.ReleaseMeasured.of(workspace.now(), champion.release.release_id, champion.score),
    )
    return now


def _clean_left(workspace: Reconcilable, state: State) -> tuple[int, int]:
    """What came back to directories that earlier moves left: files of stages, of data objects. A
    directory that lies within or around one of today's, a remote that the operator made of it among
    them, is looked at with that; a bucket is not restored with files."""
    removed = {"store": 0, "dvc": 0}
    if not state.left_places:
        return 0, 0
    today = [
        p.resolve()
        for p in (
            *workspace.datasets.repository.local_remotes(),
            *(
                workspace.root / url
                for url in (workspace.config.store.url, workspace.config.dvc.remote)
                if not is_bucket(url)
            ),
        )
    ]
    known = _ever_known(workspace)
    for section, settings in state.left_places:
        url = settings.get("url", settings.get("remote", ""))
        folder = (workspace.root / url).resolve()
        if (
            section in removed
            and not is_bucket(url)
            and not any(folder.is_relative_to(t) or t.is_relative_to(folder) for t in today)
        ):
            left = LeftPlace(section, *place_of(url, workspace.root), workspace.owner)
            removed[section] += left.clean(
                lambda name: name.rpartition(".")[0] in known or name in known
            )
    if workspace.config.registry.tracking_uri and any(
        section == "registry" for section, _ in state.left_places
    ):
        for path in (workspace.state_dir / "mlflow.db", workspace.state_dir / "mlartifacts"):
            removed["store"] += os.path.lexists(path)
            remove_tree(path) if path.is_dir() else remove_file(path)
    return removed["store"], removed["dvc"]


def _ever_known(workspace: Reconcilable) -> set[str]:
    """Digests of all stages and names of all data objects that the ledger ever told of."""
    events = workspace.ledger.events()
    datasets = [dataset_from_json(e["dataset"]) for e in events if e["type"] == "dataset"]
    return {e["stage"]["digest"] for e in events if e["type"] == "stage"} | {
        object_name(md5) for d in datasets for md5 in (d.version, *(f.md5 for f in d.files()))
    }


def _destroy_stages(workspace: Reconcilable, state: State) -> int:
    known = {s.digest for s in state.stages.values()}
    strange = [d for d in workspace.store.digests() if d not in known]
    for digest in strange:
        workspace.store.delete(digest)
    return len(strange)


def _destroy_activations(workspace: Reconcilable, state: State) -> int:
    superseded = {
        v.digest
        for dataset in state.datasets
        for v in dataset.files()
        if v.md5 not in state.destroyed_objects
    }
    return workspace.activations.allow(
        {v.digest for v in state.dataset.files()} if state.dataset else (), superseded
    )


def _destroy_objects(workspace: Reconcilable, state: State) -> int:
    there = workspace.datasets.repository.stored(state.destroyed_objects)
    live = (
        {f.md5 for f in state.dataset.files()} | {state.dataset.version} if state.dataset else set()
    )
    back = sorted(there - live)
    if back:
        workspace.datasets.destroy(back, [], state.dataset)
    return len(back)


def _erased(workspace: Reconcilable, state: State) -> list[DeletionRequest]:
    """Requests that were carried out, but for people who have returned since; and those of an
    erasure without its certificates yet, once it has destroyed their rows."""
    destroyed = state.planned if "destroy" in state.steps else ()
    done = {*state.certified, *state.set_aside, *destroyed}
    return [
        r
        for r in workspace.requests.all(state)
        if r.request_id in done and r.suppression in state.suppressed
    ]
