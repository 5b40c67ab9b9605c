"""From admitted source rows to slices: placement, digests, duplicates, spooled so that memory stays
bounded.

Nothing depends on source order or chunk size: rows are placed by keyed hashes, a slice is a set,
and when a record id stands twice within one subject *both* rows go to quarantine, because which
came first is no property of the data.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import orjson
import pyarrow as pa

from s3t_core.capacity.assignment import is_held_out, place
from s3t_core.domain import HELD_OUT, Part, SliceId, Tiers, Topology
from s3t_core.errors import DataError, StorageError
from s3t_core.identity import EXACT, folded, form_of, forms_of
from s3t_core.identity_index import IDENTITY_PATH, make_index, united, write_index
from s3t_core.keys import NamingKeys, WorkspaceKeys, keyed_digest
from s3t_core.memory import without_collections
from s3t_core.records import Row, content_record_digest, record_digest, subject_digest
from s3t_core.slicefile import HELD_OUT_PATH, slice_path, write_rows

_CACHED = 400_000
"""Placements that are remembered, and so many decisions about held-out values."""
_SPOOL_BUFFER = 64 * 1024
_ERASED, _NEARLY = "erased", "spelt nearly like an erased one"

DUPLICATE = (
    "the record id stands more than once within its subject: all rows that have it are refused"
)
TIERS_DISAGREE = "its subject's rows disagree about the tier"
STANDS_ELSEWHERE = (
    "its subject already stands in another slice; a snapshot (without --append) places it anew"
)
CONFLICT = "the record id already holds other content; a snapshot (without --append) replaces it"


def _not_spooled(error: OSError) -> StorageError:
    return StorageError(
        f"could not spool the source: {error.strerror}; free space, then ingest again"
    )


class SourceRow(NamedTuple):
    """An admitted row: its ids under the workspace's rule, the rest as the source gave it. `number`
    is its place in the source, from 1; `tier` is None without tiers; `given` is the subject's id
    before the rule, "" where it is that."""

    number: int
    subject: str
    record: str
    text: str
    label: str
    held_out_value: str
    tier: int | None = None
    given: str = ""
    given_record: str = ""


class SpooledRow(NamedTuple):
    """A placed row on its way to its slice. `subject` and `record` are keyed digests, `record` is
    "" where the source gives no id; `is_held_out`: it goes with the held-out rows."""

    number: int
    subject: str
    record: str
    text: str
    label: str
    is_held_out: bool


@dataclass(frozen=True)
class Suppressed:
    """Whom and what an ingest leaves out. `subjects`, `records`: digests on the suppression list.
    `partly`: digests of the subjects of whom single records are. `near`: digests of ids that nobody
    can tell apart from an erased one's (`near_digests`, `form_digest`)."""

    subjects: frozenset[str] = frozenset()
    records: frozenset[str] = frozenset()
    partly: frozenset[str] = frozenset()
    near: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Refused:
    """A row that was admitted by itself but cannot stand beside another of its subject."""

    number: int
    subject_digest: str
    reason: str


