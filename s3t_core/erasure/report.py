"""The compliance report: what the ledger says about a period, as one document that is signed and
has a schema.

Built from the ledger alone, but for two things that it says it looked at: the closing documents on
disk, held against the digests in the ledger, and the deletion-rate budget, which the settings
define.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any, Generic, TypeVar, get_args

from s3t_core.canonical import sha256_hex
from s3t_core.domain import Release, Score
from s3t_core.erasure import events
from s3t_core.erasure.certificate import LIMITS, collateral_rows
from s3t_core.erasure.events import LedgerEvent
from s3t_core.erasure.evidence_documents import MeasuredScore
from s3t_core.erasure.ledger import as_of, leaf_of, outcome_in, walk
from s3t_core.erasure.merkle import consistency_proof, leaf_hash, tree_head
from s3t_core.erasure.offline import NOT_PROVED
from s3t_core.erasure.outcome import ErasureOutcome
from s3t_core.erasure.period import first_place
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.erasure.report_document import (
    Act,
    BudgetPoint,
    Document,
    ErasureEntry,
    ExportEntry,
    LedgerProof,
    Outcome,
    Period,
    ReplayEntry,
    Report,
    RequestEntry,
    ShardPicture,
    ShardUse,
    SliceName,
    SliceUse,
    Summary,
    Timing,
    Use,
    VersionEntry,
)
from s3t_core.erasure.state import RequestRecord, State, VersionRecord, done_in
from s3t_core.erasure.vocabulary import Event
from s3t_core.times import parse_time, rfc3339

_CERTIFIED = get_args(ErasureOutcome)

BudgetOf = Callable[[State], dict[str, Any] | None]
T = TypeVar("T")


def build_report(
    system: str,
    events: list[Event],
    documents: Mapping[str, bytes],
    since: datetime | None,
    now: datetime,
    budget_of: BudgetOf,
    suppressed: int,
    software: dict[str, str],
    at_latest: int | None = None,
) -> Report:
    """The report about `since` (None: from the beginning) until `now`. `documents`: closing
    documents by request id, as they are on disk. Raises LedgerError.

    It is made from the first entry on that may be of that time (s3t_core.erasure.period), or from
    `at_latest` on, which is where the report before it ended.
    """
    seen = _Seen(budget_of)
    for event, state in walk(events):
        seen.take(event, state)
    seen.put_clock_right(rfc3339(now))
    first = first_place(events, since, now)
    end = rfc3339(now)
    start = rfc3339(since) if since else min(events[0]["time"], end)
    if at_latest is not None and at_latest < first:
        first = at_latest
        start = min(start, events[at_latest]["time"])
    requests = tuple(
        _request_entry(r, seen.state, documents, end)
        for r in seen.requests.values()
        if r.closed is None or r.closed_at >= first
    )
    points = seen.budget.since(first)
    earlier = seen.budget.before(first)
    return Report(
        system=system,
        period=Period(since=start, until=end),
        summary=_summary(requests),
        requests=requests,
        erasures=seen.erasures.since(first),
        versions=tuple(
            _version_entry(v)
            for v, ended in zip(seen.state.versions, (*seen.superseded, None), strict=False)
            if ended is None or ended >= first
        ),
        exports=_exports(seen.state),
        budget_policy=seen.policy,
        budget=(*earlier[-1:], *points),
        picture=_picture(seen.state),
        replays=seen.replays.since(first),
        acts=seen.acts.since(first),
        suppressed=suppressed,
        ledger=_proof(events, first),
        software=dict(sorted(software.items())),
        limits=LIMITS,
        not_proved=NOT_PROVED,
    )


@dataclass
class _Told(Generic[T]):
    """What entries of the ledger tell, each with the entry's number."""

    each: list[tuple[int, T]] = field(default_factory=list)

    def __iter__(self) -> Iterator[T]:
        return (what for _, what in self.each)

    def add(self, what: T, place: int) -> None:
        """One more."""
        self.each.append((place, what))

    def since(self, first: int) -> tuple[T, ...]:
        """What was told at that place or later."""
        return tuple(what for place, what in self.each if place >= first)

    def before(self, first: int) -> tuple[T, ...]:
        """What was told before that place."""
        return tuple(what for place, what in self.each if place < first)


