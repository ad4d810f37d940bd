"""Bringing the control schema and every tenant's schema to head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import asyncpg
from alembic.util import CommandError
from sqlalchemy import select

from core.database import AdminDatabase
from migrations.rendering import head, render, tenant_script
from tenants.directory.models import Tenant
from tenants.directory.service import next_epoch
from tenants.provisioning.roles import OWNER, create_role, grant_control, grant_switch, prepare_owner

LOCK_TIMEOUT_MS = 3_000


@dataclass
class Migrated:
    """What a run did: revisions before and after, schemas migrated, and what failed by tenant slug."""

    control: tuple[str | None, str]
    tenants: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pending:
    """What a run would do: the control schema's revisions before and after, each tenant's present revision by
    slug, and the revision they would get."""

    control: tuple[str | None, str]
    tenants: dict[str, str | None]
    head: str


async def _revision(connection: asyncpg.Connection, schema: str) -> str | None:
    if not await connection.fetchval("SELECT to_regclass($1)", f"{schema}.alembic_version"):
        return None
    revision: str | None = await connection.fetchval(f"SELECT version_num FROM {schema}.alembic_version")
    return revision


async def _apply(connection: asyncpg.Connection, schema: str, sql: str) -> None:
    """Run rendered migrations in one transaction, as the owner, in one message."""
    await connection.execute(
        f"BEGIN; SET LOCAL ROLE {OWNER}; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; "
        f"SET LOCAL search_path = {schema}, extensions, pg_temp;\n{sql}\nCOMMIT;"
    )


async def migrate_control(database: AdminDatabase, gateway_login: str) -> tuple[str | None, str]:
    """Bring the control schema to head and renew the gateway's rights. Returns revisions before and after."""
    async with database.connection() as connection:
        await connection.execute("SELECT pg_advisory_lock(hashtext('dermadetect migrate control'))")
        await prepare_owner(connection)
        before = await _revision(connection, "control")
        if before != head("control"):
            create = f"CREATE SCHEMA IF NOT EXISTS control AUTHORIZATION {OWNER};\n" if before is None else ""
            await _apply(connection, "control", create + render("control", before))
        await connection.execute(f"SET ROLE {OWNER}")
        await grant_control(connection, gateway_login)
    return before, head("control")


async def _behind(database: AdminDatabase) -> Sequence[Tenant]:
    async with database.control() as session:
        return (
            await session.scalars(
                select(Tenant)
                .where(Tenant.schema_revision.is_not(None), Tenant.schema_revision != head("tenant"))
                .order_by(Tenant.slug)
            )
        ).all()


async def pending(database: AdminDatabase) -> Pending:
    """What `migrate` would do now."""
    async with database.connection() as connection:
        control = await _revision(connection, "control")
    behind = await _behind(database) if control else []
    return Pending(
        (control, head("control")), {each.slug: each.schema_revision for each in behind}, head("tenant")
    )


async def migrate(
    database: AdminDatabase,
    gateway_login: str,
    progress: Callable[[str, int, int], None] = lambda slug, done, of: None,
) -> Migrated:
    """Bring everything to head. A tenant that fails is reported and does not stop the others; running again
    takes up only what is not at head. `progress` hears slug, number done, and number to do."""
    async with database.connection() as lock:
        # Two commands run one after the other; a killed one's lock ends with its connection.
        await lock.execute("SELECT pg_advisory_lock(hashtext('dermadetect migrate'))")
        report = Migrated(control=await migrate_control(database, gateway_login))
        behind = await _behind(database)
        for done, tenant in enumerate(behind, 1):
            try:
                # A connection each: one that broke, or grew by the catalog of many schemas, is nobody else's.
                async with database.connection() as connection:
                    before = await _revision(connection, tenant.scope.schema)
                    if before != head("tenant"):
                        await _apply(connection, tenant.scope.schema, render("tenant", before))
                await _record(database, tenant)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, CommandError, OSError) as error:
                report.failed[tenant.slug] = f"{getattr(error, 'sqlstate', type(error).__name__)}: {error}"
            else:
                report.tenants.append(tenant.slug)
            progress(tenant.slug, done, len(behind))
    return report


async def _record(database: AdminDatabase, tenant: Tenant) -> None:
    async with database.control() as session:
        row = await session.get_one(Tenant, tenant.id)
        row.schema_revision = head("tenant")
        row.epoch = await next_epoch(session)


async def create_schema(database: AdminDatabase, tenant: Tenant, gateway_login: str) -> None:
    """The provisioning step `schema`: role and schema of a tenant at head, complete or not at all. One that an
    earlier attempt made with an older release is migrated."""
    scope = tenant.scope
    async with database.connection() as connection:
        await create_role(connection, scope.role)
        await grant_switch(connection, scope.role, gateway_login)
        before = await _revision(connection, scope.schema)
        if before is None:
            await _apply(
                connection,
                scope.schema,
                f"CREATE SCHEMA {scope.schema};\n"
                f"GRANT USAGE ON SCHEMA {scope.schema} TO {scope.role};\n"
                f"ALTER DEFAULT PRIVILEGES IN SCHEMA {scope.schema} "
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {scope.role};\n" + tenant_script(),
            )
        elif before != head("tenant"):
            await _apply(connection, scope.schema, render("tenant", before))


def login_of(url: str) -> str:
    """The user name in a database URL."""
    user = urlsplit(url).username
    if not user:
        raise ValueError("the gateway's database URL names no user")
    return unquote(user)
