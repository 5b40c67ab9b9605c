"""Which files of a model's directory decide what a backbone computes, and that none but these is
read: what has no digest could be changed under the stages that stand on it. What has one could be
changed between its hash and its use, so both are of one copy (`Held`).

The libraries that load a model look for files by names of their own, and for more of them in each
release. So the rule is held where files are opened (PEP 578): while a model is loaded, opening one
of its directory that has no digest is refused, whatever asks for it.
"""

import contextlib
import errno
import os
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

from transformers.utils import CHAT_TEMPLATE_DIR

from s3t_core.errors import StorageError, UsageError

_NOT_THE_TOKENIZER = {
    ".safetensors",
    ".bin",
    ".pt",
    ".h5",
    ".msgpack",
    ".onnx",
    ".ot",
    ".md",
    ".gitattributes",
}
"""Endings of weights and of prose; every other file of a model directory may decide how a text is
cut into tokens."""

FETCHED = [
    "*.json",
    "*.safetensors",
    "*.txt",
    "*.model",
    "*.jinja",
]
"""What is fetched of a model: no code and no pickles."""


def weights_of(path: Path) -> list[Path]:
    """The files of weights in a model's directory."""
    return sorted(p for p in path.glob("*.safetensors") if p.is_file())


def settings_of(path: Path) -> list[Path]:
    """Every other file of it that may decide how a row is read: those in the directory itself, and
    further chat templates."""
    beside = [p for p in sorted(path.iterdir()) if p.is_file()]
    templates = [p for p in sorted((path / CHAT_TEMPLATE_DIR).glob("*.jinja")) if p.is_file()]
    return [p for p in beside if (p.suffix or p.name) not in _NOT_THE_TOKENIZER] + templates


class Held:
    """The files of a model's directory that decide what a backbone computes, as they were at one
    moment: a directory of this process's own, with copies. What is hashed there is what is loaded,
    whatever becomes of the model's directory meanwhile; an address is looked up once.

    Weights are copied into memory that has no name (memfd_create(2)) where the system has such,
    else beside the rest; a loaded model stands on them as long as it lives. `with_weights` False:
    they are read where they lie, for whoever loads none, or has less memory than they need. Other
    files of the model's directory are links to it: what is loaded of them is seen, and refused
    (`nothing_else_read`).
    """

    def __init__(
        self,
        model: Path,
        with_weights: bool,
    ) -> None:
        """Raises StorageError where there is no room for copies, OSError where a file is gone."""
        try:
            made = tempfile.mkdtemp(prefix="s3t-backbone-")
        except OSError as error:
            raise StorageError(
                "expected a temporary directory that can be written to, got "
                f"{error.strerror or type(error).__name__}; set TMPDIR to one"
            ) from None
        self.path = Path(made)
        self._memory: list[int] = []
        self.close = weakref.finalize(self, _let_go, self.path, self._memory)
        try:
            self._fill(model, with_weights)
        except BaseException:
            self.close()
            raise

    def _fill(self, model: Path, with_weights: bool) -> None:
        weights = weights_of(model)
        for file in settings_of(model):
            copy = self.path / file.relative_to(model)
            copy.parent.mkdir(exist_ok=True)
            _copied(file, copy)
        for file in weights if with_weights else ():
            self._copy(file)
        for other in model.iterdir():
            if not os.path.lexists(self.path / other.name):
                (self.path / other.name).symlink_to(other.absolute())

    def _copy(self, file: Path) -> None:
        copy = self.path / file.name
        memory = _nameless(file.name)
        if memory is not None:
            self._memory.append(memory)
            copy.symlink_to(f"/proc/self/fd/{memory}")
        _copied(file, copy)


_NO_ROOM = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.ENOMEM,
    }
)


def _copied(file: Path, copy: Path) -> None:
    try:
        shutil.copyfile(file, copy)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise StorageError(
            f"expected room for a copy of {file.name} ({file.stat().st_size / 2**20:,.0f} MiB) in "
            "memory, or in the temporary directory, got none; give it more (TMPDIR), or set "
            "[runner] max_memory"
        ) from None


def _nameless(name: str) -> int | None:
    """A file in memory that no other process finds, None where the system has none."""
    try:
        memory = os.memfd_create(name)
    except (AttributeError, OSError):
        return None
    if Path(f"/proc/self/fd/{memory}").exists():
        return memory
    os.close(memory)
    return None


def _let_go(path: Path, memory: list[int]) -> None:
    while memory:
        os.close(memory.pop())
    shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def nothing_else_read(path: Path) -> Iterator[None]:
    """Within it, no file of a model's directory is opened that has no digest; in whatever thread.
    Raises UsageError, at the latest at its end: a library may go on without a file that it could
    not open."""
    watch = _Watch(path)
    _install()
    with _CHANGING:
        _WATCHED.append(watch)
    try:
        yield
    finally:
        with _CHANGING:
            _WATCHED.remove(watch)
    watch.check()


class _Watch:
    def __init__(self, path: Path) -> None:
        self._folders = {_absolute(str(path)), str(path.resolve())}
        self._hashed = {str(p.relative_to(path)) for p in (*weights_of(path), *settings_of(path))}
        self._others: list[str] = []

    def see(self, path: str) -> None:
        """Raises UsageError where a file of the directory without a digest is opened."""
        opened = _absolute(path)
        for folder in self._folders:
            name = opened.removeprefix(folder + os.sep)
            if name != opened and name not in self._hashed:
                self._others.append(name)
                self.check()

    def check(self) -> None:
        """Raises UsageError where one was."""
        if self._others:
            raise UsageError(
                f"expected that nothing of the backbone is loaded but what has a digest, got "
                f"{self._others[0]!r} in its directory: it could be changed under the stages that "
                "stand on it. Take it out, or load the model and save it anew with "
                "`save_pretrained`"
            )


def _absolute(path: str) -> str:
    """The same path from the root; a link in it stays one."""
    return os.path.abspath(path)  # noqa: PTH100


_WATCHED: list[_Watch] = []
_CHANGING = threading.Lock()
_INSTALLED: list[bool] = []


def _install() -> None:
    """A hook stays for as long as the process does, so there is one."""
    with _CHANGING:
        if not _INSTALLED:
            _INSTALLED.append(True)
            sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _WATCHED and isinstance(arguments[0], str | bytes | os.PathLike):
        for watch in tuple(_WATCHED):
            watch.see(os.fsdecode(arguments[0]))
