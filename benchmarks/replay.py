"""A replay of deletion requests against really trained models: `make replay` (docs/capacity.md).

On a fixed subsample of the example data, at equal m and L: every arm's stages are trained by the
same jobs as in the system, then one stream of requests, each subject at most once, is played. After
each request the model that would serve is measured on the held-out rows that are left: its
probabilities come from the trained stages, never from a formula.

- `sisa with retraining`: B = 1; after each request the tainted stages are really trained again on
  what remains
- `sisa`: B = 1, no retraining: the last clean checkpoint, until nothing is left
- `cyclic`, `bms`, `optimised`: S3T with B sequences, chosen for a uniform prior
- `optimised, tiers`: subjects of a declared tier (a synthetic column, a hash of the subject: 20% of
  subjects, who make 80% of the requests) in a slice of their own, sequences chosen for that prior

One stream is luck, so the arms that never retrain are also played over many streams: all their
accuracies come from the same trained stages. How many requests each policy takes is counted with
the system's keyed placement of the real subjects under many workspace keys, beside the simulator's
value. Stages are kept in the work directory, so an interrupted replay goes on.
"""

import argparse
import hashlib
import json
import multiprocessing
import platform
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from flows.adapters.runner import ProcessRunner
from flows.examples import example_config, rows
from s3t_core.capacity.assignment import is_held_out, place
from s3t_core.capacity.deletion_rate import Distribution, RequestStream, simulate
from s3t_core.capacity.sequences import choose_sequences
from s3t_core.config import Config, SystemConfig, TiersConfig, TrainingConfig
from s3t_core.domain import DatasetVersion, Sequence, SliceId, SliceVersion, Tiers, Topology
from s3t_core.keys import WorkspaceKeys, keyed_digest
from s3t_core.learning.jobs import DescribeJob, Description, FileRef, StageJob
from s3t_core.learning.recipe import Recipe, StageSpec, make_recipe, wanted
from s3t_core.learning.store import LocalStageStore
from s3t_core.records import slice_digest, subject_digest
from s3t_core.slicefile import HELD_OUT_PATH, read_rows, slice_path, write_rows
from s3t_core.snapshot import SnapshotBuilder, SourceRow

TOPOLOGY = Topology(2, 4, 4)
LIKELY = (0.2, 0.8)
TIERS = (1, 3)
KEYS = WorkspaceKeys.derive(hashlib.sha256(b"s3t: the replay's key").digest())
HELD_OUT, TRAINING_SHARE, MEASURED_ROWS = 0.2, 0.2, 240
STREAMS = 2000
KEYS_TRIED = 50
PLAYED_STREAMS = 200
MEAN_DEPTH_FLOOR = 2.0
ACCURACY_DROP = 0.05

SISA_RETRAIN, SISA, CYCLIC, BMS, OPTIMISED, TIERED = (
    "sisa with retraining",
    "sisa",
    "cyclic",
    "bms",
    "optimised",
    "optimised, tiers",
)


