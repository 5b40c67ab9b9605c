"""Row h: a large workspace on one machine, each part in a process of its own, for its time and its
peak of memory.

    python -m benchmarks.scale --dir DIR [--rows N --subjects N --requests N]

2,000,000 generated rows of 500,000 people in m=8 shards of L=6 slices: the plan; a first snapshot
of a hundredth of them and a real training of a very small encoder on it (six layers, hidden size
32: what is of interest is everything around it), so that there are 48 stages and a version to erase
from; the ingest of all rows; and one erase run of 10,000 people, to their certificates, each
verified.
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.bed import KEY
from benchmarks.erase import erase_timed
from benchmarks.report import Line, at_most, tell
from flows.use_cases.taking import take_requests
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import enter
from s3t_core.config import Config

_MOST_MIB = 3072
_WORDS = [f"w{i}" for i in range(2000)]


def main() -> None:
    """Part by part."""
    options = argparse.ArgumentParser(
        prog="benchmarks.scale", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("--dir", default=".bench-scale")
    options.add_argument("--rows", type=int, default=2_000_000)
    options.add_argument("--subjects", type=int, default=500_000)
    options.add_argument("--requests", type=int, default=10_000)
    options.add_argument("--only", choices=tuple(_PARTS))
    given = options.parse_args()
    if given.only:
        _measured(given.only, given)
        return
    folder = Path(given.dir).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    _generate(folder / "generated.csv", given.rows, given.subjects)
    with (folder / "generated.csv").open() as every, (folder / "first.csv").open("w") as first:
        first.writelines(islice(every, given.rows // 100 + 1))
    found = {}
    for part in _PARTS:
        sys.stderr.write(f"{part}\n")
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.scale", *sys.argv[1:], "--only", part],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{part}: {done.stderr[-3000:]}")
        found[part] = json.loads(done.stdout.splitlines()[-1])
        sys.stderr.write(f"{json.dumps(found[part])}\n")
    size = f"{given.rows:,} rows, {given.subjects:,} people, m=8 L=6"
    lines = [
        Line("h", f"{part}, {size}", round(told["seconds"], 1), "s", json.dumps(told["told"])[:600])
        for part, told in found.items()
    ]
    tell(
        [
            *lines,
            *(
                at_most(
                    "h",
                    f"memory of the {part}",
                    told["peak_mib"],
                    _MOST_MIB,
                    "MiB",
                    "all its processes",
                )
                for part, told in found.items()
            ),
        ]
    )


def _measured(part: str, given: argparse.Namespace) -> None:
    watching = _Peak()
    begun = time.monotonic()
    told = _PARTS[part](Path(given.dir).resolve(), given)
    sys.stdout.write(
        "\n"
        + json.dumps(
            {"seconds": time.monotonic() - begun, "peak_mib": watching.end(), "told": told}
        )
        + "\n"
    )


class _Peak:
    """The most memory that this process and all it started held at one time: proportional sets,
    twice a second."""

    def __init__(self) -> None:
        self._most, self._done = 0, threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def end(self) -> int:
        """MiB."""
        self._done.set()
        self._watching.join()
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return max(own, self._most // 2**20)

    def _watch(self) -> None:
        import psutil

        this = psutil.Process()
        while not self._done.wait(0.5):
            held = 0
            for process in (this, *this.children(recursive=True)):
                try:
                    held += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self._most = max(self._most, held)


def _generate(source: Path, rows: int, subjects: int) -> None:
    chance = random.Random(1)
    source.parent.mkdir(parents=True)
    with source.open("w") as file:
        file.write("subject,text,label\n")
        for n in range(rows):
            file.write(
                f"subject-{chance.randrange(subjects):07d},"
                f"{' '.join(chance.choices(_WORDS, k=12))},{'ab'[n % 2]}\n"
            )


def _plan(folder: Path, given: argparse.Namespace) -> Any:
    command = [
        str(Path(sys.executable).with_name("s3t")),
        "plan",
        "--shards",
        "8",
        "--slices",
        "6",
        "--budget",
        "1,2",
        "--subjects",
        str(given.subjects),
        "--once",
        "--records",
        str(given.rows),
        "--json",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    plans = json.loads(done.stdout)["plans"]
    return {"plans": len(plans)}


def _first(folder: Path, given: argparse.Namespace) -> Any:
    del given
    config = Config.model_validate(
        {
            "data": {"labels": ["a", "b"], "held_out": 0.01},
            "system": {"shards": 8, "slices": 6, "budget": 1},
            "backbone": {"model": str(_backbone(folder / "backbone")), "max_length": 16},
            "adapter": {"rank": 2, "alpha": 4},
            "training": {"batch_size": 256, "epochs": 1},
            "erasure": {"staleness_seconds": 0},
            "prefect": {"idle_minutes": 1},
        }
    )
    create_workspace(folder / "w", config, KEY)
    return _ingested(folder, folder / "first.csv")


def _ingest(folder: Path, given: argparse.Namespace) -> Any:
    del given
    return _ingested(folder, folder / "generated.csv")


def _ingested(folder: Path, source: Path) -> Any:
    from flows.settings import start_prefect

    enter(folder / "w")
    start_prefect()
    from flows.prefect_flows.ingest import ingest

    told = ingest(str(folder / "w"), str(source))
    source.unlink()
    return {k: told[k] for k in ("records", "held_out", "subjects", "quarantined")}


def _backbone(folder: Path) -> Path:
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(1)
    vocabulary = {t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *_WORDS])}
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=6,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
        )
    ).save_pretrained(folder)
    tokens = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokens.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
    ).save_pretrained(folder)
    return folder


def _train(folder: Path, given: argparse.Namespace) -> Any:
    del given
    from flows.settings import start_prefect

    place = enter(folder / "w")
    start_prefect()
    from flows.prefect_flows.train import train

    told = train(str(place.root))
    return {k: told[k] for k in ("trained", "accuracy")}


def _erase(folder: Path, given: argparse.Namespace) -> Any:
    place = enter(folder / "w")
    asking = [
        f"subject-{n:07d}" for n in random.Random(0).sample(range(given.subjects), given.requests)
    ]
    begun = time.monotonic()
    take_requests(place, asking)
    return {"take": round(time.monotonic() - begun, 1), **erase_timed(place)}


def _verify(folder: Path, given: argparse.Namespace) -> Any:
    from flows.use_cases.verifying import verify_path

    place = enter(folder / "w")
    found = verify_path(place.certificates_dir, place.keys_dir / "signing.pub")
    if not found["valid"] or len(found["certificates"]) != given.requests:
        raise SystemExit(
            f"expected {given.requests} valid certificates, got others: {found['problems'][:3]}"
        )
    return {"certificates": len(found["certificates"])}


_PARTS: dict[str, Callable[[Path, argparse.Namespace], Any]] = {
    "plan": _plan,
    "first ingest": _first,
    "training": _train,
    "ingest": _ingest,
    "erase run": _erase,
    "verification": _verify,
}

if __name__ == "__main__":
    main()
