"""Whoever writes holds the workspace: a hold counts until its block has ended."""

from collections.abc import Callable
from typing import Any

import pytest

from flows.use_cases.ingesting import ingest_source
from flows.use_cases.reconciling import reconcile
from flows.use_cases.retraining import want_retrain
from flows.workspace import access, stores
from flows.workspace.change import Change
from flows.workspace.composing import erase_ports
from flows.workspace.creating import create_workspace
from flows.workspace.sweeping import sweep
from flows.workspace.workspace import Workspace
from s3t_core.config import Config
from s3t_core.errors import WorkspaceError

WRITERS: dict[str, Callable[[Workspace, Change], Any]] = {
    "claim": stores.claim,
    "note_cache": stores.note_cache,
    "pin_settings": stores.pin_settings,
    "note_place": lambda place, held: place.signing.note_place(held),
    "sweep": sweep,
    "reconcile": reconcile,
    "want_retrain": want_retrain,
    "erase_ports": erase_ports,
    "ingest": lambda place, held: ingest_source(place, held, "data.csv", False, 1000),
    "check": lambda _, held: held.check(),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return create_workspace(tmp_path_factory.mktemp("w") / "w", Config(), b"\x01" * 32)


@pytest.mark.slow
@pytest.mark.parametrize("what", sorted(WRITERS))
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_written_under_a_hold_that_has_ended(
    place: Workspace, what: str, fails: bool
) -> None:
    """However its block ended."""
    before = place.ledger.entries()
    with pytest.raises(KeyError if fails else AssertionError), access.changing(place) as held:
        held.check()
        raise KeyError if fails else AssertionError
    with pytest.raises(WorkspaceError, match="expected the workspace to be held"):
        WRITERS[what](place, held)
    assert place.ledger.entries() == before
