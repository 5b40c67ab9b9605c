"""The compliance report: what the ledger says about a period, as one document that is signed and
has a schema.

Built from the ledger alone, but for two things that it says it looked at: the closing documents on
disk, held against the digests in the ledger, and the deletion-rate budget, which the settings
define. No personal data: requests appear by their ids. The schema (docs/schemas) is that of
`Report`. GDPR articles 5(2) and 12(3).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from s3t_core.canonical import sha256_hex
from s3t_core.domain import Release, SliceId
from s3t_core.erasure.certificate import LIMITS, collateral_rows
from s3t_core.erasure.ledger import leaf_of, outcome_in, walk
from s3t_core.erasure.merkle import consistency_proof, leaf_hash, tree_head
from s3t_core.erasure.offline import NOT_PROVED
from s3t_core.erasure.outcome import ErasureOutcome
from s3t_core.erasure.state import ClosingKind, Event, ReleaseCause, RequestRecord, Scope, State
from s3t_core.errors import CertificateError
from s3t_core.times import parse_time, rfc3339

REPORT_TYPE = "urn:s3t:compliance-report:v1"


class Part(BaseModel):
    """Frozen; what is not declared is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Outcome = Literal["open"] | ErasureOutcome | ClosingKind
_CERTIFIED = get_args(ErasureOutcome)
Use = Literal["answers", "stands by", "silenced", "empty"]
Document = Literal["as recorded", "missing", "other bytes", "none yet"]


class Period(Part):
    """What the report is about. Times are RFC 3339 UTC."""

    since: str = Field(
        description="start, included; the first entry of the ledger when none was asked for"
    )
    until: str = Field(description="end: when the report was made")


class RequestEntry(Part):
    """One request that was open at some time of the period."""

    id: str
    scope: Scope
    received: str
    due: str
    clock_corrected: bool = Field(
        description="it came by a clock that had run ahead and was put right since: received "
        "and due are what holds, and how long it took is not known"
    )
    outcome: Outcome
    rows: int = Field(description="stored rows that its erasure found")
    closed: str | None = Field(description="when its closing document was signed")
    met: bool | None = Field(
        description="closed by the due time, with the document as the ledger recorded it; null "
        "while it is open and not due yet, for a document that is not there, and for "
        "one that is late by a clock that was corrected"
    )
    approver: str
    legal_basis: str = Field(description="of a rejection: an article of the GDPR")
    plan: str = Field(description="the erasure that carried it out")
    seconds_to_cut_over: int | None = Field(
        description="from received until no new prediction used the person's data"
    )
    seconds_to_certificate: int | None
    document_sha256: str
    document: Document = Field(description="the closing document on disk, held against the ledger")


class Timing(Part):
    """Seconds over the requests erased in the period; null without any."""

    median: float | None
    worst: int | None


class Summary(Part):
    """Counts of `requests`. One whose closing document is missing or has other bytes is counted by
    nothing but `requests` and `without_document`."""

    requests: int
    without_document: int
    erased: int = Field(description="with a certificate, and rows that were found")
    nothing_found: int = Field(description="with a certificate that says that nothing was there")
    rejected: int
    withdrawn: int
    open: int
    deadlines_met: int = Field(description="closed by their due time")
    deadlines_missed: int = Field(description="closed late, or open and overdue")
    to_cut_over: Timing
    to_certificate: Timing


class SliceName(Part):
    """A slice by its shard and number, from 0."""

    shard: int
    slice: int


class ErasureEntry(Part):
    """One erasure that was completed in the period: a batch of requests."""

    plan: str
    planned: str
    cut_over: str
    certified: str
    requests: int
    slices: tuple[SliceName, ...] = Field(description="slices that held rows of the requests")
    held_out_touched: bool
    stages_deactivated: int
    collateral_rows: int = Field(
        description="live rows of others that the model does not use until a retrain"
    )
    data_objects_destroyed: int
    quarantined_rows_destroyed: int
    versions_destroyed: tuple[str, ...]
    old_version_refused_after_seconds: float
    scanned_files: int
    scanned_bytes: int
    needles: int
    unsearchable: int
    matches_in_rows_of_others: int
    copies_outside: int
    accuracy_before: float | None
    accuracy_after: float | None


