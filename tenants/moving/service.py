"""Moving a tenant to another cell, with a short freeze; killed between any two steps, it is finished by moving again or
undone by rolling back.

Blobs are copied while the tenant is served. Then it is frozen: every process answers 503 within a second, as with every
change of the directory. But a process may be slow, so the freeze does not rest on that: the schema at the source is
renamed, and from then on no statement finds it, whoever sends it and whatever they believe; who was writing is waited
for. What is copied after that is complete, and nothing that was acknowledged is lost. The switch is one transaction in
the directory. Then the old copy is deleted, since it says nothing that the new one does not.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import asyncpg
from sqlalchemy import select

from core.blobs import BlobNotFound, BlobStores
from core.cells import CellUnknown
from core.clock import utcnow
from core.database import AdminDatabase, ControlSession, TenantScope
from tenants.audit.service import record
from tenants.directory import service as directory
from tenants.directory.models import Tenant
from tenants.moving.copying import copy_blobs, copy_rows, finish_blobs
from tenants.moving.errors import MoveRefused, MoveUnfinished
from tenants.moving.models import Move
from tenants.provisioning.roles import OWNER

# A view of the directory that is a second old is not used any more.
SETTLE_S = 1.25
LOCK_TIMEOUT_MS = 30_000

MOVABLE = ("active", "suspended")

MakeSchema = Callable[[TenantScope], Awaitable[None]]
Progress = Callable[[str], None]


async def move(
    database: AdminDatabase,
    stores: BlobStores,
    slug: str,
    to: str,
    *,
    make_schema: MakeSchema,
    schema_revision: str,
    progress: Progress = lambda step: None,
) -> Tenant:
    """Move a tenant to the cell `to`, or go on with it. Idempotent. `progress` hears each step as it is finished;
    `make_schema` makes role and schema in a cell, at `schema_revision`.

    Raises `TenantNotFound`, `CellUnknown`, `MoveRefused`, `MoveUnfinished`, `CopyDiffers`, `WrongState`, and what
    databases and stores raise; then the tenant stays as it is until it is moved again or rolled back.
    """
    if to not in database.cells:
        raise CellUnknown(f"The cell {to!r} is not among the settings (DERMADETECT_CELLS).")
    async with _alone_with(database, slug) as tenant:
        moving = await _find(database, tenant)
        if moving is None:
            if tenant.cell == to:
                return tenant
            await _check(database, stores, tenant, to, schema_revision)
            moving = await _begin(database, tenant, to)
        if moving.target != to:
            raise MoveUnfinished(
                f"{tenant.slug} is being moved to {moving.target!r}; finish that, or roll it back."
            )
        source = replace(tenant.scope, cell=moving.source)
        target = replace(tenant.scope, cell=to, group=moving.target_group)
        if moving.switched_at is None:
            await make_schema(target)
            await stores.at(to).create_container(target.container)
            progress("prepared")
            copied: dict[str, str] = {}
            await copy_blobs(stores.of(source), stores.of(target), copied)
            progress("copied ahead")
            await _freeze(database, tenant)
            progress("frozen")
            await _fence(database, source)
            progress("fenced")
            rows = await copy_rows(database, source, _hidden(source), target)
            progress("rows")
            blobs = await finish_blobs(stores.of(source), stores.of(target), copied)
            progress("blobs")
            await _switch(database, tenant, rows=rows, blobs=blobs)
            progress("switched")
        await _remove(database, stores, source, _hidden(source))
        await _end(database, tenant, "tenant.move-finished")
        progress("cleaned")
        async with database.control() as session:
            return await session.get_one(Tenant, tenant.id)


async def roll_back(
    database: AdminDatabase, stores: BlobStores, slug: str, *, progress: Progress = lambda step: None
) -> Tenant:
    """Serve a tenant where it was, and delete what was copied. Raises `TenantNotFound`, `MoveRefused` where no move is
    under way or it has come too far, and what databases and stores raise; then run it again."""
    async with _alone_with(database, slug) as tenant:
        moving = await _find(database, tenant)
        if moving is None:
            raise MoveRefused(f"{tenant.slug} is not being moved.")
        if moving.switched_at is not None:
            raise MoveRefused(
                f"{tenant.slug} lives in {moving.target!r} already; finish the move, then move it back."
            )
        source, target = replace(tenant.scope, cell=moving.source), replace(tenant.scope, cell=moving.target)
        async with database.connection(source.cell) as there:
            if await _exists(there, _hidden(source)):
                await _rename(there, _hidden(source), source.schema)
        progress("unfenced")
        async with database.control() as session:
            locked = await session.get_one(Tenant, tenant.id, with_for_update=True)
            if locked.state == "moving":
                await _thaw(session, locked, moving)
        progress("served")
        await _remove(database, stores, target, target.schema)
        await _end(database, tenant, "tenant.move-rolled-back")
        progress("cleaned")
        async with database.control() as session:
            return await session.get_one(Tenant, tenant.id)


async def is_moving(session: ControlSession, tenant: Tenant) -> bool:
    """Whether a move of the tenant has begun and is not over."""
    return await session.scalar(select(Move.id).where(Move.tenant_id == tenant.id)) is not None


@asynccontextmanager
async def _alone_with(database: AdminDatabase, slug: str) -> AsyncIterator[Tenant]:
    """The tenant, once no other command moves it."""
    async with database.control() as session:
        key = (await directory.find_tenant(session, slug)).key
    async with database.one_at_a_time("move", key):
        async with database.control() as session:
            tenant = await directory.find_tenant(session, key)
        yield tenant


async def _find(database: AdminDatabase, tenant: Tenant) -> Move | None:
    async with database.control() as session:
        found: Move | None = await session.scalar(select(Move).where(Move.tenant_id == tenant.id))
    return found


async def _check(
    database: AdminDatabase, stores: BlobStores, tenant: Tenant, to: str, schema_revision: str
) -> None:
    """Nothing of the tenant's may be at the target: else two names of one place would end with neither copy."""
    if tenant.schema_revision != schema_revision:
        raise MoveRefused(f"{tenant.slug} is not at the newest revision; run `dermadetect migrate` first.")
    async with database.connection(to) as there:
        if await _exists(there, tenant.scope.schema) or await _exists(there, _hidden(tenant.scope)):
            raise MoveRefused(
                f"The database of {to!r} has a schema of the tenant's. Is it another cell's as well?"
            )
    with suppress(BlobNotFound):
        async for _ in stores.of(replace(tenant.scope, cell=to)).list():
            break
        raise MoveRefused(
            f"The blob store of {to!r} has a container of the tenant's. Is it another cell's as well?"
        )


