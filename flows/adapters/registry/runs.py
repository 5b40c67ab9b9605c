"""The runs of trainings and of stages (MLflow). Never rows, never subject ids: parameters, losses,
accuracies, digests."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from flows.adapters.registry.connection import Connection, pages
from flows.adapters.registry.experiment import OwnExperiment
from flows.adapters.registry.versions import Versions

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run

STAGE_TAG = "s3t.stage_key"
KIND_TAG = "s3t.kind"
COPY_TAG = "s3t.copy_of"
_PARENT_TAG = "mlflow.parentRunId"
_STEP_LOSS = "loss_of_step"
_CURVES = (_STEP_LOSS, "live_depth")
"""Metrics of several points."""
_METRICS_AT_ONCE = 1000
"""What MLflow takes in one batch."""
_DIGEST = 36
"""Characters of a digest that MLflow keeps."""


class Runs:
    """The runs in this workspace's experiments."""

    def __init__(
        self,
        connection: Connection,
        own: OwnExperiment,
        versions: Versions,
    ) -> None:
        """`versions`: a run is not destroyed while a version of it is there, under whatever
        name."""
        self._connection, self._own, self._versions = connection, own, versions
        self._client = connection.client

    def start_training(self, params: Mapping[str, object]) -> str:
        """A parent run for one training; returns its id."""
        with self._connection.guarded():
            run = self._client.create_run(
                self._own.number(), run_name="train", tags={KIND_TAG: "training"}
            )
            for key, value in params.items():
                self._client.log_param(run.info.run_id, key, value)
            return str(run.info.run_id)

    def log_stage(
        self,
        parent: str,
        key: str,
        name: str,
        params: Mapping[str, object],
        metrics: Mapping[str, float | None],
        losses: Sequence[float] = (),
        slices: Mapping[str, str] | None = None,
    ) -> str:
        """One run for one stage, under the parent, so that its history can be destroyed with it.
        `losses`: of each step; `slices`: digests of what it saw, by name."""
        from mlflow.entities import Metric, Param

        with self._connection.guarded():
            run = self._client.create_run(
                self._own.number(),
                run_name=name,
                tags={
                    _PARENT_TAG: parent,
                    KIND_TAG: "stage",
                    STAGE_TAG: key,
                },
            )
            now = int(time.time() * 1000)
            self._client.log_batch(
                run.info.run_id,
                [Metric(k, v, now, 0) for k, v in metrics.items() if v is not None],
                [Param(k, str(v)) for k, v in params.items()],
            )
            self._log_curve(run.info.run_id, _STEP_LOSS, losses, now)
            if slices:
                self._client.log_inputs(run.info.run_id, [_input(*each) for each in slices.items()])
            self._client.set_terminated(run.info.run_id)
            return str(run.info.run_id)

    def curves(self, run: "Run") -> dict[str, list[float]]:
        """The values of a run's metrics of several points, from the first on."""
        found = {}
        for name in run.data.metrics.keys() & set(_CURVES):
            with self._connection.guarded():
                points = self._client.get_metric_history(run.info.run_id, name)
            found[name] = [point.value for point in sorted(points, key=lambda point: point.step)]
        return found

    def _log_curve(
        self,
        run_id: str,
        name: str,
        values: Sequence[float],
        time: int,
    ) -> None:
        from mlflow.entities import Metric

        for begin in range(0, len(values), _METRICS_AT_ONCE):
            part = enumerate(values[begin : begin + _METRICS_AT_ONCE], begin)
            points = [Metric(name, value, time, step) for step, value in part]
            self._client.log_batch(run_id, points)

    def finish(
        self,
        run_id: str,
        metrics: Mapping[str, float | None],
        failed: bool = False,
        live_depths: Sequence[float] = (),
    ) -> None:
        """Close a parent run. `live_depths`: of each shard of what serves, shown as a curve over
        the shards."""
        with self._connection.guarded():
            self._log_curve(run_id, "live_depth", live_depths, int(time.time() * 1000))
            for key, value in metrics.items():
                if value is not None:
                    self._client.log_metric(run_id, key, value)
            self._client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    def copy_from(self, other: "Runs", wanted: set[str]) -> dict[str, str]:
        """Copy another registry's runs of the ids `wanted`: names, tags, parameters, measurements,
        times. Those that are here already are passed over. Returns the copies' ids by theirs."""
        with self._connection.guarded():
            here = {
                run.data.tags[COPY_TAG]: run.info.run_id
                for run in self.there()
                if COPY_TAG in run.data.tags
            }
            theirs = [run for run in other.there() if run.info.run_id in wanted]
            parents_first = sorted(theirs, key=lambda run: _PARENT_TAG in run.data.tags)
            for run in parents_first:
                if run.info.run_id not in here:
                    here[run.info.run_id] = self._copy(run, here, other.curves(run))
            return {run.info.run_id: here[run.info.run_id] for run in theirs}

    def there(self) -> "list[Run]":
        """Those that are there. Raises MlflowException."""
        from mlflow.entities import ViewType

        return self._search(ViewType.ACTIVE_ONLY)

    def deleted(self) -> "list[Run]":
        """Those that somebody deleted, and whose rows are there still. Raises MlflowException."""
        from mlflow.entities import ViewType

        return self._search(ViewType.DELETED_ONLY)

    def delete(self, keep: set[str]) -> None:
        """Delete every run but those of the ids `keep`, after every version of them; one of these
        that somebody deleted is put back, since its version would go with it. Raises
        MlflowException."""
        doomed = [run.info.run_id for run in self.there() if run.info.run_id not in keep]
        trash = {run.info.run_id for run in self.deleted()}
        for run_id in sorted(trash & keep):
            self._client.restore_run(run_id)
        trash -= keep
        self._versions.delete_of_runs([*doomed, *trash])
        for run_id in doomed:
            self._client.delete_run(run_id)

    def _search(self, kind: int) -> "list[Run]":
        numbers = self._own.numbers()
        if not numbers:
            return []
        return pages(
            lambda token: self._client.search_runs(
                numbers,
                run_view_type=kind,
                page_token=token,
            )
        )

    def _copy(
        self,
        run: "Run",
        copies: Mapping[str, str],
        curves: Mapping[str, Sequence[float]],
    ) -> str:
        from mlflow.entities import Metric, Param

        info, data = run.info, run.data
        tags = {k: copies.get(v, v) if k == _PARENT_TAG else v for k, v in data.tags.items()}
        made = self._client.create_run(
            experiment_id=self._own.number(),
            start_time=info.start_time,
            tags=tags,
            run_name=info.run_name,
        ).info.run_id
        self._client.log_batch(
            made,
            [
                Metric(k, v, info.end_time or info.start_time, 0)
                for k, v in data.metrics.items()
                if k not in _CURVES
            ],
            [Param(k, v) for k, v in data.params.items()],
        )
        for name, values in curves.items():
            self._log_curve(made, name, values, info.end_time or info.start_time)
        if run.inputs and run.inputs.dataset_inputs:
            self._client.log_inputs(made, run.inputs.dataset_inputs)
        self._client.set_terminated(
            made,
            info.status,
            info.end_time,
        )
        self._client.set_tag(made, COPY_TAG, info.run_id)  # last: a copy without it is no copy
        return str(made)


def _input(name: str, digest: str) -> "DatasetInput":
    """A slice as MLflow names what a run was given."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    seen = Dataset(name, digest[:_DIGEST], "s3t", "")  # where it lies is nobody else's business
    return DatasetInput(seen, [InputTag("mlflow.data.context", "training")])
