"""What an operator says about an OpenID provider, and what can be found out about it without signing in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select

from auth.connections.errors import BadConnection
from auth.connections.fetching import AddressRefused, ProviderUnreachable
from auth.connections.models import Connection
from auth.connections.settings import find_connection, new_connection, put_connection
from auth.keys.service import DataKey
from auth.oidc.errors import ProviderUnusable
from auth.oidc.models import CLIENT_AUTH, WITH_SECRET, OidcConnection
from auth.oidc.provider import KEY_TYPES, Provider, Providers
from core import crypto
from core.database import ControlSession
from core.ids import new_id
from tenants.directory.models import Tenant
from tenants.directory.service import find_tenant

SCOPES = ("openid", "email", "profile")


async def set_connection(
    session: ControlSession,
    slug: str,
    *,
    name: str,
    issuer: str,
    client_id: str,
    client_auth: str,
    secret: str | None = None,
    data_key: DataKey | None = None,
    scopes: Sequence[str] | None = None,
    **terms: Any,
) -> Connection:
    """Name a tenant's OpenID provider and what its groups may do (`terms`, see `put_connection`). `secret` is sealed by
    the tenant's `data_key`; None keeps the one that was given before. Raises `BadConnection`.

    Another issuer under the same name is another connection to the people: its subjects are other people.
    """
    if not issuer.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise BadConnection("The issuer must be a https address (http only on loopback).")
    if client_auth not in CLIENT_AUTH:
        raise BadConnection(f"Choose how we prove ourselves to the provider: {', '.join(CLIENT_AUTH)}.")
    tenant = await find_tenant(session, slug, lock=True)
    found = await find_oidc(session, tenant, name)
    if found is None:
        connection = new_connection(tenant, name, "oidc", groups="groups", email="email", full_name="name")
        particulars = None
    else:
        connection, particulars = found
    if particulars is not None and particulars.issuer != issuer:
        await session.delete(particulars)
        await session.flush()
        particulars, connection.id = None, new_id()
    await put_connection(session, tenant, connection, **terms)
    if particulars is None:
        particulars = OidcConnection(
            tenant_id=tenant.id, id=connection.id, issuer=issuer, scopes=list(SCOPES)
        )
    particulars.client_id, particulars.client_auth = client_id, client_auth
    if scopes is not None:
        particulars.scopes = ["openid", *(each for each in scopes if each != "openid")]
    if client_auth not in WITH_SECRET:
        particulars.secret_sealed = particulars.secret_key_id = None
    elif secret is not None and data_key is not None:
        particulars.secret_key_id = data_key.id
        particulars.secret_sealed = crypto.seal(
            data_key.secret, secret.encode(), sealing_context(connection.id)
        )
    elif particulars.secret_sealed is None:
        raise BadConnection(f"{client_auth} needs the client secret.")
    session.add(particulars)
    await session.flush()
    return connection


async def find_oidc(
    session: ControlSession, tenant: Tenant, name: str
) -> tuple[Connection, OidcConnection] | None:
    """The tenant's OpenID connection of this name, if there is one. Raises `BadConnection`."""
    connection = await find_connection(session, tenant, name, "oidc")
    if connection is None:
        return None
    return connection, await session.get_one(OidcConnection, (tenant.id, connection.id))


async def reseal_secrets(
    session: ControlSession, tenant: Tenant, data_keys: Mapping[UUID, bytes], new: UUID
) -> None:
    """Seal every client secret by the data key `new`, one of `data_keys`. May run again after a crash. Raises
    `CannotOpen`."""
    sealed_before = select(OidcConnection).where(
        OidcConnection.tenant_id == tenant.id, OidcConnection.secret_key_id != new
    )
    for row in await session.scalars(sealed_before.with_for_update()):
        assert row.secret_key_id is not None
        assert row.secret_sealed is not None
        context = sealing_context(row.id)
        secret = crypto.unseal(data_keys[row.secret_key_id], row.secret_sealed, context)
        row.secret_sealed, row.secret_key_id = crypto.seal(data_keys[new], secret, context), new


def sealing_context(connection_id: UUID) -> str:
    """What a sealed secret belongs to. The key is the tenant's own, wherever the tenant is restored."""
    return f"oidc-secret|{connection_id}"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `ok` is None where nothing is wrong, but could be better."""

    check: str
    ok: bool | None
    says: str


async def examine(providers: Providers, particulars: OidcConnection) -> list[Check]:
    """What a sign-in would meet at the provider, as far as can be seen without anybody signing in."""
    try:
        provider = await providers.find(particulars.issuer)
    except (AddressRefused, ProviderUnreachable, ProviderUnusable) as problem:
        return [Check("oidc.discovery", False, problem.detail)]
    checks = [
        Check("oidc.discovery", True, "The discovery document was read, and its issuer is the connection's."),
        _told(
            "oidc.algorithm",
            bool(provider.algorithms),
            f"It signs ID tokens by {', '.join(provider.algorithms)}.",
            f"It signs ID tokens by no algorithm that we take: {', '.join(KEY_TYPES)}.",
        ),
        _told(
            "oidc.client-auth",
            particulars.client_auth in provider.client_auth,
            f"It takes {particulars.client_auth}.",
            f"It does not announce {particulars.client_auth}, but {', '.join(provider.client_auth)}.",
        ),
    ]
    if "S256" in provider.pkce:
        checks.append(Check("oidc.pkce", True, "It announces PKCE with S256."))
    else:
        checks.append(Check("oidc.pkce", None, "It does not announce PKCE; we send it all the same."))
    if provider.names_itself:
        checks.append(Check("oidc.response-issuer", True, "It names itself in its responses (RFC 9207)."))
    else:
        checks.append(
            Check("oidc.response-issuer", None, "It does not name itself in its responses (RFC 9207).")
        )
    return [*checks, await _keys(providers, provider)]


async def _keys(providers: Providers, provider: Provider) -> Check:
    try:
        count = await providers.count_keys(provider)
    except (AddressRefused, ProviderUnreachable, ProviderUnusable) as problem:
        return Check("oidc.keys", False, problem.detail)
    return _told(
        "oidc.keys",
        count > 0,
        f"It publishes {count} keys that can verify ID tokens.",
        "It publishes no key that could verify an ID token (RSA of 2048 bits, EC, Ed25519).",
    )


def _told(check: str, ok: bool, good: str, bad: str) -> Check:
    return Check(check, ok, good if ok else bad)
