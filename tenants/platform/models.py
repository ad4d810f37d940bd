"""Tokens of the platform's own API."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row


class PlatformToken(Row, ControlBase):
    """Somebody, or something, that may operate the platform over HTTP. Only the token's hash is kept; its name stands in
    the audit log, and is never given again. The gateway's login cannot read this table."""

    __tablename__ = "platform_tokens"

    name: Mapped[str] = mapped_column(unique=True)
    token_hash: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
