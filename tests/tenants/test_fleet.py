"""Migrating a fleet: who is touched, in which order, and what becomes of the one that fails."""

import asyncio
import json
import signal
from typing import Any

import pytest

from migrations import ledger
from migrations.fleet import pending
from tests.fixtures.fleet import Fleet, eventually

ADD_COLUMN = 'op.add_column("pools", sa.Column("note", sa.Text(), server_default="", nullable=False))'
# Fails where two pools have one name.
UNIQUE_NAMES = 'op.create_unique_constraint("uq_pools_name", "pools", ["name"])'
TWO_OF_A_NAME = """INSERT INTO pools (id, code, name, kind) SELECT gen_random_uuid(), code, 'Jane Doe', 'private'
    FROM (VALUES ('one'), ('two')) AS made (code)"""
ATTEMPTS = """SELECT attempts FROM control.tenant_migrations
    JOIN control.tenants t ON t.id = tenant_id WHERE slug = '{}'"""
IN_PYTHON = """for row in op.get_bind().execute(sa.text("SELECT id, name FROM pools")).all():
        op.get_bind().execute(
            sa.text("UPDATE pools SET name = :name WHERE id = :id"),
            {"name": row.name[::-1], "id": row.id},
        )"""


async def test_only_schemas_that_are_not_at_head_are_touched(fleet: Fleet) -> None:
    await fleet.create("acme", "globex", "initech")
    fleet.revise(ADD_COLUMN)
    await fleet.sql(
        "acme", "ALTER TABLE pools ADD note text; UPDATE alembic_version SET version_num = '0002'"
    )
    await fleet.sql("acme", "UPDATE control.tenants SET schema_revision = '0002' WHERE slug = 'acme'")
    # One that waits in the pool is migrated as any other.
    await fleet.sql("acme", "UPDATE control.tenants SET state = 'warm' WHERE slug = 'initech'")
    epoch = await fleet.sql("acme", "SELECT value FROM control.epoch")
    row = await fleet.sql("acme", "SELECT xmin::text FROM alembic_version")

    planned = await pending(fleet.admin, fleet.branch)
    assert planned.tenants == {"globex": "0001", "initech": "0001"}
    assert [revision.id for revision in planned.revisions] == ["0002"]
    done = await fleet.migrate()
    assert (sorted(done.tenants), done.quarantined, done.left) == (["globex", "initech"], {}, {})
    assert set((await fleet.revisions_of_all()).values()) == {("0002", "0002")}
    assert await fleet.sql("acme", "SELECT xmin::text FROM alembic_version") == row
    assert await fleet.sql("acme", "SELECT value FROM control.epoch") > epoch, "gateways hear of it"
    assert (await fleet.migrate()).tenants == []


async def test_one_that_fails_is_set_aside_and_the_others_go_on(fleet: Fleet) -> None:
    slugs = [f"clinic-{number}" for number in range(12)]
    await fleet.create(*slugs)
    await fleet.sql("clinic-5", TWO_OF_A_NAME)
    fleet.revise(ADD_COLUMN)
    fleet.revise(UNIQUE_NAMES)
    done = await fleet.migrate(workers=2)
    assert sorted(done.tenants) == sorted(set(slugs) - {"clinic-5"})
    assert list(done.quarantined) == ["clinic-5"]
    reason = done.quarantined["clinic-5"]
    assert reason.startswith("23505 UniqueViolationError: pools uq_pools_name")
    assert "Jane Doe" not in reason
    revisions = await fleet.revisions_of_all()
    assert revisions.pop("clinic-5") == ("0001", "0001"), "0002 was undone with 0003"
    assert set(revisions.values()) == {("0003", "0003")}

    assert (await fleet.migrate()).quarantined == done.quarantined, "it stays there"
    await fleet.sql("clinic-5", "DELETE FROM pools WHERE code = 'two'")
    assert (await fleet.migrate()).tenants == [], "until somebody says so"
    async with fleet.admin.control() as session:
        assert await ledger.retry(session, ["clinic-5"]) == ["clinic-5"]
    done = await fleet.migrate()
    assert (done.tenants, done.quarantined) == (["clinic-5"], {})


