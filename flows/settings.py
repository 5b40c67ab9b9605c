"""Environment and workspace directory: the only place, with the command line, that reads them.

Everything the tools under us would write to a home directory goes into the workspace, and nothing phones home. A
setting that the operator made (a Prefect server's address, say) is left as it is.
"""

import os
import urllib.request
from pathlib import Path

from s3t_core.errors import WorkspaceError

CONFIG_NAME = "s3t.toml"
API_URL_FILE = "prefect-api-url"
"""In `.s3t` while `s3t serve` runs: where its Prefect server is."""


def workspace_root(given: str | None) -> Path:
    """The workspace: `--workspace`, else S3T_WORKSPACE, else the current directory. Raises WorkspaceError."""
    root = Path(given or os.environ.get("S3T_WORKSPACE") or ".").resolve()
    if not (root / CONFIG_NAME).is_file():
        raise WorkspaceError(f"expected a workspace (a directory with {CONFIG_NAME}), got {root.name or root}; "
                             "run `s3t init DIR`, then work in it or pass --workspace")
    return root


def prepare_environment(root: Path) -> None:
    """Point Prefect, MLflow and DVC at the workspace, quiet, offline, without telemetry; what they and we write from
    now on is its owner's alone. Before they are imported: DVC reads the mask once."""
    os.umask(0o077)
    state = root / ".s3t"
    settings = {
        "PREFECT_HOME": str(state / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOCAL_STORAGE_PATH": str(state / "prefect" / "storage"),
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(state / "dvc-site"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    forced = {"PREFECT_HOME", "PREFECT_LOCAL_STORAGE_PATH", "DVC_SITE_CACHE_DIR"}
    for key, value in settings.items():
        if key in forced:
            os.environ[key] = value
        else:
            os.environ.setdefault(key, value)


def start_prefect() -> None:
    """Reach the Prefect API: a server by PREFECT_API_URL, else that of `s3t serve` in this workspace, else one embedded
    in this process (seconds to start)."""
    told = Path(os.environ["PREFECT_HOME"]).parent / API_URL_FILE
    if "PREFECT_API_URL" not in os.environ and told.is_file():
        url = told.read_text()
        if is_serving(url):
            os.environ["PREFECT_API_URL"] = url  # before Prefect is imported: it reads settings once
    from prefect import get_client
    with get_client(sync_client=True) as client:
        client.hello()


def is_serving(url: str) -> bool:
    """Whether a Prefect server answers at this API address."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=3) as answer:  # noqa: S310  # http, as we wrote it
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False
