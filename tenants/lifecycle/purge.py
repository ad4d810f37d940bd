"""Destroying a tenant's data, in steps that a crash between any two of them does not harm.

First nobody can become the tenant's role any more; then schema, container and keys go, each counted before; what is
left is the tenant's row, its hosts (so that nobody else ever gets them), its use for the last invoice, the platform's
audit log, and a certificate.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from sqlalchemy import delete, select

from core.blobs import BlobNotFound, BlobStores
from core.clock import utcnow
from core.database import AdminDatabase, ControlSession
from tenants.audit.service import actor_of, record
from tenants.directory.errors import WrongState
from tenants.directory.models import Host, Tenant
from tenants.directory.service import find_tenant, move
from tenants.domains.models import DomainClaim
from tenants.lifecycle.errors import GraceNotOver
from tenants.lifecycle.models import Deletion
from tenants.lifecycle.service import find_deletion
from tenants.moving.errors import MoveUnfinished
from tenants.moving.service import is_moving
from tenants.plans.models import QuotaOverride
from tenants.provisioning.models import ProvisioningStep
from tenants.provisioning.roles import OWNER

LOCK_TIMEOUT_MS = 10_000
CERTIFICATE_TYPE = "deletion-certificate+jws"

# Deletes what other rooms keep of a tenant in the control schema, its keys before all.
Forget = Callable[[ControlSession, Tenant], Awaitable[None]]
# A JWS over a certificate.
Sign = Callable[[ControlSession, bytes], Awaitable[str]]


async def purge(
    database: AdminDatabase,
    stores: BlobStores,
    slug: str,
    *,
    forget: Forget,
    sign: Sign,
    now: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> str:
    """Purge a closing tenant, or go on with it, and return the certificate; `now` does not wait for the grace period.
    Idempotent. `progress` hears each step as it is finished.

    Raises `TenantNotFound`, `WrongState`, `MoveUnfinished`, `GraceNotOver`, and what database and store raise; then run it again.
    """
    async with database.control() as session:
        key = (await find_tenant(session, slug)).key
    async with database.one_at_a_time("purge", key):
        async with database.control() as session:
            tenant, deletion = await _begin(session, key, now)
        if deletion.certificate is not None:
            return deletion.certificate
        async with database.connection(tenant.cell) as there:
            await _lock_out(there, tenant)
            progress("role")
            await _drop_schema(database, there, tenant)
            progress("schema")
        await _delete_blobs(database, stores, tenant)
        progress("container")
        async with database.control() as session:
            await forget(session, tenant)
            for kept in (QuotaOverride, ProvisioningStep, DomainClaim):
                await session.execute(delete(kept).where(kept.tenant_id == tenant.id))
        for cell in database.cells:  # it may have rung in others before it was moved
            async with database.connection(cell) as there:
                await there.execute("DELETE FROM control.doorbells WHERE tenant_key = $1", tenant.key)
        progress("keys")
        async with database.control() as session:
            certificate = await _certify(session, tenant, sign)
        progress("certificate")
        return certificate


async def _begin(session: ControlSession, slug: str, now: bool) -> tuple[Tenant, Deletion]:
    tenant = await find_tenant(session, slug, lock=True)
    deletion = await find_deletion(session, tenant)
    if deletion is not None:
        return tenant, deletion
    if tenant.state != "closing" or tenant.purge_after is None:
        raise WrongState(f"{tenant.slug} is {tenant.state}; close it before it is purged.")
    if await is_moving(session, tenant):
        raise MoveUnfinished(
            f"A move of {tenant.slug} is not over; reopen it, and finish the move or roll it back."
        )
    if not now and utcnow() < tenant.purge_after:
        raise GraceNotOver(
            f"{tenant.slug} can be purged from {tenant.purge_after:%Y-%m-%d %H:%M} UTC on, or with `--now`."
        )
    deletion = Deletion(tenant_id=tenant.id, ordered_by=actor_of(session))
    session.add(deletion)
    record(session, tenant, "tenant.purge-ordered", now=now)
    await session.flush()
    return tenant, deletion


async def _lock_out(connection: asyncpg.Connection, tenant: Tenant) -> None:
    """Take the tenant's role from every login: no transaction of the tenant can begin any more."""
    logins = await connection.fetch(
        "SELECT DISTINCT quote_ident(m.rolname) AS name FROM pg_auth_members JOIN pg_roles r ON r.oid = roleid "
        "JOIN pg_roles m ON m.oid = member WHERE r.rolname = $1 AND m.rolname <> current_user",
        tenant.scope.role,
    )
    for login in logins:
        await connection.execute(f"REVOKE {tenant.scope.role} FROM {login['name']}")


