"""Where clients get tokens, give them back, and ask about them. No browser comes here: answers and refusals are in the
form that OAuth's client libraries know."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from auth.keys.service import KeyRing
from auth.oauth.errors import InvalidClient, OAuthError
from auth.oauth.grants import Grant, SessionLives, redeem, refresh
from auth.oauth.machines import authenticate, grant_to_machine
from auth.oauth.requests import OAuthRoute, PresentedClient
from auth.oauth.revocation import withdraw
from auth.oauth.schemas import Introspection, TokenResponse
from auth.tokens.errors import TokenRefused
from auth.tokens.service import TokenVerifier, claims_of, issue, issue_to_machine
from core.access import Tenant, context_of
from core.clock import utcnow
from core.database import Database
from core.limits import RateLimited, declared_limits, limiter
from core.parts import Parts, part
from core.problems import responses
from core.settings import Settings
from tenants.directory.cache import Directory

router = APIRouter(tags=["single sign-on"], route_class=OAuthRoute)


@router.post(
    "/auth/token",
    summary="Get an access token: for a code, for a refresh token, or as a machine client",
    operation_id="oauth_token",
    responses=responses(OAuthError, InvalidClient, RateLimited),
    response_model_exclude_none=True,
    dependencies=[declared_limits],
)
@limiter.limit("120/minute")
async def token(
    request: Request,
    response: Response,
    tenant: Tenant,
    client: PresentedClient,
    grant_type: Annotated[str, Form(max_length=100)] = "",
    code: Annotated[str, Form(max_length=200)] = "",
    redirect_uri: Annotated[str, Form(max_length=2000)] = "",
    code_verifier: Annotated[str, Form(max_length=128)] = "",
    refresh_token: Annotated[str, Form(max_length=200)] = "",
    scope: Annotated[str, Form(max_length=1000)] = "",
    on_behalf_of: Annotated[
        str,
        Form(max_length=200, description="As a machine client: its own name for the patient it acts for."),
    ] = "",
) -> TokenResponse:
    parts: Parts = request.app.state.parts
    database, settings = parts[Database], parts[Settings]
    lives = SessionLives.of(settings)
    if grant_type == "authorization_code":
        grant = await redeem(
            database,
            tenant,
            lives,
            code=code,
            verifier=code_verifier,
            client_id=client.client_id,
            redirect_uri=redirect_uri,
        )
    elif grant_type == "refresh_token":
        grant = await refresh(
            database, tenant, lives, token=refresh_token, client_id=client.client_id, scope=scope
        )
    elif grant_type == "client_credentials":
        life = timedelta(seconds=settings.access_token_s)
        async with database.tenant(tenant) as session:
            grant = await grant_to_machine(
                session, client.client_id, client.secret, scope=scope, on_behalf_of=on_behalf_of, life=life
            )
    else:
        raise OAuthError(
            "unsupported_grant_type",
            "Send `grant_type=authorization_code`, `refresh_token` or `client_credentials`.",
        )
    response.headers["Cache-Control"] = "no-store"
    return await _answer(parts, tenant.key, context_of(request).origin, grant)


async def _answer(parts: Parts, tenant_key: str, origin: str, grant: Grant) -> TokenResponse:
    record = parts[Directory].by_key(tenant_key)
    assert record is not None  # routing found it in the same directory
    keys, life_s = parts[KeyRing], parts[Settings].access_token_s
    if grant.session:
        # A token must not outlive its session: a revocation is forgotten when the session would have ended.
        left_s = int((grant.session.expires_at - utcnow()).total_seconds())
        issued = await issue(
            keys,
            record,
            origin,
            grant.session,
            grant.scope,
            max(1, min(life_s, left_s)),
            acting=grant.machine,
        )
    else:
        assert grant.machine is not None
        issued = await issue_to_machine(keys, record, origin, grant.machine, grant.scope, life_s)
    return TokenResponse(
        access_token=issued.access_token,
        expires_in=issued.expires_in,
        scope=issued.scope,
        refresh_token=grant.refresh_token,
    )


@router.post(
    "/auth/revoke",
    summary="Give a token back, and with it the sign-in it came from (RFC 7009)",
    operation_id="oauth_revoke",
    responses=responses(OAuthError, InvalidClient, RateLimited),
    dependencies=[declared_limits],
)
@limiter.limit("120/minute")
async def revoke(
    request: Request,
    tenant: Tenant,
    client: PresentedClient,
    database: Annotated[Database, part(Database)],
    tokens: Annotated[TokenVerifier, part(TokenVerifier)],
    directory: Annotated[Directory, part(Directory)],
    token: Annotated[str, Form(max_length=4096)] = "",
) -> None:
    record = directory.by_key(tenant.key)
    assert record is not None
    await withdraw(
        database,
        tokens,
        record,
        context_of(request).origin,
        token=token,
        client_id=client.client_id,
        secret=client.secret,
    )


@router.post(
    "/auth/introspect",
    summary="Whether an access token holds, and what it says (RFC 7662); for machine clients",
    operation_id="oauth_introspect",
    responses=responses(OAuthError, InvalidClient, RateLimited),
    response_model_exclude_none=True,
    dependencies=[declared_limits],
)
@limiter.limit("1200/minute")
async def introspect(
    request: Request,
    tenant: Tenant,
    client: PresentedClient,
    database: Annotated[Database, part(Database)],
    tokens: Annotated[TokenVerifier, part(TokenVerifier)],
    directory: Annotated[Directory, part(Directory)],
    token: Annotated[str, Form(max_length=4096)] = "",
) -> Introspection:
    async with database.tenant(tenant) as session:
        await authenticate(session, client.client_id, client.secret)
    record = directory.by_key(tenant.key)
    assert record is not None
    try:
        await tokens.verify(token, record, context_of(request).origin)
    except TokenRefused:
        return Introspection(active=False)
    return Introspection(active=True, token_type="Bearer", **claims_of(token))  # noqa: S106  # the name of a scheme
