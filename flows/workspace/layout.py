"""Where a workspace keeps what: paths only."""

from pathlib import Path

from flows.settings import CONFIG_NAME
from s3t_core.identity_index import IDENTITY_PATH
from s3t_core.slicefile import HELD_OUT_PATH, slice_path

TOKENS = "tokens.json"
"""Under `.s3t`: who may ask at the HTTP door (adapters.tokens)."""
CALLBACKS_SECRET = "callbacks-secret"  # noqa: S105  # the name of its file
"""Under `.s3t`: what the secrets of callbacks' receivers are made of (use_cases.callbacks)."""
CALLBACKS_LOCK = "callbacks.lock"
"""Under `.s3t`: held by who sends callbacks."""
HANDED = "intake.json"
"""Under `.s3t` of a host apart that takes requests: what the workspace handed to it
(workspace.intake)."""
ENDING = "ending"
"""Under `.s3t`: the request that is being ended by a decision, while it is (workspace.verified)."""
_STATE_NAMES = (
    ENDING,
    "s3t.db",
    "mlflow.db",
    CALLBACKS_LOCK,
    CALLBACKS_SECRET,
    TOKENS,
    "tokens.lock",
    "keys.lock",
    "door.json",
    "door.lock",
    "accepting.lock",
    "needles.lock",
    "activations/lock",
    "activations/live.json",
    "keys/signing.key",
    "keys/signing.pub",
    "keys/workspace.key",
)


class Layout:
    """The directories and files of a workspace."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state_dir = root / ".s3t"

    @property
    def lock_path(self) -> Path:
        """Held while the workspace changes."""
        return self.state_dir / "workspace.lock"

    @property
    def training_lock_path(self) -> Path:
        """Held by an ingest or a training from beginning to end, so that there is one at a time;
        erasures go on."""
        return self.state_dir / "training.lock"

    @property
    def migration_path(self) -> Path:
        """There from the beginning of `s3t migrate` to its end (flows.use_cases.migrating)."""
        return self.state_dir / "migration.json"

    @property
    def next_dir(self) -> Path:
        """Slices as they will be after an erasure, while a replacement is trained on them first."""
        return self.state_dir / "next"

    @property
    def keys_dir(self) -> Path:
        """Keys, 0700."""
        return self.state_dir / "keys"

    @property
    def certificates_dir(self) -> Path:
        """Certificates, one file per request."""
        return self.state_dir / "certificates"

    @property
    def serve_lock_path(self) -> Path:
        """Held by `s3t serve`."""
        return self.state_dir / "serve.lock"

    @property
    def reports_dir(self) -> Path:
        """Compliance reports, a directory per day."""
        return self.state_dir / "reports"

    @property
    def temporary_dir(self) -> Path:
        """Spools and copies, 0700; emptied by each sweep, under the lock."""
        return self.state_dir / "tmp"

    @property
    def placing_dir(self) -> Path:
        """Where an ingest makes the new data directory, on the file system of the old one; emptied
        by each sweep, under the lock."""
        return self.state_dir / "placing"

    def inside(self, path: str) -> Path:
        """A path of the settings: below the workspace, unless it is absolute."""
        return self.root / path

    def own_names(self, shards: int, slices: int) -> list[str]:
        """What the system calls its own files, relative to the workspace, "" being itself."""
        files = [slice_path(shard, index) for shard in range(shards) for index in range(slices)]
        data = [f"data/{name}" for name in (HELD_OUT_PATH, IDENTITY_PATH, *files)]
        locks = (
            self.lock_path,
            self.training_lock_path,
            self.migration_path,
            self.serve_lock_path,
        )
        state = [f".s3t/{name}" for name in (*(path.name for path in locks), *_STATE_NAMES)]
        return ["", *data, "data.dvc", CONFIG_NAME, *state]
