"""What the core needs from the outside, as Protocols. `flows/adapters` fills them; tests fill them
with fakes."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from s3t_core.domain import (
    Combine,
    DatasetVersion,
    DeletionRequest,
    Release,
    RowCounts,
    Score,
    SliceId,
)
from s3t_core.erasure.events import LedgerEvent, RequestTaken
from s3t_core.erasure.evidence_documents import Certificate, Subject
from s3t_core.erasure.ledger import Inclusion, TreeHead
from s3t_core.erasure.state import ExportRecord, State, VersionRecord
from s3t_core.erasure.vocabulary import Event


@dataclass(frozen=True)
class Target:
    """What one request asks to be erased: a subject, or one record of it (`record` not empty).
    Keyed digests."""

    request_id: str
    subject: str
    record: str

    def matches(self, subject: str, record: str) -> bool:
        """Whether a row with these digests is to be erased."""
        return subject == self.subject and self.record in ("", record)


@dataclass(frozen=True)
class Findings:
    """Where targeted rows are.

    `tainted`: content digests of slice versions (current and earlier) that hold a targeted row, or
    that cannot be read any more and so may hold one. `objects`: md5 of every data file, current or
    earlier, that holds one. `slices` and `held_out`: which current files hold one. `rows`: counts
    per request.
    """

    tainted: frozenset[str]
    objects: frozenset[str]
    slices: frozenset[SliceId]
    held_out: bool
    rows: Mapping[str, RowCounts]


@dataclass(frozen=True)
class Contents:
    """`texts` of targeted rows, by request: the needles of the scan. `commitments`: keyed, one per
    distinct stored row, by request (s3t_core.records.row_commitment)."""

    texts: Mapping[str, tuple[str, ...]]
    commitments: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Published:
    """A registered model version."""

    version: str
    run_id: str
    model_id: str
    document: str = ""
    """Digest of its files: release document, code, what names it; stages left out."""


Needle = bytes
"""What a scan looks for, as it may stand in a file."""


@dataclass(frozen=True)
class NeedlesFound:
    """What a scan looks for. `ids_of`: the ids as given, by request; `ids_lost`: requests whose ids
    as given are not there any more, or not in every spelling that was told; `texts_of`, by request,
    is None when the texts that were gathered are lost: a restore of older files does both."""

    ids_of: Mapping[str, list[str]]
    ids_lost: list[str]
    texts_of: Mapping[str, list[str]] | None

    @property
    def ids(self) -> list[str]:
        """The ids as given of every request."""
        return [given for ids in self.ids_of.values() for given in ids]

    @property
    def texts(self) -> list[str]:
        """The texts of every request, each once; none where they are lost."""
        return list(
            dict.fromkeys(text for texts in (self.texts_of or {}).values() for text in texts)
        )


@dataclass(frozen=True)
class ScanReport:
    """What the residue scan did. `residue` and `outside` are file paths relative to the workspace;
    `shared` counts matches inside rows of other live subjects; `unsearchable` counts needles too
    short to tell from chance; `undecodable`: the system's own files that could not be searched to
    their end; `written`: those of them that a process has open. `needles_found`: what was found in
    `residue`, as it is searched for; rows have none, `rows_found` says whether there are some.
    `residue_digests`: keyed digests of what is in `residue`; `found_again`: files in which an
    earlier search found something, and which are as they were.
    `ids_unsearchable`: the ids as given that were not searched for in every form."""

    files: int
    bytes: int
    needles: int
    unsearchable: int
    shared: int
    residue: tuple[str, ...]
    outside: tuple[str, ...]
    undecodable: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    needles_found: frozenset[Needle] = field(default_factory=frozenset, repr=False)
    ids_unsearchable: frozenset[str] = field(default_factory=frozenset, repr=False)
    rows_found: bool = False
    residue_digests: frozenset[str] = field(default_factory=frozenset, repr=False)
    found_again: tuple[str, ...] = ()


@dataclass(frozen=True)
class NewRequest:
    """A request to be accepted, the salt of its commitment (32 random bytes, hex), and the event
    that tells of it."""

    request: DeletionRequest
    salt: str
    event: RequestTaken


@dataclass(frozen=True)
class Closing:
    """That a request ended, by the document with this digest, and the ledger event that tells of
    it."""

    request_id: str
    document: str
    event: LedgerEvent


class Ledger(Protocol):
    """Append-only events."""

    def append(self, *events: LedgerEvent) -> None:
        """Append in one transaction, durably."""

    def state(self) -> State:
        """The fold of all events, each leaf checked against its stored hash. Raises LedgerError."""

    def head(self) -> TreeHead:
        """Size and root now."""

    def prove(self, event: Event) -> Inclusion:
        """That an event is in the ledger as it is now. Raises LedgerError when it is not."""


class RequestBook(Protocol):
    """Deletion requests and the suppression list."""

    def pending(self, at: State) -> list[DeletionRequest]:
        """Acknowledged requests that are open by `at`, oldest first: others may be accepted at any
        time, and whoever decides by a state of the ledger is told of that moment's."""

    def open_now(self) -> list[str]:
        """The ids of those that are open at this moment, oldest first."""

    def get(self, request_ids: Iterable[str]) -> list[DeletionRequest]:
        """The given requests, in that order."""

    def suppress(self, requests: Iterable[DeletionRequest], time: str) -> None:
        """Put the requests' subjects or records on the suppression list, so that no ingest brings
        them back."""

    def close(self, closings: Iterable[Closing]) -> None:
        """Close requests and append what is told of them, in one transaction."""

    def defer(self, requests: Iterable[DeletionRequest], event: LedgerEvent) -> None:
        """Take what these requests put on the suppression list off it and append `event`, in one
        transaction."""


