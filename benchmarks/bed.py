"""What the benchmarks share: a fixed sample of real text, placed as the system places it, and the stages of a plan.

Rows are rotten-tomatoes reviews, each its own subject, placed by a published key. A tuning part (a fifth of the
training subjects) is left to whoever chooses settings; the held-out part is only ever reported.
"""

import hashlib
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from flows.adapters.runner import ProcessRunner
from flows.examples import rows
from s3t_core.capacity.sequences import cyclic_sequences
from s3t_core.config import Config
from s3t_core.domain import DatasetVersion, Release, Replica, Sequence, SliceVersion, Topology
from s3t_core.keys import WorkspaceKeys
from s3t_core.learning.activation_store import ActivationStore
from s3t_core.learning.jobs import DescribeJob, FileRef, StageJob
from s3t_core.learning.recipe import Recipe, StageSpec, Wanted, make_recipe, wanted
from s3t_core.learning.store import LocalStageStore
from s3t_core.records import Row, slice_digest
from s3t_core.slicefile import HELD_OUT_PATH, read_rows, slice_path
from s3t_core.snapshot import SnapshotBuilder, SourceRow

KEYS = WorkspaceKeys.derive(hashlib.sha256(b"s3t: the benchmarks' key").digest())
HELD_OUT = 0.2
_REVIEWS = 8530


def bench_config(shards: int, slices: int, budget: int, **training: Any) -> Config:
    """MiniLM on reviews. `training`: what differs from the defaults."""
    return Config.model_validate({
        "data": {"labels": ["0", "1"], "held_out": HELD_OUT},
        "system": {"shards": shards, "slices": slices, "budget": budget},
        "backbone": {"model": "minilm", "max_length": 64}, "training": training})


@dataclass
class Bed:
    """A sample of `limit` rows (None: all) in slice files under `folder`, and a store for the stages of a config."""

    folder: Path
    config: Config
    limit: int | None = None
    workers: int = 2
    kept: int = 2**31
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        system = self.config.system
        self.topology = Topology(system.shards, system.slices, system.budget)
        self.data = self.folder / "data"
        spool = self.folder / "spool"
        spool.mkdir(parents=True, exist_ok=True)
        builder = SnapshotBuilder(KEYS, self.topology, HELD_OUT, spool, set(), set())
        for number, row in enumerate(rows("rotten-tomatoes")):
            if self.limit is None or number % (_REVIEWS // self.limit or 1) == 0:
                builder.add(SourceRow(number, row["subject"], "", row["text"], row["label"], row["subject"], None))
        list(builder.write(self.data, lambda _: []))
        shutil.rmtree(spool)
        self.dataset = DatasetVersion("", system.shards, system.slices, {
            s: _describe(self.data / slice_path(s.shard, s.index)) for s in self.topology.slice_ids()},
            _describe(self.data / HELD_OUT_PATH))
        self.held_out = sorted(read_rows(self.data / HELD_OUT_PATH))
        self.store = LocalStageStore(self.folder / "stages", KEYS.content)
        self.runner = ProcessRunner()

    @cached_property
    def recipe(self) -> Recipe:
        """On the backbone as it is here."""
        found = self.runner.describe(DescribeJob(self.config.backbone.model, self.config.training.threads))
        return make_recipe(self.config, self.config.backbone.model, found.digest, found.tokenizer_digest, found.layers,
                           found.profile)

    @cached_property
    def plan(self) -> Wanted:
        """Every replica."""
        system = self.config.system
        return wanted(self.recipe, cyclic_sequences(system.slices, system.budget), self.dataset)

    def rows_of(self, shard: int, prefix: Sequence) -> list[list[Row]]:
        """The rows of slices, by slice."""
        return [sorted(read_rows(self.data / slice_path(shard, s))) for s in prefix]

    def train(self, specs: Iterable[StageSpec] | None = None) -> float:
        """Train stages with the system's own jobs, `workers` at a time; seconds. The activation store starts cold."""
        store = ActivationStore(self.folder / "activations", KEYS.content, self.kept)
        store.allow(())
        store.allow({v.digest for v in self.dataset.files()})
        chosen = list(self.plan.stages if specs is None else specs)
        self.runner.describe(DescribeJob(self.config.backbone.model, self.config.training.threads))  # imports are done
        begun = time.monotonic()
        for length in sorted({len(s.prefix) for s in chosen}):
            with ThreadPoolExecutor(self.workers) as pool:
                list(pool.map(lambda s: self._train(s, store), [s for s in chosen if len(s.prefix) == length]))
        return time.monotonic() - begun

    def _train(self, spec: StageSpec, activations: ActivationStore) -> None:
        begun = time.monotonic()
        bound = self.store.bindings()
        outcome = self.runner.train(self.job(spec, tuple(bound[k] if k else None for k in spec.earlier), activations))
        self.store.put(spec.key, outcome.artifact)
        self.seconds[spec.key] = time.monotonic() - begun

    def job(self, spec: StageSpec, earlier: tuple[str | None, ...],
            activations: ActivationStore | None = None) -> StageJob:
        """What trains a stage."""
        files = tuple(FileRef(self.data / slice_path(spec.shard, s), d)
                      for s, d in zip(spec.prefix, spec.slice_digests, strict=True))
        held_out = FileRef(self.data / HELD_OUT_PATH, self.dataset.held_out.digest)
        return StageJob(self.recipe, spec, files, earlier, held_out, self.store.root, KEYS, activations)

    def release(self, silenced: frozenset[Any] = frozenset()) -> Release:
        """What is live when some slices are silenced."""
        bound, specs = self.store.bindings(), {s.key: s for s in self.plan.stages}
        replicas = []
        for wanted_replica in self.plan.replicas:
            stages = []
            for position, key in enumerate(wanted_replica.keys):
                if key is None or (wanted_replica.shard, wanted_replica.sequence[position]) in silenced:
                    break
                stages.append(specs[key].record(bound[key]))
            replicas.append(Replica(wanted_replica.shard, wanted_replica.number, wanted_replica.sequence,
                                    tuple(stages)))
        return Release("release-bench", "", tuple(replicas))

    def accuracy(self, release: Release) -> float | None:
        """On the held-out rows, 0 to 1."""
        from s3t_core.learning.backbone import find_backbone
        from s3t_core.learning.ensemble import Ensemble
        return Ensemble(find_backbone(self.recipe.model), self.recipe, release, self.store.get).accuracy(self.held_out)


def _describe(path: Path) -> SliceVersion:
    found = read_rows(path)
    return SliceVersion(slice_digest(KEYS, found), len(found), "")
