"""What every process of this system begins with, before it starts another or reads a record. It
imports nothing that takes time.

1. Python takes modules of its children from where it is installed, never from the directory that
   they happen to stand in: `-c` and `-m` would look there first (PYTHONSAFEPATH, Python 3.11).
   Somebody who may write to a directory in which a command is called would have their code run
   beside the keys. Nor from an entry of PYTHONPATH that is empty or relative, which is that
   directory again, or one in it: a colon too many is enough (`PYTHONPATH=/x:$PYTHONPATH`). What the
   first Python of a command loads before any code of ours, `sitecustomize` among it, is out of
   reach. Programs that it starts (git) and libraries that its children load are no more looked for
   there: an empty or relative entry of PATH or LD_LIBRARY_PATH is dropped too.
2. A process that crashes leaves no image of its memory, in which rows and keys stand. A limit of
   one byte also stops the kernel from handing the image to a program (`core_pattern` with a pipe);
   of zero it would not (Linux, fs/coredump.c).
"""

import os
import resource
import sys
from pathlib import Path

from s3t_core.errors import UsageError

_OWN = str(Path(__file__).resolve().parents[1])
"""Where this package lies: a path by which it was found stays."""


def harden() -> None:
    """See to both, for this process and those that it starts. Idempotent."""
    os.environ["PYTHONSAFEPATH"] = "1"
    _keep_to_absolute_paths()
    for name in ("PATH", "LD_LIBRARY_PATH"):
        _drop_relative(name)
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 1 if most == resource.RLIM_INFINITY else min(1, most)
    resource.setrlimit(resource.RLIMIT_CORE, (least, most))


def check_surroundings() -> None:
    """That this process stands in a directory, can name any file, and has what libraries read of
    their own code. Raises UsageError."""
    try:
        Path.cwd()
    except OSError:
        raise UsageError(
            "expected to run in a directory that is there, got one that was removed or that this "
            "account may not enter; change to another one, then run the command again"
        ) from None
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
        raise UsageError(
            f"expected names of files to be read as UTF-8, got {sys.getfilesystemencoding()}, in "
            "which some have no name; set LC_ALL=C.UTF-8 or PYTHONUTF8=1, then run the command "
            "again"
        )
    if sys.flags.optimize > 1:
        raise UsageError(
            "expected a Python that keeps docstrings, which transformers reads when it is "
            "imported, got -OO or PYTHONOPTIMIZE=2; take it away, then run the command again"
        )


def _drop_relative(name: str) -> None:
    """Of a variable that lists directories, for this process's own look-ups and its children."""
    entries = os.environ.get(name, "").split(os.pathsep)
    kept = [entry for entry in entries if Path(entry).is_absolute()]
    if kept != entries:
        os.environ[name] = os.pathsep.join(kept)
    if not kept:
        os.environ.pop(name, None)


def _keep_to_absolute_paths() -> None:
    """Of PYTHONPATH, for children, and of where this process looks."""
    value = os.environ.get("PYTHONPATH")
    if not value:
        return
    entries = value.split(os.pathsep)
    kept = [entry for entry in entries if Path(entry).is_absolute()]
    stood_in = {os.path.normpath(Path(e).absolute()) for e in entries if e not in kept}
    if _OWN in stood_in:
        kept.append(_OWN)
    os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    if not kept:
        del os.environ["PYTHONPATH"]
    for path in stood_in - {*kept}:
        while path in sys.path:
            sys.path.remove(path)
