"""Stages trained on a Dask cluster of separate processes: the same bytes, and a killed worker costs one stage."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.ingest import ingest
from flows.train import train
from flows.wiring import Workspace, create_workspace
from infra.cluster import cluster, with_children
from infra.stack import Stack
from s3t_core.errors import GuaranteeError, TrainingError, WorkspaceError
from s3t_core.learning.jobs import FileRef, StageJob
from s3t_core.slicefile import HELD_OUT_PATH, slice_path
from tests.flows.conftest import people, write_csv
from tests.stack.conftest import KEY

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def ingested(make_config: Callable[..., Any], tmp_path: Path) -> Callable[..., Workspace]:
    def make(address: str, name: str = "w") -> Workspace:
        config = make_config(runner={"kind": "dask", "address": address})
        place = create_workspace(tmp_path / name, config, KEY)
        ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people(canary=True))))
        return Workspace(place.root)
    return make


@pytest.fixture
def local(make_place: Callable[..., Workspace], tmp_path: Path) -> Callable[[], dict[str, str]]:
    """Key to digest of the same data's stages, trained by processes of this machine."""
    def trained() -> dict[str, str]:
        place = make_place()
        ingest(str(place.root), str(write_csv(tmp_path / "people.csv", people(canary=True))))
        train(str(place.root))
        return place.store.bindings()
    return trained


def test_a_cluster_trains_the_same_bytes_and_keeps_nothing(
        stack: Stack, ingested: Callable[..., Workspace], local: Callable[[], dict[str, str]], tmp_path: Path) -> None:
    with cluster(tmp_path / "dask") as dask:
        place = ingested(dask.address)
        assert train(str(place.root))["trained"] == 8
        assert place.store.bindings() == local()
        homes = [p for p in (tmp_path / "dask").rglob("*") if p.is_file() and p.suffix == ".parquet"]
        assert homes == []


def test_a_killed_worker_costs_its_stage_only(
        stack: Stack, ingested: Callable[..., Workspace], local: Callable[[], dict[str, str]], tmp_path: Path) -> None:
    with cluster(tmp_path / "dask") as dask:
        place = ingested(dask.address)
        import threading
        done: dict[str, Any] = {}
        training = threading.Thread(target=lambda: done.update(train(str(place.root))))
        training.start()
        until = time.monotonic() + 200
        while not place.ledger.state().stages:
            assert training.is_alive() and time.monotonic() < until
            time.sleep(0.1)
        with_children(dask.workers[0].pid)
        training.join(300)
        assert done["trained"] == 8 and place.store.bindings() == local()


def test_what_a_killed_worker_fetched_is_removed_by_the_next_on_that_machine(
        stack: Stack, ingested: Callable[..., Workspace], tmp_path: Path) -> None:
    with cluster(tmp_path / "dask", 1) as dask:
        place = ingested(dask.address)
        home = tmp_path / "dask" / "worker-0"
        dead = dask.workers[0].pid
        began = int(psutil.Process(dead).create_time())
        with_children(dead)
        left = home / f"s3t-stage-{dead}-{began}-abc"
        another = home / f"s3t-stage-{os.getpid()}-{int(psutil.Process().create_time())}-abc"  # of one that lives
        for folder in (left, another):
            folder.mkdir()
            (folder / "0.parquet").write_bytes(b"rows")
        dask.add(home="worker-0")
        train(str(place.root))
        assert not left.exists() and another.exists()


def test_a_cluster_that_dies_is_an_error_and_never_a_wait_without_end(
        stack: Stack, ingested: Callable[..., Workspace], tmp_path: Path) -> None:
    from flows.adapters.dask_runner import DaskRunner, Needs
    with cluster(tmp_path / "dask", 1) as dask:
        place = ingested(dask.address)
        runner = DaskRunner(dask.address, place.config.dvc.remote, place.datasets.object_of, Needs(1, 100, 0), 3)
        runner.describe(_describe(place))
        with_children(dask.workers[0].pid)
        with pytest.raises(TrainingError, match="no Dask worker"):
            runner.describe(_describe(place))
        with_children(dask.scheduler.pid)
        with pytest.raises((TrainingError, WorkspaceError), match="Dask"):
            runner.describe(_describe(place))


def test_a_cluster_without_what_a_task_needs_is_told_how_to_start_workers(
        stack: Stack, ingested: Callable[..., Workspace], tmp_path: Path) -> None:
    with cluster(tmp_path / "dask", 1, "CPU=1 MEMORY=16") as dask:
        place = ingested(dask.address)
        with pytest.raises(WorkspaceError, match="start workers with"):
            place.runner.describe(_describe(place))


def test_a_worker_with_another_profile_refuses(
        stack: Stack, ingested: Callable[..., Workspace], tmp_path: Path) -> None:
    from s3t_core.learning.recipe import make_recipe, wanted
    with cluster(tmp_path / "dask", 1) as dask:
        place = ingested(dask.address)
        found = place.runner.describe(_describe(place))
        other = replace(found.profile, torch="2.0")
        recipe = make_recipe(place.config, place.backbone, found.digest, found.tokenizer_digest, found.layers, other)
        state = place.ledger.state()
        assert state.dataset is not None
        spec = wanted(recipe, [(0, 1)], state.dataset).stages[0]
        file = FileRef(place.root / "data" / slice_path(spec.shard, spec.prefix[0]), spec.slice_digests[0])
        held_out = FileRef(place.root / "data" / HELD_OUT_PATH, state.dataset.held_out.digest)
        with pytest.raises(GuaranteeError, match="numeric profile"):
            place.runner.train(StageJob(recipe, spec, (file,), (), held_out, place.store, place.keys))


def _describe(place: Workspace) -> Any:
    from s3t_core.learning.jobs import DescribeJob
    return DescribeJob(place.backbone, place.config.training.threads)
