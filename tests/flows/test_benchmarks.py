"""Every part of `make bench` in its short form: it runs, and what it tells is whole. Never how
fast."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report import Line, at_least, at_most, table

pytestmark = [pytest.mark.slow, pytest.mark.minutes]
_BED = ["--rows", "60", "--shards", "2", "--slices", "2", "--budget", "1", "--epochs", "1"]


def _lines(module: str, *options: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", module, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])["lines"]
    return lines


@pytest.mark.long
def test_training_beside_the_plain_recipes_then_silencing(tmp_path: Path) -> None:
    bed = ["--dir", str(tmp_path / "bed"), *_BED]
    trained = _lines("benchmarks.training", *bed)
    assert {"ours / plain recipe", "ours / one plain fine-tune"} <= {
        str(line["what"]) for line in trained
    }
    assert all(isinstance(line["value"], float) and line["value"] > 0 for line in trained)
    names = {p.name for p in (tmp_path / "bed" / "plain").glob("*.safetensors")}
    assert {"joint.safetensors", "sisa-0-0.safetensors", "sisa-1-1.safetensors"} <= names
    silenced = _lines("benchmarks.silencing", *bed)  # trains nothing again
    after = [line for line in silenced if "after 50% of slices silenced" in str(line["what"])]
    assert len(after) == 3 and {line["row"] for line in silenced} == {"d"}


@pytest.mark.long
def test_growth_of_registering_and_planning(tmp_path: Path) -> None:
    lines = _lines(
        "benchmarks.growth", "--dir", str(tmp_path / "growth"), "--only", "registering,planning"
    )
    disk = next(line for line in lines if str(line["what"]).startswith("disk of the version"))
    assert disk["met"] and str(disk["detail"]).endswith("KiB")


@pytest.mark.long
def test_ingest_with_and_without_validation(tmp_path: Path) -> None:
    lines = _lines("benchmarks.ingesting", "--dir", str(tmp_path / "ingest"), "--rows", "2000")
    assert [line["unit"] for line in lines] == ["rows/s", "rows/s", "MiB"]
    assert not (tmp_path / "ingest" / "generated.csv").exists()


def test_the_table_says_what_was_missed() -> None:
    told = table(
        [
            at_most("a", "ratio", 0.5, 1 / 3),
            at_least("g", "rate", 200_000, 100_000, "rows/s"),
            Line("b", "time", 12.345, "s", "a detail"),
            Line("d", "accuracy", None, "%"),
        ]
    ).splitlines()
    assert told[2:] == [
        "| a | ratio | 0.5 x | at most 0.333 | **missed** |",
        "| g | rate | 200,000 rows/s | at least 100,000 | met |",
        "| b | time | 12.3 s (a detail) |  |  |",
        "| d | accuracy | none % |  |  |",
    ]


@pytest.mark.long
def test_callbacks_while_sender_and_receiver_are_killed(tmp_path: Path) -> None:
    few = ["--requests", "60", "--kills", "1", "--dir", str(tmp_path / "bench")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.callbacks", *few],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert (told["lost"], told["strange"], told["told_twice_under_another_id"]) == (0, 0, 0)
    assert told["requests"] == 60 and told["a_second"] > 0
