"""What an operator says about a connection, whatever its protocol."""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from auth.connections.domains import canonical_domain
from auth.connections.errors import BadConnection
from auth.connections.models import Connection
from auth.roles import ROLES
from core.database import ControlSession
from core.ids import new_id
from tenants.audit.service import record
from tenants.directory.models import Tenant
from tenants.directory.service import next_epoch

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


async def list_connections(session: ControlSession, tenant: Tenant) -> Sequence[Connection]:
    """All connections of a tenant, by name."""
    query = select(Connection).where(Connection.tenant_id == tenant.id)
    return (await session.scalars(query.order_by(Connection.name))).all()


async def find_connection(
    session: ControlSession, tenant: Tenant, name: str, kind: str | None = None
) -> Connection | None:
    """The tenant's connection of this name, if there is one. Raises `BadConnection` where it is of another kind."""
    query = select(Connection).where(Connection.tenant_id == tenant.id, Connection.name == name)
    connection = await session.scalar(query)
    if connection is not None and kind not in (None, connection.kind):
        raise BadConnection(f"The connection {name!r} is of the kind {connection.kind}; choose another name.")
    return connection


def new_connection(
    tenant: Tenant, name: str, kind: str, *, groups: str, email: str, full_name: str
) -> Connection:
    """One that admits nobody yet; `groups`, `email` and `full_name` are what providers of this kind usually call
    these attributes."""
    return Connection(
        id=new_id(),
        tenant_id=tenant.id,
        name=name,
        kind=kind,
        audience="staff",
        email_domains=[],
        role_mapping={},
        default_roles=[],
        groups_attribute=groups,
        email_attribute=email,
        name_attribute=full_name,
        provision="create",
        enabled=True,
    )


async def put_connection(
    session: ControlSession, tenant: Tenant, connection: Connection, **changes: Any
) -> None:
    """Set what `changes` names on a connection of the locked `tenant`, new or not; what is None stays as it is.
    Raises `BadConnection`."""
    for name, value in changes.items():
        if value is not None:
            setattr(connection, name, value)
    if not _NAME.fullmatch(connection.name):
        raise BadConnection("A connection's name is 1 to 63 lowercase letters, digits and hyphens.")
    roles = {*connection.role_mapping.values(), *connection.default_roles}
    if unknown := sorted(roles - set(ROLES)):
        raise BadConnection(f"No role is called {', '.join(unknown)}; there are {', '.join(ROLES)}.")
    if connection.audience == "patients" and roles - {"patient"}:
        raise BadConnection("A connection for patients gives no other role than `patient`.")
    connection.email_domains = sorted(map(_domain, connection.email_domains))
    for other in await list_connections(session, tenant):
        taken = set(other.email_domains).intersection(connection.email_domains)
        if other.id != connection.id and taken:
            raise BadConnection(f"The connection {other.name!r} has the domain {', '.join(sorted(taken))}.")
    session.add(connection)
    tenant.epoch = await next_epoch(session)
    record(session, tenant, f"sso.{connection.kind}.set", connection=connection.name)
    await session.flush()


async def remove_connection(session: ControlSession, tenant: Tenant, connection: Connection) -> None:
    """Forget a connection. Its people stay known here; a later connection of the same name does not know them."""
    await session.delete(connection)
    tenant.epoch = await next_epoch(session)
    record(session, tenant, f"sso.{connection.kind}.remove", connection=connection.name)
    await session.flush()


def _domain(name: str) -> str:
    try:
        return canonical_domain(name)
    except ValueError:
        raise BadConnection(f"{name!r} is not an e-mail domain.") from None
