"""The one way in which an MLflow server of ours is started: for `make stack` and containers.

    python -m flows.adapters.mlflow_server --host H --port P [--tls-cert F --tls-key F |
    --behind-proxy NAME,...]

1. a credential, or no start: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, which clients
   send under the same names. Never from the command line, which every user of the machine can read
2. its database and artifacts: MLFLOW_BACKEND_STORE_URI, MLFLOW_ARTIFACTS_DESTINATION. No other
   setting of MLflow's is taken from the environment, but for those of its S3 client
3. no jobs: their consumers are other processes, which `mlflow server` starts and this does not
4. in front stand the guard (flows.adapters.guard) and what lets through runs and models alone, with
   files in MLflow's own artifacts alone (flows.adapters.mlflow_guard)
5. what it writes is its owner's alone

MLflow opens places with the keys that it has. Give it keys of its own, for its artifacts and
nothing else.
"""

import argparse
import os
import uuid
import warnings
from collections.abc import Iterable, Mapping

from flows.adapters.credentials import check_secret
from flows.adapters.doors import door_of, door_options, listening, serve_or_tell
from flows.adapters.guard import App
from flows.adapters.mlflow_guard import OPEN_PATHS, REALM, OwnArtifactsOnly
from s3t_core.errors import WorkspaceError

USER = "MLFLOW_TRACKING_USERNAME"
PASSWORD = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105  # a variable's name
BACKEND = "MLFLOW_BACKEND_STORE_URI"
ARTIFACTS = "MLFLOW_ARTIFACTS_DESTINATION"
_PROXIED = "mlflow-artifacts:/"
_KEPT = "MLFLOW_S3_"
_CLOSED: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
    "MLFLOW_ENABLE_WORKSPACES": "false",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
    "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    "_MLFLOW_SERVER_ARTIFACT_ROOT": _PROXIED,
    "_MLFLOW_SGI_NAME": "uvicorn",
    "_MLFLOW_IN_JOB_EXECUTOR": "false",
}
"""MLflow's settings; those with an underscore are what `mlflow server` tells the process that
answers."""


def main() -> None:
    """Serve until a signal."""
    serve_or_tell("mlflow", _serve, door_options("mlflow_server", 5500).parse_args())


def _serve(given: argparse.Namespace) -> None:
    door = door_of(given)
    secret = _credential()
    backend, artifacts = _required(BACKEND), _required(ARTIFACTS)
    with listening(door) as bound:
        port = bound.getsockname()[1]
        close_settings(backend, artifacts, door.hosts(port))
        app = OwnArtifactsOnly(_application(backend))
        guarded = door.guarded(app, port, "basic", secret, OPEN_PATHS, REALM)
        door.server(guarded).run(sockets=[bound])


def _credential() -> str:
    user = _required(USER)
    password = os.environ.get(PASSWORD, "")
    check_secret(password, PASSWORD)
    if ":" in user:
        raise WorkspaceError(
            f"expected a name without a colon in {USER}, got one with it; HTTP could not tell it "
            "from the password: take another"
        )
    return f"{user}:{password}"


def _required(name: str) -> str:
    """A variable of the environment. Raises WorkspaceError when it is not set."""
    value = os.environ.get(name, "")
    if not value:
        raise WorkspaceError(
            f"expected {name} in the environment, got nothing; set it, see docs/operations.md, "
            "Ports"
        )
    return value


def close_settings(backend: str, artifacts: str, hosts: Iterable[str]) -> None:
    """Settings that leave nothing open, before MLflow reads them; whoever started this has no say
    in the others."""
    for name in [
        n for n in os.environ if n.lstrip("_").startswith("MLFLOW_") and not n.startswith(_KEPT)
    ]:
        del os.environ[name]
    os.environ.update(_CLOSED)
    os.environ.update(
        {
            "_MLFLOW_SERVER_FILE_STORE": backend,
            "_MLFLOW_SERVER_REGISTRY_STORE": backend,
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artifacts,
            "_MLFLOW_SERVER_BOOT_ID": uuid.uuid4().hex,
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(sorted(hosts)),
        }
    )


def _application(backend: str) -> App:
    """MLflow's own, on a database whose tables are there and of its release."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what MLflow is built on; nobody here can change it
        from mlflow.server.fastapi_app import app
        from mlflow.server.handlers import initialize_backend_stores
    initialize_backend_stores(backend, backend, _PROXIED)
    served: App = app
    return served


if __name__ == "__main__":
    main()
