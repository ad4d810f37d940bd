"""Appending to the audit logs, reading and sealing them. A row is written in the transaction of the act it tells of.

The platform's log is sealed when such a transaction commits, a tenant's by the worker within a second.
"""

import getpass
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, cast, func, insert, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate
from sqlalchemy.types import Text, Uuid

from core.access import Principal
from core.database import ControlSession, Database, TenantScope, TenantSession
from core.ids import first_id, new_id
from core.statements import Statements, compiled
from core.telemetry import current_request_id
from tenants.audit.models import AuditEvent, PlatformEvent
from tenants.directory.models import Tenant

SEAL = "seal-audit"
"""The kind of doorbell that has a tenant's log sealed."""

_AT_ONCE = 10_000  # rows that `audit.seal` puts under one seal at most
_CLOCKS = timedelta(minutes=1)  # by which the clocks of this machine and the database may differ


def operator() -> str:
    """The operating-system user at the command line: administrators sign in by access to the machine."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:uid={os.getuid()}"


def actor_of(session: ControlSession) -> str:
    """Who acts on the control plane: the platform token that the session was opened for, else the operator."""
    return str(session.info.get("actor") or operator())


def record(session: ControlSession, tenant: Tenant | None, action: str, **detail: Any) -> None:
    """Append an act of the control plane on `tenant`, or (None) on the platform itself."""
    session.add(
        PlatformEvent(
            tenant_id=tenant.id if tenant else None, actor=actor_of(session), action=action, detail=detail
        )
    )


def audit(
    session: TenantSession,
    actor: Principal | UUID | None,
    action: str,
    subject: UUID | None = None,
    **detail: Any,
) -> None:
    """Append an act inside the session's tenant. One that a machine client does on behalf of a user names both."""
    session.bells.add(SEAL)
    if isinstance(actor, Principal):
        detail |= _on_behalf(actor)
    session.add(
        AuditEvent(
            actor=actor.subject if isinstance(actor, Principal) else actor,
            action=action,
            subject=subject,
            request_id=current_request_id(),
            detail=detail,
        )
    )


def by_operator(principal: Principal | None) -> dict[str, str]:
    """What a tenant's event says beside its actor, where an operator acted and nobody of the tenant did."""
    return {} if principal else {"operator": operator()}


def _on_behalf(principal: Principal) -> dict[str, str]:
    return {"client": str(principal.acting)} if principal.acting else {}


def audited(
    query: Select[*tuple[Any, ...]] | ReturningInsert[*tuple[Any, ...]] | ReturningUpdate[*tuple[Any, ...]],
    action: str,
    *,
    subject: str = "id",
    detail: Sequence[str] = (),
) -> SQLCompiler:
    """`query`, which gives one row at most, as a statement for `fetch_audited` that also appends an event about it:
    its column `subject` says about which row, and its columns `detail` what more. A reading does not wait for the
    disk, a change does."""
    found = query.cte("found")
    event = select(
        bindparam("audit_id", type_=Uuid()),
        bindparam("audit_actor", type_=Uuid()),
        literal(action, Text()),
        found.c[subject],
        bindparam("audit_request", type_=Text()),
        bindparam("audit_detail", type_=JSONB()).op("||")(
            func.jsonb_build_object(
                *(part for name in detail for part in (literal(name, Text()), found.c[name]))
            )
        ),
    ).select_from(found)
    if isinstance(query, Select):
        event = event.where(func.set_config("synchronous_commit", "off", True).is_not(None))
    seen = insert(AuditEvent.__table__).from_select(  # type: ignore[arg-type]  # a Table, which mypy cannot know
        ["id", "actor", "action", "subject", "request_id", "detail"], event
    )
    return compiled(select(found).add_cte(seen.cte("seen")))


async def fetch_audited(
    statements: Statements, principal: Principal, statement: SQLCompiler, values: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The row that a statement made by `audited` gives, if any; the event is in the same transaction."""
    rows = await statements.fetch(
        statement,
        {
            **values,
            "audit_id": new_id(),
            "audit_actor": principal.subject,
            "audit_request": current_request_id(),
            "audit_detail": json.dumps(_on_behalf(principal)),
        },
    )
    if not rows:
        return None
    statements.bells.add(SEAL)
    return rows[0]


async def seal(database: Database, tenant: TenantScope) -> None:
    """Seal what is unsealed in the tenant's log: the handler of the doorbell kind `seal-audit`."""
    sealed = _AT_ONCE
    while sealed == _AT_ONCE:
        async with database.tenant(tenant) as session:
            sealed = await session.scalar(select(func.audit.seal())) or 0


@dataclass(frozen=True)
class EventFilter:
    """Which events to list; None means any."""

    action: str | None = None
    actor: str | None = None
    subject: UUID | None = None
    since: datetime | None = None


def _matching(
    model: type[PlatformEvent | AuditEvent], wanted: EventFilter, limit: int, after: UUID | None
) -> Any:
    query = select(model).order_by(model.id.desc()).limit(limit)
    if wanted.action is not None:
        query = query.where(model.action == wanted.action)
    if wanted.actor is not None:
        query = query.where(cast(model.actor, Text) == wanted.actor)
    if wanted.since is not None:
        query = query.where(model.created_at >= wanted.since, model.id >= first_id(wanted.since - _CLOCKS))
    if after is not None:
        query = query.where(model.id < after)
    return query


async def list_events(
    session: TenantSession, wanted: EventFilter, limit: int, after: UUID | None
) -> Sequence[AuditEvent]:
    """At most `limit` events of the tenant's log before the event `after`, newest first."""
    query = _matching(AuditEvent, wanted, limit, after)
    if wanted.subject is not None:
        query = query.where(AuditEvent.subject == wanted.subject)
    return (await session.scalars(query)).all()


async def list_platform_events(
    session: ControlSession, wanted: EventFilter, limit: int, after: UUID | None, tenant: Tenant | None = None
) -> Sequence[PlatformEvent]:
    """At most `limit` acts of the control plane before the act `after`, newest first; on one tenant, or on all."""
    query = _matching(PlatformEvent, wanted, limit, after)
    if tenant is not None:
        query = query.where(PlatformEvent.tenant_id == tenant.id)
    return (await session.scalars(query)).all()
