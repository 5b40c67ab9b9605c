"""What is installed from a wheel works where there is no repository."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.flows.conftest import people, write_csv
from tests.flows.test_cli import _settle, environment

pytestmark = [pytest.mark.slow, pytest.mark.minutes]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the packages of a wheel of this project, which was built from a copy."""
    made = tmp_path_factory.mktemp("wheel")
    source = made / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *alone, "-w", str(made), str(source)], check=True)
    (wheel,) = made.glob("*.whl")
    place = made / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(place), str(wheel)], check=True)
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {t for t in tops if ".dist-info" not in t} == {"flows", "s3t_core", "s3t.py"}
    return place


def _s3t(installed: Path, cwd: Path, *arguments: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "s3t", *arguments, "--json"],
        cwd=cwd,
        env={**environment(), "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, object] = json.loads(done.stdout)
    return told


def test_a_wheel_works_in_an_empty_folder(
    installed: Path, tmp_path: Path, tiny_backbone: Path
) -> None:
    code = "import flows, s3t_core, sys; print(flows.__file__, s3t_core.__file__)"
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert all(Path(file).is_relative_to(installed) for file in told)
    _s3t(installed, tmp_path, "init", "W")
    here = tmp_path / "W"
    _settle(here, tiny_backbone)
    taken = _s3t(installed, here, "ingest", str(write_csv(tmp_path / "p.csv", people())))
    assert taken["changed"] is True
    asked = _s3t(installed, here, "request", "person-003")
    assert [r["found"] for r in asked["found"]] == ["in the data"]  # type: ignore[attr-defined]
    done = _s3t(installed, here, "erase")
    assert len(done["certificates"]) == 1  # type: ignore[arg-type]
