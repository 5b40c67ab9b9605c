"""Where versions are pushed, as DVC reads it: whatever the directory is called."""

import tempfile
from pathlib import Path

import pytest
from configobj import ConfigObj
from dvc.repo import Repo
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.adapters.dvc_repository import DvcRepository, init_repositories, write_remote
from s3t_core.config.places import DvcConfig
from s3t_core.errors import StorageError

ODD = ["Data, Inc", "n #1", "q'uote", 'q"uote', "$HOME", "~", "a%b", "ü", "[x]", "a=b", "st ör"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    init_repositories(root, ".s3t/remote")
    return root


def _read(root: Path) -> str:
    with Repo(str(root)) as repo:
        return str(repo.config["remote"]["s3t"]["url"])


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("below", [True, False])
def test_a_remote_is_read_as_the_settings_name_it(made: Path, name: str, below: bool) -> None:
    remote = DvcConfig(remote=f"remotes/{name}" if below else f"/srv/{name}").remote
    write_remote(made, remote)
    place = made / remote if below else Path(remote)
    assert Path(_read(made)).resolve() == place.resolve()


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_remote_that_the_settings_take_can_be_written(name: str) -> None:
    try:
        remote = DvcConfig(remote=f"/srv/{name}").remote
    except ValidationError:
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ".dvc").mkdir()
        write_remote(Path(folder), remote)
        with (Path(folder) / ".dvc/config").open("rb") as file:
            read = ConfigObj(file).dict()
    assert read['remote "s3t"']["url"] == remote


@pytest.mark.parametrize("name", ["a%(x)s", "tail ", " head", "two\nlines", "t\tab", "'\""])
def test_a_remote_that_dvc_cannot_hold_is_refused_by_the_settings(name: str) -> None:
    with pytest.raises(ValidationError, match="name it otherwise"):
        DvcConfig(remote=name)


def test_a_remote_that_would_be_read_as_another_is_not_written(made: Path) -> None:
    before = (made / ".dvc/config").read_bytes()
    with pytest.raises(StorageError, match="plainer name"):
        write_remote(made, "/srv/a%(x)s")
    assert (made / ".dvc/config").read_bytes() == before


@pytest.mark.parametrize("line", ["url = a, b", "url = %(x)s/y", "url"])
def test_configuration_that_dvc_cannot_take_is_told_in_a_sentence(
    made: Path, tmp_path: Path, line: str
) -> None:
    (made / ".dvc/config.local").write_text(f"['remote \"other\"']\n    {line}\n")
    repository = DvcRepository(made, ".s3t/remote")
    try:
        with pytest.raises(StorageError, match=r"\.dvc/config"), repository.opened():
            pass
    finally:
        (made / ".dvc/config.local").unlink()
