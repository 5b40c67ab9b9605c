"""Evidence at the door: closing documents, the bundle, reports."""

from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from flows.api.bodies import ReportAsked, ReportFiles, Reports
from flows.api.callers import whoever
from flows.api.once import OnceRoute
from flows.api.problems import Refused
from flows.api.requests import Desks, RequestId
from flows.use_cases.evidence import bundle_of
from flows.use_cases.history import closing_document
from flows.use_cases.reporting import parse_since, reports_in, write_report
from flows.workspace.workspace import Workspace
from s3t_core.files import read_regular

router = APIRouter(tags=["evidence"], route_class=OnceRoute)

READS = [Depends(whoever("decides", "erases", "audits", learns=True))]
AUDITS = [Depends(whoever("audits", learns=True))]
Day = Annotated[
    str, Path(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}(-[0-9]{1,6})?$", examples=["2026-12-01"])
]
FileName = Annotated[str, Path(pattern="^report[.](html|pdf|json)$", examples=["report.json"])]
_ENVELOPE = "application/vnd.dsse.envelope.v1+json"
_TYPES = {"html": "text/html; charset=utf-8", "pdf": "application/pdf", "json": _ENVELOPE}
_SAFE = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "sandbox",
}


@router.get(
    "/requests/{request_id}/certificate",
    dependencies=READS,
    response_class=Response,
    responses={200: {"content": {_ENVELOPE: {}}, "description": "a signed envelope (DSSE)"}},
)
async def certificate(request_id: RequestId, desk: Desks) -> Response:
    """The signed document that closed a request: a certificate, a withdrawal or a rejection."""
    found = await desk.read(lambda workspace: closing_document(workspace, request_id))
    return Response(found, media_type=_ENVELOPE, headers=_SAFE)


@router.get(
    "/bundle",
    dependencies=AUDITS,
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "a zip file"}},
)
async def bundle(desk: Desks) -> Response:
    """Every closing document with its proofs, and a verifier that runs by itself."""
    made, _ = await desk.reckon(lambda workspace: bundle_of(workspace, []))
    return Response(made, media_type="application/zip", headers=_SAFE)


@router.get("/reports", dependencies=AUDITS)
async def list_reports(desk: Desks) -> Reports:
    """The compliance reports that there are."""
    return {"reports": await desk.read(_reports)}


@router.post("/reports", status_code=201, dependencies=AUDITS)
async def make_report(
    body: ReportAsked,
    desk: Desks,
) -> ReportFiles:
    """Make a compliance report, beside earlier ones of today."""

    def make(workspace: Workspace) -> str:
        since = parse_since(body.since, workspace.clock.now())
        return FilePath(str(write_report(workspace, since)["json"])).parent.name

    name = await desk.reckon(make)
    return next(r for r in await desk.read(_reports) if r["report"] == name)


@router.get(
    "/reports/{day}/{name}",
    dependencies=AUDITS,
    response_class=Response,
    responses={200: {"content": {t: {} for t in _TYPES.values()}, "description": "the file"}},
)
async def report(
    day: Day,
    name: FileName,
    desk: Desks,
) -> Response:
    """A file of a report: for people (HTML, PDF), or signed (JSON)."""

    def read(workspace: Workspace) -> bytes | None:
        try:
            return read_regular(workspace.reports_dir / day / name)
        except OSError:
            return None

    found = await desk.read(read)
    if found is None:
        raise Refused(
            404, "NotThere", "expected a report that there is, got another. GET /api/v1/reports"
        )
    return Response(found, media_type=_TYPES[name.partition(".")[2]], headers=_SAFE)


def _reports(workspace: Workspace) -> list[ReportFiles]:
    return [
        {"report": each.name, "files": sorted(p.name for p in each.glob("report.*"))}
        for each in reports_in(workspace.reports_dir)
    ]
