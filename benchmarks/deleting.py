"""Row c: one erasure, from the request to the alias moved, against SISA's retraining and a full
one.

    python -m benchmarks.deleting --dir DIR [--rows N]

A workspace is made of the bed's rows by the real flows; its stages are the bed's, so nothing is
trained twice. One person of each slice asks, one after another: three erasures by the eraser alone,
three by the flow in a process where Prefect is up, three by the command `s3t erase`.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.bed import KEY, KEYS, Bed, bed_of, parser, sample
from benchmarks.plain import RETRAINED
from benchmarks.report import Line, at_least, tell, timed
from benchmarks.training import run_plain
from flows.use_cases.taking import take_requests
from flows.workspace import access
from flows.workspace.composing import erase_policy, erase_ports
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.vocabulary import STEPS
from s3t_core.records import subject_digest


def main() -> None:
    """Measure; what is not trained yet is trained."""
    bed = bed_of(parser("benchmarks.deleting", __doc__).parse_args())
    if bed.missing():
        bed.train(bed.missing())
    place = workspace_of(bed)
    asking = _one_of_each_slice(bed)
    tell(_lines(bed, place, asking))


def _lines(bed: Bed, place: Workspace, asking: Iterator[str]) -> list[Line]:
    alone = [_alone(place, next(asking)) for _ in range(3)]
    alias, whole = (median(a[i] for a in alone) for i in (0, 1))
    flow = [_by_flow(place, next(asking)) for _ in range(3)]
    command = [_by_command(place, next(asking)) for _ in range(3)]
    if not (bed.folder / "plain" / "sisa-0-0.safetensors").exists():
        run_plain(bed, "sisa")
    plain, joint = run_plain(bed, "retrain")["seconds"], run_plain(bed, "joint")["seconds"]
    engine = bed.train(
        [
            s
            for s in bed.plan.stages
            if s.shard == 0
            and len(s.prefix) > RETRAINED
            and s.prefix == bed.plan.replicas[0].sequence[: len(s.prefix)]
        ]
    )
    return [
        Line(
            "c", "one erasure, request to alias moved, without Prefect", alias, "s", "median of 3"
        ),
        Line(
            "c",
            "the same to the certificate",
            whole,
            "s",
            "rewriting, destroying, measuring, scanning, signing",
        ),
        Line(
            "c",
            "the same by the flow, Prefect up",
            median(flow),
            "s",
            "median of 3, to the certificate",
        ),
        Line(
            "c",
            "the same by the command `s3t erase`",
            median(command),
            "s",
            "median of 3, interpreter and Prefect started each time, to the certificate",
        ),
        Line(
            "c",
            "SISA retrains, plain recipe",
            plain,
            "s",
            f"from the last clean checkpoint, second of {bed.topology.slices} slices",
        ),
        at_least("c", "SISA's retraining, plain recipe / ours to the alias", plain / alias, 100),
        Line(
            "c",
            "SISA's retraining, our engine / ours to the alias",
            engine / alias,
            "x",
            f"{engine:.3g} s",
        ),
        Line(
            "c",
            "SISA's retraining, plain recipe / ours by the command",
            plain / median(command),
            "x",
        ),
        Line(
            "c",
            "full retrain (one plain LoRA) / ours to the alias",
            joint / alias,
            "x",
            f"{joint:.3g} s",
        ),
    ]


def workspace_of(bed: Bed) -> Workspace:
    """Ingested, and a version of the bed's stages registered and serving."""
    root = bed.folder.with_name(bed.folder.name + "-workspace")
    shutil.rmtree(root, ignore_errors=True)
    config = Config.model_validate(
        {
            **bed.config.model_dump(mode="json"),
            "erasure": {"staleness_seconds": 0},
            "prefect": {"idle_minutes": 1},
            "deletion_budget": {"policy": "requests", "max_requests": 1000},
        }
    )
    place = create_workspace(root, config, KEY)
    source = root.with_suffix(".jsonl")
    source.write_text("".join(json.dumps(r) + "\n" for r in sample(bed.limit)))
    from flows.settings import start_prefect

    start_prefect()
    from flows.prefect_flows.ingest import ingest
    from flows.prefect_flows.train import train

    ingest(str(root), str(source))
    source.unlink()
    shutil.copytree(bed.store.root, place.store_folder()[0], dirs_exist_ok=True)
    trained = train(str(root))
    if trained["trained"]:
        raise SystemExit(
            f"expected the workspace to take over the bed's stages, it trained {trained['trained']}"
        )
    return place


def _one_of_each_slice(bed: Bed) -> Iterator[str]:
    """A subject in training of every slice: the first slice of all shards, then the second, ..."""
    known = {subject_digest(KEYS, r["subject"]): r["subject"] for r in sample(bed.limit)}
    for index in range(bed.topology.slices):
        for shard in range(bed.topology.shards):
            yield known[bed.rows_of(shard, (index,))[0][0].subject]


def _alone(place: Workspace, subject: str) -> tuple[float, float]:
    """Seconds from the request to the alias moved, and to the certificate."""
    begun = time.monotonic()
    take_requests(place, [subject])
    with access.changing(place) as held:
        eraser = Eraser(
            erase_ports(place, held), erase_policy(place), lambda: f"plan-{uuid.uuid4().hex[:16]}"
        )
        plan = eraser.plan()
        if plan is None:
            raise SystemExit("expected something to erase")
        for step in STEPS:
            eraser.run_step(step, plan)
            if step == "cut over":
                moved = time.monotonic() - begun
        place.signing.write_checkpoint()
    return moved, time.monotonic() - begun


def _by_flow(place: Workspace, subject: str) -> float:
    from flows.prefect_flows.erase import erase

    def work() -> None:
        take_requests(place, [subject])
        erase(str(place.root))

    return timed(work)


def _by_command(place: Workspace, subject: str) -> float:
    take_requests(place, [subject])
    command = [str(Path(sys.executable).with_name("s3t")), "erase", "--workspace", str(place.root)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "DVC_"))}
    return timed(lambda: subprocess.run(command, env=environment, check=True, capture_output=True))


if __name__ == "__main__":
    main()