def main() -> None:
    """Train, replay, write replay.json and replay.png into the work directory, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", default=".replay", help="work directory; stages in it are re-used")
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument(
        "--share", type=float, default=TRAINING_SHARE, help="share of the training rows' subjects"
    )
    parser.add_argument("--only", default="", help="arms, comma-separated (default: all)")
    arguments = parser.parse_args()
    started = time.monotonic()
    folder = Path(arguments.dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    result = run(
        folder,
        arguments.requests,
        arguments.share,
        [a for a in arguments.only.split(",") if a] or list(_arms(0)),
    )
    result["whole_seconds"] = round(time.monotonic() - started)
    (folder / "replay.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, folder / "replay.png")
    print(table(result))


@dataclass(frozen=True)
class Arm:
    """How one arm is laid out."""

    sequences: list[Sequence]
    tiers: bool = False
    retrains: bool = False


def _arms(seed: int) -> dict[str, Arm]:
    uniform, slices, budget = (
        (1 / TOPOLOGY.slices,) * TOPOLOGY.slices,
        TOPOLOGY.slices,
        TOPOLOGY.budget,
    )
    tiered = RequestStream(likely=LIKELY, tiers=TIERS).slice_shares(slices)
    one = choose_sequences("cyclic", slices, 1)
    return {
        SISA_RETRAIN: Arm(one, retrains=True),
        SISA: Arm(one),
        CYCLIC: Arm(choose_sequences("cyclic", slices, budget)),
        BMS: Arm(choose_sequences("bms", slices, budget, uniform)),
        OPTIMISED: Arm(choose_sequences("optimised", slices, budget, uniform, seed)),
        TIERED: Arm(choose_sequences("optimised", slices, budget, tiered, seed), tiers=True),
    }


def run(
    folder: Path,
    requests: int,
    share: float,
    names: list[str],
    model: str = "minilm",
    streams: int = STREAMS,
) -> dict[str, Any]:
    """Everything. JSON values."""
    lab = Lab(folder, replay_config(model))
    chosen = {name: arm for name, arm in _arms(0).items() if name in names}
    data = {
        tiers: Data(folder / ("data-tiers" if tiers else "data"), share, tiers)
        for tiers in (False, True)
    }
    subjects = data[False].subjects
    stream = draw_stream(subjects, requests, np.random.default_rng(0))
    arms = {}
    for name, arm in chosen.items():
        print(f"{name}: training", flush=True)
        arms[name] = play(lab, arm, data[arm.tiers], stream)
        if not arm.retrains:
            arms[name]["many"] = play_many(
                lab, arm, data[arm.tiers], subjects, requests, min(streams, PLAYED_STREAMS)
            )
    lab.close()
    lasts = count_requests(chosen, subjects, streams)
    everyone = sorted({r["subject"] for r in rows("chitchat")})
    lasts_all = count_requests(chosen, everyone, streams)
    described = lab.description.profile
    return {
        "shards": TOPOLOGY.shards,
        "slices": TOPOLOGY.slices,
        "budget": TOPOLOGY.budget,
        "requests": requests,
        "training_rows": data[False].dataset.rows(),
        "subjects": len(subjects),
        "held_out_rows": len(data[False].measured),
        "tiers": list(TIERS),
        "skew": list(LIKELY),
        "streams": streams,
        "likely_subjects": sum(map(is_likely, subjects)),
        "arms": arms,
        "lasts": lasts,
        "lasts_all_subjects": lasts_all,
        "all_subjects": len(everyone),
        "commit": _commit(),
        "hardware": f"{multiprocessing.cpu_count()} cores, {described.cpu_capability}, "
        f"{platform.machine()}, torch {described.torch}",
    }


def replay_config(model: str = "minilm") -> Config:
    """The example's settings on shorter texts, float32, in the replay's shape."""
    config = example_config()
    return config.model_copy(
        update={
            "system": SystemConfig(
                name="replay",
                shards=TOPOLOGY.shards,
                slices=TOPOLOGY.slices,
                budget=TOPOLOGY.budget,
            ),
            "backbone": config.backbone.model_copy(update={"model": model, "max_length": 32}),
            "training": TrainingConfig(dtype="float32", epochs=2),
            "tiers": TiersConfig(),
        }
    )


# --- data and requests


def is_likely(subject: str) -> bool:
    """The declared synthetic tier: a hash of the subject alone."""
    return int(hashlib.sha256(f"tier:{subject}".encode()).hexdigest()[:8], 16) < LIKELY[0] * 16**8


class Data:
    """The subsample as slice files, and where each subject stands."""

    def __init__(self, folder: Path, share: float, tiered: bool) -> None:
        self.folder = folder
        tiers = (
            TiersConfig(column="tier", values=(("likely",), ("*",)), slices=TIERS)
            if tiered
            else TiersConfig()
        )
        config = replay_config().model_copy(update={"tiers": tiers})
        declared = config.placement_tiers
        spool = folder.with_name(folder.name + "-spool")
        spool.mkdir(exist_ok=True)
        builder = SnapshotBuilder(KEYS, TOPOLOGY, HELD_OUT, spool, tiers=declared)
        names: dict[str, str] = {}
        for number, row in enumerate(rows("chitchat"), 1):
            held = is_held_out(KEYS.placement, row["conversation"], HELD_OUT)
            if (
                not held
                and int.from_bytes(
                    keyed_digest(KEYS.placement, "sample", row["subject"])[:8], "big"
                )
                >= share * 2**64
            ):
                continue
            if not held:
                names[subject_digest(KEYS, row["subject"])] = row["subject"]
            tier = (
                declared.tier_of("likely" if is_likely(row["subject"]) else "other")
                if declared
                else None
            )
            builder.add(
                [
                    SourceRow(
                        number,
                        row["subject"],
                        "",
                        row["text"],
                        row["label"],
                        row["conversation"],
                        tier,
                    )
                ]
            )
        list(builder.write(folder))
        content = {
            s: _describe(folder / slice_path(s.shard, s.index)) for s in TOPOLOGY.slice_ids()
        }
        self.dataset = DatasetVersion(
            "", TOPOLOGY.shards, TOPOLOGY.slices, content, _describe(folder / HELD_OUT_PATH)
        )
        self.place = {
            names[r.subject]: s
            for s in TOPOLOGY.slice_ids()
            for r in read_rows(folder / slice_path(s.shard, s.index))
        }
        self.subjects = sorted(self.place)
        measured = sorted(read_rows(folder / HELD_OUT_PATH))[:MEASURED_ROWS]
        self.measured = [(r.subject, r.text, r.label) for r in measured]


def _describe(path: Path) -> SliceVersion:
    found = read_rows(path)
    return SliceVersion(slice_digest(KEYS, found), len(found), "")


def draw_stream(subjects: list[str], requests: int, rng: np.random.Generator) -> list[str]:
    """The first `requests` of an exponential race: each subject asks once, the likely ones
    sooner."""
    likely = np.array([is_likely(s) for s in subjects])
    rate = np.where(likely, LIKELY[1] / likely.sum(), (1 - LIKELY[1]) / (~likely).sum())
    order = np.argsort(rng.standard_exponential(len(subjects)) / rate)
    return [subjects[i] for i in order[:requests]]


# --- training and measuring


class Lab:
    """Trains stages that are missing and remembers their seconds and their probabilities."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder = folder
        self.store = LocalStageStore(folder / "stages", b"replay")
        self._runner = ProcessRunner()
        self.description: Description = self._runner.describe(DescribeJob(config.backbone.model, 1))
        found = self.description
        self.recipe: Recipe = make_recipe(
            config,
            config.backbone.model,
            found.digest,
            found.tokenizer_digest,
            found.layers,
            found.profile,
        )
        self._seconds_path = folder / "seconds.json"
        self.seconds: dict[str, float] = (
            json.loads(self._seconds_path.read_text()) if self._seconds_path.exists() else {}
        )
        self._pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver"))
        empty = folder / "empty.parquet"
        write_rows(empty, [])
        self._nothing = FileRef(empty, slice_digest(KEYS, []))

    def close(self) -> None:
        """Stop the measuring processes."""
        self._pool.shutdown()

    def train(self, specs: list[StageSpec], folder: Path) -> None:
        """Train what is missing, two at a time, those that others build on first."""
        bound = self.store.bindings()
        missing = [s for s in specs if s.key not in bound or s.key not in self.seconds]
        for length in sorted({len(s.prefix) for s in missing}):
            with ThreadPoolExecutor(2) as pool:
                list(
                    pool.map(
                        lambda s: self._train(s, folder),
                        [s for s in missing if len(s.prefix) == length],
                    )
                )

    def _train(self, spec: StageSpec, folder: Path) -> None:
        bound = self.store.bindings()
        files = tuple(
            FileRef(folder / slice_path(spec.shard, s), d)
            for s, d in zip(spec.prefix, spec.slice_digests, strict=True)
        )
        started = time.monotonic()
        outcome = self._runner.train(
            StageJob(
                self.recipe,
                spec,
                files,
                tuple(bound[k] if k else None for k in spec.earlier),
                self._nothing,
                self.store,
                KEYS,
            )
        )
        self.store.put(spec.key, outcome.artifact)
        self.seconds[spec.key] = time.monotonic() - started
        self._seconds_path.write_text(json.dumps(self.seconds))

    def probabilities(
        self, chains: list[tuple[str, ...]], texts: list[str]
    ) -> dict[tuple[str, ...], Any]:
        """[text, label] per chain of stage keys (top block first), kept beside the stages."""
        bound = self.store.bindings()
        name = {c: self.folder / "probabilities" / f"{c[-1]}-{len(texts)}.npy" for c in chains}
        (self.folder / "probabilities").mkdir(exist_ok=True)
        todo = [c for c in dict.fromkeys(chains) if not name[c].exists()]
        answers = self._pool.map(
            _answer,
            [(str(self.store.root), self.recipe, [bound[k] for k in c], texts) for c in todo],
        )
        for chain, found in zip(todo, answers, strict=True):
            np.save(name[chain], found)
        return {c: np.load(name[c]) for c in chains}


