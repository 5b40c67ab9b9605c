"""An erasure of a request by whom nobody is found, as the ledger tells of it: what needs neither
DVC nor MLflow."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import insert

from flows.adapters.lease import CHANGE, lock_place
from flows.adapters.tables import LEASE
from flows.workspace import verified
from flows.workspace.workspace import Workspace
from s3t_core.domain import DeletionRequest
from s3t_core.erasure.certificate import certificate_of, certificate_subject
from s3t_core.erasure.events import Scanned
from s3t_core.erasure.vocabulary import Event
from s3t_core.ports import Closing

SCANNED = {
    "files": 1,
    "bytes": 1,
    "spellings": 1,
    "needles": 0,
    "unsearchable": 0,
    "lost": 0,
    "ids_lost": [],
    "shared": 0,
    "outside": 0,
}
OUTCOMES: dict[str, dict[str, Any]] = {
    "cut over": {"moved": "2026-01-01T00:00:00Z", "staleness": 0.0, "offline": 0.0},
    "rewrite": {},
    "destroy": {"stages": [], "versions": [], "objects": [], "quarantined": 0, "activations": 0},
    "measure": {},
    "scan": SCANNED,
    "certify": {},
}


def plan_for(*requests: str, plan_id: str = "p") -> dict[str, Any]:
    """A plan that touches nothing."""
    rows = {"training": 0, "held_out": 0, "earlier": 0, "quarantined": 0}
    return {
        "plan_id": plan_id,
        "time": "2026-01-01T00:00:00Z",
        "requests": list(requests),
        "rows": dict.fromkeys(requests, rows),
        "slices": [],
        "held_out": False,
        "objects": [],
        "deactivated": [],
        "release": None,
        "versions": [],
        "recipe": None,
        "commitments": {},
        "texts": 0,
        "subjects": {},
        "near": {},
    }


def step(place: Workspace, name: str, plan_id: str = "p") -> Event:
    """The event of one step of it."""
    return {"type": "step", "step": name, "plan_id": plan_id, "time": place.now(), **OUTCOMES[name]}


def carry_out(place: Workspace, request: DeletionRequest, plan_id: str = "p") -> str:
    """All of it, with a document on disk; the document's digest."""
    place.ledger.append(
        {
            "type": "planned",
            "time": place.now(),
            "plan": plan_for(request.request_id, plan_id=plan_id),
        }
    )
    place.requests.suppress([request], place.now())
    for name in ("cut over", "rewrite", "destroy", "measure", "scan"):
        place.ledger.append(step(place, name, plan_id))
    state = place.ledger.state()
    assert state.plan is not None
    proof = place.ledger.prove(state.done(Scanned).to_json())
    said = certificate_of(request, state.plan.plan, state, proof, None, place.now(), "", {})
    subject = certificate_subject(state, place.ledger.head())
    digest = place.certificates.issue({request.request_id: said}, subject)[request.request_id]
    place.requests.close(
        [
            Closing(
                request.request_id,
                digest,
                {
                    "type": "certified",
                    "time": place.now(),
                    "request": request.request_id,
                    "certificate": digest,
                },
            )
        ]
    )
    place.ledger.append(step(place, "certify", plan_id))
    place.signing.write_checkpoint()
    return digest


@contextmanager
def killed(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Within it a decision is ended as by a kill: nothing is given back, and nothing taken back."""
    with monkeypatch.context() as patched:
        patched.setattr(verified, "discard_unrecorded", lambda *_: None)
        yield patched
    _, _, lease = (place.state_dir / "ending").read_text().split(" ")
    with place.database.transaction() as connection:
        connection.execute(
            insert(LEASE).values(
                name=CHANGE, holder=lease, place=lock_place(place.lock_path), beat=7
            )
        )
