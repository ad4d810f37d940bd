"""The platform's API: what `dermadetect tenants` and `quotas` do, over HTTP, on the platform's host alone.

It runs with the operator's login, so it lives in processes that have one. What takes long is in `tenants.operations`.
"""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Request, Response

from core.access import Operator, context_of, requires_operator
from core.database import ControlSession
from core.pagination import BadCursor, Page, Paged
from core.parts import part
from core.problems import Forbidden, Unauthenticated, responses
from core.settings import Settings
from tenants.directory import service as directory
from tenants.directory.errors import BadSlug, SlugTaken, TenantNotFound, WrongState
from tenants.domains import service as domains
from tenants.domains.errors import BadDomain, DomainNotFound, DomainNotProven, DomainTaken
from tenants.domains.resolver import ResolverUnavailable, text_records
from tenants.lifecycle import service as lifecycle
from tenants.lifecycle.errors import PurgeBegun
from tenants.plans import service as plans
from tenants.plans.errors import UnknownMetric
from tenants.platform.schemas import (
    Closing,
    DomainIn,
    DomainOut,
    Limit,
    QuotaSetting,
    Reason,
    Renaming,
    TenantChange,
    TenantOut,
)
from tenants.platform.service import PlatformAccess

router = APIRouter(prefix="/platform/v1", tags=["platform"])

Access = Annotated[PlatformAccess, part(PlatformAccess)]
Slug = Annotated[str, Path(alias="tenant", pattern="^[a-z0-9-]{1,40}$", description="Slug or key.")]
Configured = Annotated[Settings, part(Settings)]
Reader = Annotated[Operator, requires_operator("platform:read")]
Writer = Annotated[Operator, requires_operator("platform:write")]

_DENIED = (Unauthenticated, Forbidden, TenantNotFound)


async def _session(request: Request, access: Access) -> AsyncIterator[ControlSession]:
    operator = context_of(request).operator
    assert operator is not None  # the route's scope is checked first
    async with access.control(operator) as session:
        yield session


Control = Annotated[ControlSession, Depends(_session, scope="function")]


@router.get(
    "/tenants",
    summary="List tenants, newest first",
    operation_id="platform_tenants",
    responses=responses(Unauthenticated, Forbidden, BadCursor),
)
async def list_tenants(
    _: Reader,
    session: Control,
    paged: Paged,
    state: Literal["provisioning", "active", "suspended", "closing", "closed"] | None = None,
) -> Page[TenantOut]:
    rows, cursor = paged.page(await directory.page_of_tenants(session, state, paged.limit + 1, paged.after))
    return Page(items=[TenantOut.model_validate(row) for row in rows], next_cursor=cursor)


@router.get(
    "/tenants/{tenant}",
    summary="Show a tenant",
    operation_id="platform_tenant",
    responses=responses(*_DENIED),
)
async def show_tenant(_: Reader, session: Control, slug: Slug) -> TenantOut:
    return TenantOut.model_validate(await directory.find_tenant(session, slug))


@router.patch(
    "/tenants/{tenant}",
    summary="Change a tenant's name, AI model or image links",
    operation_id="platform_update",
    responses=responses(*_DENIED),
)
async def update_tenant(_: Writer, session: Control, slug: Slug, change: TenantChange) -> TenantOut:
    given = change.model_dump(exclude_unset=True)
    return TenantOut.model_validate(await directory.update_tenant(session, slug, given))


@router.post(
    "/tenants/{tenant}/suspend",
    summary="Stop serving a tenant",
    operation_id="platform_suspend",
    responses=responses(*_DENIED, WrongState),
)
async def suspend(_: Writer, session: Control, slug: Slug, body: Reason) -> TenantOut:
    return TenantOut.model_validate(await directory.suspend(session, slug, body.reason))


@router.post(
    "/tenants/{tenant}/resume",
    summary="Serve a suspended tenant again",
    operation_id="platform_resume",
    responses=responses(*_DENIED, WrongState),
)
async def resume(_: Writer, session: Control, slug: Slug) -> TenantOut:
    return TenantOut.model_validate(await directory.resume(session, slug))


