"""The files of `requirements/`: every package that is installed, at one version, with the hashes
its files may have.

    python -m infra.lock write  # resolve anew with uv, which must be on the PATH, from its index
    python -m infra.lock check  # without a network: against constraints.txt and pyproject.toml

1. A file per purpose: `build` (what packages are built with), `run` (the package itself), `dev`
   (tests and examples), `servers` (PostgreSQL, S3, Dask), `stack` (their servers on one machine).
   Torch stands apart, as one of two: `torch`, the index's build and what its CUDA wants, or
   `torch-cpu`, the build without CUDA, where pip is shown a copy of it.
2. Versions are those of constraints.txt. What only other platforms or other Pythons need stands
   there with its marker.
3. A package's hashes are those of all its files that the index knows, so that one lock serves every
   platform. The two builds of torch cannot share an entry: pip takes the index's file when both
   hashes are allowed.
4. They are installed with `pip install --require-hashes --no-deps --no-build-isolation`, `build`
   first, because some packages are published as sources only: so pip fetches nothing without a
   hash, not even to build with. Then comes the package itself, from here; `pip check` tells whether
   something is missing.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRAS = {
    "run": (),
    "dev": ("dev", "examples"),
    "servers": ("postgresql", "s3", "dask"),
    "stack": ("stack",),
}
"""Which of the package's extras each file is for, those that are installed before it first."""
FILES = ("build", *EXTRAS, "torch", "torch-cpu")
CPU_BUILD = (
    "torch",
    "2.13.0+cpu",
    "sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
)
"""Torch's build without CUDA for Linux, x86-64, CPython 3.11: what the tests run on, and the index
lacks."""
_TORCH = re.compile(r"torch|nvidia-.*|cuda-.*|triton")
_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?P<marker>\s*;[^\\]*)?")


@dataclass(frozen=True)
class Entry:
    """A pinned package: its canonical name, version, marker ("" for everywhere) and the lines it is
    written in."""

    name: str
    version: str
    marker: str
    hashes: frozenset[str]
    text: str


def entries(text: str) -> list[Entry]:
    """The entries of a lock. Raises ValueError for a line that is none."""
    joined = re.sub(
        r"\\\n\s*",
        " ",
        "\n".join(line for line in text.splitlines() if not line.startswith("#")) + "\n",
    )
    found = []
    for line in filter(None, joined.splitlines()):
        pin, *hashes = re.split(r"\s+--hash=", line.strip())
        match = _ENTRY.fullmatch(pin.strip())
        if match is None:
            raise ValueError(f"expected NAME==VERSION with hashes, got {line[:60]!r}")
        marker = (match["marker"] or "").strip(" ;")
        found.append(
            _entry(canonicalize_name(match["name"]), match["version"], marker, frozenset(hashes))
        )
    return found


def _entry(name: str, version: str, marker: str, hashes: frozenset[str]) -> Entry:
    head = f"{name}=={version}" + (f" ; {marker}" if marker else "")
    return Entry(name, version, marker, hashes, " \\\n    --hash=".join([head, *sorted(hashes)]))


def problems(root: Path) -> list[str]:
    """What is wrong with the locks, as sentences; none when they fit constraints.txt and
    pyproject.toml."""
    locks = {name: entries((root / "requirements" / f"{name}.lock").read_text()) for name in FILES}
    pins = constraints((root / "constraints.txt").read_text())
    every = [e for lock in locks.values() for e in lock]
    found = [
        f"{e.name}: expected sha256 hashes, got {len(e.hashes)}"
        for e in every
        if not e.hashes or not all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for h in e.hashes)
    ]
    found += [
        f"{e.name}: expected {pins[e.name]} as in constraints.txt, got {e.version}"
        for e in every
        if e.name in pins and e.version.partition("+")[0] != pins[e.name]
    ]
    found += [
        f"{e.name}: stands in no constraints.txt and not for another platform only"
        for name in ("build", *EXTRAS)
        for e in locks[name]
        if e.name not in pins and not e.marker
    ]
    found += [
        f"{name}: pinned in constraints.txt, in no lock"
        for name in pins.keys() - {e.name for e in every}
    ]
    found += _missing(root, locks)
    if locks["torch-cpu"] != [_cpu_build()]:
        found.append("torch: expected its CPU build alone in requirements/torch-cpu.lock")
    return sorted(found)


