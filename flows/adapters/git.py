"""git, as the system calls it: on the repository that it names, whatever the operator's shell says,
and for so long."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from s3t_core.errors import StorageError

REDIRECTING = (
    "GIT_DIR",
    "GIT_COMMON_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_QUARANTINE_PATH",
    "GIT_NAMESPACE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_GRAFT_FILE",
    "GIT_SHALLOW_FILE",
    "GIT_REPLACE_REF_BASE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_PREFIX",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_TEMPLATE_DIR",
)
"""What would have git read or write another repository, or another part of it, than the one it is
asked about. A hook sets some of them for what it runs."""
_OURSELVES = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "s3t"), ("EMAIL", "s3t@localhost"))
}
"""Who commits, before whatever the operator's shell or settings call them: a commit stays, and
somebody named in it could never be certified. Their time is git's."""
_NOT_OURS = ("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE", "EMAIL")
_UNCONFIGURED = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
_FORMATS = ("sha1", "sha256")
_PATIENCE_SECONDS = 600
_SLOWEST_BYTES_A_SECOND = 2**20
"""Of a pack that is indexed."""


def git_environment() -> dict[str, str]:
    """The environment of this process without what redirects git; who commits is this system."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in REDIRECTING and name not in _NOT_OURS
    }
    return kept | _OURSELVES


def run_git(
    *arguments: str, patience: float = _PATIENCE_SECONDS, configured: bool = True
) -> "subprocess.CompletedProcess[str]":
    """What git answers; it asks nobody for anything. Raises StorageError when it takes longer than
    `patience` seconds, and where there is none: it is ended then with all that it started, as it is
    whatever else ends the wait. Not `configured`: it knows no settings of the user or machine."""
    try:
        git = subprocess.Popen(
            ["git", *arguments],
            env={
                **git_environment(),
                "GIT_TERMINAL_PROMPT": "0",
                **({} if configured else _UNCONFIGURED),
            },
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise StorageError(
            f"expected git to run, got {error.strerror or type(error).__name__}; install it, then "
            "run the command again"
        ) from None
    with git:
        try:
            out, complaints = git.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            _end(git)
            raise StorageError(
                f"expected git to answer within {patience:g} seconds, got nothing; see whether the "
                "disk of its repository answers, and that nothing but files lies in its .git, then "
                "run the command again"
            ) from None
        except BaseException:
            _end(git)
            raise
    return subprocess.CompletedProcess(git.args, git.returncode, out, complaints)


def _end(git: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(git.pid, signal.SIGKILL)


def git_objects(pack: IO[bytes], temporary: Path | None) -> Iterator["GitObject"]:
    """Every object of a pack, each to be read before the next. A copy is indexed anew, in a
    repository of its own, so that nothing counts but the pack. Raises StorageError: one that is not
    whole may hold anything."""
    with tempfile.TemporaryDirectory(dir=temporary, prefix="scan-") as name:
        folder = Path(name)
        for number, object_format in enumerate(_FORMATS):
            if _indexed(pack, folder / str(number), object_format):
                yield from _objects_in(folder / str(number))
                return
    raise _unreadable()


def _indexed(pack: IO[bytes], folder: Path, object_format: str) -> bool:
    """Whether git takes the pack for whole, from its first byte to its last."""
    run_git("init", "-q", "--bare", "--template=", f"--object-format={object_format}", str(folder))
    copy = folder / "objects" / "pack" / "pack-copy.pack"
    pack.seek(0)
    with copy.open("wb") as file:
        shutil.copyfileobj(pack, file, 2**22)
    patience = _PATIENCE_SECONDS + copy.stat().st_size / _SLOWEST_BYTES_A_SECOND
    return run_git("-C", str(folder), "index-pack", str(copy), patience=patience).returncode == 0


def _objects_in(folder: Path) -> Iterator["GitObject"]:
    command = [
        "git",
        "-C",
        str(folder),
        "cat-file",
        "--batch",
        "--batch-all-objects",
        "--unordered",
    ]
    with subprocess.Popen(
        command, env=git_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as git:
        yield from _batch(cast("IO[bytes]", git.stdout))
    if git.returncode != 0:
        raise _unreadable()


class GitObject:
    """One object's content, out of the stream of all."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes. Raises StorageError when git broke off."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._stream.read(wanted)
        if wanted and not data:
            raise _unreadable()
        self._left -= len(data)
        return data


def _batch(stream: IO[bytes]) -> Iterator[GitObject]:
    """What `git cat-file --batch` writes: a line that names an object, its kind and size, the
    content, a line's end."""
    while header := stream.readline():
        fields = header.split()
        if len(fields) != 3 or not fields[2].isdigit():
            raise _unreadable()  # "missing": listed, and not to be read
        found = GitObject(stream, int(fields[2]))
        yield found
        while found.read(2**20):
            pass
        stream.read(1)


def _unreadable() -> StorageError:
    return StorageError(
        "expected a git pack that git reads to its end, got one that is cut, damaged or takes from "
        "another; run `git fsck` in its repository and repair or remove it, then run the command "
        "again"
    )
