"""What `dermadetect doctor` looks at in the database: who the two logins are, and how far migrations have come."""

from typing import TYPE_CHECKING, Any

from cli.doctor import Check

if TYPE_CHECKING:
    from core.settings import Settings

_LOGIN = """
    SELECT current_user::text AS name,
           current_setting('server_version_num')::int / 10000 AS server,
           rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication,
           has_database_privilege(current_database(), 'TEMP') AS temp,
           has_database_privilege(current_database(), 'CREATE') AS create_schemas,
           (SELECT count(*) FROM pg_class WHERE relowner = r.oid)
           + (SELECT count(*) FROM pg_namespace WHERE nspowner = r.oid)
           + (SELECT count(*) FROM pg_proc WHERE proowner = r.oid)
           + (SELECT count(*) FROM pg_database WHERE datdba = r.oid) AS owned,
           coalesce((SELECT pg_has_role(r.oid, o.oid, 'MEMBER') FROM pg_roles o WHERE rolname = $1), false)
           AS owner_member
    FROM pg_roles r WHERE rolname = current_user
"""


async def gateway_login(configured: "Settings") -> list[Check]:
    """The gateway's login may do nothing of its own: whatever leaks through it stays in one tenant."""
    from gateway.assembly import database_url

    found = await _look(database_url(configured))
    name, quoted = found["name"], f'"{found["name"]}"'
    must = [
        (found["rolsuper"], "is a superuser", f"ALTER ROLE {quoted} NOSUPERUSER"),
        (found["rolinherit"], "inherits its roles' rights", f"ALTER ROLE {quoted} NOINHERIT"),
        (found["rolbypassrls"], "bypasses row security", f"ALTER ROLE {quoted} NOBYPASSRLS"),
        (found["rolcreaterole"], "may create roles", f"ALTER ROLE {quoted} NOCREATEROLE"),
        (found["rolcreatedb"], "may create databases", f"ALTER ROLE {quoted} NOCREATEDB"),
        (found["rolreplication"], "may replicate everything", f"ALTER ROLE {quoted} NOREPLICATION"),
        (found["owned"], f"owns {found['owned']} objects", f"REASSIGN OWNED BY {quoted} TO another role"),
        (
            found["owner_member"],
            "may become the owner of all schemas",
            f"REVOKE dermadetect_owner FROM {quoted}",
        ),
        (found["temp"], "may make temporary tables", "run `dermadetect migrate`, which revokes it"),
    ]
    return [*_verdict("gateway login", name, must), _server(found["server"])]


async def admin_login(configured: "Settings") -> list[Check]:
    """The operator's login creates roles and schemas. A serving machine need not have it."""
    if configured.admin_database_url is None:
        detail = "not set here; only `migrate` and provisioning need it (DERMADETECT_ADMIN_DATABASE_URL)"
        return [Check("operator login", "off", detail)]
    found = await _look(configured.admin_database_url.get_secret_value())
    quoted = f'"{found["name"]}"'
    must = [
        (found["rolsuper"], "is a superuser, which it need not be", f"ALTER ROLE {quoted} NOSUPERUSER"),
        (not found["rolcreaterole"], "may not create roles", f"ALTER ROLE {quoted} CREATEROLE"),
        (not found["create_schemas"], "may not create schemas", f"make {quoted} the database's owner"),
        (not found["rolinherit"], "does not inherit its roles' rights", f"ALTER ROLE {quoted} INHERIT"),
    ]
    return _verdict("operator login", found["name"], must)


async def revisions(configured: "Settings") -> list[Check]:
    """Whether the shared tables and every tenant's schema are at the newest revision."""
    from sqlalchemy import func, select, text

    from gateway.assembly import open_database
    from migrations.rendering import head
    from tenants.directory.models import Tenant

    database = open_database(configured)
    try:
        async with database.control() as session:
            if not await session.scalar(text("SELECT to_regclass('control.alembic_version') IS NOT NULL")):
                return [Check("migrations", "wrong", "the database is empty", "run `dermadetect migrate`")]
            control = await session.scalar(text("SELECT version_num FROM control.alembic_version"))
            served = Tenant.schema_revision.is_not(None)
            total = await session.scalar(select(func.count()).select_from(Tenant).where(served))
            behind = await session.scalar(
                select(func.count())
                .select_from(Tenant)
                .where(served, Tenant.schema_revision != head("tenant"))
            )
    finally:
        await database.close()
    checks = []
    if control != head("control"):
        checks.append(
            Check("migrations", "wrong", f"shared tables are at {control}", "run `dermadetect migrate`")
        )
    if behind:
        checks.append(
            Check(
                "migrations", "wrong", f"{behind} of {total} tenants are behind", "run `dermadetect migrate`"
            )
        )
    return checks or [
        Check("migrations", "ok", f"shared tables and {total} tenants are at the newest revision")
    ]


async def _look(url: str) -> dict[str, Any]:
    import asyncpg

    from tenants.provisioning.roles import OWNER

    connection = await asyncpg.connect(url, timeout=5, statement_cache_size=0)  # also through PgBouncer
    try:
        row = await connection.fetchrow(_LOGIN, OWNER)
        assert row is not None
        return dict(row)
    finally:
        await connection.close()


def _verdict(check: str, name: str, must: list[tuple[Any, str, str]]) -> list[Check]:
    wrong = [Check(check, "wrong", f"{name} {what}", remedy) for bad, what, remedy in must if bad]
    return wrong or [Check(check, "ok", name)]


def _server(version: int) -> Check:
    if 15 <= version <= 18:
        return Check("database server", "ok", f"PostgreSQL {version}")
    return Check("database server", "wrong", f"PostgreSQL {version}", "use PostgreSQL 15 to 18")
