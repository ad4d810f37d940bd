"""How the people of a tenant sign in."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.models import ControlBase, Row, TenantBase

KINDS = ("saml", "oidc")
AUDIENCES = ("staff", "patients")
PROVISIONS = ("create", "invited")


class Connection(Row, ControlBase):
    """A trusted identity provider of a tenant; what its protocol needs stands in a table of that protocol's, under the
    same key. A tenant restored beside the one it comes from has connections of the same ids.

    `role_mapping` maps the provider's group names to our roles, and everybody gets `default_roles`. People whose
    e-mail address is in `email_domains` are sent here, and only this provider is believed about such addresses.
    `provision` says who becomes known at a first sign-in: anybody (`create`), or whom somebody `invited` before.
    Attribute names are the provider's. With `keep_sign_ins` everybody's last sign-in is kept, see `KeptSignIn`.
    """

    __tablename__ = "connections"
    __table_args__ = (
        UniqueConstraint("tenant_id", "name"),
        CheckConstraint(f"kind IN {KINDS}", name="kind"),
        CheckConstraint(f"audience IN {AUDIENCES}", name="audience"),
        CheckConstraint(f"provision IN {PROVISIONS}", name="provision"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("control.tenants.id"), primary_key=True)
    name: Mapped[str]
    kind: Mapped[str]
    audience: Mapped[str] = mapped_column(default="staff")
    email_domains: Mapped[list[str]] = mapped_column(default=list)
    role_mapping: Mapped[dict[str, Any]] = mapped_column(default=dict)
    default_roles: Mapped[list[str]] = mapped_column(default=list)
    groups_attribute: Mapped[str]
    email_attribute: Mapped[str]
    name_attribute: Mapped[str]
    provision: Mapped[str] = mapped_column(default="create")
    enabled: Mapped[bool] = mapped_column(default=True)
    keep_sign_ins: Mapped[bool] = mapped_column(default=True)


class KeptSignIn(Row, TenantBase):
    """What an identity provider said at a person's last sign-in, for trying a changed connection against it; see
    `auth.connections.keeping`. Sealed by the tenant's data key `key_id`."""

    __tablename__ = "kept_sign_ins"
    __table_args__ = (UniqueConstraint("user_id", "connection_id"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    connection_id: Mapped[UUID]
    signed_in_at: Mapped[datetime]
    key_id: Mapped[UUID]
    sealed: Mapped[bytes]
