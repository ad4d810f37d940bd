"""Access tokens: JWT (RFC 9068), ES256, signed with the tenant's own key.

A token opens a tenant only where the host, `iss`, the owner of `kid`, `tid` and `aud` all belong to it. JOSE
libraries accept a missing `kid`, and joserfc accepts expired and foreign tokens until the claims are validated,
so both are demanded here.
"""

import hashlib
import json
import math
import time
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal
from uuid import UUID

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry
from sqlalchemy import select

from auth.keys.models import TenantKey
from auth.keys.service import KeyRing, not_retired
from auth.people.models import SignInSession
from auth.roles import SERVICE, scopes_of
from auth.tokens.errors import TokenRefused
from core.access import Principal
from core.clock import utcnow
from core.database import Database
from core.ids import new_id
from tenants.directory.cache import Directory, TenantRecord
from tenants.directory.models import Tenant

AUDIENCE = "dermadetect"
MAX_TOKEN_LENGTH = 4096
MAX_HEADER_LENGTH = 400

_KINDS: dict[str, Literal["user", "client"]] = {"user": "user", "client": "client"}

_registry = JWSRegistry(algorithms=["ES256"])


@dataclass(frozen=True, slots=True)
class Issued:
    """An access token and its life in seconds."""

    access_token: str
    expires_in: int
    scope: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine client by its row's id, and the id of the secret by which it proved itself."""

    id: UUID
    secret_id: UUID


async def issue(
    keys: KeyRing,
    tenant: TenantRecord,
    origin: str,
    session: SignInSession,
    scope: str,
    lifetime_s: int,
    *,
    acting: Machine | None = None,
) -> Issued:
    """Sign an access token for a sign-in session; `scope` must already be what the roles allow. With `acting` it is
    for a machine client that acts on behalf of the session's user (RFC 8693, 4.1)."""
    claims: dict[str, Any] = {"sub": str(session.user_id), "sid": str(session.id), "roles": session.roles}
    if acting:
        claims |= {"act": {"sub": str(acting.id)}, "cred": str(acting.secret_id)}
    return await _sign(keys, tenant, origin, claims, scope, lifetime_s)


async def issue_to_machine(
    keys: KeyRing, tenant: TenantRecord, origin: str, machine: Machine, scope: str, lifetime_s: int
) -> Issued:
    """Sign an access token for a machine client itself; it is of no session but its own."""
    claims = {
        "sub": str(machine.id),
        "sid": str(new_id()),
        "roles": [SERVICE],
        "kind": "client",
        "cred": str(machine.secret_id),
    }
    return await _sign(keys, tenant, origin, claims, scope, lifetime_s)


async def _sign(
    keys: KeyRing, tenant: TenantRecord, origin: str, claims: dict[str, Any], scope: str, lifetime_s: int
) -> Issued:
    key = await keys.token_key(tenant.scope)
    now = int(time.time())
    claims |= {
        "iss": origin,
        "aud": AUDIENCE,
        "tid": tenant.scope.key,
        "scope": scope,
        "iat": now,
        "nbf": now,
        "exp": now + lifetime_s,
        "jti": str(new_id()),
    }
    token = jwt.encode({"alg": "ES256", "kid": key.kid, "typ": "at+jwt"}, claims, key, registry=_registry)
    return Issued(token, lifetime_s, scope)


@dataclass(slots=True)
class _Verified:
    """`ids` are of the session and of the secret that the token was issued for: if one ends, so does it. `expires` is
    when the token does or its key retires, `epoch` the tenant's when it was verified."""

    principal: Principal
    ids: frozenset[UUID]
    expires: float
    epoch: int


class TokenVerifier:
    """Verifies access tokens, and remembers those it has verified until they expire, the tenant changes in any
    way (its keys too), or the session is revoked.

    It remembers in two generations of at most so many tokens: a full one becomes the old one, and what is not asked for
    again is forgotten with it.
    """

    def __init__(self, database: Database, directory: Directory, *, generation: int = 10_000) -> None:
        self._database = database
        self._directory = directory
        self._generation = generation
        self._young: dict[bytes, _Verified] = {}
        self._old: dict[bytes, _Verified] = {}
        # A tenant's epoch, and its keys by kid with the time at which each retires.
        self._keys: dict[str, tuple[int, dict[str, tuple[ECKey, float]]]] = {}

    def __len__(self) -> int:
        """How many tokens are remembered."""
        return len(self._young) + len(self._old)

    async def verify(self, token: str, tenant: TenantRecord, origin: str) -> Principal:
        """The principal a bearer token stands for at `tenant`. Raises `TokenRefused`."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise TokenRefused("token.too-long")
        # The tenant is part of the name: what one host has verified is nothing to another.
        name = hashlib.sha256(f"{tenant.scope.key}:{token}".encode()).digest()
        known = self._young.get(name)
        if known is None or known.epoch != tenant.epoch:
            known = self._old.get(name)
            if known is None or known.epoch != tenant.epoch:
                known = await self._verify(token, tenant, origin)
            if len(self._young) >= self._generation:
                self._young, self._old = {}, self._young
            self._young[name] = known
        if known.expires <= time.time():
            self._young.pop(name, None)
            raise TokenRefused("token.expired")
        if self._directory.is_revoked(known.ids):
            raise TokenRefused("token.revoked")
        return known.principal

    async def _verify(self, token: str, tenant: TenantRecord, origin: str) -> _Verified:
        kid = _key_id(token)
        keys = await self._keys_of(tenant)
        if kid not in keys or keys[kid][1] <= time.time():
            raise TokenRefused("token.unknown-key")
        key, retires = keys[kid]
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
                kind=_KINDS[claims.get("kind", "user")],
                subject=UUID(claims["sub"]),
                session=UUID(claims["sid"]),
                roles=frozenset(claims["roles"]),
                scopes=_scopes(claims["scope"]),
                acting=UUID(claims["act"]["sub"]) if "act" in claims else None,
            )
            ids = {principal.session, UUID(claims["cred"])} if "cred" in claims else {principal.session}
        except JoseError as error:
            raise TokenRefused(f"token.{error.error}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise TokenRefused("token.claims") from None
        expires = min(float(claims["exp"]), retires)
        return _Verified(principal, frozenset(ids), expires, tenant.epoch)

    async def _keys_of(self, tenant: TenantRecord) -> dict[str, tuple[ECKey, float]]:
        """All at once, so that a `kid` that somebody made up costs no question to the database."""
        known = self._keys.get(tenant.scope.key)
        if known is None or known[0] != tenant.epoch:
            async with self._database.control() as session:
                rows = await session.execute(
                    select(TenantKey.id, TenantKey.public, TenantKey.retires_at)
                    .join(Tenant, Tenant.id == TenantKey.tenant_id)
                    .where(
                        Tenant.key == tenant.scope.key, TenantKey.purpose == "token", not_retired(utcnow())
                    )
                )
                keys = {
                    str(row.id): (
                        ECKey.import_key(row.public),
                        row.retires_at.timestamp() if row.retires_at else math.inf,
                    )
                    for row in rows
                }
            known = self._keys[tenant.scope.key] = (tenant.epoch, keys)
        return known[1]


@lru_cache(maxsize=256)
def _scopes(scope: str) -> frozenset[str]:
    """One set for all tokens of one scope: of their own they would be half of what is remembered of a token."""
    return frozenset(scope.split())


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


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a token that has been verified."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def granted_scope(requested: str, roles: list[str]) -> str:
    """The requested scopes (all, when none are named) that the roles allow, sorted."""
    allowed = scopes_of(roles)
    return " ".join(sorted(allowed & set(requested.split()) if requested else allowed))
