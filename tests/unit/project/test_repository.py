"""What lies in the repository: source and prose, and nothing that a run left."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_LARGEST_BYTES = 500_000
_LEFT_BY_A_RUN = {
    ".db",
    ".sqlite",
    ".safetensors",
    ".bin",
    ".pt",
    ".onnx",
    ".parquet",
    ".arrow",
    ".log",
    ".key",
}


def test_nothing_that_a_run_left_and_nothing_large_is_in_the_repository() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no repository")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    assert len(files) > 100
    found = [
        p.relative_to(ROOT).as_posix()
        for p in files
        if p.is_file()
        and (p.suffix in _LEFT_BY_A_RUN or p.stat().st_size > _LARGEST_BYTES)
        and not p.is_relative_to(ROOT / "tests" / "cases")
    ]
    assert found == []
