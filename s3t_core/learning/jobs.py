"""Jobs that run in a process of their own: describe a backbone, train one stage, measure a release.

This module imports torch only inside the functions, so that whoever orders a job need not. A
stage's process reads, of training rows, the files of its own slices alone (beside them earlier
stages, kept activations, and held-out rows to be measured on), checks them against their recorded
digests, and refuses to run under another numeric profile than the one in its key, or by other code
than whoever ordered the stage.
"""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from s3t_core import METHOD_VERSION
from s3t_core.domain import Combine, Release, Score
from s3t_core.errors import GuaranteeError
from s3t_core.keys import WorkspaceKeys
from s3t_core.learning.activation_store import ActivationStore
from s3t_core.learning.code import CODE
from s3t_core.learning.installed import check_installed
from s3t_core.learning.recipe import NumericProfile, Recipe, StageSpec
from s3t_core.learning.store import StageStore
from s3t_core.slicefile import read_verified

if TYPE_CHECKING:
    from s3t_core.learning.activations import Activations
    from s3t_core.learning.backbone import Backbone
    from s3t_core.learning.stage import StageResult


@dataclass(frozen=True)
class FileRef:
    """A data file and the content digest it must have."""

    path: Path
    digest: str


@dataclass(frozen=True)
class DescribeJob:
    """Look at a backbone."""

    model: str
    threads: int
    device: str = "cpu"


@dataclass(frozen=True)
class Description:
    """What a backbone is, and the numeric profile that stages will train under."""

    digest: str
    tokenizer_digest: str
    layers: int
    profile: NumericProfile


@dataclass(frozen=True)
class StageJob:
    """Train one stage. `slices` are the files of its prefix in order, `earlier` the digests of the
    stages below it.

    `activations` keeps frozen states (None: nothing is kept); `measured`: how many held-out rows,
    the first by digest, the stage is measured on, by which `metric` ([task]); `spill`: where states
    larger than memory go (None: the temporary directory); `max_memory`: what devices may hold of a
    backbone that is larger than one (learning.device_map). None of them changes a byte of the
    stage. `code` is that of whoever orders it (learning.code)."""

    recipe: Recipe
    spec: StageSpec
    slices: tuple[FileRef, ...]
    earlier: tuple[str | None, ...]
    held_out: FileRef
    store: StageStore
    keys: WorkspaceKeys
    activations: ActivationStore | None = None
    measured: int = 0
    spill: Path | None = None
    max_memory: str = ""
    metric: str = ""
    code: str = CODE


@dataclass(frozen=True)
class StageOutcome:
    """A trained stage, not stored yet: only whoever holds the workspace's lock may store it, so
    that a process whose parent was killed leaves nothing. `score` on the measured held-out rows,
    None without any; `losses`: of each optimizer step; `seconds`: how long it took; `peak_bytes`:
    the most memory that its process held, code and backbone among it."""

    artifact: bytes
    loss: float
    score: Score | None
    steps: int
    losses: tuple[float, ...] = ()
    seconds: float = 0.0
    peak_bytes: int = 0


@dataclass(frozen=True)
class MeasureJob:
    """Measure a release on the held-out rows by a `metric` of its task, as it will answer
    (`combine`), and the other way beside it."""

    recipe: Recipe
    release: Release
    held_out: FileRef
    store: StageStore
    keys: WorkspaceKeys
    max_memory: str = ""
    combine: Combine = "votes"
    metric: str = ""


def describe(job: DescribeJob) -> Description:
    """Raises UsageError when the backbone cannot be found, BackboneChanged when it is not the
    published one."""
    from s3t_core.learning.backbone import find_backbone
    from s3t_core.learning.stage import numeric_profile

    with find_backbone(job.model, with_weights=False) as found:
        profile = numeric_profile(
            job.threads,
            job.device,
            found,
        )
    check_installed()
    return Description(
        found.digest,
        found.tokenizer_digest,
        found.layers,
        profile,
    )


