"""What remains of a tenant that is purged."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row


class Deletion(Row, ControlBase):
    """The purge of a tenant: begun once the row is there, finished once it has its certificate, a JWS (RFC 7515).

    It is the ledger too. `rows` (by table) and `audit_sha256` are written before the transaction that drops the schema ends;
    `blobs` and `blob_bytes` before the first blob is deleted.
    """

    __tablename__ = "deletions"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("control.tenants.id"), unique=True)
    ordered_by: Mapped[str]
    rows: Mapped[dict[str, Any] | None]
    audit_sha256: Mapped[str | None]
    blobs: Mapped[int | None] = mapped_column(BigInteger)
    blob_bytes: Mapped[int | None] = mapped_column(BigInteger)
    certificate: Mapped[str | None]
