"""How benchmarks tell what they measured: lines of one table, as JSON between processes and as
Markdown for people."""

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import torch

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "mlflow",
    "prefect",
    "dvc",
    "great-expectations",
    "numpy",
)


@dataclass(frozen=True)
class Line:
    """One line of the table. `row`: a letter; `value` with its `unit`; `reach`: what was aimed at,
    "" without an aim; `met`: None without an aim."""

    row: str
    what: str
    value: float | None
    unit: str
    detail: str = ""
    reach: str = ""
    met: bool | None = None


def at_most(
    row: str, what: str, value: float, limit: float, unit: str = "x", detail: str = ""
) -> Line:
    """A line whose value should not be above `limit`."""
    return Line(row, what, value, unit, detail, f"at most {limit:.3g}", value <= limit)


def at_least(
    row: str, what: str, value: float, limit: float, unit: str = "x", detail: str = ""
) -> Line:
    """A line whose value should not be below `limit`."""
    return Line(row, what, value, unit, detail, f"at least {limit:,.6g}", value >= limit)


def tell(lines: Iterable[Line]) -> None:
    """Print the lines and this process's peak as the last line of output, for whoever started
    it."""
    peak = (
        max(
            resource.getrusage(who).ru_maxrss
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        / 1024
    )
    sys.stdout.write(
        "\n"
        + json.dumps({"lines": [asdict(line) for line in lines], "peak_mib": round(peak)})
        + "\n"
    )


def timed(work: Callable[[], Any]) -> float:
    """Seconds."""
    begun = monotonic()
    work()
    return monotonic() - begun


def middle(times: int, work: Callable[[int], Any]) -> float:
    """Median of the seconds of several runs; `work` is told which."""
    return median(timed(partial(work, n)) for n in range(times))


def surroundings(root: Path) -> dict[str, Any]:
    """Commit, hardware, versions."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        ).stdout

    commit = git("rev-parse", "--short", "HEAD").strip() or "unknown"
    with Path("/proc/meminfo").open() as file:
        memory = round(int(file.readline().split()[1]) / 2**20)
    return {
        "commit": commit + ("-changed" if git("status", "--porcelain", "-uno").strip() else ""),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()} "
        f"{torch.backends.cpu.get_cpu_capability()}, {memory} GiB",
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
    }


def table(lines: Iterable[Line]) -> str:
    """Markdown."""
    told = ["| row | what | measured | reach | |", "|---|---|---|---|---|"]
    for line in lines:
        detail = f" ({line.detail})" if line.detail else ""
        mark = {True: "met", False: "**missed**", None: ""}[line.met]
        told.append(
            f"| {line.row} | {line.what} | {_number(line.value)} {line.unit}{detail} | "
            f"{line.reach} | {mark} |"
        )
    return "\n".join(told)


def _number(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
