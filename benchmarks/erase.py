"""What one erase run costs: `make bench-erase`, or python -m benchmarks.erase [--subjects N
--requests N --dir DIR].

A workspace of N subjects with one or two records each, of whom some ask all at once; the eraser on
the real database, DVC repository, registry, scan and certificates. No model is trained: what a
version costs to cut over and to destroy does not grow with requests (tests/flows/test_costs.py has
one request against a trained model).

Prints one JSON document: seconds of each step, and the peak of memory.
"""

import argparse
import json
import random
import resource
import shutil
import sys
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from flows.use_cases.taking import take_requests
from flows.workspace import access
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.vocabulary import STEPS

WORDS = [f"word{i}" for i in range(5000)]


def main() -> None:
    """Make the workspace, ask, erase, tell."""
    parser = argparse.ArgumentParser(prog="benchmarks.erase")
    parser.add_argument("--subjects", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--dir", default=".bench-erase")
    given = parser.parse_args()
    folder = Path(given.dir).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    place, told = workspace_of_subjects(folder, given.subjects), {}
    asking = [
        f"subject-{n:07d}" for n in random.Random(0).sample(range(given.subjects), given.requests)
    ]
    told["take"] = _timed(lambda: take_requests(place, asking))
    told |= erase_timed(place)
    told["beyond rewriting"] = round(sum(told[s] for s in ("plan", *STEPS)) - told["rewrite"], 2)
    told["verified"] = _timed(lambda: _check(place, given.requests))
    told["peak MiB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    sys.stdout.write(json.dumps(told, indent=1) + "\n")


def erase_timed(place: Workspace) -> dict[str, float]:
    """Seconds of each step of one erase run."""
    with access.changing(place) as held:
        begun = time.monotonic()
        eraser = Eraser(
            erase_ports(place, held), erase_policy(place), lambda: f"plan-{uuid.uuid4().hex[:16]}"
        )
        told = {"start": round(time.monotonic() - begun, 2)}
        begun = time.monotonic()
        plan: Any = eraser.plan()
        told["plan"] = round(time.monotonic() - begun, 2)
        for step in STEPS:
            told[step] = _timed(partial(eraser.run_step, step, plan))
        place.signing.write_checkpoint()
    return told


def workspace_of_subjects(folder: Path, subjects: int) -> Workspace:
    """`subjects` people with one or two records each, ingested by the real flow; no model."""
    config = Config.model_validate(
        {
            "data": {"labels": ["a", "b"]},
            "erasure": {"staleness_seconds": 0},
            "prefect": {"idle_minutes": 1},
        }
    )
    place = create_workspace(folder, config, b"\x09" * 32)
    chance = random.Random(1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    source = folder.with_name(folder.name + ".jsonl")
    with source.open("w") as file:
        for n in range(subjects):
            for _ in range(chance.choice((1, 2))):
                text = " ".join(chance.choices(WORDS, k=12))
                file.write(
                    json.dumps({"subject": f"subject-{n:07d}", "text": text, "label": "ab"[n % 2]})
                    + "\n"
                )
    from flows.prefect_flows.ingest import ingest
    from flows.settings import start_prefect

    start_prefect()
    ingest(str(folder), str(source))
    source.unlink()
    return place


def _check(place: Workspace, requests: int) -> None:
    from flows.use_cases.verifying import verify_path

    found = verify_path(place.certificates_dir, place.keys_dir / "signing.pub")
    assert found["valid"] and len(found["certificates"]) == requests


def _timed(work: Any) -> float:
    begun = time.monotonic()
    work()
    return round(time.monotonic() - begun, 2)


if __name__ == "__main__":
    main()
