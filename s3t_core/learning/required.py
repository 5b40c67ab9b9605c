"""Packages that nobody named take no part in what is computed.

transformers and what it stands on take other kernels, in silence, where a package of a certain name
can be imported (causal_conv1d, mamba_ssm, fla, mambapy and more with each release): one worker's
image has it, the next one's lacks it, and a stage gets other bytes under an equal key. So the
processes that train find what S3T requires, with all its extras, what those packages require, and
the packages that tokenizers read texts with, whose versions stand in the numeric profile; each of
them where pip put the one that its version is told of. Whatever else is installed, or lies on a
path of Python's, another copy of these among it, is not there for them. Python's own modules are,
from Python's own directories.

What was imported before is hidden where nothing that computes was there yet; else the process
refuses. What a .pth file or sitecustomize does beyond imports is the operator's.
"""

import os
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import s3t_core
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
_EDITABLE = "__editable__"
"""How pip names what finds a package that is developed: S3T itself in a checkout."""
_EVERYBODYS = frozenset({"sitecustomize", "usercustomize"})
"""What Python imports at its start, whoever wants it."""
COMPUTE = frozenset(
    {"torch", "numpy", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "PIL"}
)
"""What may take another package as it is imported."""


_WITHIN = ("built-in", "frozen")
"""What Python says of a module that lies in no directory."""
_PYTHON = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
_OF_PYTHON = frozenset(str(place / part) for place in _PYTHON for part in ("", "lib-dynload"))


class RequiredOnly:
    """A finder of modules, by which nothing is found but what is required, where pip put it."""

    def __init__(
        self,
        finder: Any,
    ) -> None:
        self._finder = finder

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """As the finder's; None for what is not required, or lies elsewhere."""
        if is_stranger(name):
            return None
        places = places_of(name) if "." not in name else None
        if self._finder is PathFinder and places:
            return PathFinder.find_spec(name, sorted(places), target)
        found: ModuleSpec | None = self._finder.find_spec(name, path, target)
        return None if found is not None and is_elsewhere(found) else found

    def __getattr__(
        self,
        name: str,
    ) -> Any:
        return getattr(self._finder, name)


