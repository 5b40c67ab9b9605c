"""Where versions are pushed, as DVC reads it: whatever the directory is called."""

import os
import tempfile
import threading
from pathlib import Path

import pytest
from configobj import ConfigObj
from dvc.repo import Repo
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.adapters import dvc_repository, s3
from flows.adapters.dvc_repository import (
    DvcRepository,
    commit_files,
    init_repositories,
    write_remote,
)
from flows.adapters.git import run_git
from flows.adapters.s3 import S3Blobs
from flows.settings import prepare_environment
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


@pytest.mark.parametrize(
    ("level", "name", "option"),
    [
        ("repo", "second", "endpointurl"),
        ("local", "s3t", "endpointurl"),
        ("local", "second", "profile"),
        ("global", "second", "access_key_id"),
        ("repo", "second", "version_aware"),
        ("repo", "second", "an option of tomorrow"),
    ],
)
def test_a_bucket_that_dvc_would_look_for_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, name: str, option: str
) -> None:
    """What is erased is searched for, and destroyed, where AWS's own settings lead."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "home"))
    root = tmp_path / "w"
    root.mkdir()
    init_repositories(root, "s3://copies/main")
    repository = DvcRepository(root, "s3://copies/main")
    (root / ".dvc/config").open("a").write(
        "['remote \"second\"']\n    url = s3://copies/w\n    jobs = 2\n"
    )
    assert [b.url for b in repository.bucket_remotes()] == ["s3://copies/main", "s3://copies/w"]
    file = {
        "repo": root / ".dvc/config",
        "local": root / ".dvc/config.local",
        "global": tmp_path / "home" / "config",
    }[level]
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as more:
        section = "" if level == "repo" else f"['remote \"{name}\"']\n"
        url = "    url = s3://theirs/x\n" if level == "global" else ""
        more.write(f"{section}{url}    {option} = true\n")
    with pytest.raises(StorageError) as told:
        repository.remotes()
    if option != "an option of tomorrow":  # DVC itself takes no such one
        assert option in str(told.value) and "AWS_ENDPOINT_URL" in str(told.value)


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


@settings(max_examples=200, deadline=None)
@given(st.text("ab/.#?%@ é-", min_size=1, max_size=12))
def test_a_place_in_a_bucket_that_the_settings_take_is_the_same_one_to_dvc(prefix: str) -> None:
    from s3fs import S3FileSystem

    try:
        url = DvcConfig(remote=f"s3://bucket/{prefix}").remote
    except ValidationError:
        return
    ours, theirs = S3Blobs(url), S3FileSystem._strip_protocol(url)
    assert f"{ours.bucket}/{ours.prefix}".rstrip("/") == theirs.rstrip("/")


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


@pytest.mark.parametrize("how", ["a file of the user's", "a variable"])
def test_what_tells_fsspec_of_another_server_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It stands beside DVC's own settings, and above AWS's."""
    import fsspec.config

    for name, value in (("KEY_ID", "a"), ("KEY", "b")):
        monkeypatch.setenv(f"AWS_{'ACCESS' if name == 'KEY_ID' else 'SECRET_ACCESS'}_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(s3, "_CLIENT", threading.local())
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": "http://127.0.0.1:1"})
    if how == "a variable":
        monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", "http://127.0.0.1:1")
    init_repositories(tmp_path, "s3://copies/main")
    repository = DvcRepository(tmp_path, "s3://copies/main")
    assert [b.url for b in repository.bucket_remotes()] == ["s3://copies/main"]
    with repository.opened() as repo:
        client = repo.cloud.get_remote_odb("s3t").fs.fs.s3
        assert client.meta.endpoint_url == "http://127.0.0.1:9"
    prepare_environment(tmp_path)
    assert not [name for name in os.environ if name.startswith("FSSPEC_")]


def test_a_remote_that_is_reached_elsewhere_all_the_same_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    init_repositories(tmp_path, "s3://copies/main")
    monkeypatch.setattr(dvc_repository, "endpoint", lambda: "http://127.0.0.1:1")
    with pytest.raises(StorageError, match="got another one"):
        DvcRepository(tmp_path, "s3://copies/main").bucket_remotes()


def test_a_cache_that_is_opened_to_a_group_is_refused(tmp_path: Path) -> None:
    init_repositories(tmp_path, ".s3t/remote")
    (tmp_path / ".dvc/config.local").write_text("[cache]\n    shared = group\n")
    with pytest.raises(StorageError, match="its owner's alone"):
        DvcRepository(tmp_path, ".s3t/remote").remotes()
