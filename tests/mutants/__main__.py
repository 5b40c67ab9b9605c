"""Try mutants, one on each core: `python -m tests.mutants`, or with words of their names, or with
`--since COMMIT` those whose file, or whose test's file, changed since then. `make test-mutants`.

`--unchanged`, before all that: take nothing out, and see each of their tests pass. One that fails
anyway, here, would kill every mutant.

Each is tried in a copy of the sources, in a fork of this process that has nothing of ours imported.
Those of tests/flows find a server and a trained workspace ready (tests/ready.py); one that survives
so is tried again without.
"""

import compileall
import importlib
import multiprocessing
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from multiprocessing import connection
from pathlib import Path

from tests.mutants import MUTANTS, ROOT
from tests.mutants.mutant import Mutant
from tests.ready import environment_for

_HEAVY = (
    "torch",
    "transformers",
    "peft",
    "safetensors.torch",
    "pandas",
    "pyarrow.parquet",
    "mlflow.pyfunc",
    "prefect",
    "great_expectations",
    "dvc.repo",
    "sqlalchemy",
    "hypothesis",
    "pydantic",
    "typer",
    "rich.console",
)
"""Imported once: every mutant is tried in a fork of this process, which has nothing of ours in
it."""
_OURS = ("tests", "flows", "s3t_core", "benchmarks", "infra")


class Attempt:
    """One mutant in a copy of the sources, tried by a process of its own; or its test alone, with
    nothing taken out."""

    def __init__(
        self, mutant: Mutant, copy: Path, ready: dict[str, str], is_applied: bool = True
    ) -> None:
        self.mutant, self.copy, self.ready = mutant, copy, ready
        self._wanted = 1 if is_applied else 0
        self._path, self._told = copy / mutant.file, copy.with_name(f"{copy.name}.out")
        self._text = self._path.read_text()
        if is_applied:
            self._path.write_text(mutant.applied(self._text))
        self._began = time.monotonic()
        self.process = _FORKED.Process(target=_try, args=(mutant.fails, copy, self._told, ready))
        self.process.start()

    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def survived(self) -> bool:
        """Whether the test passes with the protection taken out (or fails where nothing is), or
        cannot be run, now that the process has ended."""
        self.process.join()
        self._path.write_text(self._text)
        told = self.process.exitcode not in (0, 1) or not self._wanted
        if self.process.exitcode != self._wanted and told and not self.ready:
            print(
                "pytest could not run "
                f"{self.mutant.fails}\n{self._told.read_text(errors='replace')[-1500:]}"
            )
        return self.process.exitcode != self._wanted


_FORKED = multiprocessing.get_context("fork")


class _Ready:
    """What tests of the flows need, made for one copy of the sources when it is first asked for:
    before the copy is changed."""

    def __init__(self, copy: Path) -> None:
        self._copy, self._folder = copy, copy.with_name(f"{copy.name}.ready")
        self._keeper: subprocess.Popen[str] | None = None

    def environment(self) -> dict[str, str]:
        """For tests that are to find it; made again where its keeper has died."""
        if self._keeper is None or self._keeper.poll() is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir()
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "tests.ready", str(self._folder)],
                cwd=self._copy,
                env=os.environ | {"PYTHONPATH": str(self._copy)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert self._keeper.stdout is not None
            while "ready" not in (line := self._keeper.stdout.readline()):
                if not line:
                    raise SystemExit("tests.ready: expected a server and a workspace, it ended")
        return environment_for(self._folder)

    def end(self) -> None:
        """With its server."""
        if self._keeper is not None:
            self._keeper.communicate()


_OWN_SERVER = "tests/flows/test_prefect_told.py"
"""Looks into the database of the server that its own run starts."""


def _of_flows(mutant: Mutant) -> bool:
    return mutant.fails.startswith("tests/flows/") and not mutant.fails.startswith(_OWN_SERVER)


def _try(test: str, copy: Path, told: Path, ready: dict[str, str]) -> None:
    os.setpgid(0, 0)
    for number in (1, 2):
        os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(copy)
    os.environ.update(
        {"PYTHONPATH": str(copy), "S3T_TEST_FAULTS": "all", "PYTHONDONTWRITEBYTECODE": "1"} | ready
    )
    os.environ.pop("S3T_TEST_STACK", None)  # its workers run other code
    sys.dont_write_bytecode = True
    sys.path[:] = [str(copy), *(p for p in sys.path if p not in ("", str(ROOT)))]
    for name in [m for m in sys.modules if m.partition(".")[0] in _OURS]:
        del sys.modules[name]
    import pytest

    file, _, expression = test.partition("::")
    arguments = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", file, "-k", expression]
    sys.argv[1:] = arguments  # tests/without_servers.py asks what is run
    code = int(pytest.main(arguments))
    sys.stdout.flush()
    os._exit(code)


def _copied(place: Path) -> Path:
    """The sources, compiled so that a changed one is noticed."""
    shutil.copytree(
        ROOT, place, ignore=shutil.ignore_patterns(".*", "*.egg-info", "data", "__pycache__")
    )
    for name in _OURS:
        compileall.compile_dir(
            place / name, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
        )
    return place


def _chosen(mutant: Mutant) -> bool:
    words = sys.argv[1:]
    if words[:1] == ["--since"]:
        return not _changed_since(words[1]).isdisjoint(
            (mutant.file, mutant.fails.partition("::")[0])
        )
    return not words or any(w in mutant.name or mutant.fails.startswith(w) for w in words)


@cache
def _changed_since(commit: str) -> frozenset[str]:
    asked = ["git", "diff", "--name-only", commit]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(done.stdout.splitlines())


def main() -> None:
    """Run every mutant, or those that are asked for (words of names, beginnings of tests, what
    changed), or their tests, one on each core; exit 1 when one survives."""
    is_applied = sys.argv[1:2] != ["--unchanged"]
    if not is_applied:
        del sys.argv[1]
    chosen = sorted(filter(_chosen, MUTANTS), key=_of_flows)
    if not is_applied:
        chosen = list({mutant.fails: mutant for mutant in chosen}.values())
    for name in _HEAVY:
        importlib.import_module(name)
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder) / str(n) for n in range(min(os.cpu_count() or 1, len(chosen)))]
        ready = {_copied(c): _Ready(c) for c in copies}
        free, waiting, running = [*copies], [(m, _of_flows(m)) for m in chosen[::-1]], []
        while waiting or running:
            while waiting and free:
                (mutant, helped), copy = waiting.pop(), free.pop()
                there = ready[copy].environment() if helped else {}
                running.append(Attempt(mutant, copy, there, is_applied))
            ended = connection.wait([a.process.sentinel for a in running])
            for attempt in [a for a in running if a.process.sentinel in ended]:
                running.remove(attempt)
                free.append(attempt.copy)
                alive = attempt.survived()
                if alive and attempt.ready:
                    waiting.append((attempt.mutant, False))
                    continue
                good, bad, what = (
                    ("killed  ", "SURVIVED", attempt.mutant.name)
                    if is_applied
                    else ("passes  ", "FAILS   ", attempt.mutant.fails)
                )
                print(f"{bad if alive else good} {attempt.seconds():6.1f} s  {what}", flush=True)
                survivors += alive
        for kept in ready.values():
            kept.end()
    killed, alive = ("killed", "survived") if is_applied else ("pass", "fail")
    print(f"{len(chosen) - survivors} {killed}, {survivors} {alive}")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
