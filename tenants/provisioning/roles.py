"""The database roles of the product, made by the operator's login.

`dermadetect_owner` owns every schema. Each tenant's role owns nothing. Both are NOLOGIN, but on Citus. The gateway's login may
switch to tenants' roles and has rights of its own on control tables alone; its further logins, for further groups of
tenants, have no rights of their own.
"""

from collections.abc import Iterable

import asyncpg

OWNER = "dermadetect_owner"

# What the gateway may do to control tables, beyond reading them.
GATEWAY_RIGHTS = {
    "epoch": "UPDATE",
    "revocations": "INSERT, UPDATE, DELETE",
    "usage": "INSERT, UPDATE",
    "doorbells": "INSERT, UPDATE, DELETE",
    "schedule_slots": "INSERT, DELETE",
    # What an identity provider publishes anew; never whose metadata that is, nor where.
    "saml_connections": "UPDATE (sso_url, certificates, logout_url, logout_response_url, metadata_read_at, "
    "metadata_due_at, metadata_failure)",
    "audit_events": "INSERT (id, tenant_id, actor, action, detail)",  # a seal is given by `audit.seal` alone
}

# What is not even for the gateway to read.
OPERATORS_ONLY = ("platform_keys", "platform_tokens", "operations")


async def has_citus(connection: asyncpg.Connection) -> bool:
    """Whether the database is a Citus cluster's, which places whole schemas on its nodes."""
    return (
        await connection.fetchval("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')") is True
    )


def new_role(role: str) -> str:
    """The SQL that creates a role that nobody signs in with, unless it exists. `role` is a checked identifier of ours.

    Citus connects to its nodes as the current role, so there it must have LOGIN; it has no password.
    """
    return (
        f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN NULL; "
        f"ELSIF EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') THEN CREATE ROLE {role} LOGIN; "
        f"ELSE CREATE ROLE {role} NOLOGIN; END IF; END $$;\n"
    )


def distributed(schema: str) -> str:
    """The SQL that has Citus, where it is, place a schema on one of its nodes."""
    return (
        "DO $$ BEGIN IF EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') "
        f"THEN PERFORM citus_schema_distribute('{schema}'); END IF; END $$;\n"
    )


async def create_login(connection: asyncpg.Connection, login: str, password: str) -> None:
    """Create another login of the gateway unless it exists: it can only become what it is granted. It has no password
    where the first has none."""
    exists = "SELECT true FROM pg_roles WHERE rolname = $1"
    if await connection.fetchval(exists, login):
        return
    await connection.execute("SELECT pg_advisory_xact_lock(hashtext('dermadetect login'))")
    if not await connection.fetchval(exists, login):
        rights = "LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE"
        made = f"SELECT format('CREATE ROLE %I {rights} PASSWORD %L', $1::text, nullif($2::text, ''))"
        await connection.execute(await connection.fetchval(made, login, password))


def switch_to(role: str, login: str, server_version: int) -> str:
    """The SQL that lets `login` switch to `role` without inheriting its rights."""
    options = " WITH INHERIT FALSE, SET TRUE" if server_version >= 16 else ""
    return f'GRANT {role} TO "{login}"{options};\n'


async def prepare_owner(connection: asyncpg.Connection) -> None:
    """Make `dermadetect_owner`, let the operator act as it, and give it the right to create schemas."""
    database = await connection.fetchval("SELECT quote_ident(current_database())")
    await connection.execute(
        f"{new_role(OWNER)}"
        f"GRANT {OWNER} TO CURRENT_USER;"
        f"GRANT CREATE ON DATABASE {database} TO {OWNER};"
        f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;"
        "CREATE SCHEMA IF NOT EXISTS extensions;"
        "GRANT USAGE ON SCHEMA extensions TO PUBLIC"
    )


async def grant_control(connection: asyncpg.Connection, login: str, tables: Iterable[str]) -> None:
    """Give the gateway's login its rights on the control schema, and no others. `tables` are all that are there: asked
    for all of a schema's, PostgreSQL reads the catalog of every tenant five times."""
    given = [
        f'GRANT USAGE ON SCHEMA control TO "{login}"',
        f'GRANT SELECT ON {", ".join(f"control.{table}" for table in tables)} TO "{login}"',
        *(f'REVOKE ALL ON control.{table} FROM "{login}"' for table in OPERATORS_ONLY),
        *(f'GRANT {rights} ON control.{table} TO "{login}"' for table, rights in GATEWAY_RIGHTS.items()),
    ]
    await connection.execute(";\n".join(given))
