"""How the workspace stands: status, forecast, versions; and `plan` as a question."""

from typing import Annotated

from fastapi import APIRouter, Depends

from flows.adapters.tokens import Token
from flows.api.bodies import JsonObject, PlanAsked, Versions
from flows.api.callers import whoever
from flows.api.once import OnceRoute
from flows.api.requests import Desks
from flows.use_cases import planning
from flows.use_cases.documents import TokenEntry
from flows.use_cases.history import versions_of
from flows.use_cases.status import status_of
from flows.use_cases.tokens import token_entry
from flows.workspace.workspace import Workspace

router = APIRouter(tags=["standing"], route_class=OnceRoute)

WATCHES = [Depends(whoever("decides", "erases", "audits", learns=True))]
Anybody = Annotated[Token, Depends(whoever())]


@router.get("/status", dependencies=WATCHES)
async def status(desk: Desks) -> JsonObject:
    """What serves, what is pending, what is left of the deletion-rate budget: `s3t status --json`,
    without what the registry says."""
    return dict(await desk.read(status_of))


@router.get("/forecast", dependencies=WATCHES)
async def forecast(desk: Desks) -> JsonObject:
    """What is left of the deletion-rate budget, certain and expected."""
    return dict((await desk.read(status_of))["deletion_budget"])


@router.get("/versions", dependencies=WATCHES)
async def versions(desk: Desks) -> Versions:
    """Every model version, with why it was registered and when it served."""
    return {"versions": await desk.read(lambda w: versions_of(w.ledger.state()))}


@router.post("/plan", dependencies=WATCHES)
async def plan(body: PlanAsked, desk: Desks) -> JsonObject:
    """What a layout would take and how long it would last: `s3t plan --json`, of at most 4000
    simulated streams of requests. Changes nothing."""

    def reckon(workspace: Workspace) -> JsonObject:
        dataset = workspace.ledger.state().dataset
        rows = dataset.rows() if dataset else 0
        question = planning.question_of(workspace.config, rows, body.model_dump())
        return planning.plan(question, workspace.config)

    return await desk.reckon(reckon)


@router.get("/token")
async def token(token: Anybody, desk: Desks) -> TokenEntry:
    """Whose token this is, what it is for, until when."""
    return await desk.read(lambda workspace: token_entry(token, workspace))
