"""The tokens of a tenant's directory: opaque, random, kept as hashes. They are looked up at every request, so that
revoking one holds at once."""

import re
import secrets
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import or_, select, update

from auth.oauth.service import hash_secret
from auth.scim.errors import BadScimToken, ScimTokenNameTaken, ScimTokenNotFound
from auth.scim.models import ScimToken
from core.access import Principal
from core.clock import utcnow
from core.database import Database, TenantScope, TenantSession
from core.problems import Unauthenticated
from tenants.audit.service import audit, operator

PREFIX = "dds_"  # by which scanners for leaked secrets know it
LONGEST_LIFE = timedelta(days=730)
USE_KNOWN_TO = timedelta(minutes=1)

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,62}")


async def create_token(session: TenantSession, name: str, life: timedelta) -> tuple[ScimToken, str]:
    """A new token, told this once, and its row. Raises `BadScimToken`, `ScimTokenNameTaken`."""
    if not _NAME.fullmatch(name):
        raise BadScimToken("A name is 2 to 63 lowercase letters, digits and hyphens.")
    if not timedelta(0) < life <= LONGEST_LIFE:
        raise BadScimToken(f"A token lives for 1 to {LONGEST_LIFE.days} days.")
    if await session.scalar(select(ScimToken.id).where(ScimToken.name == name)):
        raise ScimTokenNameTaken(f"{name!r} stands in the audit log for another token; choose another.")
    secret = PREFIX + secrets.token_urlsafe(32)
    row = ScimToken(name=name, token_hash=hash_secret(secret), expires_at=utcnow() + life)
    session.add(row)
    await session.flush()
    audit(session, None, "scim-token.created", row.id, name=name, operator=operator())
    return row, secret


async def list_tokens(session: TenantSession) -> Sequence[ScimToken]:
    """All tokens by name, revoked and expired ones too."""
    return (await session.scalars(select(ScimToken).order_by(ScimToken.name))).all()


async def revoke_token(session: TenantSession, name: str) -> None:
    """Refuse a token from now on. Idempotent. Raises `ScimTokenNotFound`."""
    row = await session.scalar(select(ScimToken).where(ScimToken.name == name).with_for_update())
    if row is None:
        raise ScimTokenNotFound(f"No SCIM token of this tenant is called {name!r}.")
    if row.revoked_at is None:
        row.revoked_at = utcnow()
        audit(session, None, "scim-token.revoked", row.id, name=name, operator=operator())


async def authenticate(database: Database, tenant: TenantScope, secret: str) -> Principal:
    """The directory that sent a token. Raises `Unauthenticated`, which says the same of every token that does not
    hold here."""
    refused = Unauthenticated("The SCIM token does not hold here; it may have expired.", invalid=True)
    if not secret.startswith(PREFIX):
        raise refused
    now = utcnow()
    async with database.tenant(tenant) as session:
        token_id = await session.scalar(
            select(ScimToken.id).where(
                ScimToken.token_hash == hash_secret(secret),
                ScimToken.revoked_at.is_(None),
                ScimToken.expires_at > now,
            )
        )
        if token_id is None:
            raise refused
        used = ScimToken.last_used_at
        await session.execute(
            update(ScimToken)
            .where(ScimToken.id == token_id, or_(used.is_(None), used < now - USE_KNOWN_TO))
            .values(last_used_at=now)
        )
    return Principal(
        tenant=tenant,
        kind="client",
        subject=token_id,
        session=token_id,
        roles=frozenset(),
        scopes=frozenset(),
    )