class ShardUse(Part):
    """Which slices of a shard a version may use; none: the shard is dead."""

    shard: int
    slices: tuple[int, ...]


class VersionEntry(Part):
    """A model version that served at some time of the period."""

    version: str
    cause: ReleaseCause
    served_from: str
    served_until: str | None
    destroyed: bool
    dataset: str
    accuracy: float | None
    uses: tuple[ShardUse, ...]


class BudgetPoint(Part):
    """The deletion-rate budget when a version began to serve."""

    time: str
    version: str
    live_depths: tuple[int, ...]
    mean_live_depth: float
    requests_erased: int = Field(
        description="since the ledger began; those that found nobody are none"
    )
    certain_requests_left: int | None
    exhausted: bool


class SliceUse(Part):
    """What the serving version makes of a slice."""

    slice: int
    rows: int
    use: Use


class ShardPicture(Part):
    """A shard of the serving version."""

    shard: int
    live_depth: int
    slices: tuple[SliceUse, ...]


class ReplayEntry(Part):
    """Live stages that were trained again and compared byte for byte."""

    time: str
    version: str
    live: int
    same_profile: bool
    same: int
    other: int


class Act(Part):
    """Something a person decided, or a full retrain: what, when, by whom."""

    time: str
    kind: Literal[
        "hold set",
        "hold released",
        "suppression lifted",
        "signing key changed",
        "signing key lost",
        "checkpoints kept elsewhere",
        "checkpoints lost",
        "retrain wanted",
        "retrain triggered",
        "retrain failed",
        "retrain finished",
        "clock corrected",
        "healed after a restore",
        "moved",
        "request deferred",
    ]
    by: str
    detail: str


class LedgerProof(Part):
    """Heads at the period's start and end, and the RFC 6962 proof that the second continues the
    first."""

    name: str
    size_before: int = Field(description="entries before the period; 0: it begins with the ledger")
    root_before: str
    size: int
    root: str
    consistency: tuple[str, ...]


class Report(Part):
    """Everything the report says."""

    system: str
    period: Period
    summary: Summary
    requests: tuple[RequestEntry, ...]
    erasures: tuple[ErasureEntry, ...]
    versions: tuple[VersionEntry, ...]
    budget_policy: str
    budget: tuple[BudgetPoint, ...]
    picture: tuple[ShardPicture, ...]
    replays: tuple[ReplayEntry, ...]
    acts: tuple[Act, ...]
    suppressed: int = Field(description="subjects and records on the suppression list now")
    ledger: LedgerProof
    software: dict[str, str]
    limits: tuple[str, ...]
    not_proved: tuple[str, ...]


BudgetOf = Callable[[State], dict[str, Any] | None]


def build_report(
    system: str,
    events: list[Event],
    documents: Mapping[str, bytes],
    since: datetime | None,
    now: datetime,
    budget_of: BudgetOf,
    suppressed: int,
    software: dict[str, str],
) -> Report:
    """The report about `since` (None: from the beginning) until `now`. `documents`: closing
    documents by request id, as they are on disk. Raises LedgerError."""
    seen = _Seen(budget_of)
    for event, state in walk(events):
        seen.take(event, state)
    start = rfc3339(since) if since else events[0]["time"]
    end = rfc3339(now)
    requests = tuple(
        _request_entry(r, seen.state, documents, end)
        for r in seen.requests.values()
        if r.closed is None or r.closed >= start
    )
    points = [p for p in seen.budget if p.time >= start]
    earlier = [p for p in seen.budget if p.time < start]
    return Report(
        system=system,
        period=Period(since=start, until=end),
        summary=_summary(requests),
        requests=requests,
        erasures=tuple(e for e in seen.erasures if e.certified >= start),
        versions=tuple(
            _version_entry(v)
            for v in seen.state.versions
            if not v.superseded or v.superseded >= start
        ),
        budget_policy=seen.policy,
        budget=(*earlier[-1:], *points),
        picture=_picture(seen.state),
        replays=tuple(r for r in seen.replays if r.time >= start),
        acts=tuple(a for a in seen.acts if a.time >= start),
        suppressed=suppressed,
        ledger=_proof(events, start),
        software=dict(sorted(software.items())),
        limits=LIMITS,
        not_proved=NOT_PROVED,
    )


