"""What lets a cluster place whole schemas on its nodes (Citus schema-based sharding), read from the catalog."""

import asyncpg
import pytest

from tests.fixtures.world import World

FOREIGN_KEYS = """
    SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint
    JOIN pg_class here ON here.oid = conrelid JOIN pg_class there ON there.oid = confrelid
    WHERE contype = 'f' AND here.relnamespace <> there.relnamespace
"""

TABLES = """
    SELECT relname, EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p') AS keyed
    FROM pg_class c WHERE relkind IN ('r', 'p') AND relnamespace = $1::regnamespace
"""

# What a table takes its values from elsewhere would be another node's: sequences, and tables and views of others.
ELSEWHERE = """
    SELECT DISTINCT c.oid::regclass::text, other.oid::regclass::text FROM pg_class c
    JOIN pg_depend d ON d.objid = c.oid OR d.objid IN (SELECT oid FROM pg_attrdef WHERE adrelid = c.oid)
        OR d.objid IN (SELECT oid FROM pg_rewrite WHERE ev_class = c.oid)
    JOIN pg_class other ON other.oid = d.refobjid AND d.refclassid = 'pg_class'::regclass
    WHERE c.relnamespace = $1::regnamespace AND other.relnamespace <> c.relnamespace
"""
SEQUENCES = "SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = $1::regnamespace"

OTHERS = """
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm') AND (nspname = 'control' OR nspname LIKE 't\\_%') AND nspname <> $1
    AND (has_table_privilege($1, c.oid, 'SELECT') OR has_table_privilege($1, c.oid, 'INSERT')
        OR has_table_privilege($1, c.oid, 'UPDATE') OR has_table_privilege($1, c.oid, 'DELETE'))
"""


@pytest.fixture
def schemas(world: World) -> list[str]:
    return [world.tenant(slug).scope.schema for slug in ("acme", "globex")]


async def rows(world: World, query: str, *arguments: str) -> list[asyncpg.Record]:
    async with world.admin.connection() as connection:
        return await connection.fetch(query, *arguments)


async def test_no_foreign_key_leaves_its_schema(world: World) -> None:
    assert await rows(world, FOREIGN_KEYS) == []


async def test_every_table_has_a_primary_key(world: World, schemas: list[str]) -> None:
    for schema in (*schemas, "control"):
        tables = await rows(world, TABLES, schema)
        assert len(tables) > 10
        assert [name for name, keyed in tables if not keyed] == []


async def test_nothing_is_numbered_by_a_sequence_or_made_of_another_schemas_tables(
    world: World, schemas: list[str]
) -> None:
    for schema in schemas:
        assert await rows(world, SEQUENCES, schema) == []
        assert await rows(world, ELSEWHERE, schema) == []


async def test_no_statement_of_a_tenant_can_join_what_is_not_in_its_schema(
    world: World, schemas: list[str]
) -> None:
    for schema in schemas:  # which is the role's name as well
        assert await rows(world, OTHERS, schema) == []
