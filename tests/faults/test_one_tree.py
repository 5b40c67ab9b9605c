"""What the system keeps lies in directories of its own: none is a link, and nothing is mounted
there, because while such a disk is away nothing is found in its place and what is on it would
outlive an erasure. A place that a setting names may lie on another disk, as a whole."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.adapters import footing
from flows.use_cases.taking import take_requests
from flows.workspace import access, stores
from flows.workspace.creating import create_workspace
from flows.workspace.sweeping import sweep
from flows.workspace.workspace import Workspace
from s3t_core.errors import GuaranteeError
from tests.flows.conftest import tiny_config
from tests.worktree import as_worktree

OF_STATE = ["quarantine", "activations", "mlartifacts", "tmp", "needles", "next", "loading"]
OF_STATE += ["certificates", "reports", "stages", "remote", "dvc-site", "prefect", "away", "x"]
OF_STATE += ["placing", "mlartifacts/models", "prefect/storage", "certificates/older"]
DIRECTORIES = [".s3t", "data", ".dvc", ".git", *(f".s3t/{name}" for name in OF_STATE)]
DIRECTORIES += ["data/shard=00", ".dvc/cache", ".dvc/tmp", ".dvc/x", ".git/objects"]
DIRECTORIES += [".git/objects/pack"]
OF_DVC = ["files", "files/md5", "files/md5/ab"]
DIRECTORIES += [f"{place}/{name}" for place in (".dvc/cache", ".s3t/remote") for name in OF_DVC]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workspace]:
    yield create_workspace(tmp_path / "w", tiny_config(tmp_path / "no backbone"), b"\x05" * 32)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "disk"


def _on_disk(disk: Path, path: Path) -> None:
    """Put a directory on another disk behind a link, as an operator does."""
    path.mkdir(parents=True, exist_ok=True)
    shutil.move(path, disk)
    path.symlink_to(disk)


def _changes(place: Workspace) -> None:
    with access.changing(Workspace(place.root)) as held:
        sweep(Workspace(place.root), held)


def _trains(place: Workspace) -> None:
    with access.training(Workspace(place.root)):
        pass


def _files(folder: Path) -> set[str]:
    return {str(p) for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock")}


@pytest.mark.long
@pytest.mark.parametrize("act", [_changes, _trains])
@pytest.mark.parametrize("name", DIRECTORIES)
def test_nothing_is_changed_while_a_directory_is_a_link(
    place: Workspace, tmp_path: Path, disk: Path, name: str, act: Callable[[Workspace], None]
) -> None:
    """Whether its disk is there or away."""
    _on_disk(disk, place.root / name)
    before = _files(tmp_path)
    with pytest.raises(GuaranteeError, match=rf"expected {name} .*got a link"):
        act(place)
    if name not in (".s3t", ".git"):  # without those there is no workspace
        disk.rename(disk.with_name("away"))
        with pytest.raises(GuaranteeError, match=rf"expected {name} .*got a link"):
            act(place)
        disk.with_name("away").rename(disk)
    assert _files(tmp_path) == before


def _told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *places: Path) -> None:
    """A kernel that tells of mounts at these places: a mount itself takes root."""
    escaped = [str(each.resolve()).replace(" ", r"\040") for each in places]
    lines = ["22 1 0:21 / / rw - overlay overlay rw"]
    lines += [f"{36 + n} 22 98:0 / {each} rw - ext4 /dev/x rw" for n, each in enumerate(escaped)]
    told = tmp_path / "mountinfo"
    told.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(footing, "_MOUNTS", told)


@pytest.mark.long
@pytest.mark.parametrize("name", DIRECTORIES)
def test_nothing_is_changed_while_something_is_mounted_there(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (place.root / name).mkdir(parents=True, exist_ok=True)
    _changes(place)
    _told(tmp_path, monkeypatch, place.root / name)
    with pytest.raises(GuaranteeError, match=rf"expected {name} .*got a mount"):
        _changes(place)


def test_what_is_mounted_beside_or_around_is_no_hindrance_and_keys_may_be(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container has its keys from a volume of secrets, and the workspace from another."""
    (place.root / "notes").mkdir()
    within = place.keys_dir / "within"
    within.mkdir()
    mounts = [tmp_path, place.root, place.root / "notes", place.keys_dir, within, tmp_path / ".s3t"]
    _told(tmp_path, monkeypatch, *mounts)
    (place.keys_dir / "..data").symlink_to(within)  # as Kubernetes lays secrets out
    _changes(place)
    take_requests(place, ["ann"])
    _on_disk(tmp_path / "secrets", place.keys_dir)
    _changes(place)


