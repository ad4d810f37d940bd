"""The two logins that the product runs with, on any PostgreSQL server.

`dermadetect_admin` owns the database and may create roles: migrations and provisioning. `dermadetect_gateway`
owns nothing and inherits nothing: it can only become what the other grants it.
"""

from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import asyncpg

ADMIN = "dermadetect_admin"
GATEWAY = "dermadetect_gateway"


@dataclass(frozen=True)
class Logins:
    """How to reach one database: as its owner, as the gateway, and as the server's superuser."""

    admin_url: str = field(repr=False)
    gateway_url: str = field(repr=False)
    superuser_url: str = field(repr=False)


def group_login(login: str, group: int) -> str:
    """The name of the gateway's login for a group of tenants: switching roles slows with the number of roles that a
    login may become, so one login serves a few hundred tenants and there are several of them."""
    return f"{login}_{group}" if group else login


def group_url(url: str, group: int) -> str:
    """The database at `url`, as the login of a group. All have one password."""
    if not group:
        return url
    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    user, colon, password = credentials.partition(":")
    login = quote(group_login(unquote(user), group), "")
    return urlunsplit(parts._replace(netloc=f"{login}{colon}{password}@{host}"))


async def create_database(
    superuser_url: str, database: str, *, admin_password: str, gateway_password: str
) -> Logins:
    """Make `database` and the two logins that the product runs with, or bring them back to what they should be.

    The extensions that the product uses go into the schema `extensions`. `superuser_url` names any database of a
    PostgreSQL 15 to 18.
    """
    server = await asyncpg.connect(superuser_url)
    try:
        # Roles are shared by all databases of a server: two callers at once would both create them.
        await server.execute("SELECT pg_advisory_lock(hashtext('dermadetect bootstrap'))")
        for login, password, rights in (
            (ADMIN, admin_password, "INHERIT CREATEROLE"),
            (GATEWAY, gateway_password, "NOINHERIT NOCREATEROLE"),
        ):
            exists = await server.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", login)
            rights += " LOGIN NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS"
            await server.execute(
                await server.fetchval(
                    f"SELECT format('{'ALTER' if exists else 'CREATE'} ROLE %I {rights} PASSWORD %L', $1::text, $2::text)",
                    login,
                    password,
                )
            )
        name = await server.fetchval("SELECT quote_ident($1)", database)
        if not await server.fetchval("SELECT true FROM pg_database WHERE datname = $1", database):
            await server.execute(f"CREATE DATABASE {name}")
        await server.execute(f"ALTER DATABASE {name} OWNER TO {ADMIN}")
        await server.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
    finally:
        await server.close()

    inside = _with(superuser_url, database=database)
    connection = await asyncpg.connect(inside)
    try:
        await connection.execute(
            f"""
            REVOKE CREATE ON SCHEMA public FROM PUBLIC;
            CREATE SCHEMA IF NOT EXISTS extensions AUTHORIZATION {ADMIN};
            GRANT USAGE ON SCHEMA extensions TO PUBLIC;
            CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA extensions;
            CREATE EXTENSION IF NOT EXISTS btree_gin SCHEMA extensions;
            CREATE EXTENSION IF NOT EXISTS unaccent SCHEMA extensions;
            """
        )
    finally:
        await connection.close()
    return Logins(
        admin_url=_with(superuser_url, user=ADMIN, password=admin_password, database=database),
        gateway_url=_with(superuser_url, user=GATEWAY, password=gateway_password, database=database),
        superuser_url=inside,
    )


def _with(url: str, *, database: str, user: str = "", password: str = "") -> str:
    """The same server, another database and login."""
    parts = urlsplit(url)
    location = parts.netloc
    if user:
        location = f"{quote(user, '')}:{quote(password, '')}@{location.rpartition('@')[2]}"
    return urlunsplit(parts._replace(netloc=location, path="/" + quote(database, "")))
