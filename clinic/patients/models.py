"""Patients. What identifies them is encrypted with a key of their own."""

from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase


class Patient(Row, TenantBase):
    """`sealed` holds name, birth date and contact details as JSON, encrypted with the patient's key; that key
    is wrapped by the tenant's. Destroying `wrapped_key` erases them everywhere, backups included."""

    __tablename__ = "patients"
    __table_args__ = (CheckConstraint("sex IN ('female', 'male', 'other', 'unknown')", name="sex"),)

    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"), unique=True)
    created_by: Mapped[UUID]
    sex: Mapped[str]
    birth_year: Mapped[int]
    key_id: Mapped[UUID]
    wrapped_key: Mapped[bytes]
    sealed: Mapped[bytes]
