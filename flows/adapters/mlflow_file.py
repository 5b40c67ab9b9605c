"""MLflow's database where it is a file on this machine: whoever asks is answered by the file that
lies there now.

MLflow keeps its connections for as long as its process lives. Where somebody put another file in
its place, or took it away (a restore, `s3t migrate`, a registry that was lost and begun anew), they
lead to one without a name, which knows nothing of what was done since: in it, the version of before
an erasure serves for good. So they are let go of before each question that counts.
"""

import sys
from pathlib import Path

_STORES = (
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
)
"""Each keeps an engine for every address, for all clients of the process."""


def file_of(uri: str) -> Path | None:
    """The file that a tracking or registry URI names as MLflow's database, None for another one."""
    if not uri.startswith("sqlite"):  # with a driver's name behind it, or none
        return None
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    name = (url.database or "").removeprefix("file:")
    if url.get_backend_name() != "sqlite" or name in ("", ":memory:"):
        return None
    return Path(name).absolute()


def open_anew(uri: str) -> None:
    """Let this process's MLflow open its database again for what it is asked next; of a server that
    has one, nothing. Raises FileNotFoundError where it is gone: MLflow would make an empty one."""
    path = file_of(uri)
    if path is None:
        return
    path.stat()
    for name in _STORES:
        store = sys.modules.get(name)
        for engine in list(store.SqlAlchemyStore._engine_map.values()) if store else ():
            if file_of(str(engine.url)) == path:
                engine.dispose()
