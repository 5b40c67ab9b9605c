"""The ledger: append-only events; the state of the system is their fold.

The one source of truth for what is live: everything else can be rebuilt from it or is checked
against it. Leaves are the canonical JSON of events under an RFC 6962 tree head. Subjects appear as
keyed digests, rows not at all. Which event follows which is in s3t_core.erasure.rules. Every event
has its `time`; one that was written under a lease, its `lease`.

| event | says |
|---|---|
| workspace | the workspace began; a check value of its key, and the id of the key that signs |
| clock | a clock that had run ahead was put right: what was told of it since is in doubt, deadlines begin again |
| settled | settings that must stay, recorded before the first data |
| cache | DVC keeps data in another directory from now on, which other projects share or not |
| checkpoints | signed heads of this ledger are kept at another place outside from now on |
| experiment | what the registry keeps of this workspace is in this experiment, whose files lie at this place |
| training | a training began, whose run in the registry this is |
| moving | a move to other places was begun, from where to where, undone, or ended: what it left is emptied |
| migrated | database, store, remote or registry moved: what must stay from now on; ids of versions and runs there |
| dataset | a data version: every slice's content digest, rows, file md5 |
| backbone | a backbone was first used under a model id, with its digests |
| stage | a stage was trained: key bound to digest |
| release | a model version was registered and serves; `cause` says why |
| measured | a release's score on the held-out rows of its time |
| request | a deletion request was acknowledged; its digests: on the suppression list, commitment, idempotency key |
| repeated | an open request was asked again, with another idempotency key, which stands for it too |
| spelt | a pending request was asked again, by other spellings of the id |
| approved | a request may be carried out; by whom |
| extended | a request is due later than it was: until when, by whom, and why |
| hold | a subject's erasure is stopped for a legal reason (`set`), or no more (`released`) |
| closed | a request ended without an erasure: withdrawal or rejection |
| key | another key signs from now on; the old one, which is in it, signed its id, unless it was lost |
| intake | a host apart may take requests, and signs what it took with this key; or may no more |
| exported | a checkpoint of the release that serves was put there, for whoever runs it elsewhere; its files' digests |
| replayed | live stages were trained again from their recorded inputs: which gave the same bytes, which did not |
| lifted | a subject or record left the suppression list: the person returned |
| planned | an erasure plan, written ahead; from here on its subjects and records are suppressed |
| step | a step of the plan is complete, with its outcome |
| uncertified | all is destroyed of these requests, and what was searched for of them was found: no certificate, until it is gone |
| resumed | what was found is gone: the search and the certificates of an uncertified erasure follow |
| deferred | what these requests asked for stands in what the system wrote, and in no row: they are open as before |
| certified | a request ended in a certificate |
| retrain | a full retrain is wanted (the budget is spent), triggered, failed, or finished |
| healed | what a restore had brought back was destroyed again: how many of each kind |
| retired | clean versions past their time, and stages that nothing needs any more, were destroyed |
"""  # noqa: E501

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from s3t_core.canonical import canonical_json
from s3t_core.domain import SliceId
from s3t_core.erasure import events
from s3t_core.erasure.event_reader import from_json
from s3t_core.erasure.events import LedgerEvent
from s3t_core.erasure.expected import NotAllowed, plan_of
from s3t_core.erasure.growing_tree import root_at
from s3t_core.erasure.merkle import inclusion_proof, leaf_hash
from s3t_core.erasure.outcome import ErasureOutcome, outcome_of
from s3t_core.erasure.rules import KINDS, check
from s3t_core.erasure.state import (
    ExperimentRecord,
    ExportRecord,
    IntakeRecord,
    KeyChange,
    RequestRecord,
    State,
    Uncertified,
    VersionRecord,
)
from s3t_core.erasure.vocabulary import STEPS, Event
from s3t_core.errors import LedgerError, S3TError
from s3t_core.identity import EXACT
from s3t_core.times import CLOCK_TOLERANCE, parse_time


@dataclass(frozen=True)
class TreeHead:
    """Size and RFC 6962 root (hex) of the ledger at one moment."""

    size: int
    root: str


@dataclass(frozen=True)
class Inclusion:
    """That an entry is in the ledger: its place, the head of the tree it is in, and the path to it
    (RFC 6962 section 2.1.1), hex. `ledger` is the leaf hash of the first entry: the ledger's
    name."""

    ledger: str
    index: int
    head: TreeHead
    proof: tuple[str, ...]


