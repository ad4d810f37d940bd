"""Making, renewing and removing local administrators, and their secrets under a new key: for the command line alone."""

import asyncio
import re
from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import delete, select

from auth.keys.service import DataKey
from auth.local.credentials import hash_password, new_totp_secret
from auth.local.errors import LocalAdministratorExists, LocalAdministratorNotFound
from auth.local.models import LocalAdministrator
from auth.local.service import totp_context
from auth.people.models import User
from core.crypto import seal, unseal
from core.database import Database, TenantScope, TenantSession
from core.ids import new_id
from core.problems import Invalid
from tenants.audit.service import audit, operator

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


async def create_administrator(session: TenantSession, key: DataKey, name: str, password: str) -> bytes:
    """Make a local administrator; returns the TOTP secret, which is not told again. Raises `WeakPassword`,
    `LocalAdministratorExists`, `Invalid`."""
    if not _NAME.fullmatch(name):
        raise Invalid("A name is 1 to 63 lowercase letters, digits, dots and hyphens.")
    if await session.scalar(select(LocalAdministrator.id).where(LocalAdministrator.name == name)):
        raise LocalAdministratorExists(f"{name!r} is there; `--reset` gives a new password and code.")
    user = User(user_name=name, display_name=f"Local administrator {name}", granted_roles=["tenant_admin"])
    session.add(user)
    await session.flush()
    administrator = LocalAdministrator(id=new_id(), user_id=user.id, name=name)
    secret = await _renew(session, key, administrator, password)
    session.add(administrator)
    audit(session, None, "local-administrator.created", user.id, name=name, operator=operator())
    await session.flush()
    return secret


async def reset_administrator(
    session: TenantSession, key: DataKey, name: str, password: str
) -> tuple[UUID, bytes]:
    """Give a new password and code, and lift lock and deactivation. Returns the user, whose sessions are to be ended,
    and the TOTP secret. Raises `WeakPassword`, `LocalAdministratorNotFound`."""
    administrator = await _find(session, name)
    secret = await _renew(session, key, administrator, password)
    user = await session.get_one(User, administrator.user_id, with_for_update=True)
    user.active = True
    audit(session, None, "local-administrator.reset", user.id, name=name, operator=operator())
    await session.flush()
    return user.id, secret


async def remove_administrator(session: TenantSession, name: str) -> UUID:
    """Remove a local administrator; returns the user, whose sessions are to be ended, and who stays, deactivated, for
    the audit log's sake. Raises `LocalAdministratorNotFound`."""
    administrator = await _find(session, name)
    user = await session.get_one(User, administrator.user_id, with_for_update=True)
    user.active = False
    await session.execute(delete(LocalAdministrator).where(LocalAdministrator.id == administrator.id))
    audit(session, None, "local-administrator.removed", user.id, name=name, operator=operator())
    await session.flush()
    return user.id


async def reseal_administrators(
    database: Database, tenant: TenantScope, data_keys: Mapping[UUID, bytes], new: UUID
) -> None:
    """Seal every TOTP secret by the data key `new`, one of `data_keys`. May run again after a crash. Raises
    `CannotOpen`."""
    async with database.tenant(tenant) as session:
        sealed_before = select(LocalAdministrator).where(LocalAdministrator.data_key_id != new)
        for administrator in await session.scalars(sealed_before.with_for_update()):
            context = totp_context(tenant, administrator)
            secret = unseal(data_keys[administrator.data_key_id], administrator.totp_sealed, context)
            administrator.totp_sealed = seal(data_keys[new], secret, context)
            administrator.data_key_id = new


async def _find(session: TenantSession, name: str) -> LocalAdministrator:
    administrator: LocalAdministrator | None = await session.scalar(
        select(LocalAdministrator).where(LocalAdministrator.name == name).with_for_update()
    )
    if administrator is None:
        raise LocalAdministratorNotFound(f"No local administrator of this tenant is called {name!r}.")
    return administrator


async def _renew(
    session: TenantSession, key: DataKey, administrator: LocalAdministrator, password: str
) -> bytes:
    secret = new_totp_secret()
    administrator.password_hash = await asyncio.to_thread(hash_password, password)
    administrator.totp_sealed = seal(key.secret, secret, totp_context(session.tenant, administrator))
    administrator.data_key_id = key.id
    administrator.last_step, administrator.failures, administrator.locked_until = None, 0, None
    return secret
