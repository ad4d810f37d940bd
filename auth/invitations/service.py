"""Inviting people: a user with roles and a seat is there at once, and waits for whom the identity provider vouches for.

No mail is sent. Whoever invites hands on the address, which works once; but as long as the invitation holds, an
ordinary sign-in with the invited e-mail address is as good.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import RowMapping, delete, func, select

from auth.invitations.errors import AlreadyKnown, InvitationInvalid, InvitationNotFound
from auth.invitations.models import Invitation
from auth.oauth.service import hash_secret
from auth.people import granting, seats
from auth.people.models import User
from core.access import Principal
from core.clock import utcnow
from core.database import TenantSession
from tenants.audit.service import audit, by_operator
from tenants.plans import seats as seat_use

_VIEW = select(
    Invitation.id,
    Invitation.user_id,
    User.email,
    User.granted_roles.label("roles"),
    Invitation.anybody,
    Invitation.invited_by,
    Invitation.created_at,
    Invitation.expires_at,
).join(User, User.id == Invitation.user_id)


@dataclass(frozen=True)
class Wish:
    """Whom to invite: see `NewInvitation`."""

    email: str
    roles: Sequence[str]
    display_name: str | None = None
    anybody: bool = False


def invitation_url(origin: str, token: str) -> str:
    return f"{origin}/auth/invitation/{token}"


async def invite(
    session: TenantSession, principal: Principal | None, wish: Wish, *, life: timedelta, seat_limit: int
) -> tuple[UUID, str]:
    """Invite somebody, or anew who was invited before and has not come: the former address is void then. Returns the
    invitation's id and the token of its address. No principal: an operator invites.

    Raises `AlreadyKnown`, `RoleNotYours`, `UnknownRole`, `QuotaExceeded`.
    """
    granting.check(principal, wish.roles)
    same_address = func.lower(User.email) == wish.email.lower()
    waiting = select(User).where(same_address, User.external_id.is_(None), User.invited_at.is_not(None))
    user = await session.scalar(waiting.order_by(User.id).limit(1).with_for_update())
    await seat_use.lock(session)  # two who invite the same person at once do so one after the other
    others = select(User.id).where(same_address)
    known = await session.scalar((others.where(User.id != user.id) if user else others).limit(1))
    if known is not None:
        raise AlreadyKnown("Give them the roles, or activate them, instead.", user_id=str(known))
    if user is None:
        user = User(email=wish.email, display_name=wish.display_name or wish.email)
        session.add(user)
    user.display_name = wish.display_name or user.display_name
    user.granted_roles, user.active, user.invited_at = sorted(set(wish.roles)), True, utcnow()
    await session.flush()
    await session.execute(delete(Invitation).where(Invitation.user_id == user.id))
    token = secrets.token_urlsafe(32)
    invitation = Invitation(
        user_id=user.id,
        token_hash=hash_secret(token),
        anybody=wish.anybody,
        invited_by=principal.subject if principal else None,
        expires_at=utcnow() + life,
    )
    session.add(invitation)
    audit(
        session,
        principal,
        "user.invited",
        user.id,
        roles=user.granted_roles,
        anybody=wish.anybody,
        **by_operator(principal),
    )
    await seats.take(session, seat_limit)
    return invitation.id, token


async def list_invitations(session: TenantSession, limit: int, after: UUID | None) -> Sequence[RowMapping]:
    """At most `limit` invitations that nobody has followed, lapsed ones included, newest first, as rows of
    `InvitationOut`."""
    query = _VIEW.order_by(Invitation.id.desc()).limit(limit)
    return (await session.execute(query.where(Invitation.id < after) if after else query)).mappings().all()


async def read_invitation(session: TenantSession, invitation_id: UUID) -> RowMapping:
    """Raises `InvitationNotFound`."""
    row = (await session.execute(_VIEW.where(Invitation.id == invitation_id))).mappings().one_or_none()
    if row is None:
        raise InvitationNotFound("Nobody waits by this id; it may have been followed or revoked.")
    return row


async def revoke(session: TenantSession, principal: Principal | None, invitation_id: UUID) -> None:
    """Take an invitation back. Of the user, who never came, nothing stays but the id. Raises `InvitationNotFound`."""
    user_id = await session.scalar(select(Invitation.user_id).where(Invitation.id == invitation_id))
    user = await session.get(User, user_id, with_for_update=True) if user_id else None
    if user is None or user.external_id is not None:
        raise InvitationNotFound("Nobody waits by this id; it may have been followed or revoked.")
    await session.execute(delete(Invitation).where(Invitation.id == invitation_id))
    user.active, user.email, user.display_name, user.granted_roles = False, None, "", []
    audit(session, principal, "user.invitation-revoked", user.id, **by_operator(principal))
    await seats.give_back(session)


async def find_by_token(session: TenantSession, token: str) -> tuple[Invitation, User]:
    """The invitation of an address, which stays as it is. Raises `InvitationInvalid`."""
    query = (
        select(Invitation, User)
        .join(User, User.id == Invitation.user_id)
        .where(
            Invitation.token_hash == hash_secret(token),
            Invitation.expires_at > utcnow(),
            User.external_id.is_(None),
            User.active,
        )
    )
    row = (await session.execute(query)).one_or_none()
    if row is None:
        raise InvitationInvalid(
            "It was used, revoked, or not used in time. Ask whoever invited you for another."
        )
    return row.Invitation, row.User
