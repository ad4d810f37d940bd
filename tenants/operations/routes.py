"""What makes, moves and destroys tenants, over HTTP: ordered here, done in the background, looked up by its id.

What reads or writes files of the operator's machine (export, restore, migrations) stays with the command line.
"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Response

from core.database import ControlSession, Database
from core.pagination import BadCursor, Page, Paged
from core.parts import part
from core.problems import Forbidden, Invalid, Unauthenticated, responses
from tenants.directory import service as directory
from tenants.directory.errors import BadSlug, TenantNotFound
from tenants.lifecycle import service as lifecycle
from tenants.lifecycle.errors import NoCertificate
from tenants.operations import service
from tenants.operations.errors import OperationNotFound, OperationUnderWay
from tenants.operations.models import Operation
from tenants.operations.schemas import Certificate, MoveTo, NewTenant, OperationOut, Purge
from tenants.plans.errors import PlanNotFound
from tenants.plans.service import get_plan
from tenants.platform.routes import Control, Reader, Slug, Writer

router = APIRouter(prefix="/platform/v1", tags=["platform"])

Cells = Annotated[Database, part(Database)]


class NotConfirmed(Invalid):
    slug, title = "not-confirmed", "The confirmation names another tenant"


def _accepted(response: Response, operation: Operation) -> OperationOut:
    response.headers["Location"] = f"/platform/v1/operations/{operation.id}"
    response.headers["Retry-After"] = "1"
    return OperationOut.model_validate(operation)


def _check_cell(database: Database, name: str) -> None:
    """Before it is ordered: in the background it would be tried for half a minute."""
    if name not in database.cells:
        raise Invalid(f"No cell is called {name!r}: there are {', '.join(database.cells)}.")


async def _on_tenant(session: ControlSession, slug: str, kind: str, **arguments: object) -> Operation:
    tenant = await directory.find_tenant(session, slug)
    # By key: the slug may change before its turn comes.
    return await service.order(session, kind, tenant.slug, {"tenant": tenant.key, **arguments})


@router.post(
    "/tenants",
    summary="Create a tenant, or finish one whose creation failed",
    operation_id="platform_create",
    status_code=202,
    responses=responses(Unauthenticated, Forbidden, Invalid, BadSlug, PlanNotFound, OperationUnderWay),
)
async def create_tenant(
    _: Writer, session: Control, database: Cells, body: NewTenant, response: Response
) -> OperationOut:
    directory.check_slug(body.slug)
    _check_cell(database, body.cell)
    await get_plan(session, body.plan)
    return _accepted(response, await service.order(session, "create", body.slug, body.model_dump()))


@router.post(
    "/tenants/{tenant}/purge",
    summary="Destroy a closing tenant's data",
    operation_id="platform_purge",
    status_code=202,
    responses=responses(Unauthenticated, Forbidden, TenantNotFound, NotConfirmed, OperationUnderWay),
)
async def purge(_: Writer, session: Control, slug: Slug, body: Purge, response: Response) -> OperationOut:
    if body.confirm != (await directory.find_tenant(session, slug)).slug:
        raise NotConfirmed("`confirm` must be the tenant's slug: nothing brings it back but an export.")
    return _accepted(response, await _on_tenant(session, slug, "purge", now=body.now))


@router.get(
    "/tenants/{tenant}/certificate",
    summary="What the platform signed about a purged tenant's data",
    operation_id="platform_certificate",
    responses=responses(Unauthenticated, Forbidden, TenantNotFound, NoCertificate),
)
async def certificate(_: Reader, session: Control, slug: Slug) -> Certificate:
    return Certificate(certificate=await lifecycle.certificate(session, slug))


@router.post(
    "/tenants/{tenant}/move",
    summary="Move a tenant's data to another cell",
    operation_id="platform_move",
    status_code=202,
    responses=responses(Unauthenticated, Forbidden, Invalid, TenantNotFound, OperationUnderWay),
)
async def move(
    _: Writer, session: Control, database: Cells, slug: Slug, body: MoveTo, response: Response
) -> OperationOut:
    _check_cell(database, body.to_cell)
    return _accepted(response, await _on_tenant(session, slug, "move", to_cell=body.to_cell))


@router.delete(
    "/tenants/{tenant}/move",
    summary="Give up a move that has not switched yet",
    operation_id="platform_move_back",
    status_code=202,
    responses=responses(Unauthenticated, Forbidden, TenantNotFound, OperationUnderWay),
)
async def move_back(_: Writer, session: Control, slug: Slug, response: Response) -> OperationOut:
    return _accepted(response, await _on_tenant(session, slug, "move-back"))


@router.get(
    "/operations",
    summary="List operations, newest first",
    operation_id="platform_operations",
    responses=responses(Unauthenticated, Forbidden, BadCursor),
)
async def list_operations(_: Reader, session: Control, paged: Paged) -> Page[OperationOut]:
    rows, cursor = paged.page(await service.page_of_operations(session, paged.limit + 1, paged.after))
    return Page(items=[OperationOut.model_validate(row) for row in rows], next_cursor=cursor)


@router.get(
    "/operations/{operation}",
    summary="Show an operation",
    operation_id="platform_operation",
    responses=responses(Unauthenticated, Forbidden, OperationNotFound),
)
async def show_operation(_: Reader, session: Control, operation: UUID) -> OperationOut:
    return OperationOut.model_validate(await service.find_operation(session, operation))
