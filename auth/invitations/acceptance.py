"""Becoming the user that somebody was invited as."""

from uuid import UUID

from sqlalchemy import select

from auth.connections.errors import SignInRefused
from auth.invitations.models import Invitation
from auth.people.models import User
from core.clock import utcnow
from core.database import TenantSession


async def find_accepting(session: TenantSession, invitation_id: UUID, email: str | None) -> User:
    """The user, locked, that somebody becomes who followed the invitation's address and for whose address `email` the
    identity provider vouches. Raises `SignInRefused`."""
    user: User | None = await session.scalar(
        select(User)
        .join(Invitation, Invitation.user_id == User.id)
        .where(Invitation.id == invitation_id, Invitation.expires_at > utcnow(), User.external_id.is_(None))
        .with_for_update(of=User)
    )
    # Asked for again, under the lock: whoever came first has deleted it.
    invitation = await session.get(Invitation, invitation_id)
    if user is None or invitation is None:
        raise SignInRefused("invitation.gone", "the invitation was used, revoked or has lapsed meanwhile")
    if not invitation.anybody and (email is None or email.lower() != (user.email or "").lower()):
        raise SignInRefused("invitation.other-address", "the provider does not vouch for the invited address")
    return user
