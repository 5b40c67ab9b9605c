"""What one training differs in from another: the data that it stands on, in which order and until
when it trains, and how good its version must be.

There are three cases. A training, or a full retrain, goes on beside erasures (`LiveData`). A
replacement is trained first, inside an erasure, on the data as it will be (replacing.py). A repair
trains for a limited time, the worst shards first (repairing.py).
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flows.use_cases.reconciling import Reconcilable
from flows.workspace import access
from flows.workspace.change import Change
from flows.workspace.jobs import Measurable
from flows.workspace.parts import HasDatabase, HasRequests, Sweepable
from flows.workspace.sweeping import sweep
from flows.workspace.workspace import refuse_open_plan, require_data
from s3t_core.domain import DatasetVersion
from s3t_core.erasure.state import State
from s3t_core.erasure.vocabulary import ReleaseCause
from s3t_core.errors import DataError
from s3t_core.learning.recipe import StageSpec
from s3t_core.learning.training_plan import TrainingPlan, has_moved
from s3t_core.slicefile import slice_path

_WAIT_SECONDS = 6 * 3600
"""How long a training waits for an erasure that holds the workspace, before it gives up what it is
about to write."""


class Trainable(Reconcilable, Measurable, Sweepable, HasDatabase, HasRequests, Protocol):
    """What is trained, measured and registered."""

    @property
    def backbone(self) -> str:
        """Where the backbone is. Raises UsageError."""

    @property
    def offline_seconds(self) -> float:
        """How long a loaded model may go on without its registry."""


class TrainingData(Protocol):
    """What a training stands on."""

    def changing(self) -> AbstractContextManager[Change]:
        """Hold the workspace while something is written; several threads may ask. Raises Busy."""

    def prepare(self, held: Change, state: State) -> DatasetVersion:
        """Clear away what a killed process left half-written, and say which data to train on.
        Raises DataError."""

    def file_of(self, relative: str) -> Path:
        """Where a file of that data is."""

    def has_moved(
        self, state: State, dataset: DatasetVersion, spec: StageSpec | None = None
    ) -> bool:
        """Whether the data is `dataset` no longer: all of it, or what one stage sees and builds
        on."""


class LiveData:
    """The data as it is, which erasures may change at any time. Fills TrainingData.

    `wait_seconds`: for how long another that holds the workspace is waited for at first; later a
    training has something to lose, and waits for an erasure to end.
    """

    def __init__(self, workspace: Trainable, wait_seconds: float = 0) -> None:
        self._workspace = workspace
        self._wait = wait_seconds
        self._threads = threading.Lock()

    @contextlib.contextmanager
    def changing(self) -> Iterator[Change]:
        """Hold the workspace's lock and lease."""
        with self._threads, access.changing(self._workspace, self._wait) as held:
            self._wait = _WAIT_SECONDS
            yield held

    def prepare(self, held: Change, state: State) -> DatasetVersion:
        """Sweep, and take what `data.dvc` stands for."""
        sweep(self._workspace, held)
        return usable_dataset(self._workspace, state)

    def file_of(self, relative: str) -> Path:
        """In the data directory."""
        return self._workspace.root / "data" / relative

    def has_moved(
        self, state: State, dataset: DatasetVersion, spec: StageSpec | None = None
    ) -> bool:
        """As the ledger tells."""
        refuse_open_plan(state)
        if state.dataset is None:
            return True
        if spec is None:
            return state.dataset.version != dataset.version
        return has_moved(state.dataset, state.stages, spec)


@dataclass(frozen=True)
class TrainingCase:
    """One training. `order` gives the missing stages in the order in which they are trained;
    `is_out_of_time`: whether no further stage may begin; `floor` (of the score): worse than it, the
    version is not registered, 0 for no such floor."""

    cause: ReleaseCause
    data: TrainingData
    order: Callable[[TrainingPlan, State], list[StageSpec]] = lambda plan, _: list(plan.missing)
    is_out_of_time: Callable[[], bool] = lambda: False
    floor: float = 0.0


def usable_dataset(workspace: Trainable, state: State) -> DatasetVersion:
    """The data of the workspace, when it can be trained on. Raises DataError when there is none, or
    no record in it, when it was placed for another topology, or when a file of it is not there."""
    dataset, system = require_data(state), workspace.config.system
    if (dataset.shards, dataset.slices) != (system.shards, system.slices):
        raise DataError(
            f"expected data placed for {system.shards} shards of {system.slices} slices, got "
            f"{dataset.shards} of {dataset.slices}; run `s3t ingest SOURCE` again"
        )
    if dataset.rows() == 0:
        raise DataError("expected training records, got none at all; ingest a source with records")
    for slice_id, version in dataset.slice_versions.items():
        path = workspace.root / "data" / slice_path(slice_id.shard, slice_id.index)
        if version.rows and not path.exists():
            raise DataError(
                f"expected {path.parent.name}/{path.name} in the data directory, got none; run "
                "`dvc checkout --force data.dvc`"
            )
    return dataset
