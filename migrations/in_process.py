"""Revisions that need Python, run by Alembic on one schema."""

import asyncpg
from alembic import command
from sqlalchemy import Connection, NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from core.database import AdminDatabase, TenantScope
from migrations.rendering import Branch, config
from tenants.provisioning.roles import OWNER


async def upgrade_in_process(
    database: AdminDatabase, branch: Branch, tenant: TenantScope, lock_timeout_ms: int
) -> None:
    """Bring one schema to head in a transaction of its own, revision row included. Not for two at a time in one
    process: Alembic's `op` is a global."""

    def upgrade(connection: Connection) -> None:
        alembic = config(branch)
        alembic.attributes["connection"] = connection
        command.upgrade(alembic, "head")

    async with database.connection(tenant.cell) as driver:
        await driver.execute(
            f"SET ROLE {OWNER}; SET search_path = {tenant.schema}, extensions, pg_temp; "
            f"SET lock_timeout = {lock_timeout_ms}"
        )

        async def only() -> asyncpg.Connection:
            return driver

        engine = create_async_engine("postgresql+asyncpg://", async_creator=only, poolclass=NullPool)
        async with engine.connect() as connection:
            await connection.run_sync(upgrade)
            await connection.commit()