def inclusion_of(event: Event, leaves: list[bytes]) -> Inclusion:
    """The proof for the last entry that is `event`, among leaf hashes. Raises LedgerError when none
    is."""
    wanted = leaf_hash(leaf_of(event))
    found = [i for i, leaf in enumerate(leaves) if leaf == wanted]
    index = found[-1] if found else None
    if index is None:
        raise LedgerError(
            "expected the event in the ledger, got none that is equal; restore the database from "
            "its backup"
        )
    return Inclusion(
        leaves[0].hex(),
        index,
        head_of(leaves),
        tuple(h.hex() for h in inclusion_proof(leaves, index)),
    )


def head_of(
    leaves: Sequence[bytes],
) -> TreeHead:
    """The tree head over leaf hashes."""
    return TreeHead(len(leaves), root_at(leaves, len(leaves)).hex())


def leaf_of(event: Event) -> bytes:
    """The canonical bytes of an event: what is stored and hashed."""
    return canonical_json(event)


_OTHERS = "restore the database from its backup, or find out who wrote to it"
_OURS = (
    "nothing was written. The ledger may have moved on meanwhile: run the command again, and "
    "report it where it says the same"
)


def fold(
    entries: Iterable[Event],
    before: State | None = None,
    first: int = 0,
    are_new: bool = False,
) -> State:
    """The state after `entries`, of which the first is ledger entry `first` and follows `before`,
    which stays as it is. `are_new`: they are about to be written. Raises LedgerError at an event
    that no state allows."""
    state = State()
    if before:
        copies = {name: copy(value) for name, value in vars(before).items()}
        state = State(**copies)
    for _ in _applied(state, entries, first, _OURS if are_new else _OTHERS):
        pass
    return state


def as_of(state: State, time: str) -> State:
    """The state that an entry of this time (RFC 3339) finds: where the clock was put right and no
    entry says so yet, the correction comes first. Whoever tells of a request, its times, or how
    long it took, tells by this one."""
    correction = correction_of(state, time)
    return fold(correction, state, state.size) if correction else state


def correction_of(state: State, time: str) -> list[Event]:
    """The correction of the clock that an entry of this time (RFC 3339) brings, [] for none."""
    return corrected([{"type": "", "time": time}], state.time)[:-1]


def walk(entries: Iterable[Event]) -> Iterator[tuple[LedgerEvent, State]]:
    """Each event with the state after it: one object that changes with the next. Raises
    LedgerError, as `fold`."""
    return _applied(State(), entries, 0, _OTHERS)


def _applied(
    state: State,
    entries: Iterable[Event],
    first: int,
    advice: str,
) -> Iterator[tuple[LedgerEvent, State]]:
    for number, entry in enumerate(entries, first):
        kind = entry.get("type") if isinstance(entry, dict) else None
        if not isinstance(kind, str) or kind not in KINDS:
            raise LedgerError(
                f"expected a known event at ledger entry {number}, got {kind!r}; "
                "this ledger was written by a newer release: upgrade s3t"
            )
        try:
            event = from_json(entry)
            check(state, event)
            _HANDLERS[kind](state, event)
        except NotAllowed as error:
            raise LedgerError(
                f"{error} at ledger entry {number}, got a {kind} event that does not follow; "
                f"{advice}"
            ) from None
        except _BROKEN as error:
            raise LedgerError(
                f"expected a whole {kind} event at ledger entry {number}, got one that cannot be "
                f"applied ({type(error).__name__})"
            ) from None
        state.size, state.time = number + 1, max(event.time, state.time)
        yield event, state


def corrected(entries: Iterable[Event], newest: str) -> list[Event]:
    """Returns the entries to append after one of the time `newest` ("" for none): with a
    correction of the clock before the first one whose time is behind it by more than clocks may
    differ."""
    found: list[Event] = []
    for entry in entries:
        time = entry["time"]
        if entry["type"] == "clock":
            newest = ""
        if newest and parse_time(newest) - parse_time(time) > CLOCK_TOLERANCE:
            found.append(events.ClockCorrected(time=time, before=newest).to_json())
            newest = time
        found.append(entry)
        newest = max(newest, time)
    return found


_BROKEN = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    S3TError,
)
"""What an entry that is not whole raises, wherever it is read."""


def _ignore(state: State, event: LedgerEvent) -> None:
    """What is told and changes nothing."""


def _workspace(state: State, event: events.WorkspaceBegan) -> None:
    state.signing = event.signing_key