def _answer(job: tuple[str, Recipe, list[str], list[str]]) -> Any:
    """Probabilities of one replica at its full given depth. Runs in a process of its own."""
    import torch

    from s3t_core.learning.backbone import find_backbone, load_model
    from s3t_core.learning.encoding import load_reader
    from s3t_core.learning.replica import StagedModel

    root, recipe, digests, texts = job
    torch.set_num_threads(1)
    store, backbone = LocalStageStore(Path(root)), find_backbone(recipe.model)
    staged, reader = StagedModel(load_model(backbone), recipe), load_reader(backbone, recipe)
    names = [f"stage{block}" for block in range(1, len(digests) + 1)]
    for block, digest in enumerate(digests, 1):
        staged.load(names[block - 1], block, store.get(digest))
    staged.activate(names)
    items = reader.items(texts)
    lengths = reader.lengths(items)
    order = sorted(range(len(items)), key=lambda i: (lengths[i], i))
    found = np.zeros((len(items), len(recipe.labels)))
    with torch.inference_mode():
        for start in range(0, len(order), 32):
            chosen = order[start : start + 32]
            logits = staged.logits(names[-1], reader.batch([items[i] for i in chosen]))
            found[chosen] = torch.softmax(logits, dim=1).numpy()
    return found


# --- the replay


