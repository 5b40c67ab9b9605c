"""One fake per port, in memory. Each keeps the promise its port makes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from s3t_core.canonical import digest_of, sha256_hex
from s3t_core.domain import (
    HELD_OUT,
    Combine,
    DatasetVersion,
    DeletionRequest,
    Part,
    Release,
    RowCounts,
    Score,
    SliceId,
    SliceVersion,
    as_accuracy,
    slices_of,
)
from s3t_core.erasure.certificate import make_statement
from s3t_core.erasure.dsse import sign
from s3t_core.erasure.events import LedgerEvent, as_json
from s3t_core.erasure.evidence_documents import Certificate, Subject
from s3t_core.erasure.executor import ErasePolicy, ErasePorts
from s3t_core.erasure.ledger import (
    Inclusion,
    TreeHead,
    corrected,
    fold,
    head_of,
    inclusion_of,
    leaf_of,
)
from s3t_core.erasure.merkle import leaf_hash
from s3t_core.erasure.state import ExportRecord, State, VersionRecord
from s3t_core.erasure.vocabulary import Event
from s3t_core.errors import ResidueFound, WorkspaceError
from s3t_core.ports import (
    Closing,
    Contents,
    Findings,
    NeedlesFound,
    Published,
    ScanReport,
    Target,
    Tell,
)
from s3t_core.release_json import release_to_json

Guard = Callable[[str], None]


class FakeLedger:
    def __init__(self, guard: Guard) -> None:
        self.events: list[Event] = []
        self._guard = guard

    def append(self, *told: LedgerEvent) -> None:
        self._guard("ledger.append")
        self.take(*told)
        self._guard("ledger.appended")

    def take(self, *told: LedgerEvent | Event) -> None:
        """Append what the rules allow, as the real one does."""
        before = self.state()
        new = corrected(map(as_json, told), before.time)
        fold(new, before, before.size)
        self.events += new

    def state(self) -> State:
        return fold(self.events)

    def head(self) -> TreeHead:
        return head_of([leaf_hash(leaf_of(e)) for e in self.events])

    def prove(self, event: Event) -> Inclusion:
        return inclusion_of(event, [leaf_hash(leaf_of(e)) for e in self.events])


class FakeRequestBook:
    def __init__(self, ledger: FakeLedger, guard: Guard) -> None:
        self.requests: dict[str, DeletionRequest] = {}
        self.suppression: dict[str, str] = {}
        self._ledger = ledger
        self._guard = guard

    def pending(self, at: State) -> list[DeletionRequest]:
        return [
            replace(r, certificate="") for r in self.requests.values() if at.is_open(r.request_id)
        ]

    def open_now(self) -> list[str]:
        return [r.request_id for r in self.pending(self._ledger.state())]

    def get(self, request_ids: Iterable[str]) -> list[DeletionRequest]:
        return [self.requests[i] for i in request_ids]

    def suppress(self, requests: Iterable[DeletionRequest], time: str) -> None:
        self._guard("requests.suppress")
        for request in requests:
            self.suppression.setdefault(request.suppression, request.request_id)

    def close(self, closings: Iterable[Closing]) -> None:
        self._guard("requests.close")
        for closing in closings:  # one transaction
            self.requests[closing.request_id] = replace(
                self.requests[closing.request_id], certificate=closing.document
            )
            self._ledger.take(closing.event)
        self._guard("requests.closed")

    def defer(self, requests: Iterable[DeletionRequest], told: LedgerEvent) -> None:
        self._guard("requests.defer")
        for request in requests:  # one transaction
            if self.suppression.get(request.suppression) == request.request_id:
                del self.suppression[request.suppression]
        self._ledger.take(told)
        self._guard("requests.deferred")


Rows = dict[Part, list[tuple[str, str]]]


def _name(part: Part) -> list[int] | None:
    return [part.shard, part.index] if isinstance(part, SliceId) else None


class FakeDatasets:
    """Files are lists of (subject, record); an object's md5 is the digest of its rows."""

    def __init__(self, rows: Rows, shards: int, slices: int, guard: Guard) -> None:
        self.rows = rows
        self.shards, self.slices = shards, slices
        self.objects: dict[str, list[tuple[str, str]]] = {}
        self.quarantine: list[tuple[str, str]] = []
        self.unrecorded: dict[str, str] = {}
        """What no version has, as a killed ingest leaves it: an id that stands in each."""
        self.published: list[str] = []
        self._guard = guard

    def version(self) -> DatasetVersion:
        files = {
            k: SliceVersion(
                digest_of([_name(k), sorted(v)]),
                len(v),
                "md5-" + digest_of([_name(k), sorted(v)])[:16],
            )
            for k, v in self.rows.items()
        }
        for k, v in self.rows.items():
            self.objects.setdefault(files[k].md5, list(v))
        return DatasetVersion(
            digest_of([f.md5 for f in files.values()])[:12],
            self.shards,
            self.slices,
            slices_of(files),
            files[HELD_OUT],
        )

    def find(
        self,
        targets: list[Target],
        history: list[DatasetVersion],
        destroyed: set[str],
        by_hash: bool = False,
    ) -> Findings:
        self._guard("datasets.find")
        current = history[-1] if history else None
        tainted, objects, slices, rows = (
            set(),
            set(),
            set(),
            {t.request_id: [0, 0, 0, 0] for t in targets},
        )
        held = False
        for version in history:
            for key, file in version.parts().items():
                content = self.objects.get(file.md5)
                hits = [(t, s, r) for s, r in content or [] for t in targets if t.matches(s, r)]
                if hits or (content is None and file.md5 not in destroyed):
                    tainted.add(file.digest)
                    objects.add(file.md5)
                if version is current and hits:
                    slices |= {key} if isinstance(key, SliceId) else set()
                    held = held or key == HELD_OUT
                    for target, _, _ in hits:
                        rows[target.request_id][key == HELD_OUT] += 1
                elif file.md5 not in {f.md5 for f in (current.files() if current else [])}:
                    for target, _, _ in hits:
                        rows[target.request_id][2] += 1
        for target in targets:
            rows[target.request_id][3] += sum(_goes(target, *row) for row in self.quarantine)
        return Findings(
            frozenset(tainted),
            frozenset({*objects, *self.unrecorded}),
            frozenset(slices),
            held,
            {k: RowCounts(*v) for k, v in rows.items()},
        )

    def resolve(
        self, forms: Mapping[str, Sequence[str]], history: list[DatasetVersion], destroyed: set[str]
    ) -> dict[str, dict[str, tuple[str, ...]]]:
        """The subject whose name is the first form that anybody has."""
        there = {s for v in self.rows.values() for s, _ in v}
        found = {r: next((f for f in each if f in there), "") for r, each in forms.items()}
        return {r: {s: (f"near {s}",)} if s else {} for r, s in found.items()}

    def contents(self, targets: list[Target]) -> Contents:
        rows = [(s, r) for v in self.rows.values() for s, r in v]
        return Contents(
            {
                t.request_id: tuple(f"text of {s} in {r}" for s, r in rows if t.matches(s, r))
                for t in targets
            },
            {
                t.request_id: tuple(f"committed {r}" for s, r in rows if t.matches(s, r))
                for t in targets
            },
        )

    def erase(
        self, targets: list[Target], history: list[DatasetVersion], destroyed: set[str]
    ) -> DatasetVersion:
        for key, rows in self.rows.items():
            self._guard("datasets.erase")
            self.rows[key] = [(s, r) for s, r in rows if not any(t.matches(s, r) for t in targets)]
        return self.version()

    def publish(self, dataset: DatasetVersion) -> None:
        self._guard("datasets.publish")
        self.published.append(dataset.version)

    def destroy(
        self, objects: Iterable[str], targets: list[Target], live: DatasetVersion | None
    ) -> list[str]:
        needed = {f.md5 for f in live.files()} if live else set()
        doomed = sorted(set(objects) - needed)
        for md5 in doomed:
            self._guard("datasets.destroy")
            self.objects.pop(md5, None)
            self.unrecorded.pop(md5, None)
        return doomed

    def erase_quarantine(self, targets: list[Target]) -> int:
        self._guard("datasets.erase_quarantine")
        before = len(self.quarantine)
        self.quarantine = [
            row for row in self.quarantine if not any(_goes(t, *row) for t in targets)
        ]
        return before - len(self.quarantine)


