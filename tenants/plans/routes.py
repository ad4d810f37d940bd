"""Use of the plan over HTTP."""

from typing import Annotated

from fastapi import APIRouter

from core.access import Control, Principal, Session, Tenant, requires
from core.problems import Forbidden, Unauthenticated, responses
from tenants.plans import seats, service, storage
from tenants.plans.schemas import QuotaOut, UsageOut

router = APIRouter(tags=["plan"])


@router.get(
    "/v1/usage",
    summary="What your plan allows and what you have used of it",
    operation_id="usage_show",
    responses=responses(Unauthenticated, Forbidden),
)
async def show_usage(
    tenant: Tenant,
    control: Control,
    session: Session,
    principal: Annotated[Principal, requires("usage:read", never_refused=True)],
) -> UsageOut:
    row = await service.tenant_of(control, tenant)
    quotas = await service.list_quotas(control, row, await storage.used(session), await seats.used(session))
    return UsageOut(
        plan=row.plan,
        quotas=[QuotaOut(**vars(quota)) for quota in quotas],
        resets_at=service.next_reset(service.this_month()),
    )
