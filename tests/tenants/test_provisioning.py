"""Making tenants: idempotent, resumable, and the script is what the migrations make."""

import asyncio
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import update
from sqlalchemy.ext.asyncio import create_async_engine

from core.blobs import BlobStores
from core.database import TenantScope
from core.embedded_cluster import find_binaries
from core.problems import Problem
from gateway.assembly import provisioning_steps
from migrations import rendering
from migrations.fleet import migrate
from migrations.runner import drop_schema
from tenants.directory.cache import Directory
from tenants.directory.errors import BadSlug, SlugTaken
from tenants.directory.models import Tenant
from tenants.directory.service import list_tenants, suspend
from tenants.plans.errors import PlanNotFound
from tenants.provisioning.pool import fill_pool
from tenants.provisioning.service import Step, provision, roll_back
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.world import World


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
    return provisioning_steps(world.settings, world.admin, world.parts[BlobStores])


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


async def test_script_and_replayed_migrations_make_the_same_schema(world: World, tmp_path: Path) -> None:
    """Told by `pg_dump`, with owners, rights, default rights, comments, functions and every row."""
    by_script = (await make(world, "scripted", steps_of(world))).scope.schema
    by_replay = "t_replayed"
    assert world.settings.admin_database_url
    url = world.settings.admin_database_url.get_secret_value()
    async with world.admin.connection() as connection:
        await connection.execute(
            f"CREATE ROLE {by_replay} NOLOGIN; SET ROLE dermadetect_owner; CREATE SCHEMA {by_replay}; "
            f"GRANT USAGE ON SCHEMA {by_replay} TO {by_replay}; ALTER DEFAULT PRIVILEGES IN SCHEMA {by_replay} "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {by_replay}"
        )
    engine = create_async_engine(
        url.replace("postgresql:", "postgresql+asyncpg:"),
        connect_args={
            "server_settings": {
                "search_path": f"{by_replay}, extensions, pg_temp",
                "role": "dermadetect_owner",
            }
        },
    )

    def upgrade(connection: object) -> None:
        config = rendering.config("tenant")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async with engine.connect() as upgrading:
        await upgrading.run_sync(upgrade)
        await upgrading.commit()
    await engine.dispose()
    script, replay = dump(url, by_script, tmp_path), dump(url, by_replay, tmp_path)
    await drop_schema(world.admin, TenantScope(by_replay.removeprefix("t_")))
    for kind in ("CREATE TABLE", "INSERT INTO", "ALTER DEFAULT PRIVILEGES", "GRANT", "OWNER TO"):
        assert kind in script
    assert script == replay


def dump(url: str, schema: str, directory: Path) -> str:
    """All that a schema holds as SQL, its name and the times of its rows left out."""
    output = subprocess.run(
        [
            find_binaries(directory) / "pg_dump",
            *("--schema", schema, "--role", "dermadetect_owner", "--column-inserts"),
            url,
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    output = re.sub(r"^\\(un)?restrict .*$", "", output, flags=re.MULTILINE)  # a new secret in every dump
    return re.sub(r"'\d{4}-\d\d-\d\d [\d:.+]+'", "TIME", output.replace(schema, "SCHEMA"))


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
    assert tuple(role or ()) == (False, True, False, False, False)


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


async def fill(world: World, size: int) -> set[str]:
    """Fill the pool and return the keys in it."""
    await fill_pool(world.admin, steps_of(world), size, rendering.head("tenant"))
    async with world.admin.control() as session:
        return {tenant.key for tenant in await list_tenants(session, "warm")}


async def test_creators_at_once_never_claim_the_same_tenant_and_go_on_when_the_pool_is_empty(
    world: World,
) -> None:
    warm = await fill(world, 2)
    made = await asyncio.gather(*(make(world, f"hurried-{number}", steps_of(world)) for number in range(4)))
    assert {tenant.state for tenant in made} == {"active"}
    assert len({tenant.key for tenant in made}) == 4
    assert warm < {tenant.key for tenant in made}
    assert await fill(world, 0) == set()


async def test_a_tenant_from_the_pool_is_as_any_other(world: World) -> None:
    [warm] = await fill(world, 1)
    tenant = await world.create_tenant("pooled", plan="standard")
    assert (tenant.key, tenant.name, tenant.plan) == (warm, "Pooled", "standard")
    person = await world.person("tenant_admin", tenant="pooled")
    assert (await person.http.get("/v1/me")).status_code == 200
    again = await make(world, "pooled", steps_of(world), name="Pooled", plan="standard")
    assert again.key == warm


async def test_a_warm_tenant_that_is_behind_is_brought_up_to_date_before_it_is_claimed(world: World) -> None:
    [warm] = await fill(world, 1)
    async with world.admin.control() as session:
        await session.execute(update(Tenant).where(Tenant.key == warm).values(schema_revision="0000"))
    assert (await make(world, "impatient", steps_of(world))).key != warm
    assert await fill(world, 1) == {warm}, "filling brings it up to date and makes no other"
    assert (await make(world, "later", steps_of(world))).key == warm


async def test_a_rolled_back_address_answers_nobody_until_it_is_somebodys_again(world: World) -> None:
    def broken(step: Step) -> Step:
        async def run(tenant: Tenant) -> None:
            raise ConnectionError("the power went out")

        return replace(step, run=run)

    undo: dict[str, Any] = {"slug": "second-thought", "name": "Second-Thought", "plan": "enterprise"}
    with pytest.raises(ConnectionError):
        await make(
            world,
            "second-thought",
            [*steps_of(world)[:2], broken(steps_of(world)[2])],
            name=undo["name"],
            plan=undo["plan"],
        )
    http = await world.http("second-thought.localhost")
    await world.parts[Directory].refresh()
    assert "being set up" in (await http.get("/v1/me")).json()["detail"]
    await roll_back(world.admin, steps_of(world), **undo)
    await world.parts[Directory].refresh()
    assert (await http.get("/v1/me")).json()["type"].endswith("unknown-host")
    await world.create_tenant("second-thought")
    assert (await http.get("/v1/me")).status_code == 401
