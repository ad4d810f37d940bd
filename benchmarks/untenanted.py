"""The gateway without tenancy: the same application on a pool whose connections belong to one schema for good."""

from typing import Any

import asyncpg
from fastapi import FastAPI

from core.cells import HOME
from core.database import Database, TenantConnection, make_engine
from core.settings import Settings
from gateway.app import create_app
from gateway.assembly import assemble, database_url


class _PlainConnection(TenantConnection):
    """Its `BEGIN` carries nothing."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        return await asyncpg.Connection.execute(self, query, *args, timeout=timeout)


def create_untenanted(settings: Settings, *, role: str, search_path: str) -> FastAPI:
    """The application of these settings, for whose only tenant role and path are set when a connection is made."""
    parts = assemble(settings)
    parts[Database]._tenants[HOME, 0] = make_engine(
        f"{database_url(settings)}?role={role}&search_path={search_path}",
        _PlainConnection,
        pool_size=settings.database_pool_size,
    )
    return create_app(parts)
