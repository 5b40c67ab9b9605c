"""A new workspace."""

from pathlib import Path

from flows.adapters.database import Database
from flows.adapters.footing import check_footing
from flows.adapters.keys import WORKSPACE_KEY, create_keys, read_signing_key
from flows.adapters.permissions import as_owner_only, hand_nothing_down
from flows.settings import CONFIG_NAME, prepare_environment, read_settings
from flows.workspace.workspace import Workspace
from s3t_core.config import Config, parse_config, render_config
from s3t_core.erasure import events
from s3t_core.erasure.offline import key_id
from s3t_core.errors import WorkspaceError
from s3t_core.files import SHARED_MODE, write_atomically
from s3t_core.keys import key_check


def create_workspace(root: Path, config: Config, workspace_key: bytes | None = None) -> Workspace:
    """Make a workspace, or fill in what one lacks. Never overwrites settings or keys. Raises
    StorageError, and GuaranteeError where a directory of its own is a link or a mount."""
    from flows.adapters.dvc_repository import commit_files, init_repositories

    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    if (root / CONFIG_NAME).exists():
        config = parse_config(read_settings(root / CONFIG_NAME))
    hand_nothing_down(root)
    check_footing(root)
    prepare_environment(root)
    database = Database(config.database.url, root)
    if database.exists() and not (root / ".s3t" / "keys" / WORKSPACE_KEY).exists():
        raise WorkspaceError(
            "expected the keys of this workspace in .s3t/keys, got none; restore them from their "
            "backup: with new ones nobody in the data could be found again"
        )
    as_owner_only(root / ".s3t")
    if not (root / CONFIG_NAME).exists():
        write_atomically(root / CONFIG_NAME, render_config(config).encode(), SHARED_MODE)
    init_repositories(root, config.dvc.remote)
    _ignore(root)
    create_keys(root / ".s3t" / "keys", workspace_key)
    workspace = Workspace(root)
    begins = not database.exists()
    if begins:
        database = Database(config.database.url, root, workspace.keys.sealing)
        database.create(
            [
                events.WorkspaceBegan(
                    time=workspace.now(),
                    key_check=key_check(workspace.keys),
                    signing_key=key_id(read_signing_key(workspace.keys_dir).public_key()),
                )
            ]
        )
        workspace.signing.write_checkpoint()
    if begins and workspace_key is None:
        commit_files(
            root,
            [CONFIG_NAME, ".gitignore", ".dvc/config", ".dvc/.gitignore", ".dvcignore"],
            "s3t: a workspace",
        )
    return workspace


def _ignore(root: Path) -> None:
    """git keeps out of the state directory and the data."""
    path = root / ".gitignore"
    there = read_settings(path) if path.exists() else b""
    missing = [line for line in (b".s3t/", b"/data") if line not in there.splitlines()]
    if missing:
        end = b"" if there.endswith(b"\n") or not there else b"\n"
        write_atomically(
            path, there + end + b"".join(line + b"\n" for line in missing), SHARED_MODE
        )
