"""Row i: the example system trained on a Dask cluster of one and of two worker processes, and with
one of two killed.

    python -m benchmarks.cluster --dir DIR

A stack of its own (infra.stack) gives the bucket, a cluster the workers, each with one CPU and a
directory of its own. Every run trains a fresh workspace of the example data on MiniLM; the stages
must be the bytes that processes of this machine train. In the third run a worker is killed when the
first stage is recorded, and started again.
"""

import argparse
import os
import shutil
import sys
import threading
import time
from functools import partial
from pathlib import Path

from benchmarks.bed import KEY
from benchmarks.report import Line, at_most, tell
from flows.adapters.dask_certificates import CLIENT
from infra.cluster import cluster, with_children
from infra.stack import Stack

_MOST = 0.7
"""Of the time of one worker: two cores cannot halve it, because the flow itself works too."""
_CONFIG = """[ports]
s3 = 18433
mlflow = 18437
prefect = 18438
[workers]
count = 1
pool = "s3t"
"""


def main() -> None:
    """The stack, the runs, the lines."""
    options = argparse.ArgumentParser(
        prog="benchmarks.cluster",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    options.add_argument("--dir", default=".bench-cluster")
    folder = Path(options.parse_args().dir).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o755)
    (folder / "stack.toml").write_text(_CONFIG)
    stack = Stack(folder / "stack", folder / "stack.toml")
    (folder / "stack").mkdir(mode=0o755)
    stack.up()
    try:
        os.environ.update({k: v for k, v in stack.env.items() if not k.startswith("PREFECT_")})
        os.environ["DASK_CONFIG"] = str(folder / "certificates" / CLIENT)
        _run(folder)
    finally:
        stack.down()


def _run(folder: Path) -> None:
    local, seconds = _trained(folder / "local", "", "")
    lines = [
        Line(
            "i", "training the example system by two processes of this machine", round(seconds), "s"
        )
    ]
    alone = 0.0
    for name, workers, killing in (
        ("one worker", 1, False),
        ("two workers", 2, False),
        ("one of two killed", 2, True),
    ):
        place = folder / name.replace(" ", "-")
        with cluster(
            folder / f"{place.name}-cluster", workers, known_by=folder / "certificates"
        ) as dask:
            then = partial(_replace, dask) if killing else None
            stages, seconds = _trained(place, dask.address, place.name, then)
        if stages != local:
            raise SystemExit(f"{name}: expected the bytes that this machine trained, got others")
        alone = alone or seconds
        told = f"{seconds:.0f} s, the same {len(local)} stages"
        lines.append(
            at_most("i", f"Dask, {name}, over one worker", seconds / alone, _MOST, "x", told)
            if name == "two workers"
            else Line("i", f"Dask, {name}", round(seconds), "s", told)
        )
        sys.stderr.write(f"{lines[-1]}\n")
    tell(lines)


def _trained(
    root: Path, address: str, prefix: str, first: object = None
) -> tuple[dict[str, str], float]:
    """Key to digest of every stage, and how long the training took; `first` is called when a stage
    is recorded."""
    from flows.examples import example_config
    from flows.prefect_flows.ingest import ingest
    from flows.prefect_flows.train import train
    from flows.settings import start_prefect
    from flows.workspace.creating import create_workspace
    from flows.workspace.workspace import enter
    from s3t_core.config import merge_config

    more = (
        ""
        if not address
        else (
            f'[store]\nurl = "s3://s3t/{prefix}/stages"\n[dvc]\nremote = "s3://s3t/{prefix}/dvc"\n'
            f'[runner]\nkind = "dask"\naddress = "{address}"\n'
        )
    )
    place = create_workspace(root, merge_config(example_config(), more, "cluster"), KEY)
    start_prefect()
    ingest(str(root), "example:chitchat")
    begun = time.monotonic()
    if callable(first):
        threading.Thread(target=_when_recorded, args=(enter(root), first), daemon=True).start()
    train(str(root))
    return place.store.bindings(), time.monotonic() - begun


def _when_recorded(place: object, then: object) -> None:
    while not place.ledger.state().stages:  # type: ignore[attr-defined]
        time.sleep(0.5)
    then()  # type: ignore[operator]


def _replace(dask: object) -> None:
    """kill -9 of one worker, and another in its directory."""
    with_children(dask.workers[0].pid)  # type: ignore[attr-defined]
    dask.add(home="w0")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
