"""Signing in through a tenant's OpenID provider: authorization code with PKCE and nonce (OpenID Connect Core 1.0, 3.1)."""

import asyncio
import base64
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from sqlalchemy import select

from auth.connections.fetching import ProviderUnreachable
from auth.connections.keeping import Said
from auth.connections.models import Connection
from auth.connections.service import (
    Asked,
    Asserted,
    SignIn,
    enter,
    refusals_recorded,
    remember,
    spend_request,
)
from auth.keys.service import KeyRing
from auth.oidc.client import CodeClient, ask_userinfo, redeem_code
from auth.oidc.errors import OidcRefused
from auth.oidc.models import OidcConnection
from auth.oidc.provider import Provider, Providers
from auth.oidc.settings import sealing_context
from auth.oidc.tokens import read_id_token
from core import crypto
from core.database import Database, TenantScope
from tenants.directory.models import Tenant

DEADLINE_S = 20.0  # for all that is asked of a provider in one sign-in

Trusted = tuple[Connection, OidcConnection]


@dataclass(frozen=True)
class Response:
    """What the browser brings back from the provider (RFC 6749, 4.1.2; `iss` by RFC 9207)."""

    state: str
    code: str = ""
    error: str = ""
    iss: str | None = None


def callback_url(origin: str, name: str) -> str:
    """Where the provider of the connection `name` sends people back. Each has its own, so that none can pass another's
    response for its own (RFC 9700, 4.4.2)."""
    return f"{origin}/auth/oidc/callback/{quote(name)}"


async def trusted(database: Database, tenant: TenantScope, which: Any) -> Trusted:
    """The connection that meets the condition `which`, unless it has been removed or switched off. Raises
    `OidcRefused`."""
    query = (
        select(Connection, OidcConnection)
        .join(
            OidcConnection,
            (OidcConnection.tenant_id == Connection.tenant_id) & (OidcConnection.id == Connection.id),
        )
        .join(Tenant, Tenant.id == Connection.tenant_id)
        .where(Tenant.key == tenant.key, Connection.enabled, which)
    )
    async with database.control() as session:
        row = (await session.execute(query)).one_or_none()
    if row is None:
        raise OidcRefused("login.connection-removed", "the connection is not in use any more")
    return row[0], row[1]


async def begin(
    database: Database,
    providers: Providers,
    where: SignIn,
    connection: Connection,
    asked: Asked,
    *,
    login_hint: str,
    browser_secret: str,
) -> str:
    """Remember a sign-in and return the provider's URL to send the browser to. Raises `ProviderUnreachable`,
    `ProviderUnusable`."""
    _, particulars = await trusted(database, where.tenant, Connection.id == connection.id)
    provider = await providers.find(particulars.issuer)
    state = secrets.token_urlsafe(32)
    client = CodeClient(
        None, client_id=particulars.client_id, redirect_uri=callback_url(where.origin, connection.name)
    )
    url, _ = client.create_authorization_url(
        provider.authorization_endpoint,
        state=state,
        scope=" ".join(particulars.scopes),
        nonce=_derived("nonce", state, browser_secret),
        code_verifier=_derived("verifier", state, browser_secret),
        **({"login_hint": login_hint} if login_hint else {}),
    )
    await remember(database, where, connection, asked, relay_secret=state, browser_secret=browser_secret)
    return str(url)


async def complete(
    database: Database,
    keys: KeyRing,
    providers: Providers,
    where: SignIn,
    name: str,
    response: Response,
    *,
    browser_secret: str,
) -> str:
    """Check what came back to the connection `name`, and return where to send the browser with its code.

    Raises `SignInRefused`, after writing the failed check to the tenant's audit log; `ProviderUnreachable` and
    `ProviderUnusable`.
    """
    async with refusals_recorded(database, where.tenant):
        login = await spend_request(database, where.tenant, response.state, browser_secret)
        connection, particulars = await trusted(database, where.tenant, Connection.id == login.connection_id)
        if connection.name != name:
            raise OidcRefused("oidc.other-connection", "this sign-in went to another provider")
        secret = await secret_of(keys, where.tenant, particulars)
        try:
            async with asyncio.timeout(DEADLINE_S):
                provider = await providers.find(particulars.issuer)
                _check_response(provider, response)
                answer = await redeem_code(
                    providers.fetcher,
                    provider,
                    client_id=particulars.client_id,
                    client_auth=particulars.client_auth,
                    secret=secret,
                    sign=partial(keys.sign, where.tenant, typ="JWT"),
                    code=response.code,
                    redirect_uri=callback_url(where.origin, name),
                    verifier=_derived("verifier", response.state, browser_secret),
                )
                nonce = _derived("nonce", response.state, browser_secret)
                claims = await _claims(providers, provider, connection, particulars, answer, nonce)
        except TimeoutError:
            raise ProviderUnreachable(f"The identity provider took longer than {DEADLINE_S:g} s.") from None
        person = _person(connection, claims)
        return await enter(database, where, connection, login, person, await keys.data_key(where.tenant))


