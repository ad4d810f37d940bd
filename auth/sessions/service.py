"""Sign-in sessions that go on: seen, and ended by their person or an administrator."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select

from auth.oauth.models import OAuthClient, RefreshToken
from auth.people.models import SignInSession
from auth.people.service import end_session, get_user
from auth.sessions.errors import SessionNotFound
from core.access import Principal
from core.clock import utcnow
from core.database import Database, TenantScope, TenantSession


async def list_sessions(
    session: TenantSession, user_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[Row[*tuple[Any, ...]]]:
    """A user's open sessions, newest first, `limit + 1` of them. Raises `UserNotFound`."""
    await get_user(session, user_id)
    query = (
        select(
            SignInSession.id,
            SignInSession.user_id,
            OAuthClient.client_id,
            OAuthClient.name.label("client_name"),
            SignInSession.roles,
            SignInSession.created_at,
            func.coalesce(RefreshToken.updated_at, SignInSession.created_at).label("last_used_at"),
            SignInSession.expires_at,
        )
        .join(OAuthClient, OAuthClient.id == SignInSession.client_id)
        .outerjoin(RefreshToken, RefreshToken.session_id == SignInSession.id)
        .where(
            SignInSession.user_id == user_id,
            SignInSession.revoked_at.is_(None),
            SignInSession.expires_at > utcnow(),
        )
        .order_by(SignInSession.id.desc())
        .limit(limit + 1)
    )
    return (await session.execute(query.where(SignInSession.id < after) if after else query)).all()


async def end_one(
    database: Database, tenant: TenantScope, user_id: UUID, session_id: UUID, by: Principal | str
) -> int:
    """End one of a user's sessions; returns 0 if it had ended. Raises `SessionNotFound`."""
    async with database.tenant(tenant) as session:
        found = await session.get(SignInSession, session_id)
    if found is None or found.user_id != user_id:
        raise SessionNotFound("No sign-in session of this person has this id.")
    reason = "by-its-person" if isinstance(by, Principal) and user_id == by.subject else "by-administrator"
    return await end_session(database, tenant, session_id, by, reason)
