"""Why an erase run cannot wait for its schedule."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from s3t_core.domain import DeletionRequest
from s3t_core.erasure.closing import as_recorded, is_ready
from s3t_core.erasure.ledger import correction_of
from s3t_core.erasure.state import State
from s3t_core.times import CLOCK_TOLERANCE, parse_time, rfc3339


def why_at_once(
    state: State,
    pending: Iterable[DeletionRequest],
    now: datetime,
    within_hours: float,
    needs_approval: bool,
    can_train: bool,
) -> str:
    """Why an erase run should start now, in a few words without personal data, else "".

    An erasure is unfinished; a full retrain is wanted and none runs (`can_train`); a request that a
    run could carry out is due within so many hours, or bears a time to come; the clock was put back
    while a request is open, and no entry says so yet, so that it would be received anew with each
    look. What waits for somebody to look at it is no other reason: a run could do nothing.
    """
    if state.plan is not None:
        return f"an erasure is unfinished ({state.plan.plan.plan_id})"
    if state.retrain is not None and state.retrain.state == "wanted" and can_train:
        return "a full retrain is wanted"
    every = list(pending)
    waiting = state.deferred | set(state.set_aside)
    ready = [
        r
        for r in (as_recorded(p, state) for p in every)
        if r.request_id not in waiting and is_ready(r, state, needs_approval)
    ]
    soon = [r for r in ready if (parse_time(r.due) - now) / timedelta(hours=1) <= within_hours]
    if soon:
        return f"{soon[0].request_id} is due {soon[0].due}"
    ahead = [r for r in ready if parse_time(r.received) - now > CLOCK_TOLERANCE]
    if ahead:
        return f"{ahead[0].request_id} bears a time to come: the clock was put back"
    return "the clock was put back" if every and correction_of(state, rfc3339(now)) else ""
