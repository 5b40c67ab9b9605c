"""The ports of an erasure, and its policy, for one workspace."""

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flows import adapters
from flows.adapters.away import AwayFiles
from flows.adapters.database import Database
from flows.adapters.exports import ExportedFiles
from flows.adapters.s3 import S3Blobs, is_bucket
from flows.adapters.scan_scope import ScanScope
from flows.adapters.workspace_residue import WorkspaceResidue
from flows.workspace.change import Change
from flows.workspace.jobs import Measurable, ReleaseEvaluator
from flows.workspace.parts import (
    HasActivations,
    HasBudget,
    HasCertificates,
    HasDatasets,
    HasKeys,
    HasNeedles,
    HasRegistry,
    HasRequests,
    HasStages,
)
from flows.workspace.stores import Placed, claim, note_cache, present_remotes
from s3t_core.config import render_config
from s3t_core.erasure.executor import ErasePolicy, ErasePorts
from s3t_core.erasure.offline import key_id
from s3t_core.erasure.versions import names_in_registry

if TYPE_CHECKING:
    from flows.adapters.dask_runner import DaskRunner


class Erasable(
    Placed,
    Measurable,
    HasKeys,
    HasDatasets,
    HasRequests,
    HasStages,
    HasNeedles,
    HasActivations,
    HasRegistry,
    HasCertificates,
    HasBudget,
    Protocol,
):
    """What an erasure works through, and what it searches."""

    @property
    def database(self) -> Database:
        """Requests, ledger, suppression list."""

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
        *(p for p in workspace.database.files() if p.exists()),
    ]
    places = (workspace.config.store.url, workspace.config.dvc.remote, *artifacts)
    written = {b.url: b for b in map(S3Blobs, filter(is_bucket, places))}
    buckets = written | {b.url: b for b in workspace.datasets.repository.bucket_remotes()}
    for bucket in buckets.values():
        bucket.check()
    claim(workspace, held)
    residue = WorkspaceResidue(
        workspace.root,
        elsewhere,
        scan_scope(workspace),
        baseline_of(workspace),
        list(buckets.values()),
        workspace.temporary_dir,
        frozenset(written),
        workspace.keys.suppression,
        None if workspace.database.files() else workspace.ledger.entries,
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
        budget=workspace.budget,
        certificates=workspace.certificates,
        clock=workspace.clock,
        exports=ExportedFiles(workspace.keys.sealing),
    )


def scan_scope(workspace: Erasable) -> ScanScope:
    """What a scan must know of the erasures that are under way."""
    return ScanScope(
        workspace.ledger,
        workspace.requests,
        workspace.needles,
        workspace.datasets,
        workspace.away,
        lambda: workspace.cluster,
        workspace.state_dir / "loading",
    )


def baseline_of(workspace: Erasable) -> Iterable[bytes]:
    """What the system writes whoever is in the data, as parts in bytes that each scan reads
    anew."""
    from flows.adapters.baseline import Baseline

    system = workspace.config.system
    labels = [*workspace.config.data.labels, json.dumps(workspace.config.data.labels)[1:-1]]
    code = Path(adapters.__file__).with_name("champion.py")
    own, state = workspace.own_names(system.shards, system.slices), workspace.ledger.state()
    fixed = (
        *(x.encode() for x in labels),
        code.read_bytes(),
        *(f"{workspace.root.resolve()}/{name}".encode() for name in own),
        *(name.encode() for name in names_in_registry(state)),
    )
    documents = (
        workspace.certificates_dir,
        workspace.reports_dir,
        workspace.state_dir / "checkpoint.json",
    )
    publics = sorted(workspace.signing.public_keys(), key=lambda k: key_id(k) != state.signing)
    return Baseline(
        fixed=fixed,
        settings=render_config(workspace.config).encode(),
        ledger=workspace.ledger,
        documents=documents,
        publics=tuple(publics),
        databases=workspace.state_dir,
        ledger_files=tuple(workspace.database.files()[:1]),
        root=workspace.root,
        scope=scan_scope(workspace),
        registry=workspace.registry,
    )


_SOFTWARE = (
    "s3t",
    "dvc",
    "mlflow",
    "torch",
    "transformers",
    "peft",
)


def software_versions() -> dict[str, str]:
    """What certificates and reports name the versions of."""
    return {name: version(name) for name in _SOFTWARE}


def erase_policy(workspace: Erasable) -> ErasePolicy:
    """The settings that an erasure obeys."""
    return ErasePolicy(
        staleness_seconds=workspace.config.erasure.staleness_seconds,
        keep_clean_versions_days=workspace.config.erasure.keep_clean_versions_days,
        software=software_versions(),
        needs_approval=workspace.config.erasure.needs_approval,
        jurisdiction=workspace.config.erasure.jurisdiction,
        offline_seconds=workspace.offline_seconds,
        deleted_bytes_seconds=3600 * workspace.config.erasure.deleted_bytes_hours,
        combine=workspace.config.serving.combine,
    )
