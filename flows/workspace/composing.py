"""The ports of an erasure, and its policy, for one workspace."""

import json
from collections.abc import Iterable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flows import adapters
from flows.adapters.away import AwayFiles
from flows.adapters.loading import wait_until_unused
from flows.adapters.local import WorkspaceResidue
from flows.adapters.s3 import S3Blobs, is_bucket
from flows.workspace.change import Change
from flows.workspace.parts import (
    HasActivations,
    HasBudget,
    HasCertificates,
    HasConfig,
    HasKeys,
    HasLedger,
    HasNeedles,
    HasRegistry,
    HasRequests,
    HasStages,
)
from flows.workspace.stores import Placed, claim, note_cache, present_remotes
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

if TYPE_CHECKING:
    from flows.adapters.dask_runner import DaskRunner

_LOADING_SECONDS = 60.0
"""A scan waits so long for a process that loads a version."""


class Measurable(HasConfig, HasKeys, HasLedger, HasStages, Protocol):
    """What a release is measured with."""

    def held_out_ref(self, state: State) -> FileRef:
        """The held-out file and the digest that it must have."""


class Erasable(
    Placed,
    Measurable,
    HasRequests,
    HasNeedles,
    HasActivations,
    HasRegistry,
    HasCertificates,
    HasBudget,
    Protocol,
):
    """What an erasure works through, and what it searches."""

    @property
    def temporary_dir(self) -> Path:
        """Spools and copies."""

    @property
    def reports_dir(self) -> Path:
        """Compliance reports."""

    @property
    def offline_seconds(self) -> float:
        """How long a loaded model may go on without its registry."""

    @property
    def away(self) -> AwayFiles:
        """Where rows may lie on other machines."""

    @property
    def cluster(self) -> "DaskRunner | None":
        """The cluster that trains stages."""

    def own_names(self, shards: int, slices: int) -> list[str]:
        """Names of the system's own files."""


def erase_ports(workspace: Erasable, held: Change) -> ErasePorts:
    """Everything the eraser works through, while the workspace is held."""
    note_cache(workspace, held)
    artifacts = workspace.registry.places()
    elsewhere = [
        *present_remotes(workspace),
        *workspace.datasets.repository.own_caches(),
        *workspace.remote_folder(),
        *workspace.store_folder(),
        *(Path(p) for p in artifacts if not is_bucket(p) and Path(p).is_dir()),
    ]
    places = (workspace.config.store.url, workspace.config.dvc.remote, *artifacts)
    written = {b.url: b for b in map(S3Blobs, filter(is_bucket, places))}
    buckets = written | {b.url: b for b in workspace.datasets.repository.bucket_remotes()}
    for bucket in buckets.values():
        bucket.check()
    claim(workspace, held)
    from flows.adapters.known_subjects import KnownSubjects

    residue = WorkspaceResidue(
        workspace.root,
        elsewhere,
        partial(workspace.needles.files_of, partial(_being_erased, workspace)),
        baseline_of(workspace),
        list(buckets.values()),
        workspace.temporary_dir,
        frozenset(written),
        lambda: KnownSubjects(workspace.datasets, workspace.ledger.state),
        workspace.keys.suppression,
        partial(_check_away, workspace),
    )
    return ErasePorts(
        ledger=workspace.ledger,
        requests=workspace.requests,
        datasets=workspace.datasets,
        stages=workspace.store,
        activations=workspace.activations,
        registry=workspace.registry,
        needles=workspace.needles,
        residue=residue,
        evaluator=ReleaseEvaluator(workspace),
        certificates=workspace.certificates,
        clock=workspace.clock,
    )


def _being_erased(workspace: Erasable) -> list[str]:
    """The open requests, and the plans without all their certificates."""
    state = workspace.ledger.state()
    plans = [plan.plan_id for plan in _begun(state)]
    return [*plans, *state.begun, *(r.request_id for r in workspace.requests.pending())]


def _begun(state: State) -> list[ErasurePlan]:
    """The plans of the erasures that are not certified."""
    waiting = [left.plan.plan for left in state.uncertified.values()]
    return waiting if state.plan is None else [state.plan.plan, *waiting]


def baseline_of(workspace: Erasable) -> Iterable[bytes]:
    """What the system writes whoever is in the data, as parts in bytes that each scan reads
    anew."""
    from flows.adapters.baseline import Baseline

    system = workspace.config.system
    labels = [*workspace.config.data.labels, json.dumps(workspace.config.data.labels)[1:-1]]
    code = Path(adapters.__file__).with_name("champion.py")
    own = workspace.own_names(system.shards, system.slices)
    fixed = (
        *(x.encode() for x in labels),
        code.read_bytes(),
        *(f"{workspace.root.resolve()}/{name}".encode() for name in own),
    )
    documents = (
        workspace.certificates_dir,
        workspace.reports_dir,
        workspace.state_dir / "checkpoint.json",
    )
    signs = workspace.ledger.state().signing
    publics = sorted(workspace.signing.public_keys(), key=lambda k: key_id(k) != signs)
    return Baseline(
        fixed=fixed,
        settings=render_config(workspace.config).encode(),
        entries=workspace.ledger.entries,
        documents=documents,
        publics=tuple(publics),
        recorded=lambda: set(workspace.ledger.state().documents.values()),
        databases=workspace.state_dir,
        root=workspace.root,
        erased=partial(_erased, workspace),
        versions=partial(_recorded_files, workspace),
    )


def _recorded_files(workspace: Erasable) -> Iterator[bytes]:
    there = [v for v in workspace.ledger.state().versions if not v.destroyed]
    yield from workspace.registry.recorded_files(there) if there else ()


def _erased(workspace: Erasable) -> NeedleSet:
    """What the scan would look for of the people whose rows an erasure found that is not
    certified, if the system wrote nothing."""
    state = workspace.ledger.state()
    ids: list[str] = []
    texts: list[str] = []
    for plan in _begun(state):
        rows = {r: plan.rows[r] for r in plan.requests}
        having = {r: state.requests[r].ids for r, found in rows.items() if found.known}
        found = workspace.needles.read(plan.plan_id, having)
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


def erase_policy(workspace: Erasable) -> ErasePolicy:
    """The settings that an erasure obeys."""
    software = {name: version(name) for name in _SOFTWARE}
    return ErasePolicy(
        staleness_seconds=workspace.config.erasure.staleness_seconds,
        keep_clean_versions_days=workspace.config.erasure.keep_clean_versions_days,
        software=software,
        budget_of=workspace.budget_of,
        budget_tags=workspace.budget_tags,
        needs_approval=workspace.config.erasure.needs_approval,
        jurisdiction=workspace.config.erasure.jurisdiction,
        offline_seconds=workspace.offline_seconds,
        deleted_bytes_seconds=3600 * workspace.config.erasure.deleted_bytes_hours,
    )


def _check_away(workspace: Erasable) -> None:
    """That no machine of a cluster may hold rows of data files that are destroyed, and no
    process here a copy of stages that it loads. Raises ResidueFound, Busy."""
    wait_until_unused(workspace.state_dir / "loading", _LOADING_SECONDS)
    state = workspace.ledger.state()
    files = [f for d in state.datasets for f in d.files()]
    gone = {f.digest for f in files if f.md5 in state.destroyed_objects}
    workspace.away.check(
        {f.digest for f in files} - gone,
        lambda: workspace.cluster,
    )


class ReleaseEvaluator:
    """Measures a release in a process of its own. Fills the port `Evaluator`."""

    def __init__(self, workspace: Measurable) -> None:
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