def is_stranger(module: str) -> bool:
    """Whether a module, by its whole name, belongs to nothing that is required."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top.startswith((_BUILD, _EDITABLE)):
        return False
    return top not in _modules()


def is_elsewhere(found: ModuleSpec) -> bool:
    """Whether a module of a package that is required lies where pip did not put it, or one of
    Python's own where Python did not. Of S3T itself none does: a checkout is run from where it
    lies, and its code is compared (learning.code)."""
    places = places_of(found.name.partition(".")[0])
    if not places or found.origin in _WITHIN:
        return False
    lies = [found.origin] if found.has_location else (found.submodule_search_locations or ())
    return not any(_lies_in(str(at), place) for at in lies for place in places)


def _lies_in(
    path: str,
    place: str,
) -> bool:
    """Also where a link leads there: the bytes are those."""
    if Path(path).is_relative_to(place):
        return True
    real = os.path.realpath(path)
    return Path(real).is_relative_to(os.path.realpath(place))


def hide_strangers() -> None:
    """From now on nothing else is found in this process, not even what was imported already.
    Idempotent.

    Raises GuaranteeError where something else was imported before and something that computes too,
    which may have taken it, and where that lies elsewhere than pip put it.
    """
    loaded = sorted(m for m in list(sys.modules) if _may_be_taken(m))
    if loaded and not COMPUTE.isdisjoint(sys.modules):
        raise GuaranteeError(
            "expected nothing but what S3T requires to be imported in a process that trains, got "
            f"{loaded[0].partition('.')[0]}; see what this Python imports at its start "
            "(sitecustomize, .pth files)"
        )
    names = [*COMPUTE, *(name for name in list(sys.modules) if _is_pythons(name))]
    specs = [getattr(sys.modules.get(name), "__spec__", None) for name in names]
    elsewhere = sorted(spec.name for spec in specs if spec is not None and is_elsewhere(spec))
    if elsewhere:
        raise GuaranteeError(
            f"expected {elsewhere[0]} where pip, or Python itself, put it in a process that "
            "trains, got another copy, which Python imported at its start; see PYTHONPATH, "
            "sitecustomize and .pth files"
        )
    for name in loaded:
        sys.modules[name] = None  # type: ignore[assignment]  # as Python marks what is not there
    sys.meta_path[:] = [
        f if isinstance(f, RequiredOnly) else RequiredOnly(f)
        for f in sys.meta_path
        if isinstance(f, RequiredOnly) or not is_stranger(_module_of(f))
    ]


def _module_of(finder: object) -> str:
    """The module that a finder, a class or an object of one, is of."""
    return str(getattr(finder, "__module__", None) or type(finder).__module__)


def _may_be_taken(module: str) -> bool:
    """Whether what is imported is a stranger that a library could look for by its name."""
    top = module.partition(".")[0]
    return (
        is_stranger(module)
        and not top.startswith("_")
        and top not in _EVERYBODYS
        and getattr(sys.modules[module], "__spec__", None) is not None
    )


@cache
def _modules() -> frozenset[str]:
    """Names of the modules of S3T and of what it requires, those of their parts left out."""
    return _ours() | {name for required in _required() for name in _names_of(required)}


@cache
def _ours() -> frozenset[str]:
    """Those of S3T: the installed ones, and the packages of a checkout that it is run from."""
    root = Path(s3t_core.__file__).parents[1]
    beside = root.glob("*/__init__.py") if (root / "pyproject.toml").is_file() else ()
    return frozenset(_names_of(distribution(_NAME))) | {path.parent.name for path in beside}


def places_of(
    top: str,
) -> frozenset[str]:
    """The directories that a module may come from, by its name: those of the distributions that
    have it, as their versions are told of, and Python's own; none of what is S3T's own, or of
    nobody's."""
    return _OF_PYTHON if _is_pythons(top) else _placed().get(top, frozenset())


def _is_pythons(module: str) -> bool:
    """Whether a module is Python's own. What setuptools has in the place of distutils computes
    nothing."""
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names and top != "distutils"


@cache
def _placed() -> Mapping[str, frozenset[str]]:
    """Where pip put each module that is required. Several distributions may have parts of one."""
    places: Mapping[str, set[str]] = defaultdict(set)
    for each in _required():
        place = Path(str(each.locate_file("")))
        for name in _names_of(each):
            places[name].add(str(place))
    ours = _ours()
    return {name: frozenset(found) for name, found in places.items() if name not in ours}


def modules_of(
    name: str,
) -> frozenset[str]:
    """The modules of an installed distribution, none where there is none."""
    try:
        return frozenset(_names_of(distribution(name))) & _modules()
    except PackageNotFoundError:
        return frozenset()


def _names_of(required: Distribution) -> Iterator[str]:
    """As the files that were installed say: their first parts, and modules that lie alone."""
    yield from (required.read_text("top_level.txt") or "").split()
    for line in (required.read_text("RECORD") or "").splitlines():
        first, within, _ = line.partition("/")
        if within:
            yield first
        else:
            yield line.partition(",")[0].partition(".")[0]


def version_of(name: str) -> str:
    """The version of the very distribution whose modules are imported (places_of), "" where none is
    required: whoever asks by the path of now may be told of another. Raises GuaranteeError."""
    wanted = canonicalize_name(name)
    return next(
        (each.version for each in _required() if canonicalize_name(each.name) == wanted), ""
    )


@cache
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
    lines: Iterable[str],
    extras: frozenset[str],
) -> Iterator[tuple[str, frozenset[str]]]:
    for line in lines:
        one = Requirement(line)
        environments: Iterable[Mapping[str, str]] = ({"extra": e} for e in ("", *extras))
        if one.marker is None or any(one.marker.evaluate(dict(e)) for e in environments):
            yield one.name, frozenset(one.extras)