def parse_report(statement: dict[str, Any]) -> Report:
    """The report that a statement holds. Raises CertificateError for any other statement."""
    if statement.get("predicateType") != REPORT_TYPE:
        raise CertificateError(f"expected a statement of type {REPORT_TYPE}, got another document")
    try:
        return Report.model_validate(statement.get("predicate"))
    except ValidationError as error:
        raise CertificateError(
            f"expected a report as its schema says, got {error.error_count()} other value(s)"
        ) from None


@dataclass
class _Asked:
    """A request as the ledger tells of it so far. `found`: an erasure found somebody; `unsure`: it
    was closed by a clock that ran ahead and was put right since; `between`: the clock was put right
    after it came and before it was closed; `untimed_cut_over`: before its alias moved, or from a
    time before that: nobody can say how long it took."""

    told: Event
    closed: str | None = None
    outcome: Outcome = "open"
    rows: int = 0
    basis: str = ""
    approver: str = ""
    document: str = ""
    plan: str = ""
    found: bool = False
    cut_over: str | None = None
    unsure: bool = False
    between: bool = False
    untimed_cut_over: bool = False


@dataclass
class _Seen:
    """What is gathered on the way through the ledger."""

    budget_of: BudgetOf
    state: State = field(default_factory=State)
    requests: dict[str, _Asked] = field(default_factory=dict)
    erasures: list[ErasureEntry] = field(default_factory=list)
    budget: list[BudgetPoint] = field(default_factory=list)
    replays: list[ReplayEntry] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    policy: str = ""
    plan: Event | None = None
    steps: dict[str, Event] = field(default_factory=dict)
    accuracy: float | None = None

    def take(self, event: Event, state: State) -> None:
        """One more entry."""
        self.state = state
        handler = getattr(self, f"_{event['type']}", None)
        if handler is not None:
            handler(event)

    def _request(self, event: Event) -> None:
        self.requests[event["request"]] = _Asked(event)

    def _clock(self, event: Event) -> None:
        self._acted(event, "clock corrected", f"it had been {event['before']}")
        for asked in self.requests.values():
            asked.unsure |= asked.closed is not None and asked.closed > event["time"]
            asked.between |= asked.closed is None
            moved = asked.cut_over
            asked.untimed_cut_over |= moved > event["time"] if moved else asked.closed is None

    def _healed(self, event: Event) -> None:
        self._acted(
            event,
            "healed after a restore",
            f"{event['stages']} stages, {event['objects']} data objects, "
            f"{event['quarantined']} quarantined rows destroyed again",
        )

    def _migrated(self, event: Event) -> None:
        if event["move"]:
            self._acted(event, "moved", "to other places")

    def _approved(self, event: Event) -> None:
        self.requests[event["request"]].approver = event["by"]

    def _closed(self, event: Event) -> None:
        asked = self.requests[event["request"]]
        asked.closed, asked.outcome, asked.document = (
            event["time"],
            event["kind"],
            event["certificate"],
        )
        asked.basis = event.get("basis", "")

    def _certified(self, event: Event) -> None:
        asked = self.requests[event["request"]]
        asked.closed, asked.document = event["time"], event["certificate"]
        asked.outcome, asked.rows = self.state.outcomes[event["request"]]

    def _planned(self, event: Event) -> None:
        self.plan, self.steps = event, {}
        champion = self.state.champion
        self.accuracy = champion.accuracy if champion else None
        for request in event["plan"]["requests"]:
            asked = self.requests[request]
            asked.plan, asked.found = (
                event["plan"]["plan_id"],
                outcome_in(self.state, request)[0] != "nothing found",
            )

    def _deferred(self, event: Event) -> None:
        self.plan = self.state.plan
        for request in event["requests"]:
            asked = self.requests[request]
            asked.plan, asked.found, asked.cut_over = "", False, None
            self._acted(event, "request deferred", request)

    def _step(self, event: Event) -> None:
        self.steps[event["step"]] = event
        if self.plan is None:
            return
        if event["step"] == "cut over":
            for request in self.plan["plan"]["requests"]:
                self.requests[request].cut_over = event["moved"]
        if event["step"] == "certify":
            self.erasures.append(
                _erasure_entry(self.plan["plan"], self.steps, self.state, self.accuracy)
            )

    def _release(self, event: Event) -> None:
        champion, budget = self.state.champion, self.budget_of(self.state)
        if champion is None or budget is None:
            return
        depths = tuple(budget["live_depths"])
        self.policy = budget["policy"]
        erased = sum(r.found for r in self.requests.values())
        self.budget.append(
            BudgetPoint(
                time=event["time"],
                version=champion.version,
                live_depths=depths,
                mean_live_depth=round(sum(depths) / max(len(depths), 1), 3),
                requests_erased=erased,
                certain_requests_left=budget["certain_requests_left"],
                exhausted=budget["exhausted"],
            )
        )

    def _replayed(self, event: Event) -> None:
        self.replays.append(
            ReplayEntry(
                time=event["time"],
                version=event["version"],
                live=event["live"],
                same_profile=event["same_profile"],
                same=len(event["same"]),
                other=len(event["other"]),
            )
        )

    def _hold(self, event: Event) -> None:
        kind = "hold set" if event["state"] == "set" else "hold released"
        self._acted(event, kind, event.get("basis", ""))

    def _lifted(self, event: Event) -> None:
        self._acted(event, "suppression lifted", f"a {event['kind']}")

    def _key(self, event: Event) -> None:
        kind = "signing key lost" if event["lost"] else "signing key changed"
        self._acted(event, kind, f"{event['old'][:16]} to {event['new'][:16]}")

    def _checkpoints(self, event: Event) -> None:
        kind = "checkpoints lost" if event["lost"] else "checkpoints kept elsewhere"
        self._acted(event, kind, "" if event["place"] else "nowhere outside the workspace")

    def _retrain(self, event: Event) -> None:
        why = event.get("reason") or event.get("problem") or ""
        self._acted(event, f"retrain {event['state']}", str(why))

    def _acted(self, event: Event, kind: Any, detail: str) -> None:
        self.acts.append(Act(time=event["time"], kind=kind, by=event.get("by", ""), detail=detail))


