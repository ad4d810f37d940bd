"""What an administrator does with people: roles, deactivation, and back.

Roles and deactivation take hold at once: the person's sessions end, in every process within a second. That is a
second transaction, after the one that changes the person; should a crash come between, the doorbell that rang in the
first has it done by the worker.
"""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select, update

from auth.people import granting, seats
from auth.people.errors import UserNotFound
from auth.people.models import SignInSession, User
from auth.people.service import GONE, RING, end_sessions_of
from core.access import Principal
from core.clock import utcnow
from core.database import Database, TenantScope, TenantSession
from core.versions import check_version
from tenants.audit.service import audit, by_operator, operator
from tenants.directory.service import revoke_sessions


async def _lock(session: TenantSession, user_id: UUID, seen: int | None) -> User:
    user = await session.get(User, user_id, with_for_update=True)
    if user is None:
        raise UserNotFound("No user of this tenant has this id.")
    if seen is not None:
        check_version(user.version, seen)
    return user


async def set_roles(
    database: Database,
    tenant: TenantScope,
    principal: Principal | None,
    user_id: UUID,
    seen: int | None,
    roles: Iterable[str],
    seat_limit: int,
) -> User:
    """Give a person these roles, beside those that their groups bring. Where that takes one away their sessions end,
    since tokens carry roles. No principal: an operator acts, who need not have seen a version.

    Raises `UserNotFound`, `Stale`, `UnknownRole`, `RoleNotYours`, `LastAdministrator`, `QuotaExceeded`.
    """
    async with database.tenant(tenant) as session:
        user = await _lock(session, user_id, seen)
        before, wanted = set(user.granted_roles), set(roles)
        granting.check(principal, before ^ wanted)
        had, user.granted_roles = set(user.roles), sorted(wanted)
        lost = had.difference(user.roles)
        if before != wanted:
            user.version += 1
            audit(
                session,
                principal,
                "user.roles",
                user.id,
                given=sorted(wanted - before),
                taken=sorted(before - wanted),
                **by_operator(principal),
            )
            if lost:
                await _close_sessions(session, user)
            if seats.ADMINISTRATOR in lost and user.active and user.last_sign_in_at:
                await seats.keep_an_administrator(session)
            await seats.take(session, seat_limit)
    if lost:
        await end_sessions_of(database, tenant, user_id, principal or operator(), "roles")
    return user


async def deactivate(
    database: Database, tenant: TenantScope, principal: Principal | None, user_id: UUID, seen: int | None
) -> User:
    """Let a person in no more. Again does no harm, and finishes what was interrupted. Raises `UserNotFound`, `Stale`,
    `LastAdministrator`."""
    async with database.tenant(tenant) as session:
        user = await _lock(session, user_id, seen)
        if user.active:
            await let_go(session, user)
            audit(session, principal, "user.deactivated", user.id, **by_operator(principal))
            if seats.ADMINISTRATOR in user.roles and user.last_sign_in_at:
                await seats.keep_an_administrator(session)
            await seats.give_back(session)
    await end_sessions_of(database, tenant, user_id, principal or operator(), "deactivated")
    return user


async def let_go(session: TenantSession, user: User) -> None:
    """Deactivate a locked user and ring for what follows from it, in this transaction. The caller audits, has the
    seats counted, and calls `end_sessions_of` afterwards, so that it does not wait for a worker."""
    user.active = False
    user.version += 1
    await _close_sessions(session, user)


async def _close_sessions(session: TenantSession, user: User) -> None:
    await session.execute(
        update(SignInSession)
        .where(SignInSession.user_id == user.id, SignInSession.revoked_at.is_(None))
        .values(revoked_at=utcnow())
    )
    await session.execute(RING, {"kind": GONE})


async def activate(
    database: Database,
    tenant: TenantScope,
    principal: Principal | None,
    user_id: UUID,
    seen: int | None,
    seat_limit: int,
) -> User:
    """Let a person in again. Raises `UserNotFound`, `Stale`, `QuotaExceeded`."""
    async with database.tenant(tenant) as session:
        user = await _lock(session, user_id, seen)
        if not user.active:
            granting.check(principal, user.granted_roles)
            user.active = True
            user.version += 1
            audit(session, principal, "user.activated", user.id, **by_operator(principal))
            await seats.take(session, seat_limit)
    return user


async def tell_of_ended_sessions(database: Database, tenant: TenantScope) -> None:
    """Have every process refuse the tokens of sessions that were ended, also where whoever ended them did not come to
    it: a part of the handler of `GONE`."""
    async with database.tenant(tenant) as session:
        ended = select(SignInSession.id, SignInSession.expires_at).where(
            SignInSession.revoked_at.is_not(None), SignInSession.expires_at > utcnow()
        )
        until = {row.id: row.expires_at for row in await session.execute(ended)}
    if until:
        async with database.control() as control:
            await revoke_sessions(control, tenant.key, until)
