"""A changed connection tried against the sign-ins that were kept, before anybody depends on it.

Each is checked and mapped twice, as the connection is and as it would be, as of the moment at which it came. What can
be used once only (the request, the assertion's id) was used then, and is not looked at again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from auth.connections.errors import SignInRefused
from auth.connections.keeping import Kept, Said
from auth.connections.models import Connection
from auth.connections.service import Asserted, mapped_roles
from auth.people.models import User
from auth.people.service import allowed_roles, roles_by_groups
from core.database import Database, TenantScope

Recall = Callable[[Said, datetime], Awaitable[Asserted]]
"""Who it is by a connection that said this at that time. Raises `SignInRefused`."""


@dataclass(frozen=True)
class Way:
    """A connection's columns that say what people may do, and how its protocol reads what was kept."""

    connection: Connection
    recall: Recall


@dataclass(frozen=True)
class Outcome:
    """What a sign-in comes to: roles, or the check that refuses it."""

    roles: tuple[str, ...] = ()
    refused_by: str | None = None


@dataclass(frozen=True)
class Difference:
    """What a change makes of one person's last sign-in."""

    user_id: UUID
    person: str
    signed_in_at: datetime
    before: Outcome
    after: Outcome

    @property
    def loses(self) -> list[str]:
        """The roles that the person has now and would not have."""
        return sorted(set(self.before.roles) - set(self.after.roles))

    @property
    def gains(self) -> list[str]:
        return sorted(set(self.after.roles) - set(self.before.roles))


UNREADABLE = "login.kept-unreadable"


async def differences(
    database: Database,
    tenant: TenantScope,
    kept: AsyncIterator[Kept],
    before: Way,
    after: Way,
) -> AsyncIterator[Difference]:
    """What the change from `before` to `after` makes of each of the sign-ins `kept`."""
    async for each in kept:
        user = each.user
        yield Difference(
            user.id,
            user.email or user.display_name,
            each.signed_in_at,
            await _outcome(database, tenant, before, user, each),
            await _outcome(database, tenant, after, user, each),
        )


async def _outcome(database: Database, tenant: TenantScope, way: Way, user: User, kept: Kept) -> Outcome:
    if kept.said is None:
        return Outcome(refused_by=UNREADABLE)
    if not way.connection.enabled:
        return Outcome(refused_by="login.connection-removed")
    try:
        person = await way.recall(kept.said, kept.signed_in_at)
    except SignInRefused as refusal:
        return Outcome(refused_by=refusal.check_id)
    async with database.tenant(tenant) as session:
        by_directory = await roles_by_groups(session, way.connection, user.id)
    roles = {*mapped_roles(way.connection, person.groups), *by_directory, *user.granted_roles}
    allowed = allowed_roles(way.connection, sorted(roles))
    return Outcome(tuple(allowed)) if allowed else Outcome(refused_by="login.no-role")