def train(job: StageJob) -> StageOutcome:
    """Train. Raises GuaranteeError, ArtifactError, TrainingError."""
    from s3t_core.learning.activations import Activations
    from s3t_core.learning.backbone import check_backbone, find_backbone

    began = time.monotonic()
    _check_code(job)
    activations = Activations(job.activations, spill=job.spill, seals_later=True)
    digests = job.recipe.backbone_digest, job.recipe.tokenizer_digest
    with find_backbone(job.recipe.model, with_weights=not job.max_memory) as backbone:
        check_backbone(backbone, *digests)
        result = _trained(job, backbone, activations)
    check_installed()
    if job.max_memory:  # its weights were read where they lie
        check_backbone(find_backbone(job.recipe.model, with_weights=False), *digests)
    activations.seal()
    return StageOutcome(
        result.artifact,
        result.loss,
        result.score,
        result.steps,
        result.losses,
        time.monotonic() - began,
        1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )


def _trained(
    job: StageJob,
    backbone: "Backbone",
    activations: "Activations",
) -> "StageResult":
    from s3t_core.learning.stage import numeric_profile, train_stage

    threads, device = job.recipe.profile.threads, job.recipe.training["device"]
    profile = numeric_profile(threads, device, backbone)
    if profile != job.recipe.profile:
        raise GuaranteeError(
            "expected the numeric profile of the stage key, got another (wanted and got: "
            f"{job.recipe.profile.differences(profile)}); train on machines of one profile, or run "
            "`s3t train` anew on this one"
        )
    held_out = (
        sorted(
            read_verified(
                job.held_out.path,
                job.keys,
                job.held_out.digest,
            )
        )[: job.measured]
        if (job.measured)
        else []
    )
    return train_stage(
        backbone,
        job.recipe,
        job.spec,
        [read_verified(f.path, job.keys, f.digest) for f in job.slices],
        [job.store.get(d) if d else None for d in job.earlier],
        held_out,
        activations,
        job.held_out.digest,
        job.max_memory,
        job.metric,
    )


def _check_code(job: StageJob) -> None:
    if job.code != CODE or job.recipe.method != METHOD_VERSION:
        raise GuaranteeError(
            "expected to train by the code of whoever ordered the stage, got a worker of another "
            f"release ({METHOD_VERSION} for {job.recipe.method or 'an earlier method'}), or files "
            "that an installation changed under a running command; end what still runs, install "
            "one release everywhere, then run the command again"
        )


def measure(job: MeasureJob) -> Score | None:
    """The score of the release, with that of the other way of answering, which a backbone that is
    larger than one device has not; None without held-out rows or without a live shard.

    Any machine may measure: a score stands in no key and in no byte of a stage, and an erasure
    must not wait for a machine of the release's numeric profile.
    """
    import torch

    from s3t_core.learning.backbone import find_backbone
    from s3t_core.learning.ensemble import Ensemble

    torch.set_num_threads(max(2, job.recipe.profile.threads))
    rows = read_verified(
        job.held_out.path,
        job.keys,
        job.held_out.digest,
    )

    def scored(backbone: "Backbone", combine: Combine) -> Score | None:
        ensemble = Ensemble(
            backbone,
            job.recipe,
            job.release,
            job.store.get,
            job.max_memory,
            combine,
        )
        found: Score | None = ensemble.score(rows, job.metric)
        return replace(found, combine=combine) if found else None

    with find_backbone(job.recipe.model, with_weights=not job.max_memory) as found:
        score = scored(found, job.combine)
        if score is None or job.max_memory:
            return score
        other: Combine = "votes" if job.combine == "merged" else "merged"
        return replace(
            score,
            otherwise=scored(found, other),
        )


Job = DescribeJob | StageJob | MeasureJob
Outcome = Description | StageOutcome | Score | None
"""What a job comes to."""


JOBS: dict[type, Callable[..., Outcome]] = {
    DescribeJob: describe,
    StageJob: train,
    MeasureJob: measure,
}
"""What carries out each."""
