"""The key that signs is lost while people wait to be erased: nothing is begun that it cannot end,
and what was begun is ended by another key, on the record (edges B5)."""

from collections.abc import Callable

import pytest

from flows.adapters.keys import SIGNING_KEY, SIGNING_PUB
from flows.prefect_flows.erase import erase
from flows.use_cases.rotating import rotate_signing_key
from flows.use_cases.taking import take_requests
from flows.use_cases.verifying import verify_path
from flows.workspace.workspace import Workspace
from s3t_core.erasure import executor
from s3t_core.erasure.executor import Eraser
from s3t_core.erasure.plan import ErasurePlan
from s3t_core.erasure.state import State
from s3t_core.erasure.vocabulary import STEPS
from s3t_core.errors import WorkspaceError
from tests.flows.conftest import CANARY

pytestmark = pytest.mark.slow


class Cut(BaseException):
    """The process died here."""


def _lost(place: Workspace) -> Workspace:
    (place.keys_dir / SIGNING_KEY).unlink()
    return Workspace(place.root)


def _is_erased_by_another_key(place: Workspace, request: str) -> None:
    with pytest.raises(WorkspaceError, match="rotate-key --lost"):
        erase(str(place.root))
    rotate_signing_key(Workspace(place.root), "security", lost=True)
    done = erase(str(place.root))
    after = Workspace(place.root)
    assert done["certificates"] and request in after.ledger.state().certified
    certificate = after.certificates_dir / f"{request}.json"
    assert verify_path(certificate, after.keys_dir / SIGNING_PUB)["valid"]


def test_an_erasure_without_the_key_begins_nothing(trained: Callable[..., Workspace]) -> None:
    place = trained(canary=True)
    [asked] = take_requests(place, [CANARY])
    place = _lost(place)
    before = place.ledger.events()
    with pytest.raises(WorkspaceError, match="rotate-key --lost"):
        erase(str(place.root))
    assert Workspace(place.root).ledger.events() == before
    _is_erased_by_another_key(place, asked.request_id)


@pytest.mark.long_but_first
@pytest.mark.parametrize("step", [STEPS[0], STEPS[2], STEPS[-1], "certified, not closed"])
def test_a_key_lost_while_an_erasure_is_open_is_replaced_and_that_ends_it(
    trained: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    place = trained(canary=True)
    [asked] = take_requests(place, [CANARY])

    def cut(eraser: Eraser, plan: ErasurePlan, state: State) -> None:
        raise Cut

    with monkeypatch.context() as patched, pytest.raises(Cut):
        if step in STEPS:
            patched.setitem(executor._ACTIONS, step, cut)
        else:  # the document is there, and the ledger knows nothing of it

            def unclosed(*_: object) -> None:
                raise Cut

            patched.setattr(type(place.requests), "close", unclosed)
        erase(str(place.root))
    assert Workspace(place.root).ledger.state().plan is not None
    _is_erased_by_another_key(_lost(place), asked.request_id)