def _goes(target: Target, subject: str, record: str) -> bool:
    """Whether a quarantined row goes with the target: one without a record may be any of its
    subject's."""
    return target.matches(subject, record or target.record)


class FakeStages:
    def __init__(self, digests: Iterable[str], guard: Guard) -> None:
        self.held = set(digests)
        self._guard = guard

    def delete(self, digest: str) -> None:
        self._guard("stages.delete")
        self.held.discard(digest)

    def digests(self) -> Iterable[str]:
        return sorted(self.held)

    def holds(self, digest: str) -> bool:
        return digest in self.held


class FakeActivations:
    def __init__(self, guard: Guard) -> None:
        self.slices: set[str] = set()
        self._guard = guard

    def allow(self, digests: Collection[str]) -> int:
        self._guard("activations.allow")
        gone = self.slices - set(digests)
        self.slices -= gone
        return len(gone)


class FakeRegistry:
    def __init__(self, guard: Guard) -> None:
        self.versions: dict[str, dict[str, Any]] = {}
        self.alias = ""
        self.next = 1
        self._guard = guard

    def publish(
        self,
        release: Release,
        recipe: dict[str, Any],
        tags: Mapping[str, str],
        files_digest: str = "",
        tell: Tell = lambda _: None,
    ) -> Published:
        self._guard("registry.publish")
        said = [v for v, r in self.versions.items() if r["id"] == release.release_id]
        known = next(
            (v for v in said if files_digest and digest_of(self.versions[v]) == files_digest), None
        )
        for other in said:
            if other != known:
                del self.versions[other]
        if known is None:
            known, self.next = str(self.next), self.next + 1
            self.versions[known] = release_to_json(release)
        digest = digest_of(self.versions[known])
        published = Published(known, f"run-{known}", f"model-{known}", digest)
        tell(published)
        self._guard("registry.published")
        self.alias = known
        return published

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        self._guard("registry.tag")

    def describe(self, version: str, card: str) -> None:
        self._guard("registry.describe")

    def destroy(self, keep: Iterable[VersionRecord], runs: Iterable[str]) -> None:
        kept = {v.version for v in keep}
        for version in list(self.versions):
            self._guard("registry.destroy")
            if version not in kept:
                del self.versions[version]