@dataclass
class _Asked:
    """A request as the ledger tells of it so far. `closed_at`: the entry that closed it;
    `found`: an erasure found somebody; `unsure`: it was closed by a clock that ran ahead and was
    put right since; `between`: the clock was put right after it came and before it was closed;
    `untimed_cut_over`: before its alias moved, or from a time before that: nobody can say how long
    it took."""

    taken: events.RequestTaken
    closed: str | None = None
    closed_at: int = 0
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
    """What is gathered on the way through the ledger. `superseded`: of each version but the last,
    the number of the entry that another one came with."""

    budget_of: BudgetOf
    state: State = field(default_factory=State)
    requests: dict[str, _Asked] = field(default_factory=dict)
    erasures: _Told[ErasureEntry] = field(default_factory=_Told)
    budget: _Told[BudgetPoint] = field(default_factory=_Told)
    replays: _Told[ReplayEntry] = field(default_factory=_Told)
    acts: _Told[Act] = field(default_factory=_Told)
    superseded: list[int] = field(default_factory=list)
    policy: str = ""
    plan: events.ErasurePlanned | None = None
    steps: dict[str, events.StepDone] = field(default_factory=dict)
    score: Score | None = None

    @property
    def place(self) -> int:
        """The number of the entry that is being taken."""
        return self.state.size - 1

    def take(self, event: LedgerEvent, state: State) -> None:
        """One more entry."""
        self.state = state
        handler = getattr(self, f"_{event.type}", None)
        if handler is not None:
            handler(event)

    def put_clock_right(self, now: str) -> None:
        """Count by the clock of now, where it was put right and no entry says so yet."""
        before, self.state = self.state, as_of(self.state, now)
        if self.state is not before:
            self._doubt(now)

    def _request(self, event: events.RequestTaken) -> None:
        self.requests[event.request] = _Asked(event)

    def _clock(self, event: events.ClockCorrected) -> None:
        self._acted(
            event,
            "clock corrected",
            f"it had been {event.before}",
        )
        self._doubt(event.time)

    def _doubt(self, now: str) -> None:
        """What was told of a later time is in doubt, and how long what is open takes."""
        for asked in self.requests.values():
            asked.unsure |= asked.closed is not None and asked.closed > now
            asked.between |= asked.closed is None
            moved = asked.cut_over
            asked.untimed_cut_over |= moved > now if moved else asked.closed is None

    def _healed(self, event: events.Healed) -> None:
        self._acted(
            event,
            "healed after a restore",
            f"{event.stages} stages, {event.objects} data objects, "
            f"{event.quarantined} quarantined rows destroyed again",
        )

    def _migrated(self, event: events.Migrated) -> None:
        if event.move:
            self._acted(event, "moved", "to other places")

    def _approved(self, event: events.RequestApproved) -> None:
        self.requests[event.request].approver = event.by

    def _extended(self, event: events.DeadlineExtended) -> None:
        self._acted(event, "deadline extended", f"{event.request}, until {event.due}")

    def _closed(self, event: events.RequestClosed) -> None:
        asked = self.requests[event.request]
        asked.closed, asked.closed_at = event.time, self.place
        asked.outcome, asked.document = event.kind, event.certificate
        asked.basis = event.basis

    def _certified(self, event: events.RequestCertified) -> None:
        asked = self.requests[event.request]
        asked.closed, asked.closed_at = event.time, self.place
        asked.document = event.certificate
        asked.outcome, asked.rows = self.state.outcomes[event.request]

    def _planned(self, event: events.ErasurePlanned) -> None:
        self.plan, self.steps = event, {}
        champion = self.state.champion
        self.score = champion.score if champion else None
        for request in event.plan.requests:
            asked = self.requests[request]
            asked.plan, asked.found = (
                event.plan.plan_id,
                outcome_in(self.state, request)[0] != "nothing found",
            )

    def _deferred(self, event: events.RequestsDeferred) -> None:
        self.plan = self.state.plan
        for request in event.requests:
            asked = self.requests[request]
            asked.plan, asked.found, asked.cut_over = "", False, None
            self._acted(event, "request deferred", request)

    def _uncertified(self, event: events.RequestsUncertified) -> None:
        """The entry of an erasure comes with its certificates."""
        self.plan = self.state.plan
        for request in event.requests:
            self._acted(event, "request uncertified", request)

    def _resumed(self, event: events.ErasureResumed) -> None:
        self.plan, self.steps = self.state.plan, dict(self.state.steps)
        _, versions = self.state.planned_after
        self.score = self.state.versions[versions - 1].score if versions else None
        self._acted(event, "erasure resumed", event.plan_id)

    def _step(self, event: events.StepDone) -> None:
        self.steps[event.step] = event
        if self.plan is None:
            return
        if isinstance(event, events.CutOver):
            for request in self.plan.plan.requests:
                self.requests[request].cut_over = event.moved
        if isinstance(event, events.Certified):
            entry = _erasure_entry(
                self.plan.plan,
                self.steps,
                self.state,
                self.score,
            )
            is_more = any(entry.plan == each.plan for each in self.erasures)
            self.erasures.add(_without_destroyed(entry) if is_more else entry, self.place)

    def _release(self, event: events.ReleaseServes) -> None:
        if len(self.state.versions) > 1:
            self.superseded.append(self.place)
        champion, budget = self.state.champion, self.budget_of(self.state)
        if champion is None or budget is None:
            return
        depths = tuple(budget["live_depths"])
        self.policy = budget["policy"]
        erased = sum(r.found for r in self.requests.values())
        self.budget.add(
            BudgetPoint(
                time=event.time,
                version=champion.version,
                live_depths=depths,
                mean_live_depth=round(sum(depths) / max(len(depths), 1), 3),
                requests_erased=erased,
                certain_requests_left=budget["certain_requests_left"],
                exhausted=budget["exhausted"],
            ),
            self.place,
        )

    def _replayed(self, event: events.Replayed) -> None:
        self.replays.add(
            ReplayEntry(
                time=event.time,
                version=event.version,
                live=event.live,
                same_profile=event.same_profile,
                same=len(event.same),
                other=len(event.other),
            ),
            self.place,
        )

    def _hold(self, event: events.HoldSet | events.HoldReleased) -> None:
        basis = event.basis if isinstance(event, events.HoldSet) else ""
        self._acted(event, f"hold {event.state}", basis)

    def _lifted(self, event: events.SuppressionLifted) -> None:
        self._acted(
            event,
            "suppression lifted",
            f"a {event.kind}",
        )

    def _key(self, event: events.KeyReplaced) -> None:
        kind = "signing key lost" if event.lost else "signing key changed"
        old, new = event.old[:16], event.new[:16]
        self._acted(event, kind, f"{old} to {new}")

    def _intake(self, event: events.IntakeAdded | events.IntakeRemoved) -> None:
        called = f", {event.called}" if isinstance(event, events.IntakeAdded) else ""
        self._acted(event, f"intake host {event.state}", f"{event.key[:16]}{called}")

    def _checkpoints(self, event: events.CheckpointsPlaced) -> None:
        kind = "checkpoints lost" if event.lost else "checkpoints kept elsewhere"
        self._acted(
            event,
            kind,
            "" if event.place else "nowhere outside the workspace",
        )

    def _retrain(self, event: events.RetrainChanged) -> None:
        why = event.reason or event.problem or ""
        self._acted(
            event,
            f"retrain {event.state}",
            str(why),
        )

    def _acted(
        self,
        event: LedgerEvent,
        kind: object,
        detail: str,
    ) -> None:
        by = getattr(event, "by", "")
        act = Act(time=event.time, kind=kind, by=by, detail=detail)
        self.acts.add(act, self.place)


