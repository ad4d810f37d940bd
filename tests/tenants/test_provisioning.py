"""Making tenants: idempotent, resumable, and the script is what the migrations make."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest
from alembic import command
from sqlalchemy.ext.asyncio import create_async_engine

from core.blobs import BlobStore
from core.problems import Problem
from gateway.assembly import provisioning_steps
from migrations import rendering
from migrations.fleet import migrate
from tenants.directory.errors import BadSlug, SlugTaken
from tenants.directory.models import Tenant
from tenants.directory.service import suspend
from tenants.plans.errors import PlanNotFound
from tenants.provisioning.service import Step, provision
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.world import World

# Everything a schema holds, by name and definition, and the rows it starts with.
CATALOG = """
    SELECT 'column', table_name, column_name, data_type || coalesce(column_default, '') || is_nullable
    FROM information_schema.columns WHERE table_schema = $1
    UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = $1::regnamespace
    UNION ALL SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = $1
    UNION ALL SELECT 'grant', table_name, grantee, privilege_type
    FROM information_schema.role_table_grants WHERE table_schema = $1
    ORDER BY 1, 2, 3, 4
"""


async def make(world: World, slug: str, steps: list[Step], name: str = "Name", plan: str = "trial") -> Tenant:
    return await provision(
        world.admin,
        steps,
        slug=slug,
        name=name,
        plan=plan,
        base_domain="localhost",
        schema_revision=rendering.head("tenant"),
    )


def steps_of(world: World) -> list[Step]:
    return provisioning_steps(world.settings, world.admin, world.parts[BlobStore])


@pytest.mark.parametrize("broken", ["schema", "container", "keys"])
@pytest.mark.parametrize("after", [False, True])
async def test_an_attempt_that_fails_in_a_step_is_finished_by_the_next(
    world: World, broken: str, after: bool
) -> None:
    """`after`: the step's work was done, but the process died before the ledger knew."""
    slug = f"half-{broken}-{'after' if after else 'before'}"

    def breaking(step: Step) -> Step:
        async def run(tenant: Tenant) -> None:
            if after:
                await step.run(tenant)
            raise ConnectionError("the power went out")

        return replace(step, run=run)

    steps = steps_of(world)
    with pytest.raises(ConnectionError):
        await make(world, slug, [breaking(step) if step.name == broken else step for step in steps])
    tenant = await make(world, slug, steps)
    assert tenant.state == "active"
    async with world.admin.connection() as connection:
        keys = await connection.fetchval(
            "SELECT count(*) FROM control.tenant_keys WHERE tenant_id = $1", tenant.id
        )
    assert keys == 3


async def test_creating_twice_gives_the_same_tenant(world: World) -> None:
    first = await make(world, "twice", steps_of(world))
    second = await make(world, "twice", steps_of(world))
    assert (first.id, first.key) == (second.id, second.key)


async def test_two_commands_at_once_make_one_tenant(world: World) -> None:
    made = await asyncio.gather(*(make(world, "raced", steps_of(world)) for _ in range(3)))
    assert len({tenant.key for tenant in made}) == 1
    assert {tenant.state for tenant in made} == {"active"}


@pytest.mark.parametrize(
    ("slug", "name", "plan", "problem"),
    [
        ("A", "Name", "trial", BadSlug),
        ("www", "Name", "trial", BadSlug),
        ("a--b", "Name", "trial", BadSlug),
        ("-abc", "Name", "trial", BadSlug),
        ("x" * 41, "Name", "trial", BadSlug),
        ("acme", "Somebody Else", "enterprise", SlugTaken),
        ("acme", "Acme", "trial", SlugTaken),
        ("fine", "Name", "platinum", PlanNotFound),
    ],
)
async def test_what_cannot_be_made_says_why(
    world: World, slug: str, name: str, plan: str, problem: type[Problem]
) -> None:
    with pytest.raises(problem) as raised:
        await make(world, slug, steps_of(world), name=name, plan=plan)
    assert slug in raised.value.detail or plan in raised.value.detail


