"""Verbs on people and their sign-ins."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from auth.oauth.service import SESSION_LIFE
from auth.people.errors import UserNotFound
from auth.people.models import SignInSession, User
from core.clock import utcnow
from core.database import TenantSession
from core.ids import new_id


async def sign_in(
    session: TenantSession,
    *,
    connection: str,
    external_id: str,
    email: str | None,
    display_name: str,
    roles: list[str],
    client_id: UUID,
) -> SignInSession | None:
    """Start a session for somebody the identity provider vouched for, made known just in time or brought up to
    date. Returns None for a user who was deactivated here."""
    now = utcnow()
    changed = {"email": email, "display_name": display_name, "roles": roles, "last_sign_in_at": now}
    user = (
        await session.execute(
            insert(User)
            .values(id=new_id(), connection=connection, external_id=external_id, **changed)
            .on_conflict_do_update(index_elements=["connection", "external_id"], set_=changed)
            .returning(User)
        )
    ).scalar_one()
    if not user.active:
        return None
    started = SignInSession(user_id=user.id, client_id=client_id, roles=roles, expires_at=now + SESSION_LIFE)
    session.add(started)
    await session.flush()
    return started


async def end_session(session: TenantSession, session_id: UUID) -> datetime | None:
    """Mark a sign-in session revoked; again does no harm. Returns when its tokens expire at the latest, or None if
    there is no such session."""
    row = await session.get(SignInSession, session_id)
    if row is None:
        return None
    row.revoked_at = row.revoked_at or utcnow()
    await session.flush()
    return row.expires_at


async def get_user(session: TenantSession, user_id: UUID) -> User:
    """Raises `UserNotFound`."""
    user = await session.get(User, user_id)
    if user is None:
        raise UserNotFound("No user of this tenant has this id.")
    return user


async def list_users(session: TenantSession, *, after: UUID | None, limit: int) -> Sequence[User]:
    """Users, newest first, `limit + 1` of them."""
    query = select(User).order_by(User.id.desc()).limit(limit + 1)
    return (await session.scalars(query.where(User.id < after) if after else query)).all()
