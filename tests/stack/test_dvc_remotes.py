"""Remotes in buckets, as DVC with its own client of S3 takes them: no server is needed to say where
it would go."""

import os
import threading
from pathlib import Path

import fsspec.config
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from s3fs import S3FileSystem

from flows.adapters import dvc_repository, s3
from flows.adapters.dvc_repository import DvcRepository, init_repositories
from flows.adapters.s3 import S3Blobs
from flows.settings import prepare_environment
from s3t_core.config.places import DvcConfig
from s3t_core.errors import StorageError


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


@settings(max_examples=200, deadline=None)
@given(st.text("ab/.#?%@ é-", min_size=1, max_size=12))
def test_a_place_in_a_bucket_that_the_settings_take_is_the_same_one_to_dvc(prefix: str) -> None:
    try:
        url = DvcConfig(remote=f"s3://bucket/{prefix}").remote
    except ValidationError:
        return
    ours, theirs = S3Blobs(url), S3FileSystem._strip_protocol(url)
    assert f"{ours.bucket}/{ours.prefix}".rstrip("/") == theirs.rstrip("/")


@pytest.mark.parametrize("how", ["a file of the user's", "a variable"])
def test_what_tells_fsspec_of_another_server_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It stands beside DVC's own settings, and above AWS's."""
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