async def test_a_constraint_that_is_checked_at_the_end_fails_its_own_tenant(fleet: Fleet) -> None:
    await fleet.create("abc", "acme", "globex", "initech")
    await fleet.sql(
        "globex", "INSERT INTO pools (id, code, name, kind) VALUES (gen_random_uuid(), 'o', 'O', 'private')"
    )
    fleet.revise(
        """op.execute("ALTER TABLE pools ADD CONSTRAINT one_name UNIQUE (name) DEFERRABLE INITIALLY DEFERRED")
    op.execute("UPDATE pools SET name = 'The pool'")"""
    )
    done = await fleet.migrate(workers=1)
    assert done.tenants == ["abc", "acme", "initech"]
    assert list(done.quarantined) == ["globex"]


async def test_a_lock_that_is_not_given_is_tried_again_alone(fleet: Fleet) -> None:
    await fleet.create("acme", "globex", "initech", "umbrella")
    fleet.revise(ADD_COLUMN)
    lock = f"LOCK TABLE {await fleet.schema('initech')}.pools IN ACCESS SHARE MODE"
    async with fleet.holding(lock):
        migration = asyncio.create_task(fleet.migrate(workers=1, lock_timeout_ms=20_000))
        await fleet.waits("ALTER TABLE pools")

        async def others_are_done() -> bool:
            revisions = await fleet.revisions_of_all()
            return {slug for slug, at in revisions.items() if at == ("0002", "0002")} == {
                "acme",
                "globex",
                "umbrella",
            }

        await eventually(others_are_done)
        assert not migration.done()
    done = await migration
    assert sorted(done.tenants) == ["acme", "globex", "initech", "umbrella"]
    assert await fleet.sql("initech", ATTEMPTS.format("initech")) > 1


async def test_a_lock_that_is_never_given_is_told(fleet: Fleet) -> None:
    await fleet.create("acme", "globex", "initech")
    fleet.revise(ADD_COLUMN)
    async with fleet.holding(f"LOCK TABLE {await fleet.schema('globex')}.pools IN ACCESS SHARE MODE"):
        done = await fleet.migrate(lock_timeout_ms=50)
    assert sorted(done.tenants) == ["acme", "initech"]
    assert done.quarantined == {
        "globex": "55P03: a lock was not given in time; another session holds the table"
    }
    assert await fleet.sql("globex", ATTEMPTS.format("globex")) == ledger.ATTEMPTS


async def test_nobody_is_touched_when_a_canary_fails(fleet: Fleet) -> None:
    await fleet.create("acme", "globex", "initech")
    await fleet.sql("initech", TWO_OF_A_NAME)
    fleet.revise(UNIQUE_NAMES)
    done = await fleet.migrate(canaries=("initech",))
    assert (done.stopped, done.tenants, list(done.quarantined)) == ("canary", [], ["initech"])
    assert done.left == {"acme": "0001", "globex": "0001"}
    assert (await fleet.migrate(canaries=("initech",))).stopped == "canary", "also while in quarantine"
    done = await fleet.migrate(canaries=("globex",))
    assert (done.stopped, done.tenants) == (None, ["globex", "acme"])


async def test_waves_and_failures_stop_it_where_they_should(fleet: Fleet) -> None:
    slugs = [f"clinic-{number}" for number in range(9)]
    await fleet.create(*slugs)
    for slug in ("clinic-4", "clinic-5", "clinic-7"):
        await fleet.sql(slug, TWO_OF_A_NAME)
    fleet.revise(UNIQUE_NAMES)
    done = await fleet.migrate(wave_size=2, waves=2)
    assert (done.stopped, sorted(done.tenants)) == ("waves", slugs[:4])
    assert list(done.left) == slugs[4:]
    done = await fleet.migrate(wave_size=1, max_failures=2)
    assert (done.stopped, done.tenants) == ("failures", [])
    assert (list(done.quarantined), len(done.left)) == (["clinic-4", "clinic-5"], 3)
    done = await fleet.migrate(wave_size=1, max_failures=2)
    assert (done.stopped, done.tenants, len(done.quarantined)) == (None, ["clinic-6", "clinic-8"], 3)


