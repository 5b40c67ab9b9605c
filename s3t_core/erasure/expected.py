"""What the ledger's rules expect of a state, and the refusal of an event that does not follow."""

import re
from collections.abc import Iterable

from s3t_core.erasure.plan import ErasurePlan
from s3t_core.erasure.state import State

DIGEST = re.compile(r"[0-9a-f]{64}")


class NotAllowed(ValueError):
    """The event does not follow from the state; the message says what was expected."""


def want(holds: bool, expected: str) -> None:
    """Raises NotAllowed, with what was expected, where it does not hold."""
    if not holds:
        raise NotAllowed(f"expected {expected}")


def no_erasure(state: State) -> None:
    """That no erasure is open."""
    want(state.plan is None, "no erasure that is open")


def plan_of(state: State) -> ErasurePlan:
    """The plan of the open erasure."""
    if state.plan is None:
        raise NotAllowed("expected an erasure that is open")
    return state.plan.plan


def open_and_waiting(state: State, request: str) -> None:
    """That a request is open, and no erasure has begun to carry it out."""
    want(state.is_open(request), "a request that is open")
    want(request not in state.begun, "a request that is not being carried out")


def versions_are_there(state: State, versions: Iterable[str]) -> None:
    """That the versions were registered, and are not destroyed."""
    want(
        set(versions) <= {v.version for v in state.versions if not v.destroyed},
        "versions that are there",
    )
