"""Erase: carry out every pending deletion request (s3t_core.erasure.executor), step by step.

When a batch would spend the deletion-rate budget and its deadlines allow, its replacement is
trained first. Else, when the budget is spent, the full retrain is triggered, or runs in this
process (flows/use_cases/retraining.py); what is left of the ensemble keeps serving meanwhile.
"""

import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Protocol

from flows.adapters.locks import is_held
from flows.progress import current
from flows.use_cases.documents import Certified, ErasureDocument, Waiting
from flows.use_cases.finding import Findable, erased_in, erased_of, look_alikes
from flows.use_cases.intakes import open_sealed
from flows.use_cases.reconciling import healing_a_lost_lease, reconcile, unserved
from flows.use_cases.replacing import train_first
from flows.use_cases.retraining import RetrainFlow, have_retrained, want_retrain
from flows.use_cases.steps import Steps
from flows.use_cases.training_case import Trainable
from flows.workspace import access
from flows.workspace.change import Change
from flows.workspace.composing import Erasable, erase_policy, erase_ports
from flows.workspace.sweeping import sweep
from flows.workspace.verified import (
    Verifiable,
    check_whole,
    refuse_over_lost_ends,
)
from s3t_core.erasure.closing import view_of
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.ledger import as_of
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.erasure.state import State
from s3t_core.erasure.urgency import why_at_once
from s3t_core.erasure.vocabulary import STEPS
from s3t_core.errors import RequestsLeftOpen
from s3t_core.identity import EXACT
from s3t_core.times import rfc3339

_WAIT_SECONDS = 600
"""How long an erase run waits for a training that is writing: it writes for seconds, now and
then."""

_SPINNERS = {
    "cut over": "Cutting over to a version without the tainted stages",
    "rewrite": "Rewriting the data",
    "destroy": "Destroying what is tainted",
    "measure": "Measuring the new version",
    "scan": "Scanning for residue",
    "certify": "Writing certificates",
}


class Carried(Trainable, Erasable, Findable, Verifiable, Protocol):
    """What requests are carried out in."""


def why_erase_now(workspace: Carried) -> str:
    """Why an erase run should start before its schedule, else ""; "" too while somebody changes the
    workspace. Waits for nobody."""
    if is_held(workspace.lock_path):
        return ""
    erasure, state = workspace.config.erasure, workspace.ledger.state()
    return why_at_once(
        state,
        workspace.requests.pending(state),
        workspace.clock.now(),
        erasure.at_once_hours,
        erasure.needs_approval,
        can_train=not is_held(workspace.training_lock_path),
    )


def erase_pending(
    workspace: Carried, wait_seconds: float, steps: Steps, full_retrain: RetrainFlow
) -> ErasureDocument:
    """Erase everything pending; retrain when the budget is spent. Waits so long for another command
    that changes the workspace, and for a training that is writing in any case. Raises
    RequestsLeftOpen once all is done that could be, ResidueFound where the scan stops an
    erasure."""
    started = time.monotonic()
    training = _WAIT_SECONDS if is_held(workspace.training_lock_path) else 0
    with (
        healing_a_lost_lease(workspace.root),
        access.changing(workspace, max(wait_seconds, training)) as held,
    ):
        workspace.signing.signing_key()  # what it begins it can end
        sweep(workspace, held)
        documents = check_whole(workspace)
        # else what nobody may carry out yet is received anew with each look
        workspace.ledger.put_clock_right(workspace.now())
        refuse_over_lost_ends(workspace, held)
        healed = reconcile(workspace, held)
        open_sealed(workspace)
        eraser = Eraser(
            erase_ports(workspace, held),
            erase_policy(workspace),
            lambda: f"plan-{uuid.uuid4().hex[:16]}",
        )
        run = _Run(workspace, held, steps, eraser)
        plans = list(run.plans())
        problems = [
            *run.problems,
            healed.problem or unserved(workspace),
            *documents.sentences(),
            want_retrain(workspace, held),
        ]
        workspace.signing.write_checkpoint()
    outcome, reason = have_retrained(workspace, steps, full_retrain)
    if outcome == "no" and any(p.recipe for p in plans):
        outcome = "first"
    problem = "; ".join(p for p in [*problems, reason] if p)
    _show_budget(workspace, outcome, problem, steps)
    state = workspace.ledger.state()
    carried_out = [r for plan in plans for r in plan.requests if r in state.certified]
    done: ErasureDocument = {
        "version": state.champion.version if state.champion else None,
        "certificates": _closed(workspace, state, carried_out, run.alike),
        "deactivated": len({s.key for plan in plans for s in plan.deactivated}),
        "seconds": round(time.monotonic() - started, 1),
        "retrain": outcome,
        "problem": problem,
        "found_outside": list(eraser.outside),
        "stale_exports": [e.export for e in state.exports.values() if e.stale],
        "ids_lost": sum(eraser.ids_lost),
        "documents": asdict(documents),
        "healed": asdict(healed),
        "waiting": what_waits(workspace, state),
    }
    waiting = {r: why for r, why in eraser.uncertified.items() if state.is_open(r)}
    left_open = list(dict.fromkeys(waiting.values()))
    left_open += [render_deferred(eraser.deferred)] if eraser.deferred else []
    if left_open:
        raise RequestsLeftOpen("\n".join(left_open), dict(done))
    return done


