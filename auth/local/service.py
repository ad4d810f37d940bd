"""Signing in without an identity provider: a local administrator's password and one-time code.

It ends in a code for the client app, like every sign-in. Whatever is wrong, the answer is the same and comes after
the same time; the check that refused stands in the tenant's audit log.
"""

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import exists, func, select, update

from auth.connections.service import Asked, SignIn, refusals_recorded, spend_request
from auth.keys.service import KeyRing
from auth.local.credentials import PasswordCheck, step_of
from auth.local.errors import NoLocalSignIn, NothingAsked
from auth.local.models import LocalAdministrator
from auth.oauth.models import LoginRequest
from auth.oauth.service import LOGIN_LIFE, answer_url, hash_secret, make_code
from auth.people.models import SignInSession, User
from auth.people.service import CODE_LIFE
from core.clock import utcnow
from core.crypto import unseal
from core.database import Database, TenantScope, TenantSession
from tenants.audit.service import audit

log = logging.getLogger(__name__)

ANSWER_S = 1.0  # when a refusal is given, whatever the reason: longer than a check of both takes

FREE_FAILURES = 3
FIRST_DELAY_S, LONGEST_DELAY_S = 10, 900


@dataclass(frozen=True)
class Form:
    """A sign-in form: the secret it sends back, once, and where its browser goes in the end."""

    relay_secret: str
    redirect_uri: str


def totp_context(tenant: TenantScope, administrator: LocalAdministrator) -> str:
    """What a sealed TOTP secret is bound to."""
    return f"{tenant.key}|totp|{administrator.id}"


def delay_after(failures: int) -> timedelta:
    """How long nobody is let in after so many wrong attempts: nothing for the first three, then twice as long each
    time, up to a quarter of an hour. Never for good: that would be the attacker's to decide."""
    if failures < FREE_FAILURES:
        return timedelta(0)
    return timedelta(seconds=min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(failures - FREE_FAILURES, 20)))


async def offer(database: Database, where: SignIn, *, asked: Asked | None, browser_secret: str) -> Form:
    """A form for what a client app asks for, or else (None) for what it asked of this browser last, whose way through
    the identity provider stays open. Raises `NoLocalSignIn`, `NothingAsked`."""
    async with database.tenant(where.tenant) as session:
        if not await session.scalar(select(exists().select_from(LocalAdministrator))):
            raise NoLocalSignIn("Sign in through your organisation's identity provider.")
        asked = asked or await _last_asked(session, browser_secret)
        form = Form(secrets.token_urlsafe(32), asked.redirect_uri)
        session.add(
            LoginRequest(
                connection_id=None,
                client_id=asked.client_id,
                redirect_uri=asked.redirect_uri,
                code_challenge=asked.code_challenge,
                state=asked.state,
                scope=asked.scope,
                relay_hash=hash_secret(form.relay_secret),
                browser_hash=hash_secret(browser_secret),
                request_id="",
                expires_at=utcnow() + LOGIN_LIFE,
            )
        )
    return form


async def _last_asked(session: TenantSession, browser_secret: str) -> Asked:
    login = await session.scalar(
        select(LoginRequest)
        .where(
            LoginRequest.browser_hash == hash_secret(browser_secret),
            LoginRequest.expires_at > utcnow(),
            LoginRequest.used_at.is_(None),
            LoginRequest.client_id.is_not(None),
        )
        .order_by(LoginRequest.id.desc())
        .limit(1)
    )
    if login is None:
        raise NothingAsked("Start the sign-in in your app, and then open this address in the same browser.")
    return _asked_by(login)


def _asked_by(login: LoginRequest) -> Asked:
    return Asked(login.client_id, login.redirect_uri, login.code_challenge, login.state, login.scope)


async def enter_locally(
    database: Database,
    keys: KeyRing,
    passwords: PasswordCheck,
    where: SignIn,
    *,
    relay_secret: str,
    browser_secret: str,
    name: str,
    password: str,
    code: str,
) -> str | Form:
    """Where to send the browser with its code; or, where anything is wrong with what was typed, the next form. Raises
    `SignInRefused` where the form itself is not this browser's, was sent before or is too old."""
    answer_at = time.monotonic() + ANSWER_S
    async with refusals_recorded(database, where.tenant):
        login = await spend_request(database, where.tenant, relay_secret, browser_secret)
    administrator = await _attempt(database, where.tenant, name)
    right = await passwords.check(password, administrator.password_hash if administrator else None)
    step = None
    if administrator is not None:
        key = await keys.data_key_by_id(where.tenant, administrator.data_key_id)
        secret = unseal(key, administrator.totp_sealed, totp_context(where.tenant, administrator))
        step = step_of(code, secret)
    if administrator is not None and right and step is not None:
        url = await _enter(database, where, login, administrator, step)
        if url is not None:
            return url
    elif administrator is not None:
        await _refused(database, where.tenant, administrator, "local.password" if not right else "local.code")
    else:
        log.warning("local sign-in refused", extra={"check": "local.unknown-or-locked"})
    await asyncio.sleep(max(0.0, answer_at - time.monotonic()))
    return await offer(database, where, asked=_asked_by(login), browser_secret=browser_secret)


async def _attempt(database: Database, tenant: TenantScope, name: str) -> LocalAdministrator | None:
    """The administrator of this name, unless locked or deactivated. The attempt counts as failed until it has
    succeeded, so that many at once are not more than many one after the other."""
    async with database.tenant(tenant) as session:
        administrator = await session.scalar(
            select(LocalAdministrator)
            .join(User, User.id == LocalAdministrator.user_id)
            .where(
                LocalAdministrator.name == name,
                User.active,
                func.coalesce(LocalAdministrator.locked_until, utcnow()) <= utcnow(),
            )
            .with_for_update(of=LocalAdministrator)
        )
        if administrator is not None:
            administrator.failures += 1
            delay = delay_after(administrator.failures)
            administrator.locked_until = utcnow() + delay if delay else None
    return administrator


async def _enter(
    database: Database, where: SignIn, login: LoginRequest, administrator: LocalAdministrator, step: int
) -> str | None:
    """Take the code's time step, once, and start a session. None where the code was used before."""
    async with database.tenant(where.tenant) as session:
        taken = await session.scalar(
            update(LocalAdministrator)
            .where(
                LocalAdministrator.id == administrator.id,
                func.coalesce(LocalAdministrator.last_step, 0) < step,
            )
            .values(last_step=step, failures=0, locked_until=None)
            .returning(LocalAdministrator.user_id)
        )
        user = await session.get(User, taken, with_for_update=True) if taken else None
        if user is not None and user.active:
            now = utcnow()
            user.last_sign_in_at = now
            started = SignInSession(
                user_id=user.id,
                client_id=login.client_id,
                connection_id=None,
                roles=user.roles,
                expires_at=now + CODE_LIFE,
            )
            session.add(started)
            await session.flush()
            audit(session, user.id, "sign-in.local", started.id, name=administrator.name)
            code = await make_code(session, login, started)
    if user is None or not user.active:
        await _refused(database, where.tenant, administrator, "local.code-used")
        return None
    log.warning("a local administrator signed in", extra={"check": "local.entered"})
    return answer_url(login.redirect_uri, login.state, where.origin, code=code)


async def _refused(
    database: Database, tenant: TenantScope, administrator: LocalAdministrator, check: str
) -> None:
    log.warning("local sign-in refused", extra={"check": check})
    async with database.tenant(tenant) as session:
        audit(
            session,
            None,
            "sign-in.local.refused",
            administrator.user_id,
            check=check,
            failures=administrator.failures,
        )
