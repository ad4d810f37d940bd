"""Invitations over HTTP, and the pages of whoever follows one."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from auth.connections.browser import BrowserSecret, keep_or_make, set_browser_secret
from auth.connections.errors import NoConnection
from auth.connections.fetching import ProviderUnreachable
from auth.connections.service import Asked, SignIn, enabled_connections
from auth.invitations import page, service
from auth.invitations.errors import AlreadyKnown, InvitationInvalid, InvitationNotFound
from auth.invitations.schemas import InvitationMade, InvitationOut, NewInvitation
from auth.keys.service import KeyRing
from auth.oauth.routes import begin
from auth.oidc.errors import ProviderUnusable
from auth.oidc.provider import Providers
from auth.people.errors import RoleNotYours, UnknownRole
from auth.people.routes import Where
from core.access import Principal, Session, Tenant, context_of, requires
from core.database import Database
from core.idempotency import Idempotency, KeyInFlight, KeyReused
from core.limits import RateLimited, declared_limits, limiter
from core.pagination import BadCursor, Page, Paged
from core.parts import part
from core.problems import Forbidden, Unauthenticated, responses
from core.settings import Settings
from tenants.directory.cache import Directory
from tenants.plans.errors import QuotaExceeded

router = APIRouter()

Token = Annotated[str, Path(max_length=200)]


@router.post(
    "/v1/users/invitations",
    summary="Invite somebody",
    operation_id="invitations_create",
    status_code=201,
    tags=["people"],
    responses=responses(
        Unauthenticated,
        Forbidden,
        RoleNotYours,
        UnknownRole,
        AlreadyKnown,
        QuotaExceeded,
        KeyInFlight,
        KeyReused,
    ),
)
async def invite(
    request: Request,
    wish: NewInvitation,
    session: Session,
    where: Where,
    settings: Annotated[Settings, part(Settings)],
    principal: Annotated[Principal, requires("users:manage")],
    idempotency: Annotated[Idempotency, Depends()],
) -> InvitationMade:
    """No mail is sent: hand `url` to the person. They take a seat at once. Inviting somebody anew who has not come
    makes the former URL void."""
    url = None

    async def invite_once() -> UUID:
        nonlocal url
        invitation_id, token = await service.invite(
            session,
            principal,
            service.Wish(**wish.model_dump()),
            life=timedelta(days=settings.invitation_days),
            seat_limit=where.seat_limit,
        )
        url = service.invitation_url(context_of(request).origin, token)
        return invitation_id

    invitation_id = await idempotency.once(session, principal, invite_once)
    row = await service.read_invitation(session, invitation_id)
    return InvitationMade(**row, url=url)


@router.get(
    "/v1/users/invitations",
    summary="List the invitations that nobody has followed yet",
    operation_id="invitations_list",
    tags=["people"],
    responses=responses(Unauthenticated, Forbidden, BadCursor),
)
async def list_invitations(
    session: Session, paged: Paged, principal: Annotated[Principal, requires("users:manage")]
) -> Page[InvitationOut]:
    rows, cursor = paged.page(await service.list_invitations(session, paged.limit + 1, paged.after))
    return Page(items=[InvitationOut(**row) for row in rows], next_cursor=cursor)


@router.delete(
    "/v1/users/invitations/{invitation_id}",
    summary="Revoke an invitation",
    operation_id="invitations_revoke",
    status_code=204,
    response_class=Response,
    tags=["people"],
    responses=responses(Unauthenticated, Forbidden, InvitationNotFound),
)
async def revoke(
    invitation_id: UUID, session: Session, principal: Annotated[Principal, requires("users:manage")]
) -> None:
    await service.revoke(session, principal, invitation_id)


@router.get(
    "/auth/invitation",
    summary="What somebody sees who has accepted an invitation",
    operation_id="invitation_accepted",
    response_class=HTMLResponse,
    tags=["single sign-on"],
)
async def accepted(tenant: Tenant, directory: Annotated[Directory, part(Directory)]) -> HTMLResponse:
    return HTMLResponse(page.accepted_page(_organisation(directory, tenant.key)))


@router.get(
    "/auth/invitation/{token}",
    summary="Look at an invitation; uses nothing up",
    operation_id="invitation_show",
    response_class=HTMLResponse,
    tags=["single sign-on"],
    responses=responses(InvitationInvalid, RateLimited),
    dependencies=[declared_limits],
)
@limiter.limit("30/minute")
async def look(
    request: Request,
    token: Token,
    tenant: Tenant,
    database: Annotated[Database, part(Database)],
    directory: Annotated[Directory, part(Directory)],
) -> HTMLResponse:
    async with database.tenant(tenant) as session:
        invitation, user = await service.find_by_token(session, token)
    connections = [
        each.name for each in await enabled_connections(database, tenant) if each.audience == "staff"
    ]
    return HTMLResponse(
        page.invitation_page(
            _organisation(directory, tenant.key),
            None if invitation.anybody else user.email,
            invitation.expires_at,
            service.invitation_url(context_of(request).origin, token),
            connections,
        )
    )


@router.get(
    "/auth/invitation/{token}/{connection}",
    summary="Follow an invitation to an identity provider",
    operation_id="invitation_follow",
    response_class=RedirectResponse,
    status_code=303,
    tags=["single sign-on"],
    responses=responses(InvitationInvalid, NoConnection, ProviderUnreachable, ProviderUnusable, RateLimited),
    dependencies=[declared_limits],
)
@limiter.limit("30/minute")
async def follow(
    request: Request,
    token: Token,
    connection: Annotated[str, Path(max_length=63)],
    tenant: Tenant,
    database: Annotated[Database, part(Database)],
    keys: Annotated[KeyRing, part(KeyRing)],
    providers: Annotated[Providers, part(Providers)],
    browser_secret: BrowserSecret = "",
) -> RedirectResponse:
    async with database.tenant(tenant) as session:
        invitation, user = await service.find_by_token(session, token)
    found = await enabled_connections(database, tenant)
    chosen = next((each for each in found if each.name == connection and each.audience == "staff"), None)
    if chosen is None:
        raise NoConnection("No connection of this name is in use here.")
    browser_secret = keep_or_make(browser_secret)
    asked = Asked.by_invitation(invitation.id)
    where = SignIn(tenant, context_of(request).origin)
    url = await begin(
        database,
        keys,
        providers,
        where,
        chosen,
        asked,
        login_hint="" if invitation.anybody else user.email or "",
        browser_secret=browser_secret,
    )
    response = RedirectResponse(url, status_code=303)
    set_browser_secret(response, browser_secret)
    return response


def _organisation(directory: Directory, tenant_key: str) -> str:
    record = directory.by_key(tenant_key)
    assert record is not None  # routing found it in the same directory
    return record.name
