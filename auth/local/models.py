"""The administrators a tenant has for the day on which its identity provider does not answer."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase


class LocalAdministrator(Row, TenantBase):
    """Somebody who signs in here with a password and a one-time code (RFC 6238).

    `totp_sealed` is the code's secret under the tenant's data key `data_key_id`. `last_step` is the time step of the
    newest code that was taken: none works twice. `failures` counts wrong attempts since the last right one, and
    `locked_until` is when the next is looked at.
    """

    __tablename__ = "local_administrators"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), unique=True)
    name: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    totp_sealed: Mapped[bytes]
    data_key_id: Mapped[UUID]
    last_step: Mapped[int | None] = mapped_column(BigInteger)
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    locked_until: Mapped[datetime | None]
