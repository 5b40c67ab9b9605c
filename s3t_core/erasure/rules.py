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
| moving | begun: no erasure is open and no move; undone: it is the one that was begun |
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
| hold | set: none of the subject's requests is being carried out; released: it was set |
| closed | the request is open and not being carried out |
| key | it replaces the key that signs, which vouches for it unless it was lost; no erasure is open |
| replayed | its version was registered |
| lifted | the digest is on the suppression list, no request for it is open, no erasure is |
| planned | no erasure or move is open, the plan is new, its requests open and not held, its stages and versions there |
| step | it is the open erasure's next one, or a scan again; what it tells of is recorded |
| deferred | the requests are in the open erasure, which destroyed; nobody has a row of whom they ask |
| certified | the request is in the open erasure, whose scan is done, and has no document yet |
| retrain | wanted: none is, or the last try ended; triggered, failed: it is wanted; finished: no erasure is open |
| healed, retired | no erasure is open; what serves is not retired |
"""  # noqa: E501

import re
from collections.abc import Callable
from typing import Any, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from s3t_core.domain import Release, SliceId
from s3t_core.erasure.offline import KeyReplaced, NotValid, key_id
from s3t_core.erasure.state import (
    STEPS,
    ClosingKind,
    Event,
    ExperimentRecord,
    HoldState,
    MoveState,
    ReleaseCause,
    RetrainState,
    State,
)
from s3t_core.identity import HASHES
from s3t_core.release_json import release_from_json, stage_from_json
from s3t_core.times import CLOCK_TOLERANCE, parse_time

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class NotAllowed(ValueError):
    """The event does not follow from the state; the message says what was expected."""


def check(state: State, event: Event) -> None:
    """That the ledger takes `event` in `state`. Raises NotAllowed, or KeyError, TypeError,
    ValueError for an event that lacks something."""
    kind = event["type"]
    _want(
        bool(state.size) != (kind == "workspace"),
        "a ledger that begins with its workspace and has one",
    )
    _check_time(state, event)
    _RULES[kind](state, event)


def _want(holds: bool, expected: str) -> None:
    if not holds:
        raise NotAllowed(f"expected {expected}")


def _check_time(state: State, event: Event) -> None:
    time = event["time"]
    _want(_TIME.fullmatch(time) is not None, "a time in UTC with whole seconds")
    parse_time(time)
    if state.time and event["type"] != "clock":
        back = parse_time(state.time) - parse_time(time)
        _want(
            back <= CLOCK_TOLERANCE,
            "a time that does not run back without a correction of the clock",
        )


def _workspace(state: State, event: Event) -> None:
    del state
    _want(isinstance(event.get("key_check", ""), str), "a check value of the workspace key")


def _clock(state: State, event: Event) -> None:
    _want(event["before"] == state.time, "the newest entry's time as the one that is corrected")
    _want(
        parse_time(state.time) - parse_time(event["time"]) > CLOCK_TOLERANCE,
        "a clock that was set back",
    )


def _settled(state: State, event: Event) -> None:
    _want(state.settled is None, "settings that are settled once")
    _want(isinstance(event["settings"], dict), "settings")


def _migrated(state: State, event: Event) -> None:
    if event[
        "move"
    ]:  # else a version was registered again, under its number, where a restore had lost it
        _no_erasure(state)
        _want(
            state.moving is None or state.moving["move"] == event["move"], "the move that was begun"
        )
    _want(isinstance(event["settings"], dict), "settings")
    _versions_are_there(state, event["versions"])
    runs = event.get("runs", {})
    _want(
        all(isinstance(run, str) for run in (*runs.keys(), *runs.values())),
        "runs and their copies by their ids",
    )


def _cache(state: State, event: Event) -> None:
    _want(state.settled is not None, "settings that are settled")
    _want(isinstance(event["dir"], str) and bool(event["dir"]), "a directory")
    _want(isinstance(event["shared"], bool), "whether others share it")
    _want(event["dir"] not in state.caches, "a directory that was not recorded yet")


def _checkpoints(state: State, event: Event) -> None:
    _want(isinstance(event["place"], str), "a directory, or none")
    _want(event["place"] != state.checkpoints_at, "another place for checkpoints")
    replaces = bool(state.checkpoints_at)
    _want(bool(event["by"]) or not replaces, "who moves the checkpoints")
    _want(event["lost"] is False or (event["lost"] is True and replaces), "whether one is lost")


def _experiment(state: State, event: Event) -> None:
    _want(state.settled is not None, "settings that are settled")
    record = ExperimentRecord(event["registry"], event["id"], event["location"], event["created"])
    _want(isinstance(record.registry, str), "the tracking URI of a registry")
    _want(isinstance(record.id, str) and bool(record.id), "the id of an experiment")
    _want(isinstance(record.location, str) and bool(record.location), "the place of its files")
    _want(type(record.created) is int, "when it was made, in milliseconds")
    _want(record not in state.experiments, "an experiment that was not recorded yet")


def _training(state: State, event: Event) -> None:
    _no_erasure(state)
    _want(isinstance(event["run"], str) and bool(event["run"]), "the id of a run")
    _want(event["run"] not in state.trainings, "a run that was not recorded yet")


def _moving(state: State, event: Event) -> None:
    _want(
        event["state"] in get_args(MoveState),
        f"one of {', '.join(get_args(MoveState))} as the state",
    )
    if event["state"] == "undone":
        _want(
            state.moving is not None and state.moving["move"] == event["move"],
            "the move that was begun",
        )
        return
    _no_erasure(state)
    _want(state.moving is None, "no move that was begun")
    _want(isinstance(event["move"], str) and bool(event["move"]), "the name of a move")
    for side in (event["old"], event["new"]):
        _want(
            isinstance(side, dict) and all(isinstance(s, dict) for s in side.values()),
            "two sets of places",
        )


def _dataset(state: State, event: Event) -> None:
    _want(event["cause"] in ("ingest", "erasure"), "an ingest or an erasure as the cause")
    rule, columns = (tuple(event["dataset"][name]) for name in ("id_rule", "id_columns"))
    if event["cause"] == "ingest":
        _no_erasure(state)
        standing = {r.id_rule for i, r in state.requests.items() if state.is_open(i)}
        standing |= {tuple(h["id_rule"]) for h in state.holds.values()}
        _want(standing <= {rule}, "the rule for ids that open requests and holds were told by")
        _want(
            not standing or state.dataset is None or columns == state.dataset.id_columns,
            "the columns of ids that open requests and holds were told by",
        )
        return
    _want(
        state.plan is not None and tuple(state.steps) == STEPS[:1],
        "an erasure that has cut over and is rewriting",
    )
    was = state.dataset
    _want(
        (rule, columns) == ((was.id_rule, was.id_columns) if was else ((), ())),
        "the rule for ids, and their columns, that the data was placed by",
    )


def _backbone(state: State, event: Event) -> None:
    _no_erasure(state)
    _want(event["model"] not in state.backbones, "a backbone that was not recorded yet")


def _stage(state: State, event: Event) -> None:
    _no_erasure(state)
    stage = stage_from_json(event["stage"])
    _want(stage.key not in state.stages, "a stage key that is not bound yet")
    bound = state.bindings.get(stage.key)
    _want(bound in (None, stage.digest), "the digest that this key was bound to before")
    _want(
        len(stage.prefix) == len(stage.slice_digests),
        "a content digest for every slice that the stage saw",
    )


def _release(state: State, event: Event) -> None:
    _want(
        event["cause"] in get_args(ReleaseCause),
        f"one of {', '.join(get_args(ReleaseCause))} as the cause",
    )
    taken = {v.version for v in state.versions[:-1] if not v.destroyed}
    _want(event["version"] not in taken, "a version number that no other version has")
    _want(isinstance(event["document"], str), "the digest of its release document")
    release = release_from_json(event["release"])
    if state.plan is None:
        _want(event["cause"] != "erasure", "an erasure that is open")
    elif event["cause"] == "restored":
        _want("cut over" in state.steps, "an erasure that has cut over")
        _want(
            state.release is not None and state.release.release_id == release.release_id,
            "the release that serves",
        )
    else:
        _check_cut_over_to(state, event, release)
    for stage in (s for r in release.replicas for s in r.stages):
        known = state.stages.get(stage.key)
        _want(
            known is not None and known.digest == stage.digest,
            "stages that are recorded with these digests",
        )


def _check_cut_over_to(state: State, event: Event, release: Release) -> None:
    plan = _plan(state)
    planned = plan["release"]
    _want(not state.steps, "a cut-over that is still to come")
    _want(
        planned is not None and planned["id"] == release.release_id, "the release that was planned"
    )
    _want(
        event["cause"] == ("retrain" if plan["recipe"] else "erasure"), "the cause that was planned"
    )
    gone = {s["key"] for s in plan["deactivated"]}
    _want(not release.stage_keys() & gone, "a release without a stage that the erasure deactivates")


def _measured(state: State, event: Event) -> None:
    _want(
        event["release"] in {v.release.release_id for v in state.versions},
        "a release that was registered",
    )
    accuracy = event["accuracy"]
    _want(accuracy is None or 0 <= accuracy <= 1, "an accuracy from 0 to 1, or none")


def _request(state: State, event: Event) -> None:
    _want(event["request"] not in state.requests, "a request id that is new")
    for name in ("subject", "record", "suppression", "commitment", "salt"):
        _want(isinstance(event[name], str), f"the request's {name} as a digest")
    for name in ("near", "forms", "id_rule", "ids"):
        _want(
            isinstance(event[name], list) and all(isinstance(v, str) for v in event[name]),
            f"the request's {name}",
        )
    by = event["asked_by"]
    _want(
        (by == "id") == (not event["forms"]),
        "forms of an id where it is told by its hash, and only there",
    )
    _want(
        by in ("id", *HASHES) and (by == "id" or not event["record"]),
        "how the person was named; a whole subject where the id is not known",
    )
    _want(
        _TIME.fullmatch(event["due"]) is not None and event["due"] >= event["time"],
        "a due time after it came",
    )
    _want(
        event["once"] == "" or _is_new_key(state, event["once"]),
        "the digest of an idempotency key that is new",
    )


def _repeated(state: State, event: Event) -> None:
    _want(state.is_open(event["request"]), "a request that is open")
    _want(_is_new_key(state, event["once"]), "the digest of an idempotency key that is new")


def _is_new_key(state: State, digest: Any) -> bool:
    return (
        isinstance(digest, str)
        and _DIGEST.fullmatch(digest) is not None
        and digest not in state.once
    )


def _spelt(state: State, event: Event) -> None:
    request = event["request"]
    _open_and_waiting(state, request)
    asked = state.requests[request]
    ids = event["ids"]
    told = (*ids, *event["near"])
    _want(bool(ids) and all(isinstance(v, str) for v in told), "digests of ids")
    is_new = set(ids).isdisjoint(asked.ids)
    _want(is_new and len(set(ids)) == len(ids), "new spellings")


def _approved(state: State, event: Event) -> None:
    _open_and_waiting(state, event["request"])
    _want(isinstance(event["by"], str), "who approves")


def _hold(state: State, event: Event) -> None:
    _want(
        event["state"] in get_args(HoldState),
        f"one of {', '.join(get_args(HoldState))} as the state",
    )
    subject = event["subject"]
    if event["state"] == "set":
        _want(isinstance(event["id_rule"], list), "the rule for ids that it was told by")
    if event["state"] == "released":
        _want(subject in state.holds, "a hold that is set")
    else:
        begun = {
            who
            for r in state.planned
            for who in (state.requests[r].subject, *state.requests[r].subjects)
        }
        _want(subject not in begun, "a subject whose erasure has not begun")


def _closed(state: State, event: Event) -> None:
    _open_and_waiting(state, event["request"])
    _want(
        event["kind"] in get_args(ClosingKind),
        f"one of {', '.join(get_args(ClosingKind))} as the kind",
    )
    _want(
        _DIGEST.fullmatch(event["certificate"]) is not None,
        "the digest of the document that closes it",
    )


def _key(state: State, event: Event) -> None:
    _no_erasure(state)
    old, new = event["old"], event["new"]
    _want(state.signing in ("", old), "the key that signs as the one that is replaced")
    _want(
        _DIGEST.fullmatch(new) is not None
        and new not in {old, *(c.old for c in state.key_changes)},
        "a new key",
    )
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(event["old_public"]))
    _want(key_id(public) == old, "the public part of the key that is replaced")
    _want(
        bool(event["vouched"]) != (event["lost"] is True),
        "the replaced key to sign the new one's id, unless lost",
    )
    try:
        KeyReplaced(old, new, event["time"], event["vouched"]).check(public)
    except NotValid as error:
        raise NotAllowed(str(error)) from None


def _replayed(state: State, event: Event) -> None:
    _want(event["version"] in {v.version for v in state.versions}, "a version that was registered")


def _lifted(state: State, event: Event) -> None:
    _no_erasure(state)
    digest = event["suppression"]
    _want(digest in state.suppressed, "a digest that is on the suppression list")
    _want(event["kind"] == state.suppressed[digest][0], "the kind that is on the suppression list")
    waiting = {r.suppression for i, r in state.requests.items() if state.is_open(i)}
    _want(digest not in waiting, "no open request for it")


def _planned(state: State, event: Event) -> None:
    _no_erasure(state)
    _want(state.moving is None, "no move that was begun")
    plan = event["plan"]
    _want(plan["plan_id"] not in state.plans, "a plan that is new")
    requests = plan["requests"]
    _want(len(set(requests)) == len(requests) > 0, "at least one request, each once")
    for request in requests:
        _want(state.is_open(request), "requests that are open")
        _want(
            state.requests[request].subject not in state.holds, "requests that no legal hold stops"
        )
    _want(set(plan["rows"]) == set(requests), "a count of rows for each request")
    by_hash = {r for r in requests if state.requests[r].asked_by != "id"}
    _want(
        set(plan["subjects"]) == by_hash == set(plan["near"]), "whom each request by a hash means"
    )
    found = {s for subjects in plan["subjects"].values() for s in subjects}
    _want(found.isdisjoint(state.holds), "requests that mean nobody whom a legal hold keeps")
    for stage in map(stage_from_json, plan["deactivated"]):
        _want(state.stages.get(stage.key) == stage, "stages that are recorded")
    _reaches_what_was_found(state, plan)
    _versions_are_there(state, plan["versions"])
    if plan["release"] is not None:
        gone = {s["key"] for s in plan["deactivated"]}
        live = release_from_json(plan["release"]).stage_keys()
        _want(
            live <= state.stages.keys() - gone,
            "a release of recorded stages that the erasure does not deactivate",
        )


def _reaches_what_was_found(state: State, plan: dict[str, Any]) -> None:
    """That an erasure touches where it found rows, and deactivates what saw them there."""
    rows = plan["rows"].values()
    has_training = any(found["training"] for found in rows)
    has_held_out = any(found["held_out"] for found in rows)
    _want(bool(plan["slices"]) or not has_training, "the slices of the rows that were found")
    _want(plan["held_out"] or not has_held_out, "the held-out rows that were found")
    known = state.dataset.slice_versions if state.dataset else {}
    touched = {SliceId(*s) for s in plan["slices"]}
    tainted = {version.digest for s, version in known.items() if s in touched}
    gone = {stage["key"] for stage in plan["deactivated"]}
    saw = set()
    for key, stage in state.stages.items():
        if not tainted.isdisjoint(stage.slice_digests):
            saw.add(key)
    _want(gone >= saw, "every stage that saw the slices to be deactivated")
    answers = state.release.stage_keys() if state.release else frozenset()
    _want(gone.isdisjoint(answers) or plan["release"] is not None, "a release without them")


def _step(state: State, event: Event) -> None:
    plan = _plan(state)
    _want(event["plan_id"] == plan["plan_id"], "the erasure that is open")
    done = len(state.steps)
    allowed = {
        STEPS[done],
        *(s for s in STEPS[:done][-1:] if s == "scan"),
    }  # by another run, that goes on
    _want(
        tuple(state.steps) == STEPS[:done] and event["step"] in allowed,
        "the next step of the erasure",
    )
    check_outcome = _OUTCOMES.get(event["step"])
    if check_outcome is not None:
        check_outcome(state, plan, event)


def _cut_over(state: State, plan: dict[str, Any], event: Event) -> None:
    release = plan["release"]
    serves = state.release.release_id if state.release else None
    _want(release is None or release["id"] == serves, "the planned release to serve")
    _want(
        event["staleness"] >= 0 and parse_time(event["moved"]) is not None, "when the alias moved"
    )


def _rewritten(state: State, plan: dict[str, Any], event: Event) -> None:
    del event
    touched = bool(plan["slices"]) or plan["held_out"]
    _want(not touched or _rewrote(state), "a data version that was rewritten by this erasure")


def _rewrote(state: State) -> bool:
    """Whether the present data is another than when the erasure was planned."""
    return state.dataset is not None and state.dataset.version != state.planned_on


def _destroyed(state: State, plan: dict[str, Any], event: Event) -> None:
    del state
    _want(
        {s["key"] for s in plan["deactivated"]} <= set(event["stages"]),
        "every deactivated stage to be destroyed",
    )
    _want(
        list(event["versions"]) == list(plan["versions"]), "every planned version to be destroyed"
    )
    _want(isinstance(event["objects"], list) and event["quarantined"] >= 0, "what was destroyed")


def _scanned(state: State, plan: dict[str, Any], event: Event) -> None:
    told = {r: len(state.requests[r].ids) for r in plan["requests"]}
    sought = sum(told[r] for r in state.sought)
    _want(
        event["spellings"] in (sought, sum(told.values())),
        "a scan for every spelling of the ids that was told",
    )
    _want(event["files"] > 0, "a search of files")
    counts = ("files", "bytes", "needles", "unsearchable", "lost", "shared", "outside")
    _want(
        all(event[k] >= 0 for k in counts) and isinstance(event["ids_lost"], list),
        "what was searched",
    )


def _certify(state: State, plan: dict[str, Any], event: Event) -> None:
    del event
    _want(all(r in state.certified for r in plan["requests"]), "a certificate for every request")


_OUTCOMES: dict[str, Callable[[State, dict[str, Any], Event], None]] = {
    "cut over": _cut_over,
    "rewrite": _rewritten,
    "destroy": _destroyed,
    "scan": _scanned,
    "certify": _certify,
}


def _deferred(state: State, event: Event) -> None:
    plan, requests = _plan(state), event["requests"]
    _want(
        event["plan_id"] == plan["plan_id"] and "destroy" in state.steps,
        "an open erasure that has destroyed",
    )
    _want(len(set(requests)) == len(requests) > 0, "at least one request, each once")
    for request in requests:
        _want(
            request in state.planned and state.is_open(request),
            "requests of the erasure that have no document yet",
        )
        found = any(plan["rows"][request].values()) or plan["subjects"].get(request)
        _want(not found, "requests of which no row was found")


def _certified(state: State, event: Event) -> None:
    request = event["request"]
    _want(
        request in state.planned and "scan" in state.steps,
        "a request of an open erasure whose scan is done",
    )
    _want(state.is_open(request), "a request that has no document yet")
    _want(_DIGEST.fullmatch(event["certificate"]) is not None, "the digest of the certificate")


def _retrain(state: State, event: Event) -> None:
    _want(
        event["state"] in get_args(RetrainState),
        f"one of {', '.join(get_args(RetrainState))} as the state",
    )
    there = state.retrain
    if event["state"] in ("wanted", "finished"):
        _no_erasure(state)
    if event["state"] == "finished":
        is_known = there is None or event["id"] == there["id"]
        _want(isinstance(event["id"], str) and is_known, "the retrain that is wanted")
    elif event["state"] == "wanted":
        tried_again = (
            there is not None
            and there["state"] in ("triggered", "failed")
            and there["id"] == event["id"]
        )
        next_one = tried_again and event["attempt"] == (there or {})["attempt"] + 1
        is_named = isinstance(event["id"], str)
        first = there is None and event["attempt"] == 1 and is_named
        _want(first or next_one, "a retrain that is not wanted yet")
    else:
        _want(
            there is not None
            and (there["id"], there["attempt"]) == (event["id"], event["attempt"]),
            "the retrain that is wanted",
        )


def _healed(state: State, event: Event) -> None:
    del state
    _want(event["stages"] >= 0 and event["objects"] >= 0, "how many came back")


def _retired(state: State, event: Event) -> None:
    if event[
        "stages"
    ]:  # else versions that a restore has lost, which an open erasure does not wait for
        _no_erasure(state)
    _versions_are_there(state, event["versions"])
    champion = state.champion
    _want(
        champion is None or champion.version not in event["versions"],
        "the version that serves to stay",
    )
    live = champion.release.stage_keys() if champion and not champion.destroyed else set()
    _want(not live & set(event["stages"]), "the stages of the version that serves to stay")


def _no_erasure(state: State) -> None:
    _want(state.plan is None, "no erasure that is open")


def _plan(state: State) -> dict[str, Any]:
    _want(state.plan is not None, "an erasure that is open")
    plan: dict[str, Any] = state.plan["plan"] if state.plan else {}
    return plan


def _open_and_waiting(state: State, request: str) -> None:
    _want(state.is_open(request), "a request that is open")
    _want(request not in state.planned, "a request that is not being carried out")


def _versions_are_there(state: State, versions: Any) -> None:
    _want(
        set(versions) <= {v.version for v in state.versions if not v.destroyed},
        "versions that are there",
    )


_RULES: dict[str, Callable[[State, Event], None]] = {
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
    "hold": _hold,
    "closed": _closed,
    "key": _key,
    "replayed": _replayed,
    "lifted": _lifted,
    "planned": _planned,
    "step": _step,
    "certified": _certified,
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
    "deferred": _deferred,
}
KINDS = frozenset(_RULES)
"""Every kind of event."""
