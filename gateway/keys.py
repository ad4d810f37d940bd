"""Keys rotated and wrapped anew: the verbs of `auth.keys`, with what the rooms above it have wrapped by them."""

from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta

from auth.connections.keeping import forget_sealed_before
from auth.keys.models import TenantKey
from auth.keys.rewrapping import Outcome, rewrap
from auth.keys.rotation import revoke, rotate
from auth.keys.transport import read_data_keys
from auth.local.administration import reseal_administrators
from auth.oidc.settings import reseal_secrets
from clinic.patients.resealing import rewrap_patients
from core.database import AdminDatabase
from core.settings import Settings
from gateway.assembly import master_keys, open_database
from tenants.directory.service import find_tenant


async def rotate_key(
    settings: Settings,
    admin: AdminDatabase,
    slug: str,
    purpose: str,
    *,
    use_after: timedelta,
    retire_after: timedelta,
    revoke_now: bool,
) -> TenantKey:
    """`auth.keys.rotation`, and what the tenant's data key had wrapped wrapped by a new one at once: the keys of
    patients, and the secrets of local administrators and of OpenID connections. Sign-ins that were kept stay with the
    key of their time, and go with one that is revoked."""
    async with aclosing(master_keys(settings, admin.control)) as masters:
        master = await masters.make()
        await masters.open_all()
        async with admin.control() as session:
            if revoke_now:
                made = await revoke(session, slug, purpose, master)
            else:
                made = await rotate(
                    session,
                    slug,
                    purpose,
                    master,
                    use_after=use_after,
                    retire_after=retire_after,
                    token_life=timedelta(seconds=settings.access_token_s),
                )
        if purpose == "data":
            async with admin.control() as session:
                tenant = await find_tenant(session, slug)
                data_keys = await read_data_keys(session, tenant, masters)
                await reseal_secrets(session, tenant, data_keys, made.id)
            database = open_database(settings)
            try:
                await rewrap_patients(database, tenant.scope, data_keys, made.id)
                await reseal_administrators(database, tenant.scope, data_keys, made.id)
                if revoke_now:
                    await forget_sealed_before(database, tenant.scope, made.id)
            finally:
                await database.close()
    return made


async def rewrap_keys(
    settings: Settings,
    admin: AdminDatabase,
    *,
    batch: int,
    dry_run: bool,
    progress: Callable[[int], None],
) -> Outcome:
    """`auth.keys.rewrapping` with the settings' master keys."""
    async with aclosing(master_keys(settings, admin.control)) as masters:
        return await rewrap(admin, masters, batch=batch, dry_run=dry_run, progress=progress)
