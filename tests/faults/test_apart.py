"""A place that a setting names may be reached by a link, but leads to none of the system's own and
to no other workspace's: an erasure empties it of what its ledger does not know."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.adapters.footing import check_apart
from flows.workspace import access
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.errors import GuaranteeError
from tests.flows.conftest import tiny_config

SYSTEMS = [".s3t/keys", ".s3t/stages", ".s3t", ".", "data", ".git", ".dvc", ".git/objects", ".."]
SYSTEMS += ["../other", "../other/.s3t", "../other/.s3t/keys", "../other/anything", "../around"]
SYSTEMS += ["../second", "../second/within"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workspace]:
    place = create_workspace(tmp_path / "w", tiny_config(tmp_path / "no backbone"), b"\x05" * 32)
    (place.state_dir / "stages").mkdir()
    (place.root / "data").mkdir(exist_ok=True)
    for other in (tmp_path / "other", tmp_path / "around" / "other"):
        (other / ".s3t" / "keys").mkdir(parents=True)
        (other / "anything").mkdir()
    (tmp_path / "second" / "within").mkdir(parents=True)
    yield place


@pytest.mark.parametrize("section", ["store", "dvc"])
def test_nothing_is_changed_where_a_setting_names_such_a_link(
    place: Workspace, tmp_path: Path, section: str
) -> None:
    (tmp_path / "first").symlink_to(place.keys_dir)
    name = {"store": "url", "dvc": "remote"}[section]
    with (place.root / "s3t.toml").open() as file:
        lines = [line for line in file if not line.startswith(f"{name} = ")]
    there = lines.index(f"[{section}]\n")
    lines.insert(there + 1, f"{name} = '{tmp_path / 'first'}'\n")
    (place.root / "s3t.toml").write_text("".join(lines))
    with (
        pytest.raises(GuaranteeError, match=r"made for it alone"),
        access.changing(Workspace(place.root)),
    ):
        pass


@pytest.mark.parametrize("way", ["", "by way of another"])
@pytest.mark.parametrize("target", SYSTEMS)
def test_a_link_to_a_place_of_the_systems_own_is_refused(
    place: Workspace, tmp_path: Path, target: str, way: str
) -> None:
    led = place.root / target
    if way:
        (tmp_path / "way").symlink_to(led)
        led = tmp_path / "way"
    (tmp_path / "first").symlink_to(led)
    with pytest.raises(GuaranteeError, match="made for it alone"):
        check_apart(place.root, [tmp_path / "first", tmp_path / "second"])


def test_a_place_that_is_mounted_at_another_is_found(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount takes root: told by a directory that says it is another."""
    (tmp_path / "first").mkdir()
    same = {tmp_path / "first", tmp_path / "second"}
    told = Path.samefile
    monkeypatch.setattr(
        Path, "samefile", lambda one, other: {one, Path(other)} == same or told(one, other)
    )
    with pytest.raises(GuaranteeError, match="made for it alone"):
        check_apart(place.root, [tmp_path / "first", tmp_path / "second"])


def test_each_may_lie_on_a_disk_of_its_own(place: Workspace, tmp_path: Path) -> None:
    places = [tmp_path / "first", tmp_path / "third"]
    for path in places:
        (tmp_path / "disks" / path.name).mkdir(parents=True)
        path.symlink_to(tmp_path / "disks" / path.name)
    check_apart(place.root, [*places, place.state_dir / "stages"])