def _request_entry(
    asked: _Asked,
    state: State,
    documents: Mapping[str, bytes],
    now: str,
) -> RequestEntry:
    request_id = asked.taken.request
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
        extended_from=known.extended_from or None,
    )


def _met(
    asked: _Asked,
    known: RequestRecord,
    document: Document,
    now: str,
) -> bool | None:
    """Whether it was closed in time. That it was late, a clock that was put right cannot show: it
    may have been wrong the other way. Nor that it was not, where it had told otherwise."""
    if asked.closed is not None and document != "as recorded":
        return None
    due = known.due
    if asked.outcome == "rejection":  # the person hears of it within the first month (GDPR 12(4))
        due = known.extended_from or due
    if (asked.closed or now) > due:
        return None if known.clock_corrected or asked.unsure else False
    return True if asked.closed and not known.was_overdue else None


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
    return Timing(
        median=float(median(known)) if known else None,
        worst=max(known, default=None),
    )


def _seconds(begin: str, end: str | None) -> int | None:
    if end is None:
        return None
    took = round((parse_time(end) - parse_time(begin)).total_seconds())
    return took if took >= 0 else None  # clocks of two machines that differ a little


def _erasure_entry(
    plan: ErasurePlan,
    steps: Mapping[str, events.StepDone],
    state: State,
    before: Score | None,
) -> ErasureEntry:
    cut, destroy = done_in(steps, events.CutOver), done_in(steps, events.Destroyed)
    scan = done_in(steps, events.Scanned)
    slices = plan.slices
    after = before
    if plan.release:
        after = state.champion.score if state.champion else None
    return ErasureEntry(
        plan=plan.plan_id,
        planned=plan.time,
        cut_over=cut.moved,
        certified=steps["certify"].time,
        requests=len(plan.requests),
        slices=tuple(SliceName(shard=s.shard, slice=s.index) for s in slices),
        held_out_touched=plan.held_out,
        stages_deactivated=len(plan.deactivated),
        collateral_rows=collateral_rows(slices, state),
        data_objects_destroyed=len(destroy.objects),
        quarantined_rows_destroyed=destroy.quarantined,
        versions_destroyed=destroy.versions,
        old_version_refused_after_seconds=cut.staleness,
        scanned_files=scan.files,
        scanned_bytes=scan.bytes,
        needles=scan.needles,
        unsearchable=scan.unsearchable,
        matches_in_rows_of_others=scan.shared,
        copies_outside=scan.outside,
        accuracy_before=before.accuracy if before else None,
        accuracy_after=after.accuracy if after else None,
        score_before=MeasuredScore.of(before),
        score_after=MeasuredScore.of(after),
    )