async def test_a_revision_that_needs_python_runs_in_process(fleet: Fleet) -> None:
    await fleet.create("acme", "globex", "initech")
    fleet.revise(ADD_COLUMN)
    fleet.revise(IN_PYTHON, in_python=True)
    fleet.revise(UNIQUE_NAMES)
    await fleet.sql("globex", TWO_OF_A_NAME)
    done = await fleet.migrate()
    assert sorted(done.tenants) == ["acme", "initech"]
    assert done.quarantined["globex"].startswith("23505 UniqueViolationError: pools uq_pools_name")
    assert await fleet.sql("acme", "SELECT name FROM pools") == "loop derahS"
    assert await fleet.sql("globex", "SELECT count(*) FROM pools WHERE name = 'Shared pool'") == 1, "undone"
    assert (await fleet.revisions_of_all())["initech"] == ("0004", "0004")


async def test_what_the_directory_says_is_checked_against_the_schema(fleet: Fleet) -> None:
    await fleet.create("abc", "acme", "globex", "initech", "umbrella")
    fleet.revise(ADD_COLUMN)
    # One migrated by somebody else, one of a newer release, one without a revision row, one not ours.
    await fleet.sql(
        "acme", "ALTER TABLE pools ADD note text; UPDATE alembic_version SET version_num = '0002'"
    )
    await fleet.sql("globex", "UPDATE alembic_version SET version_num = '9999'")
    await fleet.sql("initech", "DROP TABLE alembic_version")
    await fleet.sql("umbrella", "UPDATE control.tenants SET schema_revision = '9999' WHERE slug = 'umbrella'")
    done = await fleet.migrate(workers=1)  # the first alone, the next two in company
    assert done.tenants == ["abc", "acme"]
    assert done.quarantined == {
        "globex": "the schema is at revision 9999; this release knows 0001 to 0002",
        "initech": "the schema has no revision row; this release knows 0001 to 0002",
    }
    assert done.left == {"umbrella": "9999"}


async def test_a_tenant_that_joins_meanwhile_comes_to_head_too(fleet: Fleet) -> None:
    await fleet.create("acme")
    fleet.revise(ADD_COLUMN)
    async with fleet.holding(f"LOCK TABLE {await fleet.schema('acme')}.pools IN ACCESS SHARE MODE"):
        migration = asyncio.create_task(fleet.migrate(lock_timeout_ms=20_000))
        await fleet.waits("ALTER TABLE pools")
        await fleet.create("globex")
    assert sorted((await migration).tenants) == ["acme", "globex"]


# The command, in a process of its own


async def ended(process: asyncio.subprocess.Process, code: int) -> tuple[dict[str, Any], str]:
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == code, err.decode()
    return json.loads(out), err.decode()


async def test_a_pause_from_another_process_holds_until_it_is_ended(fleet: Fleet) -> None:
    await fleet.create("acme", "globex", "initech")
    fleet.revise(ADD_COLUMN)
    async with fleet.holding(f"LOCK TABLE {await fleet.schema('acme')}.pools IN ACCESS SHARE MODE"):
        running = await fleet.dermadetect("migrate", "--json", "--workers", "1", "--lock-timeout", "30")
        await fleet.waits("ALTER TABLE pools")
        async with fleet.admin.control() as session:
            await ledger.pause(session, "clinics are open")
    shown, said = await ended(running, 5)
    assert shown["stopped"] == "paused"
    assert shown["migrated"] == ["acme"], "what was begun is finished"
    assert "dermadetect migrate resume" in said

    assert (await fleet.migrate()).stopped == "paused", "one that starts later too"
    async with fleet.admin.control() as session:
        found = await ledger.status(session, "0002")
        assert (found.at_head, found.paused, found.workers) == (1, "clinics are open", 0)
        assert found.behind == {"globex": "0001", "initech": "0001"}
        await ledger.resume(session)
    assert sorted((await fleet.migrate()).tenants) == ["globex", "initech"]