@pytest.mark.parametrize("kind", ["link", "mount"])
@pytest.mark.parametrize("name", [".s3t", ".s3t/needles"])
def test_no_id_is_taken_in_where_another_disk_would_keep_it(
    place: Workspace,
    disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: str,
) -> None:
    if kind == "link":
        _on_disk(disk, place.root / name)
    else:
        (place.root / name).mkdir(exist_ok=True)
        _told(tmp_path, monkeypatch, place.root / name)
    before = place.ledger.head()
    with pytest.raises(GuaranteeError, match=rf"expected {name} .*got a {kind}"):
        take_requests(Workspace(place.root), ["ann"])
    assert place.ledger.head() == before


def test_a_request_is_taken_whatever_lies_elsewhere(place: Workspace, disk: Path) -> None:
    """Nothing but where it is kept holds up who asks."""
    _on_disk(disk, place.state_dir / "quarantine")
    assert take_requests(Workspace(place.root), ["ann"])


@pytest.mark.parametrize("name", OF_DVC)
@pytest.mark.parametrize("what", ["cache", "remote"])
def test_dvcs_directories_of_a_cache_or_remote_elsewhere_are_none_of_links(
    place: Workspace, tmp_path: Path, disk: Path, what: str, name: str
) -> None:
    """Nor of a cache that is new, before the ledger hears of it and anything is written there."""
    elsewhere = tmp_path / "elsewhere"
    _on_disk(disk, elsewhere / name)
    local = (
        "[cache]\n    dir = {}\n" if what == "cache" else "['remote \"second\"']\n    url = {}\n"
    )
    (place.root / ".dvc" / "config.local").write_text(local.format(elsewhere))
    opened = Workspace(place.root)
    with (
        pytest.raises(GuaranteeError, match=rf"{Path(name).name} .*got a link"),
        access.changing(opened) as held,
    ):
        stores.pin_settings(opened, held)
    assert Workspace(place.root).ledger.state().caches == {}
    with pytest.raises(GuaranteeError, match=rf"{Path(name).name} .*got a link"):
        opened.datasets.find([], [], set())


