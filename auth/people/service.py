"""Verbs on people and their sign-ins."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert

from auth.connections.domains import domain_of
from auth.connections.errors import SignInRefused
from auth.connections.models import Connection
from auth.invitations.acceptance import find_accepting
from auth.invitations.models import Invitation
from auth.people import seats
from auth.people.errors import UserNotFound
from auth.people.models import SignInSession, User
from auth.scim.models import Group, GroupMember
from core.access import Principal
from core.clock import utcnow
from core.database import Database, TenantScope, TenantSession
from core.ids import new_id
from tenants.audit.service import audit
from tenants.directory.service import revoke_sessions
from tenants.plans.errors import QuotaExceeded

CODE_LIFE = timedelta(seconds=60)
"""A sign-in that its client app has not taken up by then is over."""

GONE = "user-deactivated"
"""The kind of doorbell that has ended sessions told to every process, and a deactivated person's work handed back."""

RING = text("SELECT doorbell.ring(:kind, now())")

LOCAL_LIFE = timedelta(hours=1)
"""The longest that a sign-in without an identity provider goes on."""


async def sign_in(
    session: TenantSession,
    *,
    connection: Connection,
    external_id: str,
    email: str | None,
    display_name: str | None,
    roles: list[str],
    seat_limit: int,
    client_id: UUID,
    provider_session: str | None = None,
) -> SignInSession:
    """Start a session for somebody whom the connection's identity provider vouched for: see `admit`. A connection for
    patients gives no other role than `patient`. Raises `SignInRefused`."""
    user = await admit(
        session,
        connection=connection,
        external_id=external_id,
        email=email,
        display_name=display_name,
        roles=roles,
        seat_limit=seat_limit,
    )
    allowed = allowed_roles(connection, user.roles)
    if not allowed:
        raise SignInRefused(
            "login.no-role", "none of the person's groups is mapped to a role, and none was granted"
        )
    started = SignInSession(
        user_id=user.id,
        client_id=client_id,
        connection_id=connection.id,
        provider_session=provider_session,
        roles=allowed,
        expires_at=utcnow() + CODE_LIFE,
    )
    session.add(started)
    await session.flush()
    return started


def allowed_roles(connection: Connection, roles: Sequence[str]) -> list[str]:
    """Those of a person's roles that a session through this connection may have."""
    return [role for role in roles if connection.audience == "staff" or role == "patient"]


async def admit(
    session: TenantSession,
    *,
    connection: Connection,
    external_id: str,
    email: str | None,
    display_name: str | None,
    roles: list[str],
    seat_limit: int,
    invitation_id: UUID | None = None,
) -> User:
    """Who it is that the connection's identity provider vouched for: known from before, invited under this e-mail
    address or by the invitation whose address they followed, or made known now if the connection allows it. `roles`
    are what the provider's groups brought; those that were granted here come on top. Who is new takes a seat.

    Raises `SignInRefused`.
    """
    user = await _known_user(session, connection, external_id, email, invitation_id)
    seated = user is not None and seats.takes_one(user.roles)
    if user is None:
        if connection.provision == "invited":
            raise SignInRefused(
                "login.not-invited", "the person is not known here, and the connection makes nobody known"
            )
        user = await _make_known(session, connection.id, external_id, email or external_id)
    if not user.active:
        raise SignInRefused("login.deactivated", "the person was deactivated here")
    user.email = email or user.email
    user.display_name = display_name or user.display_name
    user.mapped_roles = sorted({*roles, *await roles_by_groups(session, connection, user.id)})
    user.last_sign_in_at = utcnow()
    if seats.takes_one(user.roles) and not seated:
        try:
            await seats.take(session, seat_limit)
        except QuotaExceeded:
            raise SignInRefused("login.no-seat", "all seats of the organisation's plan are taken") from None
    return user


async def _known_user(
    session: TenantSession,
    connection: Connection,
    external_id: str,
    email: str | None,
    invitation_id: UUID | None,
) -> User | None:
    """Who is called `external_id` by the connection, or else was invited, or brought by the tenant's directory under
    that name or address, and is bound to it from now on."""
    known = select(User).where(User.connection_id == connection.id, User.external_id == external_id)
    user: User | None = await session.scalar(known.with_for_update())
    if email is not None and connection.email_domains and domain_of(email) not in connection.email_domains:
        email = None  # about other domains it is not believed
    if invitation_id is not None:
        if user is not None:
            raise SignInRefused("invitation.known-already", "who signed in is another of the people already")
        invited = await find_accepting(session, invitation_id, email)
        await _bind(session, invited, connection, external_id)
        return invited
    # Patients sign themselves up where they please; an address that they show there makes nobody a physician here.
    if user is not None or connection.audience == "patients":
        return user
    believed = [
        name
        for name in (external_id, email)
        if name and (not connection.email_domains or domain_of(name) in connection.email_domains)
    ]
    brought = or_(
        func.lower(User.user_name).in_([name.lower() for name in believed]),
        User.scim_external_id.in_(believed),
    )
    by_email = func.lower(User.email).in_([email.lower()] if email else [])
    waiting = select(User).where(
        User.external_id.is_(None),
        or_(by_email & seats.not_lapsed(), User.provisioned_at.is_not(None) & brought),
    )
    found = (await session.scalars(waiting.limit(2).with_for_update())).all()
    if len(found) > 1:
        raise SignInRefused("login.ambiguous-email", "several people here have this name or e-mail address")
    for user in found:
        await _bind(session, user, connection, external_id)
    return found[0] if found else None


