"""A tenant's SAML identity provider, and what is remembered of the messages that are exchanged with it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row, TenantBase


class SamlConnection(ControlBase):
    """The particulars of a connection that speaks SAML.

    `logout_url` takes LogoutRequests by HTTP-Redirect and `logout_response_url` our answers to the provider's own.
    Where the provider publishes its metadata at `metadata_url`, the worker reads it again when it is due;
    `metadata_signers` (PEM) must have signed it, unless there are none. `metadata_failure` is why the last time failed.
    The rest are the tenant's policies; `start_url` is the page of a client app that starts its sign-in, where
    somebody is sent who comes from the provider unasked.
    """

    __tablename__ = "saml_connections"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "id"],
            ["control.connections.tenant_id", "control.connections.id"],
            ondelete="CASCADE",
        ),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    idp_entity_id: Mapped[str]
    sso_url: Mapped[str]
    certificates: Mapped[list[str]]
    logout_url: Mapped[str | None]
    logout_response_url: Mapped[str | None]
    metadata_url: Mapped[str | None]
    metadata_signers: Mapped[list[str]] = mapped_column(default=list)
    metadata_read_at: Mapped[datetime | None]
    metadata_due_at: Mapped[datetime | None]
    metadata_failure: Mapped[str | None]
    require_encryption: Mapped[bool] = mapped_column(default=False)
    allow_cbc: Mapped[bool] = mapped_column(default=False)
    refuse_expired_certificates: Mapped[bool] = mapped_column(default=False)
    allow_idp_initiated: Mapped[bool] = mapped_column(default=False)
    start_url: Mapped[str | None]


class UsedAssertion(Row, TenantBase):
    """The id of an assertion that has signed somebody in, or of a LogoutRequest that was done; neither must be used again
    before it expires."""

    __tablename__ = "used_assertions"

    assertion_id: Mapped[str] = mapped_column(unique=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class SamlName(Row, TenantBase):
    """How an identity provider writes a person's NameID beside its value: it must be told the same when they sign out."""

    __tablename__ = "saml_names"
    __table_args__ = (UniqueConstraint("connection_id", "name_id"),)

    connection_id: Mapped[UUID]
    name_id: Mapped[str]
    format: Mapped[str | None]
    qualifier: Mapped[str | None]
    sp_qualifier: Mapped[str | None]


class SamlLogout(Row, TenantBase):
    """A LogoutRequest that an identity provider has still to answer."""

    __tablename__ = "saml_logouts"

    request_id: Mapped[str] = mapped_column(unique=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
