"""A tenant's keys: made at provisioning, wrapped at rest, unwrapped when first used.

Token keys are ES256 (RFC 7518), which verifies faster here than EdDSA and signs ten times faster than RS256.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from joserfc import jws
from joserfc.jwk import ECKey
from sqlalchemy import delete, select

from auth.keys.errors import KeyMissing
from auth.keys.models import PURPOSES, TenantKey
from auth.saml.request import new_sp_key
from core import crypto
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
    """The service provider's RSA key and self-signed certificate, PEM."""

    private_pem: str = field(repr=False)
    certificate_pem: str


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
    """Make an active key for each purpose that `tenant` has none for."""
    active = select(TenantKey.purpose).where(TenantKey.tenant_id == tenant.id, TenantKey.state == "active")
    present = set(await session.scalars(active))
    for purpose in PURPOSES:
        if purpose not in present:
            session.add(await asyncio.to_thread(generate, purpose, tenant, master))


async def delete_keys(session: ControlSession, tenant: Tenant) -> None:
    """Delete all keys of `tenant`, and with them what they have wrapped."""
    await session.execute(delete(TenantKey).where(TenantKey.tenant_id == tenant.id))


class KeyRing:
    """The keys of all tenants, each read and unwrapped once per process, and again when the tenant has changed."""

    def __init__(self, database: Database, master: MasterKey, directory: Directory) -> None:
        self._database = database
        self._master = master
        self._directory = directory
        self._active: dict[tuple[str, str], tuple[int, TenantKey, bytes]] = {}
        self._by_id: dict[tuple[str, UUID], bytes] = {}

    def _unwrap(self, tenant: TenantScope, row: TenantKey) -> bytes:
        return self._master.unwrap(tenant.key, f"{row.purpose}:{row.id}", row.private_wrapped)

    async def _get_active(self, tenant: TenantScope, purpose: str) -> tuple[TenantKey, bytes]:
        record = self._directory.by_key(tenant.key)
        epoch = record.epoch if record else -1
        held = self._active.get((tenant.key, purpose))
        if held is None or held[0] != epoch:
            async with self._database.control() as session:
                row = await session.scalar(
                    select(TenantKey)
                    .join(Tenant, Tenant.id == TenantKey.tenant_id)
                    .where(
                        Tenant.key == tenant.key, TenantKey.purpose == purpose, TenantKey.state == "active"
                    )
                )
            if row is None:
                raise KeyMissing(
                    f"No active {purpose} key; run `dermadetect tenants create` again to finish."
                )
            held = self._active[tenant.key, purpose] = (epoch, row, self._unwrap(tenant, row))
        return held[1], held[2]

    async def data_key(self, tenant: TenantScope) -> DataKey:
        """The key that wraps new patients' keys."""
        row, secret = await self._get_active(tenant, "data")
        return DataKey(row.id, secret)

    async def data_key_by_id(self, tenant: TenantScope, key_id: UUID) -> bytes:
        """The secret of the data key that wrapped an older patient's key. Raises `KeyMissing`."""
        if (tenant.key, key_id) not in self._by_id:
            async with self._database.control() as session:
                row = await session.scalar(
                    select(TenantKey)
                    .join(Tenant, Tenant.id == TenantKey.tenant_id)
                    .where(Tenant.key == tenant.key, TenantKey.id == key_id, TenantKey.purpose == "data")
                )
            if row is None:
                raise KeyMissing("The key of this record does not exist any more.")
            self._by_id[tenant.key, key_id] = self._unwrap(tenant, row)
        return self._by_id[tenant.key, key_id]

    async def saml_key(self, tenant: TenantScope) -> SamlKey:
        """The key that signs requests to the identity provider and opens encrypted assertions."""
        row, secret = await self._get_active(tenant, "saml")
        return SamlKey(secret.decode(), row.public["certificate"])

    async def token_key(self, tenant: TenantScope) -> ECKey:
        """The private key that signs the tenant's tokens; its `kid` is set."""
        row, secret = await self._get_active(tenant, "token")
        return ECKey.import_key(secret, {"kid": str(row.id), "use": "sig", "alg": "ES256"})

    async def sign(self, tenant: TenantScope, payload: bytes, typ: str) -> str:
        """A compact JWS (RFC 7515) over `payload` by the tenant's token key; `typ` keeps it from being taken for
        an access token."""
        key = await self.token_key(tenant)
        return jws.serialize_compact(
            {"alg": "ES256", "kid": key.kid, "typ": typ}, payload, key, algorithms=["ES256"]
        )


async def public_token_keys(session: ControlSession, tenant: TenantScope) -> list[dict[str, Any]]:
    """The JWKs that verify this tenant's tokens: the active key and those being retired."""
    rows = await session.scalars(
        select(TenantKey)
        .join(Tenant, Tenant.id == TenantKey.tenant_id)
        .where(Tenant.key == tenant.key, TenantKey.purpose == "token", TenantKey.state != "retired")
        .order_by(TenantKey.id.desc())
    )
    return [row.public for row in rows]
