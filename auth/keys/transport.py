"""A tenant's keys on their way out of the platform and back in, wrapped by one key and then by another."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select

from auth.keys.errors import KeysLocked
from auth.keys.masters import MasterKeys
from auth.keys.models import TenantKey
from core.clock import utcnow
from core.crypto import CannotOpen, MasterKey
from core.database import ControlSession, TenantScope
from tenants.directory.models import Tenant
from tenants.portability.bundle import Key


async def gather_keys(
    session: ControlSession, tenant: Tenant, masters: MasterKeys, wrapping: MasterKey
) -> list[Key]:
    """Every key of the tenant, wrapped by `wrapping`. The `masters` are open already."""
    rows = await session.scalars(
        select(TenantKey).where(TenantKey.tenant_id == tenant.id).order_by(TenantKey.id)
    )
    return [
        Key(
            id=row.id,
            purpose=row.purpose,
            active_from=row.active_from,
            retires_at=row.retires_at,
            private_wrapped=_rewrap(
                row, tenant.scope, await masters.named(row.kek_id), tenant.scope, wrapping
            ).hex(),
            public=row.public,
        )
        for row in rows
    ]


def check_keys(keys: Sequence[Key], former: TenantScope, wrapping: MasterKey) -> None:
    """Raise `KeysLocked` unless all of them open."""
    try:
        for each in keys:
            wrapping.unwrap(former.key, f"{each.purpose}:{each.id}", bytes.fromhex(each.private_wrapped))
    except CannotOpen:
        raise KeysLocked("It is not the passphrase, or the keys are none of ours.") from None


def scatter_keys(
    session: ControlSession,
    tenant: Tenant,
    keys: Sequence[Key],
    former: TenantScope,
    wrapping: MasterKey,
    master: MasterKey,
    *,
    same_home: bool,
) -> None:
    """Give a restored tenant the keys of `former`. What signed tokens still verifies old reports, and no
    token; the service provider's key stays only where its entity id does (`same_home`)."""
    now = utcnow()
    for each in keys:
        if each.purpose == "saml" and not same_home:
            continue
        row = TenantKey(
            id=each.id,
            tenant_id=tenant.id,
            purpose=each.purpose,
            active_from=each.active_from,
            retires_at=min(each.retires_at or now, now) if each.purpose == "token" else each.retires_at,
            kek_id=master.kek_id,
            private_wrapped=bytes.fromhex(each.private_wrapped),
            public=each.public,
        )
        row.private_wrapped = _rewrap(row, former, wrapping, tenant.scope, master)
        session.add(row)


async def read_data_keys(session: ControlSession, tenant: Tenant, masters: MasterKeys) -> dict[UUID, bytes]:
    """The secrets that wrap the keys of a tenant's patients. The `masters` are open already."""
    rows = await session.scalars(
        select(TenantKey).where(TenantKey.tenant_id == tenant.id, TenantKey.purpose == "data")
    )
    return {
        row.id: (await masters.named(row.kek_id)).unwrap(tenant.key, f"data:{row.id}", row.private_wrapped)
        for row in rows
    }


def _rewrap(
    row: TenantKey, former: TenantScope, old: MasterKey, tenant: TenantScope, new: MasterKey
) -> bytes:
    purpose = f"{row.purpose}:{row.id}"
    return new.wrap(tenant.key, purpose, old.unwrap(former.key, purpose, row.private_wrapped))
