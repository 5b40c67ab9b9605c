"""What every process of this system begins with, before it starts another or reads a record. It
imports nothing that takes time.

1. Python takes modules of its children from where it is installed, never from the directory that
   they happen to stand in: `-c` and `-m` would look there first (PYTHONSAFEPATH, Python 3.11).
   Somebody who may write to a directory in which a command is called would have their code run
   beside the keys.
2. A process that crashes leaves no image of its memory, in which rows and keys stand. A limit of
   one byte also stops the kernel from handing the image to a program (`core_pattern` with a pipe);
   of zero it would not (Linux, fs/coredump.c).
"""

import os
import resource


def harden() -> None:
    """See to both, for this process and those that it starts. Idempotent."""
    os.environ["PYTHONSAFEPATH"] = "1"
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 1 if most == resource.RLIM_INFINITY else min(1, most)
    resource.setrlimit(resource.RLIMIT_CORE, (least, most))