class FakeNeedles:
    def __init__(self, guard: Guard) -> None:
        self.files: dict[str, list[str]] = {}
        self.texts: dict[str, dict[str, list[str]]] = {}
        self._guard = guard

    def gather(self, plan_id: str, texts: Mapping[str, Iterable[str]]) -> None:
        self._guard("needles.gather")
        self.texts[plan_id] = {request: list(of) for request, of in texts.items()}
        self._guard("needles.gathered")

    def read(self, plan_id: str, told: Mapping[str, Iterable[str]]) -> NeedlesFound:
        lost = [
            r
            for r, digests in told.items()
            if not self.files.get(r)
            or not set(digests) <= {f"digest of {i}" for i in self.files[r]}
        ]
        texts = self.texts.get(plan_id)
        return NeedlesFound(
            {r: self.files.get(r, []) for r in told},
            lost,
            None if texts is None else {r: texts.get(r, []) for r in told},
        )

    def forget(self, plan_id: str, request_ids: Iterable[str]) -> None:
        for name in request_ids:
            self._guard("needles.forget")
            self.files.pop(name, None)
            self.texts.get(plan_id, {}).pop(name, None)
        self._guard("needles.forget")
        if not self.texts.get(plan_id):
            self.texts.pop(plan_id, None)

    def prune(self, keep: Callable[[], Iterable[str]]) -> None:
        kept = set(keep())
        self.files = {k: v for k, v in self.files.items() if k in kept}
        plans = {plan: texts for plan, texts in self.texts.items() if plan in kept}
        wanted = {p: {r: of for r, of in texts.items() if r in kept} for p, texts in plans.items()}
        self.texts = {plan: texts for plan, texts in wanted.items() if texts}


