"""Naming what differs between a tenant's schema and what the migrations make."""

from migrations.drift import Difference, find_drift
from tests.fixtures.fleet import Fleet
from tests.tenants.test_fleet import ADD_COLUMN

NOTE = "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"

# What somebody did by hand, and what is then said of it: kind, name, a part of what is expected, of what is found.
CHANGES = [
    ("DROP TABLE storage_use", "table", "storage_use", "owner dermadetect_owner", None),
    ("CREATE TABLE left_over (id int)", "table", "left_over", None, "owner "),
    ("ALTER TABLE pools ADD nickname text", "column", "pools.nickname", None, "text"),
    ("ALTER TABLE pools DROP name", "column", "pools.name", "text NOT NULL", None),
    ("ALTER TABLE pools ALTER name TYPE varchar(99)", "column", "pools.name", "text NOT NULL", "character varying(99)"),
    ("ALTER TABLE pools ALTER name DROP NOT NULL", "column", "pools.name", "text NOT NULL", "text"),
    ("ALTER TABLE pools ALTER version SET DEFAULT 2", "column", "pools.version", "DEFAULT 1", "DEFAULT 2"),
    ("DROP INDEX ix_reports_case_id", "index", "ix_reports_case_id", "ON <tenant>.reports USING btree", None),
    ("CREATE INDEX by_hand ON pools (name)", "index", "by_hand", None, "(name)"),
    ("ALTER TABLE pools DROP CONSTRAINT ck_pools_kind", "constraint", "pools.ck_pools_kind", "CHECK", None),
    ("ALTER TABLE reports DROP CONSTRAINT fk_reports_case_id", "constraint", "reports.fk_reports_case_id", "REFERENCES <tenant>.cases(id)", None),
    ("ALTER TABLE pools ADD CONSTRAINT by_hand CHECK (name <> '') NOT VALID", "constraint", "pools.by_hand", None, "NOT VALID"),
    ("GRANT SELECT ON pools TO PUBLIC", "grant", "pools to PUBLIC", None, "SELECT"),
    ("GRANT DELETE ON audit_events TO {role}", "grant", "audit_events to <tenant>", "SELECT", "DELETE, SELECT"),
    ("GRANT UPDATE (version_num) ON alembic_version TO {role}", "grant", "alembic_version.version_num to <tenant>", None, "UPDATE"),
    ("GRANT CREATE ON SCHEMA {role} TO {role}", "grant", "schema to <tenant>", "USAGE", "CREATE, USAGE"),
    ("ALTER SCHEMA {role} OWNER TO CURRENT_USER", "schema", "schema", "owner dermadetect_owner", "owner "),
    ("ALTER TABLE pools OWNER TO CURRENT_USER", "table", "pools", "owner dermadetect_owner", "owner "),
    ("ALTER TABLE pools ENABLE ROW LEVEL SECURITY", "table", "pools", "owner dermadetect_owner", "row security"),
    ("CREATE POLICY mine ON pools USING (true)", "policy", "pools.mine", None, "USING true"),
    (NOTE, "function", "<tenant>.note()", None, "RETURNS trigger"),
    (NOTE + "CREATE TRIGGER noted BEFORE INSERT ON pools FOR EACH ROW EXECUTE FUNCTION note()", "trigger", "pools.noted", None, "BEFORE INSERT ON <tenant>.pools"),
    ("CREATE VIEW seen AS SELECT name FROM pools", "view", "seen", None, "FROM <tenant>.pools"),
    ("CREATE TYPE mood AS ENUM ('good', 'bad')", "type", "mood", None, "good, bad"),
]  # fmt: skip


async def test_each_kind_of_difference_is_named_and_nothing_else(fleet: Fleet) -> None:
    slugs = [f"clinic-{number:02}" for number in range(len(CHANGES))]
    await fleet.create(*slugs, "untouched")
    assert (await find_drift(fleet.admin)).differences == []
    for slug, (change, *_) in zip(slugs, CHANGES, strict=True):
        await fleet.sql(slug, change.format(role=await fleet.schema(slug)))
    drift = await find_drift(fleet.admin)
    assert drift.checked == len(CHANGES) + 1
    assert {each.tenant for each in drift.differences} == set(slugs)
    for slug, (change, kind, name, expected, found) in zip(slugs, CHANGES, strict=True):
        said = {(each.kind, each.name): each for each in drift.differences if each.tenant == slug}
        assert (kind, name) in said, change
        pair = said[kind, name].expected, said[kind, name].found
        assert [part is None for part in (expected, found)] == [part is None for part in pair], change
        assert (expected or "") in (pair[0] or ""), change
        assert (found or "") in (pair[1] or ""), change
        if kind in ("column", "constraint", "grant", "index", "type"):
            assert len(said) == 1, said
    alone = await find_drift(fleet.admin, slugs[0])
    assert (alone.checked, {each.tenant for each in alone.differences}) == (1, {slugs[0]})
    async with fleet.superuser() as connection:
        assert not await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname LIKE 't_scratch%'")


async def test_a_tenant_that_is_behind_is_compared_with_its_own_revision(fleet: Fleet) -> None:
    await fleet.create("acme", "globex", "initech", "umbrella")
    fleet.revise(ADD_COLUMN)
    await fleet.migrate(canaries=("acme",), wave_size=1, waves=1)
    drift = await find_drift(fleet.admin, branch=fleet.branch)
    assert (drift.behind, drift.differences) == ({"initech": "0001", "umbrella": "0001"}, [])
    # Two with the column that a newer revision brings, and one of these says so.
    for slug in ("initech", "umbrella"):
        await fleet.sql(slug, "ALTER TABLE pools ADD note text DEFAULT '' NOT NULL")
    await fleet.sql("umbrella", "UPDATE alembic_version SET version_num = '0002'")
    await fleet.sql("globex", f"ALTER SCHEMA {await fleet.schema('globex')} RENAME TO astray")
    gone = await fleet.schema("globex")
    drift = await find_drift(fleet.admin, branch=fleet.branch)
    assert drift.behind == {"initech": "0001"}
    assert drift.differences == [
        Difference("globex", "revision", "alembic_version", "0002", None),
        Difference("globex", "schema", gone, "present", None),
        Difference("initech", "column", "pools.note", None, "text NOT NULL DEFAULT ''::text"),
        Difference("umbrella", "revision", "alembic_version", "0001", "0002"),
    ]