def test_the_kept_script_is_what_the_migrations_render() -> None:
    assert rendering.tenant_script() == rendering.render("tenant"), "run `make tenant-script`"


async def test_script_and_replayed_migrations_make_the_same_schema(world: World) -> None:
    by_script = world.tenant("acme").scope.schema
    by_replay = "t_replayed"
    async with world.admin.connection() as connection:
        await connection.execute(
            f"CREATE ROLE {by_replay} NOLOGIN; CREATE SCHEMA {by_replay} AUTHORIZATION dermadetect_owner; "
            f"SET ROLE dermadetect_owner; ALTER DEFAULT PRIVILEGES IN SCHEMA {by_replay} "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {by_replay}"
        )
    assert world.settings.admin_database_url
    engine = create_async_engine(
        world.settings.admin_database_url.get_secret_value().replace("postgresql:", "postgresql+asyncpg:"),
        connect_args={"server_settings": {"search_path": by_replay, "role": "dermadetect_owner"}},
    )

    def upgrade(connection: object) -> None:
        config = rendering.config("tenant")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async with engine.connect() as connection:
        await connection.run_sync(upgrade)
        await connection.commit()
    await engine.dispose()

    async def describe(connection: asyncpg.Connection, schema: str) -> list[tuple[str, ...]]:
        rows = [tuple(str(value) for value in row) for row in await connection.fetch(CATALOG, schema)]
        for table in ("specialties", "pools", "alembic_version"):
            rows += [
                (table, *(str(value) for name, value in row.items() if not name.endswith("_at")))
                for row in await connection.fetch(f"SELECT * FROM {schema}.{table} ORDER BY 1")
            ]
        return [tuple(value.replace(schema, "SCHEMA") for value in row) for row in rows]

    async with world.admin.connection() as connection:
        await connection.execute("SET ROLE dermadetect_owner")
        script, replay = await describe(connection, by_script), await describe(connection, by_replay)
        await connection.execute(f"DROP SCHEMA {by_replay} CASCADE")
        await connection.execute(f"RESET ROLE; DROP ROLE {by_replay}")
    assert len(script) > 300
    assert script == replay


async def test_every_table_of_a_tenant_has_a_primary_key_and_refers_to_no_other_schema(world: World) -> None:
    schema = world.tenant("acme").scope.schema
    async with world.admin.connection() as connection:
        without = await connection.fetch(
            """SELECT relname FROM pg_class c WHERE relnamespace = $1::regnamespace AND relkind = 'r'
               AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p')""",
            schema,
        )
        foreign = await connection.fetch(
            """SELECT conname FROM pg_constraint k JOIN pg_class f ON f.oid = k.confrelid
               WHERE k.contype = 'f' AND k.connamespace = $1::regnamespace AND f.relnamespace <> k.connamespace""",
            schema,
        )
        owner = await connection.fetchval(
            "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = $1", schema
        )
        role = await connection.fetchrow(
            "SELECT rolcanlogin, rolinherit, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = $1",
            schema,
        )
    assert without == []
    assert foreign == []
    assert owner == "dermadetect_owner"
    assert tuple(role) == (False, True, False, False, False)


async def test_migrating_twice_does_nothing_and_leaves_a_failing_tenant_for_later(
    world: World, postgres: PostgresServer
) -> None:
    report = await migrate(world.admin, "dermadetect_gateway")
    assert report.control == (rendering.head("control"), rendering.head("control"))
    assert report.tenants == []
    assert report.quarantined == {}


async def test_a_slug_that_is_another_tenants_key_names_its_own_tenant(world: World) -> None:
    other = await make(world, "keyed", steps_of(world))
    tenant = await make(world, other.key, steps_of(world), name="Looks Alike")
    assert tenant.id != other.id
    assert tenant.state == "active"
    async with world.admin.control() as session:
        await suspend(session, other.key, "test")
        assert (await session.get_one(Tenant, tenant.id)).state == "suspended"
        assert (await session.get_one(Tenant, other.id)).state == "active"
