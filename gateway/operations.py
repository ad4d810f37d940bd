"""The verbs that can be ordered over the platform's API, with the parts they need."""

from collections.abc import Mapping
from typing import Any

from core.blobs import BlobStores
from core.database import AdminDatabase
from core.settings import Settings
from gateway.assembly import provisioning_steps
from gateway.lifecycle import move_tenant, purge_tenant
from migrations.rendering import head
from tenants.directory.models import Tenant
from tenants.moving.service import roll_back
from tenants.operations.service import Progress, Verb
from tenants.platform.schemas import TenantOut
from tenants.provisioning.service import provision


def platform_verbs(settings: Settings, stores: BlobStores) -> dict[str, Verb]:
    """By kind of operation."""

    async def create(admin: AdminDatabase, asked: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        return _shown(
            await provision(
                admin,
                provisioning_steps(settings, admin, stores),
                slug=asked["slug"],
                name=asked["name"],
                plan=asked["plan"],
                cell=asked["cell"],
                base_domain=settings.base_domain,
                schema_revision=head("tenant"),
                progress=progress,
            )
        )

    async def purge(admin: AdminDatabase, asked: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        tenant, now = asked["tenant"], asked["now"]
        return {
            "certificate": await purge_tenant(settings, admin, stores, tenant, now=now, progress=progress)
        }

    async def move(admin: AdminDatabase, asked: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        tenant, cell = asked["tenant"], asked["to_cell"]
        return _shown(await move_tenant(settings, admin, stores, tenant, cell, progress=progress))

    async def move_back(admin: AdminDatabase, asked: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        return _shown(await roll_back(admin, stores, asked["tenant"], progress=progress))

    return {"create": create, "purge": purge, "move": move, "move-back": move_back}


def _shown(tenant: Tenant) -> dict[str, Any]:
    return TenantOut.model_validate(tenant).model_dump(mode="json")
