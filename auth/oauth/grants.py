"""What a client app gets tokens for: a code of a sign-in that has just happened, or a refresh token of one that goes on.

A refresh token is two random texts: one names the sign-in session's line of tokens, the other is new at each use. Both
are kept as hashes. A token of a known line that is not its newest was used before, by its client or by a thief; which of
them sends it cannot be told, so the session ends (RFC 9700, 4.14.2; OAuth 2.1, 4.3.1). There is no grace for a client
that lost an answer: it signs in again.
"""

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import timedelta
from typing import Self
from uuid import UUID

from sqlalchemy import select, update

from auth.oauth.errors import OAuthError
from auth.oauth.models import AuthorizationCode, OAuthClient, RefreshToken
from auth.oauth.service import hash_secret
from auth.people.models import SignInSession, User
from auth.people.service import LOCAL_LIFE, end_session
from auth.tokens.service import Machine, granted_scope
from core.clock import utcnow
from core.database import Database, TenantScope, TenantSession
from core.settings import Settings

PREFIX = "ddr_"  # by which scanners for leaked secrets know it

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


@dataclass(frozen=True, slots=True)
class SessionLives:
    """How long a sign-in session goes on at most, and how long without being used."""

    longest: timedelta
    idle: timedelta

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(timedelta(seconds=settings.session_s), timedelta(seconds=settings.session_idle_s))


@dataclass(frozen=True, slots=True)
class Grant:
    """What a client may have an access token of, with these scopes: a sign-in session, a machine client itself, or a
    session of a patient's for whom a machine client acts."""

    scope: str
    session: SignInSession | None = None
    machine: Machine | None = None
    refresh_token: str | None = None


async def redeem(
    database: Database,
    tenant: TenantScope,
    lives: SessionLives,
    *,
    code: str,
    verifier: str,
    client_id: str,
    redirect_uri: str,
) -> Grant:
    """Exchange a code; the sign-in session begins. Raises `OAuthError`.

    A code works once, in parallel too; it is spent in a transaction of its own, so that one that was tried with a
    wrong verifier stays spent. Used again it ends the session that it began (RFC 6749, 4.1.2).
    """
    refused = OAuthError(
        "invalid_grant", "The code is unknown, used, expired, or was given to another client."
    )
    by_hash = AuthorizationCode.code_hash == hash_secret(code)
    async with database.tenant(tenant) as session:
        found = await session.scalar(
            update(AuthorizationCode)
            .where(by_hash, AuthorizationCode.used_at.is_(None))
            .values(used_at=utcnow())
            .returning(AuthorizationCode)
        )
        begun = None if found else await session.scalar(select(AuthorizationCode.session_id).where(by_hash))
    if begun is not None:
        await end_session(database, tenant, begun, None, "code-reused")
    if found is None or found.expires_at <= utcnow():
        raise refused
    challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    async with database.tenant(tenant) as session:
        sign_in, client = await _lock_session(session, found.session_id)
        if (
            sign_in is None
            or client.client_id != client_id
            or found.redirect_uri != redirect_uri
            or not _VERIFIER.fullmatch(verifier)
            or not hmac.compare_digest(challenge, found.code_challenge)
        ):
            raise refused
        longest = lives.longest if sign_in.connection_id else min(lives.longest, LOCAL_LIFE)
        sign_in.expires_at = sign_in.created_at + longest
        token = None
        if client.refresh:
            line, newest = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
            token = f"{PREFIX}{line}.{newest}"
            session.add(
                RefreshToken(
                    session_id=sign_in.id,
                    line_hash=hash_secret(line),
                    newest_hash=hash_secret(newest),
                    scope=found.scope,
                    expires_at=utcnow() + lives.idle,
                )
            )
    return Grant(granted_scope(found.scope, sign_in.roles), sign_in, refresh_token=token)


async def refresh(
    database: Database, tenant: TenantScope, lives: SessionLives, *, token: str, client_id: str, scope: str
) -> Grant:
    """Exchange a refresh token for the next one. Raises `OAuthError`.

    The person must still be active; roles that were taken from them since the sign-in are gone from now on. `scope` may
    ask for less than was granted. Another client's token is refused and stays good for its own.
    """
    refused = OAuthError(
        "invalid_grant", "The refresh token is unknown, used, expired, or was given to another client."
    )
    line, sent = _split(token)
    async with database.tenant(tenant) as session:
        row = await find_refresh_token(session, token, lock=True)
        if row is None:
            raise refused
        sign_in, client = await _lock_session(session, row.session_id)
        if client.client_id != client_id:
            raise refused
        if hmac.compare_digest(row.newest_hash, hash_secret(sent)):
            if sign_in is None or row.expires_at <= utcnow():
                raise refused
            granted = granted_scope(row.scope, sign_in.roles)
            if set(scope.split()) - set(granted.split()):
                raise OAuthError("invalid_scope", "A refresh cannot ask for more than the sign-in was given.")
            newest = secrets.token_urlsafe(32)
            row.newest_hash, row.expires_at = hash_secret(newest), utcnow() + lives.idle
            narrowed = granted_scope(scope or granted, sign_in.roles)
            return Grant(narrowed, sign_in, refresh_token=f"{PREFIX}{line}.{newest}")
    await end_session(database, tenant, row.session_id, None, "refresh-token-reused")
    raise refused


async def find_refresh_token(
    session: TenantSession, token: str, *, lock: bool = False
) -> RefreshToken | None:
    """The line that a refresh token belongs to, whether or not it is its newest."""
    query = select(RefreshToken).where(RefreshToken.line_hash == hash_secret(_split(token)[0]))
    return (await session.scalars(query.with_for_update() if lock else query)).one_or_none()


def _split(token: str) -> tuple[str, str]:
    line, _, newest = token.removeprefix(PREFIX).partition(".")
    return line, newest


async def _lock_session(session: TenantSession, session_id: UUID) -> tuple[SignInSession | None, OAuthClient]:
    """A sign-in session, if tokens may be issued for it, and its client. It keeps no role that its person has lost."""
    sign_in = await session.get_one(SignInSession, session_id, with_for_update=True)
    user = await session.get_one(User, sign_in.user_id)
    client = await session.get_one(OAuthClient, sign_in.client_id)
    sign_in.roles = [role for role in sign_in.roles if role in user.roles]
    alive = sign_in.revoked_at is None and sign_in.expires_at > utcnow() and user.active and sign_in.roles
    return (sign_in if alive and client.disabled_at is None else None), client
