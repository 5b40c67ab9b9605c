"""The full retrain: train on the remaining data beside the serving version, register, move the
alias.

It is filling in what is missing, so every stage whose inputs did not change is re-used. An erase
run that spends the budget records in the ledger that a full retrain is wanted, and then has it run
exactly once: by the `full-retrain` deployment where an orchestrator has one (the idempotency key
is the ledger's, so a rerun after a crash triggers no second run), else in its own process. It stays
wanted until a training registers a version or finds nothing missing.
"""

import contextlib
import uuid
from typing import Any, Protocol

from flows.use_cases.steps import AS_THEY_STAND, Steps
from flows.use_cases.training import TrainReport, fill_in
from flows.use_cases.training_case import Trainable
from flows.workspace import access
from flows.workspace.change import Change
from flows.workspace.parts import HasBudget, HasLedger
from s3t_core.erasure import events
from s3t_core.erasure.vocabulary import RetrainState
from s3t_core.errors import Busy, S3TError, StorageError
from s3t_core.learning.training_plan import is_complete

_WAIT_SECONDS = 3600.0


class Budgeted(HasLedger, HasBudget, Protocol):
    """What tells whether the budget is spent."""


class RetrainFlow(Protocol):
    """A flow that somebody else carries out when it is asked for."""

    def is_carried_out(self) -> bool:
        """Whether there is one, and somebody who runs it."""

    def begin(self, once: str, parameters: dict[str, object]) -> str:
        """Ask for a run, whose id is returned. The same `once` again is the same run."""

    def has_ended(self, run: str) -> bool:
        """Whether a run is over, or not known any more."""


def run_retrain(
    workspace: Trainable,
    wait_for_training: float = 0,
    wait_for_change: float = 0,
    steps: Steps = AS_THEY_STAND,
) -> TrainReport:
    """Fill in; when that fails and a retrain is wanted, the ledger says that it failed."""
    try:
        return fill_in(workspace, "retrain", wait_for_training, wait_for_change, steps)
    except Busy:
        raise  # another training is at it
    except S3TError as error:
        with contextlib.suppress(Busy, StorageError), access.changing(workspace, 60):
            wanted = workspace.ledger.state().retrain
            if wanted is not None:
                _say(workspace, wanted, "failed", problem=type(error).__name__)
        raise


# --- wanting and having it run


def want_retrain(workspace: Budgeted, held: Change) -> str:
    """Record that a full retrain is wanted when the budget is spent. Returns why none is of use
    although it is spent, else ""."""
    held.require()
    state = workspace.ledger.state()
    budget = workspace.budget.document(state)
    if state.retrain is not None or budget is None or not budget["exhausted"]:
        return ""
    if state.dataset is None or state.dataset.rows() == 0:
        return "the budget is spent, and no records are left to train on"
    if state.release and is_complete(state.release, state.dataset):
        return (
            f"the budget ({budget['policy']}) is spent although no stage is missing: a retrain "
            "would give the same version; change [deletion_budget] or the data"
        )
    workspace.ledger.append(
        events.RetrainChanged(
            time=workspace.now(),
            id=f"retrain-{uuid.uuid4().hex[:16]}",
            attempt=1,
            state="wanted",
            reason=budget["policy"],
        )
    )
    return ""


def have_retrained(
    workspace: Trainable, steps: Steps, full_retrain: RetrainFlow
) -> tuple[str, str]:
    """See to a wanted retrain, without the workspace lock. Returns (outcome, problem).

    "no": none is wanted. "triggered": the deployment runs or will. "running": another process
    trains. "done", "failed": it ran here; what is left of the ensemble keeps serving, and the next
    erase tries again.
    """
    wanted = workspace.ledger.state().retrain
    if wanted is None:
        return "no", ""
    deployed = False
    try:
        deployed = full_retrain.is_carried_out()
        if deployed:
            _trigger(workspace, full_retrain)
            return "triggered", ""
        run_retrain(workspace, wait_for_change=_WAIT_SECONDS, steps=steps)
    except Busy:
        return (
            ("failed", "the workspace was busy, so it was not triggered")
            if deployed
            else ("running", "")
        )
    except S3TError as error:
        return "failed", str(error)
    except Exception as error:  # the erasure is complete: whatever is raised, that must be told
        return "failed", f"it could not be started ({type(error).__name__})"
    return "done", ""


def _trigger(workspace: Trainable, full_retrain: RetrainFlow) -> None:
    """Start the deployment for what is wanted, once per attempt."""
    with access.changing(workspace, 60):
        wanted = workspace.ledger.state().retrain
        if wanted is None:
            return
        if wanted.state == "triggered" and not full_retrain.has_ended(wanted.flow_run):
            return
        if wanted.state in ("triggered", "failed"):
            _say(workspace, wanted, "wanted", attempt=(wanted.attempt or 0) + 1)
            wanted = workspace.ledger.state().retrain or wanted
        run = full_retrain.begin(
            f"{wanted.id}:{wanted.attempt}",
            {"workspace": str(workspace.root), "wait_seconds": _WAIT_SECONDS},
        )
        _say(workspace, wanted, "triggered", flow_run=run)


def _say(
    workspace: Trainable, wanted: events.RetrainChanged, state: RetrainState, **more: Any
) -> None:
    named = {"id": wanted.id, "attempt": wanted.attempt} | more
    workspace.ledger.append(
        events.RetrainChanged(
            time=workspace.now(),
            state=state,
            **named,
        )
    )
