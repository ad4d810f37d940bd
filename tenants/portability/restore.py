"""Making a tenant of a bundle: the steps that provisioning runs instead of its own.

The tenant is a new one with a key of its own, so a bundle can be restored beside the tenant that it came from, and a
restore that was interrupted is finished by running it again, or given up like any tenant half made.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import asyncpg

from core.blobs import BlobExists, BlobStores
from core.database import AdminDatabase, ControlSession
from tenants.directory.models import Tenant
from tenants.plans.models import QuotaOverride
from tenants.portability.bundle import Control, Manifest, chunks, read_blobs, read_control
from tenants.portability.errors import BundleRefused
from tenants.portability.tables import enter, portable_tables
from tenants.provisioning.service import Step

# Gives the tenant the identity provider and the keys of the bundle.
Scatter = Callable[[ControlSession, Tenant, Control], Awaitable[None]]


def restore_steps(
    database: AdminDatabase,
    stores: BlobStores,
    bundle: Path,
    manifest: Manifest,
    digest: str,
    *,
    make_schema: Callable[[Tenant], Awaitable[None]],
    upgrade: Callable[[Tenant], Awaitable[None]],
    make_keys: Callable[[Tenant], Awaitable[None]],
    scatter: Scatter,
    reseal: Callable[[Tenant], Awaitable[None]],
    leave_out: frozenset[str],
) -> list[Step]:
    """What makes a tenant of a verified bundle: its rows go into a schema of the revision that they had (`make_schema`),
    which is then brought to this release's (`upgrade`). The first step's name holds the bundle's `digest`, so that a tenant is
    never made of parts of two. Steps raise `BundleRefused`."""

    async def rows(tenant: Tenant) -> None:
        await _load_rows(database, tenant, bundle, manifest, leave_out)

    async def container(tenant: Tenant) -> None:
        store = stores.at(tenant.cell)
        await store.create_container(tenant.scope.container)
        for blob in read_blobs(bundle):
            data = _read(bundle / "blobs" / blob.name)
            with suppress(BlobExists):  # by an attempt before this one; nobody else knows the container
                await store.put(tenant.scope.container, blob.name, data, content_type=blob.media_type)

    async def control(tenant: Tenant) -> None:
        kept = read_control(bundle)
        async with database.control() as session:
            row = await session.get_one(Tenant, tenant.id)
            row.ai_model, row.image_links = kept.ai_model, kept.image_links
            for metric, limit in kept.quotas.items():
                session.add(QuotaOverride(tenant_id=tenant.id, metric=metric, limit=limit))
            await scatter(session, tenant, kept)
        await make_keys(tenant)

    return [
        Step(f"bundle {digest[:16]}", make_schema, always=True),
        Step("rows of bundle", rows),
        Step("revisions since bundle", upgrade),
        Step("blobs of bundle", container),
        Step("settings and keys of bundle", control),
        Step("patients of bundle", reseal),
    ]


async def _load_rows(
    database: AdminDatabase, tenant: Tenant, bundle: Path, manifest: Manifest, leave_out: frozenset[str]
) -> None:
    """All rows in one transaction, in place of those that the schema begins with."""
    entries = {table.name: table for table in manifest.tables}
    async with database.connection(tenant.cell) as connection, connection.transaction():
        await enter(connection, tenant.scope.schema)
        tables = await portable_tables(connection, tenant.scope.schema, leave_out)
        if odd := tables.keys() ^ entries.keys():
            raise BundleRefused(f"It has other tables than its revision: {', '.join(sorted(odd))}.")
        for name, columns in tables.items():
            if odd_columns := set(columns) ^ set(entries[name].columns):
                raise BundleRefused(f"{name} has other columns than here: {', '.join(sorted(odd_columns))}.")
        await connection.execute(f"TRUNCATE {', '.join(tables)} CASCADE")
        for name in tables:
            source = _read(bundle / "tables" / f"{name}.copy")
            try:
                done = await connection.copy_to_table(name, columns=entries[name].columns, source=source)
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
                # The server's own words would quote the row.
                raise BundleRefused(f"{name} has rows that it must not have ({error.sqlstate}).") from None
            if int(done.split()[-1]) != entries[name].rows:
                raise BundleRefused(
                    f"{name} has {done.split()[-1]} rows, not the {entries[name].rows} exported."
                )


async def _read(path: Path) -> AsyncIterator[bytes]:
    for chunk in chunks(path):
        yield chunk
