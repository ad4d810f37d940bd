"""Who the tenants are and which hosts are theirs."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from core.database import TenantScope
from core.models import ControlBase, Row

STATES = (
    *("preparing", "warm"),  # in the pool of prepared tenants, nobody's yet
    *("provisioning", "active", "moving", "suspended", "closing", "closed"),
    *(
        "rolling-back",
        "rolled-back",
    ),  # a creation that was undone; the row keeps its key from being used again
)
# Whose slug and host begin with "warm:" or "rolled-back:" and end with the key, which no host can.
NOBODYS = ("preparing", "warm", "rolled-back")
IMAGE_LINKS = ("streamed", "signed")


class Tenant(Row, ControlBase):
    """One customer. `key` is opaque and immutable and names all storage; `slug` is a name that may change.

    `login_group` tells which of the gateway's logins serves it. `ai_model` is the only version of the AI Service's model
    that may answer, None for whichever is current; `image_links` is how photographs are read: through the gateway, or by
    a signed link to the store. A purged tenant that was restored is `succeeded_by` the one that has its slug and hosts.
    """

    __tablename__ = "tenants"
    __table_args__ = (
        CheckConstraint("key ~ '^[a-z][a-z0-9]{0,39}$'", name="key"),
        CheckConstraint(f"state IN {STATES}", name="state"),
        CheckConstraint(f"image_links IN {IMAGE_LINKS}", name="image_links"),
        Index("ix_tenants_epoch", "epoch"),
    )

    key: Mapped[str] = mapped_column(unique=True)
    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    state: Mapped[str] = mapped_column(default="provisioning")
    state_reason: Mapped[str | None]
    purge_after: Mapped[datetime | None]
    home_host: Mapped[str] = mapped_column(unique=True)
    plan: Mapped[str] = mapped_column(ForeignKey("control.plans.name"))
    cell: Mapped[str] = mapped_column(default="default", server_default="default")
    login_group: Mapped[int] = mapped_column(default=0, server_default="0")
    schema_revision: Mapped[str | None]
    ai_model: Mapped[str | None]
    image_links: Mapped[str] = mapped_column(default="streamed", server_default="streamed")
    succeeded_by: Mapped[UUID | None] = mapped_column(ForeignKey("control.tenants.id"))
    epoch: Mapped[int] = mapped_column(default=0, server_default="0")

    @property
    def scope(self) -> TenantScope:
        return TenantScope(self.key, self.cell, self.login_group)


class Host(ControlBase):
    """A host name of one tenant; a row is never handed to another, nor deleted: one that is `removed_at` answers no
    more, and can only come back to its tenant."""

    __tablename__ = "hosts"

    host: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("control.tenants.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    removed_at: Mapped[datetime | None]


class ControlEpoch(ControlBase):
    """One row. Every change that other processes must see within a second increments it, under its lock,
    in the changing transaction; so epochs become visible in order and a poller misses none."""

    __tablename__ = "epoch"
    __table_args__ = (CheckConstraint("id = 1", name="single_row"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]


class Revocation(ControlBase):
    """A sign-in session that ended before its tokens did, or a machine client's secret or token that was withdrawn;
    kept until all that bears its id has expired."""

    __tablename__ = "revocations"
    __table_args__ = (Index("ix_revocations_epoch", "epoch"),)

    session_id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_key: Mapped[str]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    epoch: Mapped[int]
