"""The tenant's authorization server."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from auth.connections.browser import BrowserSecret, keep_or_make, set_browser_secret
from auth.connections.errors import NoConnection
from auth.connections.fetching import ProviderUnreachable
from auth.connections.models import Connection
from auth.connections.service import Asked, SignIn, choose, enabled_connections
from auth.keys.service import KeyRing, public_token_keys
from auth.oauth.errors import OAuthError
from auth.oauth.schemas import JwkSet, ServerMetadata, SignedOut
from auth.oauth.service import answer_url, check_challenge, find_client
from auth.oidc import service as oidc
from auth.oidc.errors import ProviderUnusable
from auth.oidc.logout import end_session_url
from auth.oidc.provider import Providers
from auth.people.service import end_session
from auth.roles import SCOPES
from auth.saml import service as saml
from auth.saml.logout import begin_logout
from core.access import Control, Principal, Tenant, context_of, signed_in
from core.database import Database
from core.limits import RateLimited, declared_limits, limiter
from core.parts import part
from core.problems import Unauthenticated, responses

router = APIRouter(tags=["single sign-on"])


@router.get(
    "/auth/authorize",
    summary="Start a sign-in (OAuth 2.1 authorization code with PKCE)",
    operation_id="oauth_authorize",
    response_class=RedirectResponse,
    status_code=303,
    responses=responses(OAuthError, NoConnection, ProviderUnreachable, ProviderUnusable, RateLimited),
    dependencies=[declared_limits],
)
@limiter.limit("60/minute")
async def authorize(
    request: Request,
    tenant: Tenant,
    database: Annotated[Database, part(Database)],
    keys: Annotated[KeyRing, part(KeyRing)],
    providers: Annotated[Providers, part(Providers)],
    client_id: Annotated[str, Query(max_length=63)],
    redirect_uri: Annotated[str, Query(max_length=2000)],
    response_type: Annotated[str, Query(max_length=40)] = "",
    code_challenge: Annotated[str, Query(max_length=128)] = "",
    code_challenge_method: Annotated[str, Query(max_length=16)] = "",
    state: Annotated[str | None, Query(max_length=500)] = None,
    scope: Annotated[str, Query(max_length=1000)] = "",
    connection: Annotated[str, Query(max_length=63, description="The name of one of several.")] = "",
    login_hint: Annotated[
        str, Query(max_length=320, description="An e-mail address, whose domain chooses the connection.")
    ] = "",
    browser_secret: BrowserSecret = "",
) -> RedirectResponse:
    origin = context_of(request).origin
    if request.url.hostname != urlsplit(origin).hostname:
        # An alias: the browser's cookie must belong to the home host, where the identity provider will answer.
        return RedirectResponse(f"{origin}/auth/authorize?{request.url.query}", status_code=303)
    async with database.tenant(tenant) as session:
        client = await find_client(session, client_id, redirect_uri)
    try:
        if response_type != "code":
            raise OAuthError("unsupported_response_type", "Send `response_type=code`.")
        check_challenge(code_challenge, code_challenge_method)
    except OAuthError as error:  # from here on the redirect URI is the client's own, which wants to know
        return RedirectResponse(
            answer_url(
                redirect_uri, state, origin, error=error.extra["error"], error_description=error.detail
            ),
            status_code=303,
        )
    chosen = choose(await enabled_connections(database, tenant), connection, login_hint)
    if chosen is None:  # the person knows
        return RedirectResponse(f"/auth/sign-in?{request.url.query}", status_code=303)
    browser_secret = keep_or_make(browser_secret)
    where, asked = SignIn(tenant, origin), Asked(client.id, redirect_uri, code_challenge, state, scope)
    url = await begin(
        database, keys, providers, where, chosen, asked, login_hint=login_hint, browser_secret=browser_secret
    )
    response = RedirectResponse(url, status_code=303, headers={"Cache-Control": "no-store"})
    set_browser_secret(response, browser_secret)
    return response


async def begin(
    database: Database,
    keys: KeyRing,
    providers: Providers,
    where: SignIn,
    chosen: Connection,
    asked: Asked,
    *,
    login_hint: str,
    browser_secret: str,
) -> str:
    """Where to send the browser, by the protocol that the chosen connection speaks."""
    if chosen.kind == "saml":
        return await saml.begin(database, keys, where, chosen, asked, browser_secret=browser_secret)
    return await oidc.begin(
        database, providers, where, chosen, asked, login_hint=login_hint, browser_secret=browser_secret
    )


@router.post(
    "/auth/logout",
    summary="End the sign-in session of the access token",
    operation_id="oauth_logout",
    response_model=SignedOut,
    responses={**responses(Unauthenticated), 204: {"description": "There is nothing more to do."}},
)
async def logout(
    request: Request,
    tenant: Tenant,
    principal: Annotated[Principal, signed_in],
    database: Annotated[Database, part(Database)],
    keys: Annotated[KeyRing, part(KeyRing)],
    providers: Annotated[Providers, part(Providers)],
) -> SignedOut | Response:
    await end_session(database, tenant, principal.session, principal, "sign-out")
    where = SignIn(tenant, context_of(request).origin)
    url = await begin_logout(database, keys, where, principal.session) or await end_session_url(
        database, providers, tenant, principal.session
    )
    return SignedOut(continue_at=url) if url else Response(status_code=204)


@router.get(
    "/.well-known/oauth-authorization-server",
    summary="The authorization server's metadata (RFC 8414)",
    operation_id="oauth_metadata",
)
async def server_metadata(request: Request, tenant: Tenant) -> ServerMetadata:
    origin = context_of(request).origin
    return ServerMetadata(
        issuer=origin,
        authorization_endpoint=f"{origin}/auth/authorize",
        token_endpoint=f"{origin}/auth/token",
        revocation_endpoint=f"{origin}/auth/revoke",
        introspection_endpoint=f"{origin}/auth/introspect",
        jwks_uri=f"{origin}/.well-known/jwks.json",
        scopes_supported=sorted(SCOPES),
    )


@router.get(
    "/.well-known/jwks.json",
    summary="The tenant's public keys (RFC 7517)",
    operation_id="oauth_jwks",
)
async def jwks(tenant: Tenant, control: Control, response: Response) -> JwkSet:
    response.headers["Cache-Control"] = "public, max-age=300"
    response.headers["Vary"] = (
        "Origin"  # a cache must not give a browser app the answer to somebody without origin
    )
    return JwkSet(keys=await public_token_keys(control, tenant))
