"""After a restore: what the ledger says is destroyed goes again, and the version it says serves, serves again.

A backup of files that is older than the ledger brings back stages, versions and data objects of people who were erased
since. Every erase run looks before it does anything else, whether something is pending or not: the registry against the
recorded versions, `data/` against the recorded data version, the stage store against the recorded stages, cache and
remotes against the objects that were destroyed, the quarantine against the erased. A ledger that is older than a
checkpoint is refused before it comes to this (flows.adapters.checkpoints).
"""

from dataclasses import dataclass, replace

from flows.wiring import Workspace
from s3t_core.domain import DeletionRequest
from s3t_core.erasure.ledger import State, VersionRecord
from s3t_core.erasure.planner import targets_of
from s3t_core.erasure.versions import accuracy_tags, release_tags
from s3t_core.errors import ArtifactError


@dataclass(frozen=True)
class Healed:
    """How many of each came back and were destroyed again; whether registry and data directory were made to agree with
    the ledger; what could not be put right."""

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


def heal(place: Workspace) -> Healed:
    """The caller holds the workspace. While an erasure is open its own steps come first: then nothing is done. Raises
    StorageError, GuaranteeError."""
    state = place.ledger.state()
    if state.plan is not None:
        return Healed()
    registry, problem = _heal_registry(place, state)  # first: what answers must not be what is gone
    erased = targets_of(_erased(place, state))
    data = state.dataset is not None and bool(place.datasets.put_back(state.datasets, erased))
    found = Healed(_destroy_stages(place, state), _destroy_objects(place, state),
                   place.datasets.erase_quarantine(erased), registry, data, problem)
    if not found.nothing:
        place.ledger.append({"type": "healed", "time": place.now(), "stages": found.stages, "objects": found.objects,
                             "quarantined": found.quarantined, "registry": found.registry, "data": found.data})
    return found


def _heal_registry(place: Workspace, state: State) -> tuple[bool, str]:
    if not state.versions:
        return False, ""
    kept = {v.version: v for v in state.versions if not v.destroyed}
    wanted = sorted(v.release.release_id for v in kept.values())
    serving = state.champion.release.release_id if state.champion else ""
    if sorted(place.registry.releases()) == wanted and place.registry.serving() == serving:
        return False, ""
    place.registry.destroy(list(kept.values()), state.stages)
    ids: dict[str, list[str]] = {}
    again: list[VersionRecord] = []
    try:
        for version in sorted(kept.values(), key=lambda v: int(v.version)):  # the last one serves
            made = place.registry.adopt(version, {**release_tags(version.release, place.ledger.head()),
                                                  **accuracy_tags(version.accuracy)})
            ids[version.version] = [made.run_id, made.model_id]
            again.append(replace(version, run_id=made.run_id, model_id=made.model_id))
    except ArtifactError as error:
        return True, f"the version that serves is not whole and serves no more: {error}"
    place.registry.destroy(again, state.stages)
    if state.champion is not None:
        place.registry.tag(state.champion.version, place.budget_tags(state))
    place.ledger.append({"type": "migrated", "time": place.now(), "move": "", "settings": place.lasting_settings(),
                         "versions": ids})
    return True, ""


def _destroy_stages(place: Workspace, state: State) -> int:
    known = {s.digest for s in state.stages.values()}
    strange = [d for d in place.store.digests() if d not in known]
    for digest in strange:
        place.store.delete(digest)
    return len(strange)


def _destroy_objects(place: Workspace, state: State) -> int:
    there = place.datasets.stored(state.destroyed_objects)
    live = {f.md5 for f in state.dataset.files()} | {state.dataset.version} if state.dataset else set()
    back = sorted(there - live)
    if back:
        place.datasets.destroy(back, [], state.dataset)
    return len(back)


def _erased(place: Workspace, state: State) -> list[DeletionRequest]:
    """Requests that were carried out, but for people who have returned since."""
    on_list = place.requests.suppressed_by()
    return [r for r in place.requests.all() if r.request_id in state.certified and r.suppression in on_list]
