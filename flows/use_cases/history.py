"""One request with what happened to it, and the versions there were: read from the ledger."""

from collections.abc import Iterator

from flows.use_cases.documents import HistoryEntry, RequestDocument, VersionEntry, score_entry
from flows.use_cases.requests import list_requests, require_request
from flows.use_cases.taking import Asking
from s3t_core.canonical import sha256_hex
from s3t_core.erasure import events
from s3t_core.erasure.event_reader import from_json
from s3t_core.erasure.state import State
from s3t_core.errors import CertificateError, NotThere
from s3t_core.files import read_regular

_SHOWN = ("cut over", "destroy")
"""Steps of an erasure that are of note to who asked."""


def request_document(
    workspace: Asking,
    request_id: str,
) -> RequestDocument:
    """One request, with its history. Raises NotThere for an id that is none's."""
    require_request(workspace, request_id)
    listed = next(r for r in list_requests(workspace) if r["id"] == request_id)
    state = workspace.ledger.state()
    return {
        **listed,
        "history": list(_history(workspace, request_id, state)),
        "document_sha256": state.documents.get(request_id),
    }


def closing_document(
    workspace: Asking,
    request_id: str,
) -> bytes:
    """The signed document that closed a request, as the ledger recorded it. Raises NotThere for an
    open one, CertificateError where the file is not what was recorded."""
    require_request(workspace, request_id)
    recorded = workspace.ledger.state().documents.get(request_id)
    if recorded is None:
        raise NotThere(
            f"expected a request that is closed, got {request_id}, which is open; its document "
            "comes with its end: ask again after the next `s3t erase`"
        )
    try:
        found = read_regular(workspace.certificates_dir / f"{request_id}.json")
    except OSError:
        found = b""
    if sha256_hex(found) != recorded:
        raise CertificateError(
            f"expected the closing document of {request_id} as the ledger recorded it, got "
            f"{'another' if found else 'none'}; restore .s3t/certificates from its backup"
        )
    return found


def versions_of(state: State) -> list[VersionEntry]:
    """Every model version, newest first."""
    return [
        {
            "version": v.version,
            "release": v.release.release_id,
            "cause": v.cause,
            "served_from": v.time,
            "served_until": v.superseded or None,
            "destroyed": v.destroyed,
            "combine": v.combine,
            "score": score_entry(v.score),
        }
        for v in reversed(state.versions)
    ]


def _history(
    workspace: Asking,
    request_id: str,
    state: State,
) -> Iterator[HistoryEntry]:
    asked = state.requests[request_id]
    carried, has_come = "", False
    for entry in workspace.ledger.events():
        event = from_json(entry)
        if isinstance(event, events.ErasurePlanned):
            carried = event.plan.plan_id if request_id in event.plan.requests else ""
            is_shown = bool(carried)
        elif isinstance(event, events.StepDone):
            is_shown = bool(carried) and event.step in _SHOWN
        elif isinstance(event, events.HoldSet | events.HoldReleased):
            is_shown = has_come and event.subject == asked.subject
        else:
            is_shown = _is_about(event, request_id)
        has_come = has_come or is_shown
        if is_shown:
            yield _entry(event)


def _is_about(
    event: events.LedgerEvent,
    request_id: str,
) -> bool:
    """Whether it names the request, alone or among others."""
    named = getattr(event, "request", None)
    return named == request_id or request_id in getattr(event, "requests", ())


def _entry(event: events.LedgerEvent) -> HistoryEntry:
    step, state = getattr(event, "step", ""), getattr(event, "state", "")
    return {
        "time": event.time,
        "event": " ".join(filter(None, (event.type, step, state))),
        "by": getattr(event, "by", ""),
        "detail": _detail(event),
    }


def _detail(event: events.LedgerEvent) -> str:
    if isinstance(event, events.DeadlineExtended):
        return f"due {event.due}: {event.reason}"
    if isinstance(event, events.RequestClosed):
        return ", ".join(filter(None, (event.kind, event.basis)))
    if isinstance(event, events.HoldSet):
        return f"{event.basis}: {event.reason}"
    return ""
