"""Reports over HTTP, and their public verification."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Path, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from auth.keys.service import KeyRing
from clinic.cases.errors import CaseNotFound, NotYourPart, WrongStatus
from clinic.content import LINKED, RangeNotSatisfiable, send_blob, streamed
from clinic.reports import service
from clinic.reports.errors import ReportInProgress, ReportInterrupted, ReportNotFound, ReportUnrenderable
from clinic.reports.schemas import ReportOut, ReportRequest, Verification
from clinic.reports.verify_page import genuine_page, unknown_page
from core.access import Principal, Session, Tenant, context_of, requires
from core.blobs import BlobNotFound, BlobStores, BlobStoreUnavailable, LinksUnsupported
from core.database import Database
from core.jail import Jail
from core.limits import RateLimited, declared_limits, limiter
from core.pagination import BadCursor, Page, Paged
from core.parts import Parts, part
from core.problems import Forbidden, Unauthenticated, responses
from tenants.directory.cache import Directory

router = APIRouter(tags=["reports"])

_PRESENT: dict[int | str, dict[str, Any]] = {
    200: {"model": ReportOut, "description": "The case has not changed since this report."}
}
_PAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {}}, "description": "The report is genuine."}
}


@router.post(
    "/v1/cases/{case_id}/reports",
    status_code=201,
    summary="Issue a case's report",
    operation_id="reports_issue",
    responses=_PRESENT
    | responses(
        Unauthenticated,
        Forbidden,
        NotYourPart,
        CaseNotFound,
        WrongStatus,
        ReportInProgress,
        ReportInterrupted,
        ReportUnrenderable,
        BlobNotFound,
        BlobStoreUnavailable,
    ),
)
async def issue(
    case_id: UUID,
    request: Request,
    response: Response,
    principal: Annotated[Principal, requires("reports:read", never_refused=True)],
    body: Annotated[ReportRequest, Body()] = ReportRequest(),
) -> ReportOut:
    """A signed PDF/A of an answered case. As long as the case does not change, the same report is given again; a
    later one supersedes it and leaves it as it is."""
    report, created = await service.issue_report(_press(principal, request), principal, case_id, body.locale)
    response.headers["Location"] = f"/v1/reports/{report.id}/pdf"
    if not created:
        response.status_code = 200
    return ReportOut.model_validate(report)


def _press(principal: Principal, request: Request) -> service.Press:
    parts: Parts = request.app.state.parts
    tenant = parts[Directory].by_key(principal.tenant.key)
    assert tenant is not None  # routing found the request's tenant there
    return service.Press(
        tenant=tenant,
        origin=context_of(request).origin,
        database=parts[Database],
        stores=parts[BlobStores],
        jail=parts[Jail],
        keys=parts[KeyRing],
    )


@router.get(
    "/v1/cases/{case_id}/reports",
    summary="List a case's reports",
    operation_id="reports_list",
    responses=responses(Unauthenticated, Forbidden, CaseNotFound, BadCursor),
)
async def list_(
    case_id: UUID,
    principal: Annotated[Principal, requires("reports:read")],
    session: Session,
    paged: Paged,
) -> Page[ReportOut]:
    rows = await service.list_reports(session, principal, case_id, paged.limit + 1, paged.after)
    reports, cursor = paged.page(rows)
    return Page(items=[ReportOut.model_validate(report) for report in reports], next_cursor=cursor)


@router.get(
    "/v1/reports/{report_id}/pdf",
    summary="Read a report",
    operation_id="reports_pdf",
    response_class=Response,
    responses=streamed("application/pdf")
    | LINKED
    | responses(
        Unauthenticated,
        Forbidden,
        ReportNotFound,
        BlobNotFound,
        RangeNotSatisfiable,
        LinksUnsupported,
        BlobStoreUnavailable,
    ),
)
async def pdf(
    report_id: UUID,
    request: Request,
    principal: Annotated[Principal, requires("reports:read")],
    database: Annotated[Database, part(Database)],
    stores: Annotated[BlobStores, part(BlobStores)],
) -> Response:
    """Streamed, with `ETag`, `If-None-Match` and `Range`; or 307 to a link, which needs no token, works for a minute,
    and takes `Range`. That it was read is audited."""
    async with database.tenant(principal.tenant) as session:
        report = await service.read_report(session, principal, report_id)
    return await send_blob(
        request,
        stores.of(principal.tenant),
        report.blob,
        etag=f'"{report.sha256}"',
        filename=f"report-{report.id}.pdf",
        inline=False,
    )


@router.get(
    "/verify/{token}",
    summary="See whether a report is genuine",
    operation_id="reports_verify",
    dependencies=[declared_limits],
    response_model=Verification,
    responses=_PAGE | responses(ReportNotFound, RateLimited),
)
@limiter.limit("30/minute")
async def verify(
    request: Request,
    tenant: Tenant,
    database: Annotated[Database, part(Database)],
    directory: Annotated[Directory, part(Directory)],
    token: Annotated[str, Path(max_length=64)],
) -> Response:
    """Public: whoever holds the printed code learns whether it is genuine and current, and nothing else. JSON, or
    a page where `Accept` asks for HTML."""
    record = directory.by_key(tenant.key)
    assert record is not None  # routing found the request's tenant there
    wants_page = "text/html" in request.headers.get("Accept", "")
    vary = {"Vary": "Accept"}
    try:
        found = await service.verify(database, record, token)
    except ReportNotFound:
        if not wants_page:
            raise
        return HTMLResponse(unknown_page(), 404, headers=vary)
    if wants_page:
        return HTMLResponse(genuine_page(found), headers=vary)
    return JSONResponse(found.model_dump(mode="json"), headers=vary)
