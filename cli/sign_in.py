"""What commands need that check sign-ins at a tenant as the gateway does: its database, keys, addresses and workers."""

import base64
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.run import admin_database, settings

if TYPE_CHECKING:
    from auth.connections.service import SignIn
    from auth.keys.masters import MasterKeys
    from auth.keys.service import KeyRing
    from auth.saml.service import SignInJail
    from core.database import AdminDatabase, Database
    from tenants.directory.models import Tenant


@dataclass(frozen=True)
class SignInParts:
    """A tenant, and the parts that check its sign-ins."""

    tenant: "Tenant"
    where: "SignIn"
    admin: "AdminDatabase"
    database: "Database"
    masters: "MasterKeys"
    keys: "KeyRing"
    jail: "SignInJail"


@asynccontextmanager
async def sign_in_parts(slug: str) -> AsyncIterator[SignInParts]:
    """The parts, closed at the end. Raises `TenantNotFound`."""
    from auth.connections.service import SignIn
    from auth.keys.service import KeyRing
    from auth.saml.service import SignInJail
    from gateway.assembly import master_keys, open_database
    from tenants.directory.cache import Directory
    from tenants.directory.service import find_tenant

    configured = settings()
    database = open_database(configured)
    jail = SignInJail(1, preload=("auth.saml.validation",))
    try:
        async with (
            admin_database(configured) as admin,
            aclosing(master_keys(configured, database.control)) as masters,
        ):
            async with admin.control() as session:
                tenant = await find_tenant(session, slug)
            where = SignIn(tenant.scope, configured.origin_of(tenant.home_host))
            keys = KeyRing(database, masters, Directory(database))
            yield SignInParts(tenant, where, admin, database, masters, keys, jail)
    finally:
        jail.close()
        await database.close()


def encoded(captured: bytes) -> str:
    """A captured response, base64 or XML, as the browser would send it."""
    xml = captured.lstrip().startswith(b"<")
    return base64.b64encode(captured).decode() if xml else captured.decode("ascii", "replace")
