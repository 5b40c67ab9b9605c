"""Where DVC keeps and pushes rows depends on who runs a command: an erasure reaches all of it,
whoever runs that."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.prefect_flows.erase import erase
from flows.prefect_flows.ingest import ingest
from flows.use_cases.taking import take_requests
from flows.workspace.workspace import Workspace
from s3t_core.errors import S3TError, StorageError, WorkspaceError
from tests.flows.conftest import CANARY, CANARY_TEXT, people, write_csv

pytestmark = pytest.mark.slow
Make = Callable[..., Workspace]


def _holds(folder: Path) -> list[str]:
    """Files of DVC's with rows of the canary."""
    from s3t_core.slicefile import is_slice_file, read_rows

    return [
        p.as_posix()
        for p in folder.rglob("*")
        if p.is_file() and is_slice_file(p) and any(CANARY_TEXT in r.text for r in read_rows(p))
    ]


def _users(folder: Path, cache: Path) -> Path:
    """A user's own configuration of DVC."""
    folder.mkdir()
    (folder / "config").write_text(f"[cache]\n    dir = {cache}\n")
    return folder


def _ingested(place: Workspace, source: Path) -> Workspace:
    ingest(str(place.root), str(write_csv(source, people(canary=True))))
    return Workspace(place.root)


def _erased(place: Workspace) -> dict[str, object]:
    take_requests(Workspace(place.root), [CANARY])
    return erase(str(place.root))


def test_rows_in_the_cache_of_another_users_configuration_go(
    make_place: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, place = tmp_path / "shared", make_place()
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(_users(tmp_path / "users", cache)))
    place = _ingested(place, tmp_path / "people.csv")
    assert _holds(cache) and not _holds(place.root / ".dvc")
    theirs = cache / "files" / "md5" / "ab" / "cdef0123456789abcdef0123456789"
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("another project's")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "nobody"))
    assert _erased(place)["certificates"]
    assert not _holds(cache) and not _holds(place.root) and theirs.exists()
    assert [e["shared"] for e in Workspace(place.root).ledger.events() if e["type"] == "cache"] == [
        True
    ]


@pytest.mark.long_but_first
@pytest.mark.parametrize("lost", [False, True])
def test_rows_in_a_cache_that_the_configuration_no_longer_names_go_or_its_disk_is_waited_for(
    make_place: Make, tmp_path: Path, lost: bool
) -> None:
    place, cache = make_place(), tmp_path / "local"
    (place.root / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n")
    place = _ingested(place, tmp_path / "people.csv")
    (place.root / ".dvc" / "config.local").unlink()
    assert _holds(cache)
    (cache / "files" / "md5" / "00").mkdir(exist_ok=True)
    (cache / "files" / "md5" / "00" / "left.txt").write_text(f"{CANARY} said: {CANARY_TEXT}")
    cache.rename(tmp_path / "disk")
    with pytest.raises(WorkspaceError, match="Mount its disk"):
        _erased(place)
    assert not list(place.certificates_dir.glob("*.json"))
    if lost:
        (cache / "files" / "md5").mkdir(parents=True)
    else:
        (tmp_path / "disk").rename(cache)
        with pytest.raises(
            S3TError, match="in 1 file"
        ):  # it was this repository's own: it is searched whole
            erase(str(place.root))
        (cache / "files" / "md5" / "00" / "left.txt").unlink()
    assert erase(str(place.root))["certificates"] and not _holds(cache) and not _holds(place.root)


@pytest.mark.parametrize("named", ["dir", "local", "local, of the user", "dir, of the user"])
def test_a_cache_is_this_repositorys_own_where_its_configuration_says_where_it_is(
    make_place: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """By a directory, or by the name of a remote, which DVC prefers."""
    place, cache = make_place(), tmp_path / "elsewhere"
    said = f"[cache]\n    dir = {cache}\n"
    if named.startswith("local"):
        said = f"[cache]\n    local = mine\n    dir = {tmp_path / 'not'}\n"
        said += f"['remote \"mine\"']\n    url = {cache}\n"
    if "of the user" in named:
        (tmp_path / "user").mkdir()
        (tmp_path / "user" / "config").write_text(said)
        monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "user"))
        said = "[cache]\n    local = mine\n" if named.startswith("local") else ""
    (place.root / ".dvc" / "config.local").write_text(said)
    found = Workspace(place.root).datasets.repository.new_cache()
    assert found == (str(cache), "of the user" in named)


def test_a_cache_that_a_remote_opens_to_a_group_is_refused(
    make_place: Make, tmp_path: Path
) -> None:
    place = make_place()
    (place.root / ".dvc" / "config.local").write_text(
        f"[cache]\n    local = mine\n['remote \"mine\"']\n    url = {tmp_path / 'x'}\n"
        "    shared = group\n"
    )
    with pytest.raises(StorageError, match="owner's alone"):
        Workspace(place.root).datasets.repository.new_cache()


def test_versions_are_pushed_where_the_settings_say(make_place: Make, tmp_path: Path) -> None:
    place, other = make_place(), tmp_path / "other"
    (place.root / ".dvc" / "config.local").write_text(
        f"[core]\n    remote = other\n['remote \"other\"']\n    url = {other}\n"
        f"['remote \"s3t\"']\n    url = {tmp_path / 'third'}\n"
    )
    (other / "files" / "md5").mkdir(parents=True)
    (tmp_path / "third" / "files" / "md5").mkdir(parents=True)
    place = _ingested(place, tmp_path / "people.csv")
    assert _holds(place.remote) and not _holds(other) and not _holds(tmp_path / "third")
    assert _erased(place)["certificates"] and not _holds(place.root)


def test_an_older_configuration_that_a_restore_brought_back_is_put_right(
    make_place: Make, tmp_path: Path
) -> None:
    place, old = make_place(), tmp_path / "old"
    place = _ingested(place, tmp_path / "people.csv")
    config = place.root / ".dvc" / "config"
    shutil.copytree(place.remote, old)
    config.write_text(
        config.read_text().replace("../.s3t/remote", str(old))
        + (f"['remote \"second\"']\n    url = {tmp_path / 'second'}\n")
    )
    (tmp_path / "second" / "files" / "md5").mkdir(parents=True)
    assert str(old) in config.read_text()
    assert _erased(place)["certificates"] and not _holds(place.root)
    assert str(old) not in config.read_text() and "second" in config.read_text()
    assert Workspace(place.root).datasets.repository.own_remotes() == [
        str(place.remote),
        str(tmp_path / "second"),
    ]
