"""Credentials of the ports that commands open: one file each, made by chance, for its owner
alone."""

import os
import secrets
import stat
from pathlib import Path

from s3t_core.errors import WorkspaceError
from s3t_core.files import write_atomically, write_new

_LEAST = 16
"""Fewer characters could be guessed."""


def new_secret() -> str:
    """256 random bits, as text for a header or a URL."""
    return secrets.token_urlsafe(32)


def read_private(path: Path) -> bytes:
    """The bytes of a file that only its owner can read. Raises WorkspaceError where others can, and
    OSError where it is none that can be read."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        info = os.fstat(file.fileno())
        _check_private(path, info)
        if not stat.S_ISREG(info.st_mode):
            raise OSError("not a regular file")
        return file.read()


def read_secret(path: Path) -> str:
    """The secret in a file. Raises WorkspaceError when there is none, or when others than its owner
    could read it."""
    try:
        text = read_private(path).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise WorkspaceError(
            f"expected a credential in {path.name}, got none that can be read; remove that file "
            "and run the command again, which makes another"
        ) from None
    check_secret(text, path.name)
    return text


def check_secret(text: str, where: str) -> None:
    """Raises WorkspaceError for one that could be guessed, or that no header can carry."""
    if len(text) < _LEAST or not text.isascii() or not text.isprintable() or " " in text:
        raise WorkspaceError(
            f"expected a credential of at least {_LEAST} printable characters in {where}, got "
            "another; make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
        )


def write_secret(path: Path, secret: str) -> None:
    """Write it, in place of the one that is there, for the owner alone."""
    write_atomically(path, f"{secret}\n".encode(), 0o600)


def secret_of(path: Path) -> str:
    """The secret in this file, which is made with a new one where there is none. Raises
    WorkspaceError."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, f"{new_secret()}\n".encode())  # of two at once, the first one's counts
    return read_secret(path)


def _check_private(path: Path, info: os.stat_result) -> None:
    if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or info.st_uid != os.geteuid():
        raise WorkspaceError(
            f"expected {path.name} to be readable by its owner only, got mode "
            f"{stat.filemode(info.st_mode)}; others may know it: remove the file and run the "
            "command again, which makes another"
        )
