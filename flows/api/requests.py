"""Requests at the door: taken, listed, decided on."""

import base64
import binascii
import json
from collections.abc import Callable
from functools import partial
from typing import Annotated, cast, get_args

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from flows.adapters.tokens import Token
from flows.api.bodies import (
    Accepted,
    Ask,
    Extension,
    Held,
    Hold,
    Lifted,
    Page,
    Rejection,
    RequestShown,
    Return,
    State,
    Subject,
)
from flows.api.callers import learns_outcomes, may_know_who, whoever
from flows.api.desk import Desk
from flows.api.once import OnceRoute
from flows.api.problems import Refused
from flows.use_cases import requests as use_cases
from flows.use_cases.documents import PersonFound, RequestDocument, RequestEntry, RequestListed
from flows.use_cases.finding import people_found
from flows.use_cases.history import request_document
from flows.use_cases.taking import Asked, Taken
from flows.workspace.workspace import Workspace
from s3t_core.erasure.outcome import ErasureOutcome
from s3t_core.erasure.vocabulary import ClosingKind

router = APIRouter(tags=["requests"], route_class=OnceRoute)

Asks = Annotated[Token, Depends(whoever("asks"))]
Decides = Annotated[Token, Depends(whoever("decides"))]
Withdraws = Annotated[Token, Depends(whoever("asks", "decides"))]
Erases = Annotated[Token, Depends(whoever("erases"))]
Lists = Annotated[Token, Depends(whoever("decides", "erases", "audits", learns=True))]
Looks = Annotated[Token, Depends(whoever("asks", "decides", "erases", "audits"))]
RequestId = Annotated[
    str, Path(pattern="^req-[0-9a-f]{16}$", description="as it was told when it was accepted")
]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=200,
        description="a key of yours: asked again with it, the request is the same one, also when "
        "it is closed",
    ),
]


def desk_of(request: Request) -> Desk:
    """Who works behind the door."""
    desk: Desk = request.app.state.desk
    return desk


Desks = Annotated[Desk, Depends(desk_of)]


@router.post(
    "/requests",
    status_code=201,
    responses={200: {"model": Accepted, "description": "each of them stood before"}},
)
async def ask(
    body: Ask,
    token: Asks,
    desk: Desks,
    response: Response,
    idempotency_key: Key = None,
) -> Accepted:
    """Take deletion requests. They, and a signed checkpoint of them, are durable before this is
    answered: 201 where one is new, 200 where each stood before, 409 where the key stands for
    requests of which each was withdrawn or rejected, or carried out and lifted since (of one among
    others, its state says it)."""
    asked = Asked(tuple(body.subjects), tuple(body.hashed), body.record, idempotency_key or "")
    taken, tells = await desk.take(asked), may_know_who(token)
    if all(map(_is_spent, taken.entries)):
        raise Refused(
            409,
            "KeyIsSpent",
            "expected a key whose request is open, got one whose request was withdrawn or "
            "rejected, or carried out and lifted since, so nothing of it is pending. Ask anew with "
            "another key",
        )
    if len(taken.before) == len(taken.requests):
        response.status_code = 200
    return {
        "requests": [*(taken.entries if tells else map(_for_whoever_asks, taken.entries))],
        "open_before": taken.open_before,
        "found": await desk.read(partial(_found, asked=asked, taken=taken), tells)
        if tells
        else None,
    }


def _is_spent(entry: RequestEntry) -> bool:
    return entry["state"] in get_args(ClosingKind) or entry.get("lifted", False)


def _for_whoever_asks(entry: RequestEntry) -> RequestEntry:
    """Not whether an erasure found anything, nor what was decided since."""
    return {
        "id": entry["id"],
        "received": entry["received"],
        "due": entry["due"],
        "state": _coarse(entry["state"]),
    }


def _found(workspace: Workspace, asked: Asked, taken: Taken) -> list[PersonFound]:
    """Who of them is in the data."""
    ids = [each["id"] for each in taken.entries]
    return people_found(workspace, list(asked.subjects), asked.hashed, asked.record, ids)


@router.get("/requests")
async def list_requests(
    token: Lists,
    desk: Desks,
    state: Annotated[State | None, Query()] = None,
    due_within: Annotated[float | None, Query(ge=0, le=36600)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str, Query(max_length=300)] = "",
) -> Page:
    """Requests of a state, or due within so many days, page by page."""
    after = _place_of(cursor)
    found = await desk.read(
        lambda w: use_cases.list_some_requests(w, state or "", due_within, after, limit + 1)
    )
    page = found[:limit]
    shown = [_shown(r, token) for r in page]
    return {"requests": shown, "next": _cursor(page[-1]) if len(found) > limit else None}


