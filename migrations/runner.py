"""Bringing the control schema to head, and making a tenant's schema at head."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit

import asyncpg

from core.cells import HOME
from core.database import AdminDatabase, TenantScope
from core.logins import group_login
from migrations.in_process import upgrade_in_process
from migrations.models import CONTROL
from migrations.rendering import after, head, render, tenant_script
from tenants.provisioning.roles import (
    OWNER,
    create_login,
    distributed,
    grant_control,
    new_role,
    prepare_owner,
    switch_to,
)

LOCK_TIMEOUT_MS = 3_000


async def revision_of(connection: asyncpg.Connection, schema: str) -> str | None:
    """What a schema's revision row says; None where there is none."""
    if not await connection.fetchval("SELECT to_regclass($1)", f"{schema}.alembic_version"):
        return None
    revision: str | None = await connection.fetchval(f"SELECT version_num FROM {schema}.alembic_version")
    return revision


async def _apply(connection: asyncpg.Connection, schema: str, sql: str) -> None:
    """Run rendered migrations in one transaction, as the owner, in one message."""
    await connection.execute(f"BEGIN; {_as_owner(schema)}\n{sql}\nCOMMIT;")


def _as_owner(schema: str) -> str:
    return (
        f"SET LOCAL ROLE {OWNER}; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; "
        f"SET LOCAL search_path = {schema}, extensions, pg_temp;"
    )


async def migrate_control(
    database: AdminDatabase, gateway_login: str, cell: str = HOME
) -> tuple[str | None, str]:
    """Bring a cell's control schema to head and renew the gateway's rights. Returns revisions before and after.
    Raises `UnknownRevision` where a newer release made it.

    All cells have the same one, though of its tables only the home's are used, and the doorbells: so there is one
    history, and what tenants' schemas call is there with them.
    """
    async with database.connection(cell) as connection:
        await connection.execute("SELECT pg_advisory_lock(hashtext('dermadetect migrate control'))")
        await prepare_owner(connection)
        before = await revision_of(connection, "control")
        if before is not None:
            after("control", before)  # a newer release's tables are not ours to touch
        if before != head("control"):
            create = f"CREATE SCHEMA IF NOT EXISTS control AUTHORIZATION {OWNER};\n" if before is None else ""
            await _apply(connection, "control", create + render("control", before))
        await connection.execute(f"SET ROLE {OWNER}")
        tables = (table.name for table in CONTROL.sorted_tables)
        await grant_control(connection, gateway_login, ("alembic_version", *tables))
    return before, head("control")


def empty_schema(scope: TenantScope) -> str:
    """The SQL that makes a tenant's schema, with the rights that its tables will give the tenant's role."""
    return (
        f"CREATE SCHEMA {scope.schema};\n"
        f"GRANT USAGE ON SCHEMA {scope.schema} TO {scope.role};\n"
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA {scope.schema} "
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {scope.role};\n"
    )


async def create_schema(
    database: AdminDatabase, scope: TenantScope, gateway_url: str, revision: str | None = None
) -> None:
    """The provisioning step `schema`: role and schema of a tenant at head, complete or not at all, and the login of its
    group, with the name and password of the gateway's. What an earlier attempt made with an older release is migrated.
    With an older `revision` it is made at that, and left for `upgrade_schema`."""
    async with _alone_with(database, scope) as connection:
        before = await revision_of(connection, scope.schema)
        if before is None:
            login = group_login(login_of(gateway_url), scope.group)
            if scope.group:
                await create_login(connection, login, unquote(urlsplit(gateway_url).password or ""))
            switch = switch_to(scope.role, login, connection.get_server_version().major)
            # One message: the server does not wait for us between its statements.
            await connection.execute(
                new_role(scope.role) + switch + schema_script(scope, revision) + distributed(scope.schema)
            )
        elif before != head("tenant") and revision in (None, head("tenant")):
            await connection.execute(_as_owner(scope.schema) + render("tenant", before))


async def drop_schema(database: AdminDatabase, scope: TenantScope) -> None:
    """Undo `create_schema`: what of role and schema is there is gone, or all is left."""
    async with _alone_with(database, scope) as connection:
        await connection.execute(
            f"{_as_owner(scope.schema)} DROP SCHEMA IF EXISTS {scope.schema} CASCADE; RESET ROLE; "
            f"DROP ROLE IF EXISTS {scope.role}"
        )


async def upgrade_schema(database: AdminDatabase, scope: TenantScope) -> None:
    """Bring one schema to head, whatever its revisions need. Raises `UnknownRevision`."""
    async with _alone_with(database, scope) as connection:
        before = await revision_of(connection, scope.schema)
        revisions = after("tenant", before)
        if revisions and not any(each.in_python for each in revisions):
            await connection.execute(_as_owner(scope.schema) + render("tenant", before))
            return
    if revisions:
        await upgrade_in_process(database, "tenant", scope, LOCK_TIMEOUT_MS)


def schema_script(scope: TenantScope, revision: str | None = None) -> str:
    """The SQL that makes the whole schema of a tenant whose role exists, to be sent as one message."""
    made = tenant_script() if revision in (None, head("tenant")) else render("tenant", end=revision)
    return f"{_as_owner(scope.schema)}\n{empty_schema(scope)}{made}"


@asynccontextmanager
async def _alone_with(database: AdminDatabase, scope: TenantScope) -> AsyncIterator[asyncpg.Connection]:
    """A transaction that waits for another on the same schema: a killed command's goes on until its server process
    notices."""
    async with database.kept_connection(scope.cell) as connection, connection.transaction():
        await connection.execute(
            f"SELECT pg_advisory_xact_lock(hashtext('dermadetect schema'), hashtext('{scope.schema}'))"
        )
        yield connection


def login_of(url: str) -> str:
    """The user name in a database URL."""
    user = urlsplit(url).username
    if not user:
        raise ValueError("the gateway's database URL names no user")
    return unquote(user)
