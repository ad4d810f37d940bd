"""Writing a tenant into a bundle, while it is served.

All rows are of one moment. Blobs are read after it, so that every blob that a row names is there, and perhaps some that
no row names yet. The bundle gets its name when all of it is on disk.
"""

import shutil
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import asyncpg
from sqlalchemy import select

from core.blobs import BlobNotFound, BlobStores, TenantBlobs
from core.clock import utcnow
from core.database import AdminDatabase, ControlSession
from tenants.audit.service import record
from tenants.directory.errors import WrongState
from tenants.directory.models import Host, Tenant
from tenants.directory.service import find_tenant
from tenants.plans.models import QuotaOverride
from tenants.portability.bundle import (
    BLOB_INDEX,
    CONTROL,
    MANIFEST,
    MOST_LINE,
    Blob,
    Blobs,
    Connection,
    Control,
    FileEntry,
    HashedFile,
    Key,
    Manifest,
    Scrypt,
    Table,
    TenantEntry,
)
from tenants.portability.errors import BundleExists
from tenants.portability.tables import enter, portable_tables

Gather = Callable[[ControlSession, Tenant], Awaitable[Control]]
# Hears what is being written and how many of it are done.
Progress = Callable[[str, int], None]


async def gather_control(
    session: ControlSession, tenant: Tenant, connections: list[Connection], keys: list[Key]
) -> Control:
    """What the control schema knows of a tenant, with what other rooms know."""
    hosts = (
        select(Host.host).where(Host.tenant_id == tenant.id, Host.removed_at.is_(None)).order_by(Host.host)
    )
    overrides = await session.scalars(select(QuotaOverride).where(QuotaOverride.tenant_id == tenant.id))
    return Control(
        ai_model=tenant.ai_model,
        image_links=tenant.image_links,
        hosts=list(await session.scalars(hosts)),
        quotas={each.metric: each.limit for each in overrides},
        connections=connections,
        keys=keys,
    )


async def export(
    database: AdminDatabase,
    stores: BlobStores,
    slug: str,
    target: Path,
    *,
    gather: Gather,
    wrapped_by: str | Scrypt,
    leave_out: Collection[str],
    blob_names: str,
    progress: Progress = lambda what, done: None,
) -> Manifest:
    """Write the tenant into the new directory `target`, in bounded memory.

    `leave_out` are tables whose rows mean nothing elsewhere; `blob_names` is a query for the names of all blobs that
    rows name. What an export that was killed has left beside `target` is begun anew. Raises `TenantNotFound`,
    `WrongState`, `BundleExists`.
    """
    async with database.control() as session:
        tenant = await find_tenant(session, slug)
        if tenant.state in ("provisioning", "moving", "closed"):
            raise WrongState(f"{tenant.slug} is {tenant.state}; it has no data that could be exported.")
    partial = _begin(target)
    async with (
        database.connection(tenant.cell) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await enter(connection, tenant.scope.schema)
        revision = await connection.fetchval("SELECT version_num FROM alembic_version")
        tables = await portable_tables(connection, tenant.scope.schema, leave_out)
        written = []
        for name, columns in tables.items():
            written.append(await _write_table(connection, partial, name, columns))
            progress(f"table {name}", len(written))
        named = partial / "named"
        names = HashedFile(named)
        await connection.copy_from_query(
            f'SELECT name FROM ({blob_names}) AS named (name) ORDER BY name COLLATE "C"',
            output=names.write,
        )
        names.finish()
    async with database.control() as session:
        control = await gather(session, tenant)  # after the rows, so that the keys they name are there
    blobs = await _write_blobs(stores.of(tenant.scope), partial, named, progress)
    named.unlink()
    manifest = Manifest(
        format="dermadetect-tenant/1",
        created_at=utcnow().isoformat(),
        tenant=TenantEntry(
            key=tenant.key, slug=tenant.slug, name=tenant.name, plan=tenant.plan, home_host=tenant.home_host
        ),
        schema_revision=revision,
        wrapped_by=wrapped_by,
        tables=written,
        blobs=blobs,
        control=await _write_text(partial / CONTROL, control.model_dump_json(indent=2)),
    )
    await _write_text(partial / MANIFEST, manifest.model_dump_json(indent=2))
    async with database.control() as session:
        record(session, tenant, "tenant.exported", rows=sum(t.rows for t in written), blobs=blobs.count)
    partial.rename(target)
    return manifest


def _begin(target: Path) -> Path:
    if target.exists():
        raise BundleExists(f"{target} exists; name a new directory.")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700, parents=True)
    (partial / "tables").mkdir()
    (partial / "blobs").mkdir()
    return partial


async def _write_text(path: Path, text: str) -> FileEntry:
    file = HashedFile(path)
    await file.write(text.encode())
    return file.finish()


async def _write_table(connection: asyncpg.Connection, partial: Path, name: str, columns: list[str]) -> Table:
    file = HashedFile(partial / "tables" / f"{name}.copy")
    done = await connection.copy_from_table(name, columns=columns, output=file.write)
    entry = file.finish()
    return Table(name=name, columns=columns, rows=int(done.split()[-1]), size=entry.size, sha256=entry.sha256)


async def _write_blobs(stored: TenantBlobs, partial: Path, named: Path, progress: Progress) -> Blobs:
    """Every blob of the container, which lists them by name as `named` does."""
    index = HashedFile(partial / BLOB_INDEX)
    count = size = missing = 0
    with named.open() as names:
        expected = names.readline(MOST_LINE).strip()
        async for found in stored.list():
            while expected and expected < found.name:
                missing, expected = missing + 1, names.readline(MOST_LINE).strip()
            try:
                reader = await stored.open(found.name)
            except BlobNotFound:
                continue  # deleted since it was listed; a row that names it counts it as missing
            if expected == found.name:
                expected = names.readline(MOST_LINE).strip()
            file = HashedFile(partial / "blobs" / found.name)
            async for chunk in reader.chunks:
                await file.write(chunk)
            entry = file.finish()
            blob = Blob(name=found.name, media_type=found.content_type, size=entry.size, sha256=entry.sha256)
            await index.write(blob.model_dump_json().encode() + b"\n")
            count, size = count + 1, size + entry.size
            progress("blobs", count)
        while expected:
            missing, expected = missing + 1, names.readline(MOST_LINE).strip()
    entry = index.finish()
    return Blobs(count=count, bytes=size, missing=missing, size=entry.size, sha256=entry.sha256)
