"""Everybody's last sign-in, kept so that a changed connection can be tried before it is used (`auth.connections.trying`).

The newest one of each person and connection, for thirty days, sealed by the tenant's data key and bound to tenant,
connection and person: moved to another row it does not open. It goes with the person's deactivation and the
connection's removal, and is left out of exports.
"""

import json
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from auth.connections.models import Connection, KeptSignIn
from auth.keys.errors import KeyMissing
from auth.keys.service import DataKey, KeyRing
from auth.people.models import User
from core import crypto
from core.clock import utcnow
from core.database import ControlSession, Database, TenantScope, TenantSession
from core.ids import new_id
from tenants.directory.models import Tenant

KEPT_FOR = timedelta(days=30)
_A_TIME = 200

Said = Mapping[str, Any]
"""What the provider said, as JSON can hold it: a protocol's own service writes it and reads it again."""


@dataclass(frozen=True)
class Kept:
    """One person's last sign-in. `said` is None where it does not open: its key is lost, or the row was changed."""

    user: User
    signed_in_at: datetime
    said: Said | None = field(repr=False)


async def keep(
    session: TenantSession, data_key: DataKey, connection: Connection, user_id: UUID, said: Said
) -> None:
    """Keep a sign-in that has just succeeded, in place of the person's one before."""
    if not connection.keep_sign_ins:
        return
    context = _context(session.tenant, connection.id, user_id)
    kept = {
        "signed_in_at": utcnow(),
        "key_id": data_key.id,
        "sealed": crypto.seal(data_key.secret, zlib.compress(json.dumps(said).encode()), context),
    }
    made = insert(KeptSignIn).values(id=new_id(), connection_id=connection.id, user_id=user_id, **kept)
    await session.execute(made.on_conflict_do_update(index_elements=["user_id", "connection_id"], set_=kept))


async def kept_sign_ins(
    database: Database, keys: KeyRing, tenant: TenantScope, connection_id: UUID
) -> AsyncIterator[Kept]:
    """What was kept of the active people of a connection within the last thirty days, some hundred in memory at a time."""
    after, since = UUID(int=0), utcnow() - KEPT_FOR
    while True:
        async with database.tenant(tenant) as session:
            query = (
                select(KeptSignIn, User)
                .join(User, User.id == KeptSignIn.user_id)
                .where(KeptSignIn.connection_id == connection_id, KeptSignIn.id > after)
                .where(KeptSignIn.signed_in_at > since, User.active)
                .order_by(KeptSignIn.id)
                .limit(_A_TIME)
            )
            rows = [(row, user) for row, user in await session.execute(query)]
        for row, user in rows:
            yield Kept(user, row.signed_in_at, await _opened(keys, tenant, row))
        if len(rows) < _A_TIME:
            return
        after = rows[-1][0].id


async def _opened(keys: KeyRing, tenant: TenantScope, row: KeptSignIn) -> Said | None:
    try:
        key = await keys.data_key_by_id(tenant, row.key_id)
        plain = crypto.unseal(key, row.sealed, _context(tenant, row.connection_id, row.user_id))
    except (KeyMissing, crypto.CannotOpen):
        return None
    said: Said = json.loads(zlib.decompress(plain))
    return said


async def forget_kept(control: ControlSession, session: TenantSession) -> None:
    """Delete what is older than thirty days, of people who were deactivated, and of connections that are removed or keep
    nothing any more."""
    keeping = (
        select(Connection.id)
        .join(Tenant, Tenant.id == Connection.tenant_id)
        .where(Tenant.key == session.tenant.key, Connection.keep_sign_ins)
    )
    connections = (await control.scalars(keeping)).all()
    gone = select(User.id).where(User.active.is_(False))
    await session.execute(
        delete(KeptSignIn).where(
            (KeptSignIn.signed_in_at <= utcnow() - KEPT_FOR)
            | KeptSignIn.connection_id.not_in(connections)
            | KeptSignIn.user_id.in_(gone)
        )
    )


async def forget_sealed_before(database: Database, tenant: TenantScope, key_id: UUID) -> None:
    """Delete what other keys than this one seal."""
    async with database.tenant(tenant) as session:
        await session.execute(delete(KeptSignIn).where(KeptSignIn.key_id != key_id))


def _context(tenant: TenantScope, connection_id: UUID, user_id: UUID) -> str:
    return f"sign-in|{tenant.key}|{connection_id}|{user_id}"
