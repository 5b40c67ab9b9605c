"""What the residue scan costs, kind by kind, in processor seconds: this tree, or this one beside
another.

    python -m benchmarks.scanning [OTHER_TREE]
    python -m benchmarks.scanning --id-rule trim,unicode,case

Each kind is scanned in a process of its own, in turn by one tree and the other, three times; the
least counts, because whatever else the machine does only adds. It prints a line a kind: megabytes,
seconds, and with another tree the ratio of this one to it. Nothing is found in what is scanned:
this is what every erasure pays. With a rule for ids, this tree under it stands beside itself
without.
"""

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
_TRIES = 3
_SCAN = """
import sys, time
from pathlib import Path
from s3t_core.erasure.needles import make_needles
from s3t_core.erasure.residue import scan
folder = Path(sys.argv[1])
needles = make_needles(["person-4711"], ["a long confession about nothing in particular, to be read by nobody at all"], **({"rule": sys.argv[2].split(",")} if sys.argv[2:] else {}))
scan(folder / "none", [], ["x"], [], needles, [])
began = time.process_time()
report = scan(folder, [], [p.name for p in folder.iterdir()], [], needles, [])
assert not report.residue and not report.undecodable, report
print(time.process_time() - began)
"""  # noqa: E501


def main() -> None:
    """Make the files, scan them, print."""
    of_rule = sys.argv[1:2] == ["--id-rule"]
    ways = [(ROOT, sys.argv[2:3]), (ROOT, [])] if of_rule else []
    ways = ways or [(tree, []) for tree in (ROOT, *map(Path, sys.argv[1:2]))]
    with tempfile.TemporaryDirectory() as place:
        for name, make in KINDS.items():
            folder = Path(place) / name
            folder.mkdir()
            make(folder)
            size = sum(p.stat().st_size for p in folder.iterdir()) / 1e6
            least = [
                min(seconds)
                for seconds in zip(
                    *([_seconds(*way, folder) for way in ways] for _ in range(_TRIES)), strict=True
                )
            ]
            ratio = f"  {least[0] / least[1]:5.2f} of the other" if len(least) > 1 else ""
            print(f"{name:<28} {size:6.1f} MB  {least[0]:6.2f} s{ratio}", flush=True)  # its answer


def _seconds(tree: Path, rule: list[str], folder: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _SCAN, str(folder), *rule],
        cwd=tree,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tree)},
    )
    return float(done.stdout)


def _words(count: int, seed: int) -> list[str]:
    source = random.Random(seed)  # words, not keys
    return [" ".join(source.choices(_LEXICON, k=14)) for _ in range(count)]


_LEXICON = [
    f"{a}{b}{c}"
    for a in ("har", "mor", "sil")
    for b in ("bo", "ni", "ver", "a")
    for c in ("ur", "ng", "y")
]


def _digests(count: int) -> list[str]:
    data = np.random.default_rng(3).bytes(32 * count)
    return [data[i : i + 32].hex() for i in range(0, len(data), 32)]


def _parquet(folder: Path) -> None:
    subjects = _digests(20_000)
    for number in range(4):
        pq.write_table(
            pa.table(
                {
                    "subject": subjects,
                    "record": subjects[::-1],
                    "text": _words(20_000, number),
                    "label": ["good", "bad"] * 10_000,
                }
            ),
            folder / f"{number}.parquet",
            compression="zstd",
        )


def _log(folder: Path) -> None:
    (folder / "log").write_text(
        "".join(
            f'{{"time": "2026-11-01T12:00:00Z", "run": {i}, "message": "{line}"}}\n'
            for i, line in enumerate(_words(60_000, 5))
        )
    )


def _lines(folder: Path) -> None:
    rows = zip(_digests(30_000), _words(30_000, 6), strict=True)
    (folder / "rows.jsonl").write_text(
        "".join(
            json.dumps({"subject_digest": d, "record_digest": d, "values": {"t": w}}) + "\n"
            for d, w in rows
        )
    )


def _paths(folder: Path) -> None:
    (folder / "log").write_text(
        "".join(
            f"files/md5/{d[:2]}/{d[2:32]} shard=00/slice=01.parquet {d}\n" for d in _digests(40_000)
        )
    )


def _weights(folder: Path) -> None:
    (folder / "weights").write_bytes(
        np.random.default_rng(1).normal(0, 0.02, 4_000_000).astype("float32").tobytes()
    )


def _database(folder: Path) -> None:
    with sqlite3.connect(folder / "a.db") as connection:
        connection.execute("CREATE TABLE runs (id TEXT, told TEXT, state BLOB)")
        connection.executemany(
            "INSERT INTO runs VALUES (?, ?, ?)",
            (
                (d, json.dumps({"told": w}), bytes.fromhex(d))
                for d, w in zip(_digests(80_000), _words(80_000, 7), strict=True)
            ),
        )
        connection.execute("DELETE FROM runs WHERE id < '5'")
    connection.close()


KINDS: dict[str, Callable[[Path], None]] = {
    "Parquet": _parquet,
    "a log of JSON": _log,
    "lines of JSON, with digests": _lines,
    "digests and paths": _paths,
    "weights without a header": _weights,
    "SQLite": _database,
}


if __name__ == "__main__":
    main()
