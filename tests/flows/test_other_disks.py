"""Directories of the system's on other disks, through a whole erasure."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.prefect_flows.train import train
from flows.use_cases.requests import take_requests
from flows.workspace.workspace import Workspace
from s3t_core.errors import WorkspaceError
from s3t_core.files import OWNER
from tests.faults.test_disks import on_disk
from tests.flows.conftest import CANARY, people, write_csv

pytestmark = pytest.mark.slow


def test_no_certificate_is_given_while_rows_or_stages_are_on_a_disk_that_is_away(
    trained: Callable[..., Workspace], tmp_path: Path
) -> None:
    place = trained(canary=True)
    folders = [tmp_path / name for name in ("quarantine", "activations", "mlartifacts", "tmp")]
    for folder in folders:
        on_disk(folder, place, f".s3t/{folder.name}")
    train(str(place.root))  # nothing: but it names them
    take_requests(Workspace(place.root), [CANARY])
    for folder in folders:
        away = folder.rename(folder.with_name("away"))
        folder.mkdir()
        with pytest.raises(WorkspaceError, match="stood on another disk"):
            erase(str(place.root))
        folder.rmdir()
        away.rename(folder)
    assert not list(place.certificates_dir.glob("*.json"))
    assert len(erase(str(place.root))["certificates"]) == 1
    assert all((folder / OWNER).is_file() for folder in folders)


def test_an_ingest_spools_to_another_file_system(
    make_place: Callable[..., Workspace], tmp_path: Path
) -> None:
    place = make_place()
    source = write_csv(tmp_path / "people.csv", people())
    memory = "/dev/shm"  # noqa: S108  # another file system on every Linux
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        if Path(folder).stat().st_dev == place.root.stat().st_dev:
            pytest.skip("needs a second file system")
        (place.state_dir / "tmp").symlink_to(folder)
        first = ingest(str(place.root), str(source))
        assert first["changed"] and not ingest(str(place.root), str(source))["changed"]
        assert [p.name for p in Path(folder).iterdir()] == [OWNER]
        assert not (place.state_dir / "placing").exists()