class FakeResidue:
    def __init__(self, datasets: FakeDatasets, guard: Guard) -> None:
        self.undecodable: tuple[str, ...] = ()
        self.written: tuple[str, ...] = ()
        self.keeping = False
        self.words: dict[str, str] = {}
        """What else stands in files, an id in each."""
        self.away = False
        self._datasets = datasets
        self._guard = guard

    def scan(
        self,
        ids: list[str],
        texts: list[str],
        targets: list[Target],
        known_residue: Collection[str] = (),
    ) -> ScanReport:
        self._guard("residue.scan")
        copies = [
            name
            for name, rows in self._datasets.objects.items()
            if any(t.matches(s, r) for t in targets for s, r in rows)
        ]
        if self.away:
            raise ResidueFound("rows may lie on a machine that is away")
        words = self.words | self._datasets.unrecorded
        said = {name: word for name, word in words.items() if word in (*ids, *texts)}
        return ScanReport(
            1,
            1,
            len(ids) + len(texts),
            0,
            0,
            (*copies, *said),
            (),
            self.undecodable,
            self.written,
            frozenset(word.encode() for word in said.values()),
            rows_found=bool(copies),
            residue_digests=frozenset(f"{name}: {word}" for name, word in said.items()),
            found_again=tuple(n for n, word in words.items() if f"{n}: {word}" in known_residue),
        )

    def check(self) -> None:
        self._guard("residue.check")
        if self.keeping:
            raise WorkspaceError("a bucket keeps what is deleted")


class FakeEvaluator:
    """Half of all answers are right, either way."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def score(self, release: Release, recipe: dict[str, Any], combine: Combine) -> Score | None:
        self._guard("evaluator.score")
        score = as_accuracy(0.5) if any(r.depth for r in release.replicas) else None
        if score is None:
            return None
        other: Combine = "votes" if combine == "merged" else "merged"
        otherwise = replace(score, combine=other)
        return replace(score, combine=combine, otherwise=otherwise)


class FakeBudget:
    """Tells how many stages there are."""

    def document(self, state: State) -> dict[str, Any] | None:
        return {"live": len(state.stages)} if state.release else None

    def tags(self, state: State) -> dict[str, str]:
        del state
        return {"s3t.budget.policy": "test"}


class FakeExports:
    """`there`: names of those that are where they were put."""

    def __init__(self, guard: Guard) -> None:
        self.there: set[str] = set()
        self.gone: set[str] = set()
        self._guard = guard

    def destroy(self, exports: Iterable[ExportRecord]) -> list[str]:
        self._guard("exports.destroy")
        asked = [each.export for each in exports]
        self.gone |= self.there & set(asked)
        self.there -= self.gone
        return [name for name in asked if name in self.gone]


class FakeCertificates:
    def __init__(self, guard: Guard) -> None:
        self.files: dict[str, bytes] = {}
        self.key = Ed25519PrivateKey.generate()
        self._guard = guard

    def issue(self, said: Mapping[str, Certificate], subject: Subject) -> dict[str, str]:
        for request_id, each in said.items():
            self._guard("certificates.issue")
            if request_id not in self.files:
                self.files[request_id] = sign(make_statement(each, subject), self.key)
        self._guard("certificates.issued")
        return {r: sha256_hex(self.files[r]) for r in said}

    def discard(self, request_ids: Iterable[str]) -> None:
        for request_id in request_ids:
            self._guard("certificates.discard")
            self.files.pop(request_id, None)


class FakeClock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.slept = 0.0

    def now(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


def ports(
    ledger: FakeLedger,
    requests: FakeRequestBook,
    datasets: FakeDatasets,
    stages: FakeStages,
    registry: FakeRegistry,
    guard: Guard,
) -> ErasePorts:
    """All ports; the ones not given are made here."""
    return ErasePorts(
        ledger,
        requests,
        datasets,
        stages,
        FakeActivations(guard),
        registry,
        FakeNeedles(guard),
        FakeResidue(datasets, guard),
        FakeEvaluator(guard),
        FakeBudget(),
        FakeCertificates(guard),
        FakeClock(),
        FakeExports(guard),
    )


POLICY = ErasePolicy(
    staleness_seconds=5.0,
    keep_clean_versions_days=7,
    software={"s3t": "test"},
)
