"""The authorization code flow with PKCE (RFC 6749, RFC 7636, OAuth 2.1), one authorization server per tenant."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import urlencode, urlsplit

from sqlalchemy import delete, select

from auth.oauth.errors import OAuthError
from auth.oauth.models import AuthorizationCode, LoginRequest, OAuthClient, RefreshToken
from auth.people.models import SignInSession
from core.clock import utcnow
from core.database import TenantSession
from core.ids import new_id
from core.problems import Invalid
from tenants.audit.service import audit, operator

LOGIN_LIFE = timedelta(minutes=10)

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_CLIENT_ID = re.compile(r"[a-z0-9][a-z0-9-]{1,62}")


class BadRedirectUri(Invalid):
    slug, title = "bad-redirect-uri", "Not a usable redirect URI"


def hash_secret(secret: str) -> str:
    """SHA-256 in hexadecimal: our secrets are 256 random bits, which need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def check_redirect_uri(uri: str) -> None:
    """Raise `BadRedirectUri` unless `uri` is absolute, without fragment, and https, loopback http, or a private
    scheme of an app (RFC 8252)."""
    parts = urlsplit(uri)
    loopback = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    app = "." in parts.scheme
    if "#" in uri or not (loopback or app or (parts.scheme == "https" and parts.hostname)):
        raise BadRedirectUri(
            f"{uri!r}: use https, http on 127.0.0.1, or an app's own scheme with a dot in it; no fragment."
        )


async def register_client(
    session: TenantSession, client_id: str, name: str, redirect_uris: list[str], *, refresh: bool = False
) -> OAuthClient:
    """Register a public client app, or replace what is known of one. With `refresh` it gets refresh tokens. Raises
    `BadRedirectUri`, `Invalid`."""
    if not redirect_uris:
        raise BadRedirectUri("An app needs at least one redirect URI.")
    for uri in redirect_uris:
        check_redirect_uri(uri)
    client = await put_client(session, client_id, "app")
    client.name, client.redirect_uris, client.refresh = name, redirect_uris, refresh
    return client


async def put_client(session: TenantSession, client_id: str, kind: str) -> OAuthClient:
    """The client with this id, or a new one whose other columns are to be set. Raises `Invalid`."""
    if not _CLIENT_ID.fullmatch(client_id):
        raise Invalid("A client id is 2 to 63 lowercase letters, digits and hyphens.")
    client = await session.scalar(select(OAuthClient).where(OAuthClient.client_id == client_id))
    if client is None:
        client = OAuthClient(id=new_id(), client_id=client_id, kind=kind)
        session.add(client)
    elif client.kind != kind:
        raise Invalid(f"{client_id!r} is registered as another kind of client; remove it first.")
    audit(session, None, "client.registered", client.id, client_id=client_id, operator=operator())
    return client


async def list_clients(session: TenantSession) -> Sequence[OAuthClient]:
    """The tenant's client apps by id; there are few."""
    return (await session.scalars(select(OAuthClient).order_by(OAuthClient.client_id))).all()


async def find_client(session: TenantSession, client_id: str, redirect_uri: str) -> OAuthClient:
    """The client, if `redirect_uri` is one of its own to the letter. Raises `OAuthError`, which must be shown and
    never redirected: the redirect URI is not to be trusted."""
    client = await session.scalar(select(OAuthClient).where(OAuthClient.client_id == client_id))
    if client is None or client.disabled_at is not None:
        raise OAuthError("invalid_client", "No client app of this id is registered here.")
    if redirect_uri not in client.redirect_uris:
        raise OAuthError("invalid_request", "The redirect URI is not registered for this client app.")
    return client


def check_challenge(challenge: str, method: str) -> None:
    """PKCE is required, with S256 (OAuth 2.1, 4.1.1). Raises `OAuthError`."""
    if method != "S256" or not _CHALLENGE.fullmatch(challenge):
        raise OAuthError(
            "invalid_request", "Send `code_challenge` with `code_challenge_method=S256` (RFC 7636)."
        )


async def make_code(session: TenantSession, login: LoginRequest, sign_in: SignInSession) -> str:
    """The one-time code of a successful sign-in."""
    code = secrets.token_urlsafe(32)
    session.add(
        AuthorizationCode(
            code_hash=hash_secret(code),
            session_id=sign_in.id,
            client_id=sign_in.client_id,
            redirect_uri=login.redirect_uri,
            code_challenge=login.code_challenge,
            scope=login.scope,
            expires_at=sign_in.expires_at,
        )
    )
    await session.flush()
    return code


def answer_url(redirect_uri: str, state: str | None, issuer: str, **answer: str) -> str:
    """Where to send the browser with `code` or `error`. `iss` keeps a code from being redeemed at another server by
    a client that talks to several (RFC 9207)."""
    answer |= {"iss": issuer} | ({"state": state} if state else {})
    separator = "&" if urlsplit(redirect_uri).query else "?"
    return f"{redirect_uri}{separator}{urlencode(answer)}"


async def forget_finished(session: TenantSession) -> None:
    """Delete sign-ins under way and codes that ended a day ago or earlier, and sign-in sessions after a month."""
    now = utcnow()
    for table in (LoginRequest, AuthorizationCode):
        await session.execute(delete(table).where(table.expires_at < now - timedelta(days=1)))
    ended = SignInSession.expires_at < now - timedelta(days=30)
    of_ended = RefreshToken.session_id.in_(select(SignInSession.id).where(ended))
    await session.execute(delete(RefreshToken).where(of_ended))
    await session.execute(delete(SignInSession).where(ended))
