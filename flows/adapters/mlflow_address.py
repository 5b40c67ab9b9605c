"""The address at which MLflow's own functions work that are told none: one for a process, in a
variable of a module and in the environment. Its stores ask for it as well, whatever address their
client was given. Whoever has one of them called says which, for as long as it takes: so a process
may have two registries, and whoever used MLflow before finds its own address again, and what else
it told MLflow by the environment."""

import contextlib
import os
import threading
from collections.abc import Iterator

_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
_THEIRS = (
    *_VARIABLES,
    "MLFLOW_ALLOW_HTTP_",
    "MLFLOW_ARTIFACT_UPLOAD_",
    "MLFLOW_BOTO_",
    "MLFLOW_CONFIGURE_LOGGING",
    "MLFLOW_DISABLE_TELEMETRY",
    "MLFLOW_DOWNLOAD_CHUNK_",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR",
    "MLFLOW_ENABLE_MULTIPART_",
    "MLFLOW_ENABLE_PROXY_MULTIPART_",
    "MLFLOW_GCS_",
    "MLFLOW_HTTP_",
    "MLFLOW_KERBEROS_",
    "MLFLOW_LOGGING_LEVEL",
    "MLFLOW_MULTIPART_",
    "MLFLOW_MYSQL_SSL_",
    "MLFLOW_PRESIGNED_",
    "MLFLOW_S3_",
    "MLFLOW_SQLALCHEMYSTORE_POOL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_",
    "MLFLOW_TRACKING_CLIENT_",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_SERVER_",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
)
"""What variables of MLflow begin with that say how its server and the store of its artifacts are
reached. All others are for what whoever started this does with MLflow: by MLFLOW_RUN_ID (which
`mlflow run` sets) a version would be written into that run, by MLFLOW_RUN_CONTEXT tags to ours."""
_OURS = {"MLFLOW_UV_AUTO_DETECT": "false"}
"""Nothing of the directory that a command runs in is put into a version."""


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
                self._before = _set_aside()
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


def _set_aside() -> dict[str, str | None]:
    """Take out what has no say here. Returns what to put back."""
    others = [
        name
        for name in os.environ
        if name.lstrip("_").startswith("MLFLOW_") and not name.startswith(_THEIRS)
    ]
    before = {name: os.environ.get(name) for name in (*_VARIABLES, *_OURS, *others)}
    for name in others:
        del os.environ[name]
    os.environ.update(_OURS)
    return before


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
    for name in before:
        os.environ.pop(name, None)
    os.environ.update({name: value for name, value in before.items() if value is not None})