async def _bind(session: TenantSession, user: User, connection: Connection, external_id: str) -> None:
    user.connection_id, user.external_id = connection.id, external_id
    await session.execute(delete(Invitation).where(Invitation.user_id == user.id))


async def roles_by_groups(session: TenantSession, connection: Connection, user_id: UUID) -> set[str]:
    """What the connection makes of the groups in which the tenant's directory has put somebody."""
    names = select(Group.display_name).join(GroupMember).where(GroupMember.user_id == user_id)
    mapping = connection.role_mapping
    return {mapping[name] for name in await session.scalars(names) if name in mapping}


async def _make_known(session: TenantSession, known_by: UUID, external_id: str, display_name: str) -> User:
    made = insert(User).values(
        id=new_id(), connection_id=known_by, external_id=external_id, display_name=display_name
    )
    # Twice at once is the same person: the second waits for the first, and changes nothing.
    same = made.on_conflict_do_update(
        index_elements=["connection_id", "external_id"], set_={"external_id": external_id}
    )
    return (await session.execute(same.returning(User))).scalar_one()


async def vouched_patient(session: TenantSession, client_id: UUID, external_id: str) -> User:
    """The patient whom a machine client (by its row's id) calls `external_id`, made known if need be. The name is that
    client's alone, as an identity provider's are those of its connection."""
    user = await _make_known(session, client_id, external_id, external_id)
    if user.mapped_roles != ["patient"]:
        user.mapped_roles = ["patient"]
    return user


async def end_session(
    database: Database, tenant: TenantScope, session_id: UUID, by: Principal | str | None, reason: str
) -> int:
    """End one sign-in session; see `end_sessions_of`."""
    return await _end(database, tenant, SignInSession.id == session_id, by, reason)


async def end_sessions_of(
    database: Database, tenant: TenantScope, user_id: UUID, by: Principal | str | None, reason: str
) -> int:
    """End all sign-in sessions of a user: a second later no process takes a token of theirs any more.

    Call it when what makes it necessary is committed, such as the user's deactivation. Again does no harm, and
    finishes what was interrupted. Returns how many sessions were still open. To the audit log go `reason` and `by`:
    whoever is signed in, the name of an operator, or None for the gateway itself.
    """
    return await _end(database, tenant, SignInSession.user_id == user_id, by, reason)


async def end_sessions_through(
    database: Database, tenant: TenantScope, client_id: UUID, by: Principal | str | None, reason: str
) -> int:
    """End all sign-in sessions of a client by its row's id; see `end_sessions_of`."""
    return await _end(database, tenant, SignInSession.client_id == client_id, by, reason)


async def end_provider_sessions(
    database: Database,
    tenant: TenantScope,
    connection_ids: Sequence[UUID],
    external_id: str,
    provider_sessions: Sequence[str],
    reason: str,
) -> int:
    """End the sessions of the person whom the provider of these connections calls `external_id`: those that it calls
    `provider_sessions`, or all that began there; see `end_sessions_of`."""
    person = select(User.id).where(User.connection_id.in_(connection_ids), User.external_id == external_id)
    which = SignInSession.user_id.in_(person) & SignInSession.connection_id.in_(connection_ids)
    if provider_sessions:
        which &= SignInSession.provider_session.in_(provider_sessions)
    return await _end(database, tenant, which, None, reason)


async def _end(
    database: Database,
    tenant: TenantScope,
    which: ColumnElement[bool],
    by: Principal | str | None,
    reason: str,
) -> int:
    async with database.tenant(tenant) as session:
        until, opened = await close_sessions(session, which, by, reason)
    if until:  # also those that were ended before: whoever ended them may not have come to this
        async with database.control() as control:
            await revoke_sessions(control, tenant.key, until)
    return opened


async def close_sessions(
    session: TenantSession, which: ColumnElement[bool], by: Principal | str | None, reason: str
) -> tuple[dict[UUID, datetime], int]:
    """The first half of ending sessions: when the tokens of each die, and how many were still open. Should a crash come
    between the halves, the doorbell that this rings has a worker do the second."""
    query = select(SignInSession).where(which, SignInSession.expires_at > utcnow()).with_for_update()
    rows = (await session.scalars(query)).all()
    opened = [row for row in rows if row.revoked_at is None]
    for row in opened:
        row.revoked_at = utcnow()
        who, operator = (None, {"operator": by}) if isinstance(by, str) else (by, {})
        audit(session, who, "session.ended", row.id, reason=reason, **operator)
    if opened:
        await session.execute(RING, {"kind": GONE})
    return {row.id: row.expires_at for row in rows}, len(opened)


async def get_user(session: TenantSession, user_id: UUID) -> User:
    """Raises `UserNotFound`."""
    user = await session.get(User, user_id)
    if user is None:
        raise UserNotFound("No user of this tenant has this id.")
    return user


async def find_by_email(session: TenantSession, email: str) -> User:
    """The one person with this address. Raises `UserNotFound`, also where there are several."""
    found = (
        await session.scalars(select(User).where(func.lower(User.email) == email.lower()).limit(2))
    ).all()
    if len(found) != 1:
        raise UserNotFound(
            "Several people have this address; name one by id." if found else "Nobody here has this address."
        )
    return found[0]


async def list_users(session: TenantSession, *, after: UUID | None, limit: int) -> Sequence[User]:
    """Users, newest first, `limit + 1` of them."""
    query = select(User).order_by(User.id.desc()).limit(limit + 1)
    return (await session.scalars(query.where(User.id < after) if after else query)).all()