def _clock(state: State, event: events.ClockCorrected) -> None:
    """Whatever was received by a clock that ran ahead counts as received now at the latest, with
    the time it had; what was overdue by that clock stays so."""
    now, before = event.time, event.before
    state.time, state.corrected = "", state.corrected + 1
    for request_id, request in state.requests.items():
        if request.received > now and state.is_open(request_id):
            state.requests[request_id] = request.received_at(now)
        elif request.due < before and state.is_open(request_id):
            state.requests[request_id] = replace(request, was_overdue=True)


def _dataset(state: State, event: events.DatasetChanged) -> None:
    dataset = event.dataset
    state.datasets.append(dataset)
    state.destroyed_objects -= {
        v.md5 for v in dataset.files()
    }  # the same content was ingested again


def _backbone(state: State, event: events.BackboneUsed) -> None:
    state.backbones[event.model] = (event.digest, event.tokenizer_digest)


def _stage(state: State, event: events.StageTrained) -> None:
    stage = event.stage
    state.stages[stage.key] = stage
    state.bindings[stage.key] = stage.digest


def _release(state: State, event: events.ReleaseServes) -> None:
    if state.versions:
        last = state.versions[-1]
        taken_over = (
            last.version == event.version
        )  # by a registry that a restore had set back: the old one is gone
        state.versions[-1] = replace(
            last, superseded=event.time, destroyed=last.destroyed or taken_over
        )
    state.versions.append(
        VersionRecord(
            event.release,
            event.version,
            event.run_id,
            event.model_id,
            event.cause,
            event.time,
            event.recipe,
            event.staleness,
            offline=event.offline,
            document=event.document,
            combine=event.combine,
        )
    )
    if event.cause in ("train", "retrain"):
        state.requests_since_training = 0


def _measured(state: State, event: events.ReleaseMeasured) -> None:
    for i, version in enumerate(state.versions):
        if version.release.release_id == event.release:
            state.versions[i] = replace(version, score=event.measured)


def _request(state: State, event: events.RequestTaken) -> None:
    times = event.time, event.due
    state.requests[event.request] = RequestRecord(
        event.subject,
        event.record,
        event.suppression,
        event.commitment,
        event.salt,
        *times,
        times,
        tuple(event.id_rule),
        tuple(event.near),
        event.asked_by,
        tuple(event.forms),
        ids=tuple(event.ids),
    )
    if event.once:
        state.once[event.once] = event.request


def _repeated(state: State, event: events.RequestRepeated) -> None:
    state.once[event.once] = event.request


def _spelt(state: State, event: events.RequestSpelt) -> None:
    asked = state.requests[event.request]
    ids = (*asked.ids, *event.ids)
    near = (*asked.near, *event.near)
    state.requests[event.request] = replace(asked, ids=ids, near=near)


def _planned(state: State, event: events.ErasurePlanned) -> None:
    plan = event.plan
    state.plan, state.steps, state.corrected_before_plan = event, {}, state.corrected
    state.planned_on = state.dataset.version if state.dataset else ""
    state.planned_after = len(state.datasets), len(state.versions)
    state.plans.add(plan.plan_id)
    state.requests_since_training += len(plan.requests)
    for request_id in plan.requests:
        request = state.requests[request_id]
        state.deferred.discard(request_id)
        state.suppressed.setdefault(request.suppression, (request.scope, request_id))
        state.requests[request_id] = replace(
            request,
            subjects=plan.subjects.get(request_id, ()),
            near=(*request.near, *plan.near.get(request_id, ())),
        )


def _deferred(state: State, event: events.RequestsDeferred) -> None:
    gone = set(event.requests)
    for request_id in event.requests:
        asked = state.requests[request_id]
        if state.suppressed.get(asked.suppression) == (asked.scope, request_id):
            del state.suppressed[asked.suppression]
        state.deferred.add(request_id)
    if state.plan is not None:
        plan = state.plan.plan
        kept = tuple(r for r in plan.requests if r not in gone)
        state.plan = replace(state.plan, plan=replace(plan, requests=kept))
    state.requests_since_training = max(0, state.requests_since_training - len(gone))


