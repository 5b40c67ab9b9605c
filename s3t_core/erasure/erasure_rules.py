"""Which event of an erasure the ledger takes in which state: a part of rules.py."""

from collections.abc import Callable
from typing import Any

from s3t_core.erasure import events
from s3t_core.erasure.expected import (
    DIGEST,
    no_erasure,
    plan_of,
    versions_are_there,
    want,
)
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.erasure.state import State
from s3t_core.erasure.vocabulary import STEPS
from s3t_core.times import parse_time


def planned(state: State, event: events.ErasurePlanned) -> None:
    """That an erasure may begin as it is planned."""
    no_erasure(state)
    want(state.moving is None, "no move that was begun")
    plan = event.plan
    want(plan.plan_id not in state.plans, "a plan that is new")
    requests = plan.requests
    want(len(set(requests)) == len(requests) > 0, "at least one request, each once")
    for request in requests:
        want(
            state.is_open(request) and request not in state.set_aside,
            "requests that are open, whose rows are still there",
        )
        want(
            state.requests[request].subject not in state.holds, "requests that no legal hold stops"
        )
    want(set(plan.rows) == set(requests), "a count of rows for each request")
    asked = {r: state.requests[r].asked_by for r in requests}
    by_hash = {r for r, by in asked.items() if by != "id"}
    want(set(plan.subjects) == by_hash == set(plan.near), "whom each request by a hash means")
    found = {s for subjects in plan.subjects.values() for s in subjects}
    want(found.isdisjoint(state.holds), "requests that mean nobody whom a legal hold keeps")
    for stage in plan.deactivated:
        want(state.stages.get(stage.key) == stage, "stages that are recorded")
    _reaches_what_was_found(state, plan)
    versions_are_there(state, plan.versions)
    if plan.release is not None:
        gone = {s.key for s in plan.deactivated}
        live = plan.release.stage_keys()
        want(
            live <= state.stages.keys() - gone,
            "a release of recorded stages that the erasure does not deactivate",
        )


def _reaches_what_was_found(state: State, plan: ErasurePlan) -> None:
    """That an erasure touches where it found rows, and deactivates what saw them there."""
    rows = plan.rows.values()
    has_training = any(found.training for found in rows)
    has_held_out = any(found.held_out for found in rows)
    want(bool(plan.slices) or not has_training, "the slices of the rows that were found")
    want(plan.held_out or not has_held_out, "the held-out rows that were found")
    known = state.dataset.slice_versions if state.dataset else {}
    touched = set(plan.slices)
    tainted = {version.digest for s, version in known.items() if s in touched}
    gone = {stage.key for stage in plan.deactivated}
    saw = set()
    for key, stage in state.stages.items():
        if not tainted.isdisjoint(stage.slice_digests):
            saw.add(key)
    want(gone >= saw, "every stage that saw the slices to be deactivated")
    copied = state.exports_that(lambda stage: stage.key in gone)
    want(set(copied) <= set(plan.exports) <= state.exports.keys(), "the exports that have them")
    answers = state.release.stage_keys() if state.release else frozenset()
    want(gone.isdisjoint(answers) or plan.release is not None, "a release without them")


def step(state: State, event: events.StepDone) -> None:
    """That a step of the open erasure follows those that are done."""
    plan = plan_of(state)
    want(event.plan_id == plan.plan_id, "the erasure that is open")
    done = len(state.steps)
    allowed = {
        STEPS[done],
        *(s for s in STEPS[:done][-1:] if s == "scan"),
    }  # by another run, that goes on
    want(
        tuple(state.steps) == STEPS[:done] and event.step in allowed,
        "the next step of the erasure",
    )
    check_outcome = _OUTCOMES.get(event.step)
    if check_outcome is not None:
        check_outcome(state, plan, event)


def _cut_over(
    state: State,
    plan: ErasurePlan,
    event: events.CutOver,
) -> None:
    release = plan.release
    serves = state.release.release_id if state.release else None
    want(release is None or release.release_id == serves, "the planned release to serve")
    want(event.staleness >= 0 and parse_time(event.moved) is not None, "when the alias moved")


