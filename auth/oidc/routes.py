"""Where OpenID providers send people back, and tell of sign-ins that have ended."""

from typing import Annotated

from fastapi import APIRouter, Form, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from auth.connections.browser import BrowserSecret
from auth.connections.errors import SignInRefused
from auth.connections.fetching import ProviderUnreachable
from auth.connections.service import SignIn
from auth.keys.service import KeyRing
from auth.oidc.errors import ProviderUnusable
from auth.oidc.logout import end_by_provider
from auth.oidc.provider import Providers
from auth.oidc.service import Response as Answer
from auth.oidc.service import complete
from auth.oidc.tokens import MAX_TOKEN_LENGTH
from core.access import Tenant, context_of
from core.database import Database
from core.limits import RateLimited, declared_limits, limiter
from core.parts import part
from core.problems import responses

router = APIRouter(tags=["single sign-on"])

Name = Annotated[str, Path(max_length=63, description="The connection's name.")]


@router.get(
    "/auth/oidc/callback/{connection}",
    summary="Where the OpenID provider's answer arrives",
    operation_id="oidc_callback",
    response_class=RedirectResponse,
    status_code=303,
    responses=responses(SignInRefused, ProviderUnreachable, ProviderUnusable, RateLimited),
    dependencies=[declared_limits],
)
@limiter.limit("60/minute")
async def callback(
    request: Request,
    tenant: Tenant,
    database: Annotated[Database, part(Database)],
    keys: Annotated[KeyRing, part(KeyRing)],
    providers: Annotated[Providers, part(Providers)],
    connection: Name,
    state: Annotated[str, Query(max_length=200)] = "",
    code: Annotated[str, Query(max_length=8000)] = "",
    error: Annotated[str, Query(max_length=200)] = "",
    iss: Annotated[str | None, Query(max_length=2000)] = None,
    browser_secret: BrowserSecret = "",
) -> RedirectResponse:
    url = await complete(
        database,
        keys,
        providers,
        SignIn(tenant, context_of(request).origin),
        connection,
        Answer(state, code, error, iss),
        browser_secret=browser_secret,
    )
    return RedirectResponse(url, status_code=303, headers={"Cache-Control": "no-store"})


@router.post(
    "/auth/oidc/logout/{connection}",
    summary="Where the OpenID provider tells that somebody has signed out",
    operation_id="oidc_logout",
    response_class=Response,
    responses=responses(SignInRefused, ProviderUnreachable, ProviderUnusable, RateLimited),
    dependencies=[declared_limits],
)
@limiter.limit("300/minute")
async def back_channel_logout(
    request: Request,
    tenant: Tenant,
    database: Annotated[Database, part(Database)],
    providers: Annotated[Providers, part(Providers)],
    connection: Name,
    logout_token: Annotated[str, Form(max_length=MAX_TOKEN_LENGTH)],
) -> Response:
    await end_by_provider(database, providers, tenant, connection, logout_token)
    return Response(headers={"Cache-Control": "no-store"})
