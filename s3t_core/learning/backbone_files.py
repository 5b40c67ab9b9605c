"""Which files of a model's directory decide what a backbone computes, and that none but these is
read: what has no digest could be changed under the stages that stand on it.

The libraries that load a model look for files by names of their own, and for more of them in each
release. So the rule is held where files are opened (PEP 578): while a model is loaded, opening one
of its directory that has no digest is refused, whatever asks for it.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from transformers.utils import CHAT_TEMPLATE_DIR

from s3t_core.errors import UsageError

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