class Datasets(Protocol):
    """The versioned data."""

    def find(
        self,
        targets: list[Target],
        history: list[DatasetVersion],
        destroyed: set[str],
        by_hash: bool = False,
    ) -> Findings:
        """Look for targeted rows in the current data and in every earlier version that is still
        stored. `by_hash`: somebody is asked for by a hash, so that rows of whom no index tells may
        be theirs."""

    def resolve(
        self,
        forms: Mapping[str, Sequence[str]],
        history: list[DatasetVersion],
        destroyed: set[str],
    ) -> dict[str, dict[str, tuple[str, ...]]]:
        """Whose ids have forms of the identity index: `forms`, by request, of the id itself first,
        then of what others make of it, which count where nobody has the first. By request and
        subject (digest), what keeps them out under other spellings
        (`s3t_core.snapshot.form_digest`). Quarantined rows count too."""

    def contents(self, targets: list[Target]) -> Contents:
        """What the targeted rows say, in any stored version and in quarantine."""

    def erase(
        self,
        targets: list[Target],
        history: list[DatasetVersion],
        destroyed: set[str],
    ) -> DatasetVersion:
        """Rewrite every file of the last version of `history` without the targeted rows and make
        that the new version; it is the same one where nothing changed. `destroyed`: md5 of the
        objects that are destroyed, or are to be by this erasure. Idempotent."""

    def publish(self, dataset: DatasetVersion) -> None:
        """Push the version to the remote and commit its name. Idempotent."""

    def destroy(
        self,
        objects: Iterable[str],
        targets: list[Target],
        live: DatasetVersion | None,
    ) -> list[str]:
        """Remove data objects from cache and remote, unless a file of `live` needs them, and
        whatever else in the local cache holds a targeted row; returns the md5 that are gone.
        Idempotent."""

    def erase_quarantine(self, targets: list[Target]) -> int:
        """Drop the targeted rows from quarantine, and those of a targeted record's subject of which
        nobody can say which record they are; returns how many."""


class StageArtifacts(Protocol):
    """Where stage artifacts are kept and destroyed."""

    def holds(self, digest: str) -> bool:
        """Whether the artifact is there and its bytes are those of `digest`."""

    def delete(self, digest: str) -> None:
        """Destroy an artifact and its sidecar. Idempotent."""

    def digests(self) -> Iterable[str]:
        """Digests of everything in the store."""


class Activations(Protocol):
    """What frozen layers made of slices, kept for later stages: as much a person's data as the
    rows."""

    def allow(self, digests: Collection[str]) -> int:
        """Destroy those of every slice version but the given ones, which alone may be kept from now
        on. How many."""


