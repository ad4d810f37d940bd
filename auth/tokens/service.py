"""Access tokens: JWT (RFC 9068), ES256, signed with the tenant's own key.

A token opens a tenant only where the host, `iss`, the owner of `kid`, `tid` and `aud` all belong to it. JOSE
libraries accept a missing `kid`, and joserfc accepts expired and foreign tokens until the claims are validated,
so both are demanded here.
"""

import hashlib
import json
import time
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from uuid import UUID

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry
from sqlalchemy import select

from auth.keys.models import TenantKey
from auth.keys.service import KeyRing
from auth.people.models import SignInSession
from auth.roles import scopes_of
from auth.tokens.errors import TokenRefused
from core.access import Principal
from core.database import Database
from core.ids import new_id
from tenants.directory.cache import Directory, TenantRecord
from tenants.directory.models import Tenant

AUDIENCE = "dermadetect"
MAX_TOKEN_LENGTH = 4096
MAX_HEADER_LENGTH = 400
MAX_CACHED = 20_000

_registry = JWSRegistry(algorithms=["ES256"])


@dataclass(frozen=True, slots=True)
class Issued:
    """An access token and its life in seconds."""

    access_token: str
    expires_in: int
    scope: str


async def issue(
    keys: KeyRing, tenant: TenantRecord, origin: str, session: SignInSession, scope: str, lifetime_s: int
) -> Issued:
    """Sign an access token for a sign-in session; `scope` must already be what the roles allow."""
    key = await keys.token_key(tenant.scope)
    now = int(time.time())
    claims = {
        "iss": origin,
        "aud": AUDIENCE,
        "sub": str(session.user_id),
        "tid": tenant.scope.key,
        "roles": list(session.roles),
        "scope": scope,
        "sid": str(session.id),
        "iat": now,
        "nbf": now,
        "exp": now + lifetime_s,
        "jti": str(new_id()),
    }
    token = jwt.encode({"alg": "ES256", "kid": key.kid, "typ": "at+jwt"}, claims, key, registry=_registry)
    return Issued(token, lifetime_s, scope)


@dataclass(slots=True)
class _Verified:
    principal: Principal
    expires: float
    epoch: int


class TokenVerifier:
    """Verifies access tokens, and remembers those it has verified until they expire, the tenant changes in any
    way, or the session is revoked."""

    def __init__(self, database: Database, directory: Directory) -> None:
        self._database = database
        self._directory = directory
        self._cache: dict[bytes, _Verified] = {}
        self._public_keys: dict[str, tuple[str, int, ECKey]] = {}  # kid -> tenant key, tenant epoch, key

    async def verify(self, token: str, tenant: TenantRecord, origin: str) -> Principal:
        """The principal a bearer token stands for at `tenant`. Raises `TokenRefused`."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise TokenRefused("token.too-long")
        # The tenant is part of the name: what one host has verified is nothing to another.
        name = hashlib.sha256(f"{tenant.scope.key}:{token}".encode()).digest()
        known = self._cache.get(name)
        if known is None or known.epoch != tenant.epoch:
            known = await self._verify(token, tenant, origin)
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()  # rare, and cheaper than an order kept at every request
            self._cache[name] = known
        if known.expires <= time.time():
            del self._cache[name]
            raise TokenRefused("token.expired")
        if self._directory.is_revoked(known.principal.session):
            raise TokenRefused("token.revoked")
        return known.principal

    async def _verify(self, token: str, tenant: TenantRecord, origin: str) -> _Verified:
        key = await self._public_key(_key_id(token), tenant)
        try:
            decoded = jwt.decode(token, key, registry=_registry)
            if decoded.header.get("typ") != "at+jwt":
                raise TokenRefused("token.type")
            jwt.JWTClaimsRegistry(
                iss={"essential": True, "value": origin},
                aud={"essential": True, "value": AUDIENCE},
                tid={"essential": True, "value": tenant.scope.key},
                exp={"essential": True},
                nbf={"essential": True},
                iat={"essential": True},
                sub={"essential": True},
                sid={"essential": True},
            ).validate(decoded.claims)
            claims = decoded.claims
            principal = Principal(
                tenant=tenant.scope,
                kind="user",
                subject=UUID(claims["sub"]),
                session=UUID(claims["sid"]),
                roles=frozenset(claims["roles"]),
                scopes=frozenset(claims["scope"].split()),
            )
        except JoseError as error:
            raise TokenRefused(f"token.{error.error}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise TokenRefused("token.claims") from None
        return _Verified(principal, float(claims["exp"]), tenant.epoch)

    async def _public_key(self, kid: str, tenant: TenantRecord) -> ECKey:
        known = self._public_keys.get(kid)
        if known is None or known[1] != tenant.epoch:
            async with self._database.control() as session:
                row = (
                    await session.execute(
                        select(TenantKey.public, Tenant.key)
                        .join(Tenant, Tenant.id == TenantKey.tenant_id)
                        .where(
                            TenantKey.id == UUID(kid),
                            TenantKey.purpose == "token",
                            TenantKey.state != "retired",
                            Tenant.key == tenant.scope.key,
                        )
                    )
                ).one_or_none()
            if row is None:
                raise TokenRefused("token.unknown-key")
            known = self._public_keys[kid] = (row.key, tenant.epoch, ECKey.import_key(row.public))
        if known[0] != tenant.scope.key:
            raise TokenRefused("token.foreign-key")
        return known[2]


def _key_id(token: str) -> str:
    """The `kid` of a compact JWS whose header holds nothing but `alg`, `kid` and `typ`."""
    try:
        encoded, _, _ = token.split(".")
        if len(encoded) > MAX_HEADER_LENGTH:  # ours has about 100; nested brackets cost the parser its stack
            raise TokenRefused("token.header")
        header = json.loads(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
        if set(header) != {"alg", "kid", "typ"} or header["alg"] != "ES256":
            raise TokenRefused("token.header")
        return str(UUID(header["kid"]))
    except (ValueError, TypeError, AttributeError):
        raise TokenRefused("token.malformed") from None


def granted_scope(requested: str, roles: list[str]) -> str:
    """The requested scopes (all, when none are named) that the roles allow, sorted."""
    allowed = scopes_of(roles)
    return " ".join(sorted(allowed & set(requested.split()) if requested else allowed))
