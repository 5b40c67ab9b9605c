"""What is installed has a hash, and the locks are those of constraints.txt and pyproject.toml."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.lock import ROOT, entries, problems


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the locks stand on."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def _change(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before


def test_the_locks_fit() -> None:
    assert problems(ROOT) == []


def test_nothing_is_installed_under_what_runs(project: Path) -> None:
    """A server, a worker or a command of that environment would find half of one version and half
    of another."""
    shutil.copy(ROOT / "Makefile", project)
    (project / ".venv" / "bin").mkdir(parents=True)
    with subprocess.Popen(
        ["sleep", "60"], executable="/bin/sleep"
    ) as other:  # of another environment: is no matter
        done = subprocess.run(
            ["make", "-n", "install"], cwd=project, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        other.kill()
    with subprocess.Popen(
        [f"{project}/.venv/bin/python", "60"], executable="/bin/sleep"
    ) as running:
        try:
            done = subprocess.run(
                ["make", "install"], cwd=project, capture_output=True, text=True, check=False
            )
        finally:
            running.kill()
    assert (
        done.returncode != 0
        and "nothing to run from .venv" in done.stderr
        and "Installing" not in done.stdout
    )


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (
            "requirements/run.lock",
            "\nrfc8785==0.1.4",
            "\nrfc8785==0.1.3",
            "rfc8785: expected 0.1.4 as in constraints.txt",
        ),
        (
            "requirements/run.lock",
            "\nrfc8785==0.1.4",
            "\nstranger==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\nrfc8785==0.1.4",
            "stranger: stands in no constraints.txt",
        ),
        (
            "constraints.txt",
            "rfc8785==0.1.4\n",
            "rfc8785==0.1.4\nstranger==1.0\n",
            "stranger: pinned in constraints.txt",
        ),
        (
            "pyproject.toml",
            '"rfc8785",',
            '"rfc8785>=7",',
            "rfc8785: pyproject.toml wants rfc8785>=7",
        ),
        (
            "pyproject.toml",
            '"rfc8785",',
            '"rfc8785", "stranger",',
            "requirements/run.lock has none",
        ),
        (
            "pyproject.toml",
            'requires = ["setuptools>=77"]',
            'requires = ["setuptools>=77", "stranger"]',
            "stranger",
        ),
        ("pyproject.toml", "distributed>=2026.8", "distributed>=2099", "requirements/servers.lock"),
        (
            "requirements/torch-cpu.lock",
            "sha256:6746dbcb",
            "sha256:00000000",
            "torch: expected its CPU build alone",
        ),
        (
            "requirements/torch.lock",
            "\ntorch==2.13.0 ",
            "\ntorch==2.12.0 ",
            "torch: pyproject.toml wants torch==2.13.0",
        ),
    ],
)
def test_a_lock_that_does_not_fit_is_told(
    project: Path, file: str, old: str, new: str, expected: str
) -> None:
    _change(project / file, lambda text: text.replace(old, new, 1))
    assert any(expected in problem for problem in problems(project))


@pytest.mark.parametrize("file", ["build", "run", "dev", "servers", "stack", "torch", "torch-cpu"])
def test_an_entry_without_a_hash_is_told(project: Path, file: str) -> None:
    path = project / "requirements" / f"{file}.lock"
    first = entries(path.read_text())[0]
    _change(path, lambda text: text.replace(first.text, f"{first.name}=={first.version}", 1))
    assert any("expected sha256 hashes, got 0" in problem for problem in problems(project))


@pytest.mark.parametrize(
    "line", ["rfc8785", "rfc8785>=0.1", "-e .", "--index-url x", "rfc8785 @ file"]
)
def test_a_line_that_pins_nothing_is_no_entry(line: str) -> None:
    with pytest.raises(ValueError, match="NAME==VERSION"):
        entries(line)
