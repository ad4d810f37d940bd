"""A tenant's tables, as far as their rows can be carried elsewhere."""

from collections.abc import Collection
from graphlib import TopologicalSorter

import asyncpg

from tenants.provisioning.roles import OWNER


async def enter(connection: asyncpg.Connection, schema: str) -> None:
    """Read or write a tenant's tables until the transaction ends, as their owner."""
    await connection.execute(f"SET LOCAL ROLE {OWNER}; SET LOCAL search_path = {schema}, extensions, pg_temp")


async def portable_tables(
    connection: asyncpg.Connection, schema: str, leave_out: Collection[str]
) -> dict[str, list[str]]:
    """Every table's columns, generated ones left out; each table comes after those that its foreign keys name."""
    tables = await connection.fetch(
        """
        SELECT c.relname::text AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
        WHERE relnamespace = $1::regnamespace AND relkind = 'r' GROUP BY c.relname ORDER BY c.relname
        """,
        schema,
    )
    references = await connection.fetch(
        """
        SELECT t.relname::text AS name, r.relname::text AS needed FROM pg_constraint k
        JOIN pg_class t ON t.oid = conrelid JOIN pg_class r ON r.oid = confrelid
        WHERE connamespace = $1::regnamespace AND contype = 'f' AND conrelid <> confrelid
        """,
        schema,
    )
    order = TopologicalSorter({row["name"]: set() for row in tables})
    for row in references:
        order.add(row["name"], row["needed"])
    columns = {row["name"]: list(row["columns"]) for row in tables}
    skipped = {"alembic_version", *leave_out}
    return {name: columns[name] for name in order.static_order() if name not in skipped}
