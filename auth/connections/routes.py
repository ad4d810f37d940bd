"""Finding out where somebody signs in (home-realm discovery)."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from auth.connections.errors import NoConnection
from auth.connections.page import choice_page, onward_page
from auth.connections.schemas import ConnectionOut, Discovered, Whose
from auth.connections.service import choose, enabled_connections, open_to
from core.access import Tenant
from core.database import Database
from core.limits import RateLimited, declared_limits, limiter
from core.parts import part
from core.problems import responses
from tenants.directory.cache import Directory

router = APIRouter(tags=["single sign-on"])


@router.post(
    "/auth/discover",
    summary="The connections that somebody with this e-mail address signs in by",
    operation_id="connections_discover",
    responses=responses(RateLimited),
    dependencies=[declared_limits],
)
@limiter.limit("60/minute")
async def discover(
    request: Request, tenant: Tenant, database: Annotated[Database, part(Database)], whose: Whose
) -> Discovered:
    found = open_to(await enabled_connections(database, tenant), whose.email)
    return Discovered(connections=[ConnectionOut(name=each.name, audience=each.audience) for each in found])


@router.get(
    "/auth/sign-in",
    summary="A page on which somebody chooses where to sign in",
    operation_id="connections_page",
    response_class=HTMLResponse,
    responses=responses(NoConnection, RateLimited),
    dependencies=[declared_limits],
)
@limiter.limit("60/minute")
async def sign_in_page(
    request: Request,
    tenant: Tenant,
    database: Annotated[Database, part(Database)],
    directory: Annotated[Directory, part(Directory)],
    client_id: Annotated[str, Query(max_length=63, description="As all that the app asks, it goes on.")],
    login_hint: Annotated[str, Query(max_length=320)] = "",
) -> HTMLResponse:
    connections = await enabled_connections(database, tenant)
    chosen = choose(connections, "", login_hint)
    record = directory.by_key(tenant.key)
    assert record is not None  # routing found it in the same directory
    query = request.query_params.multi_items()
    asked = [pair for pair in query if pair[0] not in ("connection", "login_hint")]
    if chosen is not None:
        hinted = [*asked, ("login_hint", login_hint)] if login_hint else asked
        return HTMLResponse(onward_page(record.name, chosen, hinted))
    return HTMLResponse(choice_page(record.name, connections, asked, unknown=bool(login_hint)))