async def recall(connection: Connection, particulars: OidcConnection, said: Said, at: datetime) -> Asserted:
    """Who it is by claims that were accepted before (`Asserted.said`), by the connection as it is given. Its provider's
    keys are not the connection's, so that no signature is left to check. Raises `OidcRefused`."""
    if said["claims"]["iss"] != particulars.issuer:
        raise OidcRefused("oidc.iss", "the token is another provider's")
    return _person(connection, said["claims"])


def _derived(purpose: str, state: str, browser_secret: str) -> str:
    """A secret of this sign-in in this browser: 43 characters that are kept nowhere. The provider's answer brings
    `state` back and the browser its cookie; who sees the one does not know the other, and here are hashes of both."""
    digest = hmac.digest(browser_secret.encode(), f"oidc {purpose} {state}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _check_response(provider: Provider, response: Response) -> None:
    if response.iss != provider.issuer and (response.iss is not None or provider.names_itself):
        raise OidcRefused("oidc.response-issuer", "the response is another provider's (RFC 9207)")
    if response.error:
        raise OidcRefused("oidc.provider-refused", "the provider did not sign the person in")
    if not response.code:
        raise OidcRefused("oidc.code-missing", "the response has no code")


async def secret_of(keys: KeyRing, tenant: TenantScope, particulars: OidcConnection) -> str | None:
    """The client secret, if there is one."""
    if particulars.secret_sealed is None or particulars.secret_key_id is None:
        return None
    key = await keys.data_key_by_id(tenant, particulars.secret_key_id)
    return crypto.unseal(key, particulars.secret_sealed, sealing_context(particulars.id)).decode()


async def _claims(
    providers: Providers,
    provider: Provider,
    connection: Connection,
    particulars: OidcConnection,
    answer: Mapping[str, Any],
    nonce: str,
) -> dict[str, Any]:
    """Everything that the provider says of the person; the ID token's word before the userinfo endpoint's."""
    token, access_token = answer.get("id_token"), answer.get("access_token")
    if not isinstance(token, str):
        raise OidcRefused("oidc.id-token-missing", "the token response has no ID token")
    claims = await read_id_token(
        providers,
        provider,
        token,
        client_id=particulars.client_id,
        nonce=nonce,
        access_token=access_token if isinstance(access_token, str) else None,
    )
    wanted = (connection.groups_attribute, connection.email_attribute, connection.name_attribute)
    if (
        provider.userinfo_endpoint
        and isinstance(access_token, str)
        and any(_claim(claims, name) is None for name in wanted)
    ):
        claims = await ask_userinfo(providers.fetcher, provider, access_token, claims["sub"]) | claims
    return claims


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by a path such as `realm_access.roles`."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _person(connection: Connection, claims: Mapping[str, Any]) -> Asserted:
    groups = _claim(claims, connection.groups_attribute)
    email, name = _claim(claims, connection.email_attribute), _claim(claims, connection.name_attribute)
    verified = claims.get("email_verified")
    session = claims.get("sid")
    return Asserted(
        external_id=claims["sub"],
        # Amazon Cognito sends the text.
        email=email if isinstance(email, str) and (verified is True or verified == "true") else None,
        display_name=name if isinstance(name, str) else None,
        groups=_texts(groups),
        session=session if isinstance(session, str) else None,
        said={"claims": claims},
    )


def _texts(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
