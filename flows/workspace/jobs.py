"""The jobs that train a workspace's stages and measure its releases, with all that they need of
it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from flows.workspace.parts import HasConfig, HasKeys, HasLedger, HasStages
from s3t_core.domain import Combine, Release, Score, StageRecord
from s3t_core.erasure.state import State
from s3t_core.learning.jobs import FileRef, MeasureJob, StageJob
from s3t_core.learning.recipe import Recipe, StageSpec
from s3t_core.learning.release import recipe_from_json
from s3t_core.slicefile import slice_path


class Measurable(HasConfig, HasKeys, HasLedger, HasStages, Protocol):
    """What a release is measured with."""

    def held_out_ref(self, state: State) -> FileRef:
        """The held-out file and the digest that it must have."""


def stage_job(
    workspace: Measurable,
    recipe: Recipe,
    spec: StageSpec,
    done: Mapping[str, StageRecord],
    held_out: FileRef,
    file_of: Callable[[str], Path],
) -> StageJob:
    """The job that trains one stage, with all that decides its bytes. `done`: the stages that it
    builds on, by key; `file_of(relative)`: where a data file is."""
    return StageJob(
        recipe,
        spec,
        slices=tuple(
            FileRef(file_of(slice_path(spec.shard, s)), digest)
            for s, digest in zip(spec.prefix, spec.slice_digests, strict=True)
        ),
        earlier=tuple(done[key].digest if key else None for key in spec.earlier),
        held_out=held_out,
        store=workspace.store,
        keys=workspace.keys,
        max_memory=workspace.config.runner.max_memory,
        metric=workspace.config.task.metric,
    )


class ReleaseEvaluator:
    """Measures a release in a process of its own. Fills the port `Evaluator`."""

    def __init__(self, workspace: Measurable) -> None:
        self._workspace = workspace

    def score(self, release: Release, recipe: dict[str, object], combine: Combine) -> Score | None:
        """The score on the held-out rows that are there now, as shards answer by `combine`, and the
        other way beside it."""
        held_out = self._workspace.held_out_ref(self._workspace.ledger.state())
        return self.score_on(release, recipe_from_json(recipe), held_out, combine)

    def score_on(
        self, release: Release, recipe: Recipe, held_out: FileRef, combine: Combine
    ) -> Score | None:
        """The same on given held-out rows."""
        workspace = self._workspace
        result: Score | None = workspace.runner.measure(
            MeasureJob(
                recipe=recipe,
                release=release,
                held_out=held_out,
                store=workspace.store,
                keys=workspace.keys,
                max_memory=workspace.config.runner.max_memory,
                combine=combine,
                metric=workspace.config.task.metric,
            )
        )
        return result
