"""Row g: ingest of generated rows; rows a second, and the peak of memory.

    python -m benchmarks.ingesting --dir DIR [--rows N] [--only {validated,plain}]

`validated`: the flow's own work, from the file to a version of the data (Great Expectations loaded
and run, DVC, ledger). `plain`: the same reading, placing and writing of slice files without
expectations and versions; the system has no such mode, the line tells what validation costs.
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.bed import KEY
from benchmarks.report import at_least, at_most, tell
from flows.adapters.processes import mapping
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.snapshot import SnapshotBuilder, SourceRow

_ROWS_PER_SUBJECT = 4
_MOST_MIB = 1536
_WORDS = [f"word{i}" for i in range(5000)]


def main() -> None:
    """Each way in a process of its own, for its peak of memory."""
    options = argparse.ArgumentParser(
        prog="benchmarks.ingesting",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    options.add_argument("--dir", default=".bench/ingest")
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--only", choices=("validated", "plain"))
    given = options.parse_args()
    folder = Path(given.dir).resolve()
    source = folder / "generated.csv"
    if given.only:
        seconds = {"validated": _validated, "plain": _plain}[given.only](
            folder / given.only, source
        )
        sys.stdout.write(
            "\n"
            + json.dumps(
                {
                    "seconds": seconds,
                    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                }
            )
            + "\n"
        )
        return
    shutil.rmtree(folder, ignore_errors=True)
    _generate(source, given.rows)
    found = {}
    for way in ("plain", "validated"):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.ingesting", "--dir", str(folder), "--only", way],
            capture_output=True,
            text=True,
            check=True,
        )
        found[way] = json.loads(done.stdout.splitlines()[-1])
    source.unlink()
    size = f"{given.rows:,} rows in {{:.0f}} s"
    tell(
        [
            at_least(
                "g",
                "ingest without validation",
                given.rows / found["plain"]["seconds"],
                100_000,
                "rows/s",
                size.format(found["plain"]["seconds"]),
            ),
            at_least(
                "g",
                "ingest with validation, to a version",
                given.rows / found["validated"]["seconds"],
                30_000,
                "rows/s",
                size.format(found["validated"]["seconds"]),
            ),
            at_most(
                "g", "memory with validation", found["validated"]["peak_mib"], _MOST_MIB, "MiB"
            ),
        ]
    )


def _generate(source: Path, rows: int) -> None:
    chance = random.Random(1)
    source.parent.mkdir(parents=True)
    with source.open("w") as file:
        file.write("subject,text,label\n")
        for n in range(rows):
            file.write(
                f"subject-{chance.randrange(rows // _ROWS_PER_SUBJECT):07d},"
                f"{' '.join(chance.choices(_WORDS, k=12))},{'ab'[n % 2]}\n"
            )


def _workspace(folder: Path) -> Workspace:
    return create_workspace(
        folder,
        Config.model_validate(
            {"data": {"labels": ["a", "b"], "held_out": 0.05}, "prefect": {"idle_minutes": 1}}
        ),
        KEY,
    )


def _validated(folder: Path, source: Path) -> float:
    place = _workspace(folder)
    from flows.settings import start_prefect

    start_prefect()
    from flows.prefect_flows.ingest import ingest

    begun = time.monotonic()
    ingest(str(place.root), str(source))
    return time.monotonic() - begun


def _plain(folder: Path, source: Path) -> float:
    from flows.adapters.sources import ROW, read_chunks

    place = _workspace(folder)
    spool = folder / "spool"
    spool.mkdir()
    begun = time.monotonic()
    data = place.config.data
    builder = SnapshotBuilder(place.keys, place.config.topology, data.held_out, spool)
    for chunk in read_chunks(str(source), data, 50_000):
        builder.add(
            SourceRow(row, subject, "", text, label, subject)
            for row, subject, text, label in zip(
                *(chunk[c].tolist() for c in (ROW, data.subject, data.text, data.label)),
                strict=True,
            )
        )
    with mapping(True) as each:
        for refused in builder.write(folder / "data", each=each):
            raise SystemExit(f"expected every row to be written, one was refused: {refused.reason}")
    return time.monotonic() - begun


if __name__ == "__main__":
    main()