async def _drop_schema(database: AdminDatabase, connection: asyncpg.Connection, tenant: Tenant) -> None:
    """Lock every table, count its rows, write the counts down at home, and drop them; then drop the role."""
    scope = tenant.scope
    async with connection.transaction():
        await connection.execute(
            f"SET LOCAL ROLE {OWNER}; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; SET LOCAL search_path = {scope.schema}"
        )
        tables = [
            row[0]
            for row in await connection.fetch(
                "SELECT tablename FROM pg_tables WHERE schemaname = $1", scope.schema
            )
        ]
        if tables:
            # Whoever was in a transaction when the role was taken away finishes first.
            await connection.execute(f"LOCK TABLE {', '.join(sorted(tables))} IN ACCESS EXCLUSIVE MODE")
            rows = {
                table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in sorted(tables)
            }
            digest = hashlib.sha256()

            async def add(lines: bytes) -> None:
                digest.update(lines)

            await connection.copy_from_query(
                "SELECT to_jsonb(e) FROM audit_events AS e ORDER BY id", output=add
            )
            async with database.control() as session:
                deletion = await find_deletion(session, tenant)
                assert deletion is not None
                deletion.rows, deletion.audit_sha256 = rows, digest.hexdigest()
            await connection.execute(f"DROP SCHEMA {scope.schema} CASCADE")
            # No migration looks for it any more.
            await connection.execute(
                "UPDATE control.tenants SET schema_revision = NULL WHERE id = $1", tenant.id
            )
    await connection.execute(f"DROP ROLE IF EXISTS {scope.role}")


async def _delete_blobs(database: AdminDatabase, stores: BlobStores, tenant: Tenant) -> None:
    async with database.control() as session:
        deletion = await find_deletion(session, tenant)
        assert deletion is not None
    if deletion.blobs is None:
        count = size = 0
        try:
            async for blob in stores.of(tenant.scope).list():
                count, size = count + 1, size + blob.size
        except BlobNotFound:
            pass  # no container: nothing was ever stored
        async with database.control() as session:
            counted = await session.get_one(Deletion, deletion.id)
            counted.blobs, counted.blob_bytes = count, size
    await stores.at(tenant.cell).delete_container(tenant.scope.container)


async def _certify(session: ControlSession, tenant: Tenant, sign: Sign) -> str:
    tenant = await session.get_one(Tenant, tenant.id, with_for_update=True)
    deletion = await find_deletion(session, tenant)
    assert deletion is not None
    hosts = await session.scalars(select(Host.host).where(Host.tenant_id == tenant.id).order_by(Host.host))
    told: dict[str, Any] = {
        "tenant": {"key": tenant.key, "slug": tenant.slug, "name": tenant.name},
        "hosts": list(hosts),
        "reason": tenant.state_reason,
        "ordered_by": deletion.ordered_by,
        "ordered_at": deletion.created_at.isoformat(),
        "completed_at": utcnow().isoformat(),
        "schema": tenant.scope.schema,
        "rows": deletion.rows,
        "container": tenant.scope.container,
        "blobs": {"count": deletion.blobs, "bytes": deletion.blob_bytes},
        "audit_events_sha256": deletion.audit_sha256,
        "keys": "destroyed",
    }
    deletion.certificate = await sign(session, json.dumps(told).encode())
    await move(session, tenant, sources=("closing",), target="closed", reason=tenant.state_reason)
    return deletion.certificate
