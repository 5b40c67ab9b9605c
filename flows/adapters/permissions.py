"""Files and directories that are their owner's alone.

What is made without a mode, by git and DVC above all, is closed by this process's mask
(flows/settings.py) alone. In a directory with a default ACL Linux sets the mask aside (umask(2)):
a workspace has none, and its places elsewhere are closed before anything comes there.
"""

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from s3t_core.erasure.walk import git_homes
from s3t_core.errors import GuaranteeError

_ACL, _HANDED_DOWN = "system.posix_acl_access", "system.posix_acl_default"
_PROGRAMS = ("hooks", "info")
"""What git runs, or has name what it runs."""


def close_to_others(path: Path) -> None:
    """Make a directory its owner's alone, if there is one; another user's is theirs to open and
    close."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        path.chmod(0o700)


def close_files_to_others(folder: Path) -> None:
    """Make what holds rows below a directory its owner's alone to read: DVC, run by hand, writes it
    as this user's umask has it. What is not theirs to change stays."""
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            mode = path.lstat().st_mode
            if mode & 0o077 and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                path.chmod(stat.S_IMODE(mode) & 0o700)


def as_owner_only(path: Path) -> None:
    """Make a directory its owner's alone."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(path, 0o700)


def refuse_open_to_others(root: Path) -> None:
    """That nobody else may change what has git run programs, or DVC send data elsewhere: their
    settings below a workspace, and what these can be replaced by. Raises GuaranteeError, which
    names the first."""
    homes = git_homes(root / ".git")
    for folder in (root, *homes, *(root / name for name in (".dvc", "data", ".s3t"))):
        if _acl(folder, _HANDED_DOWN):
            raise GuaranteeError(
                f"expected {_shown(folder, root)} to hand no rights down, got "
                "a default ACL, by which what is written there would be open to others; run "
                f"`setfacl -R -k .` in {'it' if folder in homes else 'the workspace'}, then the "
                "command again"
            )
    for path in _deciding(root):
        if _others_may_change(path):
            shown = _shown(path, root)
            raise GuaranteeError(
                f"expected {shown} to be this user's alone to change, got a mode, a group or an "
                "ACL by which others may: they could have git run programs as you, or DVC send "
                f"the data elsewhere. See that nobody did (git config --list), run `chmod go-w "
                f"{path.name if path != root else '.'}` in its directory, then the command again"
            )


def hand_nothing_down(folder: Path) -> None:
    """Take a default ACL off a directory: what is made in it from now on is closed by the mask.
    Another user's is theirs."""
    if _acl(folder, _HANDED_DOWN):
        with contextlib.suppress(PermissionError):
            os.removexattr(folder, _HANDED_DOWN)


def _deciding(root: Path) -> Iterator[Path]:
    yield root
    yield root / ".git"  # which may be a file that names another directory
    for place in (*git_homes(root / ".git"), root / ".dvc"):
        if place.is_dir() and stat.S_IMODE(place.lstat().st_mode) & 0o077:
            yield place
            yield from sorted(place.iterdir())
            yield from (p for each in _PROGRAMS for p in sorted((place / each).glob("*")))


def _shown(path: Path, root: Path) -> str:
    if path == root:
        return "the workspace"
    within = path.is_relative_to(root)
    return path.relative_to(root).as_posix() if within else "/".join(path.parts[-3:])


def _others_may_change(path: Path) -> bool:
    """By its mode, in which the rights that an ACL gives anybody show as those of the group
    (acl(5)). A group of this user alone is no others."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(found.st_mode):
        return False
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and (_acl(path, _ACL) or _is_shared(found.st_gid))


def _acl(path: Path, name: str) -> bool:
    """Whether it has one, where there are such."""
    try:
        return hasattr(os, "getxattr") and bool(os.getxattr(path, name, follow_symlinks=False))
    except OSError:
        return False


def _is_shared(group: int) -> bool:
    """Whether others may be in a group: it is neither root's, nor named as this user is, nor
    without a name, as those that a container mounts its volumes with."""
    if group == 0:
        return False
    try:
        found = grp.getgrgid(group)
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return found.gr_name != user or not {user}.issuperset(found.gr_mem)
