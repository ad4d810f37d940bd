"""The nodes of a Citus cluster, which keeps each tenant's schema on one of them (schema-based sharding, Citus 12 on)."""

import asyncpg

from core.database import AdminDatabase
from tenants.audit.service import record
from tenants.directory.models import Tenant
from tenants.directory.service import find_tenant
from tenants.moving.errors import MoveRefused
from tenants.provisioning.roles import OWNER, has_citus


async def nodes_of_schemas(database: AdminDatabase) -> dict[tuple[str, str], str]:
    """`HOST:PORT` by cell and schema, for the schemas of those cells that are Citus clusters."""
    found: dict[tuple[str, str], str] = {}
    for cell in database.cells:
        async with database.connection(cell) as connection:
            if not await has_citus(connection):
                continue
            rows = await connection.fetch(
                """SELECT DISTINCT schema_name::text, nodename, nodeport
                FROM citus_schemas JOIN citus_shards USING (colocation_id)"""
            )
            found |= {(cell, schema): f"{host}:{port}" for schema, host, port in rows}
    return found


async def move_to_node(database: AdminDatabase, slug: str, node: str) -> Tenant:
    """Move a tenant's schema to another node of its cell's cluster, which goes on serving it meanwhile; only at the end
    writes wait for a moment. Blobs stay. Idempotent: one that is there stays.

    Raises `TenantNotFound`, and `MoveRefused` where the database is no Citus cluster, `node` (`HOST:PORT`) is none of
    its nodes, or a move to another cell is under way.
    """
    async with database.control() as session:
        key = (await find_tenant(session, slug)).key
    async with database.one_at_a_time("move", key):
        async with database.control() as session:
            tenant = await find_tenant(session, key)
        async with database.connection(tenant.cell) as connection:
            host, port = await _node(connection, tenant.cell, node)
            if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", tenant.scope.schema):
                raise MoveRefused(f"{tenant.slug} is being moved to another cell; finish that first.")
            await connection.execute(f"SET ROLE {OWNER}")
            schema = tenant.scope.schema
            await connection.execute("SELECT citus_schema_move($1::regnamespace, $2, $3)", schema, host, port)
        async with database.control() as session:
            record(session, tenant, "tenant.moved-to-node", node=node)
    return tenant


async def _node(connection: asyncpg.Connection, cell: str, node: str) -> tuple[str, int]:
    if not await has_citus(connection):
        raise MoveRefused(f"The database of the cell {cell!r} is no Citus cluster, so it has no nodes.")
    rows = await connection.fetch(
        "SELECT nodename, nodeport FROM pg_dist_node WHERE isactive AND shouldhaveshards"
    )
    nodes = {f"{host}:{port}": (host, port) for host, port in rows}
    if node not in nodes:
        raise MoveRefused(f"{node!r} is no node that takes tenants; there are {', '.join(sorted(nodes))}.")
    return nodes[node]
