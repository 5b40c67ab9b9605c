"""One workspace with everything plugged in. Adapters are made when they are first used: heavy
imports come late."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flows import adapters
from flows.adapters.away import AwayFiles
from flows.adapters.checkpoints import CheckpointFiles
from flows.adapters.database import Database, SqlLedger, SqlRequestBook
from flows.adapters.experiment import ExperimentBook
from flows.adapters.footing import check_footing
from flows.adapters.keys import (
    WORKSPACE_KEY,
    adopt_next_key,
    create_keys,
    read_keys,
    read_public_keys,
    read_signing_key,
    read_workspace_key,
)
from flows.adapters.lease import CHANGE, TRAIN, Lease, lock_place
from flows.adapters.loading import sweep_unused, wait_until_unused
from flows.adapters.local import (
    CertificateFiles,
    NeedleFiles,
    SystemClock,
    WorkspaceResidue,
    as_owner_only,
    close_to_others,
    workspace_lock,
)
from flows.adapters.marks import claim_place, place_of
from flows.adapters.memory import SealedMemory
from flows.adapters.s3 import S3Blobs, is_bucket
from flows.budget import budget_document, budget_tags, forecast_document
from flows.examples import EXAMPLE_KEY
from flows.settings import CONFIG_NAME, prepare_environment, read_settings
from s3t_core.config import Config, parse_config, render_config
from s3t_core.domain import DatasetVersion
from s3t_core.erasure.checkpoint import Checkpoint
from s3t_core.erasure.closing import DocumentProblems, check_documents
from s3t_core.erasure.executor import ErasePolicy, ErasePorts
from s3t_core.erasure.ledger import head_of
from s3t_core.erasure.merkle import leaf_hash
from s3t_core.erasure.needles import NeedleSet, make_needles
from s3t_core.erasure.offline import key_id
from s3t_core.erasure.state import ExperimentRecord, State
from s3t_core.errors import DataError, UsageError, WorkspaceError
from s3t_core.files import (
    SHARED_MODE,
    is_half_written,
    is_written,
    open_files,
    remove_file,
    remove_half_written,
    remove_tree,
    write_atomically,
)
from s3t_core.identity_index import IDENTITY_PATH
from s3t_core.keys import WorkspaceKeys, key_check
from s3t_core.learning.activation_store import ActivationStore
from s3t_core.learning.hub import pinned_hub_id
from s3t_core.learning.jobs import FileRef, MeasureJob
from s3t_core.learning.recipe import Recipe
from s3t_core.learning.release import recipe_from_json
from s3t_core.learning.store import LocalStageStore, StageStore
from s3t_core.release_json import release_from_json
from s3t_core.slicefile import HELD_OUT_PATH, slice_path
from s3t_core.times import rfc3339

_UNFINISHED_MOVE = (
    "expected no unfinished move of this workspace, got one; run `s3t migrate` to finish it, or "
    "`s3t migrate --undo`, then this command again"
)
_SIGNING_SECONDS = 60.0
"""A checkpoint waits so long for another process that signs one."""
_LOADING_SECONDS = 60.0
"""A scan waits so long for a process that loads a version."""
_SWEPT_APART = ("activations", "loading", "next", "tmp")
"""Directories of `.s3t` that have a sweep of their own."""


class Workspace:
    """A workspace on disk: config, keys, and the adapters that fill the core's ports."""

    def __init__(self, root: Path, config: Config | None = None) -> None:
        """`config`: other settings than those of s3t.toml, for places that a workspace moves to or
        from."""
        self.root = root
        self.state_dir = root / ".s3t"
        self.settled: dict[str, str] | None = None
        self._moving = config is not None
        # whose ledger tells: another's while this one's is elsewhere (flows.use_cases.migrating)
        self.teller = self
        self.config: Config = config or parse_config(read_settings(root / CONFIG_NAME))
        prepare_environment(root)

    # --- places

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
        """Spools, 0700; emptied at the start of each command that uses it."""
        return self.state_dir / "tmp"

    @property
    def tracking_uri(self) -> str:
        """Where MLflow keeps runs and versions."""
        return self.config.registry.tracking_uri or f"sqlite:///{self.state_dir / 'mlflow.db'}"

    @property
    def remote(self) -> Path:
        """The DVC remote, where it is a directory."""
        return self._inside(self.config.dvc.remote)

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
        return self.teller.ledger.leaves()[0].hex()

    def claim(self, begins: bool | None = None) -> None:
        """Mark store and remote as this workspace's: erasures destroy what its ledger does not know
        there. A directory in the workspace needs no mark. `begins`: whether they may be without a
        mark yet; by default, before the first data. Raises WorkspaceError for a place that is, or
        lies within or around, another workspace's, and for one that has lost its mark
        (adapters.marks)."""
        begins = self.ledger.state().settled is None if begins is None else begins
        if not begins:
            self._check_cache()
        for setting, url in (
            ("[store] url", self.config.store.url),
            ("[dvc] remote", self.config.dvc.remote),
        ):
            blobs, marked = place_of(url, self.root)
            if marked:
                claim_place(setting, blobs, self.owner, begins, Path(".s3t") / "keys")

    def _check_cache(self) -> None:
        """A cache on another disk must hold the recorded data version: where that is not mounted,
        an empty directory would look as if everything in it were erased, and be filled anew. One
        that DVC used before must be there. Raises WorkspaceError."""
        dataset, root = self.ledger.state().dataset, self.root.resolve()
        if dataset is None:
            return
        now, *before = self.datasets.caches
        outside = not now.resolve().is_relative_to(root)
        if outside and not (now / dataset.version[:2] / dataset.version[2:]).is_file():
            raise WorkspaceError(
                "expected DVC's cache outside this workspace to hold the recorded data version, "
                "got one without it; mount its disk, or, where the cache is lost for good, run "
                "`dvc fetch data.dvc`, then the command again"
            )
        away = [p for p in before if not p.resolve().is_relative_to(root) and not p.is_dir()]
        if away:
            raise WorkspaceError(
                "expected every directory that DVC ever kept this workspace's data in, got "
                f"{len(away)} that is not there ({away[0].parents[1]}): rows may be in it. Mount "
                "its disk, then run the command again; if it was destroyed or moved, make an empty "
                "directory files/md5 in its stead"
            )

    def note_cache(self) -> None:
        """Tell the ledger where DVC keeps data now, before anything is written there: erasures look
        there from then on, whoever runs them. The caller holds the workspace."""
        found = self.datasets.new_cache()
        if found is not None:
            self.ledger.append(
                {"type": "cache", "time": self.now(), "dir": found[0], "shared": found[1]}
            )

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

    def sweep(self) -> None:
        """Remove what a killed process left half-written: spools, copies, temporary files, wherever
        the system, or a tool under it, writes. Under the lock. What a living process has open
        stays. Raises StorageError."""
        remove_tree(self.temporary_dir)
        remove_tree(self.next_dir)
        sweep_unused(self.state_dir / "loading")
        for folder in (
            self.root / "data",
            *self.datasets.caches,
            *self._remote_folder(),
            *self._store_folder(),
        ):
            close_to_others(folder)
        opened = open_files()
        for folder in self._written_folders():
            remove_half_written(folder, lambda path: is_written(path, opened))
        for path in self.state_dir.iterdir():
            if is_half_written(path.name) and not path.is_dir() and not is_written(path, opened):
                remove_file(path)

    def _written_folders(self) -> list[Path]:
        """Where the system, or DVC or git under it, writes to. Other remotes than the configured
        one are not among them: somebody else may be uploading there. Kept activations have a lock
        of their own, under which they are swept (ActivationStore.allow)."""
        state = [p for p in self.state_dir.iterdir() if p.is_dir() and p.name not in _SWEPT_APART]
        return [
            *state,
            self.root / "data",
            self.root / ".dvc",
            self.root / ".git" / "objects",
            *self.datasets.caches,
            *self._remote_folder(),
            *self._store_folder(),
        ]

    @contextlib.contextmanager
    def changing(self, wait_seconds: float = 0) -> Iterator[Lease]:
        """Be the one who changes the workspace: hold its lock on this machine, and the lease in the
        database, which keeps other machines out whatever their file system does with locks. Raises
        Busy, and GuaranteeError where a link or a pipe lies in the place of a file of the
        system's."""
        with workspace_lock(self.lock_path, wait_seconds):
            self.refuse_migration()
            self.check_footing()
            self._refuse_begun_move()
            with Lease(self.database, CHANGE, lock_place(self.lock_path)).held(
                wait_seconds
            ) as lease:
                self.settled = self.ledger.state().settled  # it may have moved since it was opened
                self._check_settled()
                yield lease

    def check_footing(self) -> None:
        """Look at what the workspace keeps, store and remote too. Raises GuaranteeError where a
        link or a pipe lies in the place of a file of the system's (adapters.footing)."""
        check_footing(self.root, self._store_folder(), self._remote_folder())

    @contextlib.contextmanager
    def training(self, wait_seconds: float = 0) -> Iterator[None]:
        """Be the one who ingests, trains or replays, from beginning to end; erasures go on. Raises
        Busy."""
        with workspace_lock(self.training_lock_path, wait_seconds):
            self.refuse_migration()
            self._refuse_begun_move()
            with Lease(
                self.database, TRAIN, lock_place(self.training_lock_path), fences=False
            ).held(wait_seconds):
                yield

    def refuse_migration(self) -> None:
        """Nothing but requests while a move is unfinished: what is at the new places, no erasure
        would reach. Raises WorkspaceError."""
        if self.migration_path.is_file():
            raise WorkspaceError(_UNFINISHED_MOVE)

    def _refuse_begun_move(self) -> None:
        """The same, by the ledger: a restore of older files takes away what a move left of itself
        on disk."""
        if self.ledger.state().moving is not None:
            raise WorkspaceError(_UNFINISHED_MOVE)

    def check_outside(self, path: Path) -> None:
        """That what a command is to write for its user lies outside of what the system keeps.
        Raises UsageError."""
        kept = [self.root / name for name in ("data", ".dvc", ".git")] + [
            *self.datasets.caches,
            *self._store_folder(),
            *self._remote_folder(),
            self.state_dir,
        ]
        within = any(path.resolve().is_relative_to(folder.resolve()) for folder in kept)
        if within and not path.resolve().is_relative_to(self.reports_dir.resolve()):
            raise UsageError(
                "expected a path outside of what the system keeps (data, .s3t, DVC's and git's "
                "directories, store and remote), got one in it: it would be searched, swept or "
                "replaced there"
            )

    def _inside(self, path: str) -> Path:
        return self.root / path

    def _store_folder(self) -> list[Path]:
        url = self.config.store.url
        return [] if is_bucket(url) else [self._inside(url)]

    def _remote_folder(self) -> list[Path]:
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
        adopt_next_key(self.keys_dir, state)  # where a run was killed while it changed the key
        self.settled = state.settled
        self._check_settled()
        self._check_checkpoints(ledger)
        return ledger

    def check_whole(self) -> DocumentProblems:
        """Hold everything against the ledger that a quick command takes from memory: every
        checkpoint, the requests, the suppression list. Returns what is wrong with closing
        documents: one that is gone stops no erasure. Raises LedgerError, CertificateError."""
        self._check_checkpoints(self.ledger, whole=True)
        self.requests.check()
        return self.document_problems(whole=True)

    def document_problems(self, whole: bool = False) -> DocumentProblems:
        """What is wrong with closing documents on disk; those that were as recorded before, and are
        the same files still, are taken from memory unless `whole`."""
        memory, folder = self.memory, self.certificates_dir
        found = check_documents(
            self.ledger.state().documents,
            lambda request: memory.digest_of("documents", folder / f"{request}.json", whole),
        )
        memory.save()
        return found

    def _check_checkpoints(self, ledger: SqlLedger, whole: bool = False) -> None:
        name = leaf_hash(ledger.entries()[0]).hex()
        self.checkpoints.check(name, ledger.state, ledger.leaves, whole)

    @cached_property
    def memory(self) -> SealedMemory:
        """What earlier commands verified."""
        return SealedMemory(self.state_dir / "verified", self.keys.sealing)

    @cached_property
    def checkpoints(self) -> CheckpointFiles:
        """Signed heads of the ledger. Raises WorkspaceError for a place inside the workspace."""
        place = self.config.erasure.log_checkpoints_to
        if place and Path(place).resolve().is_relative_to(self.root.resolve()):
            raise WorkspaceError(
                "expected [erasure] log_checkpoints_to to name a place outside the workspace, got "
                "one inside it: whoever rolls the ledger back would roll the checkpoints back with "
                "it"
            )
        return CheckpointFiles(
            self.state_dir / "checkpoint.json",
            Path(place) if place else None,
            lambda: read_public_keys(self.keys_dir),
            self.memory,
        )

    def write_checkpoint(self) -> tuple[Checkpoint, bytes]:
        """Sign the ledger as it is now: at the end of every command that changed it; the checkpoint
        and its bytes."""
        with workspace_lock(
            self.state_dir / "checkpoint.lock", _SIGNING_SECONDS
        ):  # what is read first is signed first
            private, leaves = self.signing_key(), self.ledger.leaves()
            checkpoint = Checkpoint(leaves[0].hex(), head_of(leaves), self.now())
            return checkpoint, self.checkpoints.write(
                checkpoint, private, leaves, self.ledger.leaves
            )

    def public_keys(self) -> list[Ed25519PublicKey]:
        """Those of the keys in .s3t/keys that sign, or signed, by the ledger: what else lies there
        counts for nothing."""
        known = self.ledger.state().signed_by
        return [k for k in read_public_keys(self.keys_dir) if key_id(k) in known]

    def signing_key(self) -> Ed25519PrivateKey:
        """The key that signs by the ledger. Raises WorkspaceError where another one lies in its
        place."""
        private, signs = read_signing_key(self.keys_dir), self.ledger.state().signing
        if key_id(private.public_key()) != signs:
            raise WorkspaceError(
                f"expected the signing key that the ledger names, {signs[:16]}..., in .s3t/keys, "
                "got another; restore it from its backup, or, when it is lost for good, take this "
                "one away and run `s3t rotate-key --lost`"
            )
        return private

    def settle(self) -> None:
        """Record the settings that must stay from the first data on, because versions and files
        stand under them."""
        from flows.adapters.datasets import write_remote

        ledger = self.ledger
        for bucket in self.buckets:
            bucket.check()
        self.claim()
        if self.settled is None:
            write_remote(self.root, self.config.dvc.remote)
            self.settled = self.lasting_settings()
            ledger.append({"type": "settled", "time": self.now(), "settings": self.settled})
        self.note_cache()

    def lasting_settings(self) -> dict[str, str]:
        """Settings that versions and files stand under."""
        return {
            "[system] name": self.config.system.name,
            "[store] url": self.config.store.url,
            "[dvc] remote": self.config.dvc.remote,
            "[registry] tracking_uri": self.config.registry.tracking_uri,
        }

    def _check_settled(self) -> None:
        for what, value in self.lasting_settings().items():
            settled = None if self.settled is None else self.settled.get(what, "")
            if settled not in (None, value):
                self.refuse_migration()
                raise WorkspaceError(
                    f"expected {what} = {settled!r} in s3t.toml, as when the first data came, "
                    f"got {value!r}; versions and files stand under it: change it back, then `s3t "
                    "migrate --settings FILE` moves them"
                )

    @cached_property
    def requests(self) -> SqlRequestBook:
        """Deletion requests."""
        self.ledger  # noqa: B018  # the workspace is the one the ledger tells of
        return SqlRequestBook(self.database)

    @cached_property
    def needles(self) -> NeedleFiles:
        """Ids and texts of what is being erased."""
        as_owner_only(self.state_dir / "needles")
        return NeedleFiles(self.state_dir / "needles", self.keys.sealing)

    @cached_property
    def certificates(self) -> CertificateFiles:
        """Where closing documents are signed and kept."""
        return CertificateFiles(
            self.certificates_dir, self.signing_key(), lambda: self._check_checkpoints(self.ledger)
        )

    @cached_property
    def store(self) -> StageStore:
        """Stage artifacts."""
        url = self.config.store.url
        if is_bucket(url):
            return StageStore(S3Blobs(url), self.keys.sealing)
        return LocalStageStore(self._inside(url), self.keys.sealing)

    @cached_property
    def activations(self) -> ActivationStore:
        """Frozen activations, kept between stages."""
        return ActivationStore(
            self.state_dir / "activations",
            self.keys.content,
            self.config.runner.activations_mb * 2**20,
        )

    @cached_property
    def datasets(self) -> Any:
        """Versioned data."""
        from flows.adapters.datasets import DvcDatasets

        return DvcDatasets(
            self.root,
            self.keys,
            self.config.data.label,
            self.config.dvc.remote,
            lambda: self.ledger.state().caches,
        )

    @cached_property
    def registry(self) -> Any:
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
        return self.make_registry()

    def make_registry(self) -> Any:
        """The registry, also where it is lost."""
        from flows.adapters.registry import MlflowRegistry
        from flows.adapters.registry_server import ServerRegistry

        remote = self.config.registry
        serving = {
            "staleness_seconds": self.config.erasure.staleness_seconds,
            "offline_seconds": self.offline_seconds,
            "text": self.config.data.text,
        }
        parts = (
            self.tracking_uri,
            self.state_dir / "mlartifacts",
            self.temporary_dir,
            self.config.system.name,
            self.store,
            serving,
            self.owner,
            self._experiments(),
        )
        if remote.tracking_uri:
            folder = (
                remote.artifacts
                if is_bucket(remote.artifacts)
                else str(self._inside(remote.artifacts))
            )
            return ServerRegistry(remote.backend, folder, *parts)
        return MlflowRegistry(*parts)

    def _experiments(self) -> ExperimentBook:
        def state() -> State:
            return self.teller.ledger.state()

        def append(record: ExperimentRecord) -> None:
            self.teller.ledger.append({"type": "experiment", "time": self.now(), **asdict(record)})

        return ExperimentBook(self.config.registry.tracking_uri, state, append)

    @cached_property
    def runner(self) -> Any:
        """What trains stages: processes of this machine, or a cluster."""
        runner, training = self.config.runner, self.config.training
        if runner.kind == "dask":
            from flows.adapters.dask_runner import DaskRunner, Needs

            return DaskRunner(
                runner.address,
                self.config.dvc.remote,
                self.datasets.object_of,
                Needs(training.threads, runner.task_memory_mb, int(training.device == "cuda")),
                self.away,
                plain_on_loopback=runner.plain_tcp_on_loopback,
            )
        from flows.adapters.runner import ProcessRunner

        return ProcessRunner()

    @cached_property
    def away(self) -> AwayFiles:
        """Where rows may lie on other machines."""
        return AwayFiles(self.state_dir / "away")

    def _check_away(self) -> None:
        """That no machine of a cluster may hold rows of data files that are destroyed, and no
        process here a copy of stages that it loads. Raises ResidueFound, Busy."""
        wait_until_unused(self.state_dir / "loading", _LOADING_SECONDS)
        state = self.ledger.state()
        files = [f for d in state.datasets for f in d.files()]
        gone = {f.digest for f in files if f.md5 in state.destroyed_objects}
        self.away.check(
            {f.digest for f in files} - gone,
            lambda: self.runner if self.config.runner.kind == "dask" else None,
        )

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

    # --- the eraser's parts

    def erase_ports(self) -> ErasePorts:
        """Everything the eraser works through. The caller holds the workspace."""
        self.note_cache()
        artifacts = self.registry.places()
        elsewhere = [
            *self._present_remotes(),
            *self.datasets.own_caches(),
            *self._remote_folder(),
            *self._store_folder(),
            *(Path(p) for p in artifacts if not is_bucket(p) and Path(p).is_dir()),
        ]
        places = (self.config.store.url, self.config.dvc.remote, *artifacts)
        written = {b.url: b for b in map(S3Blobs, filter(is_bucket, places))}
        buckets = written | {b.url: b for b in self.datasets.bucket_remotes()}
        for bucket in buckets.values():
            bucket.check()
        self.claim()
        from flows.adapters.known_subjects import KnownSubjects

        residue = WorkspaceResidue(
            self.root,
            elsewhere,
            partial(self.needles.files_of, self._being_erased),
            self._baseline(),
            list(buckets.values()),
            self.temporary_dir,
            frozenset(written),
            lambda: KnownSubjects(self.datasets, self.ledger.state),
            self._check_away,
        )
        return ErasePorts(
            ledger=self.ledger,
            requests=self.requests,
            datasets=self.datasets,
            stages=self.store,
            activations=self.activations,
            registry=self.registry,
            needles=self.needles,
            residue=residue,
            evaluator=ReleaseEvaluator(self),
            certificates=self.certificates,
            clock=self.clock,
        )

    def _present_remotes(self) -> list[Path]:
        """The directories among this repository's remotes. Raises WorkspaceError for one that is
        not there: its copies are somewhere. The directory that a disk is mounted at is there
        without it, and has nothing of DVC's."""
        from flows.adapters.datasets import is_remote

        remotes = self.datasets.local_remotes()
        away = [p for p in remotes if not is_remote(p) and p.resolve() != self.remote.resolve()]
        if away:
            raise WorkspaceError(
                f"expected every DVC remote of this workspace to be there, got {len(away)} "
                "directory or directories that are not, or have nothing of DVC's in them "
                "(files/md5); mount their disks; where nothing was pushed to one yet, make that "
                "directory in it; take a remote that is gone for good out of .dvc/config, when its "
                "copies are destroyed"
            )
        return remotes

    def _being_erased(self) -> list[str]:
        """The open requests, and the plan that is carried out."""
        plan = self.ledger.state().plan
        begun = [plan["plan"]["plan_id"], *plan["plan"]["requests"]] if plan is not None else []
        return [*begun, *(r.request_id for r in self.requests.pending())]

    def _baseline(self) -> Iterable[bytes]:
        """What the system writes whoever is in the data, as parts in bytes that each scan reads
        anew."""
        from flows.adapters.baseline import Baseline

        labels = [*self.config.data.labels, json.dumps(self.config.data.labels)[1:-1]]
        code = Path(adapters.__file__).with_name("champion.py")
        fixed = (
            *(x.encode() for x in labels),
            code.read_bytes(),
            *(f"{self.root.resolve()}/{name}".encode() for name in self._names()),
        )
        documents = (self.certificates_dir, self.reports_dir, self.state_dir / "checkpoint.json")
        state = self.ledger.state()
        return Baseline(
            fixed=fixed,
            settings=render_config(self.config).encode(),
            entries=self.ledger.entries,
            documents=documents,
            publics=tuple(sorted(self.public_keys(), key=lambda k: key_id(k) != state.signing)),
            recorded=lambda: set(self.ledger.state().documents.values()),
            databases=self.state_dir,
            root=self.root,
            erased=self._erased,
        )

    def _names(self) -> list[str]:
        """What the system calls its own files, by the settings."""
        system = self.config.system
        slices = [
            slice_path(shard, index)
            for shard in range(system.shards)
            for index in range(system.slices)
        ]
        return [
            "",
            *(f"data/{name}" for name in (HELD_OUT_PATH, IDENTITY_PATH, *slices)),
            "data.dvc",
            CONFIG_NAME,
            *(
                f".s3t/{path.name}"
                for path in (
                    self.lock_path,
                    self.training_lock_path,
                    self.migration_path,
                    self.serve_lock_path,
                )
            ),
            *(
                f".s3t/{name}"
                for name in (
                    "s3t.db",
                    "mlflow.db",
                    "accepting.lock",
                    "needles.lock",
                    "activations/lock",
                    "activations/live.json",
                    "keys/signing.key",
                    "keys/signing.pub",
                    "keys/workspace.key",
                )
            ),
        ]

    def _erased(self) -> NeedleSet:
        """What the scan would look for of the people whose rows the open erasure found, if the
        system wrote nothing."""
        state = self.ledger.state()
        if state.plan is None:
            return make_needles([], [])
        plan = state.plan["plan"]
        having = {
            r: state.requests[r].ids for r, rows in plan["rows"].items() if any(rows.values())
        }
        found = self.needles.read(plan["plan_id"], having)
        return make_needles(found.ids, found.texts or [])

    def erase_policy(self) -> ErasePolicy:
        """The settings that an erasure obeys."""
        software = {
            name: version(name)
            for name in ("s3t", "dvc", "mlflow", "torch", "transformers", "peft")
        }
        return ErasePolicy(
            staleness_seconds=self.config.erasure.staleness_seconds,
            keep_clean_versions_days=self.config.erasure.keep_clean_versions_days,
            software=software,
            budget_of=self.budget_of,
            budget_tags=self.budget_tags,
            needs_approval=self.config.erasure.needs_approval,
            jurisdiction=self.config.erasure.jurisdiction,
            offline_seconds=self.offline_seconds,
            deleted_bytes_seconds=3600 * self.config.erasure.deleted_bytes_hours,
        )

    def budget_of(self, state: State) -> dict[str, Any] | None:
        """The deletion-rate budget as JSON values, None before there is a release."""
        return budget_document(self.config, state)

    def forecast_of(self, state: State) -> dict[str, Any] | None:
        """How long the budget is expected to last, as JSON values; None where nothing can be
        foreseen."""
        return forecast_document(self.config, state, self.ledger.events(), self.clock.now())

    def budget_tags(self, state: State) -> dict[str, str]:
        """Both as tags of the version that serves."""
        return budget_tags(self.config, state, self.ledger.events(), self.clock.now())

    def check_example_key(self, source: str) -> None:
        """The published key protects nobody: refuse it for anything but an example set. Raises
        WorkspaceError."""
        if read_workspace_key(self.keys_dir) == EXAMPLE_KEY and not source.startswith("example:"):
            raise WorkspaceError(
                "expected example data under the published example key, got a source of your own; "
                "make a workspace with a key of its own: `s3t init DIR`"
            )

    def held_out_ref(self, state: State) -> FileRef:
        """The held-out file and the digest it must have. Raises DataError without data."""
        return FileRef(self.root / "data" / HELD_OUT_PATH, require_data(state).held_out.digest)