@dataclass
class SnapshotCounts:
    """What a snapshot holds. `suppressed`: rows left out; `nearly`: those of them whose id is spelt
    otherwise than the erased one. `largest_subjects` are row counts, largest first."""

    records: int = 0
    held_out: int = 0
    suppressed: int = 0
    nearly: int = 0
    subjects: int = 0
    largest_subjects: list[int] = field(default_factory=list)
    rows_per_slice: dict[SliceId, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SliceJob:
    """One slice to settle: its spooled rows, where its file goes, the training rows that stand in
    it and the held-out ones (of all slices, by record) to unite with, and subjects whose rows are
    refused, with the reason."""

    keys: WorkspaceKeys
    spooled: Path
    path: Path
    standing: list[Row]
    held_out: dict[str, Row]
    refused: dict[str, str]


@dataclass(frozen=True)
class Settled:
    """A slice that was written: its number of rows, those of each subject, its new held-out rows,
    what was refused."""

    rows: int
    per_subject: Counter[str]
    held_out: list[Row]
    refused: list[Refused]


class Each(Protocol):
    """How slices are settled: `map`, or one that does it in other processes. In order."""

    def __call__(
        self, work: Callable[[SliceJob], Settled], jobs: Iterator[SliceJob], /
    ) -> Iterable[Settled]:
        """Each job's outcome."""


def suppression_digest(
    keys: NamingKeys,
    subject: str,
    record: str = "",
) -> str:
    """The digest of a subject, or of one of its records, on the suppression list: under a key of
    its own."""
    if record:
        return keyed_digest(
            keys.suppression,
            "record",
            subject,
            record,
        ).hex()
    return keyed_digest(keys.suppression, "subject", subject).hex()


def near_digests(
    keys: NamingKeys,
    given: str,
    spelt: str,
    record: str,
    rule: Collection[str],
) -> list[str]:
    """What keeps an erased person, or record, out under every spelling of the id that nobody can
    tell apart from it; then what keeps a person with the very id out under any other rule, and that
    alone where the rule is that each spelling is another person's."""
    if record and EXACT in rule:  # by which ids are what was given
        return [_own_record(keys, spelt, record), _own_partly(keys, spelt)]
    if record:
        return [_near_record(keys, spelt, record), _near_partly(keys, spelt)]
    own = form_digest(keys, form_of(keys, "given", given))
    return (
        [own] if EXACT in rule else [form_digest(keys, form_of(keys, "folded", folded(spelt))), own]
    )


def form_digest(keys: NamingKeys, form: str) -> str:
    """What every id has in common that has a form of the identity index."""
    return keyed_digest(keys.suppression, "form", form).hex()


def _own_record(
    keys: NamingKeys,
    subject: str,
    record: str,
) -> str:
    """Of ids as they were given: what keeps one record out by any other rule."""
    return keyed_digest(
        keys.suppression,
        "own record",
        subject,
        record,
    ).hex()


def _own_partly(keys: NamingKeys, subject: str) -> str:
    return keyed_digest(
        keys.suppression,
        "own partly",
        subject,
    ).hex()


def _near_record(
    keys: NamingKeys,
    subject: str,
    record: str,
) -> str:
    return keyed_digest(
        keys.suppression,
        "near record",
        folded(subject),
        folded(record),
    ).hex()


def _near_partly(keys: NamingKeys, subject: str) -> str:
    return keyed_digest(
        keys.suppression,
        "near partly",
        folded(subject),
    ).hex()


def check_shrunk(
    there: int,
    now: int,
    most: float,
    what: str,
) -> None:
    """That a new snapshot lacks no larger share of what is there than `most`. Raises DataError: a
    source that was cut, or that a quote which is never closed swallows, would take the place of a
    good one."""
    if there - now > most * there:
        raise DataError(
            f"expected a snapshot with about the {there} {what} that are there, got {now}: more "
            f"than [data] max_shrink = {most:g} of them are missing; nothing was changed. See that "
            "the source is whole; if it is, `s3t ingest --yes` takes it"
        )


class SnapshotBuilder:
    """Spools rows per slice into `spool` (0700, removed by the caller), then writes the slice
    files."""

    def __init__(
        self,
        keys: WorkspaceKeys,
        topology: Topology,
        held_out_share: float,
        spool: Path,
        suppressed: Suppressed | None = None,
        tiers: Tiers | None = None,
        id_rule: Collection[str] = (),
    ) -> None:
        self._tiers = tiers
        self._rule = id_rule
        self._keys = keys
        self._topology = topology
        self._share = held_out_share
        self._spool = spool
        self._suppressed = suppressed or Suppressed()
        self._files: dict[SliceId, IO[bytes]] = {}
        self._held: dict[str, bool] = {}
        self._placed: dict[tuple[str, int | None], tuple[SliceId, str, str]] = {}
        self._indexed: set[str] = set()
        self._index: IO[bytes] | None = None
        self.tiers_seen: set[int | None] = set()
        self.counts = SnapshotCounts()

    def add(self, rows: Iterable[SourceRow]) -> None:
        """Place rows. Suppressed subjects and records are left out and counted. Raises
        StorageError."""
        try:
            with without_collections():
                for row in rows:
                    self._add(row)
        except OSError as error:
            raise _not_spooled(error) from None

    def _add(self, row: SourceRow) -> None:
        slice_id, digest, left_out = self._placed.get((row.subject, row.tier)) or self._subject(
            row.subject, row.tier
        )
        given = row.given or row.subject
        left_out = (
            left_out
            or self._record_left_out(
                row.subject,
                digest,
                row.record,
                (given, row.given_record or row.record),
            )
            or (given not in self._indexed and self._take_forms(given, row.subject, digest))
            or ""
        )
        if left_out:
            self.counts.suppressed += 1
            self.counts.nearly += left_out == _NEARLY
            return
        self.tiers_seen.add(row.tier)
        held = self._held.get(row.held_out_value)
        if held is None:
            held = self._is_held_out(row.held_out_value)
        record = record_digest(self._keys, row.subject, row.record) if row.record else ""
        spooled = SpooledRow(
            row.number,
            digest,
            record,
            row.text,
            row.label,
            held,
        )
        file = self._files.get(slice_id) or self._file(slice_id)
        file.write(orjson.dumps(tuple(spooled), option=orjson.OPT_APPEND_NEWLINE))

    @property
    def suppresses(self) -> bool:
        """Whether anybody or anything is left out."""
        return self._suppressed != Suppressed()

    def is_suppressed(
        self,
        subject: str,
        record: str,
        given: str = "",
        given_record: str = "",
    ) -> bool:
        """Whether a row is one that was erased, or may be: where its record id cannot be read (""),
        it may be any of its subject's records."""
        digest = subject_digest(self._keys, subject)
        return bool(
            self._subject_left_out(subject)
            or self._record_left_out(
                subject, digest, record, (given or subject, given_record or record)
            )
            or self._form_left_out(subject, self.forms_of(subject, given))
        )

    def forms_of(self, subject: str, given: str = "") -> set[str]:
        """The forms of an id under the rule, that was `given` so."""
        return forms_of(
            self._keys,
            given or subject,
            subject,
            self._rule,
        )

    def _subject_left_out(self, subject: str) -> str:
        """Why a subject is left out, "" when they are not."""
        listed = self._suppressed.subjects
        return _ERASED if listed and suppression_digest(self._keys, subject) in listed else ""

    def _record_left_out(
        self,
        subject: str,
        digest: str,
        record: str,
        given: tuple[str, str],
    ) -> str:
        """Why a record is left out, "" where it is not. `given`: the ids of the subject and of the
        record as the source has them."""
        listed = self._suppressed
        if not listed.records:
            return ""
        if not record:
            if digest in listed.partly or _own_partly(self._keys, given[0]) in listed.near:
                return _ERASED
            return _NEARLY if _near_partly(self._keys, subject) in listed.near else ""
        if suppression_digest(self._keys, subject, record) in listed.records:
            return _ERASED
        if _own_record(self._keys, *given) in listed.near:
            return _ERASED
        return _NEARLY if _near_record(self._keys, subject, record) in listed.near else ""

    def _take_forms(
        self,
        given: str,
        subject: str,
        digest: str,
    ) -> str:
        """Take the forms of an id that was not seen yet, or is seen again after many others; why
        they are left out."""
        forms = self.forms_of(subject, given)
        left_out = self._form_left_out(subject, forms)
        if left_out:
            return left_out
        if len(self._indexed) > _CACHED:
            self._indexed.clear()
        self._indexed.add(given)
        self._index = self._index or (self._spool / "identities.jsonl").open("wb", _SPOOL_BUFFER)
        self._index.write(orjson.dumps((digest, sorted(forms)), option=orjson.OPT_APPEND_NEWLINE))
        return ""

    def _form_left_out(self, subject: str, forms: set[str]) -> str:
        near = self._suppressed.near
        found = {f for f in forms if form_digest(self._keys, f) in near} if near else set()
        if not found:
            return ""
        return _NEARLY if found == {form_of(self._keys, "folded", folded(subject))} else _ERASED

    def write(
        self,
        folder: Path,
        existing: Callable[[Part], list[Row]] | None = None,
        each: Each = map,
        identities: pa.Table | None = None,
    ) -> Iterator[Refused]:
        """Write every slice file, the held-out file and the identity index under `folder`; yields
        the rows refused on the way.

        `existing` gives the rows of a slice, or the held-out ones, to unite with, and
        `identities` is the index of those; without them the snapshot replaces what is there, and
        `each` may settle slices in other processes.
        """
        self.close()
        held = {r.record: r for r in existing(HELD_OUT)} if existing else {}
        per_subject: Counter[str] = Counter()
        for slice_id, settled in zip(
            self._topology.slice_ids(),
            each(settle, self._jobs(folder, held, existing)),
            strict=True,
        ):
            yield from settled.refused
            self.counts.rows_per_slice[slice_id] = settled.rows
            self.counts.records += settled.rows
            held.update((r.record, r) for r in settled.held_out)
            per_subject.update(settled.per_subject)
        write_rows(folder / HELD_OUT_PATH, held.values())
        per_subject.update(r.subject for r in held.values())
        write_index(
            folder / IDENTITY_PATH,
            united(
                self._identities(),
                identities or make_index(()),
                per_subject,
            ),
        )
        self.counts.held_out = len(held)
        self.counts.subjects = len(per_subject)
        self.counts.largest_subjects = [n for _, n in per_subject.most_common(5)]

    def _jobs(
        self,
        folder: Path,
        held: dict[str, Row],
        existing: Callable[[Part], list[Row]] | None,
    ) -> Iterator["SliceJob"]:
        refused: dict[str, str] = {}
        for slice_id in self._topology.slice_ids():
            if slice_id.index == 0:
                refused = self._several_slices(slice_id.shard, existing)
            yield SliceJob(
                self._keys,
                self._spooled(slice_id),
                folder / slice_path(slice_id.shard, slice_id.index),
                existing(slice_id) if existing else [],
                held if existing else {},
                refused,
            )

    def close(self) -> None:
        """Close the spool files, whatever happened. Raises StorageError when their last rows could
        not be written."""
        problems = []
        for file in (*self._files.values(), *([self._index] if self._index else [])):
            try:
                file.close()
            except OSError as error:
                problems.append(error)
        if problems:
            raise _not_spooled(problems[0]) from None

    def _several_slices(
        self, shard: int, existing: Callable[[Part], list[Row]] | None
    ) -> dict[str, str]:
        """Subjects (digests) whose new rows would make them stand in more than one slice, with the
        reason.

        A subject stays in its shard, so only slices of one shard can disagree.
        """
        slices = [SliceId(shard, index) for index in range(self._topology.slices)]
        standing = {row.subject: s for s in slices for row in existing(s)} if existing else {}
        if self._tiers is None and not standing:
            return {}
        new: dict[str, set[SliceId]] = {}
        for slice_id in slices:
            for row in _read_rows(self._spooled(slice_id)):
                new.setdefault(row.subject, set()).add(slice_id)
        return {
            digest: TIERS_DISAGREE if len(found) > 1 else STANDS_ELSEWHERE
            for digest, found in new.items()
            if len(found | ({standing[digest]} if digest in standing else set())) > 1
        }

    def _identities(self) -> pa.Table:
        path = self._spool / "identities.jsonl"
        return make_index(
            (digest, form)
            for digest, forms in (_read(path) if path.exists() else ())
            for form in forms
        )

    def _subject(self, subject: str, tier: int | None) -> tuple[SliceId, str, str]:
        if len(self._placed) > _CACHED:
            self._placed.clear()
        span = (
            self._topology.span() if self._tiers is None or tier is None else self._tiers.span(tier)
        )
        slice_id = place(
            self._keys.placement,
            subject,
            self._topology.shards,
            span,
        )
        digest = subject_digest(self._keys, subject)
        self._placed[subject, tier] = (slice_id, digest, self._subject_left_out(subject))
        return self._placed[subject, tier]

    def _is_held_out(self, value: str) -> bool:
        if len(self._held) > _CACHED:
            self._held.clear()
        self._held[value] = is_held_out(self._keys.placement, value, self._share)
        return self._held[value]

    def _file(self, slice_id: SliceId) -> IO[bytes]:
        if slice_id not in self._files:
            self._files[slice_id] = self._spooled(slice_id).open("wb", _SPOOL_BUFFER)
        return self._files[slice_id]

    def _spooled(self, slice_id: SliceId) -> Path:
        return self._spool / f"{slice_id.shard}-{slice_id.index}.jsonl"


def settle(job: SliceJob) -> Settled:
    """Unite one slice's new rows with what stands: duplicate ids refused, rows without ids
    numbered; write its file.

    A subject stands in one slice, so slices can be settled in any order, or at the same time.
    """
    with without_collections():
        return _settle(job, _read_rows(job.spooled))


def _settle(job: SliceJob, spooled: list[SpooledRow]) -> Settled:
    training, held = {r.record: r for r in job.standing}, dict[str, Row]()
    times = Counter(s.record for s in spooled if s.record)
    seen: Counter[tuple[tuple[str, str, str], bool]] = Counter()
    refused = []
    for number, digest, given, text, label, is_held in spooled:
        if digest in job.refused:
            refused.append(Refused(number, digest, job.refused[digest]))
            continue
        record = given
        if not record:
            content = (digest, text, label)
            record = content_record_digest(
                job.keys,
                content,
                is_held,
                seen[content, is_held],
            )
            seen[content, is_held] += 1
        elif times[record] > 1:
            refused.append(Refused(number, digest, DUPLICATE))
            continue
        row = Row(record, digest, text, label)
        old = training.get(record) or held.get(record) or job.held_out.get(record)
        if old is not None and old != row:
            refused.append(Refused(number, digest, CONFLICT))
        elif old is None:
            (held if is_held else training)[record] = row
    write_rows(job.path, training.values())
    return Settled(
        len(training), Counter(r.subject for r in training.values()), list(held.values()), refused
    )


def _read_rows(spooled: Path) -> list[SpooledRow]:
    return [SpooledRow(*line) for line in _read(spooled)]


def _read(spooled: Path) -> list[tuple[Any, ...]]:
    if not spooled.exists():
        return []
    with spooled.open("rb") as file:
        return [tuple(orjson.loads(line)) for line in file]
