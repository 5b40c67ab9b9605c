"""What the benchmarks share: a fixed sample of real text, placed as the system places it, and the
stages of a plan.

Rows are rotten-tomatoes reviews, each its own subject, placed by a published key. A tuning part (a
fifth of the training subjects) is left to whoever chooses settings; the held-out part is only ever
reported.
"""

import argparse
import hashlib
import shutil
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flows.adapters.runner import ProcessRunner
from flows.examples import rows
from s3t_core.capacity.sequences import cyclic_sequences
from s3t_core.config import Config
from s3t_core.domain import (
    Combine,
    DatasetVersion,
    Release,
    Replica,
    Sequence,
    SliceId,
    SliceVersion,
    Topology,
)
from s3t_core.keys import WorkspaceKeys
from s3t_core.learning.activation_store import ActivationStore
from s3t_core.learning.jobs import DescribeJob, FileRef, StageJob
from s3t_core.learning.recipe import Recipe, StageSpec, Wanted, make_recipe, wanted
from s3t_core.learning.store import LocalStageStore
from s3t_core.records import Row, slice_digest
from s3t_core.slicefile import HELD_OUT_PATH, read_rows, slice_path
from s3t_core.snapshot import SnapshotBuilder, SourceRow

if TYPE_CHECKING:
    from s3t_core.learning.ensemble import Ensemble

KEY = hashlib.sha256(b"s3t: the benchmarks' key; it protects nobody").digest()
KEYS = WorkspaceKeys.derive(KEY)
HELD_OUT = 0.2
_REVIEWS = 8530