def _without_destroyed(entry: ErasureEntry) -> ErasureEntry:
    """Of an erasure whose last requests were certified later: what it destroyed is told once."""
    nothing = {
        "stages_deactivated": 0,
        "collateral_rows": 0,
        "data_objects_destroyed": 0,
        "quarantined_rows_destroyed": 0,
        "versions_destroyed": (),
    }
    return entry.model_copy(update=nothing)


def _exports(state: State) -> tuple[ExportEntry, ...] | None:
    """All of them: one that was put somewhere long ago may be stale now."""
    return (
        tuple(
            ExportEntry(
                export=each.export,
                release=each.release,
                exported=each.time,
                standing=state.standing_of(each.export),
            )
            for each in state.exports.values()
        )
        or None
    )


def _version_entry(version: VersionRecord) -> VersionEntry:
    release: Release = version.release
    return VersionEntry(
        version=version.version,
        cause=version.cause,
        served_from=version.time,
        served_until=version.superseded or None,
        destroyed=version.destroyed,
        dataset=release.dataset,
        accuracy=version.accuracy,
        score=MeasuredScore.of(version.score),
        uses=tuple(
            ShardUse(
                shard=s,
                slices=tuple(sorted(_answering(release, s))),
            )
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


def _use(
    number: int,
    answering: set[int],
    standing: set[int],
    rows: int,
) -> Use:
    if number in answering:
        return "answers"
    if number in standing:
        return "stands by"
    return "silenced" if rows else "empty"


def _proof(events: list[Event], before: int) -> LedgerProof:
    leaves = [leaf_hash(leaf_of(e)) for e in events]
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
