"""Rows a and b: training all replicas, against the plain recipe and one plain LoRA fine-tune.

    python -m benchmarks.training [--rows N] [--shards m] [--slices L] [--budget B] [--epochs E] [--dir DIR]
"""

import argparse
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.bed import Bed, bench_config
from benchmarks.plain import PlainJob
from s3t_core.canonical import sha256_hex
from s3t_core.domain import Release, Replica
from s3t_core.learning.ensemble import Ensemble


def main() -> None:
    """Train each way, print one JSON document."""
    parser = argparse.ArgumentParser(prog="benchmarks.training", description=__doc__)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--slices", type=int, default=3)
    parser.add_argument("--budget", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--dir", default=".bench/training")
    parser.add_argument("--only", default="ours,plain,joint")
    given = parser.parse_args()
    folder = Path(given.dir).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    bed = Bed(folder, bench_config(given.shards, given.slices, given.budget, epochs=given.epochs), given.rows)
    sys.stdout.write(json.dumps(compare(bed, set(given.only.split(","))), indent=1) + "\n")


def compare(bed: Bed, only: set[str]) -> dict[str, Any]:
    """Seconds and held-out accuracy of each way, and the ratios."""
    told: dict[str, Any] = {"rows": bed.dataset.rows(), "held_out": len(bed.held_out),
                            "stages": len(bed.plan.stages)}
    if "ours" in only:
        told["ours"] = {"seconds": bed.train(), "accuracy": bed.accuracy(bed.release())}
    if "plain" in only:
        told["plain"] = run_plain(bed, "stages") | {"accuracy": _plain_accuracy(bed)}
        if "ours" in only:
            told["a: ours / plain recipe"] = told["ours"]["seconds"] / told["plain"]["seconds"]
    if "joint" in only:
        told["joint"] = run_plain(bed, "joint")
        if "ours" in only:
            told["b: ours / one plain LoRA fine-tune"] = told["ours"]["seconds"] / told["joint"]["seconds"]
    return told


def run_plain(bed: Bed, what: str, threads: int = 2) -> dict[str, Any]:
    """The plain recipe in a process of its own, on `threads` threads."""
    folder = bed.folder / "plain"
    folder.mkdir(exist_ok=True)
    chosen = [(s, sorted(r for part in bed.rows_of(s.shard, s.prefix) for r in part)) for s in bed.plan.stages]
    rows = sorted(r for s in bed.topology.slice_ids() for part in bed.rows_of(s.shard, (s.index,)) for r in part)
    (folder / "job.pickle").write_bytes(pickle.dumps(PlainJob(bed.recipe, chosen, rows, bed.held_out)))
    done = subprocess.run([sys.executable, "-m", "benchmarks.plain", str(folder), what, str(threads)],
                          env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the plain recipe failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _plain_accuracy(bed: Bed) -> float | None:
    """Of the ensemble that the plain recipe's stages make."""
    from s3t_core.learning.backbone import find_backbone
    artifacts = {s.key: (bed.folder / "plain" / f"{s.key}.safetensors").read_bytes() for s in bed.plan.stages}
    specs, by_digest = {s.key: s for s in bed.plan.stages}, {sha256_hex(v): v for v in artifacts.values()}
    release = Release("release-plain", "", tuple(
        Replica(r.shard, r.number, r.sequence, tuple(
            specs[k].record(sha256_hex(artifacts[k])) for k in r.keys if k)) for r in bed.plan.replicas))
    return Ensemble(find_backbone(bed.recipe.model), bed.recipe, release, by_digest.__getitem__).accuracy(bed.held_out)


if __name__ == "__main__":
    main()
