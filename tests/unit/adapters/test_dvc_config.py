"""Where versions are pushed, as DVC reads it: whatever the directory is called."""

import tempfile
from pathlib import Path

import pytest
from configobj import ConfigObj
from dvc.repo import Repo
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.adapters import dvc_repository
from flows.adapters.dvc_repository import (
    DvcRepository,
    commit_files,
    init_repositories,
    write_remote,
)
from flows.adapters.git import run_git
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


ODD_BUCKETS = ["s3://b/a#1", "s3://b/a?x", "s3://b//a", "s3://b/a/../c", "s3://b/./a", "s3://b/%61"]


@pytest.mark.parametrize("url", ODD_BUCKETS)
def test_a_bucket_that_is_read_as_two_places_is_refused_wherever_it_is_named(
    tmp_path: Path, url: str
) -> None:
    with pytest.raises(ValidationError, match="plain names"):
        DvcConfig(remote=url)
    init_repositories(tmp_path, ".s3t/remote")
    (tmp_path / ".dvc/config").open("a").write(f'[\'remote "second"\']\n    url = "{url}"\n')
    with pytest.raises(StorageError, match="plain names"):
        DvcRepository(tmp_path, ".s3t/remote").remotes()


def test_a_whole_bucket_may_be_a_second_remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_repository, "_check_reached", lambda _: None)
    init_repositories(tmp_path, ".s3t/remote")
    (tmp_path / ".dvc/config").open("a").write("['remote \"second\"']\n    url = s3://copies\n")
    assert [b.url for b in DvcRepository(tmp_path, ".s3t/remote").bucket_remotes()] == [
        "s3://copies"
    ]


def test_what_the_system_commits_names_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stands in a commit could never be certified: it stays for ever."""
    anna, hooks = "anna.smith@example.com", tmp_path / "hooks"
    hooks.mkdir()
    hook = hooks / "prepare-commit-msg"
    hook.write_text(f'#!/bin/sh\necho "Helped-by: {anna}" >> "$1"\n')
    hook.chmod(0o755)
    settings_file = tmp_path / "gitconfig"
    settings_file.write_text(
        f"[user]\n name = {anna}\n email = {anna}\n[author]\n email = {anna}\n name = {anna}\n"
        f"[committer]\n email = {anna}\n name = {anna}\n[core]\n hooksPath = {hooks}\n"
        f"[init]\n templateDir = {hooks}\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings_file))
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", anna)
        monkeypatch.setenv(f"GIT_{who}_EMAIL", anna)
        monkeypatch.setenv(f"GIT_{who}_DATE", f"{anna} 1234567890 +0000")
    monkeypatch.setenv("EMAIL", anna)
    root = tmp_path / "w"
    root.mkdir()
    init_repositories(root, ".s3t/remote")
    (root / "s3t.toml").write_text("x")
    commit_files(root, ["s3t.toml"], "Settings")
    log = run_git("-C", str(root), "log", "--format=%an %ae %cn %ce %B").stdout
    assert log.split() == ["s3t", "s3t@localhost", "s3t", "s3t@localhost", "Settings"]
    assert not [p for p in (root / ".git").rglob("*") if p.is_file() and b"anna" in p.read_bytes()]


def test_a_cache_that_is_opened_to_a_group_is_refused(tmp_path: Path) -> None:
    init_repositories(tmp_path, ".s3t/remote")
    (tmp_path / ".dvc/config.local").write_text("[cache]\n    shared = group\n")
    with pytest.raises(StorageError, match="its owner's alone"):
        DvcRepository(tmp_path, ".s3t/remote").remotes()


def test_a_bucket_that_nothing_here_can_reach_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also another project's, in the configuration of this user; dvc-s3 is not installed."""
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/config").write_text("['remote \"theirs\"']\n    url = s3://theirs/x\n")
    root = tmp_path / "w"
    root.mkdir()
    init_repositories(root, ".s3t/remote")
    with pytest.raises(StorageError, match=r"install s3t\[s3\]"):
        DvcRepository(root, ".s3t/remote").bucket_remotes()
