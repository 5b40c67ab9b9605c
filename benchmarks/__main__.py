"""Every row: `make bench` and `make bench-full`, or python -m benchmarks [--full] [--only a,c,e]
[--dir DIR].

Prints one table and writes benchmarks/results/DATE-COMMIT.json. Each part runs in a process of its
own, one at a time. docs/benchmarks.md says what each row means.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.report import Line, surroundings, table

ROOT = Path(__file__).parent.parent
QUICK_ROWS = 1000
_RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    """Run, tell, write."""
    options = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument(
        "--full", action="store_true", help="all reviews, and m=1 L=6 beside m=3 L=3"
    )
    options.add_argument("--only", default="a,b,c,d,e,f,g", help="rows")
    options.add_argument("--dir", default=".bench")
    options.add_argument("--results", default=str(_RESULTS))
    given = options.parse_args()
    folder = Path(given.dir).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begun = time.monotonic()
    parts = {
        name: _run(name, command, folder)
        for name, command in _commands(folder, set(given.only.split(",")), given.full).items()
    }
    lines = [line for part in parts.values() for line in part["lines"]]
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **surroundings(ROOT),
        "rows": "all" if given.full else QUICK_ROWS,
        "seconds": round(time.monotonic() - begun),
        "peak_mib": {name: part["peak_mib"] for name, part in parts.items()},
        "lines": lines,
    }
    results = Path(given.results)
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{document['date'][:10]}-{document['commit']}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(table(Line(**line) for line in lines) + "\n\n")
    sys.stdout.write(
        f"{document['hardware']}; commit {document['commit']}; {document['seconds']} s; "
        f"peak MiB of a process: {document['peak_mib']}\n"
        + ", ".join(f"{k} {v}" for k, v in document["versions"].items())
        + f"\n{path.name}\n"
    )
    if any(part["peak_mib"] is None for part in parts.values()):
        sys.exit(1)


def _commands(folder: Path, wanted: set[str], full: bool) -> dict[str, list[str]]:
    """The parts in the order in which they use each other's work."""
    bed = ["--dir", str(folder / "bed"), *([] if full else ["--rows", str(QUICK_ROWS)])]
    deep = ["--dir", str(folder / "one"), "--shards", "1", "--slices", "6", "--budget", "1"]
    parts = {
        "training": ("ab", ["benchmarks.training", *bed]),
        "deleting": ("c", ["benchmarks.deleting", *bed]),
        "silencing": ("d", ["benchmarks.silencing", *bed]),
        **({"one shard": ("d", ["benchmarks.silencing", *deep])} if full else {}),
        "serving": ("e", ["benchmarks.serving", *bed]),
        "growth": ("f", ["benchmarks.growth", "--dir", str(folder / "growth")]),
        "ingesting": ("g", ["benchmarks.ingesting", "--dir", str(folder / "ingest")]),
    }
    return {name: command for name, (rows, command) in parts.items() if wanted & set(rows)}


def _run(name: str, command: list[str], folder: Path) -> dict[str, Any]:
    sys.stderr.write(f"{name} ...\n")
    begun = time.monotonic()
    log = folder / f"{command[0]}.log"
    with log.open("a") as errors:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
        )
    if done.returncode != 0:
        sys.stderr.write(
            f"expected {command[0]} to end well, got exit code {done.returncode}; see {log}:\n"
            + log.read_text()[-2000:]
        )
        return {"lines": [asdict(Line("", f"{name}: FAILED", None, ""))], "peak_mib": None}
    sys.stderr.write(f"{name}: {time.monotonic() - begun:.0f} s\n")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