class ReleaseEvaluator:
    """Measures a release in a process of its own. Fills the port `Evaluator`."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def accuracy(self, release: dict[str, Any], recipe: dict[str, Any]) -> float | None:
        """Accuracy on the held-out rows that are there now, 0 to 1."""
        workspace = self._workspace
        return self.accuracy_on(
            release, recipe_from_json(recipe), workspace.held_out_ref(workspace.ledger.state())
        )

    def accuracy_on(
        self, release: dict[str, Any], recipe: Recipe, held_out: FileRef
    ) -> float | None:
        """The same on given held-out rows."""
        workspace = self._workspace
        result: float | None = workspace.runner.measure(
            MeasureJob(
                recipe,
                release_from_json(release),
                held_out,
                workspace.store,
                workspace.keys,
                workspace.config.runner.max_memory,
            )
        )
        return result


def create_workspace(root: Path, config: Config, workspace_key: bytes | None = None) -> Workspace:
    """Make a workspace, or fill in what one lacks. Never overwrites settings or keys. Raises
    StorageError."""
    from flows.adapters.datasets import commit_files, init_repositories

    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    if (root / CONFIG_NAME).exists():
        config = parse_config(read_settings(root / CONFIG_NAME))
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
                {
                    "type": "workspace",
                    "time": workspace.now(),
                    "key_check": key_check(workspace.keys),
                    "signing_key": key_id(read_signing_key(workspace.keys_dir).public_key()),
                }
            ]
        )
        workspace.write_checkpoint()
    if begins and workspace_key is None:
        commit_files(
            root,
            [CONFIG_NAME, ".gitignore", ".dvc/config", ".dvc/.gitignore", ".dvcignore"],
            "s3t: a workspace",
        )
    return workspace


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