def sample(limit: int | None) -> list[dict[str, str]]:
    """About `limit` reviews, evenly spread; None: all of them."""
    return [
        r
        for n, r in enumerate(rows("rotten-tomatoes"))
        if limit is None or n % (_REVIEWS // limit or 1) == 0
    ]


def bench_config(
    shards: int,
    slices: int,
    budget: int,
    adapter: Mapping[str, Any] = MappingProxyType({}),
    **training: Any,
) -> Config:
    """MiniLM on reviews. `adapter`, `training`: what differs from the defaults."""
    return Config.model_validate(
        {
            "data": {"labels": ["0", "1"], "held_out": HELD_OUT},
            "system": {"shards": shards, "slices": slices, "budget": budget},
            "backbone": {"model": "minilm", "max_length": 64},
            "adapter": dict(adapter),
            "training": training,
        }
    )


@dataclass
class Bed:
    """A sample of `limit` rows (None: all) in slice files under `folder`, and a store for the
    stages of a config."""

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
        builder = SnapshotBuilder(KEYS, self.topology, HELD_OUT, spool)
        builder.add(
            SourceRow(number, row["subject"], "", row["text"], row["label"], row["subject"])
            for number, row in enumerate(sample(self.limit), 1)
        )
        list(builder.write(self.data))
        shutil.rmtree(spool)
        self.dataset = DatasetVersion(
            "",
            system.shards,
            system.slices,
            {
                s: _describe(self.data / slice_path(s.shard, s.index))
                for s in self.topology.slice_ids()
            },
            _describe(self.data / HELD_OUT_PATH),
        )
        self.held_out = sorted(read_rows(self.data / HELD_OUT_PATH))
        self.store = LocalStageStore(self.folder / "stages", KEYS.content)
        self.runner = ProcessRunner()

    @cached_property
    def recipe(self) -> Recipe:
        """On the backbone as it is here."""
        found = self.runner.describe(
            DescribeJob(self.config.backbone.model, self.config.training.threads)
        )
        return make_recipe(
            self.config,
            self.config.backbone.model,
            found.digest,
            found.tokenizer_digest,
            found.layers,
            found.profile,
        )

    @cached_property
    def plan(self) -> Wanted:
        """Every replica."""
        system = self.config.system
        return wanted(self.recipe, cyclic_sequences(system.slices, system.budget), self.dataset)

    def rows_of(self, shard: int, prefix: Sequence) -> list[list[Row]]:
        """The rows of slices, by slice."""
        return [sorted(read_rows(self.data / slice_path(shard, s))) for s in prefix]

    def train(self, specs: Iterable[StageSpec] | None = None) -> float:
        """Train stages with the system's own jobs, each when those it builds on are there,
        `workers` at a time; seconds. The activation store starts cold."""
        store = ActivationStore(self.folder / "activations", KEYS.content, self.kept)
        store.allow(())
        store.allow({v.digest for v in self.dataset.files()})
        chosen = list(self.plan.stages if specs is None else specs)
        self.runner.describe(
            DescribeJob(self.config.backbone.model, self.config.training.threads)
        )  # imports are done
        begun = time.monotonic()
        by_key = {s.key: s for s in chosen}
        order = TopologicalSorter({s.key: [k for k in s.earlier if k in by_key] for s in chosen})
        order.prepare()
        running: dict[Future[None], str] = {}
        with ThreadPoolExecutor(self.workers) as pool:
            while order.is_active():
                running |= {
                    pool.submit(self._train, by_key[k], store): k for k in order.get_ready()
                }
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    order.done(running.pop(future))
        return time.monotonic() - begun

    def missing(self) -> list[StageSpec]:
        """Stages of the plan that are not there yet."""
        bound = self.store.bindings()
        return [s for s in self.plan.stages if s.key not in bound]

    def _train(self, spec: StageSpec, activations: ActivationStore) -> None:
        begun = time.monotonic()
        bound = self.store.bindings()
        outcome = self.runner.train(
            self.job(spec, tuple(bound[k] if k else None for k in spec.earlier), activations)
        )
        self.store.put(spec.key, outcome.artifact)
        self.seconds[spec.key] = time.monotonic() - begun

    def job(
        self,
        spec: StageSpec,
        earlier: tuple[str | None, ...],
        activations: ActivationStore | None = None,
    ) -> StageJob:
        """What trains a stage."""
        files = tuple(
            FileRef(self.data / slice_path(spec.shard, s), d)
            for s, d in zip(spec.prefix, spec.slice_digests, strict=True)
        )
        held_out = FileRef(self.data / HELD_OUT_PATH, self.dataset.held_out.digest)
        return StageJob(self.recipe, spec, files, earlier, held_out, self.store, KEYS, activations)

    def release(self, silenced: frozenset[SliceId] = frozenset()) -> Release:
        """What is live when some slices are silenced."""
        bound, specs = self.store.bindings(), {s.key: s for s in self.plan.stages}
        replicas = []
        for wanted_replica in self.plan.replicas:
            stages = []
            for position, key in enumerate(wanted_replica.keys):
                if SliceId(wanted_replica.shard, wanted_replica.sequence[position]) in silenced:
                    break
                if key is None:
                    continue
                stages.append(specs[key].record(bound[key]))
            replicas.append(
                Replica(
                    wanted_replica.shard,
                    wanted_replica.number,
                    wanted_replica.sequence,
                    tuple(stages),
                )
            )
        return Release("release-bench", "", tuple(replicas))

    def accuracy(self, release: Release) -> float | None:
        """On the held-out rows, 0 to 1."""
        score = self.ensemble(release).score(self.held_out)
        return score.value if score else None

    def ensemble(self, release: Release, combine: Combine = "votes") -> "Ensemble":
        """The model of a release."""
        from s3t_core.learning.backbone import find_backbone
        from s3t_core.learning.ensemble import Ensemble

        return Ensemble(
            find_backbone(self.recipe.model),
            self.recipe,
            release,
            self.store.get,
            combine=combine,
        )


def _describe(path: Path) -> SliceVersion:
    found = read_rows(path)
    return SliceVersion(slice_digest(KEYS, found), len(found), "")


def parser(name: str, about: str | None) -> argparse.ArgumentParser:
    """The options of a benchmark that works on a bed."""
    options = argparse.ArgumentParser(
        prog=name, description=about, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument(
        "--dir", default=".bench/bed", help="data and stages; those that are there are used again"
    )
    options.add_argument("--rows", type=int, default=0, help="about so many reviews; 0 = all")
    options.add_argument("--shards", type=int, default=3)
    options.add_argument("--slices", type=int, default=3)
    options.add_argument("--budget", type=int, default=3)
    options.add_argument("--epochs", type=int, default=2)
    return options


def bed_of(given: argparse.Namespace) -> Bed:
    """The bed that the options describe."""
    return Bed(
        Path(given.dir).resolve(),
        bench_config(given.shards, given.slices, given.budget, epochs=given.epochs),
        given.rows or None,
    )