def _uncertified(state: State, event: events.RequestsUncertified) -> None:
    if state.plan is None:
        return
    plan_id, plan = event.plan_id, state.plan.plan
    before = state.uncertified.get(plan_id)
    aside = (*(before.plan.plan.requests if before else ()), *event.requests)
    kept = tuple(r for r in plan.requests if r not in event.requests)
    plan_aside = replace(plan, requests=aside, texts=event.texts)
    waiting = frozenset(event.waiting) | (before.waiting if before else frozenset())
    state.uncertified[plan_id] = Uncertified(
        replace(state.plan, plan=plan_aside),
        waiting,
        frozenset(event.left) | (before.residue_digests if before else frozenset()),
        {name: state.steps[name] for name in STEPS[: STEPS.index("scan")]},
        state.planned_on,
        state.planned_after,
        state.corrected_before_plan,
    )
    state.plan = replace(
        state.plan,
        plan=replace(
            plan,
            requests=kept,
            texts=event.texts_of_others,
        ),
    )
    if not kept:
        _close_erasure(state)


def _resumed(state: State, event: events.ErasureResumed) -> None:
    aside = state.uncertified.pop(event.plan_id)
    state.plan, state.steps = aside.plan, dict(aside.steps)
    state.planned_on, state.planned_after = aside.planned_on, aside.planned_after
    state.corrected_before_plan = aside.corrected_before_plan
    state.known_residue = aside.residue_digests


def _step(state: State, event: events.StepDone) -> None:
    state.steps[event.step] = event
    if isinstance(event, events.Destroyed):
        _forget(state, event.stages, event.versions)
        state.destroyed_objects |= set(event.objects)
        for export in plan_of(state).exports:
            _judge(state, export, is_destroyed=export in event.exports)
    if isinstance(event, events.Certified):
        _close_erasure(state)


def _exported(state: State, event: events.Exported) -> None:
    for record in [state.exports[name] for name in event.replaces]:
        if not record.destroyed:
            state.exports[record.export] = replace(record, replaced=True, stale=False)
    state.exports[event.export] = ExportRecord(
        event.export, event.release, event.time, event.place, event.files
    )


def _judge(state: State, export: str, is_destroyed: bool) -> None:
    """What is where it was put is destroyed; what is not may be anywhere, unless somebody said that
    nobody uses it."""
    record = state.exports[export]
    is_stale = not is_destroyed and not record.replaced
    state.exports[export] = replace(record, destroyed=is_destroyed, stale=is_stale)


def _close_erasure(state: State) -> None:
    """What stages saw that it deactivated is on record, also where nobody has a certificate yet."""
    seen = state.plan.plan.deactivated if state.plan else ()
    state.silenced |= {SliceId(s.shard, index) for s in seen for index in s.prefix}
    state.plan, state.steps, state.known_residue = None, {}, frozenset()


def _certified(state: State, event: events.RequestCertified) -> None:
    request = event.request
    state.certified[request] = state.documents[request] = event.certificate
    state.outcomes[request], state.ended[request] = outcome_in(state, request), event.time
    if state.outcomes[request][0] == "nothing found":
        asked = state.requests[request]
        state.requests[request] = replace(asked, near=_very_id(asked))


def _very_id(asked: RequestRecord) -> tuple[str, ...]:
    """What of `near` still keeps somebody out where the erasure found nobody: the very id as it was
    given. Who is spelt nearly so never asked. A hash means by itself who has the id in lower case,
    and without blanks."""
    if asked.asked_by != "id" or EXACT in asked.id_rule:
        return asked.near
    return () if asked.record else asked.near[1:]


def outcome_in(state: State, request: str) -> tuple[ErasureOutcome, int]:
    """What the open erasure comes to for one of its requests, and how many rows of it are
    stored."""
    plan = plan_of(state)
    rows = plan.rows[request]
    trained = bool(state.stages or state.versions)
    return outcome_of(
        rows, plan.slices, bool(plan.deactivated), state.silenced, trained
    ), rows.present


def _approved(state: State, event: events.RequestApproved) -> None:
    state.approved[event.request] = event.by


def _extended(state: State, event: events.DeadlineExtended) -> None:
    asked = state.requests[event.request]
    state.requests[event.request] = replace(asked, due=event.due, extended_from=asked.due)


def _hold(state: State, event: events.HoldSet | events.HoldReleased) -> None:
    if isinstance(event, events.HoldSet):
        state.holds[event.subject] = event
    else:
        state.holds.pop(event.subject)


def _closed(state: State, event: events.RequestClosed) -> None:
    state.deferred.discard(event.request)
    state.closed[event.request] = event.kind
    state.documents[event.request] = event.certificate


