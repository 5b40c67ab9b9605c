"""Which event the ledger takes in which state: one table, asked before anything is appended and
again on every read.

So nobody who can insert rows, and no fault of ours, can make the ledger say that a request ended
without its erasure, that a step was done before the one it rests on, or that a stage is another
than was trained.

| event | is taken when |
|---|---|
| workspace | it is the first entry, and no other is |
| clock | the clock was set back by more than its tolerance: `before` is the newest entry's time |
| settled | nothing is settled yet |
| cache | settings are settled, and the directory was not recorded yet |
| checkpoints | the place is another one; somebody says so where it replaces one |
| experiment | settings are settled, and the experiment was not recorded yet |
| training | no erasure is open, and the run was not recorded yet |
| moving | begun: no erasure is open and no move; undone: it is the one that was begun; ended: it is the last one, and was not ended before |
| migrated | no erasure is open, no other move was begun, and it names versions that are there |
| dataset | no erasure is open; one of an erasure only between its cut-over and the end of its rewriting |
| backbone | the model was not recorded yet |
| stage | no erasure is open, and the key is not bound; it never has another digest than it had |
| release | its stages are recorded as they are; within an erasure before its cut-over, and then the planned one |
| measured | its release was registered |
| request | the id is new, and so is the idempotency key, where it came with one |
| repeated | the request is open, and the key is new |
| spelt | the request is open and not being carried out; the spellings are new |
| approved | the request is open and not being carried out |
| extended | the request is open, not due yet, and not extended before; by two months at most |
| hold | set: none of the subject's requests is being carried out; released: it was set |
| closed | the request is open and not being carried out |
| key | it replaces the key that signs, which vouches for it unless it was lost; no erasure is open |
| intake | added: its key is a new one, and signs nothing else; removed: it was added, and not removed |
| replayed | its version was registered |
| exported | no erasure or move is open; it is new, of the release that serves, and has files; what it replaces is known |
| lifted | the digest is on the suppression list, no request for it is open, no erasure is |
| planned | no erasure or move is open, the plan is new, its requests open and not held, its stages and versions there |
| step | it is the open erasure's next one, or a scan again; what it tells of is recorded |
| deferred | the requests are in the open erasure, which destroyed; nobody has a row of whom they ask |
| uncertified | the requests are in the open erasure, which destroyed and measured, and have no document yet |
| resumed | no erasure or move is open, and it is one without its certificates |
| certified | the request is in the open erasure, whose scan is done, and has no document yet |
| retrain | wanted: none is, or the last try ended; triggered, failed: it is wanted; finished: no erasure is open |
| healed | always: what a restore brought back may be an open erasure's |
| retired | what serves is not retired; where stages went with it, no erasure is open |
"""  # noqa: E501

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from s3t_core.domain import ACCURACY, Release, Score
from s3t_core.erasure import erasure_rules as erasing
from s3t_core.erasure import events
from s3t_core.erasure.events import LedgerEvent
from s3t_core.erasure.expected import (
    DIGEST,
    NotAllowed,
    no_erasure,
    open_and_waiting,
    plan_of,
    versions_are_there,
    want,
)
from s3t_core.erasure.offline import KeyReplaced, NotValid, key_id
from s3t_core.erasure.state import ExperimentRecord, State
from s3t_core.erasure.vocabulary import (
    STEPS,
)
from s3t_core.identity import HASHES
from s3t_core.times import CLOCK_TOLERANCE, months_later, parse_time