class Exports(Protocol):
    """Checkpoints that were put outside the workspace."""

    def destroy(self, exports: Iterable[ExportRecord]) -> list[str]:
        """Destroy those that are still where they were put; returns their names. What else lies
        there stays. Idempotent, and tells the same again."""


Tell = Callable[[Published], object]


class Registry(Protocol):
    """Model versions."""

    def publish(
        self,
        release: Release,
        recipe: dict[str, object],
        tags: Mapping[str, str],
        files_digest: str = "",
        tell: Tell = lambda _: None,
    ) -> Published:
        """Register a version for the release, or find the one that is registered already; move the
        alias to it. `files_digest`: the digest that its files must have for it to be found, ""
        where the ledger knows none: then what says it is of this release is nobody's, and goes.
        `tell` is called before the alias moves: whoever loads a version by the alias has one that
        the ledger knows, whatever is killed when."""

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Set tags on a version."""

    def describe(self, version: str, card: str) -> None:
        """Let a version, which serves, and the model say of themselves what the card says."""

    def destroy(self, keep: Iterable[VersionRecord], runs: Iterable[str]) -> None:
        """Destroy every version but those in `keep`, and every run but theirs and those of the ids
        `runs`, with their files, in database and artifact store: what a crash left unrecorded goes
        too. Idempotent."""


class Needles(Protocol):
    """The only place that holds what a person's data looked like while it is being erased
    (0600)."""

    def gather(self, plan_id: str, texts: Mapping[str, Iterable[str]]) -> None:
        """Keep the texts that the scan will look for, by request."""

    def read(self, plan_id: str, recorded: Mapping[str, Iterable[str]]) -> NeedlesFound:
        """What to look for. `recorded`: digests of the ids as given, by request, as the ledger
        knows them."""

    def forget(self, plan_id: str, request_ids: Iterable[str]) -> None:
        """Remove the ids of requests that are closed, and what a plan gathered for them, once no
        request is being accepted: who asks again just now may keep an id for one that is closed
        meanwhile. Idempotent."""

    def prune(self, keep: Callable[[], Iterable[str]]) -> None:
        """Remove what a crash or a refused request left: of plans and requests that are not among
        what `keep` returns, which is asked while no request is being accepted."""


class Residue(Protocol):
    """The scan for what is left."""

    def scan(
        self,
        ids: list[str],
        texts: list[str],
        targets: list[Target],
        known_residue: Collection[str] = (),
    ) -> ScanReport:
        """Search everything the system wrote. `known_residue`: what an earlier search found, as
        its report has it. Raises WorkspaceError as `check` does."""

    def check(self) -> None:
        """That no place keeps what is deleted from it, where no scan sees it. Raises
        WorkspaceError."""


class Evaluator(Protocol):
    """Measures a release."""

    def score(self, release: Release, recipe: dict[str, object], combine: Combine) -> Score | None:
        """The score on the held-out rows that are there now, as shards answer by `combine`, and the
        other way beside it; None without rows or without a live shard."""


class Budget(Protocol):
    """The deletion-rate budget."""

    def document(self, state: State) -> dict[str, object] | None:
        """Where it stands, as JSON values, which certificates have; None before there is a
        release."""

    def tags(self, state: State) -> dict[str, str]:
        """The same, and how long it is expected to last, as tags of the version that serves."""


class Certificates(Protocol):
    """Where certificates are signed and kept."""

    def issue(self, said: Mapping[str, Certificate], subject: Subject) -> dict[str, str]:
        """Sign and write one certificate per request id; returns the SHA-256 of each file.
        One that was signed for the same entry of the ledger, and not recorded, is kept."""

    def discard(self, request_ids: Iterable[str]) -> None:
        """Remove what a run that was cut off signed for these requests, which no ledger entry tells
        of: it vouches for an earlier scan. Idempotent."""


class Clock(Protocol):
    """Time."""

    def now(self) -> datetime:
        """Now, UTC."""

    def sleep(self, seconds: float) -> None:
        """Wait."""
