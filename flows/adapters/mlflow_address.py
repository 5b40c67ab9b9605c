"""The address at which MLflow's own functions work that are told none: one for a process, in a
variable of a module and in the environment. Its stores ask for it as well, whatever address their
client was given. Whoever has one of them called says which, for as long as it takes: so a process
may have two registries, and whoever used MLflow before finds its own address again."""

import contextlib
import os
import threading
from collections.abc import Iterator

_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


class _Addresses:
    """The addresses of the blocks that are open, innermost last. Threads share one; another one is
    for who is alone: what others do meanwhile would go there."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: list[tuple[str, int]] = []
        self._before: dict[str, str | None] = {}

    def begin(self, uri: str) -> None:
        """Open a block; waits while other threads work at another address."""
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(
                lambda: all(at == uri or thread == me for at, thread in self._open)
            )
            if not self._open:
                self._before = {name: os.environ.get(name) for name in _VARIABLES}
            self._open.append((uri, me))
            _tell(uri)

    def end(self, uri: str) -> None:
        """Close a block of this thread."""
        with self._changed:
            mine = (uri, threading.get_ident())
            del self._open[max(n for n, each in enumerate(self._open) if each == mine)]
            if self._open:
                _tell(self._open[-1][0])
            else:
                _forget(self._before)
            self._changed.notify_all()


_addresses = _Addresses()


@contextlib.contextmanager
def addressed(uri: str) -> Iterator[None]:
    """Until the block ends, the tracking and the registry are at `uri`."""
    _addresses.begin(uri)
    try:
        yield
    finally:
        _addresses.end(uri)


def _tell(uri: str) -> None:
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)


def _forget(before: dict[str, str | None]) -> None:
    """Neither has been told any more; MLflow then asks the environment, which keeps what it was
    told by `set_tracking_uri` as well."""
    import mlflow

    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    mlflow.set_registry_uri(None)  # type: ignore[arg-type]
    for name in _VARIABLES:
        os.environ.pop(name, None)
    os.environ.update({name: told for name, told in before.items() if told is not None})
