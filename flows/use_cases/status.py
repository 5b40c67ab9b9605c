"""What serves, what is pending, what is left of the budget: read from the ledger and the request
book alone. And, which takes longer, whether the registry agrees."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Protocol

from flows.use_cases.documents import StatusDocument, score_entry
from flows.use_cases.exporting import list_exports
from flows.use_cases.next_steps import why_unmeasured
from flows.workspace.parts import HasBudget, HasConfig, HasRegistry
from flows.workspace.verified import Verifiable, document_problems
from s3t_core.erasure.closing import as_recorded, view_of
from s3t_core.erasure.ledger import as_of
from s3t_core.erasure.state import State
from s3t_core.errors import S3TError
from s3t_core.times import rfc3339


class Watched(HasConfig, Verifiable, HasRegistry, HasBudget, Protocol):
    """What tells how a workspace stands."""


def _budget(workspace: Watched, state: State) -> dict[str, object]:
    budget = workspace.budget.document(state)
    if budget is None:
        return {"policy": workspace.config.deletion_budget.policy, "exhausted": False}
    return {**budget, "forecast": workspace.budget.forecast(state)}


UNASKED = "it could not be asked"


def registry_problems(workspace: Watched) -> list[str]:
    """What the registry says otherwise than the ledger, or why it could not be asked; nothing is
    changed."""
    state = workspace.ledger.state()
    if not state.versions:
        return []
    serving = state.champion.version if state.champion and not state.champion.destroyed else ""
    try:
        with _briefly():
            return list(workspace.registry.differences(state.versions, serving))
    except S3TError as error:
        return [f"{UNASKED}: {error}"]


@contextlib.contextmanager
def _briefly() -> Iterator[None]:
    """A server that does not answer is not waited for, as a change of it is."""
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if before[name] is None})
    try:
        yield
    finally:
        for name in (n for n, value in before.items() if value is None):
            os.environ.pop(name, None)


def status_of(workspace: Watched) -> StatusDocument:
    """The status document: JSON values."""
    now = workspace.clock.now()
    state = as_of(workspace.ledger.state(), rfc3339(now))
    workspace.requests.check()
    documents = document_problems(workspace)
    champion = state.champion
    release = state.release
    return {
        "name": workspace.config.system.name,
        "version": champion.version if champion else None,
        "accuracy": champion.accuracy if champion else None,
        "score": score_entry(champion.score if champion else None),
        "unmeasured": why_unmeasured(state, workspace.config),
        "dataset_version": state.dataset.version if state.dataset else None,
        "records": state.dataset.rows() if state.dataset else 0,
        "held_out": state.dataset.held_out.rows if state.dataset else 0,
        "shards": [
            {
                "shard": shard,
                "live_depth": release.live_depth(shard),
                "replicas": [
                    {"sequence": list(r.sequence), "depth": r.depth}
                    for r in release.replicas
                    if r.shard == shard
                ],
            }
            for shard in release.shards()
        ]
        if release
        else [],
        "pending": [
            {
                "id": r.request_id,
                "received": r.received,
                "due": r.due,
                "state": view_of(r, state, workspace.config.erasure.needs_approval, now).state,
            }
            for r in (as_recorded(p, state) for p in workspace.requests.pending(state))
        ],
        "documents": {kind: list(found) for kind, found in asdict(documents).items()},
        "certified": len(state.certified),
        "withdrawn_or_rejected": len(state.closed),
        "full_retrain": {"state": state.retrain.state, "time": state.retrain.time}
        if state.retrain
        else None,
        "exports": list_exports(state),
        "interrupted_erasure": state.plan is not None,
        "deletion_budget": _budget(workspace, state),
        "ledger": {"size": workspace.ledger.head().size, "root": workspace.ledger.head().root},
    }
