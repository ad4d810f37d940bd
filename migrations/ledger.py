"""The ledger of the fleet's migrations: who is to be migrated, who was, who failed, and whether it is paused.

What a worker does in its own transaction takes the driver's connection; what people ask for takes a session.
`known` are the revisions from which this release can go on: a tenant of a newer release is not touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import asyncpg
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from core.database import ControlSession, TenantScope
from migrations.models import MigrationPause, TenantMigration
from tenants.audit.service import record
from tenants.directory.models import Tenant
from tenants.directory.service import find_tenant

ATTEMPTS = 4
WORKER = "dermadetect migrate"  # the name of a worker's connection

_ENROL = (
    """INSERT INTO control.tenant_migrations (tenant_id, target)
    SELECT id, $1 FROM control.tenants WHERE schema_revision = ANY($2) AND state <> 'closed'
    ON CONFLICT DO NOTHING""",
    # What others are working on is left alone; it will be seen the next time.
    """UPDATE control.tenant_migrations
    SET target = $1, state = 'pending', attempts = 0, due_at = now(), error = NULL, updated_at = now()
    WHERE tenant_id IN (
        SELECT m.tenant_id FROM control.tenant_migrations m JOIN control.tenants t ON t.id = m.tenant_id
        WHERE t.schema_revision = ANY($2) AND t.state <> 'closed'
        AND (m.state = 'done' OR m.state = 'pending' AND m.target <> $1) FOR UPDATE OF m SKIP LOCKED)""",
)

_PENDING = """FROM control.tenant_migrations m JOIN control.tenants t ON t.id = m.tenant_id
    WHERE m.state = 'pending' AND t.state NOT IN ('closed', 'moving') AND t.schema_revision = ANY($1)
    AND ($2::text[] IS NULL OR t.slug = ANY($2))"""

_LEASE = f"""SELECT t.id, t.slug, t.key, t.cell, t.schema_revision, m.attempts {_PENDING}
    AND m.due_at <= now() AND NOT EXISTS (SELECT FROM control.migration_pause)
    ORDER BY m.attempts, t.slug LIMIT $3 FOR UPDATE OF m SKIP LOCKED"""

_FINISH = (
    """UPDATE control.tenant_migrations
    SET state = 'done', attempts = attempts + 1, error = NULL, updated_at = now() WHERE tenant_id = ANY($1)""",
    # In the order in which every verb of the directory locks: the tenant, then the epoch.
    "SELECT FROM control.tenants WHERE id = ANY($1) ORDER BY id FOR UPDATE",
)
_PUBLISH = """WITH next AS (UPDATE control.epoch SET value = value + 1 RETURNING value)
    UPDATE control.tenants SET schema_revision = $2, epoch = next.value, updated_at = now(), version = version + 1
    FROM next WHERE id = ANY($1)"""

_FAIL = """UPDATE control.tenant_migrations
    SET state = CASE WHEN $3::interval IS NULL THEN 'quarantined' ELSE 'pending' END, attempts = attempts + 1,
        due_at = now() + coalesce($3, interval '0'), error = $2, updated_at = now() WHERE tenant_id = $1"""


@dataclass(frozen=True)
class Leased:
    """A tenant whose ledger row this transaction has locked."""

    id: UUID
    slug: str
    scope: TenantScope
    revision: str
    attempts: int


async def enrol(connection: asyncpg.Connection, target: str, known: Sequence[str]) -> None:
    """Enter every tenant that is behind `target`. One in quarantine stays there."""
    for statement in _ENROL:
        await connection.execute(statement, target, known)


async def unfinished(
    connection: asyncpg.Connection, known: Sequence[str], only: Sequence[str] | None
) -> tuple[int, bool]:
    """How many tenants wait or are being worked on (of the slugs `only`, None: of all), and whether all is paused."""
    row = await connection.fetchrow(
        f"SELECT count(*), EXISTS (SELECT FROM control.migration_pause) {_PENDING}", known, only
    )
    assert row is not None
    return row[0], row[1]


async def lease(
    connection: asyncpg.Connection, known: Sequence[str], only: Sequence[str] | None, at_most: int
) -> list[Leased]:
    """Lock waiting tenants until this transaction ends, the untried first; none while all is paused."""
    rows = await connection.fetch(_LEASE, known, only, at_most)
    return [Leased(r[0], r[1], TenantScope(r[2], r[3]), r[4], r[5]) for r in rows]


async def finish(connection: asyncpg.Connection, tenants: Sequence[Leased], revision: str) -> None:
    """Write that these are at `revision`, in ledger and directory. The epoch stays locked until the end."""
    ids = [tenant.id for tenant in tenants]
    for statement in _FINISH:
        await connection.execute(statement, ids)
    await connection.execute(_PUBLISH, ids, revision)


async def fail(connection: asyncpg.Connection, tenant: Leased, error: str, *, may_pass: bool) -> bool:
    """Write that one failed: back in the queue where it `may_pass`, a few times, else in quarantine.
    Returns whether it is in quarantine now."""
    again = may_pass and tenant.attempts + 1 < ATTEMPTS
    await connection.execute(
        _FAIL, tenant.id, error, timedelta(seconds=tenant.attempts / 2) if again else None
    )
    return not again


@dataclass(frozen=True)
class Status:
    """The fleet as it is now. `behind` maps slugs to revisions, of those that are not at head for any reason but
    `quarantined`, which maps slugs to what went wrong. `paused` is the reason for a pause; `workers` are at work."""

    head: str
    at_head: int
    behind: dict[str, str]
    quarantined: dict[str, str]
    paused: str | None
    workers: int


async def status(session: ControlSession, head: str) -> Status:
    """The fleet as it is now, measured by the revision `head`."""
    rows = await session.execute(
        select(Tenant.slug, Tenant.schema_revision, TenantMigration.state, TenantMigration.error)
        .outerjoin(TenantMigration, TenantMigration.tenant_id == Tenant.id)
        .where(Tenant.schema_revision.is_not(None), Tenant.state != "closed")
        .order_by(Tenant.slug)
    )
    at_head, behind, quarantined = 0, dict[str, str](), dict[str, str]()
    for slug, revision, state, error in rows:
        if revision == head:
            at_head += 1
        elif state == "quarantined":
            quarantined[slug] = error or ""
        else:
            behind[slug] = revision or ""
    workers = await session.scalar(
        text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = :n"
        ),
        {"n": WORKER},
    )
    paused = await session.scalar(select(MigrationPause.reason))
    return Status(head, at_head, behind, quarantined, paused, workers or 0)


async def pause(session: ControlSession, reason: str) -> None:
    """Let no tenant be taken up any more, by any process, until `resume`. Idempotent."""
    await session.execute(insert(MigrationPause).values(reason=reason).on_conflict_do_nothing())
    record(session, None, "migration.paused", reason=reason)


async def resume(session: ControlSession) -> None:
    """End a pause. Idempotent."""
    await session.execute(delete(MigrationPause))
    record(session, None, "migration.resumed")


async def retry(session: ControlSession, slugs: Sequence[str]) -> list[str]:
    """Let tenants out of quarantine, those named or, where none is, all; returns which were in it.
    Raises `TenantNotFound`."""
    for slug in slugs:
        await find_tenant(session, slug)
    inside = select(Tenant.id).where(Tenant.slug.in_(slugs)) if slugs else select(Tenant.id)
    released = await session.scalars(
        update(TenantMigration)
        .where(TenantMigration.state == "quarantined", TenantMigration.tenant_id.in_(inside))
        .values(state="pending", attempts=0, due_at=func.now(), error=None, updated_at=func.now())
        .returning(TenantMigration.tenant_id)
    )
    names = list(
        await session.scalars(select(Tenant.slug).where(Tenant.id.in_(released.all())).order_by(Tenant.slug))
    )
    record(session, None, "migration.retried", tenants=names)
    return names
