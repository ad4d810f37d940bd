"""The authorization server's state: clients, sign-ins under way, codes, refresh tokens."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from core.models import Row, TenantBase

KINDS = ("app", "machine")


class OAuthClient(Row, TenantBase):
    """A registered client. An `app` signs people in: it is public and proves itself by PKCE, its redirect URIs are
    compared exactly, and with `refresh` it gets refresh tokens. A `machine` signs in by itself, for `scopes` at most,
    and `for_patients` on behalf of patients as well."""

    __tablename__ = "oauth_clients"
    __table_args__ = (CheckConstraint(f"kind IN {KINDS}", name="kind"),)

    client_id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    kind: Mapped[str]
    redirect_uris: Mapped[list[str]] = mapped_column(default=list)
    refresh: Mapped[bool] = mapped_column(default=False)
    scopes: Mapped[list[str]] = mapped_column(default=list)
    for_patients: Mapped[bool] = mapped_column(default=False)
    disabled_at: Mapped[datetime | None]


class ClientSecret(Row, TenantBase):
    """A secret of a machine client, kept as a hash; two hold while it changes from one to the other. Access tokens
    name the one that they were issued for."""

    __tablename__ = "client_secrets"

    client_id: Mapped[UUID] = mapped_column(ForeignKey("oauth_clients.id"), index=True)
    secret_hash: Mapped[str] = mapped_column(unique=True)
    last_used_at: Mapped[datetime | None]


class LoginRequest(Row, TenantBase):
    """A sign-in on its way through the identity provider of the connection `connection_id`, or (None) through a local
    administrator's form; for a client app, or to accept an invitation. The browser holds a cookie whose hash is here,
    the identity provider returns `relay_hash`'s preimage, and its answer must name `request_id` where the protocol has
    one."""

    __tablename__ = "login_requests"
    __table_args__ = (CheckConstraint("(client_id IS NULL) <> (invitation_id IS NULL)", name="purpose"),)

    connection_id: Mapped[UUID | None]
    client_id: Mapped[UUID | None] = mapped_column(ForeignKey("oauth_clients.id"))
    invitation_id: Mapped[UUID | None]
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


class RefreshToken(Row, TenantBase):
    """The line of refresh tokens of a sign-in session; see `auth.oauth.grants`. `scope` is what the client app asked
    for, `expires_at` moves on with each use."""

    __tablename__ = "refresh_tokens"

    session_id: Mapped[UUID] = mapped_column(ForeignKey("sessions.id"), unique=True)
    line_hash: Mapped[str] = mapped_column(unique=True)
    newest_hash: Mapped[str]
    scope: Mapped[str]
    expires_at: Mapped[datetime]
