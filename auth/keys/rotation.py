"""A tenant's keys replaced: in turn, so that nothing that was signed or is cached fails, or at once when one has leaked.

All that will happen is written down when it is decided, as times: the next key is published before it is used, and the one
before it holds until nothing that it signed does. Processes know of it within a second (the tenant's epoch).
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select

from auth.keys.errors import BadRotation, KeyInUse, KeyMissing, KeyNotFound, RotationUnderWay
from auth.keys.models import TenantKey
from auth.keys.service import active, generate, state_of, usable
from core.clock import utcnow
from core.crypto import MasterKey
from core.database import ControlSession
from tenants.audit.service import record
from tenants.directory.models import Tenant
from tenants.directory.service import find_tenant, next_epoch

PUBLISHED_FIRST = {
    "token": timedelta(minutes=10),  # twice as long as consumers may keep the key set
    "saml": timedelta(days=7),  # somebody takes the new certificate to the identity provider
    "data": timedelta(0),
}
OVERLAP = {
    "token": timedelta(hours=1),  # the longest life of a token
    "saml": timedelta(days=7),  # an identity provider may go on encrypting to the old certificate
    "data": timedelta(0),  # opens what it wrapped for ever
}
_CLOCKS = timedelta(minutes=1)  # by which a gateway's clock may be behind: what ends now has ended there, too


async def list_keys(session: ControlSession, tenant: Tenant) -> Sequence[tuple[TenantKey, str]]:
    """All keys of a tenant with their states, by purpose, the newest first."""
    rows = await session.scalars(
        select(TenantKey)
        .where(TenantKey.tenant_id == tenant.id)
        .order_by(TenantKey.purpose, TenantKey.id.desc())
    )
    keys, now = rows.all(), utcnow()
    return [(key, state_of(key, [k for k in keys if k.purpose == key.purpose], now)) for key in keys]


async def find_key(session: ControlSession, slug: str, key_id: UUID) -> tuple[TenantKey, str]:
    """One key with its state. Raises `TenantNotFound`, `KeyNotFound`."""
    tenant = await find_tenant(session, slug)
    for key, state in await list_keys(session, tenant):
        if key.id == key_id:
            return key, state
    raise KeyNotFound(f"{tenant.slug} has no key {key_id}; `dermadetect keys list` shows them.")


async def rotate(
    session: ControlSession,
    slug: str,
    purpose: str,
    master: MasterKey,
    *,
    use_after: timedelta,
    retire_after: timedelta,
    token_life: timedelta,
) -> TenantKey:
    """Publish a key that takes over in `use_after`; the one before it retires `retire_after` later.

    Raises `TenantNotFound`, `KeyMissing`, `RotationUnderWay`, and `BadRotation` where tokens would outlive their key.
    """
    if purpose == "token" and retire_after < token_life:
        raise BadRotation(
            f"Tokens live {token_life.total_seconds():.0f} s, so their key must hold as long after the last of them; "
            "to refuse them at once, revoke the key."
        )
    tenant, keys = await _locked(session, slug, purpose)
    now = utcnow()
    (last,) = (key for key in keys if key.retires_at is None)
    if last.active_from > now:
        raise RotationUnderWay(
            f"The key {last.id} takes over at {last.active_from:%Y-%m-%d %H:%M:%S} UTC; retire it to call that off."
        )
    made = await asyncio.to_thread(generate, purpose, tenant, master)
    made.active_from = now + use_after
    last.retires_at = made.active_from + retire_after
    await session.flush()  # the last of a purpose is one
    session.add(made)
    await _tell(
        session, tenant, "key.rotated", made, former=str(last.id), retires_at=last.retires_at.isoformat()
    )
    return made


async def revoke(session: ControlSession, slug: str, purpose: str, master: MasterKey) -> TenantKey:
    """Replace all keys of a purpose at once: for one that has leaked. What they signed is refused, but reports still
    verify. Raises `TenantNotFound`, `KeyMissing`."""
    tenant, keys = await _locked(session, slug, purpose)
    now = utcnow()
    gone = usable(keys, now)
    for key in gone:
        key.retires_at = now - _CLOCKS
    await session.flush()
    made = await asyncio.to_thread(generate, purpose, tenant, master)
    made.active_from = now - _CLOCKS
    session.add(made)
    await _tell(session, tenant, "key.revoked", made, former=[str(key.id) for key in gone])
    return made


async def retire(session: ControlSession, slug: str, key_id: UUID) -> TenantKey:
    """Have done with a key before its time. If it is in use, the next one takes over now; if it is the next one, the
    rotation is called off. Idempotent. Raises `TenantNotFound`, `KeyNotFound`, `KeyInUse` where nothing follows it."""
    tenant = await find_tenant(session, slug, lock=True)
    key, state = await find_key(session, slug, key_id)
    if state == "retired":
        return key
    keys, now = await _keys(session, tenant, key.purpose), utcnow()
    others = [each for each in usable(keys, now) if each is not key]
    if not others or (state == "active" and key.retires_at is None):
        raise KeyInUse(f"No {key.purpose} key follows it; `dermadetect keys rotate` makes one.")
    key.retires_at = now - _CLOCKS
    await session.flush()
    if state == "next":
        heir = active(others, now)
        assert heir is not None
        heir.retires_at = None
    elif state == "active":
        heir = max(others, key=lambda each: each.active_from)
        heir.active_from = now - _CLOCKS
    await _tell(session, tenant, "key.retired", key, was=state)
    return key


async def _locked(session: ControlSession, slug: str, purpose: str) -> tuple[Tenant, Sequence[TenantKey]]:
    tenant = await find_tenant(session, slug, lock=True)
    keys = await _keys(session, tenant, purpose)
    if active(keys, utcnow()) is None:
        raise KeyMissing(f"{tenant.slug} is {tenant.state} and has no {purpose} key.")
    return tenant, keys


async def _keys(session: ControlSession, tenant: Tenant, purpose: str) -> Sequence[TenantKey]:
    query = select(TenantKey).where(TenantKey.tenant_id == tenant.id, TenantKey.purpose == purpose)
    return (await session.scalars(query)).all()


async def _tell(
    session: ControlSession, tenant: Tenant, action: str, key: TenantKey, **detail: object
) -> None:
    tenant.epoch = await next_epoch(session)
    record(
        session,
        tenant,
        action,
        purpose=key.purpose,
        key=str(key.id),
        active_from=key.active_from.isoformat(),
        **detail,
    )
    await session.flush()
