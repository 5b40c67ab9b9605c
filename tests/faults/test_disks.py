"""A directory of the system's on another disk, behind a link or as a mount: while that disk is away
nothing is found in its place, so nothing is changed, erased or certified."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.adapters import disks
from flows.use_cases.requests import take_requests
from flows.workspace import access
from flows.workspace.creating import create_workspace
from flows.workspace.sweeping import sweep
from flows.workspace.workspace import Workspace
from s3t_core.errors import S3TError, WorkspaceError
from s3t_core.files import OWNER
from s3t_core.learning.activation_store import ActivationStore
from tests.flows.conftest import tiny_config

OF_STATE = ["quarantine", "activations", "mlartifacts", "tmp", "needles", "next", "loading"]
OF_STATE += ["certificates", "reports", "stages", "remote", "dvc-site", "prefect"]
DIRECTORIES = [f".s3t/{name}" for name in OF_STATE]
DIRECTORIES += [".dvc/cache", ".dvc/tmp", ".dvc/cache/files", ".s3t/remote/files/md5"]
DIRECTORIES += [".git/objects"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workspace]:
    yield create_workspace(tmp_path / "w", tiny_config(tmp_path / "no backbone"), b"\x05" * 32)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "disk"


def on_disk(disk: Path, place: Workspace, name: str) -> None:
    """Put a directory of the workspace on another disk, as an operator does."""
    path = place.root / name
    path.mkdir(parents=True, exist_ok=True)
    shutil.move(path, disk)
    path.symlink_to(disk)


def _change(place: Workspace) -> Workspace:
    again = Workspace(place.root)
    with access.changing(again) as held:
        sweep(again, held)
    return again


@pytest.mark.parametrize("name", DIRECTORIES)
def test_nothing_is_changed_while_the_disk_is_away(place: Workspace, disk: Path, name: str) -> None:
    on_disk(disk, place, name)
    assert _change(place).ledger.state().disks == [name]
    disk.rename(disk.with_name("elsewhere"))
    disk.mkdir()  # the place that it is mounted at
    with pytest.raises(WorkspaceError, match=f"expected {name}, which stood on another disk"):
        _change(place)
    (place.root / name).unlink()
    (place.root / name).mkdir()  # nor where the link was taken away
    with pytest.raises(WorkspaceError, match=f"expected {name}, which stood on another disk"):
        _change(place)
    disk.rmdir()
    disk.with_name("elsewhere").rename(disk)
    (place.root / name).rmdir()
    (place.root / name).symlink_to(disk)
    assert _change(place).ledger.state().disks == [name]  # named once


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_directory_that_was_moved_back_with_its_mark_is_none_of_another_disk(
    place: Workspace, disk: Path, name: str
) -> None:
    on_disk(disk, place, name)
    _change(place)
    (place.root / name).unlink()
    shutil.move(disk, place.root / name)
    for _ in range(3):
        _change(place)


def test_a_disk_that_was_destroyed_is_given_up_by_hand(place: Workspace, disk: Path) -> None:
    on_disk(disk, place, ".s3t/quarantine")
    _change(place)
    shutil.rmtree(disk)
    (place.root / ".s3t/quarantine").unlink()
    with pytest.raises(WorkspaceError, match=rf"empty file .s3t/quarantine/{OWNER}"):
        _change(place)
    (place.root / ".s3t/quarantine").mkdir()
    (place.root / ".s3t/quarantine" / OWNER).touch()
    _change(place)


def test_a_directory_of_another_workspaces_is_none_of_ours(
    place: Workspace, disk: Path, tmp_path: Path
) -> None:
    other = create_workspace(tmp_path / "o", tiny_config(tmp_path / "no backbone"), b"\x06" * 32)
    on_disk(disk, other, ".s3t/activations")
    _change(other)
    path = place.root / ".s3t/activations"
    path.symlink_to(disk)
    with pytest.raises(S3TError, match="mark of another workspace"):
        _change(place)


def test_no_id_is_taken_in_while_the_disk_that_keeps_it_is_away(
    place: Workspace, disk: Path
) -> None:
    on_disk(disk, place, ".s3t/needles")
    take_requests(place, ["ann"])
    disk.rename(disk.with_name("elsewhere"))
    disk.mkdir()
    with pytest.raises(WorkspaceError, match=r"expected .s3t/needles, which stood on another disk"):
        take_requests(Workspace(place.root), ["bob"])
    assert [r.request_id for r in place.requests.pending()] == list(place.ledger.state().requests)
    assert not any(disk.iterdir())


@pytest.mark.parametrize("name", [".s3t/quarantine", ".s3t/tmp", ".dvc/cache/files/md5/ab"])
def test_a_mount_is_another_disk(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    path = place.root / name
    path.mkdir(parents=True)
    escaped = str(path.resolve()).replace(" ", r"\040")
    told = tmp_path / "mountinfo"
    told.write_text(
        "22 1 0:21 / / rw - overlay overlay rw\n"
        f"36 22 98:0 / {escaped} rw,noatime shared:1 - ext4 /dev/root rw\n"
        f"37 22 98:0 / {place.root.resolve()}/.s3t/keys ro - tmpfs tmpfs ro\n"
        f"38 22 98:0 / {tmp_path}/beside rw - tmpfs tmpfs rw\n"
    )
    monkeypatch.setattr(disks, "_MOUNTS", told)
    monkeypatch.setattr(Path, "is_mount", lambda self: self == path)
    assert _change(place).ledger.state().disks == [name]
    told.write_text("22 1 0:21 / / rw - overlay overlay rw\n")
    shutil.rmtree(path)
    path.mkdir()
    with pytest.raises(WorkspaceError, match=f"expected {name}, which stood on another disk"):
        _change(place)


def test_a_kernel_that_tells_of_no_mounts_is_asked_for_links_alone(
    place: Workspace, disk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(disks, "_MOUNTS", tmp_path / "none")
    on_disk(disk, place, ".s3t/tmp")
    assert _change(place).ledger.state().disks == [".s3t/tmp"]


def test_a_workspace_on_one_disk_has_nothing_named(place: Workspace) -> None:
    assert _change(place).ledger.state().disks == []


def test_what_is_emptied_keeps_the_mark(place: Workspace, disk: Path) -> None:
    on_disk(disk, place, ".s3t/activations")
    place = _change(place)
    store = ActivationStore(place.state_dir / "activations", 2**20, b"\x07" * 32)
    (disk / ("ab" * 32)).mkdir()
    store.allow({"cd" * 32})
    assert (disk / OWNER).is_file() and not (disk / ("ab" * 32)).exists()


@pytest.mark.parametrize("folder", ["", "models"])
def test_what_is_left_over_in_a_registry_is_not_the_mark(place: Workspace, folder: str) -> None:
    """It may be a mount of its own, at either depth."""
    marked = place.state_dir / "mlartifacts" / folder
    marked.mkdir(parents=True, exist_ok=True)
    for name in (OWNER, "left"):
        (marked / name).touch()
    assert place.begin_registry().remove_leftovers([])
    assert [p.name for p in marked.iterdir() if p.is_file()] == [OWNER]
    assert not place.registry.remove_leftovers([])