HALTS = {
    "before the tenants are entered": ("LOCK TABLE control.tenant_migrations", "tenant_migrations"),
    "in a schema": ("LOCK TABLE {schema}.pools IN ACCESS SHARE MODE", "ALTER TABLE pools"),
    "before the ledger is written": ("SELECT FROM control.epoch FOR UPDATE", "control.epoch"),
}


@pytest.mark.parametrize(
    ("halt", "in_python"), [(halt, python) for halt in HALTS for python in (False, True)][1:]
)
async def test_killed_anywhere_and_run_again_it_is_done_once(
    fleet: Fleet, halt: str, in_python: bool
) -> None:
    slugs = [f"clinic-{number}" for number in range(5)]
    await fleet.create(*slugs)
    fleet.revise(ADD_COLUMN, in_python=in_python)  # a second time it would fail
    lock, waiting = HALTS[halt]
    async with fleet.holding(lock.format(schema=await fleet.schema("clinic-3"))):
        running = await fleet.dermadetect("migrate", "--lock-timeout", "30")
        await fleet.waits(waiting)
        running.send_signal(signal.SIGKILL)
        await running.communicate()

    async def nobody_works() -> bool:
        async with fleet.admin.control() as session:
            return not (await ledger.status(session, "0002")).workers

    await eventually(nobody_works)  # a backend that waits for a lock notices its client's end afterwards
    async with fleet.admin.control() as session:
        behind = (await ledger.status(session, "0002")).behind
    assert "clinic-3" in behind
    assert sorted((await fleet.migrate()).tenants) == sorted(behind)
    assert await fleet.revisions_of_all() == dict.fromkeys(slugs, ("0002", "0002"))


async def test_two_at_once_share_the_work(fleet: Fleet) -> None:
    slugs = [f"clinic-{number:02}" for number in range(8)]
    await fleet.create(*slugs)
    fleet.revise(ADD_COLUMN)
    async with fleet.holding(f"LOCK TABLE {await fleet.schema('clinic-00')}.pools IN ACCESS SHARE MODE"):
        running = await fleet.dermadetect("migrate", "--json", "--workers", "1", "--lock-timeout", "30")
        await fleet.waits("ALTER TABLE pools")
        second = asyncio.create_task(fleet.migrate(workers=1))

        async def all_but_one() -> bool:
            revisions = await fleet.revisions_of_all()
            return [slug for slug, at in revisions.items() if at == ("0001", "0001")] == ["clinic-00"]

        await eventually(all_but_one)
        assert not second.done(), "it waits for the one that the other has"
    first, _ = await ended(running, 0)
    assert first["migrated"] == ["clinic-00"]
    assert sorted((await second).tenants) == slugs[1:]


async def test_the_exit_code_tells(fleet: Fleet) -> None:
    await fleet.create("acme", "globex")
    await fleet.sql("globex", TWO_OF_A_NAME)
    fleet.revise(UNIQUE_NAMES)
    shown, said = await ended(await fleet.dermadetect("migrate", "--json", "--canary", "globex"), 5)
    assert (shown["stopped"], shown["left"]) == ("canary", {"acme": "0001"})
    shown, said = await ended(await fleet.dermadetect("migrate", "--json"), 3)
    assert shown["migrated"] == ["acme"]
    assert "globex is in quarantine: 23505" in said
    assert "Jane Doe" not in said
    await fleet.sql("globex", "DELETE FROM pools WHERE code = 'two'")
    async with fleet.admin.control() as session:
        await ledger.retry(session, [])
    shown, said = await ended(await fleet.dermadetect("migrate", "--json"), 0)
    assert (shown["migrated"], said) == (["globex"], "")
