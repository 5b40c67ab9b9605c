"""One workspace with everything plugged in. Adapters are made when they are first used: heavy
imports come late."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flows.adapters.away import AwayFiles
from flows.adapters.book import SqlRequestBook
from flows.adapters.certificates import CertificateFiles
from flows.adapters.clock import SystemClock
from flows.adapters.database import Database, SqlLedger
from flows.adapters.heads import Moves, SignedHeads
from flows.adapters.keys import adopt_next_key, read_keys
from flows.adapters.needle_files import NeedleFiles
from flows.adapters.outbox import Outbox
from flows.adapters.permissions import as_owner_only
from flows.adapters.s3 import S3Blobs, is_bucket
from flows.budget import Budget
from flows.settings import CONFIG_NAME, prepare_environment, read_settings
from flows.workspace.layout import HANDED, Layout
from flows.workspace.pinned import Pinned
from flows.workspace.signing import Signing
from s3t_core.config import Config, parse_config
from s3t_core.domain import DatasetVersion
from s3t_core.erasure.state import State
from s3t_core.errors import DataError, UsageError, WorkspaceError
from s3t_core.keys import WorkspaceKeys, key_check
from s3t_core.learning.activation_store import ActivationStore
from s3t_core.learning.hub import pinned_hub_id
from s3t_core.learning.jobs import FileRef
from s3t_core.learning.store import LocalStageStore, StageStore
from s3t_core.slicefile import HELD_OUT_PATH
from s3t_core.times import rfc3339

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from flows.adapters.dask_runner import DaskRunner
    from flows.adapters.datasets import DvcDatasets
    from flows.adapters.registry import MlflowRegistry
    from flows.adapters.runner import ProcessRunner

UNFINISHED_MOVE = (
    "expected no unfinished move of this workspace, got one; run `s3t migrate` to finish it, or "
    "`s3t migrate --undo`, then this command again"
)


class Workspace(Layout):
    """A workspace on disk: settings, keys, and the adapters that fill the core's ports."""

    def __init__(
        self,
        root: Path,
        config: Config | None = None,
        checkpoints: Moves = "",
        ledger_from: "Workspace | None" = None,
    ) -> None:
        """`config`: other settings than those of s3t.toml, for places that a workspace moves to or
        from. `checkpoints`: whether those outside are being moved, or are lost. `ledger_from`:
        whose ledger speaks of it, where this one's is at another place
        (flows.use_cases.migrating)."""
        self._checkpoints = checkpoints
        super().__init__(root)
        self._refuse_intake()
        self._moving = config is not None
        self._ledger_from = ledger_from or self
        self.config: Config = config or parse_config(read_settings(root / CONFIG_NAME))
        self._rules = self.config.erasure
        self.pinned = Pinned(self.config, self.refuse_migration)

    def _refuse_intake(self) -> None:
        if (self.state_dir / HANDED).exists():
            raise WorkspaceError(
                "expected the directory of a workspace, got that of a host which takes requests "
                "for one: here are `s3t api`, `s3t token` and `s3t intake`; run this command where "
                "the workspace is"
            )

    def refuse_other_rules(self) -> None:
        """Raises WorkspaceError where [erasure] in s3t.toml is another than it was when this was
        opened: since then somebody waited for the lock, or trained."""
        if self._moving:
            return
        if parse_config(read_settings(self.root / CONFIG_NAME)).erasure != self._rules:
            raise WorkspaceError(
                "expected [erasure] in s3t.toml to be what it was when this command began, got "
                "another: it would decide, or keep checkpoints, by rules that hold no more. Run "
                "the command again: what is done stays, and nothing else was changed"
            )

    # --- places

    @property
    def tracking_uri(self) -> str:
        """Where MLflow keeps runs and versions."""
        return self.config.registry.tracking_uri or f"sqlite:///{self.state_dir / 'mlflow.db'}"

    @property
    def remote(self) -> Path:
        """The DVC remote, where it is a directory."""
        return self.inside(self.config.dvc.remote)

    @property
    def buckets(self) -> list[S3Blobs]:
        """Every place in a bucket that the system writes to, of which the registry's may have other
        users too."""
        config = self.config
        return [
            S3Blobs(u)
            for u in (config.store.url, config.dvc.remote, config.registry.artifacts)
            if is_bucket(u)
        ]

    @cached_property
    def owner(self) -> str:
        """The name of the ledger: the hash of its first entry, hex."""
        return self._ledger_from.ledger.leaves()[0].hex()

    @property
    def backbone(self) -> str:
        """Where the backbone is: "minilm", a directory, made absolute because whoever loads the
        model stands elsewhere, or a hub id with its commit, as "id@commit". Raises UsageError."""
        settings = self.config.backbone
        folder = self.root / settings.model
        if settings.model == "minilm":
            return settings.model
        if folder.is_dir():
            if settings.revision:
                raise UsageError(
                    "expected no [backbone] revision with a directory, which is told by its "
                    f"digest, got {settings.revision!r}; leave it out"
                )
            return str(folder.resolve())
        return pinned_hub_id(settings.model, settings.revision)

    def refuse_migration(self) -> None:
        """Nothing but requests while a move is unfinished: what is at the new places, no erasure
        would reach. Raises WorkspaceError."""
        if self.migration_path.is_file():
            raise WorkspaceError(UNFINISHED_MOVE)

    def store_folder(self) -> list[Path]:
        """The directory of stage artifacts; none where they are in a bucket."""
        url = self.config.store.url
        return [] if is_bucket(url) else [self.inside(url)]

    def remote_folder(self) -> list[Path]:
        """The directory of the DVC remote; none where it is a bucket."""
        return [] if is_bucket(self.config.dvc.remote) else [self.remote]

    # --- adapters

    @cached_property
    def keys(self) -> WorkspaceKeys:
        """Derived keys."""
        return read_keys(self.keys_dir)

    @cached_property
    def database(self) -> Database:
        """Requests, ledger, suppression list. Raises WorkspaceError when it is not there: an empty
        one in its place would forget every acknowledged request."""
        database = Database(self.config.database.url, self.root, self.keys.sealing)
        database.now = lambda: self.clock.now()  # noqa: PLW0108  # which may be another by then
        database.suits = self.heads.check_place
        if not database.exists():
            self.refuse_migration()
            raise WorkspaceError(
                "expected the workspace's database, got none; restore it and .s3t/keys from the "
                "backup, or run `s3t init` to begin anew (for the example: `s3t init --example`)"
            )
        database.complete()
        return database

    @cached_property
    def ledger(self) -> SqlLedger:
        """The ledger, once it is clear that this is the workspace it tells of."""
        ledger = SqlLedger(self.database)
        if ledger.beginning().get("key_check") != key_check(self.keys):
            raise WorkspaceError(
                "expected the workspace key that this workspace began with, got another; restore "
                ".s3t/keys/workspace.key from its backup"
            )
        state = ledger.state()
        adopt_next_key(self.keys_dir, ledger.state)  # where a run was killed that changed the key
        self.pinned.follow(state.settled)
        self.heads.check(ledger)
        return ledger

    @cached_property
    def heads(self) -> SignedHeads:
        """Signed heads of the ledger, against which it is held."""
        outside = self.config.erasure.log_checkpoints_to
        return SignedHeads(self.root, self.keys, outside, self._checkpoints)

    @cached_property
    def signing(self) -> Signing:
        """What signs."""
        return Signing(self, self.heads, self.ledger, self.now)

    @cached_property
    def requests(self) -> SqlRequestBook:
        """Deletion requests."""
        self.ledger  # noqa: B018  # the workspace is the one the ledger tells of
        return SqlRequestBook(self.database)

    @cached_property
    def outbox(self) -> Outbox:
        """What other systems are still to be told."""
        self.ledger  # noqa: B018  # the workspace is the one the ledger tells of
        return Outbox(self.database)

    @cached_property
    def needles(self) -> NeedleFiles:
        """Ids and texts of what is being erased."""
        as_owner_only(self.state_dir / "needles")
        return NeedleFiles(self.state_dir / "needles", self.keys.sealing)

    @cached_property
    def certificates(self) -> CertificateFiles:
        """Where closing documents are signed and kept."""
        return CertificateFiles(
            self.certificates_dir,
            self.key_of_documents,
            self.signing.public_keys,
            self.heads,
            self.ledger,
        )

    @cached_property
    def store(self) -> StageStore:
        """Stage artifacts."""
        url = self.config.store.url
        if is_bucket(url):
            return StageStore(S3Blobs(url), self.keys.sealing)
        return LocalStageStore(self.inside(url), self.keys.sealing)

    @cached_property
    def activations(self) -> ActivationStore:
        """Frozen activations, kept between stages."""
        return ActivationStore(
            self.state_dir / "activations",
            self.keys.content,
            self.config.runner.activations_mb * 2**20,
        )

    @cached_property
    def datasets(self) -> "DvcDatasets":
        """Versioned data."""
        from flows.adapters.datasets import DvcDatasets

        return DvcDatasets(
            self.root,
            self.keys,
            self.config.dvc.remote,
            lambda: self.ledger.state().caches,
        )

    @cached_property
    def registry(self) -> "MlflowRegistry":
        """Model versions and runs. Raises WorkspaceError when its database is lost: MLflow would
        begin an empty one."""
        there = (
            self.config.registry.tracking_uri
            or self._moving
            or (self.state_dir / "mlflow.db").is_file()
        )
        if not there and self.ledger.state().versions:
            raise WorkspaceError(
                "expected the registry's database, .s3t/mlflow.db, got none; restore it from its "
                "backup, or run `s3t erase`, which begins another: an empty one would know no "
                "version"
            )
        return self._made_registry()

    def begin_registry(self) -> "MlflowRegistry":
        """The registry, also where its database is lost: then an empty one is begun."""
        self.registry = self._made_registry()
        return self.registry

    def _serving(self) -> dict[str, float | str]:
        """What a version says of how it answers. Of votes it says nothing: so do all those that
        were registered before there was anything else."""
        settings: dict[str, float | str] = {
            "staleness_seconds": self.config.erasure.staleness_seconds,
            "offline_seconds": self.offline_seconds,
            "text": self.config.data.text,
        }
        if self.config.serving.combine != "votes":
            settings["combine"] = self.config.serving.combine
        if self.config.data.text_pair:
            settings["text_pair"] = self.config.data.text_pair
        if self.config.task.kind == "generation":
            settings["asks"] = self.config.data.form
            settings["max_new_tokens"] = self.config.serving.max_new_tokens
        return settings

    def _made_registry(self) -> "MlflowRegistry":
        from flows.adapters.registry.experiment import ExperimentBook
        from flows.adapters.registry.opening import RegistrySettings, Server, open_registry

        remote, server = self.config.registry, None
        if remote.tracking_uri:
            in_bucket = is_bucket(remote.artifacts)
            folder = remote.artifacts if in_bucket else str(self.inside(remote.artifacts))
            server = Server(remote.backend, folder)
        settings = RegistrySettings(
            tracking_uri=self.tracking_uri,
            name=self.config.system.name,
            owner=self.owner,
            artifacts=self.state_dir / "mlartifacts",
            temporary=self.temporary_dir,
            serving=self._serving(),
            server=server,
        )
        book = ExperimentBook(remote.tracking_uri, self._ledger_from.ledger, self.clock)
        return open_registry(settings, book, self.store)

    @cached_property
    def runner(self) -> "DaskRunner | ProcessRunner":
        """What trains stages: processes of this machine, or a cluster."""
        if self.cluster is not None:
            return self.cluster
        from flows.adapters.runner import ProcessRunner

        return ProcessRunner()

    @cached_property
    def cluster(self) -> "DaskRunner | None":
        """The cluster that trains stages; None where processes of this machine do."""
        runner, training = self.config.runner, self.config.training
        if runner.kind != "dask":
            return None
        from flows.adapters.dask_runner import DaskRunner, Needs

        return DaskRunner(
            runner.address,
            self.config.dvc.remote,
            self.datasets.versions.object_of,
            Needs(training.threads, runner.task_memory_mb, int(training.device == "cuda")),
            self.away,
            plain_on_loopback=runner.plain_tcp_on_loopback,
        )

    @cached_property
    def away(self) -> AwayFiles:
        """Where rows may lie on other machines."""
        return AwayFiles(self.state_dir / "away")

    def key_of_documents(self) -> "Ed25519PrivateKey":
        """What documents are signed by, where whoever is worked for still may have one. Raises what
        refuses them."""
        self.database.check_permitted()
        return self.signing.signing_key()

    @cached_property
    def clock(self) -> SystemClock:
        """Time."""
        return SystemClock()

    def now(self) -> str:
        """Now, RFC 3339."""
        return rfc3339(self.clock.now())

    @property
    def offline_seconds(self) -> float:
        """How long a loaded model may go on without its registry: declared offline use."""
        return 3600 * self.config.erasure.offline_hours

    @cached_property
    def budget(self) -> Budget:
        """The deletion-rate budget."""
        return Budget(self.config, self.ledger.events, self.clock.now)

    def held_out_ref(self, state: State) -> FileRef:
        """The held-out file and the digest it must have. Raises DataError without data."""
        return FileRef(self.root / "data" / HELD_OUT_PATH, require_data(state).held_out.digest)


def enter(root: Path) -> Workspace:
    """The workspace of a directory, for which this process works from now on: Prefect, MLflow and
    DVC are told so by its environment."""
    prepare_environment(root)
    return Workspace(root)


def require_data(state: State) -> DatasetVersion:
    """The present data version. Raises DataError without one."""
    if state.dataset is None:
        raise DataError("expected data in the workspace, got none; run `s3t ingest SOURCE`")
    return state.dataset


def refuse_open_plan(state: State) -> None:
    """An erasure that was cut must be finished first: it may still be rewriting the data. Raises
    UsageError."""
    if state.plan is not None:
        raise UsageError(
            "expected no unfinished erasure, got one that was interrupted; run `s3t erase` to "
            "finish it"
        )
