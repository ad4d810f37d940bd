"""A tenant's keys: made at provisioning, wrapped at rest, unwrapped when first used.

Token keys are ES256 (RFC 7518), which verifies faster here than EdDSA and signs ten times faster than RS256.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from joserfc import jws
from joserfc.jwk import ECKey
from sqlalchemy import ColumnElement, delete, or_, select

from auth.keys.errors import KeyMissing
from auth.keys.masters import MasterKeys
from auth.keys.models import PURPOSES, TenantKey
from auth.saml.request import new_sp_key
from core import crypto
from core.clock import utcnow
from core.crypto import MasterKey
from core.database import ControlSession, Database, TenantScope
from core.ids import new_id
from tenants.directory.cache import Directory
from tenants.directory.models import Tenant


@dataclass(frozen=True)
class DataKey:
    """An AES-256 key that wraps patients' keys; `id` stands beside what it wrapped."""

    id: UUID
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class SamlKey:
    """The service provider's RSA key and self-signed certificate, PEM; `others` are such pairs, of the next key and of
    former ones."""

    private_pem: str = field(repr=False)
    certificate_pem: str
    others: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def generate(purpose: str, tenant: Tenant, master: MasterKey) -> TenantKey:
    """A new wrapped key of `tenant`, not yet in any session. An RSA key takes 50 ms of processor time."""
    key_id = new_id()
    public: dict[str, Any]
    if purpose == "token":
        key = ECKey.generate_key("P-256", {"kid": str(key_id), "use": "sig", "alg": "ES256"})
        private, public = key.as_pem(private=True), key.as_dict(private=False)
    elif purpose == "saml":
        private_pem, certificate_pem = new_sp_key(f"urn:uuid:{tenant.id}")
        private, public = private_pem.encode(), {"certificate": certificate_pem}
    else:
        private, public = crypto.new_key(), {}
    return TenantKey(
        id=key_id,
        tenant_id=tenant.id,
        purpose=purpose,
        kek_id=master.kek_id,
        private_wrapped=master.wrap(tenant.key, f"{purpose}:{key_id}", private),
        public=public,
    )


async def complete_keys(session: ControlSession, tenant: Tenant, master: MasterKey) -> None:
    """Make a key for each purpose that `tenant` has none for."""
    last = select(TenantKey.purpose).where(TenantKey.tenant_id == tenant.id, TenantKey.retires_at.is_(None))
    present = set(await session.scalars(last))
    for purpose in PURPOSES:
        if purpose not in present:
            session.add(await asyncio.to_thread(generate, purpose, tenant, master))


async def delete_keys(session: ControlSession, tenant: Tenant) -> None:
    """Delete all keys of `tenant`, and with them what they have wrapped."""
    await session.execute(delete(TenantKey).where(TenantKey.tenant_id == tenant.id))


def usable(keys: Iterable[TenantKey], now: datetime) -> list[TenantKey]:
    """Those of a purpose that are not retired: the next one, the active one, and those it has followed."""
    return [key for key in keys if key.retires_at is None or key.retires_at > now]


def active(keys: Iterable[TenantKey], now: datetime) -> TenantKey | None:
    """Which key of a purpose signs or wraps now: the one whose turn came last."""
    in_use = sorted(usable(keys, now), key=lambda key: key.active_from)
    begun = [key for key in in_use if key.active_from <= now]
    # A clock that is behind must not leave a new tenant without a key.
    return begun[-1] if begun else in_use[0] if in_use else None


def state_of(key: TenantKey, keys: Iterable[TenantKey], now: datetime) -> str:
    """What `key`, one of a purpose's `keys`, is: `next` is published and not used yet, `retiring` is not used any more
    but what it signed holds, `retired` verifies reports alone."""
    if key.retires_at is not None and key.retires_at <= now:
        return "retired"
    if key is active(keys, now):
        return "active"
    return "next" if key.active_from > now else "retiring"


