"""A directory of the system's may be a link to another disk, but to no place of the system's own:
some are emptied by each sweep, and keys, data or evidence would go with them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.adapters.footing import check_apart
from flows.workspace import access
from flows.workspace.creating import create_workspace
from flows.workspace.sweeping import sweep
from flows.workspace.workspace import Workspace
from s3t_core.errors import GuaranteeError
from tests.flows.conftest import tiny_config

LINKED = ["tmp", "next", "loading", "activations", "needles", "quarantine", "stages", "dvc-site"]
SYSTEMS = ["keys", "certificates", "stages", "reports", ".", "..", "../data", "../.git", "../.dvc"]
SYSTEMS += ["keys/within", "../.git/objects", "../..", "../../other", "../../other/.s3t"]
SYSTEMS += ["../../other/.s3t/keys", "../../other/anything", "../../around", "next", "made/later"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workspace]:
    place = create_workspace(tmp_path / "w", tiny_config(tmp_path / "no backbone"), b"\x05" * 32)
    for name in ("certificates", "stages", "reports", "keys/within", "next", "made/later"):
        (place.state_dir / name).mkdir(parents=True, exist_ok=True)
        (place.state_dir / name / "kept").write_text("x")
    (place.root / "data").mkdir(exist_ok=True)
    for other in (tmp_path / "other", tmp_path / "around" / "other"):
        (other / ".s3t" / "keys").mkdir(parents=True)
        (other / "anything").mkdir()
        (other / "anything" / "kept").write_text("x")
    yield place


def _files(folder: Path) -> set[str]:
    return {str(p) for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock")}


def _link(place: Workspace, name: str, target: Path) -> None:
    path = place.state_dir / name
    if path.is_dir():
        shutil.rmtree(path)
    path.symlink_to(target)


@pytest.mark.parametrize("target", SYSTEMS)
@pytest.mark.parametrize("linked", LINKED)
def test_a_link_to_a_place_of_the_systems_own_is_refused_and_nothing_is_lost(
    place: Workspace, tmp_path: Path, linked: str, target: str
) -> None:
    if target == linked:
        pytest.skip("a link to itself leads nowhere")
    _link(place, linked, Path(target))
    before = _files(tmp_path)
    refused = pytest.raises(GuaranteeError, match=rf"{linked}.*made for it alone|leads to none")
    with refused, access.changing(place) as held:
        sweep(place, held)
    assert _files(tmp_path) == before


def _outside(place: Workspace, tmp_path: Path, what: str) -> Path:
    """A directory of what the system keeps elsewhere, with something in it."""
    target = tmp_path / "elsewhere"
    within = target / "files" / "md5" / "ab"
    within.mkdir(parents=True)
    (within / "kept").write_text("x")
    settings, local = place.root / "s3t.toml", place.root / ".dvc" / "config.local"
    if what == "checkpoints":
        text = settings.read_text()
        assert 'log_checkpoints_to = ""' in text
        settings.write_text(
            text.replace('log_checkpoints_to = ""', f"log_checkpoints_to = '{target}'")
        )
    elif what == "backbone":
        text = settings.read_text().replace(str(tmp_path / "no backbone"), str(target))
        settings.write_text(text)
    elif what == "cache":
        local.write_text(f"[cache]\n    dir = {target}\n")
    elif what == "remote":
        local.write_text(f"['remote \"colleagues\"']\n    url = {target}\n")
    else:
        (target / "a" / "b" / "w" / ".s3t" / "keys").mkdir(parents=True)
    return target


@pytest.mark.parametrize("what", ["checkpoints", "backbone", "cache", "remote", "a workspace deep"])
@pytest.mark.parametrize("linked", ["tmp", "activations"])
def test_a_link_leads_to_nothing_that_is_kept_or_read_elsewhere(
    place: Workspace, tmp_path: Path, what: str, linked: str
) -> None:
    target = _outside(place, tmp_path, what)
    for led in (target, target / "files", tmp_path / "around" / "elsewhere"):
        if led.parent.name == "around":
            target.rename(led)
            target.symlink_to(led)
        _link(place, linked, led)
        opened = Workspace(place.root)
        before = _files(tmp_path)
        if what == "a workspace deep" and led == target / "files":
            (place.state_dir / linked).unlink()
            continue
        with pytest.raises(GuaranteeError, match="made for it alone"), access.changing(opened):
            pass
        assert _files(tmp_path) == before
        (place.state_dir / linked).unlink()


def test_a_place_that_is_mounted_at_another_is_found(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount takes root: told by a directory that says it is another."""
    same = {place.state_dir / "tmp", place.keys_dir}
    place.temporary_dir.mkdir(exist_ok=True)
    told = Path.samefile
    monkeypatch.setattr(
        Path, "samefile", lambda one, other: {one, Path(other)} == same or told(one, other)
    )
    with pytest.raises(GuaranteeError, match="made for it alone"):
        check_apart(place.root)


@pytest.mark.parametrize("second", ["disk", "disk/within", "."])
def test_two_links_lead_to_two_places(place: Workspace, tmp_path: Path, second: str) -> None:
    (tmp_path / "disk" / "within").mkdir(parents=True)
    _link(place, "tmp", tmp_path / "disk")
    _link(place, "next", tmp_path / second)
    with pytest.raises(GuaranteeError, match="made for it alone"):
        check_apart(place.root)


@pytest.mark.parametrize("name", ["store", "remote"])
def test_a_link_leads_to_no_store_and_no_remote(
    place: Workspace, tmp_path: Path, name: str
) -> None:
    (tmp_path / name / "x").mkdir(parents=True)
    for target in (tmp_path / name, tmp_path / name / "x"):
        _link(place, "tmp", target)
        given = {f"{name}s": [tmp_path / name]}
        with pytest.raises(GuaranteeError, match="made for it alone"):
            check_apart(place.root, **given)
        (place.state_dir / "tmp").unlink()


def test_a_link_by_way_of_another_is_followed(place: Workspace, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(place.keys_dir)
    _link(place, "tmp", tmp_path / "way")
    with pytest.raises(GuaranteeError, match="keys"):
        check_apart(place.root)


def test_each_may_lie_on_a_disk_of_its_own(place: Workspace, tmp_path: Path) -> None:
    for name in (*LINKED, "keys", "certificates", "reports"):
        target = tmp_path / "disks" / name
        target.mkdir(parents=True)
        path = place.state_dir / name
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        _link(place, name, target)
    with access.changing(Workspace(place.root)) as held:
        sweep(place, held)
    (tmp_path / "disks" / "state").mkdir()
    place.state_dir.rename(tmp_path / "disks" / "state" / "w")
    place.state_dir.symlink_to(tmp_path / "disks" / "state" / "w")
    check_apart(place.root)
