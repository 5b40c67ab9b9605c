"""What a killed process leaves half-written is swept by the next command, before anything else."""

import os
import time
from pathlib import Path

import pytest

from flows.adapters.local import NeedleFiles
from flows.wiring import create_workspace
from s3t_core.config import Config


@pytest.mark.slow
def test_spools_copies_and_temporary_files_are_swept(tmp_path: Path) -> None:
    place = create_workspace(tmp_path / "w", Config(), b"\x01" * 32)
    left = [place.temporary_dir / "ingest-1" / "spool" / "0-0.jsonl", place.temporary_dir / "release-x" / "a.file",
            place.root / "data" / "shard=00" / ".tmp-abc", place.store.root / ".tmp-def",
            place.state_dir / "quarantine" / ".tmp-ghi"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a row")
    kept = place.store.put("key", b"weights")
    place.sweep()
    assert not any(p.exists() for p in left)
    assert place.store.get(kept) == b"weights"


def test_needles_of_plans_and_requests_that_never_came_to_be_are_removed(tmp_path: Path) -> None:
    needles = NeedleFiles(tmp_path)
    for name in ("req-pending", "req-abandoned", "req-just-now"):
        needles.keep_ids({name: ["somebody"]})
    needles.gather("plan-abandoned", ["a text"])
    two_hours_ago = time.time() - 7200
    os.utime(tmp_path / "req-abandoned.json", (two_hours_ago, two_hours_ago))
    needles.prune(["req-pending"])
    assert sorted(p.stem for p in tmp_path.iterdir()) == ["req-just-now", "req-pending"]
    assert all(oct(p.stat().st_mode & 0o777) == "0o600" for p in tmp_path.iterdir())
