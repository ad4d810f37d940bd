"""Platform tokens: opaque, random, kept as hashes. They are looked up at every request, so that revoking one holds at
once; administrators' requests are few."""

import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy import or_, select, update

from core.access import Operator
from core.clock import utcnow
from core.database import AdminDatabase, ControlSession
from core.problems import NotFound, Unauthenticated
from tenants.audit.service import record
from tenants.platform.errors import BadToken, TokenNameTaken, TokenNotFound
from tenants.platform.models import PlatformToken

SCOPES = {"read": ["platform:read"], "write": ["platform:read", "platform:write"]}
PREFIX = "ddp_"  # by which scanners for leaked secrets know it
USE_KNOWN_TO = timedelta(minutes=1)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def create_token(session: ControlSession, name: str, scope: str) -> str:
    """A new token, told this once. `scope` is `read` or `write`, which includes it. Raises `BadToken`,
    `TokenNameTaken`."""
    if scope not in SCOPES or not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,62}", name):
        raise BadToken(
            f"The scope is one of {', '.join(SCOPES)}; a name has lowercase letters, digits and hyphens."
        )
    if await session.scalar(select(PlatformToken).where(PlatformToken.name == name)):
        raise TokenNameTaken(f"{name!r} stands in the audit log for another token; choose another.")
    token = PREFIX + secrets.token_urlsafe(32)
    session.add(PlatformToken(name=name, token_hash=_hash(token), scopes=SCOPES[scope]))
    record(session, None, "platform-token.created", name=name, scope=scope)
    await session.flush()
    return token


async def list_tokens(session: ControlSession) -> Sequence[PlatformToken]:
    """All tokens by name, revoked ones too."""
    return (await session.scalars(select(PlatformToken).order_by(PlatformToken.name))).all()


async def revoke_token(session: ControlSession, name: str) -> None:
    """Refuse a token from now on. Idempotent. Raises `TokenNotFound`."""
    row = await session.scalar(select(PlatformToken).where(PlatformToken.name == name).with_for_update())
    if row is None:
        raise TokenNotFound(f"No platform token is called {name!r}.")
    if row.revoked_at is None:
        row.revoked_at = utcnow()
        record(session, None, "platform-token.revoked", name=name)


class PlatformAccess:
    """The operator's side of a gateway process; closed to all in a process that is not told to serve it."""

    def __init__(self, database: AdminDatabase | None) -> None:
        self._database = database

    async def authenticate(self, token: str | None) -> Operator:
        """Who sent a token. Raises `Unauthenticated`, and `NotFound` where this process has no such API."""
        if self._database is None:
            raise NotFound("This process does not serve the platform's API.")
        if token is None or not token.startswith(PREFIX):
            raise Unauthenticated("Send a platform token as `Authorization: Bearer …`.")
        async with self._database.control() as session:
            row = await session.scalar(
                select(PlatformToken).where(
                    PlatformToken.token_hash == _hash(token), PlatformToken.revoked_at.is_(None)
                )
            )
            if row is None:
                raise Unauthenticated("The platform token does not hold; it may have been revoked.")
            now = utcnow()
            used = PlatformToken.last_used_at
            await session.execute(
                update(PlatformToken)
                .where(PlatformToken.id == row.id, or_(used.is_(None), used < now - USE_KNOWN_TO))
                .values(last_used_at=now)
            )
        return Operator(row.name, frozenset(row.scopes))

    def database(self) -> AdminDatabase:
        """The operator's login, for who has authenticated."""
        assert self._database is not None
        return self._database

    @asynccontextmanager
    async def control(self, operator: Operator) -> AsyncIterator[ControlSession]:
        """One control transaction, audited in the name of `operator`."""
        async with self.database().acting_as(operator.actor).control() as session:
            yield session

    async def close(self) -> None:
        if self._database is not None:
            await self._database.close()
