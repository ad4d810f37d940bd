"""What follows from a directory's change once it is committed: sessions end."""

from sqlalchemy import ARRAY, Uuid, any_, literal, select

from auth.connections.models import Connection
from auth.people.models import SignInSession
from auth.people.service import end_sessions_of
from auth.scim.storage import Storage
from core.access import Principal
from core.clock import utcnow
from core.database import Database
from tenants.directory.models import Tenant


async def end_sessions(database: Database, by: Principal, done: Storage) -> None:
    """End all sessions of who was shut out, and of who left a group that brings a role: tokens carry roles."""
    for user_id in done.deactivated:
        await end_sessions_of(database, by.tenant, user_id, by, "deactivated by the directory")
    if not any(done.out_of_groups.values()):
        return
    async with database.control() as control:
        connections = select(Connection.role_mapping).join(Tenant, Tenant.id == Connection.tenant_id)
        mappings = (await control.scalars(connections.where(Tenant.key == by.tenant.key))).all()
    gone = {
        user_id
        for name, people in done.out_of_groups.items()
        if any(name in mapping for mapping in mappings)
        for user_id in people
    }
    async with database.tenant(by.tenant) as session:
        signed_in = select(SignInSession.user_id).where(
            SignInSession.user_id == any_(literal(list(gone), ARRAY(Uuid()))),
            SignInSession.expires_at > utcnow(),
        )
        affected = set(await session.scalars(signed_in)) if gone else set()
    for user_id in affected:
        await end_sessions_of(database, by.tenant, user_id, by, "left a group of the directory")