@router.get("/requests/{request_id}")
async def show(
    request_id: RequestId,
    token: Looks,
    desk: Desks,
) -> RequestShown:
    """One request, with what happened to it."""
    return _shown(await desk.read(lambda w: request_document(w, request_id)), token)


@router.post("/requests/{request_id}/approve")
async def approve(
    request_id: RequestId,
    token: Decides,
    desk: Desks,
) -> RequestShown:
    """Let it be carried out, where [erasure] needs_approval asks for it."""
    return await _decided(
        desk, request_id, token, lambda w: use_cases.approve(w, [request_id], token.name)
    )


@router.post("/requests/{request_id}/withdraw")
async def withdraw(
    request_id: RequestId,
    token: Withdraws,
    desk: Desks,
) -> RequestShown:
    """Close it because whoever asked took it back."""
    return await _decided(
        desk, request_id, token, lambda w: use_cases.withdraw(w, request_id, token.name)
    )


@router.post("/requests/{request_id}/reject")
async def reject(
    request_id: RequestId,
    body: Rejection,
    token: Decides,
    desk: Desks,
) -> RequestShown:
    """Close it without an erasure, on a legal basis, in a signed document."""
    return await _decided(
        desk,
        request_id,
        token,
        lambda w: use_cases.reject(w, request_id, body.basis, body.reason, token.name),
    )


@router.post("/requests/{request_id}/extend")
async def extend(
    request_id: RequestId,
    body: Extension,
    token: Decides,
    desk: Desks,
) -> RequestShown:
    """Give it one or two more months, once, before it is due (GDPR article 12(3)). Telling whoever
    asked, with the reason, is yours."""

    def act(workspace: Workspace) -> None:
        use_cases.extend(workspace, request_id, body.reason, token.name, body.months)

    return await _decided(desk, request_id, token, act)


@router.post("/holds")
async def hold(
    body: Hold,
    token: Decides,
    desk: Desks,
) -> Held:
    """A legal hold: no erasure of this subject until it is released."""

    def act(workspace: Workspace) -> int:
        return use_cases.hold(workspace, body.subject, body.basis, body.reason, token.name)

    return {"held": True, "waiting": await desk.decide(act, may_know_who(token))}


@router.post("/holds/release")
async def release(
    body: Subject,
    token: Decides,
    desk: Desks,
) -> Held:
    """End a legal hold: what was asked for is carried out by the next erase run."""
    await desk.decide(
        lambda w: use_cases.lift_hold(w, body.subject, token.name), may_know_who(token)
    )
    return {"held": False, "waiting": 0}


@router.post("/returns")
async def lift(
    body: Return,
    token: Erases,
    desk: Desks,
) -> Lifted:
    """Take a person who returned, or one record, off the suppression list: later ingests may hold
    them again."""
    await desk.decide(
        lambda w: use_cases.lift(w, body.subject, body.record, token.name), may_know_who(token)
    )
    return {"lifted": True}


async def _decided(
    desk: Desk,
    request_id: str,
    token: Token,
    act: Callable[[Workspace], None],
) -> RequestShown:
    def decide(workspace: Workspace) -> RequestDocument:
        act(workspace)
        return request_document(workspace, request_id)

    return _shown(await desk.decide(decide, may_know_who(token)), token)


def _coarse(state: str) -> str:
    if state in get_args(ErasureOutcome):
        return "closed"
    return "pending" if state in ("deferred", "uncertified") else state


def _shown(
    listed: RequestListed | RequestDocument,
    token: Token,
) -> RequestShown:
    whole = learns_outcomes(token)
    more = cast("RequestDocument", listed) if whole and "history" in listed else None
    return {
        "id": listed["id"],
        "received": listed["received"],
        "due": listed["due"],
        "state": listed["state"] if whole else _coarse(listed["state"]),
        "scope": listed["scope"],
        "days_left": listed["days_left"],
        "extended_from": listed.get("extended_from"),
        "rows": listed["rows"] if whole else None,
        "history": more["history"] if more else None,
        "document_sha256": more["document_sha256"] if more else None,
    }


def _cursor(listed: RequestListed) -> str:
    place = json.dumps(use_cases.place_in_list(listed))
    return base64.urlsafe_b64encode(place.encode()).decode()


def _place_of(cursor: str) -> use_cases.PlaceInList | None:
    """Where the page before ended. Raises Refused for what is no cursor of ours."""
    if not cursor:
        return None
    try:
        closed, due, request_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        if (type(closed), type(due), type(request_id)) != (bool, str, str):
            raise ValueError
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise Refused(
            422, "Malformed", "expected the `next` of a page as its cursor, got another. Begin anew"
        ) from None
    return closed, due, request_id
