"""Whether tenants' schemas are what the migrations make: every object of the catalog, compared by its definition.

What should be there is made: the revision's script runs in a scratch schema, inside a transaction that is rolled
back. Many schemas are compared at once by one checksum each, which the server makes; only where it differs are the
objects read and named. In names and definitions the tenant's schema and role, which have one name, are `<tenant>`.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg
from sqlalchemy import select

from core.database import AdminDatabase, TenantScope
from migrations.rendering import Branch, head, history, render
from migrations.runner import LOCK_TIMEOUT_MS, empty_schema
from tenants.directory.models import Tenant
from tenants.directory.service import find_tenant
from tenants.provisioning.roles import OWNER, new_role

AT_ONCE = 200  # schemas in one query

Objects = Mapping[tuple[str, str], str]
"""Definitions by kind and name."""

# One row for each object; where a right was never granted or taken, the defaults of its kind count.
_OBJECTS = r"""
WITH schemas AS (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace WHERE nspname = ANY($1)
), relations AS (
    SELECT c.*, nspname FROM pg_class c JOIN schemas n ON n.oid = relnamespace WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
), functions AS (
    SELECT p.*, p.oid::regprocedure::text AS signature, nspname FROM pg_proc p JOIN schemas n ON n.oid = pronamespace
    WHERE prokind IN ('f', 'p')
), rights AS (
    SELECT nspname, 'schema' AS name, coalesce(nspacl, acldefault('n', nspowner)) AS acl FROM schemas
    UNION ALL SELECT nspname, relname, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) FROM relations
    UNION ALL SELECT nspname, relname || '.' || attname, attacl FROM relations c JOIN pg_attribute ON attrelid = c.oid WHERE attacl IS NOT NULL
    UNION ALL SELECT nspname, signature, coalesce(proacl, acldefault('f', proowner)) FROM functions
    UNION ALL SELECT nspname, 'future objects of kind ' || defaclobjtype::text, defaclacl FROM pg_default_acl JOIN schemas n ON n.oid = defaclnamespace
), objects (nspname, kind, name, definition) AS (
    SELECT nspname, 'schema', 'schema', 'owner ' || nspowner::regrole FROM schemas
    UNION ALL
    SELECT nspname, CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' WHEN 'S' THEN 'sequence' ELSE 'table' END, relname, concat_ws(', ',
        'owner ' || relowner::regrole, 'kind ' || relkind::text || relpersistence::text,
        CASE WHEN relrowsecurity THEN 'row security' END, CASE WHEN relforcerowsecurity THEN 'forced' END,
        array_to_string(reloptions, ', '), CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) END)
    FROM relations
    UNION ALL
    SELECT nspname, 'column', relname || '.' || attname, concat_ws(' ', format_type(atttypid, atttypmod),
        CASE WHEN attcollation <> typcollation THEN 'COLLATE ' || attcollation::regcollation END,
        CASE WHEN attnotnull THEN 'NOT NULL' END, 'IDENTITY ' || nullif(attidentity::text, ''),
        CASE WHEN attgenerated = '' THEN 'DEFAULT ' ELSE 'GENERATED ' || attgenerated::text || ' AS ' END || pg_get_expr(adbin, adrelid))
    FROM relations c JOIN pg_attribute a ON attrelid = c.oid JOIN pg_type t ON t.oid = atttypid
    LEFT JOIN pg_attrdef d ON adrelid = c.oid AND adnum = attnum
    WHERE attnum > 0 AND NOT attisdropped AND relkind <> 'S'
    UNION ALL
    SELECT nspname, 'constraint', relname || '.' || conname, pg_get_constraintdef(k.oid)
    FROM relations c JOIN pg_constraint k ON conrelid = c.oid WHERE contype <> 'n'
    UNION ALL
    SELECT c.nspname, 'index', i.relname, pg_get_indexdef(indexrelid) || CASE WHEN indisvalid THEN '' ELSE ' INVALID' END
    FROM relations c JOIN pg_index x ON indrelid = c.oid JOIN pg_class i ON i.oid = indexrelid
    WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
    UNION ALL
    SELECT nspname, 'trigger', relname || '.' || tgname, pg_get_triggerdef(g.oid) || ' ' || tgenabled::text
    FROM relations c JOIN pg_trigger g ON tgrelid = c.oid WHERE NOT tgisinternal
    UNION ALL
    SELECT nspname, 'policy', relname || '.' || polname, concat_ws(' ', polcmd, polpermissive, polroles::regrole[],
        'USING ' || pg_get_expr(polqual, polrelid), 'CHECK ' || pg_get_expr(polwithcheck, polrelid))
    FROM relations c JOIN pg_policy ON polrelid = c.oid
    UNION ALL
    SELECT nspname, 'function', signature, 'owner ' || proowner::regrole || ', ' || pg_get_functiondef(oid) FROM functions
    UNION ALL
    SELECT nspname, 'type', typname, concat_ws(' ', typtype, nullif(format_type(typbasetype, typtypmod), '-'),
        (SELECT string_agg(enumlabel, ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid))
    FROM pg_type t JOIN schemas n ON n.oid = typnamespace WHERE typtype IN ('e', 'd', 'r')
    UNION ALL
    SELECT nspname, 'grant', name || ' to ' || CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
        string_agg(privilege_type || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, ', ' ORDER BY privilege_type)
    FROM rights, aclexplode(acl) GROUP BY nspname, name, grantee
), neutral AS (
    SELECT nspname, kind, replace(name, nspname, '<tenant>') AS name, replace(definition, nspname, '<tenant>') AS definition
    FROM objects
)
"""  # one object kind after the other, as PostgreSQL's manual names their catalogs

_ALL = f"{_OBJECTS} SELECT nspname, kind, name, definition FROM neutral"

_CHECKSUMS = rf"""{_OBJECTS} SELECT nspname,
    md5(string_agg(concat_ws(E'\x01', kind, name, definition), E'\x02' ORDER BY kind COLLATE "C", name COLLATE "C"))
    FROM neutral GROUP BY nspname"""

_READABLE = """SELECT nspname FROM pg_namespace n JOIN pg_class c ON relnamespace = n.oid
    WHERE nspname = ANY($1) AND relname = 'alembic_version'
    AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')"""


