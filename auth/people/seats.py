"""Who has a seat, and who administers a tenant: counted under one lock, exact whoever comes or goes at the same time."""

from sqlalchemy import ColumnElement, and_, exists, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from auth.invitations.models import Invitation
from auth.local.models import LocalAdministrator
from auth.people.errors import LastAdministrator
from auth.people.models import User
from core.clock import utcnow
from core.database import TenantSession
from tenants.plans import seats

ADMINISTRATOR = "tenant_admin"

_ROLES = User.mapped_roles.op("||")(User.granted_roles)
_ONLY_PATIENT = and_(func.cardinality(_ROLES) > 0, _ROLES.op("<@")(literal(["patient"], ARRAY(Text))))
_LOCAL = exists().where(LocalAdministrator.user_id == User.id)


def not_lapsed() -> ColumnElement[bool]:
    """Who was invited and has not come yet is somebody only as long as an invitation holds."""
    holds = exists().where(Invitation.user_id == User.id, Invitation.expires_at > utcnow())
    return or_(User.invited_at.is_(None), User.external_id.is_not(None), holds)


def takes_one(roles: list[str]) -> bool:
    """Whether somebody active with these roles takes a seat: everybody but patients."""
    return roles != ["patient"]


async def _count(session: TenantSession, *conditions: ColumnElement[bool]) -> int:
    query = select(func.count()).select_from(User).where(User.active, ~_LOCAL, *conditions)
    return await session.scalar(query) or 0


async def take(session: TenantSession, limit: int) -> None:
    """Count the seats when somebody has come, or come back, in this transaction. Patients and local administrators take
    none. Call it last: it locks until the transaction ends. Raises `QuotaExceeded`."""
    await _settle(session, limit)


async def give_back(session: TenantSession) -> None:
    """Count the seats when somebody has gone in this transaction. Call it last."""
    await _settle(session, None)


async def _settle(session: TenantSession, limit: int | None) -> None:
    await session.flush()
    await seats.lock(session)
    await seats.settle(session, await _count(session, not_lapsed(), ~_ONLY_PATIENT), limit)


async def keep_an_administrator(session: TenantSession) -> None:
    """Raise `LastAdministrator` if this transaction, which takes an administrator away, leaves none who has signed in
    before. Local administrators do not count: they are for emergencies. Call it last, before `give_back`."""
    await session.flush()
    await seats.lock(session)
    administers = _ROLES.op("@>")(literal([ADMINISTRATOR], ARRAY(Text)))
    if not await _count(session, administers, User.last_sign_in_at.is_not(None)):
        raise LastAdministrator(
            "Give somebody else the role `tenant_admin` first, who has signed in already."
        )