def _request_entry(
    asked: _Asked, state: State, documents: Mapping[str, bytes], now: str
) -> RequestEntry:
    request_id = asked.told["request"]
    known = state.requests[request_id]
    document = _compared(asked.document, documents.get(request_id))
    timed = (
        asked.outcome in _CERTIFIED
        and not known.clock_corrected
        and not asked.unsure
        and not asked.between
    )
    moved = known.clock_corrected or asked.unsure or asked.untimed_cut_over
    return RequestEntry(
        id=request_id,
        scope=known.scope,
        received=known.received,
        due=known.due,
        clock_corrected=known.clock_corrected,
        outcome=asked.outcome,
        rows=asked.rows,
        closed=asked.closed,
        met=_met(asked, known, document, now),
        approver=asked.approver,
        legal_basis=asked.basis,
        plan=asked.plan,
        seconds_to_cut_over=None if moved else _seconds(known.received, asked.cut_over),
        seconds_to_certificate=_seconds(known.received, asked.closed) if timed else None,
        document_sha256=asked.document,
        document=document,
    )


def _met(asked: _Asked, known: RequestRecord, document: Document, now: str) -> bool | None:
    """Whether it was closed in time. That it was late, a clock that was put right cannot show: it
    may have been wrong the other way."""
    if asked.closed is not None and document != "as recorded":
        return None
    if (asked.closed or now) > known.due:
        return None if known.clock_corrected or asked.unsure else False
    return True if asked.closed else None


def _compared(recorded: str, document: bytes | None) -> Document:
    if not recorded:
        return "none yet"
    if document is None:
        return "missing"
    return "as recorded" if sha256_hex(document) == recorded else "other bytes"


def _summary(requests: Iterable[RequestEntry]) -> Summary:
    every = list(requests)
    listed = [r for r in every if r.document in ("as recorded", "none yet")]
    outcomes = [r.outcome for r in listed]
    return Summary(
        requests=len(every),
        without_document=len(every) - len(listed),
        erased=sum(o in _CERTIFIED and o != "nothing found" for o in outcomes),
        nothing_found=outcomes.count("nothing found"),
        rejected=outcomes.count("rejection"),
        withdrawn=outcomes.count("withdrawal"),
        open=outcomes.count("open"),
        deadlines_met=sum(r.met is True for r in listed),
        deadlines_missed=sum(r.met is False for r in listed),
        to_cut_over=_timing(r.seconds_to_cut_over for r in listed if r.rows),
        to_certificate=_timing(r.seconds_to_certificate for r in listed),
    )


