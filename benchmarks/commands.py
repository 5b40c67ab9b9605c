"""Seconds of whole commands, as a user waits for them: `make bench-commands`, or python -m
benchmarks.commands [--tree DIR]... [--rounds N --dir DIR].

A workspace of 200 rows of 60 subjects on a tiny backbone: what is measured is start-up, Prefect and
bookkeeping. Each command is called twice; before the first `erase` nothing of ours runs. `--tree`:
a checkout to measure, several to take turns (an earlier commit: `git worktree add DIR COMMIT`), all
with the packages that are installed here.

Prints one JSON document: per tree and command, the seconds of the first calls and of the second
ones, a round each.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.tiny import build_backbone

_S3T = str(Path(sys.executable).with_name("s3t"))
_SETTINGS = """
[data]
text = "what"
label = "kind"
subject = "who"
labels = ["good", "bad"]
held_out_by = "who"
[backbone]
model = "{backbone}"
"""
_MEASURED = ("ingest", "predict", "erase", "status")


def main() -> None:
    """Measure the trees in turn and tell."""
    parser = argparse.ArgumentParser(prog="benchmarks.commands")
    parser.add_argument("--tree", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default=".bench-commands")
    given = parser.parse_args()
    folder = Path(given.dir).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    trees = [Path(tree).resolve() for tree in given.tree or [Path(__file__).parents[1]]]
    told = {tree.name: {name: ([], []) for name in _MEASURED} for tree in trees}  # type: ignore[var-annotated]
    for number in range(given.rounds):
        for tree in trees:
            for name, seconds in walked(tree, folder / f"{number}-{tree.name}").items():
                for calls, one in zip(told[tree.name][name], seconds, strict=True):
                    calls.append(one)
    sys.stdout.write(json.dumps(told, indent=1) + "\n")


def walked(tree: Path, folder: Path) -> dict[str, tuple[float, float]]:
    """Seconds of each command, first and second call, by the code in `tree`."""
    folder.mkdir(parents=True)
    source = folder / "people.csv"
    source.write_text(
        "id,who,what,kind\n"
        + "".join(
            f"r{i},person-{i % 60:03d},w{i % 50} w{i * 7 % 50} "
            f"w{i * 3 % 50},{'good' if i % 2 else 'bad'}\n"
            for i in range(200)
        )
    )
    backbone = build_backbone(folder / "backbone", layers=3)
    (folder / "settings.toml").write_text(_SETTINGS.format(backbone=backbone))
    _seconds(tree, folder, "init", "w", "--settings", "settings.toml")
    given = {"ingest": ["../people.csv"], "predict": ["w1 w2"]}

    def twice(name: str) -> tuple[float, float]:
        return _seconds(tree, folder / "w", name, *given.get(name, [])), _seconds(
            tree, folder / "w", name, *given.get(name, [])
        )

    told = {"ingest": twice("ingest")}
    _seconds(tree, folder / "w", "train")
    told["predict"] = twice("predict")
    shared = (
        tree / "flows/adapters/shared_prefect.py"
    ).is_file()  # else each command starts a server of its own
    if shared:
        _seconds(tree, folder / "w", "stop")
    told["erase"] = twice("erase")
    told["status"] = twice("status")
    if shared:
        _seconds(tree, folder / "w", "stop")
    return told


def _seconds(tree: Path, place: Path, *command: str) -> float:
    """How long one command takes, from its start to its end."""
    settings = {
        k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "S3T_"))
    }
    begun = time.monotonic()
    done = subprocess.run(
        [_S3T, *command],
        cwd=place,
        env={**settings, "PYTHONPATH": str(tree)},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(
            f"benchmarks.commands: expected s3t {command[0]} to end well, got {done.stderr[-2000:]}"
        )
    return round(time.monotonic() - begun, 1)


if __name__ == "__main__":
    main()
