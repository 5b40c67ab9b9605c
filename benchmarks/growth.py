"""Row f: what grows by 10, and by how much the cost grows with it.

    python -m benchmarks.growth --dir DIR [--only training,registering,erasing,planning]

Every line says how much the cost grew for ten times the named quantity, and fails its reach where
that is more than linear (10, and a quarter for noise), or, for what should not depend on it, more
than 2 (these are milliseconds).
"""

import argparse
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.bed import KEY, Bed, bench_config
from benchmarks.erase import erase_timed, workspace_of_subjects
from benchmarks.report import Line, at_most, middle, tell, timed
from flows.use_cases.planning import Question, plan
from flows.use_cases.status import status_of
from flows.use_cases.taking import take_requests
from flows.workspace import access, stores
from flows.workspace.creating import create_workspace
from s3t_core.config import Config
from s3t_core.domain import Release, Replica, StageRecord

LINEAR, FLAT = 12.5, 2.0
_STAGE_BYTES = 75_000


def main() -> None:
    """Measure."""
    parts: dict[str, Callable[[Path], list[Line]]] = {
        "training": training,
        "registering": registering,
        "erasing": erasing,
        "planning": planning,
    }
    options = argparse.ArgumentParser(
        prog="benchmarks.growth", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("--dir", default=".bench/growth")
    options.add_argument("--only", default=",".join(parts))
    given = options.parse_args()
    root = Path(given.dir).resolve()
    shutil.rmtree(root, ignore_errors=True)
    tell([line for name in given.only.split(",") for line in parts[name](root / name)])


def _grew(
    what: str, quantity: str, small: float, large: float, limit: float, unit: str = "s"
) -> Line:
    return at_most(
        "f",
        f"{what}, 10 x {quantity}",
        large / max(small, 1e-9),
        limit,
        detail=f"{small:.3g} to {large:.3g} {unit}",
    )


# --- training


def training(folder: Path) -> list[Line]:
    """Real stages on MiniLM, an epoch each."""

    def run(name: str, shards: int, slices: int, budget: int, rows: int) -> tuple[float, int]:
        bed = Bed(folder / name, bench_config(shards, slices, budget, epochs=1), rows)
        return bed.train(), len(bed.plan.stages)

    few, _ = run("records", 1, 2, 1, 85)
    many, _ = run("records-10", 1, 2, 1, 853)
    one, _ = run("shards-1", 1, 2, 1, 426)
    ten, _ = run("shards-10", 10, 2, 1, 426)
    single, stages = run("budget-1", 1, 5, 1, 85)
    tenfold, more = run("budget-10", 1, 5, 10, 85)
    return [
        _grew("training", "records", few, many, LINEAR),
        _grew("training the same records in", "shards", one, ten, LINEAR),
        _grew(f"training ({stages} to {more} stages)", "sequences", single, tenfold, LINEAR),
    ]


# --- registering


def registering(folder: Path) -> list[Line]:
    """A version of m shards registered, then the version after one shard lost a stage; stage files
    of a real size."""
    seconds, disk = {}, {}
    for shards in (3, 30):
        place = create_workspace(
            folder / f"m{shards}",
            Config.model_validate({"data": {"labels": ["0", "1"]}, "system": {"shards": shards}}),
            KEY,
        )
        full = _release(place, shards, 3)
        with access.changing(place) as held:
            stores.pin_settings(place, held)
        place.registry.publish(_named(full, "release-first"), {}, {})
        before = _bytes(place.state_dir / "mlartifacts")
        lost = [
            Release(
                "",
                "",
                (
                    Replica(0, 0, (0, 1, 2), full.replicas[0].stages[: 1 + n % 2]),
                    *full.replicas[1:],
                ),
            )
            for n in range(3)
        ]
        seconds[shards] = middle(
            3,
            lambda n, p=place, v=lost: p.registry.publish(  # type: ignore[misc]
                _named(v[n], f"release-{n}"), {}, {}
            ),
        )
        disk[shards] = (_bytes(place.state_dir / "mlartifacts") - before) / 3
    return [
        _grew("registering after an erasure", "shards", seconds[3], seconds[30], LINEAR),
        _grew(
            "disk of the version after an erasure",
            "shards",
            disk[3] / 1024,
            disk[30] / 1024,
            LINEAR,
            "KiB",
        ),
    ]


def _release(place: Any, shards: int, depth: int) -> Release:
    replicas = []
    for shard in range(shards):
        stages = []
        for position in range(1, depth + 1):
            name = f"{shard} {position}"
            data = hashlib.shake_256(name.encode()).digest(_STAGE_BYTES)
            key = hashlib.sha256(name.encode()).hexdigest()
            stages.append(
                StageRecord(
                    key,
                    place.store.put(key, data),
                    shard,
                    tuple(range(position)),
                    ("",) * position,
                    "",
                )
            )
        replicas.append(Replica(shard, 0, tuple(range(depth)), tuple(stages)))
    return Release("", "", tuple(replicas))


def _named(release: Release, name: str) -> Release:
    return replace(release, release_id=name)


def _bytes(folder: Path) -> int:
    """Bytes on disk; a file that stands under several names counts once."""
    found = {
        (s.st_dev, s.st_ino): s.st_size
        for s in (p.stat() for p in folder.rglob("*") if p.is_file())
    }
    return sum(found.values())


# --- erasing, taking requests, status


def erasing(folder: Path) -> list[Line]:
    """The eraser on real stores, without a model; then `status`."""
    cost = {
        (subjects, requests): _erased(folder / f"{subjects}-{requests}", subjects, requests)
        for subjects, requests in ((3_000, 100), (30_000, 100), (30_000, 1_000))
    }
    few, subjects, requests = cost.values()
    lines = []
    for name in ("take", "plan", "beyond rewriting", "rewrite", "status", "status after"):
        lines.append(
            _grew(
                _ERASING[name],
                "records",
                few[name],
                subjects[name],
                FLAT if name in ("take", "status", "status after") else LINEAR,
            )
        )
        lines.append(_grew(_ERASING[name], "requests", subjects[name], requests[name], LINEAR))
    return lines


_ERASING = {
    "take": "taking requests",
    "plan": "planning the erasure",
    "beyond rewriting": "erasing beyond rewriting",
    "rewrite": "rewriting slices",
    "status": "`status`, requests pending",
    "status after": "`status`, requests certified",
}


def _erased(folder: Path, subjects: int, requests: int) -> dict[str, float]:
    place = workspace_of_subjects(folder, subjects)
    asking = [f"subject-{n * (subjects // requests):07d}" for n in range(requests)]
    told = {
        "take": timed(lambda: take_requests(place, asking)),
        "status": middle(3, lambda _: status_of(place)),
    }
    told |= erase_timed(place)
    told["beyond rewriting"] = sum(
        told[s] for s in ("plan", "cut over", "destroy", "measure", "scan", "certify")
    )
    return told | {"status after": middle(3, lambda _: status_of(place))}


# --- planning a layout


def planning(folder: Path) -> list[Line]:
    """`s3t plan`, before any training."""
    del folder

    def run(shards: int, slices: int, budget: int, records: int = 1000) -> float:
        question = Question((shards,), (slices,), (budget,), records=records)
        return middle(3, lambda _: plan(question, Config()))

    run(3, 4, 4)
    base, few = run(3, 4, 4), run(3, 4, 2)
    return [
        _grew("`s3t plan`", "shards", base, run(30, 4, 4), LINEAR),
        _grew("`s3t plan`", "slices", base, run(3, 40, 4), LINEAR),
        _grew("`s3t plan`", "sequences", few, run(3, 4, 20), LINEAR),
        _grew("`s3t plan`", "records", base, run(3, 4, 4, 10_000), FLAT),
    ]


if __name__ == "__main__":
    main()
