"""Rows a and b: training all replicas, against the plain recipe and one plain LoRA fine-tune; and
SISA's models, which rows c and d need.

    python -m benchmarks.training --dir DIR [--rows N] [--only ours,plain,joint,sisa]
"""

import json
import os
import pickle
import subprocess
import sys
from typing import Any

from benchmarks.bed import Bed, bed_of, parser
from benchmarks.plain import PlainJob, plain_recipe
from benchmarks.report import Line, at_most, tell
from s3t_core.canonical import sha256_hex
from s3t_core.domain import Release, Replica
from s3t_core.learning.ensemble import Ensemble


def main() -> None:
    """Train each way."""
    options = parser("benchmarks.training", __doc__)
    options.add_argument("--only", default="ours,plain,joint,sisa")
    given = options.parse_args()
    tell(compare(bed_of(given), set(given.only.split(","))))


def compare(bed: Bed, only: set[str]) -> list[Line]:
    """Seconds of each way, ratios, accuracies."""
    size = f"{bed.dataset.rows()} rows, {len(bed.plan.stages)} stages"
    lines, seconds = [], dict[str, float]()
    if "ours" in only:
        seconds["ours"] = bed.train()
        lines.append(
            Line(
                "a",
                "train all replicas, ours",
                seconds["ours"],
                "s",
                f"{size}, {bed.recipe.training['dtype']}",
            )
        )
        lines.append(
            Line(
                "a",
                "held-out accuracy, ours",
                _points(bed.accuracy(bed.release())),
                "%",
                f"{len(bed.held_out)} held-out rows",
            )
        )
    if "plain" in only:
        seconds["plain"] = run_plain(bed, "stages")["seconds"]
        lines.append(
            Line(
                "a",
                "train all replicas, plain recipe",
                seconds["plain"],
                "s",
                "Trainer, one process",
            )
        )
        lines.append(
            Line("a", "held-out accuracy, plain recipe", _points(_plain_accuracy(bed)), "%")
        )
    if {"ours", "plain"} <= only:
        lines.append(at_most("a", "ours / plain recipe", seconds["ours"] / seconds["plain"], 1 / 3))
    if "joint" in only:
        seconds["joint"] = run_plain(bed, "joint")["seconds"]
        lines.append(Line("b", "one plain LoRA fine-tune on all rows", seconds["joint"], "s"))
    if {"ours", "joint"} <= only:
        lines.append(
            Line("b", "ours / one plain fine-tune", seconds["ours"] / seconds["joint"], "x")
        )
    if "sisa" in only:
        lines.append(
            Line(
                "b",
                "SISA, all shards and slices, plain recipe",
                run_plain(bed, "sisa")["seconds"],
                "s",
            )
        )
    return lines


def _points(accuracy: float | None) -> float | None:
    return None if accuracy is None else 100 * accuracy


def run_plain(bed: Bed, what: str, threads: int = 2) -> dict[str, Any]:
    """The plain recipe in a process of its own, on `threads` threads."""
    folder = bed.folder / "plain"
    folder.mkdir(exist_ok=True)
    chosen = [
        (s, sorted(r for part in bed.rows_of(s.shard, s.prefix) for r in part))
        for s in bed.plan.stages
    ]
    first = bed.plan.replicas[0].sequence
    job = PlainJob(
        plain_recipe(bed.recipe),
        chosen,
        [bed.rows_of(shard, first) for shard in range(bed.topology.shards)],
    )
    (folder / "job.pickle").write_bytes(pickle.dumps(job))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plain", str(folder), what, str(threads)],
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"the plain recipe failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _plain_accuracy(bed: Bed) -> float | None:
    """Of the ensemble that the plain recipe's stages make."""
    from s3t_core.learning.backbone import find_backbone

    artifacts = {
        s.key: (bed.folder / "plain" / f"{s.key}.safetensors").read_bytes() for s in bed.plan.stages
    }
    specs, by_digest = (
        {s.key: s for s in bed.plan.stages},
        {sha256_hex(v): v for v in artifacts.values()},
    )
    release = Release(
        "release-plain",
        "",
        tuple(
            Replica(
                r.shard,
                r.number,
                r.sequence,
                tuple(specs[k].record(sha256_hex(artifacts[k])) for k in r.keys if k),
            )
            for r in bed.plan.replicas
        ),
    )
    recipe = plain_recipe(bed.recipe)
    ensemble = Ensemble(find_backbone(recipe.model), recipe, release, by_digest.__getitem__)
    score = ensemble.score(bed.held_out)
    return score.value if score else None


if __name__ == "__main__":
    main()