@dataclass(frozen=True)
class Difference:
    """One object of one tenant that is not as it should be; None: it is not there, or should not be."""

    tenant: str
    kind: str
    name: str
    expected: str | None
    found: str | None


@dataclass
class Drift:
    """What a comparison found. `behind` maps the slugs of tenants that are not at head to their revision; these
    were compared with what that revision makes."""

    checked: int = 0
    behind: dict[str, str] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)


async def find_drift(database: AdminDatabase, slug: str | None = None, branch: Branch = "tenant") -> Drift:
    """Compare all tenants' schemas, or one tenant's. Raises `TenantNotFound`."""
    async with database.control() as session:
        if slug:
            await find_tenant(session, slug)
        query = select(Tenant).order_by(Tenant.slug).where(Tenant.schema_revision.is_not(None))
        query = query.where(Tenant.state.not_in(("closed", "moving")))
        found = (await session.scalars(query.where(Tenant.slug == slug) if slug else query)).all()
    drift = Drift(checked=len(found))
    for cell in sorted({tenant.cell for tenant in found}):
        tenants = [(t.slug, t.scope.schema, t.schema_revision or "") for t in found if t.cell == cell]
        await _compare_cell(database, cell, tenants, branch, drift)
    return drift


async def _compare_cell(
    database: AdminDatabase,
    cell: str,
    tenants: list[tuple[str, str, str]],
    branch: Branch,
    drift: Drift,
) -> None:
    """Compare schemas of one cell, each given with its tenant's slug and the revision that the directory says."""
    known = {revision.id for revision in history(branch)}
    expected: dict[str, tuple[str, Objects]] = {}  # by revision, in the words of the cell's server
    async with database.connection(cell) as connection:
        await connection.execute(
            f"SET ROLE {OWNER}; SET search_path = pg_catalog, pg_temp; SET lock_timeout = {LOCK_TIMEOUT_MS}"
        )
        for first in range(0, len(tenants), AT_ONCE):
            part = tenants[first : first + AT_ONCE]
            schemas = [schema for _, schema, _ in part]
            at = await _revisions(connection, schemas)
            sums = await _pairs(connection, _CHECKSUMS, schemas)
            for name, schema, said in part:
                revision = at.get(schema)
                if revision != said:
                    drift.differences.append(Difference(name, "revision", "alembic_version", said, revision))
                if schema not in sums:
                    drift.differences.append(Difference(name, "schema", schema, "present", None))
                    continue
                measure = revision if revision in known else said
                if measure not in known:
                    continue  # another release's; that it is so was said
                if measure != head(branch):
                    drift.behind[name] = measure
                if measure not in expected:
                    expected[measure] = await _expected(database, cell, branch, measure)
                checksum, objects = expected[measure]
                if sums[schema] != checksum:
                    drift.differences += _compare(name, objects, await _objects(connection, schema))


async def _revisions(connection: asyncpg.Connection, schemas: Sequence[str]) -> dict[str, str]:
    """What the revision rows say that can be read."""
    readable = [row[0] for row in await connection.fetch(_READABLE, schemas)]
    each = [f"SELECT '{schema}', version_num FROM {schema}.alembic_version" for schema in readable]
    return await _pairs(connection, " UNION ALL ".join(each)) if each else {}


async def _pairs(connection: asyncpg.Connection, query: str, *arguments: Sequence[str]) -> dict[str, str]:
    return {row[0]: row[1] for row in await connection.fetch(query, *arguments)}


async def _expected(database: AdminDatabase, cell: str, branch: Branch, revision: str) -> tuple[str, Objects]:
    """Checksum and objects of a schema at `revision`. Leaves nothing behind."""
    scope = TenantScope(f"scratch{secrets.token_hex(8)}")
    async with database.connection(cell) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(
                f"{new_role(scope.role)}SET LOCAL ROLE {OWNER}; SET LOCAL search_path = {scope.schema}, extensions, pg_temp;\n"
                f"{empty_schema(scope)}{render(branch, None, revision)}\n"
                "SET LOCAL search_path = pg_catalog, pg_temp;"
            )
            sums = await _pairs(connection, _CHECKSUMS, [scope.schema])
            return sums[scope.schema], await _objects(connection, scope.schema)
        finally:
            await transaction.rollback()


async def _objects(connection: asyncpg.Connection, schema: str) -> Objects:
    return {(kind, name): text for _, kind, name, text in await connection.fetch(_ALL, [schema])}


def _compare(tenant: str, expected: Objects, found: Objects) -> Iterator[Difference]:
    for kind, name in sorted(expected.keys() | found.keys()):
        pair = expected.get((kind, name)), found.get((kind, name))
        if pair[0] != pair[1]:
            yield Difference(tenant, kind, name, *pair)