def render_deferred(found_in: Mapping[str, tuple[str, ...]]) -> str:
    """What is told of requests that stay open."""
    files = sorted({name for names in found_in.values() for name in names})
    if not files:
        return (
            f"expected to look once more for what {len(found_in)} deferred request(s) ask for, got "
            f"no search that could be done: they stay open ({', '.join(sorted(found_in)[:5])}). "
            "Run `s3t erase` again when what it told of is put right"
        )
    return (
        "expected an id that no row in the data has to stand nowhere else either, got "
        f"{len(found_in)} request(s) by such ids, which stand in {len(files)} file(s): "
        f"{', '.join(files[:5])}. They stay open ({', '.join(sorted(found_in)[:5])}); everything "
        "else is carried out. Where somebody's data was put there, remove it, then run `s3t erase` "
        "again; Prefect's own records, in .s3t/prefect, go with `s3t stop --forget`. Where it is "
        "no person's id, `s3t reject` the request, or `s3t withdraw` it for who asked"
    )


def _closed(
    workspace: Carried, state: State, done: list[str], alike: dict[str, frozenset[str]]
) -> list[Certified]:
    """What each request came to. `others`: how many people in the data have an id spelt nearly so,
    and stay, None where nobody can say; `erased_before`: what erased who was not there any more."""
    gone = {r.subject for r in (state.requests[i] for i in done) if not r.record}
    before, certified = erased_in(state), list[Certified]()
    for request in done:
        (outcome, rows), asked = state.outcomes[request], state.requests[request]
        nobody, exact = outcome == "nothing found", EXACT in asked.id_rule
        near = alike.get(request)
        others = None if near is None else 0 if exact and not nobody else len(near - gone)
        erased = erased_of(before, asked) if nobody else None
        certified.append(
            {
                "request": request,
                "outcome": outcome,
                "rows": rows,
                "path": str(workspace.certificates_dir / f"{request}.json"),
                "others": others,
                "erased_before": {"request": erased.request, "time": erased.time}
                if erased
                else None,
            }
        )
    return certified


@dataclass
class _Run:
    """What one run erases, under the lock. `problems`: why no replacement was trained; `alike`: who
    is spelt nearly as it was asked, by request."""

    workspace: Carried
    held: Change
    steps: Steps
    eraser: Eraser
    problems: list[str] = field(default_factory=list)
    alike: dict[str, frozenset[str]] = field(default_factory=dict)

    def plans(self) -> Iterator[ErasurePlan]:
        """Plan after plan until nothing is pending: an interrupted one first, then what came
        since."""
        while True:
            with current().spinner("Planning"):
                plan = self.steps.run("plan", self._planned)
            if plan is None:
                return
            if plan.release is not None:
                self.workspace.runner.begin()  # what serves after it is measured
            asked = self.workspace.requests.get(plan.requests)
            self.alike |= look_alikes(self.workspace, asked)  # while the ids as given are there
            for step in STEPS:
                self.held.check()
                with current().spinner(_SPINNERS[step]):
                    self.steps.run(step, partial(self.eraser.run_step, step, plan))
            yield plan

    def _planned(self) -> ErasurePlan | None:
        draft = self.eraser.draft()
        if draft is None:
            return None
        first = None
        if not draft.is_begun:
            first = train_first(self.workspace, self.held, self.problems, self.steps, draft.plan)
        plan = self.eraser.begin(draft, first)
        open_sealed(self.workspace)  # no other spelling of an id is taken from now on
        return plan


def what_waits(workspace: Carried, state: State) -> list[Waiting]:
    """Open requests that no erase run may carry out: held, or not approved yet."""
    needs, now = workspace.config.erasure.needs_approval, workspace.clock.now()
    state = as_of(state, rfc3339(now))
    views = [view_of(r, state, needs, now) for r in workspace.requests.pending(state)]
    return [
        {"request": v.request.request_id, "state": v.state, "due": v.request.due} for v in views
    ]


def _show_budget(workspace: Carried, outcome: str, problem: str, steps: Steps) -> None:
    """The budget, on the page of this run. Numbers only."""
    state = workspace.ledger.state()
    budget = workspace.budget.document(state)
    if budget is None:
        return
    row = {
        "version": state.champion.version if state.champion else "",
        "policy": budget["policy"],
        "exhausted": budget["exhausted"],
        "live depths": " ".join(map(str, budget["live_depths"])),
        "certain requests left": budget["certain_requests_left"],
        "full retrain": outcome,
    }
    expected = workspace.budget.forecast(state)
    if expected:
        row |= {f"expected requests left ({k})": v for k, v in expected["requests"].items()}
        row |= {f"expected until ({k})": v for k, v in (expected["dates"] or {}).items()}
    text = problem or (
        "The deletion-rate budget after this erase run. Expected numbers come from a simulation of "
        "the present state."
    )
    steps.show("deletion-budget", [row], text)