@dataclass
class Track:
    """What an arm did, after 0, 1, 2, ... requests."""

    accuracy: list[float | None] = field(default_factory=list)
    depths: list[list[int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    visits: list[int] = field(default_factory=list)


def play(lab: Lab, arm: Arm, data: Data, stream: list[str]) -> dict[str, Any]:
    """Train the arm, then carry out the stream request by request."""
    plan = wanted(lab.recipe, arm.sequences, data.dataset)
    lab.train(list(plan.stages), data.folder)
    trained = {s.key: s for s in plan.stages}
    track, hit, gone = Track(), set[SliceId](), set[str]()
    dataset, folder = data.dataset, data.folder
    _measure(lab, data, plan.replicas, hit, gone, track, trained)
    for number, subject in enumerate(stream, 1):
        gone.add(subject_digest(KEYS, subject))
        where = data.place[subject]
        if arm.retrains:
            dataset, folder = _without(
                dataset, folder, where, gone, lab.folder / "sisa" / str(number)
            )
            plan = wanted(lab.recipe, arm.sequences, dataset)
            lab.train(list(plan.stages), folder)
            trained |= {s.key: s for s in plan.stages}
        else:
            hit.add(where)
        _measure(lab, data, plan.replicas, hit, gone, track, trained)
    first = track.accuracy[0] or 0.0
    floor = first - ACCURACY_DROP
    return {
        **track.__dict__,
        "stages": len(trained),
        "trips": {
            "first_shard_dead": _first(track, lambda i: 0 in track.depths[i]),
            "all_shards_dead": _first(track, lambda i: not any(track.depths[i])),
            "mean_depth": _first(
                track, lambda i: float(np.mean(track.depths[i])) < MEAN_DEPTH_FLOOR
            ),
            "accuracy_floor": _first(track, lambda i: (track.accuracy[i] or 0.0) < floor),
        },
        "sequences": [list(s) for s in arm.sequences],
    }


def _first(track: Track, tripped: Any) -> int | None:
    return next((i for i in range(1, len(track.depths)) if tripped(i)), None)


def play_many(
    lab: Lab, arm: Arm, data: Data, subjects: list[str], requests: int, streams: int
) -> dict[str, Any]:
    """Over many streams: mean accuracy of what serves after each request, and the share of streams
    where nothing does."""
    plan = wanted(lab.recipe, arm.sequences, data.dataset)
    chains = {
        tuple(k for k in r.keys[:depth] if k)
        for r in plan.replicas
        for depth in range(1, len(r.keys) + 1)
    }
    found = lab.probabilities(sorted(chains), [text for _, text, _ in data.measured])
    labels = np.array([lab.recipe.labels.index(label) for _, _, label in data.measured])
    owners = [subject for subject, _, _ in data.measured]
    right: dict[tuple[Any, ...], Any] = {}
    rng = np.random.default_rng(2)
    totals, served = np.zeros(requests + 1), np.zeros(requests + 1)
    for _ in range(streams):
        hit: set[SliceId] = set()
        kept = np.ones(len(labels), dtype=bool)
        for number, subject in enumerate([None, *draw_stream(subjects, requests, rng)]):
            if subject is not None:
                hit.add(data.place[subject])
                gone = subject_digest(KEYS, subject)
                kept &= np.array([o != gone for o in owners])
            serving = tuple(keys for _, keys in _serving(plan.replicas, hit) if keys)
            if serving:
                if serving not in right:
                    right[serving] = (
                        np.mean([found[c] for c in serving], axis=0).argmax(axis=1) == labels
                    )
                totals[number] += right[serving][kept].mean()
                served[number] += 1
    return {
        "streams": streams,
        "accuracy": [
            None if not n else round(t / n, 4)
            for t, n in zip(totals.tolist(), served.tolist(), strict=True)
        ],
        "nothing_serves": (1 - served / streams).round(4).tolist(),
    }


def _serving(replicas: Any, hit: set[SliceId]) -> list[tuple[int, tuple[str, ...]]]:
    """Per shard: depth of its deepest clean replica, and the keys of its live stages."""
    answers = []
    for shard in range(TOPOLOGY.shards):
        live = []
        for replica in (r for r in replicas if r.shard == shard):
            clean = next(
                (i for i, s in enumerate(replica.sequence) if SliceId(shard, s) in hit),
                len(replica.sequence),
            )
            live.append((clean, -replica.number, tuple(k for k in replica.keys[:clean] if k)))
        depth, _, keys = max(live)
        answers.append((depth, keys))
    return answers


def _without(
    dataset: DatasetVersion, folder: Path, where: SliceId, gone: set[str], target: Path
) -> tuple[DatasetVersion, Path]:
    """The data with one slice rewritten; the other files are linked, not copied."""
    for slice_id in TOPOLOGY.slice_ids():
        path = target / slice_path(slice_id.shard, slice_id.index)
        path.parent.mkdir(parents=True, exist_ok=True)
        source = folder / slice_path(slice_id.shard, slice_id.index)
        path.unlink(missing_ok=True)
        if slice_id == where:
            write_rows(path, [r for r in read_rows(source) if r.subject not in gone])
        else:
            path.hardlink_to(source)
    content = {
        **dataset.slice_versions,
        where: _describe(target / slice_path(where.shard, where.index)),
    }
    return replace(dataset, slice_versions=content), target


def _measure(
    lab: Lab,
    data: Data,
    replicas: Any,
    hit: set[SliceId],
    gone: set[str],
    track: Track,
    trained: dict[str, StageSpec],
) -> None:
    """The version that serves: each shard's deepest clean replica, the mean of the live shards'
    probabilities."""
    serving = _serving(replicas, hit)
    track.depths.append([depth for depth, _ in serving])
    track.accuracy.append(_accuracy(lab, [keys for _, keys in serving if keys], data, gone))
    track.seconds.append(round(sum(lab.seconds[k] for k in trained), 1))
    track.visits.append(sum(len(s.prefix) for s in trained.values()))


def _accuracy(lab: Lab, chains: list[tuple[str, ...]], data: Data, gone: set[str]) -> float | None:
    kept = [i for i, (subject, _, _) in enumerate(data.measured) if subject not in gone]
    if not chains or not kept:
        return None
    found = lab.probabilities(chains, [text for _, text, _ in data.measured])
    labels = np.array([lab.recipe.labels.index(label) for _, _, label in data.measured])
    answers = np.mean([found[c] for c in chains], axis=0).argmax(axis=1)
    return float((answers == labels)[kept].mean())


# --- how long each arm lasts, over many streams


def count_requests(arms: dict[str, Arm], subjects: list[str], streams: int) -> dict[str, Any]:
    """Requests until each policy trips: with the real placement of real subjects, and in the
    simulator."""
    likely = sum(map(is_likely, subjects)) / len(subjects)
    found = {}
    for name, arm in arms.items():
        if arm.retrains:
            continue
        rng = np.random.default_rng(1)
        placements = [
            _placement(subjects, number, arm.tiers) for number in range(min(KEYS_TRIED, streams))
        ]
        real = np.array(
            [
                _played(
                    arm, placements[i % len(placements)], draw_stream(subjects, len(subjects), rng)
                )
                for i in range(streams)
            ],
            dtype=float,
        )
        stream = RequestStream(
            subjects=len(subjects),
            once=True,
            likely=(likely, LIKELY[1]),
            tiers=TIERS if arm.tiers else None,
        )
        simulated = simulate(
            replace(TOPOLOGY, budget=len(arm.sequences)), arm.sequences, stream, streams, 1
        )
        values = {
            "first_shard_dead": simulated.first_shard_dead(),
            "all_shards_dead": simulated.all_shards_dead(),
            "mean_depth": simulated.mean_depth_under(MEAN_DEPTH_FLOOR),
        }
        found[name] = {
            policy: {
                "measured": Distribution.of(real[:, i]).__dict__,
                "simulated": Distribution.of(values[policy]).__dict__,
            }
            for i, policy in enumerate(values)
        }
    return found


def _placement(subjects: list[str], number: int, tiered: bool) -> dict[str, SliceId]:
    """Where the system places the subjects under a workspace key of its own."""
    keys = WorkspaceKeys.derive(hashlib.sha256(f"s3t: the replay's key {number}".encode()).digest())
    tiers = Tiers("tier", (("likely",), ("*",)), TIERS)
    return {
        s: place(
            keys.placement,
            s,
            TOPOLOGY.shards,
            tiers.span(0 if is_likely(s) else 1) if tiered else TOPOLOGY.span(),
        )
        for s in subjects
    }


def _played(arm: Arm, where: dict[str, SliceId], stream: list[str]) -> tuple[int, int, int]:
    first_hit: dict[SliceId, int] = {}
    for number, subject in enumerate(stream, 1):
        first_hit.setdefault(where[subject], number)
    ends = []
    for shard in range(TOPOLOGY.shards):
        died = np.array(
            [[first_hit.get(SliceId(shard, s), len(stream)) for s in q] for q in arm.sequences]
        )
        ends.append(np.minimum.accumulate(died, axis=1).max(axis=0))
    every = np.array(ends)
    left = int(np.ceil(MEAN_DEPTH_FLOOR * TOPOLOGY.shards))
    return (
        int(every[:, 0].min()),
        int(every[:, 0].max()),
        int(np.sort(every, axis=None)[every.size - left]),
    )


# --- what is shown


def table(result: dict[str, Any]) -> str:
    """Markdown, as in docs/capacity.md."""
    asked = result["requests"]
    marks = sorted({0, asked // 3, 2 * asked // 3, asked})
    lines = [
        f"| arm | {' | '.join(f'accuracy after {i}' for i in marks)} | trips: first dead, mean "
        "depth, accuracy | training, s | slice-visits |",
        "|---|" + "---|" * (len(marks) + 3),
    ]
    for name, arm in result["arms"].items():
        trips = ", ".join(
            str(arm["trips"][p] or f">{asked}")
            for p in ("first_shard_dead", "mean_depth", "accuracy_floor")
        )
        lines.append(
            f"| {name} | {' | '.join(_percent(arm['accuracy'][i]) for i in marks)} | {trips} | "
            f"{arm['seconds'][-1]:.0f} | {arm['visits'][-1]} |"
        )
    lines += [
        "",
        f"| arm, mean over many streams | {' | '.join(f'accuracy after {i}' for i in marks)} | "
        f"nothing serves after {asked} |",
        "|---|" + "---|" * (len(marks) + 1),
    ]
    for name, arm in result["arms"].items():
        if "many" in arm:
            many = arm["many"]
            lines.append(
                f"| {name} | {' | '.join(_percent(many['accuracy'][i]) for i in marks)} | "
                f"{100 * many['nothing_serves'][asked]:.0f}% |"
            )
    for title, counted in (
        (f"{result['subjects']} subjects", result["lasts"]),
        (f"{result['all_subjects']} subjects", result["lasts_all_subjects"]),
    ):
        lines += [
            "",
            f"| {title}: measured / simulated | first shard dead | all shards dead | mean depth "
            "under 2 |",
            "|---|---|---|---|",
        ]
        for name, policies in counted.items():
            cells = [
                f"{p['measured']['mean']:.1f} / {p['simulated']['mean']:.1f}"
                for p in (
                    policies[k] for k in ("first_shard_dead", "all_shards_dead", "mean_depth")
                )
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{result['training_rows']} training rows of {result['subjects']} subjects "
        f"({result['likely_subjects']} likely), {result['held_out_rows']} held-out rows; "
        f"m={result['shards']} L={result['slices']} B={result['budget']}; {result['streams']} "
        f"streams; commit {result['commit']}; {result['hardware']}; "
        f"{result.get('whole_seconds', 0)} s in all.",
    ]
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "none serves" if share is None else f"{100 * share:.1f}%"


def draw(result: dict[str, Any], path: Path) -> None:
    """Accuracy over many streams, on one stream, and training seconds, against requests; an arm a
    line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 9), layout="constrained")
    many, one, seconds = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 1))
    for (name, arm), style in zip(result["arms"].items(), _styles(), strict=False):
        for axes, values in (
            (many, arm.get("many", {}).get("accuracy", [])),
            (one, arm["accuracy"]),
        ):
            points = [(i, 100 * a) for i, a in enumerate(values) if a is not None]
            if points:
                axes.step(*zip(*points, strict=True), where="post", label=name, **style)
        seconds.step(range(len(arm["seconds"])), arm["seconds"], where="post", **style)
    many.set(
        ylabel="accuracy, %",
        title="Held-out accuracy of the version that serves: mean over many streams",
    )
    one.set(ylabel="accuracy, %", title="One stream, with SISA really retrained after each request")
    seconds.set(xlabel="requests carried out", ylabel="training, s", xlim=(0, result["requests"]))
    one.legend(fontsize=8)
    for axes in (many, one, seconds):
        axes.grid(alpha=0.25)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _styles() -> Iterator[dict[str, Any]]:
    lines = ["-", "-", "-", "--", ":", "-"]
    yield from (
        {"color": f"C{i}", "linestyle": line, "linewidth": 1.8} for i, line in enumerate(lines)
    )


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