def _rewritten(
    state: State,
    plan: ErasurePlan,
    event: events.Rewritten,
) -> None:
    del event
    touched = bool(plan.slices) or plan.held_out
    want(not touched or _rewrote(state), "a data version that was rewritten by this erasure")


def _rewrote(state: State) -> bool:
    """Whether the present data is another than when the erasure was planned."""
    return state.dataset is not None and state.dataset.version != state.planned_on


def _destroyed(
    state: State,
    plan: ErasurePlan,
    event: events.Destroyed,
) -> None:
    deactivated = {s.key for s in plan.deactivated}
    want(deactivated <= set(event.stages), "every deactivated stage to be destroyed")
    want(list(event.versions) == list(plan.versions), "every planned version to be destroyed")
    want(event.quarantined >= 0, "what was destroyed")
    want(set(event.exports) <= set(plan.exports), "exports that were planned")
    live = {version.md5 for version in state.dataset.files()} if state.dataset else set()
    want(
        set(plan.objects) <= {*event.objects, *live},
        "every planned data object to be destroyed",
    )


def _scanned(
    state: State,
    plan: ErasurePlan,
    event: events.Scanned,
) -> None:
    spellings = {r: len(state.requests[r].ids) for r in plan.requests}
    sought = sum(spellings[r] for r in state.sought)
    want(
        event.spellings in (sought, sum(spellings.values())),
        "a scan for every spelling of the ids that was told",
    )
    want(event.files > 0, "a search of files")
    want(all(getattr(event, k) >= 0 for k in events.SCAN_COUNTS), "what was searched")


def _certify(
    state: State,
    plan: ErasurePlan,
    event: events.Certified,
) -> None:
    del event
    want(all(r in state.certified for r in plan.requests), "a certificate for every request")


_OUTCOMES: dict[str, Callable[[State, ErasurePlan, Any], None]] = {
    "cut over": _cut_over,
    "rewrite": _rewritten,
    "destroy": _destroyed,
    "scan": _scanned,
    "certify": _certify,
}


def deferred(state: State, event: events.RequestsDeferred) -> None:
    """That nobody had a row of whom the requests ask."""
    plan = _check_left_out(state, event, "destroy")
    for request in event.requests:
        found = plan.rows[request].known or plan.subjects.get(request)
        want(not found, "requests of which no row was found")


def uncertified(state: State, event: events.RequestsUncertified) -> None:
    """That an erasure has destroyed, and that the requests are its own."""
    plan = _check_left_out(state, event, "measure")
    want(set(event.waiting) <= set(event.requests), "requests that wait among those set aside")
    found = set(event.requests) - set(event.waiting)
    want(bool(event.left) or not found, "the files in which something was found")
    before = state.uncertified.get(event.plan_id)
    gathered = plan.texts + (before.plan.plan.texts if before else 0)
    for texts in (event.texts, event.texts_of_others):
        want(0 <= texts <= gathered, "how many texts were gathered")


def _check_left_out(
    state: State,
    event: events.RequestsDeferred | events.RequestsUncertified,
    after: str,
) -> ErasurePlan:
    """That requests of the open erasure are left out of it after that step. Returns the plan."""
    plan, requests = plan_of(state), event.requests
    want(event.plan_id == plan.plan_id, "the erasure that is open")
    want(after in state.steps, "an open erasure that has destroyed")
    want(len(set(requests)) == len(requests) > 0, "at least one request, each once")
    for request in requests:
        want(request in state.planned, "requests of the erasure that is open")
        want(state.is_open(request), "requests that have no document yet")
    return plan


def resumed(state: State, event: events.ErasureResumed) -> None:
    """That the erasure waits for its certificates."""
    no_erasure(state)
    want(state.moving is None, "no move that was begun")
    want(event.plan_id in state.uncertified, "an erasure without its certificates")


def certified(state: State, event: events.RequestCertified) -> None:
    """That the search is done."""
    request = event.request
    want(
        request in state.planned and "scan" in state.steps,
        "a request of an open erasure whose scan is done",
    )
    want(state.is_open(request), "a request that has no document yet")
    want(not state.keeps(request), "no other request of the same person that is found again")
    want(DIGEST.fullmatch(event.certificate) is not None, "the digest of the certificate")
