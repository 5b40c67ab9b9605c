"""A directory that hands its rights down (a default ACL, as shared project directories have): Linux
sets this process's mask aside there. Who may write git's settings has it run programs."""

import errno
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.adapters.footing import check_footing
from flows.use_cases.ingesting import ingest_source
from flows.workspace.creating import create_workspace
from flows.workspace.workspace import Workspace
from s3t_core.errors import GuaranteeError
from tests.flows.conftest import people, tiny_config, write_csv
from tests.held import HELD
from tests.worktree import as_worktree

_NOBODY = 65534
_OWNER, _USER, _GROUP, _MASK, _OTHERS = 1, 2, 4, 16, 32
_NO_ID = 2**32 - 1


def _acl(*entries: tuple[int, int, int]) -> bytes:
    """As the kernel keeps one (linux/posix_acl_xattr.h)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)


_TO_NOBODY = _acl(
    (_OWNER, 7, _NO_ID), (_USER, 7, _NOBODY), (_GROUP, 5, _NO_ID), (_MASK, 7, _NO_ID),
    (_OTHERS, 0, _NO_ID),
)  # fmt: skip
_TO_ALL = _acl((_OWNER, 7, _NO_ID), (_GROUP, 7, _NO_ID), (_OTHERS, 7, _NO_ID))


def _hand_down(folder: Path, rights: bytes) -> Path:
    folder.mkdir()
    _give(folder, "default", rights)
    return folder


def _give(path: Path, kind: str, rights: bytes) -> None:
    try:
        os.setxattr(path, f"system.posix_acl_{kind}", rights)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            pytest.skip("a file system without ACLs")
        raise


def _open(folder: Path, rights: int) -> Iterator[Path]:
    """What others may read (or write) below a directory, going where they may go."""
    for entry in folder.iterdir():
        mode = entry.lstat().st_mode
        if entry.is_symlink():
            continue
        if mode & rights:
            yield entry
        if entry.is_dir() and mode & 0o011:
            yield from _open(entry, rights)


@pytest.mark.parametrize("rights", [_TO_NOBODY, _TO_ALL], ids=["one user", "everybody"])
def test_what_a_workspace_keeps_is_closed_where_directories_hand_down_rights(
    tmp_path: Path, rights: bytes
) -> None:
    team = _hand_down(tmp_path / "team", rights)
    config = tiny_config(
        tmp_path / "no backbone", dvc={"remote": "../remote"}, store={"url": "../store"}
    )
    place = create_workspace(team / "w", config, b"\x05" * 32)
    assert list(_open(team, 0o022)) == []
    source = str(write_csv(tmp_path / "people.csv", people()))
    ingest_source(Workspace(place.root), HELD, source, False, 20_000)
    assert list(_open(place.root, 0o022)) == []
    assert {p.relative_to(place.root).as_posix() for p in _open(place.root, 0o044)} <= {
        "s3t.toml", ".gitignore", ".dvcignore", "data.dvc",
    }  # fmt: skip
    assert set(_open(team, 0o077)) - {*place.root.rglob("*")} == {place.root}
    assert [p for p in (team / "store", team / "remote") if not p.is_dir()] == []


_OPENED = (
    ".",
    ".git",
    ".git/config",
    ".git/hooks",
    ".git/hooks/pre-commit",
    ".git/info/attributes",
    ".dvc",
    ".dvc/config",
    ".dvc/config.local",
)


def test_a_directory_that_others_may_write_becomes_no_workspace_and_none_is_opened_to_them_later(
    tmp_path: Path,
) -> None:
    team = _hand_down(tmp_path / "team", _TO_NOBODY)
    (team / "w").mkdir()
    config = tiny_config(tmp_path / "no backbone")
    with pytest.raises(GuaranteeError, match="the workspace to be this user's alone"):
        create_workspace(team / "w", config, b"\x05" * 32)
    (team / "w").chmod(0o755)
    root = create_workspace(team / "w", config, b"\x05" * 32).root
    for name in (".", "data", ".git", ".s3t"):
        (root / name).mkdir(exist_ok=True)
        os.setxattr(root / name, "system.posix_acl_default", _TO_NOBODY)
        with pytest.raises(GuaranteeError, match="to hand no rights down"):
            check_footing(root)
        os.removexattr(root / name, "system.posix_acl_default")
    check_footing(root)


@pytest.mark.parametrize("setting", ["remote", "cache"])
def test_a_place_elsewhere_is_closed_before_rows_come_there(tmp_path: Path, setting: str) -> None:
    team = _hand_down(tmp_path / "team", _TO_ALL)
    place = create_workspace(
        tmp_path / "w",
        tiny_config(
            tmp_path / "no backbone",
            dvc={"remote": str(team / "remote" if setting == "remote" else tmp_path / "remote")},
        ),
        b"\x05" * 32,
    )
    if setting == "cache":
        with (place.root / ".dvc" / "config.local").open("a") as file:
            file.write(f"[cache]\n    dir = {team / 'cache'}\n")
    source = str(write_csv(tmp_path / "people.csv", people()))
    ingest_source(Workspace(place.root), HELD, source, False, 20_000)
    rows = [p for p in team.rglob("*") if p.is_file() and p.read_bytes()[:4] == b"PAR1"]
    open_to_others = {*_open(team, 0o077)}
    assert rows and not open_to_others & {*rows}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opened")
    config = tiny_config(folder / "no backbone")
    return create_workspace(folder / "w", config, b"\x05" * 32).root


@pytest.mark.parametrize("how", ["everybody", "an ACL", "a group"])
@pytest.mark.parametrize("name", _OPENED)
def test_what_has_git_run_programs_is_nobody_elses_to_change(
    made: Path, tmp_path: Path, name: str, how: str
) -> None:
    root = tmp_path / "w"
    shutil.copytree(made, root)
    for each in (".git", ".dvc"):
        (root / each).chmod(0o755)
    path = root / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if name.endswith("hooks") else path.touch()
    check_footing(root)
    path.chmod(0o757 if how == "everybody" else 0o755)
    if how == "an ACL":
        _give(path, "access", _TO_NOBODY)
    if how == "a group":
        if os.geteuid():
            pytest.skip("only root gives files away")
        os.chown(path, -1, 100)
        path.chmod(0o775)
    with pytest.raises(GuaranteeError, match="this user's alone to change"):
        check_footing(root)
    path.chmod(0o755)
    check_footing(root)


@pytest.mark.parametrize("name", ["", "config", "hooks", "hooks/pre-commit", "worktrees/w/HEAD"])
def test_what_has_git_run_programs_may_lie_in_the_repository_of_a_second_worktree(
    made: Path, tmp_path: Path, name: str
) -> None:
    root = as_worktree(shutil.copytree(made, tmp_path / "w"), tmp_path / "main.git")
    check_footing(root)
    path = tmp_path / "main.git" / name
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.mkdir() if name == "hooks" else path.touch()
    path.chmod(0o757)
    with pytest.raises(GuaranteeError, match="this user's alone to change"):
        check_footing(root)
    path.chmod(0o755)
    (root / ".git").chmod(0o666)
    with pytest.raises(GuaranteeError, match=r"expected \.git to be this user's alone to change"):
        check_footing(root)
    (root / ".git").chmod(0o644)
    os.setxattr(tmp_path / "main.git", "system.posix_acl_default", _TO_NOBODY)
    with pytest.raises(GuaranteeError, match=r"main\.git to hand no rights down"):
        check_footing(root)


def test_a_group_of_this_user_alone_and_a_closed_directory_hinder_nobody(
    made: Path, tmp_path: Path
) -> None:
    root = tmp_path / "w"
    shutil.copytree(made, root)
    (root / ".git" / "config").chmod(0o666)  # nobody gets there
    root.chmod(0o775)
    check_footing(root)
    if not os.geteuid():
        os.chown(root, -1, 54321)  # as a container's volume: a group without a name
        check_footing(root)


def test_a_directory_for_git_that_a_kill_left_empty_becomes_one(tmp_path: Path) -> None:
    root = tmp_path / "w"
    (root / ".git").mkdir(parents=True)
    create_workspace(root, tiny_config(tmp_path / "no backbone"))
    assert (root / ".git" / "HEAD").is_file() and not (root / ".git").stat().st_mode & 0o077
