"""Physicians: what they may answer, where, and how much."""

from datetime import date
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase


class Specialty(Row, TenantBase):
    """A field of medicine, such as `dermatology`; every tenant is created with a few."""

    __tablename__ = "specialties"

    code: Mapped[str] = mapped_column(unique=True)
    label: Mapped[str]


class Physician(Row, TenantBase):
    """A user who answers cases. `capacity` is how many open cases they take at once."""

    __tablename__ = "physicians"
    __table_args__ = (CheckConstraint("capacity BETWEEN 0 AND 1000", name="capacity"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), unique=True)
    display_name: Mapped[str]
    capacity: Mapped[int] = mapped_column(default=20)
    available: Mapped[bool] = mapped_column(default=True)


class PhysicianSpecialty(Row, TenantBase):
    __tablename__ = "physician_specialties"
    __table_args__ = (UniqueConstraint("physician_id", "specialty"),)

    physician_id: Mapped[UUID] = mapped_column(ForeignKey("physicians.id"))
    specialty: Mapped[str] = mapped_column(ForeignKey("specialties.code"))


class PhysicianLicence(Row, TenantBase):
    """A licence to practise in a region (ISO 3166-1 or 3166-2 code), valid on both end dates."""

    __tablename__ = "physician_licences"
    __table_args__ = (
        UniqueConstraint("physician_id", "region", "number"),
        CheckConstraint("valid_from <= valid_to", name="valid"),
    )

    physician_id: Mapped[UUID] = mapped_column(ForeignKey("physicians.id"))
    region: Mapped[str]
    number: Mapped[str]
    valid_from: Mapped[date]
    valid_to: Mapped[date]