def _cpu_build() -> Entry:
    name, version, digest = CPU_BUILD
    return _entry(name, version, "", frozenset({digest}))


def _missing(root: Path, locks: dict[str, list[Entry]]) -> list[str]:
    """Direct dependencies of the package and its extras that no lock installed by then has, or at a
    wrong version."""
    found = []
    for name, extras in EXTRAS.items():
        before = {"build", "run", "torch"} | ({"servers"} if name == "stack" else set()) | {name}
        there = {e.name: e.version for lock in before for e in locks[lock]}
        for wanted in direct(root, extras):
            version = there.get(canonicalize_name(wanted.name))
            if version is None or not wanted.specifier.contains(version, prereleases=True):
                found.append(
                    f"{wanted.name}: pyproject.toml wants {wanted}, requirements/{name}.lock has "
                    f"{version or 'none'}"
                )
    return found


def direct(root: Path, extras: tuple[str, ...]) -> list[Requirement]:
    """What pyproject.toml names for the package with these extras, and what it is built with."""
    document = tomllib.loads((root / "pyproject.toml").read_text())
    project = document["project"]
    named = [
        *document["build-system"]["requires"],
        *project["dependencies"],
        *(r for extra in extras for r in project["optional-dependencies"][extra]),
    ]
    found = [Requirement(r) for r in named]
    own = tuple(e for r in found if r.name == project["name"] for e in r.extras)
    return [r for r in found if r.name != project["name"]] + (direct(root, own) if own else [])


def constraints(text: str) -> dict[str, str]:
    """Canonical name to version."""
    lines = [line for line in text.splitlines() if "==" in line and not line.startswith("#")]
    return {
        canonicalize_name(name): version
        for name, _, version in (line.partition("==") for line in lines)
    }


def write(root: Path) -> None:
    """Resolve and write the locks. Raises CalledProcessError when nothing fits."""
    build = _resolved(root, None)
    resolved = {name: _resolved(root, extras) for name, extras in EXTRAS.items()}
    parts = {
        "build": build,
        "torch": [e for e in resolved["run"] if _TORCH.fullmatch(e.name)],
        "torch-cpu": [_cpu_build()],
    }
    for name, found in resolved.items():
        known = {
            e.name for before in ("build", "torch", "run", "servers") for e in parts.get(before, [])
        }
        parts[name] = [e for e in found if e.name not in known]
    for name, part in parts.items():
        lines = [
            "# Written by `python -m infra.lock write`, for: "
            f"{', '.join(EXTRAS.get(name, ())) or name}."
        ]
        (root / "requirements" / f"{name}.lock").write_text(
            "\n".join([*lines, *(e.text for e in part)]) + "\n"
        )


def _resolved(root: Path, extras: tuple[str, ...] | None) -> list[Entry]:
    """By uv: for every platform, with the hashes of every file. `extras` None: only what the
    package is built with."""
    package = (
        [] if extras is None else ["pyproject.toml", *(f"--extra={extra}" for extra in extras)]
    )
    options = [
        "--universal",
        "--python-version",
        "3.11",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
    ]
    pinned = constraints((root / "constraints.txt").read_text())
    built_with = tomllib.loads((root / "pyproject.toml").read_text())["build-system"]["requires"]
    with tempfile.TemporaryDirectory() as folder:
        wanted, pins, lock = (Path(folder) / name for name in ("build.in", "pins.txt", "lock.txt"))
        wanted.write_text("\n".join(built_with))
        pins.write_text("\n".join(f"{name}=={version}" for name, version in pinned.items()))
        subprocess.run(
            [
                "uv",
                "pip",
                "compile",
                *package,
                str(wanted),
                "-c",
                str(pins),
                *options,
                "-o",
                str(lock),
            ],
            cwd=root,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return entries(lock.read_text())


def main(arguments: list[str]) -> int:
    """The command line."""
    if arguments == ["write"]:
        write(ROOT)
    elif arguments != ["check"]:
        print("usage: python -m infra.lock write|check", file=sys.stderr)
        return 2
    found = problems(ROOT)
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        print("expected locks that fit; run `python -m infra.lock write`", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