def _key(state: State, event: events.KeyReplaced) -> None:
    state.key_changes.append(
        KeyChange(
            state.size,
            event.old,
            event.new,
            event.time,
            event.vouched,
            event.old_public,
        )
    )
    state.signing = event.new


def _intake(state: State, event: events.IntakeAdded | events.IntakeRemoved) -> None:
    if isinstance(event, events.IntakeAdded):
        state.intakes[event.key] = IntakeRecord(
            event.called, event.public, event.seals_to, state.size
        )
    else:
        state.intakes[event.key] = replace(state.intakes[event.key], until=state.size)


def _lifted(state: State, event: events.SuppressionLifted) -> None:
    state.suppressed.pop(event.suppression)


def _retrain(state: State, event: events.RetrainChanged) -> None:
    state.retrain = None if event.state == "finished" else event
    if event.state == "finished":
        state.requests_since_training = (
            0  # also when nothing was missing, so that there is no new release
        )


def _settled(state: State, event: events.SettingsSettled) -> None:
    state.settled = event.settings


def _cache(state: State, event: events.CacheNamed) -> None:
    state.caches[event.dir] = event.shared


def _checkpoints(state: State, event: events.CheckpointsPlaced) -> None:
    state.checkpoints_at = event.place


def _experiment(state: State, event: events.ExperimentNamed) -> None:
    state.experiments.append(
        ExperimentRecord(
            event.registry,
            event.id,
            event.location,
            event.created,
        )
    )


def _training(state: State, event: events.TrainingBegan) -> None:
    state.trainings.add(event.run)


def _moving(state: State, event: events.MoveBegun | events.MoveUndone | events.MoveEnded) -> None:
    if isinstance(event, events.MoveBegun):
        state.moving = event
    elif isinstance(event, events.MoveUndone):
        _leave(state, "new", "old")
    else:
        state.moved = ""


def _leave(
    state: State,
    side: str,
    instead: str,
) -> None:
    """The move is over, and the places of one side of it are left."""
    if state.moving is not None:
        kept = getattr(state.moving, instead)
        state.left_places += [
            (name, section)
            for name, section in getattr(state.moving, side).items()
            if section != kept.get(name)
        ]
    state.moving = None


def _migrated(state: State, event: events.Migrated) -> None:
    if event.move:
        _leave(state, "old", "new")
        state.moved = event.move
    state.settled = event.settings
    _copy_runs(state, event.runs or {})
    ids = event.versions
    state.versions = [
        _elsewhere(v, *ids[v.version]) if v.version in ids else v for v in state.versions
    ]


def _copy_runs(state: State, copies: dict[str, str]) -> None:
    """`copies`: the new id by the one before, which may be a copy's itself."""
    before = set(state.copies.values())
    state.copies = {run: copies.get(made, made) for run, made in state.copies.items()}
    state.copies |= {run: made for run, made in copies.items() if run not in before}


def _elsewhere(
    version: VersionRecord,
    run_id: str,
    model_id: str,
    document: str,
) -> VersionRecord:
    return replace(
        version,
        run_id=run_id,
        model_id=model_id,
        document=document,
    )


def _retired(state: State, event: events.Retired) -> None:
    _forget(state, event.stages, event.versions)


def _forget(
    state: State,
    stages: Iterable[str],
    versions: Iterable[str],
) -> None:
    for key in stages:
        state.stages.pop(key, None)
    gone = set(versions)
    state.versions = [
        replace(v, destroyed=v.destroyed or v.version in gone) for v in state.versions
    ]


_HANDLERS: dict[str, Callable[[State, Any], None]] = {
    "workspace": _workspace,
    "clock": _clock,
    "settled": _settled,
    "migrated": _migrated,
    "dataset": _dataset,
    "backbone": _backbone,
    "stage": _stage,
    "release": _release,
    "measured": _measured,
    "request": _request,
    "lifted": _lifted,
    "replayed": _ignore,
    "exported": _exported,
    "key": _key,
    "intake": _intake,
    "healed": _ignore,
    "approved": _approved,
    "extended": _extended,
    "hold": _hold,
    "closed": _closed,
    "planned": _planned,
    "step": _step,
    "certified": _certified,
    "retrain": _retrain,
    "retired": _retired,
    "spelt": _spelt,
    "repeated": _repeated,
    "moving": _moving,
    "cache": _cache,
    "checkpoints": _checkpoints,
    "experiment": _experiment,
    "training": _training,
    "deferred": _deferred,
    "uncertified": _uncertified,
    "resumed": _resumed,
}