def _timing(seconds: Iterable[int | None]) -> Timing:
    known = [s for s in seconds if s is not None]
    return Timing(median=float(median(known)) if known else None, worst=max(known, default=None))


def _seconds(begin: str, end: str | None) -> int | None:
    if end is None:
        return None
    took = round((parse_time(end) - parse_time(begin)).total_seconds())
    return took if took >= 0 else None  # clocks of two machines that differ a little


def _erasure_entry(
    plan: dict[str, Any], steps: Mapping[str, Event], state: State, accuracy: float | None
) -> ErasureEntry:
    cut, destroy, scan = steps["cut over"], steps["destroy"], steps["scan"]
    slices = [SliceId(*s) for s in plan["slices"]]
    after = state.champion.accuracy if state.champion else None
    return ErasureEntry(
        plan=plan["plan_id"],
        planned=plan["time"],
        cut_over=cut["moved"],
        certified=steps["certify"]["time"],
        requests=len(plan["requests"]),
        slices=tuple(SliceName(shard=s.shard, slice=s.index) for s in slices),
        held_out_touched=plan["held_out"],
        stages_deactivated=len(plan["deactivated"]),
        collateral_rows=collateral_rows(slices, state),
        data_objects_destroyed=len(destroy["objects"]),
        quarantined_rows_destroyed=destroy["quarantined"],
        versions_destroyed=tuple(destroy["versions"]),
        old_version_refused_after_seconds=cut["staleness"],
        scanned_files=scan["files"],
        scanned_bytes=scan["bytes"],
        needles=scan["needles"],
        unsearchable=scan["unsearchable"],
        matches_in_rows_of_others=scan["shared"],
        copies_outside=scan["outside"],
        accuracy_before=accuracy,
        accuracy_after=after if plan["release"] else accuracy,
    )


def _version_entry(version: Any) -> VersionEntry:
    release: Release = version.release
    return VersionEntry(
        version=version.version,
        cause=version.cause,
        served_from=version.time,
        served_until=version.superseded or None,
        destroyed=version.destroyed,
        dataset=release.dataset,
        accuracy=version.accuracy,
        uses=tuple(
            ShardUse(shard=s, slices=tuple(sorted(_answering(release, s))))
            for s in release.shards()
        ),
    )


def _answering(release: Release, shard: int) -> set[int]:
    replica = release.serving(shard)
    return set(replica.stages[-1].prefix) if replica else set()


def _picture(state: State) -> tuple[ShardPicture, ...]:
    """Shard by slice: which slices the version that serves has learned from."""
    release, dataset = state.release, state.dataset
    if release is None or dataset is None:
        return ()
    rows = {(s.shard, s.index): v.rows for s, v in dataset.slice_versions.items()}
    pictures = []
    for shard in release.shards():
        answering = _answering(release, shard)
        standing = {
            i
            for r in release.replicas
            if r.shard == shard and r.stages
            for i in r.stages[-1].prefix
        }
        numbers = sorted({i for r in release.replicas if r.shard == shard for i in r.sequence})
        pictures.append(
            ShardPicture(
                shard=shard,
                live_depth=release.live_depth(shard),
                slices=tuple(
                    SliceUse(
                        slice=i,
                        rows=rows.get((shard, i), 0),
                        use=_use(i, answering, standing, rows.get((shard, i), 0)),
                    )
                    for i in numbers
                ),
            )
        )
    return tuple(pictures)


def _use(number: int, answering: set[int], standing: set[int], rows: int) -> Use:
    if number in answering:
        return "answers"
    if number in standing:
        return "stands by"
    return "silenced" if rows else "empty"


def _proof(events: list[Event], start: str) -> LedgerProof:
    leaves = [leaf_hash(leaf_of(e)) for e in events]
    times = [event.get("time", "") for event in events]
    before = next((i for i, time in enumerate(times) if time >= start), len(events))
    root_before = tree_head(leaves[:before]).hex() if before else ""
    nodes = consistency_proof(leaves, before) if before else []
    return LedgerProof(
        name=leaves[0].hex(),
        size_before=before,
        root_before=root_before,
        size=len(leaves),
        root=tree_head(leaves).hex(),
        consistency=tuple(node.hex() for node in nodes),
    )