async def _begin(database: AdminDatabase, tenant: Tenant, to: str) -> Move:
    async with database.control() as session:
        locked = await session.get_one(Tenant, tenant.id, with_for_update=True)
        if locked.state not in MOVABLE:
            raise MoveRefused(
                f"{tenant.slug} is {locked.state}; only one that is {' or '.join(MOVABLE)} is moved."
            )
        group = await directory.free_group(session, to)
        moving = Move(tenant_id=tenant.id, source=locked.cell, target=to, target_group=group)
        session.add(moving)
        record(session, tenant, "tenant.move-begun", source=locked.cell, target=to)
        await session.flush()
    return moving


async def _freeze(database: AdminDatabase, tenant: Tenant) -> None:
    async with database.control() as session:
        locked = await session.get_one(Tenant, tenant.id, with_for_update=True)
        if locked.state != "moving":
            moving = (await session.scalars(select(Move).where(Move.tenant_id == tenant.id))).one()
            moving.state_before, moving.reason_before = locked.state, locked.state_reason
            await directory.move(session, locked, sources=MOVABLE, target="moving", reason=None)
    await asyncio.sleep(SETTLE_S)


async def _thaw(session: ControlSession, locked: Tenant, moving: Move) -> None:
    """Bring a tenant back to what it was before the freeze."""
    assert moving.state_before is not None
    await directory.move(
        session, locked, sources=("moving",), target=moving.state_before, reason=moving.reason_before
    )


def _hidden(tenant: TenantScope) -> str:
    """What the schema is called while nobody may find it."""
    return f"moving_{tenant.schema}"


async def _fence(database: AdminDatabase, tenant: TenantScope) -> None:
    async with database.connection(tenant.cell) as connection:
        if await _exists(connection, tenant.schema):
            await _rename(connection, tenant.schema, _hidden(tenant))
        async with connection.transaction():
            await connection.execute(f"SET LOCAL ROLE {OWNER}; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            tables = await connection.fetchval(
                "SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables WHERE schemaname = $1",
                _hidden(tenant),
            )
            # Given once everybody has ended who has written. A lock that is asked for later meets the new name first.
            await connection.execute(f"LOCK TABLE {tables} IN SHARE MODE")


async def _exists(connection: asyncpg.Connection, schema: str) -> bool:
    return await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", schema) is True


async def _rename(connection: asyncpg.Connection, schema: str, name: str) -> None:
    await _as_owner(connection, f"ALTER SCHEMA {schema} RENAME TO {name}")


async def _as_owner(connection: asyncpg.Connection, statement: str) -> None:
    await connection.execute(
        f"BEGIN; SET LOCAL ROLE {OWNER}; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; {statement}; COMMIT;"
    )


async def _switch(database: AdminDatabase, tenant: Tenant, *, rows: int, blobs: int) -> None:
    async with database.control() as session:
        locked = await session.get_one(Tenant, tenant.id, with_for_update=True)
        moving = (await session.scalars(select(Move).where(Move.tenant_id == tenant.id))).one()
        moving.switched_at, locked.cell = utcnow(), moving.target
        locked.login_group = moving.target_group
        await _thaw(session, locked, moving)
        record(
            session,
            tenant,
            "tenant.moved",
            source=moving.source,
            target=moving.target,
            rows=rows,
            blobs=blobs,
        )


async def _remove(database: AdminDatabase, stores: BlobStores, tenant: TenantScope, schema: str) -> None:
    """Delete what a cell has of a tenant that does not live there."""
    async with database.connection(tenant.cell) as connection:
        await _as_owner(connection, f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        # Two cells' databases may be on one server, where roles are shared.
        with suppress(asyncpg.DependentObjectsStillExistError):
            await connection.execute(f"DROP ROLE IF EXISTS {tenant.role}")
    await stores.at(tenant.cell).delete_container(tenant.container)


async def _end(database: AdminDatabase, tenant: Tenant, action: str) -> None:
    async with database.control() as session:
        moving = (await session.scalars(select(Move).where(Move.tenant_id == tenant.id))).one()
        record(session, tenant, action, source=moving.source, target=moving.target)
        await session.delete(moving)
