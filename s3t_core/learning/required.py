"""Packages that nobody named take no part in what is computed.

transformers and what it stands on take other kernels, in silence, where a package of a certain name
can be imported (causal_conv1d, mamba_ssm, fla, mambapy and more with each release): one worker's
image has it, the next one's lacks it, and a stage gets other bytes under an equal key. So the
processes that train find what S3T requires, with all its extras, what those packages require, and
the packages that tokenizers read texts with, whose versions stand in the numeric profile. Whatever
else is installed, or lies on a path of Python's, is not there for them. Python's own modules are,
and those of a checkout that S3T is run from.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from types import FrameType, ModuleType
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from s3t_core.errors import GuaranteeError

READERS = (
    "sentencepiece",
    "tiktoken",
    "mistral-common",
    "regex",
    "ftfy",
    "emoji",
    "fugashi",
    "unidic",
    "unidic-lite",
    "ipadic",
    "SudachiPy",
    "SudachiDict-core",
    "rhoknp",
    "jieba",
    "rjieba",
    "sacremoses",
    "spacy",
    "phonemizer",
)
"""Packages that tokenizers of transformers which are written in Python read texts with."""
_NAME = "s3t"
_BUILD = "_sysconfigdata_"
"""What Python keeps of how it was built: a module whose whole name tells of the machine."""
_EVERYBODYS = frozenset({"sitecustomize", "usercustomize"})
"""What Python imports at its start, whoever wants it."""


class RequiredOnly:
    """A finder of modules, from which the packages that compute get no others than are required.
    Whoever else imports something gets it: the script that a command was called by may."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """As the finder's; None where a package that is required asks for one that is not."""
        if is_stranger(name) and not is_stranger(_importer()):
            return None
        found: ModuleSpec | None = self._finder.find_spec(name, path, target)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def is_stranger(module: str) -> bool:
    """Whether a module, by its whole name, belongs to nothing that is required."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top.startswith(_BUILD):
        return False
    return top not in _modules()


def hide_strangers() -> None:
    """From now on the packages that compute find nothing else in this process, not even what was
    imported already. Idempotent.

    Raises GuaranteeError where something else, and then transformers, was imported before: it may
    have been taken.
    """
    closed = any(isinstance(finder, RequiredOnly) for finder in sys.meta_path)
    loaded = sorted(m for m in list(sys.modules) if _may_be_taken(m))
    if loaded and not closed and "transformers" in sys.modules:
        raise GuaranteeError(
            "expected nothing but what S3T requires to be imported before transformers in a "
            f"process that trains, got {loaded[0].partition('.')[0]}; see what this Python imports "
            "at its start (sitecustomize, .pth files)"
        )
    for name in loaded:
        sys.modules[name] = None  # type: ignore[assignment]  # as Python marks what is not there
    sys.meta_path[:] = [
        f if isinstance(f, RequiredOnly) else RequiredOnly(f) for f in sys.meta_path
    ]


def _may_be_taken(module: str) -> bool:
    """Whether what is imported is a stranger that a library could look for by its name."""
    top = module.partition(".")[0]
    return (
        is_stranger(module)
        and not top.startswith("_")
        and top not in _EVERYBODYS
        and getattr(sys.modules[module], "__spec__", None) is not None
    )


def _importer() -> str:
    """The module that wants another one: the first that is not Python's own, "" for none."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in sys.stdlib_module_names:
            return name
        frame = frame.f_back
    return ""


@cache
def _modules() -> frozenset[str]:
    """Names of the modules of S3T and of what it requires, those of their parts left out."""
    return frozenset(name for required in _required() for name in _names_of(required))


def _names_of(required: Distribution) -> Iterator[str]:
    """As the files that were installed say: their first parts, and modules that lie alone."""
    yield from (required.read_text("top_level.txt") or "").split()
    for line in (required.read_text("RECORD") or "").splitlines():
        first, within, _ = line.partition("/")
        if within:
            yield first
        else:
            yield line.partition(",")[0].partition(".")[0]


def _required() -> list[Distribution]:
    """Distributions that are installed and required. Raises GuaranteeError where S3T itself is not
    installed: nobody can tell what it requires."""
    try:
        ours = distribution(_NAME)
    except PackageNotFoundError:
        raise GuaranteeError(
            f"expected the package {_NAME} to be installed where stages are trained, got none; "
            "pip install it (`make install` in a checkout)"
        ) from None
    wanted = [(_NAME, frozenset(ours.metadata.get_all("Provides-Extra") or ()))]
    wanted += [(name, frozenset()) for name in READERS]
    seen: dict[tuple[str, frozenset[str]], None] = {}
    found: dict[str, Distribution] = {}
    while wanted:
        name, extras = wanted.pop()
        key = (canonicalize_name(name), extras)
        if key in seen:
            continue
        seen[key] = None
        try:
            found[key[0]] = distribution(name)
        except PackageNotFoundError:
            continue
        wanted += _wanted_by(found[key[0]].requires or (), extras)
    return list(found.values())


def _wanted_by(
    lines: Iterable[str], extras: frozenset[str]
) -> Iterator[tuple[str, frozenset[str]]]:
    for line in lines:
        one = Requirement(line)
        environments: Iterable[Mapping[str, str]] = ({"extra": e} for e in ("", *extras))
        if one.marker is None or any(one.marker.evaluate(dict(e)) for e in environments):
            yield one.name, frozenset(one.extras)
