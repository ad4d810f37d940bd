"""Identity providers' metadata, read again from where they publish it: never while somebody signs in, by the worker.

What is published anew takes effect only if it describes the same identity provider, and is signed where the tenant has
said by whom. A failure leaves what there is, and is told to whoever looks at the connection.
"""

import logging
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import update

from auth.connections.errors import BadConnection
from auth.connections.fetching import AddressRefused, Fetcher, ProviderUnreachable
from auth.connections.models import Connection
from auth.saml.errors import SamlRefused
from auth.saml.idp_metadata import MAX_BYTES, IdpMetadata, read_idp_metadata
from auth.saml.models import SamlConnection
from auth.saml.service import SignInJail, saml_connections
from auth.saml.validation import certificate_expires
from core.clock import utcnow
from core.database import Database, TenantScope
from tenants.audit.service import audit

log = logging.getLogger(__name__)

SAML_METADATA = "saml-metadata"
"""The kind of doorbell that has what is due read."""

CERTIFICATE_WARNING = timedelta(days=30)
SOONEST, LATEST = timedelta(hours=1), timedelta(days=1)


def due_at(metadata: IdpMetadata) -> datetime:
    """When to read it again: daily, and before the provider says that it is out of date, but not all the time."""
    fresh = LATEST if metadata.fresh_s is None else timedelta(seconds=metadata.fresh_s / 2)
    return utcnow() + min(max(fresh, SOONEST), LATEST)


async def refresh_metadata(
    database: Database, fetcher: Fetcher, jail: SignInJail, tenant: TenantScope
) -> None:
    """Read what is due of a tenant's connections: the handler of the doorbell kind `saml-metadata`."""
    due = SamlConnection.metadata_due_at <= utcnow()
    for connection, row in await saml_connections(database, tenant, due):
        try:
            metadata = await _read(fetcher, jail, row)
        except (AddressRefused, ProviderUnreachable, BadConnection) as problem:
            await _failed(database, tenant, connection, row, problem.detail)
        except SamlRefused as refusal:
            await _failed(
                database, tenant, connection, row, f"The metadata was not read: {refusal.explanation}."
            )
        else:
            await _renewed(database, tenant, connection, row, metadata)


def warnings_of(row: SamlConnection) -> list[str]:
    """What will keep people from signing in, or already does, and what to do, a line each."""
    now = utcnow()
    soon = now + CERTIFICATE_WARNING
    found = []
    for number, end in enumerate(map(certificate_expires, row.certificates), 1):
        if end <= soon:
            state = "ended" if end <= now else "ends"
            refused = " and is refused by policy" if end <= now and row.refuse_expired_certificates else ""
            found.append(
                f"certificate {number} of {len(row.certificates)} {state} on {end:%Y-%m-%d}{refused}; ask for the "
                "present metadata and give it to `dermadetect sso saml set`."
            )
    if row.metadata_failure:
        read = f"{row.metadata_read_at:%Y-%m-%d %H:%M}" if row.metadata_read_at else "never"
        found.append(f"its metadata cannot be read ({row.metadata_failure} Read last: {read}).")
    return found


async def _read(fetcher: Fetcher, jail: SignInJail, row: SamlConnection) -> IdpMetadata:
    assert row.metadata_url is not None  # else nothing would be due
    xml = await fetcher.fetch(row.metadata_url, at_most=MAX_BYTES)
    metadata = await jail.check(read_idp_metadata, xml, tuple(row.metadata_signers))
    if metadata.entity_id != row.idp_entity_id:
        raise BadConnection(
            "The metadata now describes another identity provider; connect it with `dermadetect sso saml set`."
        )
    return metadata


async def _renewed(
    database: Database,
    tenant: TenantScope,
    connection: Connection,
    row: SamlConnection,
    metadata: IdpMetadata,
) -> None:
    published: dict[str, Any] = {
        "sso_url": metadata.sso_url,
        "logout_url": metadata.logout_url,
        "logout_response_url": metadata.logout_response_url,
        "certificates": list(metadata.certificates),
    }
    changed = sorted(column for column, value in published.items() if getattr(row, column) != value)
    now = utcnow()
    read = {"metadata_read_at": now, "metadata_due_at": due_at(metadata), "metadata_failure": None}
    await _update(database, row, published | read)
    if changed:
        log.info("identity provider's metadata changed")
        async with database.tenant(tenant) as session:
            audit(
                session,
                None,
                "connection.metadata-changed",
                connection.id,
                name=connection.name,
                changed=changed,
            )


async def _failed(
    database: Database, tenant: TenantScope, connection: Connection, row: SamlConnection, why: str
) -> None:
    await _update(database, row, {"metadata_due_at": utcnow() + SOONEST, "metadata_failure": why})
    if why != row.metadata_failure:  # once, not every hour of a night
        log.warning("identity provider's metadata cannot be read")
        async with database.tenant(tenant) as session:
            audit(session, None, "connection.metadata-failed", connection.id, name=connection.name, why=why)


async def _update(database: Database, row: SamlConnection, values: dict[str, Any]) -> None:
    """Unless somebody has meanwhile named another address."""
    same = (SamlConnection.tenant_id == row.tenant_id, SamlConnection.id == row.id)
    async with database.control() as session:
        await session.execute(
            update(SamlConnection)
            .where(*same, SamlConnection.metadata_url == row.metadata_url)
            .values(**values)
        )
