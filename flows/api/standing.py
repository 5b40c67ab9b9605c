"""How the workspace stands: status, forecast, versions; and `plan` as a question."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from flows.adapters.tokens import Token
from flows.api.bodies import JsonObject, PlanAsked, Versions
from flows.api.callers import whoever
from flows.api.requests import Desks
from flows.use_cases import planning
from flows.use_cases.documents import TokenTold
from flows.use_cases.history import versions_of
from flows.use_cases.status import status_of
from flows.use_cases.tokens import told_token
from flows.workspace.workspace import Workspace
from s3t_core.errors import UsageError

router = APIRouter(tags=["standing"])

WATCHES = [Depends(whoever("decides", "erases", "audits"))]
Anybody = Annotated[Token, Depends(whoever())]
_MOST_RUNS = 4000
_DEFAULTS: dict[str, Any] = {
    "shards": "",
    "slices": "",
    "budget": "",
    "sequences": "",
    "prior": "",
    "subjects": 0,
    "once": False,
    "zipf": 0.0,
    "burst": 1,
    "skew": "",
    "tiers": "",
    "records": 0,
    "policy": "",
    "floor": 0.0,
    "requests_per_day": 0.0,
    "target": "",
    "rows_per_second": 0.0,
    "runs": _MOST_RUNS,
    "seed": 0,
}
"""What `s3t plan` takes for each option that is not given."""


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
    simulated runs. Changes nothing."""
    unknown = body.settings.keys() - _DEFAULTS.keys()
    if unknown:
        raise UsageError(
            f"expected options of `s3t plan` ({', '.join(_DEFAULTS)}), got {len(unknown)} other(s)"
        )

    def reckon(workspace: Workspace) -> JsonObject:
        dataset = workspace.ledger.state().dataset
        asked = {n: _like(d, n, body.settings.get(n, d)) for n, d in _DEFAULTS.items()}
        if asked["runs"] > _MOST_RUNS:
            raise UsageError(f"expected at most {_MOST_RUNS} runs, got more")
        rows = dataset.rows() if dataset else 0
        return planning.plan(planning.question_of(workspace.config, rows, asked), workspace.config)

    return await desk.reckon(reckon)


@router.get("/token")
async def token(token: Anybody, desk: Desks) -> TokenTold:
    """Whose token this is, what it is for, until when."""
    return await desk.read(lambda workspace: told_token(token, workspace))


def _like(default: Any, name: str, given: Any) -> Any:
    """The value, of the kind that the option takes. Raises UsageError."""
    if isinstance(default, str):
        return str(given)
    if isinstance(given, bool) == isinstance(default, bool) and isinstance(given, int | float):
        kind = type(default)
        if kind is not int or given == int(given):
            return kind(given)
    raise UsageError(f"expected a number for {name}, as `s3t plan` takes it, got another value")