def test_a_cache_elsewhere_may_lie_on_another_disk_as_a_whole(
    place: Workspace, tmp_path: Path, disk: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    _on_disk(disk, elsewhere)
    (place.root / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {elsewhere}\n")
    opened = Workspace(place.root)
    with access.changing(opened) as held:
        stores.pin_settings(opened, held)
    assert opened.ledger.state().caches == {str(elsewhere): False}
    _changes(place)
    (place.root / ".dvc" / "config.local").unlink()  # by another account, which does not know it
    (elsewhere / "files" / "md5").rmdir()
    (elsewhere / "files" / "md5").symlink_to(tmp_path / "away")
    with pytest.raises(GuaranteeError, match="got a link"):
        _changes(place)


def test_a_kernel_that_tells_of_no_mounts_is_asked_for_links_alone(
    place: Workspace, disk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(footing, "_MOUNTS", tmp_path / "none")
    _changes(place)
    _on_disk(disk, place.state_dir / "tmp")
    with pytest.raises(GuaranteeError, match="got a link"):
        _changes(place)


@pytest.mark.parametrize("within", OF_DVC)
def test_nothing_is_mounted_below_a_place_that_a_setting_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: str
) -> None:
    """The place itself may be a mount."""
    place = tmp_path / "elsewhere"
    (place / within).mkdir(parents=True)
    _told(tmp_path, monkeypatch, place)
    footing.check_place(place)
    footing.check_places_of_dvc(tmp_path / "w", [place])
    _told(tmp_path, monkeypatch, place / within)
    with pytest.raises(GuaranteeError, match="got a mount"):
        footing.check_place(place)
    with pytest.raises(GuaranteeError, match="got a mount"):
        footing.check_places_of_dvc(tmp_path / "w", [place])


@pytest.mark.parametrize("kind", ["link", "mount", "mount of all"])
def test_objects_that_a_second_worktree_shares_stand_on_directories_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    home = tmp_path / "main.git"
    root = tmp_path / "w"
    (root / ".git" / "objects" / "pack").mkdir(parents=True)
    (root / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    as_worktree(root, home)
    footing.check_footing(root)
    if kind == "link":
        (home / "objects").rename(tmp_path / "disk")
        (home / "objects").symlink_to(tmp_path / "disk")
    else:
        _told(tmp_path, monkeypatch, home / "objects" / ("pack" if kind == "mount" else ""))
    with pytest.raises(GuaranteeError, match=r"expected .*objects.*got a"):
        footing.check_footing(root)


@pytest.mark.parametrize("name", ["a b", "a\tb", "a\nb", "a\\b", "a\x0bb", "a\u2028b", "a\x85b"])
def test_mounts_are_told_whatever_they_are_called(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The kernel escapes what would end a member or a line of its own, and nothing else."""
    mounted = place.state_dir / "stages" / name
    mounted.mkdir(parents=True)
    escaped = str(mounted.resolve()).replace("\\", r"\134")
    for character, code in ((" ", r"\040"), ("\t", r"\011"), ("\n", r"\012")):
        escaped = escaped.replace(character, code)
    told = tmp_path / "mountinfo"
    told.write_bytes(f"36 22 98:0 / {escaped} rw - ext4 /dev/x rw\n\n".encode())
    monkeypatch.setattr(footing, "_MOUNTS", told)
    with pytest.raises(GuaranteeError, match="got a mount"):
        _changes(place)
    told.write_text("36 22 98:0 / /elsewhere rw - ext4 /dev/x rw\n36 22\n")
    _changes(place)


@pytest.mark.parametrize("kind", ["link", "mount"])
@pytest.mark.parametrize("where", ["", "big"])
@pytest.mark.parametrize("what", ["store", "remote", "cache"])
def test_a_place_in_the_workspace_by_its_path_lies_there(
    tmp_path: Path,
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    where: str,
    kind: str,
) -> None:
    """It bears no mark by which it would be missed while its disk is away, or that of a directory
    on the way to it."""
    name = f"{where}/place" if where else "place"
    settings = {"store": {"store": {"url": name}}, "remote": {"dvc": {"remote": name}}}
    config = tiny_config(tmp_path / "no backbone", **settings.get(what, {}))
    place = create_workspace(tmp_path / "w", config, b"\x05" * 32)
    if what == "cache":
        (place.root / ".dvc" / "config.local").write_text(f"[cache]\n    dir = ../{name}\n")
    odd = place.root / (where or name)
    if kind == "link":
        _on_disk(disk, odd)
    else:
        odd.mkdir(exist_ok=True)
        _told(tmp_path, monkeypatch, odd)
    opened = Workspace(place.root)
    with (
        pytest.raises(GuaranteeError, match=rf"expected {where or name} .*got a {kind}"),
        access.changing(opened) as held,
    ):
        stores.pin_settings(opened, held)


def test_a_remote_of_the_users_configuration_is_looked_at(
    place: Workspace, tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "home" / "dvc" / "config"
    theirs.parent.mkdir(parents=True)
    theirs.write_text(f"['remote \"mine\"']\n    url = {tmp_path / 'mine'}\n")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(theirs.parent))
    _on_disk(disk, tmp_path / "mine" / "files" / "md5")
    with pytest.raises(GuaranteeError, match="got a link"):
        Workspace(place.root).datasets.find([], [], set())


def test_a_new_workspace_is_not_begun_on_another_disk(tmp_path: Path, disk: Path) -> None:
    _on_disk(disk, tmp_path / "w" / ".s3t")
    with pytest.raises(GuaranteeError, match=r"expected .s3t .*got a link"):
        create_workspace(tmp_path / "w", tiny_config(tmp_path / "no backbone"), b"\x05" * 32)
    assert not any(disk.iterdir())


def test_a_single_file_that_is_opened_by_its_name_may_be_mounted(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings of containers; and what holds no rows of git's."""
    names = [".dvc/config", ".git/config", ".git/hooks"]
    _told(tmp_path, monkeypatch, *(place.root / name for name in names))
    _changes(place)


def test_nothing_of_an_earlier_version_is_fetched_to_another_disk(
    place: Workspace, disk: Path
) -> None:
    """By a command that asks before it holds the workspace."""
    _on_disk(disk, place.temporary_dir)
    with (
        pytest.raises(GuaranteeError, match=r"expected .s3t/tmp .*got a link"),
        place.datasets.files.earlier(["ab" * 16]),
    ):
        pass
    assert not any(disk.iterdir())
