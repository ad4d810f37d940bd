"""The authorization server's state: clients, sign-ins under way, codes."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase


class OAuthClient(Row, TenantBase):
    """A registered client app: public, so it proves itself by PKCE. Redirect URIs are compared exactly."""

    __tablename__ = "oauth_clients"

    client_id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    redirect_uris: Mapped[list[str]]


class LoginRequest(Row, TenantBase):
    """A sign-in on its way through the identity provider of the connection `connection_id`. The browser holds a cookie
    whose hash is here, the identity provider returns `relay_hash`'s preimage, and its answer must name `request_id`
    where the protocol has one."""

    __tablename__ = "login_requests"

    connection_id: Mapped[UUID]
    client_id: Mapped[UUID] = mapped_column(ForeignKey("oauth_clients.id"))
    redirect_uri: Mapped[str]
    code_challenge: Mapped[str]
    state: Mapped[str | None]
    scope: Mapped[str]
    relay_hash: Mapped[str] = mapped_column(unique=True)
    browser_hash: Mapped[str]
    request_id: Mapped[str]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]


class AuthorizationCode(Row, TenantBase):
    """A one-minute, one-time code; only its hash is kept."""

    __tablename__ = "authorization_codes"

    code_hash: Mapped[str] = mapped_column(unique=True)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id"))
    client_id: Mapped[UUID] = mapped_column(ForeignKey("oauth_clients.id"))
    redirect_uri: Mapped[str]
    code_challenge: Mapped[str]
    scope: Mapped[str]
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]
