"""Try mutants, one on each core: `python -m tests.mutants`, or with words of their names. `make
test-mutants`.

Each is tried in a copy of the sources, in a fork of this process that has nothing of ours imported.
"""

import compileall
import importlib
import multiprocessing
import os
import py_compile
import shutil
import sys
import tempfile
from multiprocessing import connection
from pathlib import Path

from tests.mutants import MUTANTS, ROOT
from tests.mutants.mutant import Mutant

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
    """One mutant in a copy of the sources, tried by a process of its own."""

    def __init__(self, mutant: Mutant, copy: Path) -> None:
        self.mutant, self.copy = mutant, copy
        self._path, self._told = copy / mutant.file, copy.with_name(f"{copy.name}.out")
        self._text = self._path.read_text()
        self._path.write_text(mutant.applied(self._text))
        self.process = _FORKED.Process(target=_try, args=(mutant.fails, copy, self._told))
        self.process.start()

    def survived(self) -> bool:
        """Whether the test passes with the protection taken out, or cannot be run, now that the
        process has ended."""
        self.process.join()
        self._path.write_text(self._text)
        if self.process.exitcode not in (0, 1):
            print(
                "pytest could not run "
                f"{self.mutant.fails}\n{self._told.read_text(errors='replace')[-1500:]}"
            )
        return self.process.exitcode != 1


_FORKED = multiprocessing.get_context("fork")


def _try(test: str, copy: Path, told: Path) -> None:
    os.setpgid(0, 0)
    for number in (1, 2):
        os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(copy)
    os.environ.update(
        {"PYTHONPATH": str(copy), "S3T_TEST_FAULTS": "all", "PYTHONDONTWRITEBYTECODE": "1"}
    )
    os.environ.pop("S3T_TEST_STACK", None)  # its workers run other code
    sys.dont_write_bytecode = True
    sys.path[:] = [str(copy), *(p for p in sys.path if p not in ("", str(ROOT)))]
    for name in [m for m in sys.modules if m.partition(".")[0] in _OURS]:
        del sys.modules[name]
    import pytest

    file, _, expression = test.partition("::")
    code = int(
        pytest.main(["-x", "-q", "--no-header", "-p", "no:cacheprovider", file, "-k", expression])
    )
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


def main() -> None:
    """Run every mutant, or those whose names have one of the given words, one on each core; exit 1
    when one survives."""
    chosen = [m for m in MUTANTS if len(sys.argv) == 1 or any(w in m.name for w in sys.argv[1:])]
    for name in _HEAVY:
        importlib.import_module(name)
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        free = [
            _copied(Path(folder) / str(n)) for n in range(min(os.cpu_count() or 1, len(chosen)))
        ]
        waiting, running = chosen[::-1], list[Attempt]()
        while waiting or running:
            while waiting and free:
                running.append(Attempt(waiting.pop(), free.pop()))
            ended = connection.wait([a.process.sentinel for a in running])
            for attempt in [a for a in running if a.process.sentinel in ended]:
                running.remove(attempt)
                free.append(attempt.copy)
                alive = attempt.survived()
                print(f"{'SURVIVED' if alive else 'killed  '}  {attempt.mutant.name}", flush=True)
                survivors += alive
    print(f"{len(chosen) - survivors} killed, {survivors} survived")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
