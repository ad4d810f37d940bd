"""The two declarative bases and what every row has.

Tenant tables name no schema: the transaction's search path does (see `core.database`). Control tables always
name theirs. Status columns are text with CHECK constraints, because native enums per schema break the
driver's statement cache.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, MetaData, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import Text, Uuid

from core.ids import new_id

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

_TYPES: dict[Any, Any] = {
    datetime: DateTime(timezone=True),
    UUID: Uuid(),
    str: Text(),
    dict[str, Any]: JSONB(),
    list[str]: ARRAY(Text),
    list[Any]: JSONB(),
}


class ControlBase(DeclarativeBase):
    """Tables all tenants share, in the schema `control`."""

    metadata = MetaData(schema="control", naming_convention=NAMING)
    type_annotation_map = _TYPES


class TenantBase(DeclarativeBase):
    """Tables of one tenant, in that tenant's schema."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = _TYPES


class Row:
    """Columns of every table: id, times and a version that counts updates."""

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    version: Mapped[int] = mapped_column(default=1, server_default="1")
