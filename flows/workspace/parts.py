"""What use cases take of a workspace, part by part. A use case names the parts that it works with;
a workspace has them all, and a test may hand over those alone."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flows.adapters.book import SqlRequestBook
from flows.adapters.certificates import CertificateFiles
from flows.adapters.clock import SystemClock
from flows.adapters.database import Database, SqlLedger
from flows.adapters.heads import SignedHeads
from flows.adapters.needle_files import NeedleFiles
from flows.adapters.s3 import S3Blobs
from flows.budget import Budget
from flows.workspace.pinned import Pinned
from flows.workspace.signing import Signing
from s3t_core.config import Config
from s3t_core.keys import NamingKeys, WorkspaceKeys

if TYPE_CHECKING:
    from flows.adapters.dask_runner import DaskRunner
    from flows.adapters.datasets import DvcDatasets
    from flows.adapters.registry import MlflowRegistry
    from flows.adapters.runner import ProcessRunner
    from s3t_core.learning.activation_store import ActivationStore
    from s3t_core.learning.store import StageStore


class HasConfig(Protocol):
    """Settings."""

    @property
    def config(self) -> Config:
        """As s3t.toml has them."""


class HasKeys(Protocol):
    """The workspace's keys."""

    @property
    def keys_dir(self) -> Path:
        """Where they lie."""

    @property
    def keys(self) -> WorkspaceKeys:
        """Derived ones, one for each purpose."""


class HasClock(Protocol):
    """The time."""

    @property
    def clock(self) -> SystemClock:
        """As a clock."""

    def now(self) -> str:
        """Now, RFC 3339."""


class HasLedger(HasClock, Protocol):
    """The ledger, and the time that its entries bear."""

    @property
    def ledger(self) -> SqlLedger:
        """Once it is clear that it is this workspace's."""


class HasDatabase(Protocol):
    """The database itself: whose account asks, and what may be written."""

    @property
    def database(self) -> Database:
        """Requests, ledger, suppression list."""


class HasRequests(Protocol):
    """Deletion requests."""

    @property
    def requests(self) -> SqlRequestBook:
        """The book of them."""


class HasNeedles(Protocol):
    """Ids and texts of what is being erased."""

    @property
    def needles(self) -> NeedleFiles:
        """The files of them."""


class KeepsGiven(Protocol):
    """Where ids as given are kept while requests are taken (adapters.needle_files; on a host apart,
    adapters.sealed_ids)."""

    def accepting(self) -> AbstractContextManager[None]:
        """Held until it is known whether requests were accepted."""

    def keep_ids(self, ids: Mapping[str, list[str]]) -> None:
        """Keep them, by request."""

    def destroy(self, plan_id: str, request_ids: Iterable[str]) -> None:
        """Remove those of requests."""

    def ids_of(self, request_id: str) -> list[str]:
        """Those of one request that can be read here."""

    def digest_of(self, request_id: str, given: str) -> str:
        """By what the ledger knows one."""


class WritesCheckpoints(Protocol):
    """What signs the head of the ledger."""

    def write_checkpoint(self) -> object:
        """As it is now."""


class Taking(HasConfig, HasLedger, HasRequests, Protocol):
    """What requests are taken into: a workspace, or a host apart."""

    @property
    def root(self) -> Path:
        """Its directory."""

    @property
    def keys(self) -> NamingKeys:
        """Those by which a request names people."""

    @property
    def needles(self) -> KeepsGiven:
        """Where ids as given are kept."""

    @property
    def signing(self) -> WritesCheckpoints:
        """What signs that a request was taken."""


class HasHeads(Protocol):
    """What the ledger is held against."""

    @property
    def heads(self) -> SignedHeads:
        """The signed heads of it."""


class HasSigning(Protocol):
    """What signs."""

    @property
    def signing(self) -> Signing:
        """The key, and the checkpoints that it signs."""


class HasDocuments(Protocol):
    """Where closing documents are."""

    @property
    def certificates_dir(self) -> Path:
        """A file for each request."""


class HasCertificates(HasDocuments, Protocol):
    """What signs closing documents."""

    @property
    def certificates(self) -> CertificateFiles:
        """Where they are kept."""


class HasDatasets(Protocol):
    """Versioned data."""

    @property
    def root(self) -> Path:
        """The workspace's directory, with `data` in it."""

    @property
    def datasets(self) -> "DvcDatasets":
        """Its versions."""


class HasRegistry(Protocol):
    """Model versions and runs."""

    @property
    def registry(self) -> "MlflowRegistry":
        """Where they are kept. Raises WorkspaceError where it is lost."""

    def begin_registry(self) -> "MlflowRegistry":
        """The same, begun anew where it is lost."""


class HasStages(Protocol):
    """Stages, and what trains them."""

    @property
    def store(self) -> "StageStore":
        """Stage artifacts."""

    @property
    def runner(self) -> "DaskRunner | ProcessRunner":
        """Processes of this machine, or a cluster."""


class HasActivations(Protocol):
    """Frozen activations."""

    @property
    def activations(self) -> "ActivationStore":
        """Those that are kept between stages."""


class HasFolders(Protocol):
    """Directories of the system's, and what settles where they are."""

    @property
    def state_dir(self) -> Path:
        """`.s3t`."""

    @property
    def pinned(self) -> Pinned:
        """The settings that must stay."""

    def store_folder(self) -> list[Path]:
        """The directory of stage artifacts, none where they are in a bucket."""

    def remote_folder(self) -> list[Path]:
        """The directory of the DVC remote, none where it is a bucket."""


class HasPlaces(HasConfig, HasDatasets, HasFolders, Protocol):
    """Where data and stages lie, and whose they are."""

    @property
    def owner(self) -> str:
        """The name of the ledger, which marks a place."""

    @property
    def remote(self) -> Path:
        """The DVC remote, where it is a directory."""

    @property
    def buckets(self) -> list[S3Blobs]:
        """Every bucket that the system writes to."""


class HasBudget(Protocol):
    """The deletion-rate budget."""

    @property
    def budget(self) -> Budget:
        """Where it stands, and how long it is expected to last."""


class HasLocks(Protocol):
    """What tells whether somebody changes the workspace."""

    @property
    def lock_path(self) -> Path:
        """Held while it is changed."""


class Lockable(HasDatasets, HasFolders, HasLedger, HasDatabase, HasLocks, Protocol):
    """What there may be one at a time to change (access.changing, access.training)."""

    @property
    def certificates_dir(self) -> Path:
        """Closing documents, as files."""

    @property
    def certificates(self) -> CertificateFiles:
        """Signs and keeps them."""

    @property
    def heads(self) -> SignedHeads:
        """The signed heads of the ledger."""

    @property
    def reports_dir(self) -> Path:
        """Compliance reports."""

    @property
    def training_lock_path(self) -> Path:
        """Held by an ingest or a training."""

    def refuse_migration(self) -> None:
        """Raises WorkspaceError while a move is unfinished."""

    def refuse_other_rules(self) -> None:
        """Raises WorkspaceError where those of erasures are others in the settings by now."""


class Sweepable(Lockable, Protocol):
    """What is swept of what killed processes left."""

    @property
    def config(self) -> Config:
        """As s3t.toml has them."""

    @property
    def temporary_dir(self) -> Path:
        """Spools and copies."""

    @property
    def placing_dir(self) -> Path:
        """The data directory as an ingest makes it."""

    @property
    def next_dir(self) -> Path:
        """Slices as they will be after an erasure."""
