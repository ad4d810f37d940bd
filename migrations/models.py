"""Every table of the product, imported so that the metadata is complete, and the two of the migrations themselves."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

import tenants.audit.models
import tenants.background.models
import tenants.directory.models
import tenants.domains.models
import tenants.lifecycle.models
import tenants.moving.models
import tenants.operations.models
import tenants.plans.models
import tenants.platform.models
import tenants.provisioning.models  # noqa: F401
from core.models import ControlBase, TenantBase

CONTROL = ControlBase.metadata
TENANT = TenantBase.metadata


class TenantMigration(ControlBase):
    """How far one tenant's schema has come on its way to `target`.

    Whoever works on it holds the row's lock, in the transaction that changes the schema: so the lease ends with
    its holder, however that ends, and no row is ever left behind as running. `attempts` were made, the next one
    not before `due_at`. `error` never holds data of the tenant.
    """

    __tablename__ = "tenant_migrations"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'done', 'quarantined')", name="state"),
        Index("ix_tenant_migrations_pending", "attempts", postgresql_where="state = 'pending'"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("control.tenants.id"), primary_key=True)
    target: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="pending")
    attempts: Mapped[int] = mapped_column(server_default="0")
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    error: Mapped[str | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class MigrationPause(ControlBase):
    """While its one row is here, no tenant's schema is migrated."""

    __tablename__ = "migration_pause"
    __table_args__ = (CheckConstraint("one", name="one"),)

    one: Mapped[bool] = mapped_column(primary_key=True, server_default="true")
    reason: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
