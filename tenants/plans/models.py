"""What a tenant may use, and what it has used."""

from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row, TenantBase

MONTHLY = ("requests", "ai_calls")
METRICS = (*MONTHLY, "storage_bytes", "seats", "requests_per_minute_user", "requests_per_minute_tenant")


class Plan(ControlBase):
    """A named set of limits; `limits` maps each of `METRICS` to a number."""

    __tablename__ = "plans"

    name: Mapped[str] = mapped_column(primary_key=True)
    limits: Mapped[dict[str, Any]]


class QuotaOverride(Row, ControlBase):
    """One number that a tenant has instead of its plan's."""

    __tablename__ = "quota_overrides"
    __table_args__ = (
        UniqueConstraint("tenant_id", "metric"),
        CheckConstraint(f"metric IN {METRICS}", name="metric"),
        CheckConstraint('"limit" >= 0', name="limit"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("control.tenants.id"))
    metric: Mapped[str]
    limit: Mapped[int] = mapped_column(BigInteger)


class Usage(ControlBase):
    """What a tenant used of a monthly metric. Processes lease blocks of it, so `used` runs slightly ahead."""

    __tablename__ = "usage"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("control.tenants.id"), primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    month: Mapped[date] = mapped_column(primary_key=True)
    used: Mapped[int] = mapped_column(BigInteger, default=0)


class StorageUse(TenantBase):
    """The one row that says how many bytes of photographs and reports the tenant has, reserved ones included."""

    __tablename__ = "storage_use"
    __table_args__ = (CheckConstraint("one", name="one"), CheckConstraint("used >= 0", name="used"))

    one: Mapped[bool] = mapped_column(primary_key=True)
    used: Mapped[int] = mapped_column(BigInteger)


class SeatUse(TenantBase):
    """The one row that is locked while seats are counted, and says how many are taken."""

    __tablename__ = "seat_use"
    __table_args__ = (CheckConstraint("one", name="one"),)

    one: Mapped[bool] = mapped_column(primary_key=True)
    used: Mapped[int]
