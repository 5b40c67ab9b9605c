"""What long loops over many small objects need of the interpreter."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """No cycle collections meanwhile: rows have no cycles, and each collection would look at every
    row again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
