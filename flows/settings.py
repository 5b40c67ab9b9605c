"""Environment and workspace directory: the only place, with the command line, that reads them.

Everything the tools under us would write to a home directory goes into the workspace, and nothing
phones home. A setting that the operator made (a Prefect server's address, say) is left as it is.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from flows.adapters.git import REDIRECTING
from flows.adapters.own_tls import CERTIFICATE
from flows.adapters.prefect_client import wait_for_server
from flows.adapters.shared_prefect import Address, SharedServer
from flows.hardening import harden
from s3t_core.config import parse_config
from s3t_core.errors import UsageError, WorkspaceError
from s3t_core.files import read_regular
from s3t_core.learning.pins import wait_without_spinning

CONFIG_NAME = "s3t.toml"
_OURS = "S3T_PREFECT_URL"
"""The address that PREFECT_API_URL has where it was not the operator who set it: for the processes
that we start."""

_ELSEWHERE = ("PGHOSTADDR", "PGSERVICE")
"""What has libpq ask another server than a URL names."""
_LOGS_OF_PREFECT = (
    "PREFECT_LOGGING_LEVEL",
    "PREFECT_LOGGING_TO_API_",
    "PREFECT_LOGGING_COLORS",
    "PREFECT_LOGGING_MARKUP",
)
"""What variables about Prefect's logs may begin with. By others it would be told, for good, what
libraries log and what is printed: of a picture, say, what its metadata tells."""
_PORTS_OF_PREFECT = (
    "PREFECT_SERVER_EPHEMERAL_ENABLED",
    "PREFECT_CLIENT_METRICS_ENABLED",
    "PREFECT_RUNNER_SERVER_ENABLE",
)
"""What would have Prefect open a port by itself, to everybody: a server in a command, metrics, a
runner's pages."""


def workspace_root(given: str | None) -> Path:
    """The workspace: `--workspace`, else S3T_WORKSPACE, else the current directory. Raises
    WorkspaceError."""
    root = Path(given or os.environ.get("S3T_WORKSPACE") or ".").resolve()
    if not (root / CONFIG_NAME).is_file():
        raise WorkspaceError(
            f"expected a workspace (a directory with {CONFIG_NAME}), got {root.name or root}; "
            "run `s3t init DIR`, then work in it or pass --workspace"
        )
    return root


def read_settings(path: Path) -> bytes:
    """The bytes of a file of settings, which may be in any encoding. Raises UsageError where it
    cannot be read."""
    try:
        return read_regular(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(
            f"expected {path.name} to be a file that can be read, got {reason}; put that right, "
            "then run the command again"
        ) from None


def prepare_environment(root: Path) -> None:
    """Point Prefect, MLflow and DVC at the workspace, quiet, offline, without telemetry; what they
    and we write from now on is its owner's alone, and no crash leaves what we read. What would
    have git look at another repository is dropped: DVC asks git as well. Before they are imported:
    DVC reads the mask once."""
    harden()
    os.umask(0o077)
    for key in (*REDIRECTING, *_ELSEWHERE, *filter(_misleads, os.environ)):
        os.environ.pop(key, None)
    state = root / ".s3t"
    settings = {
        "PREFECT_HOME": str(state / "prefect"),
        "PREFECT_PROFILES_PATH": str(state / "prefect" / "profiles.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_CLIENT_METRICS_ENABLED": "false",
        "PREFECT_RUNNER_SERVER_ENABLE": "false",
        "PREFECT_DEBUG_MODE": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "",
        "PREFECT_LOGGING_LOG_PRINTS": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOCAL_STORAGE_PATH": str(state / "prefect" / "storage"),
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(state / "dvc-site"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    forced = {
        "PREFECT_HOME",
        "PREFECT_PROFILES_PATH",
        "PREFECT_DEBUG_MODE",
        "PREFECT_LOGGING_EXTRA_LOGGERS",
        "PREFECT_LOGGING_LOG_PRINTS",
        "PREFECT_LOCAL_STORAGE_PATH",
        "DVC_SITE_CACHE_DIR",
        "MLFLOW_DISABLE_TELEMETRY",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT",
        *_PORTS_OF_PREFECT,
    }
    for key, value in settings.items():
        if key in forced:
            os.environ[key] = value
        else:
            os.environ.setdefault(key, value)
    wait_without_spinning(os.environ)


def _misleads(name: str) -> bool:
    """Whether a variable has files read, or logs kept, elsewhere than they belong; or is one of
    Prefect's in other letters, which it reads as well, and may read instead of ours."""
    is_of_logs = name.startswith("PREFECT_LOGGING_") and not name.startswith(_LOGS_OF_PREFECT)
    is_spelt_otherwise = name.upper().startswith("PREFECT_") and name != name.upper()
    return name.startswith("FSSPEC_") or is_of_logs or is_spelt_otherwise


def operators_server() -> str:
    """The API address of a Prefect server that the operator named, "" where commands use the
    workspace's own."""
    url = os.environ.get("PREFECT_API_URL", "")
    return "" if url == os.environ.get(_OURS) else url


def is_our_server(url: str | None) -> bool:
    """Whether this API address is that of the server which the commands of a workspace share."""
    return bool(url) and url == os.environ.get(_OURS)


def use_server(address: Address, credential: str) -> None:
    """Let Prefect in this process, and in those that it starts, use the workspace's own server."""
    os.environ.update(
        {
            "PREFECT_API_URL": address.url,
            _OURS: address.url,
            "PREFECT_API_AUTH_STRING": credential,
            "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
            "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "false",
        }
    )
    if address.certificate:
        own = Path(os.environ["PREFECT_HOME"], CERTIFICATE).resolve()
        if Path(address.certificate).resolve() == own:
            os.environ["PREFECT_API_SSL_CERT_FILE"] = str(own)
        else:
            os.environ.setdefault("PREFECT_API_SSL_CERT_FILE", address.certificate)
    _past_proxies(str(urlsplit(address.url).hostname))
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()  # it has read its settings already


def begin_prefect(root: Path, idle_minutes: float) -> Callable[[], None]:
    """See to a Prefect API for this process: the operator's (PREFECT_API_URL), else the server that
    the commands of this workspace share, which is used until this process ends. Before Prefect is
    imported.

    Returns what waits until it answers: a server that is only starting does so beside this
    process's own work.
    """
    if operators_server():
        return wait_for_server
    server = SharedServer(root / ".s3t" / "prefect", idle_minutes)
    address = server.attach()
    use_server(address, server.credential())
    return partial(server.wait, address)


def start_prefect() -> None:
    """Begin, and wait until the API answers: for the workspace that the environment was prepared
    for."""
    root = Path(os.environ["PREFECT_HOME"]).parents[1]
    begin_prefect(root, parse_config(read_settings(root / CONFIG_NAME)).prefect.idle_minutes)()


def _past_proxies(host: str) -> None:
    """No proxy gets to see the credential of a server of ours."""
    for name in ("NO_PROXY", "no_proxy"):
        there = [n for n in os.environ.get(name, "").split(",") if n]
        if host not in there:
            os.environ[name] = ",".join([*there, host])