@router.post(
    "/tenants/{tenant}/rename",
    summary="Give a tenant another slug",
    operation_id="platform_rename",
    responses=responses(*_DENIED, BadSlug, SlugTaken),
)
async def rename(_: Writer, session: Control, settings: Configured, slug: Slug, body: Renaming) -> TenantOut:
    return TenantOut.model_validate(await directory.rename(session, slug, body.slug, settings.base_domain))


@router.post(
    "/tenants/{tenant}/close",
    summary="Stop serving a tenant for good; its data stays for the grace period",
    operation_id="platform_close",
    responses=responses(*_DENIED, WrongState),
)
async def close(_: Writer, session: Control, slug: Slug, body: Closing) -> TenantOut:
    grace = timedelta(days=body.grace_days)
    return TenantOut.model_validate(await lifecycle.close(session, slug, body.reason, grace))


@router.post(
    "/tenants/{tenant}/reopen",
    summary="Serve a closing tenant again",
    operation_id="platform_reopen",
    responses=responses(*_DENIED, WrongState, PurgeBegun),
)
async def reopen(_: Writer, session: Control, slug: Slug) -> TenantOut:
    return TenantOut.model_validate(await lifecycle.reopen(session, slug))


@router.get(
    "/tenants/{tenant}/domains",
    summary="List the hosts a tenant answers at, and those to be proven",
    operation_id="platform_domains",
    responses=responses(*_DENIED),
)
async def list_domains(_: Reader, session: Control, settings: Configured, slug: Slug) -> list[DomainOut]:
    found = await domains.list_domains(session, slug, settings.base_domain)
    return [DomainOut.model_validate(each) for each in found]


@router.post(
    "/tenants/{tenant}/domains",
    summary="Claim a domain for a tenant",
    operation_id="platform_claim",
    responses=responses(*_DENIED, BadDomain, DomainTaken),
)
async def claim_domain(
    _: Writer, session: Control, settings: Configured, slug: Slug, body: DomainIn
) -> DomainOut:
    found = await domains.add_domain(session, slug, body.domain, settings.base_domain)
    return DomainOut.model_validate(found)


@router.post(
    "/tenants/{tenant}/domains/{domain}/verify",
    summary="Look for a claimed domain's record, and serve the tenant there",
    operation_id="platform_verify",
    responses=responses(*_DENIED, BadDomain, DomainTaken, DomainNotProven, ResolverUnavailable),
)
async def verify_domain(
    operator: Writer, access: Access, settings: Configured, slug: Slug, domain: str
) -> DomainOut:
    found = await domains.verify_domain(
        lambda: access.control(operator),
        slug,
        domain,
        settings.base_domain,
        text_records(settings.dns_resolvers),
    )
    return DomainOut.model_validate(found)


@router.delete(
    "/tenants/{tenant}/domains/{domain}",
    summary="Stop serving a tenant at a domain",
    operation_id="platform_unclaim",
    status_code=204,
    response_class=Response,
    responses=responses(*_DENIED, BadDomain, DomainNotFound),
)
async def remove_domain(_: Writer, session: Control, settings: Configured, slug: Slug, domain: str) -> None:
    await domains.remove_domain(session, slug, domain, settings.base_domain)


@router.get(
    "/tenants/{tenant}/quotas",
    summary="Show a tenant's limits and this month's use",
    operation_id="platform_quotas",
    responses=responses(*_DENIED),
)
async def list_quotas(_: Reader, session: Control, slug: Slug) -> list[QuotaSetting]:
    tenant = await directory.find_tenant(session, slug)
    return [
        QuotaSetting.model_validate(each, from_attributes=True)
        for each in await plans.list_quotas(session, tenant)
    ]


@router.put(
    "/tenants/{tenant}/quotas/{metric}",
    summary="Give a tenant a limit of its own",
    operation_id="platform_quota",
    responses=responses(*_DENIED, UnknownMetric),
)
async def set_quota(_: Writer, session: Control, slug: Slug, metric: str, body: Limit) -> list[QuotaSetting]:
    tenant = await plans.set_quota(session, slug, metric, body.limit)
    return [
        QuotaSetting.model_validate(each, from_attributes=True)
        for each in await plans.list_quotas(session, tenant)
    ]