_X25519_BYTES = 32
_REQUEST_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
MOST_MONTHS = 2
"""So many months may a request's time be extended by, once (GDPR article 12(3))."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def check(state: State, event: LedgerEvent) -> None:
    """That the ledger takes `event` in `state`. Raises NotAllowed, or KeyError, TypeError,
    ValueError for an event that lacks something."""
    kind = event.type
    want(
        bool(state.size) != (kind == "workspace"),
        "a ledger that begins with its workspace and has one",
    )
    _check_time(state, event)
    _RULES[kind](state, event)


def _check_time(state: State, event: LedgerEvent) -> None:
    time = event.time
    want(_TIME.fullmatch(time) is not None, "a time in UTC with whole seconds")
    parse_time(time)
    if state.time and event.type != "clock":
        back = parse_time(state.time) - parse_time(time)
        want(
            back <= CLOCK_TOLERANCE,
            "a time that does not run back without a correction of the clock",
        )


def _workspace(state: State, event: events.WorkspaceBegan) -> None:
    del state, event


def _clock(state: State, event: events.ClockCorrected) -> None:
    want(event.before == state.time, "the newest entry's time as the one that is corrected")
    want(
        parse_time(state.time) - parse_time(event.time) > CLOCK_TOLERANCE,
        "a clock that was set back",
    )


def _settled(state: State, event: events.SettingsSettled) -> None:
    del event
    want(state.settled is None, "settings that are settled once")


def _migrated(state: State, event: events.Migrated) -> None:
    # without a move, a version was registered again under its number, where a restore had lost it
    if event.move:
        no_erasure(state)
        want(state.moving is None or state.moving.move == event.move, "the move that was begun")
    else:
        want(event.settings == state.settled, "the settings that are settled, where nothing moves")
    versions_are_there(state, event.versions)
    runs = event.runs or {}
    want(
        all(isinstance(run, str) for run in (*runs.keys(), *runs.values())),
        "runs and their copies by their ids",
    )


def _cache(state: State, event: events.CacheNamed) -> None:
    want(state.settled is not None, "settings that are settled")
    want(bool(event.dir), "a directory")
    want(event.dir not in state.caches, "a directory that was not recorded yet")


def _checkpoints(state: State, event: events.CheckpointsPlaced) -> None:
    want(event.place != state.checkpoints_at, "another place for checkpoints")
    replaces = bool(state.checkpoints_at)
    want(bool(event.by) or not replaces, "who moves the checkpoints")
    want(event.lost is False or (event.lost is True and replaces), "whether one is lost")


def _experiment(state: State, event: events.ExperimentNamed) -> None:
    want(state.settled is not None, "settings that are settled")
    record = ExperimentRecord(
        event.registry,
        event.id,
        event.location,
        event.created,
    )
    want(bool(record.id), "the id of an experiment")
    want(bool(record.location), "the place of its files")
    want(record not in state.experiments, "an experiment that was not recorded yet")


def _training(state: State, event: events.TrainingBegan) -> None:
    no_erasure(state)
    want(bool(event.run), "the id of a run")
    want(event.run not in state.trainings, "a run that was not recorded yet")


def _moving(state: State, event: events.MoveBegun | events.MoveUndone | events.MoveEnded) -> None:
    if isinstance(event, events.MoveEnded):
        want(bool(event.move) and state.moved == event.move, "the move whose places were left last")
        return
    if isinstance(event, events.MoveUndone):
        want(
            state.moving is not None and state.moving.move == event.move,
            "the move that was begun",
        )
        return
    no_erasure(state)
    want(state.moving is None, "no move that was begun")
    want(bool(event.move), "the name of a move")
    for side in (event.old, event.new):
        want(
            all(isinstance(s, dict) for s in side.values()),
            "two sets of places",
        )


def _dataset(state: State, event: events.DatasetChanged) -> None:
    want(event.cause in ("ingest", "erasure"), "an ingest or an erasure as the cause")
    rule, columns = event.dataset.id_rule, event.dataset.id_columns
    if event.cause == "ingest":
        no_erasure(state)
        standing = {r.id_rule for i, r in state.requests.items() if state.is_open(i)}
        standing |= {h.id_rule for h in state.holds.values()}
        want(standing <= {rule}, "the rule for ids that open requests and holds were told by")
        want(
            not standing or state.dataset is None or columns == state.dataset.id_columns,
            "the columns of ids that open requests and holds were told by",
        )
        return
    want(
        state.plan is not None and tuple(state.steps) == STEPS[:1],
        "an erasure that has cut over and is rewriting",
    )
    was = state.dataset
    want(
        (rule, columns) == ((was.id_rule, was.id_columns) if was else ((), ())),
        "the rule for ids, and their columns, that the data was placed by",
    )


def _backbone(state: State, event: events.BackboneUsed) -> None:
    no_erasure(state)
    want(event.model not in state.backbones, "a backbone that was not recorded yet")


def _stage(state: State, event: events.StageTrained) -> None:
    no_erasure(state)
    stage = event.stage
    want(stage.key not in state.stages, "a stage key that is not bound yet")
    bound = state.bindings.get(stage.key)
    want(bound in (None, stage.digest), "the digest that this key was bound to before")
    want(
        len(stage.prefix) == len(stage.slice_digests),
        "a content digest for every slice that the stage saw",
    )


def _release(state: State, event: events.ReleaseServes) -> None:
    taken = {v.version for v in state.versions[:-1] if not v.destroyed}
    want(event.version not in taken, "a version number that no other version has")
    release = event.release
    if state.plan is None:
        want(event.cause != "erasure", "an erasure that is open")
    elif event.cause == "restored":
        want("cut over" in state.steps, "an erasure that has cut over")
        want(
            state.release is not None and state.release.release_id == release.release_id,
            "the release that serves",
        )
    else:
        _check_cut_over_to(state, event, release)
    for stage in (s for r in release.replicas for s in r.stages):
        known = state.stages.get(stage.key)
        want(
            known is not None and known.digest == stage.digest,
            "stages that are recorded with these digests",
        )


def _check_cut_over_to(
    state: State,
    event: events.ReleaseServes,
    release: Release,
) -> None:
    plan = plan_of(state)
    planned = plan.release
    want(not state.steps, "a cut-over that is still to come")
    want(
        planned is not None and planned.release_id == release.release_id,
        "the release that was planned",
    )
    want(event.cause == ("retrain" if plan.recipe else "erasure"), "the cause that was planned")
    gone = {s.key for s in plan.deactivated}
    want(not release.stage_keys() & gone, "a release without a stage that the erasure deactivates")


def _measured(state: State, event: events.ReleaseMeasured) -> None:
    want(
        event.release in {v.release.release_id for v in state.versions},
        "a release that was registered",
    )
    want(_is_possible(event.measured), "a score that there can be, or none")
    want(
        event.score is None or (event.score.metric == ACCURACY) == (event.accuracy is not None),
        "an accuracy where that is what was measured, and only there",
    )


_WAYS = (
    (None, None),
    ("votes", None),
    ("merged", None),
    ("votes", "merged"),
    ("merged", "votes"),
)
"""How shards answered, and how otherwise."""
_METRIC = re.compile("[a-z0-9_]{1,40}")


def _is_possible(score: Score | None) -> bool:
    """Whether its numbers are ones that can be measured: an accuracy from 0 to 1, any other finite,
    within its interval."""
    if score is None:
        return True
    numbers = (score.low, score.value, score.high)
    if not all(type(n) in (int, float) and math.isfinite(n) for n in numbers if n is not None):
        return False
    if type(score.higher_is_better) is not bool or not _METRIC.fullmatch(str(score.metric)):
        return False
    other = score.otherwise
    if (score.combine, other.combine if other else None) not in _WAYS:
        return False
    if other and not _is_possible(replace(other, combine=None)):
        return False
    within = [n for n in numbers if n is not None]
    is_share = score.metric != ACCURACY or 0 <= within[0] <= within[-1] <= 1
    return score.value is not None and within == sorted(within) and is_share


def _request(state: State, event: events.RequestTaken) -> None:
    want(event.request not in state.requests, "a request id that is new")
    want(_REQUEST_ID.fullmatch(event.request) is not None, "a request id that can name a file")
    by = event.asked_by
    want(
        (by == "id") == (not event.forms),
        "forms of an id where it is told by its hash, and only there",
    )
    want(
        by in ("id", *HASHES) and (by == "id" or not event.record),
        "how the person was named; a whole subject where the id is not known",
    )
    want(_TIME.fullmatch(event.due) is not None, "a due time in UTC with whole seconds")
    want(parse_time(event.due) >= parse_time(event.time), "a due time after it came")
    want(
        event.once == "" or _is_new_key(state, event.once),
        "the digest of an idempotency key that is new",
    )


def _repeated(state: State, event: events.RequestRepeated) -> None:
    want(state.is_open(event.request), "a request that is open")
    want(_is_new_key(state, event.once), "the digest of an idempotency key that is new")


def _is_new_key(state: State, digest: object) -> bool:
    return (
        isinstance(digest, str)
        and DIGEST.fullmatch(digest) is not None
        and digest not in state.once
    )


def _spelt(state: State, event: events.RequestSpelt) -> None:
    request = event.request
    open_and_waiting(state, request)
    asked = state.requests[request]
    ids = event.ids
    want(bool(ids), "digests of ids")
    is_new = set(ids).isdisjoint(asked.ids)
    want(is_new and len(set(ids)) == len(ids), "new spellings")


def _approved(state: State, event: events.RequestApproved) -> None:
    open_and_waiting(state, event.request)


def _extended(state: State, event: events.DeadlineExtended) -> None:
    want(state.is_open(event.request), "a request that is open")
    asked = state.requests[event.request]
    want(not asked.extended_from, "a request whose time was not extended before")
    want(
        event.time <= asked.due and not asked.was_overdue,
        "a request that is not due yet, nor was by a clock that was set back",
    )
    want(_TIME.fullmatch(event.due) is not None, "a due time in UTC with whole seconds")
    latest = months_later(parse_time(asked.due), MOST_MONTHS)
    want(
        parse_time(asked.due) < parse_time(event.due) <= latest,
        f"a later due time, by {MOST_MONTHS} months at most",
    )
    want(bool(event.by) and bool(event.reason), "who extends it, and why")


def _hold(state: State, event: events.HoldSet | events.HoldReleased) -> None:
    if isinstance(event, events.HoldReleased):
        want(event.subject in state.holds, "a hold that is set")
        return
    begun = [state.requests[r] for r in state.planned]
    subjects = {who for asked in begun for who in (asked.subject, *asked.subjects)}
    want(event.subject not in subjects, "a subject whose erasure has not begun")


def _closed(state: State, event: events.RequestClosed) -> None:
    open_and_waiting(state, event.request)
    want(
        DIGEST.fullmatch(event.certificate) is not None,
        "the digest of the document that closes it",
    )


def _key(state: State, event: events.KeyReplaced) -> None:
    if not event.lost:
        no_erasure(state)
    old, new = event.old, event.new
    want(state.signing in ("", old), "the key that signs as the one that is replaced")
    want(
        DIGEST.fullmatch(new) is not None
        and new not in {old, *(c.old for c in state.key_changes), *state.intakes},
        "a new key",
    )
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(event.old_public))
    want(key_id(public) == old, "the public part of the key that is replaced")
    want(
        bool(event.vouched) != (event.lost is True),
        "the replaced key to sign the new one's id, unless lost",
    )
    try:
        KeyReplaced(old, new, event.time, event.vouched).check(public)
    except NotValid as error:
        raise NotAllowed(str(error)) from None


def _intake(state: State, event: events.IntakeAdded | events.IntakeRemoved) -> None:
    if isinstance(event, events.IntakeRemoved):
        known = state.intakes.get(event.key)
        want(known is not None and known.until is None, "an intake host that takes requests")
        return
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(event.public))
    want(key_id(public) == event.key, "the public part of the intake host's key")
    want(
        event.key not in {*state.intakes, *state.signed_by},
        "a key that no intake host had, and that signs nothing else",
    )
    want(len(bytes.fromhex(event.seals_to)) == _X25519_BYTES, "the key that ids are sealed to")
    want(bool(event.called), "what the host is called")


def _replayed(state: State, event: events.Replayed) -> None:
    want(event.version in {v.version for v in state.versions}, "a version that was registered")


def _exported(state: State, event: events.Exported) -> None:
    no_erasure(state)
    want(state.moving is None, "no move that was begun")
    want(bool(event.export) and event.export not in state.exports, "the name of a new export")
    serves = state.release.release_id if state.release else None
    want(event.release == serves, "the release that serves")
    want(bool(event.place), "the place of its files")
    digests = [str(digest) for digest in event.files.values()]
    want(bool(digests) and all(map(DIGEST.fullmatch, digests)), "files with their digests")
    want(set(event.replaces) <= state.exports.keys(), "exports that were recorded")


def _lifted(state: State, event: events.SuppressionLifted) -> None:
    no_erasure(state)
    digest = event.suppression
    want(digest in state.suppressed, "a digest that is on the suppression list")
    want(event.kind == state.suppressed[digest][0], "the kind that is on the suppression list")
    waiting = {r.suppression for i, r in state.requests.items() if state.is_open(i)}
    want(digest not in waiting, "no open request for it")


def _retrain(state: State, event: events.RetrainChanged) -> None:
    there = state.retrain
    if event.state in ("wanted", "finished"):
        no_erasure(state)
    if event.state == "finished":
        is_known = there is None or event.id == there.id
        want(is_known, "the retrain that is wanted")
    elif event.state == "wanted":
        tried_again = (
            there is not None and there.state in ("triggered", "failed") and there.id == event.id
        )
        next_one = tried_again and event.attempt == (there.attempt or 0) + 1 if there else False
        first = there is None and event.attempt == 1
        want(first or next_one, "a retrain that is not wanted yet")
    else:
        want(
            there is not None and (there.id, there.attempt) == (event.id, event.attempt),
            "the retrain that is wanted",
        )


def _healed(state: State, event: events.Healed) -> None:
    del state
    want(event.stages >= 0 and event.objects >= 0, "how many came back")


def _retired(state: State, event: events.Retired) -> None:
    # without stages, it tells of versions that a restore has lost: no open erasure waits for that
    if event.stages:
        no_erasure(state)
    versions_are_there(state, event.versions)
    champion = state.champion
    want(
        champion is None or champion.version not in event.versions,
        "the version that serves to stay",
    )
    live = champion.release.stage_keys() if champion and not champion.destroyed else set()
    want(not live & set(event.stages), "the stages of the version that serves to stay")


_RULES: dict[str, Callable[[State, Any], None]] = {
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
    "approved": _approved,
    "extended": _extended,
    "hold": _hold,
    "closed": _closed,
    "key": _key,
    "intake": _intake,
    "replayed": _replayed,
    "exported": _exported,
    "lifted": _lifted,
    "planned": erasing.planned,
    "step": erasing.step,
    "certified": erasing.certified,
    "retrain": _retrain,
    "healed": _healed,
    "retired": _retired,
    "spelt": _spelt,
    "repeated": _repeated,
    "moving": _moving,
    "cache": _cache,
    "checkpoints": _checkpoints,
    "experiment": _experiment,
    "training": _training,
    "deferred": erasing.deferred,
    "uncertified": erasing.uncertified,
    "resumed": erasing.resumed,
}
KINDS = frozenset(_RULES)
"""Every kind of event."""
