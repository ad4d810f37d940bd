"""What an operator says about a tenant's SAML connection."""

from collections.abc import Mapping
from typing import Any

from auth.connections.errors import BadConnection
from auth.connections.models import Connection
from auth.connections.settings import find_connection, new_connection, put_connection
from auth.saml.idp_metadata import check_address
from auth.saml.models import SamlConnection
from core.database import ControlSession
from core.ids import new_id
from tenants.directory.models import Tenant
from tenants.directory.service import find_tenant

POLICIES = (
    *("require_encryption", "allow_cbc", "refuse_expired_certificates"),
    *("allow_idp_initiated", "start_url"),
)


async def set_connection(
    session: ControlSession,
    slug: str,
    *,
    name: str = "main",
    idp_entity_id: str,
    sso_url: str,
    certificates: list[str],
    role_mapping: dict[str, str] | None = None,
    common: Mapping[str, Any] = {},
    **particulars: Any,
) -> Connection:
    """Name a tenant's identity provider and what its groups may do; `common` are columns of `Connection` and
    `particulars` of `SamlConnection` beyond. What is not named stays as it was. Raises `BadConnection`.

    Another provider under the same name is another connection to the people: what it calls them means nothing of
    whom the former one called so.
    """
    if not certificates:
        raise BadConnection("Give at least one signing certificate of the identity provider.")
    tenant = await find_tenant(session, slug, lock=True)
    connection = await find_connection(session, tenant, name, "saml")
    if connection is None:
        connection = new_connection(
            tenant, name, "saml", groups="groups", email="email", full_name="displayName"
        )
    row = await session.get(SamlConnection, (tenant.id, connection.id))
    if row is not None and row.idp_entity_id != idp_entity_id:
        particulars = {policy: getattr(row, policy) for policy in POLICIES} | particulars
        await session.delete(row)
        await session.flush()
        row, connection.id = None, new_id()
    await put_connection(session, tenant, connection, **{"role_mapping": role_mapping, **common})
    if row is None:
        row = SamlConnection(tenant_id=tenant.id, id=connection.id)
        session.add(row)
    particulars |= {"idp_entity_id": idp_entity_id, "sso_url": sso_url, "certificates": certificates}
    _set_particulars(row, particulars)
    await session.flush()
    return connection


async def change_connection(
    session: ControlSession,
    slug: str,
    name: str,
    *,
    common: Mapping[str, Any],
    particulars: Mapping[str, Any],
) -> Connection:
    """Change what is named of a connection that is there, and leave its identity provider. Raises `BadConnection`."""
    tenant = await find_tenant(session, slug, lock=True)
    found = await find_saml(session, tenant, name)
    if found is None:
        raise BadConnection("There is no such connection yet: give the identity provider's metadata.")
    connection, row = found
    await put_connection(session, tenant, connection, **common)
    _set_particulars(row, particulars)
    await session.flush()
    return connection


def _set_particulars(row: SamlConnection, particulars: Mapping[str, Any]) -> None:
    for column, value in particulars.items():
        setattr(row, column, value)
    for url in (row.sso_url, row.logout_url, row.logout_response_url, row.start_url):
        check_address(url)
    if row.allow_idp_initiated and not row.start_url:
        raise BadConnection("Give the page of the client app that starts its sign-in.")


async def find_saml(
    session: ControlSession, tenant: Tenant, name: str
) -> tuple[Connection, SamlConnection] | None:
    """The tenant's SAML connection of this name, if there is one. Raises `BadConnection`."""
    connection = await find_connection(session, tenant, name, "saml")
    if connection is None:
        return None
    return connection, await session.get_one(SamlConnection, (tenant.id, connection.id))
