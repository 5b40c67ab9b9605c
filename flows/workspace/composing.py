"""The ports of an erasure, and its policy, for one workspace."""

import json
from collections.abc import Iterable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flows import adapters
from flows.adapters.loading import wait_until_unused
from flows.adapters.local import WorkspaceResidue
from flows.adapters.s3 import S3Blobs, is_bucket
from flows.workspace.stores import claim, note_cache, present_remotes
from flows.workspace.workspace import Workspace
from s3t_core.config import render_config
from s3t_core.erasure.executor import ErasePolicy, ErasePorts
from s3t_core.erasure.needles import NeedleSet, make_needles
from s3t_core.erasure.offline import key_id
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.erasure.state import State
from s3t_core.learning.jobs import FileRef, MeasureJob
from s3t_core.learning.recipe import Recipe
from s3t_core.learning.release import recipe_from_json
from s3t_core.release_json import release_from_json

_LOADING_SECONDS = 60.0
"""A scan waits so long for a process that loads a version."""


def erase_ports(place: Workspace) -> ErasePorts:
    """Everything the eraser works through. The caller holds the workspace."""
    note_cache(place)
    artifacts = place.registry.places()
    elsewhere = [
        *present_remotes(place),
        *place.datasets.own_caches(),
        *place.remote_folder(),
        *place.store_folder(),
        *(Path(p) for p in artifacts if not is_bucket(p) and Path(p).is_dir()),
    ]
    places = (place.config.store.url, place.config.dvc.remote, *artifacts)
    written = {b.url: b for b in map(S3Blobs, filter(is_bucket, places))}
    buckets = written | {b.url: b for b in place.datasets.bucket_remotes()}
    for bucket in buckets.values():
        bucket.check()
    claim(place)
    from flows.adapters.known_subjects import KnownSubjects

    residue = WorkspaceResidue(
        place.root,
        elsewhere,
        partial(place.needles.files_of, partial(_being_erased, place)),
        baseline_of(place),
        list(buckets.values()),
        place.temporary_dir,
        frozenset(written),
        lambda: KnownSubjects(place.datasets, place.ledger.state),
        place.keys.suppression,
        partial(_check_away, place),
    )
    return ErasePorts(
        ledger=place.ledger,
        requests=place.requests,
        datasets=place.datasets,
        stages=place.store,
        activations=place.activations,
        registry=place.registry,
        needles=place.needles,
        residue=residue,
        evaluator=ReleaseEvaluator(place),
        certificates=place.certificates,
        clock=place.clock,
    )


def _being_erased(place: Workspace) -> list[str]:
    """The open requests, and the plans without all their certificates."""
    state = place.ledger.state()
    plans = [plan.plan_id for plan in _begun(state)]
    return [*plans, *state.begun, *(r.request_id for r in place.requests.pending())]


def _begun(state: State) -> list[ErasurePlan]:
    """The plans of the erasures that are not certified."""
    waiting = [left.plan.plan for left in state.uncertified.values()]
    return waiting if state.plan is None else [state.plan.plan, *waiting]


def baseline_of(place: Workspace) -> Iterable[bytes]:
    """What the system writes whoever is in the data, as parts in bytes that each scan reads
    anew."""
    from flows.adapters.baseline import Baseline

    system = place.config.system
    labels = [*place.config.data.labels, json.dumps(place.config.data.labels)[1:-1]]
    code = Path(adapters.__file__).with_name("champion.py")
    own = place.own_names(system.shards, system.slices)
    fixed = (
        *(x.encode() for x in labels),
        code.read_bytes(),
        *(f"{place.root.resolve()}/{name}".encode() for name in own),
    )
    documents = (place.certificates_dir, place.reports_dir, place.state_dir / "checkpoint.json")
    signs = place.ledger.state().signing
    publics = sorted(place.signing.public_keys(), key=lambda k: key_id(k) != signs)
    return Baseline(
        fixed=fixed,
        settings=render_config(place.config).encode(),
        entries=place.ledger.entries,
        documents=documents,
        publics=tuple(publics),
        recorded=lambda: set(place.ledger.state().documents.values()),
        databases=place.state_dir,
        root=place.root,
        erased=partial(_erased, place),
        versions=partial(_recorded_files, place),
    )


def _recorded_files(place: Workspace) -> Iterator[bytes]:
    there = [v for v in place.ledger.state().versions if not v.destroyed]
    yield from place.registry.recorded_files(there) if there else ()


def _erased(place: Workspace) -> NeedleSet:
    """What the scan would look for of the people whose rows an erasure found that is not
    certified, if the system wrote nothing."""
    state = place.ledger.state()
    ids: list[str] = []
    texts: list[str] = []
    for plan in _begun(state):
        rows = {r: plan.rows[r] for r in plan.requests}
        having = {r: state.requests[r].ids for r, found in rows.items() if found.known}
        found = place.needles.read(plan.plan_id, having)
        ids += found.ids
        texts += found.texts
    return make_needles(ids, texts)


_SOFTWARE = (
    "s3t",
    "dvc",
    "mlflow",
    "torch",
    "transformers",
    "peft",
)
"""What a certificate names the versions of."""


def erase_policy(place: Workspace) -> ErasePolicy:
    """The settings that an erasure obeys."""
    software = {name: version(name) for name in _SOFTWARE}
    return ErasePolicy(
        staleness_seconds=place.config.erasure.staleness_seconds,
        keep_clean_versions_days=place.config.erasure.keep_clean_versions_days,
        software=software,
        budget_of=place.budget_of,
        budget_tags=place.budget_tags,
        needs_approval=place.config.erasure.needs_approval,
        jurisdiction=place.config.erasure.jurisdiction,
        offline_seconds=place.offline_seconds,
        deleted_bytes_seconds=3600 * place.config.erasure.deleted_bytes_hours,
    )


def _check_away(place: Workspace) -> None:
    """That no machine of a cluster may hold rows of data files that are destroyed, and no
    process here a copy of stages that it loads. Raises ResidueFound, Busy."""
    wait_until_unused(place.state_dir / "loading", _LOADING_SECONDS)
    state = place.ledger.state()
    files = [f for d in state.datasets for f in d.files()]
    gone = {f.digest for f in files if f.md5 in state.destroyed_objects}
    place.away.check(
        {f.digest for f in files} - gone,
        lambda: place.runner if place.config.runner.kind == "dask" else None,
    )


class ReleaseEvaluator:
    """Measures a release in a process of its own. Fills the port `Evaluator`."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def accuracy(self, release: dict[str, Any], recipe: dict[str, Any]) -> float | None:
        """Accuracy on the held-out rows that are there now, 0 to 1."""
        workspace = self._workspace
        return self.accuracy_on(
            release, recipe_from_json(recipe), workspace.held_out_ref(workspace.ledger.state())
        )

    def accuracy_on(
        self, release: dict[str, Any], recipe: Recipe, held_out: FileRef
    ) -> float | None:
        """The same on given held-out rows."""
        workspace = self._workspace
        result: float | None = workspace.runner.measure(
            MeasureJob(
                recipe,
                release_from_json(release),
                held_out,
                workspace.store,
                workspace.keys,
                workspace.config.runner.max_memory,
            )
        )
        return result