class KeyRing:
    """The keys of all tenants, each read once per process and again when the tenant has changed, and unwrapped once."""

    def __init__(self, database: Database, masters: MasterKeys, directory: Directory) -> None:
        self._database = database
        self._masters = masters
        self._directory = directory
        self._keys: dict[tuple[str, str], tuple[int, list[TenantKey]]] = {}  # with the tenant's epoch
        self._secrets: dict[tuple[str, UUID], bytes] = {}

    async def _secret(self, tenant: TenantScope, row: TenantKey) -> bytes:
        name = (tenant.key, row.id)
        if name not in self._secrets:
            master = await self._masters.named(row.kek_id)
            self._secrets[name] = master.unwrap(tenant.key, f"{row.purpose}:{row.id}", row.private_wrapped)
        return self._secrets[name]

    async def _usable(self, tenant: TenantScope, purpose: str) -> list[TenantKey]:
        record = self._directory.by_key(tenant.key)
        epoch = record.epoch if record else -1
        held = self._keys.get((tenant.key, purpose))
        if held is None or held[0] != epoch:
            now = utcnow()
            async with self._database.control() as session:
                rows = await session.scalars(
                    select(TenantKey)
                    .join(Tenant, Tenant.id == TenantKey.tenant_id)
                    .where(Tenant.key == tenant.key, TenantKey.purpose == purpose, not_retired(now))
                )
                held = self._keys[tenant.key, purpose] = (epoch, list(rows))
        return usable(held[1], utcnow())

    async def _active(self, tenant: TenantScope, purpose: str) -> tuple[TenantKey, bytes]:
        row = active(await self._usable(tenant, purpose), utcnow())
        if row is None:
            raise KeyMissing(f"No {purpose} key is in use; run `dermadetect tenants create` again to finish.")
        return row, await self._secret(tenant, row)

    async def data_key(self, tenant: TenantScope) -> DataKey:
        """The key that wraps new patients' keys."""
        row, secret = await self._active(tenant, "data")
        return DataKey(row.id, secret)

    async def data_key_by_id(self, tenant: TenantScope, key_id: UUID) -> bytes:
        """The secret of the data key that wrapped an older patient's key. Raises `KeyMissing`."""
        if (tenant.key, key_id) in self._secrets:
            return self._secrets[tenant.key, key_id]
        async with self._database.control() as session:
            row = await session.scalar(
                select(TenantKey)
                .join(Tenant, Tenant.id == TenantKey.tenant_id)
                .where(Tenant.key == tenant.key, TenantKey.id == key_id, TenantKey.purpose == "data")
            )
        if row is None:
            raise KeyMissing("The key of this record does not exist any more.")
        return await self._secret(tenant, row)

    async def saml_key(self, tenant: TenantScope) -> SamlKey:
        """The key that signs requests to the identity provider and opens encrypted assertions, as the others do that are
        not retired."""
        signing, secret = await self._active(tenant, "saml")
        others = [row for row in await self._usable(tenant, "saml") if row is not signing]
        return SamlKey(
            secret.decode(),
            signing.public["certificate"],
            tuple(
                [((await self._secret(tenant, row)).decode(), row.public["certificate"]) for row in others]
            ),
        )

    async def token_key(self, tenant: TenantScope) -> ECKey:
        """The private key that signs the tenant's tokens; its `kid` is set."""
        row, secret = await self._active(tenant, "token")
        return ECKey.import_key(secret, {"kid": str(row.id), "use": "sig", "alg": "ES256"})

    async def sign(self, tenant: TenantScope, payload: bytes, typ: str) -> str:
        """A compact JWS (RFC 7515) over `payload` by the tenant's token key; `typ` keeps it from being taken for
        an access token."""
        key = await self.token_key(tenant)
        return jws.serialize_compact(
            {"alg": "ES256", "kid": key.kid, "typ": typ}, payload, key, algorithms=["ES256"]
        )


def not_retired(now: datetime) -> ColumnElement[bool]:
    """The condition of `usable`."""
    return or_(TenantKey.retires_at.is_(None), TenantKey.retires_at > now)


async def public_token_keys(session: ControlSession, tenant: TenantScope) -> list[dict[str, Any]]:
    """The JWKs that verify this tenant's tokens: the next key, the active one, and those that are retiring."""
    rows = await session.scalars(
        select(TenantKey)
        .join(Tenant, Tenant.id == TenantKey.tenant_id)
        .where(Tenant.key == tenant.key, TenantKey.purpose == "token", not_retired(utcnow()))
        .order_by(TenantKey.id.desc())
    )
    return [row.public for row in rows]
